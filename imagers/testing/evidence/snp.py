# SPDX-License-Identifier: Apache-2.0
"""AMD for tests: the authorities of one product, one chip, and what its firmware signs.

    world = SNPWorld(seed, "Genoa")
    body = world.evidence(measurement=measurement, report_data=digest)
    judge_evidence(load_verifier("snp", roots=world.roots), body, bound=Bound(digest),
          read=world.collateral().get, now=world.now)

The same each time for a seed and a product: all keys, the id of the chip, the default measurement.
Signatures are not, as those of RSA-PSS and ECDSA are random, and dates go by `now`.

Spec: AMD SEV-SNP Firmware ABI Specification (56860) 1.58, table 23; VCEK Certificate and KDS
Interface Specification (57230) 1.00; the JSON: virtee/sev, `AttestationReport`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from asn1crypto import algos, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from imagers.evidence.snp.certificates import Authority, vcek_name
from imagers.evidence.snp.report import (
    PRODUCTS,
    REPORT_BYTES,
    SIGNED_BYTES,
    TCB,
    Report,
    report_to_json,
)
from imagers.evidence.snp.revocation import crl_name
from imagers.evidence.snp.verify import parse
from imagers.testing.evidence.authorities import BEFORE, list_at, revocation_list, usage
from imagers.testing.evidence.guests import Vendor
from imagers.testing.evidence.keys import ec_key, octets, rsa_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.guests import World
    from imagers.testing.evidence.wrongs.wrong import Wrong

    Field = int | bytes | TCB | tuple[int, int, int]

__all__ = ["SNPWorld"]

_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
_ARC = "1.3.6.1.4.1.3704.1."
_KDS = "https://kdsintf.amd.com"
_PARTS = {"fmc": "3.9", "bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8"}
_CHIP_BYTES = {"Milan": 64, "Genoa": 64, "Turin": 8}
_PRODUCT_NAME = {"Milan": "Milan-B0"}
_SERIALS = {"ARK": 65536, "ASK": 65537, "ASVK": 65538}
_AUTHORITY_DAYS = 25 * 365
_LEAF_DAYS = 7 * 365
_COMPONENT_BYTES = 72
_PLAIN_POLICY = 0x30000  # SMT allowed; the bit that is always set
_VLEK = 1 << 2  # in key_info

# Offset and size in the report, by the names in the JSON. Written down here anew: what makes
# evidence and what reads it must not agree by having one table.
_OCTETS = {
    "family_id": (0x010, 16),
    "image_id": (0x020, 16),
    "report_data": (0x050, 64),
    "measurement": (0x090, 48),
    "host_data": (0x0C0, 32),
    "id_key_digest": (0x0E0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "chip_id": (0x1A0, 64),
}
_NUMBERS = {
    "version": (0x000, 4),
    "guest_svn": (0x004, 4),
    "policy": (0x008, 8),
    "vmpl": (0x030, 4),
    "sig_algo": (0x034, 4),
    "plat_info": (0x040, 8),
    "key_info": (0x048, 4),
    "cpuid_fam_id": (0x188, 1),
    "cpuid_mod_id": (0x189, 1),
    "cpuid_step": (0x18A, 1),
    "launch_mit_vector": (0x1F8, 8),
    "current_mit_vector": (0x200, 8),
}
_TCBS = {"current_tcb": 0x038, "reported_tcb": 0x180, "committed_tcb": 0x1E0, "launch_tcb": 0x1F0}
_FIRMWARES = {"current": 0x1E8, "committed": 0x1EC}


class SNPWorld(Vendor):
    """AMD for one product, and one chip of it.

    Args:
        seed: 32 bytes.
        product: `Milan`, `Genoa` or `Turin`.
        now: aware; certificates and lists are valid then. None: the current time.

    Attributes:
        tcb: the version of the chip's firmware.
        chip_id: as a certificate has it: 64 bytes, of a Turin 8.
        measurement: of the guest whose report names no other.
    """

    tee: ClassVar[str] = "snp"
    CPUID: ClassVar[Mapping[str, tuple[int, int, int]]] = {
        "Milan": (0x19, 0x01, 1),
        "Genoa": (0x19, 0x11, 1),
        "Turin": (0x1A, 0x02, 1),
    }
    """Family, model and stepping of a processor of each product."""

    def __init__(self, seed: bytes, product: str = "Genoa", *, now: datetime | None = None) -> None:
        self.product = PRODUCTS[product]
        self.now = (now or datetime.now(UTC)).replace(microsecond=0)
        self.tcb = TCB(1 if product == "Turin" else None, 3, 2, 8, 115)
        self._seed = seed
        self.chip_id = octets(seed, f"AMD {product} chip", _CHIP_BYTES[product])
        self.measurement = octets(seed, f"AMD {product} measurement", 48)

    def authority_key(self, role: str) -> rsa.RSAPrivateKey:
        """The key of `ARK`, `ASK` or `ASVK`; or, by any other word, of nobody known."""
        return rsa_key(self._seed, f"AMD {self.product.name} {role}")

    def leaf_key(self, *, vlek: bool = False) -> ec.EllipticCurvePrivateKey:
        """What reports are signed with."""
        kind = "VLEK" if vlek else "VCEK"
        return ec_key(self._seed, f"AMD {self.product.name} {kind}", ec.SECP384R1)

    @cached_property
    def authority(self) -> Authority:
        """ARK, ASK and ASVK."""
        ark, ask, asvk = (self.issue(role) for role in ("ARK", "ASK", "ASVK"))
        return Authority(self.product, ark, ask, asvk)

    @property
    def roots(self) -> bytes:
        """ASK, ARK and ASVK in PEM, as a verifier takes them in place of AMD's."""
        parts = (self.authority.ask, self.authority.ark, self.authority.asvk)
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in parts)

    def issue(
        self,
        role: str,
        *,
        key: str | None = None,
        signer: str = "ARK",
        begin: datetime | None = None,
    ) -> x509.Certificate:
        """The certificate of an authority.

        Args:
            role: `ARK`, `ASK` or `ASVK`, which says the names in it.
            key, signer: roles of keys, as in `authority_key`; None: its own.
            begin: it is valid from the day before on, for 25 years; None: `now`.
        """
        begin = begin or self.now
        ark = f"ARK-{self.product.name}"
        common = {"ARK": ark, "ASK": f"SEV-{self.product.name}"}.get(
            role, f"SEV-VLEK-{self.product.name}"
        )
        public = self.authority_key(key or role).public_key()
        kind = "vlek" if role == "ASVK" else "vcek"
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common))
            .issuer_name(_name(ark))
            .public_key(public)
            .serial_number(_SERIALS[role])
            .not_valid_before(begin - BEFORE)
            .not_valid_after(begin + timedelta(days=_AUTHORITY_DAYS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.BasicConstraints(ca=True, path_length=None if role == "ARK" else 0),
                critical=True,
            )
            .add_extension(usage(lists=role == "ARK"), critical=True)
            .add_extension(list_at(f"{_KDS}/{kind}/v1/{self.product.name}/crl"), critical=False)
        )
        return builder.sign(self.authority_key(signer), hashes.SHA384(), rsa_padding=_PSS)

    def leaf(
        self,
        *,
        vlek: bool = False,
        tcb: TCB | None = None,
        signer: str | None = None,
        extensions: Mapping[str, bytes | None] | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        begin: datetime | None = None,
    ) -> bytes:
        """The certificate of the key that signs reports, in DER: VCEK or VLEK.

        Args:
            tcb: the version of the firmware that it is for; None: the chip's.
            signer: role of the key that issues it; None: the right one.
            extensions: values in place of the right ones, by what follows AMD's arc, such as
                `3.1`, or by a whole OID; None: it is left out.
            key: another key in it.
            begin: it is valid from the day before on, for seven years; None: `now`.
        """
        begin = begin or self.now
        # Serial number 0, as AMD's: cryptography makes none.
        product = self.product.name
        values: dict[str, bytes | None] = {
            "1": core.Integer(1 if product == "Turin" else 0).dump(),
            "2": core.IA5String(product if vlek else _PRODUCT_NAME.get(product, product)).dump(),
        }
        for part, oid in _PARTS.items():
            if (number := getattr(tcb or self.tcb, part)) is not None:
                values[oid] = core.Integer(number).dump()
        for spare in ("3.4", "3.5", "3.6", "3.7"):
            values[spare] = core.Integer(0).dump()
        if vlek:
            values["5"] = core.IA5String("imagers test cloud").dump()
        else:
            values["4"] = self.chip_id
        values |= extensions or {}
        issuer = f"SEV-VLEK-{product}" if vlek else f"SEV-{product}"
        spki = (key or self.leaf_key(vlek=vlek)).public_key()
        body = asn1_x509.TbsCertificate(
            {
                "version": "v3",
                "serial_number": 0,
                "signature": _ALGORITHM,
                "issuer": _asn1_name(issuer),
                "validity": {
                    "not_before": asn1_x509.Time({"utc_time": begin - BEFORE}),
                    "not_after": asn1_x509.Time({"utc_time": begin + timedelta(days=_LEAF_DAYS)}),
                },
                "subject": _asn1_name("SEV-VLEK" if vlek else "SEV-VCEK"),
                "subject_public_key_info": asn1_x509.PublicKeyInfo.load(
                    spki.public_bytes(
                        serialization.Encoding.DER,
                        serialization.PublicFormat.SubjectPublicKeyInfo,
                    )
                ),
                "extensions": [
                    {
                        "extn_id": oid if oid.startswith("2.5.") else _ARC + oid,
                        "critical": oid.startswith("2.5."),
                        "extn_value": core.ParsableOctetString(value),
                    }
                    for oid, value in values.items()
                    if value is not None
                ],
            }
        )
        signing = self.authority_key(signer or ("ASVK" if vlek else "ASK"))
        made = asn1_x509.Certificate(
            {
                "tbs_certificate": body,
                "signature_algorithm": _ALGORITHM,
                "signature_value": signing.sign(body.dump(), _PSS, hashes.SHA384()),
            }
        )
        return bytes(made.dump())

    def crl(
        self,
        *,
        signer: str = "ARK",
        revoked: Iterable[int] = (),
        begin: datetime | None = None,
        number: int | None = 1,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """A list of revoked authorities in DER.

        Args:
            signer: role of the key.
            revoked: serial numbers.
            begin: it is valid from the day before on, for 30 days after; None: `now`.
            number: of the list; None: it has none.
            extensions: more, and whether they are critical.
        """
        builder = revocation_list(
            _name(f"ARK-{self.product.name}"),
            begin or self.now,
            revoked=revoked,
            number=number,
            extensions=extensions,
        )
        made = builder.sign(self.authority_key(signer), hashes.SHA384(), rsa_padding=_PSS)
        return made.public_bytes(serialization.Encoding.DER)

    def collateral(self) -> dict[str, bytes]:
        """All documents that a verifier may want, by their names."""
        documents = {crl_name(self.product, is_vlek=one): self.crl() for one in (False, True)}
        return documents | {vcek_name(self.product, self.chip_id, self.tcb): self.leaf()}

    def report(
        self,
        *,
        vlek: bool = False,
        key: ec.EllipticCurvePrivateKey | None = None,
        **fields: Field,
    ) -> bytes:
        """A good report as the guest's device gives it, with these fields changed, then signed.

        Args:
            vlek: signed with the provider's key in place of the chip's.
            key: what signs it; None: the right key.
            fields: by the names in the JSON: numbers; bytes, with zeros added; a TCB; of
                `current` and `committed` major, minor and build.

        Raises:
            TypeError: a report has no such field.
            ValueError: a value does not fit.
        """
        values: dict[str, Field] = {
            "version": 5,
            "policy": _PLAIN_POLICY,
            "sig_algo": 1,
            "key_info": _VLEK if vlek else 0,
            "measurement": self.measurement,
            "chip_id": self.chip_id,
            "current": (1, 55, 2),
            "committed": (1, 55, 1),
            **dict.fromkeys(_TCBS, self.tcb),
        }
        if fields.get("version") != 2:  # which does not say it
            names = ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step")
            values |= dict(zip(names, self.CPUID[self.product.name], strict=True))
        raw = bytearray(REPORT_BYTES)
        for name, value in (values | fields).items():
            offset, data = self._field(name, value)
            raw[offset : offset + len(data)] = data
        signing = key or self.leaf_key(vlek=vlek)
        signature = signing.sign(bytes(raw[:SIGNED_BYTES]), ec.ECDSA(hashes.SHA384()))
        for at, number in enumerate(utils.decode_dss_signature(signature)):
            offset = SIGNED_BYTES + at * _COMPONENT_BYTES
            raw[offset : offset + _COMPONENT_BYTES] = number.to_bytes(_COMPONENT_BYTES, "little")
        return bytes(raw)

    def _field(self, name: str, value: Field) -> tuple[int, bytes]:
        """Where a field is, and its bytes."""
        match value:
            case int() if name in _NUMBERS:
                offset, size = _NUMBERS[name]
                return offset, value.to_bytes(size, "little")
            case bytes() if name in _OCTETS:
                offset, size = _OCTETS[name]
                if len(value) > size:
                    raise ValueError(f"{name}: expected at most {size} bytes, got {len(value)}")
                return offset, value.ljust(size, b"\0")
            case TCB() if name in _TCBS:
                data = bytearray(8)
                for part, at in self.product.tcb.items():
                    data[at] = getattr(value, part)
                return _TCBS[name], bytes(data)
            case (major, minor, build) if name in _FIRMWARES:
                return _FIRMWARES[name], bytes((build, minor, major))
        raise TypeError(f"a report has no field {name!r} of the type {type(value).__name__}")

    def report_json(self, report: bytes) -> dict[str, JSON]:
        """The report in the JSON of the protocol."""
        return report_to_json(Report(report))

    def evidence(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes = b"",
        init_data: bytes = b"",
        vlek: bool = False,
        is_certificate_sent: bool = True,
        **fields: Any,
    ) -> dict[str, JSON]:
        """Good evidence in the JSON of the protocol: a fresh report, and who vouches for it.

        Args:
            measurement: None: the world's.
            init_data: digest of the init data, for `host_data`.
            vlek: signed with the provider's key in place of the chip's.
            is_certificate_sent: else it is among the `collateral`.
            fields: of the report, as there.
        """
        raw = self.report(
            vlek=vlek,
            measurement=measurement or self.measurement,
            report_data=report_data,
            host_data=init_data,
            **fields,
        )
        chain: JSON = None
        if is_certificate_sent:
            kind = "VLEK" if vlek else "VCEK"
            chain = [{"cert_type": kind, "data": [*self.leaf(vlek=vlek)]}]
        return {"attestation_report": self.report_json(raw), "cert_chain": chain}

    @property
    def layout(self) -> Mapping[str, tuple[int, int]]:
        """The fields of a report: offset and length."""
        tcbs = {name: (at, 8) for name, at in _TCBS.items()}
        firmwares = {name: (at, 3) for name, at in _FIRMWARES.items()}
        return {**_OCTETS, **_NUMBERS, **tcbs, **firmwares}

    def wrongs(self) -> Iterator[Wrong]:
        """Evidence with one thing wrong, for each thing."""
        from imagers.testing.evidence.wrongs.snp import wrongs

        return wrongs(self)

    def raw_files(self, evidence: JSON) -> dict[str, bytes]:
        """Evidence as the device and the host give it: the report, and the certificate."""
        return {"report.bin": parse(evidence).report.raw, "vcek.der": self.leaf()}


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(x509.NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(x509.NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common),
        ]
    )


def _asn1_name(common: str) -> asn1_x509.Name:
    return asn1_x509.Name.load(_name(common).public_bytes())


_ALGORITHM = algos.SignedDigestAlgorithm(
    {
        "algorithm": "rsassa_pss",
        "parameters": {
            "hash_algorithm": {"algorithm": "sha384"},
            "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": {"algorithm": "sha384"}},
            "salt_length": 48,
        },
    }
)


if TYPE_CHECKING:
    _world: World = SNPWorld(bytes(32))
