# SPDX-License-Identifier: Apache-2.0
"""Real quotes with the documents of their time, and a world of Intel's that is made here."""

import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.evidence.intel import quote as quote_module
from imagers.evidence.intel.certificates import built_in_root, read_signer
from imagers.evidence.intel.collateral import (
    ROOT_CRL,
    chain_name,
    crl_name,
    identity_name,
    import_documents,
    tcb_info_name,
)
from imagers.evidence.intel.quote import SGX, SGX_BODY, TDX, parse_quote
from imagers.pki.der import encode, encode_oid
from tests.real_evidence import real_file

ARC = "1.2.840.113741.1.13.1"
NOW = datetime(2026, 11, 29, tzinfo=UTC)
INTEL = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")


@dataclass(frozen=True)
class Case:
    """A quote of a real machine, with the documents that it needs, at a time when they counted."""

    tee: str
    quote_path: str
    collateral_path: str
    now: datetime
    status: str
    advisories: tuple = ()

    @property
    def raw(self):
        return real_file(self.quote_path).read_bytes()

    @property
    def quote(self):
        return parse_quote(self.raw, tee=TDX if self.tee == "tdx" else SGX)

    @property
    def theirs(self):
        """The documents as dcap-qvl has them."""
        return real_file(self.collateral_path).read_bytes()

    @property
    def collateral(self):
        return import_documents(self.theirs)


REAL = {
    "tdx up to date": Case(
        "tdx",
        "tdx/dcap-qvl/tdx_quote",
        "tdx/dcap-qvl/tdx_quote_collateral.json",
        datetime(2025, 6, 20, tzinfo=UTC),
        "UpToDate",
    ),
    "tdx out of date": Case(
        "tdx",
        "tdx/trustee/tdx_quote_6.dat",
        "tdx/derived/fmspc00A06D08-2025-collateral.json",
        datetime(2025, 10, 29, tzinfo=UTC),
        "OutOfDate",
    ),
    "tdx under debug": Case(
        "tdx",
        "tdx/trustee/tdx_quote_4.dat",
        "tdx/derived/fmspc50806F-2023-collateral.json",
        datetime(2023, 7, 1, tzinfo=UTC),
        "UpToDate",
    ),
    "sgx": Case(
        "sgx",
        "sgx/dcap-qvl/sgx_quote",
        "sgx/dcap-qvl/sgx_quote_collateral.json",
        datetime(2025, 6, 20, tzinfo=UTC),
        "ConfigurationAndSWHardeningNeeded",
        ("INTEL-SA-00289", "INTEL-SA-00615"),
    ),
}


def signer_of(chain):
    """Intel's signer of documents, of a real chain."""
    return read_signer(chain, built_in_root(), "chain")


def name(common):
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def raw_signature(key, body):
    r, s = utils.decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def point(key):
    public = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return public[1:]


def pair(oid, *value):
    return encode(0x30, encode_oid(f"{ARC}{oid}"), *value)


def integer(value):
    return encode(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def pck_extension(*, svns, pce_svn, fmspc, platform=True, changes=None):
    """The extension of a PCK, with parts changed or, where they are None, left out."""
    parts = {
        ".1": pair(".1", encode(0x04, b"P" * 16)),
        ".2": pair(
            ".2",
            encode(
                0x30,
                *(pair(f".2.{at}", integer(svn)) for at, svn in enumerate(svns, 1)),
                pair(".2.17", integer(pce_svn)),
                pair(".2.18", encode(0x04, bytes(svns))),
            ),
        ),
        ".3": pair(".3", encode(0x04, b"\0\0")),
        ".4": pair(".4", encode(0x04, fmspc)),
        ".5": pair(".5", encode(0x0A, b"\1")),
    }
    if platform:
        flags = (pair(f".7.{at}", encode(0x01, b"\xff")) for at in (1, 2, 3))
        parts[".6"] = pair(".6", encode(0x04, b"I" * 16))
        parts[".7"] = pair(".7", encode(0x30, *flags))
    parts |= changes or {}
    return encode(0x30, *(part for part in parts.values() if part is not None))


class World:
    """Intel's root, authorities and documents, and a machine with its quoting enclave."""

    fmspc = bytes.fromhex("00a06d080000")
    svns = (5,) * 16
    pce_svn = 11
    qe_signer = b"Q" * 32

    def __init__(self, ca="platform"):
        self.ca = ca
        roles = ("root", "ca", "pck", "signer", "attestation", "other")
        self.keys = {role: ec.generate_private_key(ec.SECP256R1()) for role in roles}
        self.root = self.issue("root", "Intel SGX Root CA", "root", is_ca=True)
        self.authority = self.issue("ca", f"Intel SGX PCK {ca.title()} CA", "root", is_ca=True)
        self.signer = self.issue("signer", "Intel SGX TCB Signing", "root")
        self.pck = self.issue_pck()

    def issue(
        self,
        role,
        subject,
        issuer,
        *,
        is_ca=False,
        issuer_name=None,
        extensions=(),
        days=3650,
        serial=None,
        usage=None,
        algorithm=None,
        key=None,
    ):
        names = {"root": "Intel SGX Root CA", "ca": f"Intel SGX PCK {self.ca.title()} CA"}
        signs = is_ca if usage is None else usage
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer_name or names.get(issuer, "other")))
            .public_key((key or self.keys[role]).public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not signs,
                    key_cert_sign=signs,
                    crl_sign=signs,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.keys[issuer], algorithm or hashes.SHA256())

    def issue_pck(self, *, changes=None, svns=None, issuer="ca", **more):
        value = pck_extension(
            svns=svns or self.svns,
            pce_svn=self.pce_svn,
            fmspc=self.fmspc,
            platform=self.ca == "platform",
            changes=changes,
        )
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(ARC), value)
        subject = more.pop("subject", "Intel SGX PCK Certificate")
        return self.issue("pck", subject, issuer, extensions=[(extension, False)], **more)

    @property
    def root_pem(self):
        return self.root.public_bytes(Encoding.PEM)

    def chain(self, *certificates):
        found = certificates or (self.pck, self.authority, self.root)
        return b"".join(one.public_bytes(Encoding.PEM) for one in found)

    def crl(self, *, signer="root", revoked=(), days=30, number=7, extensions=()):
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name((self.root if signer == "root" else self.authority).subject)
            .last_update(NOW - timedelta(days=1))
            .next_update(NOW + timedelta(days=days))
        )
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(NOW - timedelta(days=1))
                .build()
            )
        made = builder.sign(self.keys[signer], hashes.SHA256())
        return made.public_bytes(Encoding.DER)

    def signed(self, member, inner, *, key="signer"):
        text = json.dumps(inner, separators=(",", ":"))
        signature = raw_signature(self.keys[key], text.encode()).hex()
        return f'{{"{member}":{text},"signature":"{signature}"}}'.encode()

    def times(self, days=30):
        form = "%Y-%m-%dT%H:%M:%SZ"
        end = (NOW + timedelta(days=days)).strftime(form)
        return {"issueDate": (NOW - timedelta(days=1)).strftime(form), "nextUpdate": end}

    def level(self, status="UpToDate", *, sgx=5, tdx=5, pce=11, advisories=()):
        def components(svn):
            many = [svn] * 16 if isinstance(svn, int) else svn
            return [{"svn": one} for one in many]

        tcb = {"sgxtcbcomponents": components(sgx), "pcesvn": pce}
        if tdx is not None:
            many = [tdx, 0, *[tdx] * 14] if isinstance(tdx, int) else tdx
            tcb["tdxtcbcomponents"] = components(many)
        return {
            "tcb": tcb,
            "tcbDate": "2026-01-01T00:00:00Z",
            "tcbStatus": status,
            "advisoryIDs": list(advisories),
        }

    def enclave_level(self, svn, status="UpToDate", advisories=()):
        return {
            "tcb": {"isvsvn": svn},
            "tcbDate": "2026-01-01T00:00:00Z",
            "tcbStatus": status,
            "advisoryIDs": list(advisories),
        }

    def module(self, version, *levels):
        return {
            "id": f"TDX_{version:02X}",
            "mrsigner": "00" * 48,
            "attributes": "00" * 8,
            "attributesMask": "FF" * 8,
            "tcbLevels": list(levels),
        }

    def tcb_info(self, tee="tdx", *, levels=None, modules=(), key="signer", days=30, **changes):
        inner = {
            "id": tee.upper(),
            "version": 3,
            **self.times(days),
            "fmspc": self.fmspc.hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 18,
        }
        if tee == "tdx":
            inner["tdxModule"] = {
                "mrsigner": "00" * 48,
                "attributes": "00" * 8,
                "attributesMask": "FF" * 8,
            }
            inner["tdxModuleIdentities"] = list(modules)
        inner["tcbLevels"] = [self.level(tdx=5 if tee == "tdx" else None)]
        if levels is not None:
            inner["tcbLevels"] = levels
        return self.signed("tcbInfo", inner | changes, key=key)

    def identity(self, tee="tdx", *, key="signer", days=30, **changes):
        inner = {
            "id": "TD_QE" if tee == "tdx" else "QE",
            "version": 2,
            **self.times(days),
            "tcbEvaluationDataNumber": 17,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": self.qe_signer.hex(),
            "isvprodid": 2,
            "tcbLevels": [self.enclave_level(4)],
        }
        return self.signed("enclaveIdentity", inner | changes, key=key)

    def collateral(self, tee="tdx", **changes):
        """Good documents, or those given; `info`, `identity`, `root_crl`, `crl`, `chain`."""
        signers = changes.pop("chain", self.chain(self.signer, self.root))
        info_at = tcb_info_name(tee, self.fmspc.hex())
        found = {
            ROOT_CRL: changes.pop("root_crl", self.crl()),
            crl_name(self.ca): changes.pop("crl", self.crl(signer="ca")),
            info_at: changes.pop("info", self.tcb_info(tee)),
            chain_name(info_at): signers,
            identity_name(tee): changes.pop("identity", self.identity(tee)),
            chain_name(identity_name(tee)): signers,
        }
        assert not changes
        return {at: data for at, data in found.items() if data is not None}

    def qe_report(self, *, qe_data=b"d" * 32, key=None, **fields):
        report = bytearray(384)
        values = {
            "attributes.flags": (0x15).to_bytes(8, "little"),  # the mask leaves bit 2 out
            "attributes.xfrm": (0xE7).to_bytes(8, "little"),
            "mr_signer": self.qe_signer,
            "isv_prod_id": (2).to_bytes(2, "little"),
            "isv_svn": (4).to_bytes(2, "little"),
            "report_data": sha256(point(key or self.keys["attestation"]) + qe_data).digest(),
        } | {name.replace("__", "."): value for name, value in fields.items()}
        for field, value in values.items():
            at, _ = SGX_BODY[field]
            report[at : at + len(value)] = value
        return bytes(report)

    def body(self, *, kind, **fields):
        size = {1: 384, 2: 584, 3: 648}[kind]
        names = quote_module._KINDS[kind][1]
        values = {
            "tcb_svn": bytes((5, 0)) + bytes([5]) * 14,
            "tee_tcb_svn2": bytes((5, 0)) + bytes([5]) * 14,
            "td_attributes": (1 << 28).to_bytes(8, "little"),
            "mr_td": b"m" * 48,
            "attributes.flags": (0x05).to_bytes(8, "little"),
            "attributes.xfrm": (0xE7).to_bytes(8, "little"),
            "mr_enclave": b"e" * 32,
            "mr_signer": b"s" * 32,
            "isv_prod_id": (7).to_bytes(2, "little"),
            "isv_svn": (3).to_bytes(2, "little"),
        } | {name.replace("__", "."): value for name, value in fields.items()}
        body = bytearray(size)
        for field, value in values.items():
            if field in names:
                at, _ = names[field]
                body[at : at + len(value)] = value
        return bytes(body)

    def raw_quote(
        self,
        tee="tdx",
        *,
        version=None,
        kind=None,
        chain=None,
        qe_report=None,
        qe_data=b"d" * 32,
        qe_key="pck",
        key=None,
        **fields,
    ):
        """The bytes of a good quote, with these fields changed and then signed."""
        version = version or (4 if tee == "tdx" else 3)
        kind = kind or (2 if tee == "tdx" else 1)
        signed = struct.pack("<HHII", version, 2, TDX if tee == "tdx" else SGX, 0)
        signed += INTEL + bytes(20)
        body = self.body(kind=kind, **fields)
        if version == 5:
            signed += struct.pack("<HI", kind, len(body))
        signed += body
        attestation = key or self.keys["attestation"]
        report = qe_report or self.qe_report(qe_data=qe_data, key=attestation)
        certified = report + raw_signature(self.keys[qe_key], report)
        certified += struct.pack("<H", len(qe_data)) + qe_data
        pem = self.chain() + b"\0" if chain is None else chain
        certified += struct.pack("<HI", 5, len(pem)) + pem
        if version > 3:
            certified = struct.pack("<HI", 6, len(certified)) + certified
        data = raw_signature(attestation, signed) + point(attestation) + certified
        return signed + struct.pack("<I", len(data)) + data

    def quote(self, tee="tdx", **changes):
        return parse_quote(self.raw_quote(tee, **changes), tee=TDX if tee == "tdx" else SGX)


@pytest.fixture(scope="session")
def world():
    return World()


@pytest.fixture(scope="session")
def processor_world():
    return World("processor")
