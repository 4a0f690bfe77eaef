# SPDX-License-Identifier: Apache-2.0
"""Intel for tests: its authorities, one machine, what Intel says of its firmware, and quotes.

    Intel SGX Root CA
      Intel SGX PCK Platform CA, Intel SGX PCK Processor CA
        Intel SGX PCK Certificate     the machine: signs reports of its quoting enclave
      Intel SGX TCB Signing           signs TCB info and QE identity

`sgx` and `tdx` have the worlds; this is what they share. The same each time for a seed: all keys,
serial numbers, the ids of the machine and of its kind (FMSPC), and the root to the last byte, as
quotes have it in them. All else is the same for a seed and `now`, which its dates go by.

Spec: Intel SGX PCK Certificate and Certificate Revocation List Profile 1.5; Intel PCS API, version
4; Intel TDX DCAP Quoting Library API, appendix A.3; Intel SGX ECDSA QuoteLibReference DCAP API,
appendix A.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.evidence.intel import collateral as names
from imagers.pki.der import encode, encode_oid
from imagers.testing.evidence.authorities import (
    BEFORE,
    LIST_DAYS,
    list_at,
    revocation_list,
    usage,
)
from imagers.testing.evidence.guests import Vendor
from imagers.testing.evidence.keys import ec_key, octets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal

    from imagers.model.strict_json import JSON

    Field = int | bytes
    Layout = Mapping[str, tuple[int, int]]

__all__ = ["HEADER", "SGX_BODY", "IntelWorld", "filled"]

_ARC = "1.2.840.113741.1.13.1"
_PCS = "https://api.trustedservices.intel.com/sgx/certification/v4"
_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
_NAMES = {
    "root": "Intel SGX Root CA",
    "platform": "Intel SGX PCK Platform CA",
    "processor": "Intel SGX PCK Processor CA",
    "signing": "Intel SGX TCB Signing",
    "pck": "Intel SGX PCK Certificate",
}
_ROOT_BEGIN = datetime(2018, 5, 21, tzinfo=UTC)
_YEARS = {"root": 31, "platform": 15, "processor": 15, "signing": 7, "pck": 7}
_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_QE_DATA = bytes(range(32))
_ZERO_MASK, _ONES = "00000000", "FFFFFFFF"

HEADER: Layout = {
    "version": (0, 2),
    "att_key_type": (2, 2),
    "tee_type": (4, 4),
    "reserved": (8, 4),
    "vendor_id": (12, 16),
    "user_data": (28, 20),
}
"""Fields of a quote's header: offset and length. Numbers are little-endian."""
_HEADER_BYTES = 48

SGX_BODY: Layout = {
    "cpu_svn": (0, 16),
    "misc_select": (16, 4),
    "isv_ext_prod_id": (32, 16),
    "attributes": (48, 16),
    "mr_enclave": (64, 32),
    "mr_signer": (128, 32),
    "config_id": (192, 64),
    "isv_prod_id": (256, 2),
    "isv_svn": (258, 2),
    "config_svn": (260, 2),
    "isv_family_id": (304, 16),
    "report_data": (320, 64),
}
"""Fields of the report of an enclave."""
SGX_BODY_BYTES = 384


def filled(layout: Layout, size: int, fields: Mapping[str, Field]) -> bytes:
    """`size` bytes with these fields, and zeros else.

    Raises:
        TypeError: there is no such field.
        ValueError, OverflowError: a value does not fit.
    """
    raw = bytearray(size)
    for name, value in fields.items():
        if name not in layout:
            raise TypeError(f"there is no field {name!r}")
        at, length = layout[name]
        data = value.to_bytes(length, "little") if isinstance(value, int) else value
        if len(data) > length:
            raise ValueError(f"{name}: expected at most {length} bytes, got {len(data)}")
        raw[at : at + length] = data.ljust(length, b"\0")
    return bytes(raw)


class IntelWorld(Vendor):
    """Intel, and one machine: what SGX and TDX share.

    Args:
        seed: 32 bytes.
        ca: who issued the certificate of the machine.
        now: aware; all is valid then. None: the current time.

    Attributes:
        components, pce_svn: versions of the machine's firmware.
        fmspc: the kind of machine.
        qe_signer, qe_product, qe_svn: of its quoting enclave.
        measurement: of the guest whose quote names no other.
    """

    tee: ClassVar[Literal["sgx", "tdx"]]
    qe_product: ClassVar[int]
    qe_svn: ClassVar[int]
    _qe_id: ClassVar[str]
    _measurement_bytes: ClassVar[int]

    def __init__(
        self,
        seed: bytes,
        *,
        ca: Literal["platform", "processor"] = "platform",
        now: datetime | None = None,
    ) -> None:
        self._seed = seed
        self.ca = ca
        self.now = (now or datetime.now(UTC)).replace(microsecond=0)
        self.components = (2, 2, 2, 2, 3, 1, 0, 5, *(0,) * 8)
        self.pce_svn = 11
        self.fmspc = octets(seed, "Intel FMSPC", 6)
        self.qe_signer = octets(seed, f"Intel {self.tee} QE signer", 32)
        name = f"Intel {self.tee.upper()} measurement"
        self.measurement = octets(seed, name, self._measurement_bytes)

    def key(self, role: str) -> ec.EllipticCurvePrivateKey:
        """The key of `root`, `platform`, `processor`, `signing`, `pck` or `attestation`.

        Any other word gives a key of nobody known.
        """
        return ec_key(self._seed, f"Intel {role}", ec.SECP256R1)

    def serial(self, role: str) -> int:
        """The serial number of a certificate."""
        return int.from_bytes(octets(self._seed, f"Intel serial {role}", 19)) | 1

    @property
    def roots(self) -> bytes:
        """The root certificate in PEM, as a verifier takes it in place of Intel's."""
        return self.chain("root")

    def chain(self, *roles: str) -> bytes:
        """Certificates of these roles in PEM."""
        return b"".join(self.issue(role).public_bytes(Encoding.PEM) for role in roles)

    def issue(
        self,
        role: str,
        *,
        key: str | None = None,
        signer: str | None = None,
        extension: bytes | None = None,
        begin: datetime | None = None,
    ) -> x509.Certificate:
        """The certificate of a role.

        Args:
            key: role of the key in it; None: its own.
            signer: role of the key that signs it; None: the right one.
            extension: of a PCK certificate; None: that of `pck_extension`.
            begin: it is valid from the day before on; None: `now`, of the root a fixed day.
        """
        issuer = {"pck": self.ca}.get(role, "root")
        public = self.key(key or role).public_key()
        issuing = self.key(issuer).public_key()
        is_ca = role not in ("pck", "signing")
        begin = begin or (_ROOT_BEGIN if role == "root" else self.now)
        constraints = x509.BasicConstraints(
            ca=is_ca, path_length=(1 if role == "root" else 0) if is_ca else None
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(_NAMES[role]))
            .issuer_name(_name(_NAMES[issuer]))
            .public_key(public)
            .serial_number(self.serial(role))
            .not_valid_before(begin - BEFORE)
            .not_valid_after(begin + timedelta(days=365 * _YEARS[role]))
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing), critical=False
            )
            .add_extension(list_at(self._list_of(issuer)), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(usage(leaf=not is_ca, lists=is_ca), critical=True)
            .add_extension(constraints, critical=True)
        )
        if role == "pck":
            value = self.pck_extension() if extension is None else extension
            oid = x509.ObjectIdentifier(_ARC)
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
        return builder.sign(self.key(signer or issuer), hashes.SHA256(), ecdsa_deterministic=True)

    def _list_of(self, issuer: str) -> str:
        return _ROOT_CRL if issuer == "root" else f"{_PCS}/pckcrl?ca={issuer}&encoding=der"

    def pck_extension(
        self,
        *,
        components: tuple[int, ...] | None = None,
        pce_svn: int | None = None,
        pce_id: bytes = bytes(2),
        fmspc: bytes | None = None,
        sgx_type: int | None = None,
    ) -> bytes:
        """What the certificate of the machine says of it. None: the right value."""
        platform = self.ca == "platform"
        numbers = components or self.components
        svn = self.pce_svn if pce_svn is None else pce_svn
        parts = [*numbers, svn]
        tcb = [_pair(f"2.{at}", _integer(number)) for at, number in enumerate(parts, 1)]
        cpu_svn = bytes(number & 0xFF for number in numbers)
        kind = int(platform) if sgx_type is None else sgx_type
        members = [
            _pair("1", encode(0x04, octets(self._seed, "Intel PPID", 16))),
            _pair("2", encode(0x30, *tcb, _pair("2.18", encode(0x04, cpu_svn)))),
            _pair("3", encode(0x04, pce_id)),
            _pair("4", encode(0x04, self.fmspc if fmspc is None else fmspc)),
            _pair("5", encode(0x0A, bytes((kind,)))),
        ]
        if platform:
            flags = (_pair(f"7.{at}", encode(0x01, b"\xff")) for at in (1, 2, 3))
            instance = octets(self._seed, "Intel platform instance", 16)
            members += [_pair("6", encode(0x04, instance)), _pair("7", encode(0x30, *flags))]
        return encode(0x30, *members)

    def crl(
        self,
        issuer: str,
        *,
        signer: str | None = None,
        revoked: Iterable[int] = (),
        begin: datetime | None = None,
        number: int = 1,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """The list of certificates that an issuer revoked, in DER.

        Args:
            issuer: `root`, `platform` or `processor`.
            signer: role of the key; None: the issuer's.
            revoked: serial numbers.
            begin: it is valid from the day before on, for 30 days after; None: `now`.
            extensions: more, and whether they are critical.
        """
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self.key(issuer).public_key()
        )
        builder = revocation_list(
            _name(_NAMES[issuer]),
            begin or self.now,
            revoked=revoked,
            number=number,
            extensions=[(identifier, False), *extensions],
        )
        return builder.sign(
            self.key(signer or issuer), hashes.SHA256(), ecdsa_deterministic=True
        ).public_bytes(Encoding.DER)

    def level(
        self,
        status: str,
        *,
        below: int = 0,
        advisories: tuple[str, ...] = (),
        tdx: tuple[int, ...] | None = None,
    ) -> dict[str, JSON]:
        """A level of TCB info: from which versions on the machine has a status.

        Args:
            below: how far below the machine's.
            tdx: least versions of TDX's components, in TCB info of TDX.
        """
        least: list[JSON] = [{"svn": max(0, number - below)} for number in self.components]
        tcb: dict[str, JSON] = {"sgxtcbcomponents": least, "pcesvn": self.pce_svn - below}
        if tdx is not None:
            tcb["tdxtcbcomponents"] = [{"svn": number} for number in tdx]
        return _state(tcb, status, advisories)

    def levels(self, status: str, advisories: tuple[str, ...]) -> list[JSON]:
        """The levels of TCB info: that of the machine, and an older one."""
        return [
            self.level(status, advisories=advisories),
            self.level("OutOfDate", below=1, advisories=("INTEL-SA-00001",)),
        ]

    def tcb_info(
        self,
        *,
        status: str = "UpToDate",
        advisories: tuple[str, ...] = (),
        signer: str = "signing",
        **changes: JSON,
    ) -> bytes:
        """What Intel says of this kind of machine, in its text.

        Args:
            status, advisories: of the machine.
            signer: role of the key.
            changes: members in place of the right ones.
        """
        document: dict[str, JSON] = {
            "id": self.tee.upper(),
            "version": 3,
            **self._period(),
            "fmspc": self.fmspc.hex(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 17,
            **self._modules(),
            "tcbLevels": self.levels(status, advisories),
        }
        return self.sign_document("tcbInfo", document | changes, signer=signer)

    def _modules(self) -> dict[str, JSON]:
        """What TCB info says of the TDX module."""
        return {}

    def identity(
        self,
        *,
        status: str = "UpToDate",
        advisories: tuple[str, ...] = (),
        signer: str = "signing",
        **changes: JSON,
    ) -> bytes:
        """What Intel says of the quoting enclave, in its text.

        Args:
            status, advisories: of the machine's.
            signer: role of the key.
            changes: members in place of the right ones.
        """
        older = {"isvsvn": self.qe_svn - 1}
        document: dict[str, JSON] = {
            "id": self._qe_id,
            "version": 2,
            **self._period(),
            "tcbEvaluationDataNumber": 17,
            "miscselect": _ZERO_MASK,
            "miscselectMask": _ONES,
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": self.qe_signer.hex().upper(),
            "isvprodid": self.qe_product,
            "tcbLevels": [
                _state({"isvsvn": self.qe_svn}, status, advisories),
                _state({**older}, "OutOfDate", ("INTEL-SA-00002",)),
            ],
        }
        return self.sign_document("enclaveIdentity", document | changes, signer=signer)

    def sign_document(
        self, member: str, document: Mapping[str, JSON], *, signer: str = "signing"
    ) -> bytes:
        """A document as Intel sends it: its text, and the signature over that text."""
        text = json.dumps(document, separators=(",", ":"))
        signature = _signature(self.key(signer), text.encode())
        return f'{{"{member}":{text},"signature":"{signature.hex()}"}}'.encode()

    def _period(self) -> dict[str, JSON]:
        end = self.now + timedelta(days=LIST_DAYS)
        return {"issueDate": _time(self.now - BEFORE), "nextUpdate": _time(end)}

    def collateral(self) -> dict[str, bytes]:
        """All documents that a verifier may want, by their names."""
        info, identity = (
            names.tcb_info_name(self.tee, self.fmspc.hex()),
            names.identity_name(self.tee),
        )
        signers = self.chain("signing", "root")
        return {
            names.ROOT_CRL: self.crl("root"),
            names.crl_name(self.ca): self.crl(self.ca),
            info: self.tcb_info(),
            names.chain_name(info): signers,
            identity: self.identity(),
            names.chain_name(identity): signers,
        }

    def _sealed(
        self,
        header: Mapping[str, Field],
        body: bytes,
        *,
        is_nested: bool,
        key: str = "attestation",
        qe: Mapping[str, Field] | None = None,
        qe_key: str = "pck",
        qe_data: bytes = _QE_DATA,
        chain: bytes | None = None,
    ) -> bytes:
        """A quote: header and body, signed, and all that vouches for the signature.

        Args:
            is_nested: whether the certification data is of type 6, as from version 4 on.
            key: role of the attestation key that signs, which is in the quote.
            qe: fields of the report of the quoting enclave, in place of the right ones.
            qe_key: role of the key that signs that report.
            qe_data: what is hashed with the attestation key into that report.
            chain: certificates in place of the right ones.
        """
        told = {"att_key_type": 2, "vendor_id": _VENDOR, **header}
        signed = filled(HEADER, _HEADER_BYTES, told) + body
        signing = self.key(key)
        point = signing.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        report = filled(
            SGX_BODY,
            SGX_BODY_BYTES,
            {
                "cpu_svn": bytes(self.components),
                "attributes": bytes.fromhex("1500000000000000e700000000000000"),
                "mr_enclave": octets(self._seed, f"Intel {self.tee} QE", 32),
                "mr_signer": self.qe_signer,
                "isv_prod_id": self.qe_product,
                "isv_svn": self.qe_svn,
                "report_data": sha256(point + qe_data).digest(),
                **(qe or {}),
            },
        )
        pem = self.chain("pck", self.ca, "root") if chain is None else chain
        vouches = (
            report
            + _signature(self.key(qe_key), report)
            + len(qe_data).to_bytes(2, "little")
            + qe_data
            + _block(5, pem + b"\0")
        )
        data = _signature(signing, signed) + point + (_block(6, vouches) if is_nested else vouches)
        return signed + len(data).to_bytes(4, "little") + data


def _signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    r, s = utils.decode_dss_signature(key.sign(data, algorithm))
    return r.to_bytes(32) + s.to_bytes(32)


def _block(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(data).to_bytes(4, "little") + data


def _state(tcb: Mapping[str, JSON], status: str, advisories: tuple[str, ...]) -> dict[str, JSON]:
    state: dict[str, JSON] = {
        "tcb": {**tcb},
        "tcbDate": "2026-03-11T00:00:00Z",
        "tcbStatus": status,
    }
    return state | ({"advisoryIDs": [*advisories]} if advisories else {})


def _time(value: datetime) -> str:
    return f"{value:%Y-%m-%dT%H:%M:%SZ}"


def _pair(oid: str, value: bytes) -> bytes:
    return encode(0x30, encode_oid(f"{_ARC}.{oid}"), value)


def _integer(number: int) -> bytes:
    return encode(0x02, number.to_bytes(number.bit_length() // 8 + 1))


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Intel Corporation"),
            x509.NameAttribute(x509.NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(x509.NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "US"),
        ]
    )
