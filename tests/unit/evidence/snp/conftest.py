# SPDX-License-Identifier: Apache-2.0
"""AMD's certificates, chips and reports, made here: a world of its own for each product."""

from datetime import UTC, datetime, timedelta

import pytest
from asn1crypto import algos, core, pem
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from imagers.evidence.snp.certificates import Authority, parse_leaf
from imagers.evidence.snp.report import PRODUCTS, REPORT_BYTES, SIGNED_BYTES, parse_report

NOW = datetime(2026, 11, 29, tzinfo=UTC)
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
ARC = "1.3.6.1.4.1.3704.1."
CPUID = {"Milan": (0x19, 0x01), "Genoa": (0x19, 0xA0), "Turin": (0x1A, 0x02)}
NUMBERS = {"fmc": "3.9", "bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8"}
TCB_AT = (0x038, 0x180, 0x1E0, 0x1F0)


def name(common):
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common),
        ]
    )


class World:
    """The authorities of one product, and one chip."""

    def __init__(self, product, keys):
        self.product = PRODUCTS[product]
        self.keys = keys
        self.chip_key = ec.generate_private_key(ec.SECP384R1())
        size = 8 if product == "Turin" else 64
        self.chip_id = bytes(range(1, size + 1))
        self.tcb = {"fmc": 1} if product == "Turin" else {}
        self.tcb |= {"bootloader": 3, "tee": 2, "snp": 8, "microcode": 115}
        ark = self.issue("ARK", f"ARK-{product}", "ARK", serial=65536)
        ask = self.issue("ASK", f"SEV-{product}", "ARK", serial=65537)
        asvk = self.issue("ASVK", f"SEV-VLEK-{product}", "ARK", serial=65538)
        self.authority = Authority(self.product, ark, ask, asvk)

    @property
    def roots(self):
        """ASK, ARK and ASVK in PEM, as a verifier takes them."""
        parts = (self.authority.ask, self.authority.ark, self.authority.asvk)
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in parts)

    def issue(self, key, subject, issuer, *, serial=1, begin=NOW, days=3650):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(f"ARK-{self.product.name}"))
            .public_key(self.keys[key].public_key())
            .serial_number(serial)
            .not_valid_before(begin - timedelta(days=1))
            .not_valid_after(begin + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        return builder.sign(self.keys[issuer], hashes.SHA384(), rsa_padding=PSS)

    def leaf_der(self, *, vlek=False, signer=None, changes=None, begin=NOW, days=2555, key=None):
        """A certificate of the chip with serial number 0, which cryptography does not make."""
        product = {"Milan": "Milan-B0"}.get(self.product.name, self.product.name)
        extensions = {"2": core.IA5String(product).dump()}
        for part, value in self.tcb.items():
            extensions[NUMBERS[part]] = core.Integer(value).dump()
        if not vlek:
            extensions["4"] = self.chip_id
        extensions |= changes or {}
        pss = algos.SignedDigestAlgorithm(
            {
                "algorithm": "rsassa_pss",
                "parameters": {
                    "hash_algorithm": {"algorithm": "sha384"},
                    "mask_gen_algorithm": {
                        "algorithm": "mgf1",
                        "parameters": {"algorithm": "sha384"},
                    },
                    "salt_length": 48,
                },
            }
        )
        spki = (key or self.chip_key).public_key()
        body = asn1_x509.TbsCertificate(
            {
                "version": "v3",
                "serial_number": 0,
                "signature": pss,
                "issuer": asn1_x509.Name.build({"common_name": f"SEV-{self.product.name}"}),
                "validity": {
                    "not_before": asn1_x509.Time({"utc_time": begin - timedelta(days=1)}),
                    "not_after": asn1_x509.Time({"utc_time": begin + timedelta(days=days)}),
                },
                "subject": asn1_x509.Name.build(
                    {"common_name": "SEV-VLEK" if vlek else "SEV-VCEK"}
                ),
                "subject_public_key_info": asn1_x509.PublicKeyInfo.load(
                    spki.public_bytes(
                        serialization.Encoding.DER,
                        serialization.PublicFormat.SubjectPublicKeyInfo,
                    )
                ),
                "extensions": [
                    {
                        "extn_id": ARC + oid if oid[0].isdigit() and len(oid) < 5 else oid,
                        "critical": oid.startswith("2.5"),
                        "extn_value": core.ParsableOctetString(value),
                    }
                    for oid, value in extensions.items()
                    if value is not None
                ],
            }
        )
        signer = signer or ("ASVK" if vlek else "ASK")
        signature = self.keys[signer].sign(body.dump(), PSS, hashes.SHA384())
        return asn1_x509.Certificate(
            {"tbs_certificate": body, "signature_algorithm": pss, "signature_value": signature}
        ).dump()

    def leaf(self, **changes):
        return parse_leaf(self.leaf_der(**changes), what="leaf")

    def raw_report(self, *, version=5, key=None, tcb=None, chip_id=None, **changes):
        """The bytes of a good report, with these fields changed and then signed."""
        raw = bytearray(REPORT_BYTES)

        def put(offset, data):
            raw[offset : offset + len(data)] = data

        numbers = {0x000: version, 0x008: 0x30000, 0x034: 1} | changes.pop("numbers", {})
        for offset, value in numbers.items():
            put(offset, value.to_bytes(8 if offset in (0x008, 0x040) else 4, "little"))
        if version >= 3:
            put(0x188, bytes((*CPUID[self.product.name], 1)))
        for offset in TCB_AT:
            for part, value in {**self.tcb, **(tcb or {}).get(offset, {})}.items():
                raw[offset + self.product.tcb[part]] = value
        put(0x1A0, self.chip_id if chip_id is None else chip_id)
        put(0x1E8, bytes((2, 55, 1)))
        put(0x1EC, bytes((1, 55, 1)))
        put(0x090, b"m" * 48)
        for offset, data in changes.pop("bytes_at", {}).items():
            put(offset, data)
        signature = (key or self.chip_key).sign(
            bytes(raw[:SIGNED_BYTES]), ec.ECDSA(hashes.SHA384())
        )
        for at, value in enumerate(utils.decode_dss_signature(signature)):
            put(SIGNED_BYTES + 72 * at, value.to_bytes(48, "little"))
        return bytes(raw)

    def report(self, **changes):
        return parse_report(self.raw_report(**changes))

    def crl(self, *, signer="ARK", revoked=(), begin=NOW, days=30, extensions=()):
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name(f"ARK-{self.product.name}"))
            .last_update(begin - timedelta(days=1))
            .next_update(begin + timedelta(days=days))
        )
        for value, critical in extensions:
            builder = builder.add_extension(value, critical=critical)
        for serial in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(NOW - timedelta(days=1))
                .build()
            )
        made = builder.sign(self.keys[signer], hashes.SHA384(), rsa_padding=PSS)
        return made.public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="session")
def rsa_keys():
    names = ("ARK", "ASK", "ASVK", "other")
    return {one: rsa.generate_private_key(65537, 4096) for one in names}


@pytest.fixture(scope="session", params=["Milan", "Genoa", "Turin"])
def world(request, rsa_keys):
    return World(request.param, rsa_keys)


@pytest.fixture(scope="session")
def genoa(rsa_keys):
    return World("Genoa", rsa_keys)


@pytest.fixture
def as_pem():
    return lambda der: pem.armor("CERTIFICATE", der)
