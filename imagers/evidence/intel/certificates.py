# SPDX-License-Identifier: Apache-2.0
"""Intel's certificates, its lists of revoked ones, and what the certificate of a machine says.

    Intel SGX Root CA             signs itself; comes along
      Intel SGX PCK Platform CA   or Processor CA, for machines with one socket
        Intel SGX PCK Certificate the key of a machine, PCK, at one version of its firmware
      Intel SGX TCB Signing       signs TCB info and QE identities

All are on P-256 with SHA-256. A chain is cached by its bytes once its signatures were verified:
they do not change. Dates and lists of revoked certificates are looked at each time.

| extension 1.2.840.113741.1.13.1 | what it holds |
|---|---|
| .1 | PPID, 16 bytes: identifies the machine |
| .2.1 to .2.16, .2.17, .2.18 | versions of components, of the PCE; the CPU's version, 16 bytes |
| .3, .4 | PCE id, 2 bytes; FMSPC, 6 bytes: the kind of machine |
| .5 | 0 Standard, 1 Scalable, 2 Scalable with integrity |
| .6 | platform instance id, 16 bytes: identifies the machine; below the Platform CA only |
| .7.1 to .7.3 | dynamic platform, cached keys, SMT enabled |

Spec: Intel SGX PCK Certificate and Certificate Revocation List Profile 1.5; RFC 5280.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.roots import read_root
from imagers.evidence.steps import FETCH_NEWEST
from imagers.pki.chain import load_certificate, parse_certificates, parse_root
from imagers.pki.der import only, split

if TYPE_CHECKING:
    from datetime import datetime

    from imagers.errors import AttestationError, VerificationError

__all__ = [
    "CRL",
    "PCK",
    "UNREADABLE",
    "Issued",
    "built_in_root",
    "is_signed",
    "key_of",
    "parse_pck",
    "read_crl",
    "read_signer",
    "verified_pck",
]

_ARC = "1.2.840.113741.1.13.1"
_CAS = {"Intel SGX PCK Platform CA": "platform", "Intel SGX PCK Processor CA": "processor"}
_LEAF = "Intel SGX PCK Certificate"
_SIGNER = "Intel SGX TCB Signing"
_TYPES = ("Standard", "Scalable", "Scalable with integrity")
_MAX_CHAIN = 16 * 1024
_MAX_CRL = 1024 * 1024
_CACHED = 256  # chains of machines and documents, some 10 KiB each
# Of what cryptography parses, and that only when it is asked for.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----"
_WIDTHS = (64, 76)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, as far as it is looked at each time.

    Attributes:
        name: common name of its subject.
    """

    certificate: x509.Certificate = field(repr=False)
    name: str
    serial: int = field(repr=False)
    begin: datetime
    end: datetime

    @classmethod
    def read(cls, certificate: x509.Certificate) -> Issued:
        """What a certificate says of itself.

        Raises:
            FormatError: it has no common name.
        """
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        if len(names) != 1:
            raise FormatError("expected one common name in a certificate", what="certificate")
        return cls(
            certificate,
            str(names[0].value),
            certificate.serial_number,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )

    def check_dates(self, now: datetime, error: type[AttestationError | VerificationError]) -> None:
        """Raise `error` unless it is valid now."""
        if not self.begin <= now <= self.end:
            raise error(
                f"the certificate {self.name} is not valid at {now:%Y-%m-%dT%H:%M:%SZ}: expected "
                f"{self.begin:%Y-%m-%dT%H:%M:%SZ} to {self.end:%Y-%m-%dT%H:%M:%SZ}"
            )


@dataclass(frozen=True, slots=True)
class PCK:
    """The certificate of a machine and of its issuer.

    Attributes:
        root: the third of the chain; None: it was left out.
        ca: `platform` or `processor`.
        key: that signs reports of the quoting enclave.
        components, pce_svn: versions of the firmware that it is for.
        instance: platform instance id, or the PPID where there is none.
        flags: of a platform: dynamic, cached keys, SMT; None where it does not say.
    """

    leaf: Issued
    issuer: Issued
    root: bytes | None = field(repr=False)
    ca: str
    key: ec.EllipticCurvePublicKey = field(repr=False)
    components: tuple[int, ...]
    pce_svn: int
    pce_id: bytes
    fmspc: bytes
    sgx_type: str
    instance: bytes = field(repr=False)
    flags: tuple[bool | None, bool | None, bool | None]


@cache
def built_in_root() -> x509.Certificate:
    """Intel's root."""
    return parse_root(read_root("intel", "root.pem"), what="root.pem")


@lru_cache(_CACHED)
def parse_pck(chain: bytes) -> PCK:
    """The chain of a machine, as it stands in a quote. Nothing of it is verified.

    Its PEM is outside of every signature: it must be a text that its certificates make, in lines of
    64 characters or, as some services write the first one, 76; with zeros behind it.

    Raises:
        FormatError: it is none, or lacks what such a certificate says.
    """
    what = "certificates of a quote"
    if len(chain) > _MAX_CHAIN:
        raise FormatError(f"expected at most {_MAX_CHAIN} bytes, got {len(chain)}", what=what)
    text = chain.rstrip(b"\0")
    before, *parts = text.split(_BEGIN)
    blocks = [_unarmor(part) for part in parts]
    if before or not all(blocks):
        raise FormatError("are not PEM in lines of 64 or 76 characters", what=what)
    if len(blocks) not in (2, 3):
        raise FormatError(f"expected 2 or 3, got {len(blocks)}", what=what)
    leaf, issuer = (load_certificate(one, what=what) for one in blocks[:2])
    return _read_pck(leaf, issuer, blocks[2] if len(blocks) == 3 else None, what)


def _unarmor(part: bytes) -> bytes:
    """The DER behind a line BEGIN, up to the next one; b"" where another text stands there."""
    try:
        der = b64decode(part.partition(_END)[0])
    except Error:
        return b""
    text = b64encode(der)
    for width in _WIDTHS:
        lines = b"".join(text[at : at + width] + b"\n" for at in range(0, len(text), width))
        if part in (lines + _END, lines + _END + b"\n"):
            return der
    return b""


def _read_pck(
    certificate: x509.Certificate, issuer: x509.Certificate, root: bytes | None, what: str
) -> PCK:
    leaf, authority = Issued.read(certificate), Issued.read(issuer)
    if leaf.name != _LEAF:
        raise FormatError(f"expected CN '{_LEAF}', got '{leaf.name[:80]}'", what=what)
    if authority.name not in _CAS:
        raise FormatError(
            f"expected an issuer {' or '.join(_CAS)}, got '{authority.name[:80]}'", what=what
        )
    try:
        extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(_ARC))
    except (x509.ExtensionNotFound, *UNREADABLE):
        raise FormatError(f"expected the extension {_ARC}", what=what) from None
    if not isinstance(extension.value, x509.UnrecognizedExtension):
        raise FormatError(f"expected the extension {_ARC}", what=what)  # pragma: no cover
    top = _members(only(extension.value.value, 0x30, what=what), "", what)
    tcb = _members(_content(top, ".2", 0x30, what), ".2", what)
    flags = _members(_content(top, ".7", 0x30, what), ".7", what) if ".7" in top else {}
    kind = int.from_bytes(_content(top, ".5", 0x0A, what))
    if kind >= len(_TYPES):
        raise FormatError(f"expected an SGX type of 0 to {len(_TYPES) - 1}, got {kind}", what=what)
    identity = ".6" if ".6" in top else ".1"
    return PCK(
        leaf=leaf,
        issuer=authority,
        root=root,
        ca=_CAS[authority.name],
        key=key_of(certificate, what),
        components=tuple(_number(tcb, f".2.{at}", 255, what) for at in range(1, 17)),
        pce_svn=_number(tcb, ".2.17", 65535, what),
        pce_id=_sized(top, ".3", 2, what),
        fmspc=_sized(top, ".4", 6, what),
        sgx_type=_TYPES[kind],
        instance=_sized(top, identity, 16, what),
        flags=(_flag(flags, 1, what), _flag(flags, 2, what), _flag(flags, 3, what)),
    )


def _members(content: bytes, prefix: str, what: str) -> dict[str, tuple[int, bytes]]:
    """Pairs of an identifier below the arc, and a value: its tag and content."""
    found: dict[str, tuple[int, bytes]] = {}
    start = _arc_content() + bytes(int(one) for one in prefix.split(".")[1:])
    for pair in split(content, what=what):
        parts = split(pair.content, what=what) if pair.tag == 0x30 else []
        if len(parts) != 2 or parts[0].tag != 0x06:
            raise FormatError(f"expected pairs in the extension {_ARC}{prefix}", what=what)
        oid = parts[0].content
        if oid[:-1] != start:
            raise FormatError(f"expected identifiers below {_ARC}{prefix}", what=what)
        name = f"{prefix}.{oid[-1]}"
        if name in found:
            raise FormatError(f"has the extension {_ARC}{name} twice", what=what)
        found[name] = (parts[1].tag, parts[1].content)
    return found


@cache
def _arc_content() -> bytes:
    from imagers.pki.der import encode_oid

    return encode_oid(_ARC)[2:]


def _content(members: dict[str, tuple[int, bytes]], name: str, tag: int, what: str) -> bytes:
    found = members.get(name)
    if found is None or found[0] != tag:
        raise FormatError(f"expected the extension {_ARC}{name} with tag {tag:#04x}", what=what)
    return found[1]


def _sized(members: dict[str, tuple[int, bytes]], name: str, size: int, what: str) -> bytes:
    value = _content(members, name, 0x04, what)
    if len(value) != size:
        raise FormatError(f"expected {size} bytes in {_ARC}{name}, got {len(value)}", what=what)
    return value


def _number(members: dict[str, tuple[int, bytes]], name: str, most: int, what: str) -> int:
    value = int.from_bytes(_content(members, name, 0x02, what), signed=True)
    if not 0 <= value <= most:
        raise FormatError(f"expected a number of 0 to {most} in {_ARC}{name}", what=what)
    return value


def _flag(members: dict[str, tuple[int, bytes]], number: int, what: str) -> bool | None:
    name = f".7.{number}"
    return any(_content(members, name, 0x01, what)) if name in members else None


def key_of(certificate: x509.Certificate, what: str) -> ec.EllipticCurvePublicKey:
    """The key of a certificate.

    Raises:
        FormatError: it is not one on P-256.
    """
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FormatError("expected a key on P-256", what=what)
    return key


@lru_cache(_CACHED)
def verified_pck(chain: bytes, root: x509.Certificate) -> PCK:
    """The chain of a machine, if its signatures lead to `root`. Dates are not looked at.

    Raises:
        EvidenceRejected: they do not.
        FormatError: as `parse_pck`.
    """
    pck = parse_pck(chain)
    if pck.root is not None and pck.root != root.public_bytes(Encoding.DER):
        raise EvidenceRejected("the root of the quote's certificates is not the trusted one")
    _check_issued(root, root, is_ca=True)
    _check_issued(pck.issuer.certificate, root, is_ca=True)
    _check_issued(pck.leaf.certificate, pck.issuer.certificate, is_ca=False)
    return pck


@lru_cache(_CACHED)
def read_signer(chain: bytes, root: x509.Certificate, what: str) -> Issued:
    """Who signs Intel's documents, if its certificate is the root's. Dates are not looked at.

    Raises:
        EvidenceRejected: it is not.
        FormatError: `chain` is not one certificate, or it and the root.
    """
    found = parse_certificates(chain, what=what)
    if len(found) > 2:
        raise FormatError(f"expected 1 or 2 certificates, got {len(found)}", what=what)
    signer = Issued.read(found[0])
    if signer.name != _SIGNER:
        raise EvidenceRejected(f"expected a signer '{_SIGNER}', got '{signer.name[:80]}'")
    if len(found) == 2 and found[1] != root:
        raise EvidenceRejected("the root of the document's signer is not the trusted one")
    _check_issued(root, root, is_ca=True)
    _check_issued(found[0], root, is_ca=False)
    return signer


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate, *, is_ca: bool) -> None:
    """Raise unless `issuer` signed a certificate, which is or is not one of an authority."""
    name = Issued.read(certificate).name
    try:
        _check_end(certificate.public_bytes(Encoding.DER), certificate.signature)
        certificate.verify_directly_issued_by(issuer)  # names too
        extensions = certificate.extensions
    except (InvalidSignature, *UNREADABLE):
        raise EvidenceRejected(
            f"the certificate {name} is not signed by {Issued.read(issuer).name}"
        ) from None
    if not isinstance(certificate.signature_hash_algorithm, hashes.SHA256):
        raise EvidenceRejected(f"the certificate {name} is not signed with SHA-256")
    key_of(certificate, name)
    usage = constraints = None
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            constraints = extension.value
        elif isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
        elif extension.critical:
            oid = extension.oid.dotted_string
            raise EvidenceRejected(f"the certificate {name} has the critical extension {oid}")
    if constraints is None or constraints.ca != is_ca:
        raise EvidenceRejected(f"the certificate {name} is{' not' if is_ca else ''} an authority's")
    if usage is None or not (usage.key_cert_sign if is_ca else usage.digital_signature):
        raise EvidenceRejected(f"the certificate {name} is not for signatures of this kind")


def _check_end(der: bytes, signature: bytes) -> None:
    """Raise ValueError if a signature is said to have unused bits: that is outside of it."""
    if not der.endswith(b"\0" + signature):
        raise ValueError("expected a signature without unused bits")


@dataclass(frozen=True, slots=True)
class CRL:
    """A list of revoked certificates, its signature verified. Dates are not looked at.

    Attributes:
        number: None: it has none.
    """

    what: str
    begin: datetime
    end: datetime
    number: int | None
    serials: frozenset[int] = field(repr=False)

    def check(self, now: datetime, *certificates: Issued) -> None:
        """Raise unless it is valid now and none of these is in it.

        Raises:
            CouldNotVerify: it is not valid now.
            EvidenceRejected: one is revoked.
        """
        # One that was made after `now` is taken: it knows more, of a look at the past.
        if now > self.end:
            raise CouldNotVerify(
                f"the {self.what} is not valid at {now:%Y-%m-%dT%H:%M:%SZ}: expected at most "
                f"{self.end:%Y-%m-%dT%H:%M:%SZ}",
                hint=FETCH_NEWEST,
            )
        for one in certificates:
            if one.serial in self.serials:
                raise EvidenceRejected(f"the certificate {one.name} is revoked by Intel")


@lru_cache(_CACHED)
def read_crl(der: bytes, issuer: x509.Certificate, what: str) -> CRL:
    """A list, if `issuer` signed it and it is of all its certificates.

    Raises:
        EvidenceRejected: it is another's.
        CouldNotVerify: it is of some of its certificates only.
        FormatError: it is none.
    """
    if len(der) > _MAX_CRL:
        raise FormatError(f"expected at most {_MAX_CRL} bytes, got {len(der)}", what=what)
    try:
        crl = x509.load_der_x509_crl(der)
        _check_end(der, crl.signature)
        name, end = crl.issuer, crl.next_update_utc
        extensions = list(crl.extensions)
        serials = frozenset(one.serial_number for one in crl)
    except UNREADABLE:
        raise FormatError("is no list that can be read", what=what) from None
    try:
        is_signed_by = (
            name == issuer.subject
            and isinstance(crl.signature_hash_algorithm, hashes.SHA256)
            and crl.is_signature_valid(key_of(issuer, what))
        )
    except UNREADABLE:
        is_signed_by = False
    if not is_signed_by:
        raise EvidenceRejected(f"the {what} is not signed by {Issued.read(issuer).name}")
    if end is None:
        raise CouldNotVerify(f"the {what} does not say when the next one comes")
    number = None
    for extension in extensions:
        if isinstance(extension.value, x509.CRLNumber):
            number = extension.value.crl_number
        elif extension.critical:  # delta lists and lists of a part are critical, RFC 5280 5.2
            oid = extension.oid.dotted_string
            raise CouldNotVerify(f"expected a {what} of every certificate, got extension {oid}")
    return CRL(what, crl.last_update_utc, end, number, serials)


def is_signed(signature: bytes, key: ec.EllipticCurvePublicKey, body: bytes) -> bool:
    """Whether a key on P-256 signed these bytes.

    Args:
        signature: r and s, 32 bytes each.
    """
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    try:
        key.verify(utils.encode_dss_signature(r, s), body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
