# SPDX-License-Identifier: Apache-2.0
"""RA-TLS: a certificate that carries evidence of the machine which has its key.

    found = read_ratls(der)                       # steps 1 to 3
    check = PeerEvidence(policy, read=directory.read, clock=clock)
    check(der)                                    # steps 1 to 5, or an error

TLS proves that the peer has the key of its certificate; the certificate proves nothing else by
itself, since its peer has signed it. So, in this order:

1. *Certificate.* X.509 version 3 in DER, valid now. Nothing of what it says of names counts.
2. *Evidence.* One of the extensions below, once; the first of them that is there.

       2.23.133.5.4.9              TCG DICE: CBOR tag 60000, [quote, claims]
       0.6.9.42.840.113741.1337.6  of Gramine, before it had DICE: a quote
       1.2.840.113741.1337.6       of rats-tls, before it had DICE: a quote

3. *Key.* What the quote binds is the key: in DICE the SHA-256 of the claims, whose `pubkey-hash` is
   that of the SubjectPublicKeyInfo; with Gramine its SHA-256; with rats-tls that of the PKCS#1 key.
4. *Genuine.* The quote, by the steps of its verifier, as evidence that comes in a handshake.
5. *Ours.* It equals the reference values. Without them any machine of the kind would do: one
   that anybody rents.

Evidence of RA-TLS has no nonce: it says what the machine was when the certificate was made. Only
quotes of Intel SGX and TDX have a tag that both sides know.

The certificate is read here element by element, each with the shortest form of its length, so that
no other reader finds another key in it.

Spec: Interoperable RA-TLS (CCC Attestation SIG); TCG DICE Attestation Architecture 1.1, section
6.1.1; RFC 5280 section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256, sha384, sha512
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from imagers.errors import EvidenceRejected, FormatError, Unsupported
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.judge import judge_parsed
from imagers.evidence.plugins import find_parser, load_verifier
from imagers.evidence.policy import AppraisalPolicy
from imagers.evidence.steps import mismatch, step
from imagers.model.evidence import Bound, ReportData
from imagers.model.strict_cbor import CBORView, Tag, parse_cbor
from imagers.model.strict_json import View
from imagers.pki.der import Element, encode, encode_oid, only, split

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from imagers.model.evidence import Attester, Claims

__all__ = ["RATLS", "PeerEvidence", "make_ratls", "read_ratls"]

_WHAT = "certificate of the peer"
_CLAIMS = "claims of the certificate"
_MAX_CERTIFICATE = 256 * 1024
_MAX_QUOTE = 128 * 1024
_DICE = "2.23.133.5.4.9"
_GRAMINE = "0.6.9.42.840.113741.1337.6"
_RATS_TLS = "1.2.840.113741.1337.6"
_FORMS = {encode_oid(one): one for one in (_DICE, _GRAMINE, _RATS_TLS)}
_TEE_ECDSA_QUOTE = 60000  # the tag
_PUBKEY_HASH = "pubkey-hash"
# Of IANA's Named Information Hash Algorithm Registry.
_HASHES = {1: sha256, 7: sha384, 8: sha512}
_SHA256 = 1
# An extension that is critical is one without which the rest must not be believed.
_UNDERSTOOD = {encode_oid(f"2.5.29.{last}") for last in (14, 15, 17, 19, 35, 37)} | _FORMS.keys()
_SEQUENCE, _INTEGER, _BITS, _OCTETS, _OID, _BOOLEAN = 0x30, 0x02, 0x03, 0x04, 0x06, 0x01
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _UNIQUE_IDS, _EXTENSIONS = 0xA0, (0x81, 0x82), 0xA3
# Tags of serial, algorithm, issuer, validity, subject, key; algorithms are not looked at.
_BODY = (_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE)
_VERSION_3 = 2
_TDX = 0x81  # type of a TEE in the header of a quote
_QUOTED = ("sgx", "tdx")
_LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class RATLS:
    """What a certificate carries. Its evidence is read and not verified; its key is what it binds.

    Attributes:
        form: the object identifier of the extension.
        tee: the name on the wire.
        evidence: as the verifier of that TEE takes it.
        report_data: that the evidence has to bind.
        not_before, not_after: aware times.
    """

    form: str
    tee: str
    evidence: Any = field(repr=False)
    report_data: bytes
    not_before: datetime
    not_after: datetime

    def check_time(self, now: datetime) -> None:
        """Step 1, as far as it is about time: raise unless the certificate is valid.

        Raises:
            EvidenceRejected: it is not.
        """
        with step("1, certificate"):
            if not self.not_before <= now <= self.not_after:
                expected = f"valid at {now:%Y-%m-%dT%H:%M:%SZ}"
                span = f"{self.not_before:%Y-%m-%d} to {self.not_after:%Y-%m-%d}"
                raise mismatch("validity", expected, span)


def read_ratls(certificate: bytes) -> RATLS:
    """The evidence in a certificate, after the check that it is for the certificate's key.

    Args:
        certificate: DER.

    Raises:
        EvidenceRejected: it has no evidence, or evidence for another key.
        FormatError: it is no certificate, or something in it cannot be read.
    """
    if len(certificate) > _MAX_CERTIFICATE:
        raise FormatError(
            f"expected at most {_MAX_CERTIFICATE} bytes, got {len(certificate)}", what=_WHAT
        )
    key, validity, extensions = _read_certificate(certificate)
    found = next((form for form in _FORMS.values() if form in extensions), None)
    with step("2, evidence"):
        if found is None:
            raise mismatch(
                "extensions",
                f"evidence in one of {', '.join(_FORMS.values())}",
                "none",
                hint="a broker that has no RA-TLS is named with --broker-ca FILE",
            )
    value = extensions[found]
    if found == _DICE:
        quote, report_data = _read_dice(value, key)
    elif found == _GRAMINE:
        quote, report_data = value, sha256(key).digest()
    else:
        quote, report_data = value, sha256(_pkcs1_of(key)).digest()
    if not 8 <= len(quote) <= _MAX_QUOTE:
        raise FormatError(f"expected a quote of at most {_MAX_QUOTE} bytes", what=_WHAT)
    tee = "tdx" if int.from_bytes(quote[4:8], "little") == _TDX else "sgx"
    not_before, not_after = validity
    return RATLS(found, tee, find_parser(tee)(quote), report_data, not_before, not_after)


@dataclass(frozen=True, slots=True)
class PeerEvidence:
    """Whether a peer of a TLS connection is a machine of one's own, by its certificate.

    Attributes:
        policy: the settings of the verifiers, and the reference values that the peer has to equal.
        read: the collateral of a name, or None: there is none.
        clock: gives aware times.
        roots: certificates in PEM by the name of a TEE, in place of its vendor's. For tests.
    """

    policy: AppraisalPolicy
    read: Callable[[str], bytes | None] = field(repr=False)
    clock: Callable[[], datetime] = field(repr=False)
    roots: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def __call__(self, certificate: bytes) -> None:
        """Raise unless it is.

        Args:
            certificate: of the peer, in DER; the handshake has proved that the peer has its key.

        Raises:
            EvidenceRejected: it is not, or its evidence is not genuine.
            CouldNotVerify: collateral is missing or out of date.
            FormatError: the certificate cannot be read.
        """
        now = self.clock()
        found = read_ratls(certificate)
        found.check_time(now)
        verifier = load_verifier(
            found.tee,
            settings=self.policy.settings.get(found.tee),
            roots=self.roots.get(found.tee),
        )
        claims = judge_parsed(
            verifier,
            found.evidence,
            bound=Bound(found.report_data),
            read=self.read,
            now=now,
        )
        self._check_own(claims, now)

    def _check_own(self, claims: Claims, now: datetime) -> None:
        """Step 5."""
        references = {one.name: one for one in self.policy.references}
        appraisal = appraise_claims(claims, references, now=now)
        if not appraisal.is_affirming:
            misses = "; ".join(one.told(remedy=False) for one in appraisal.misses)
            with step("5, ours"):
                raise EvidenceRejected(
                    f"the peer is a genuine machine of the TEE '{claims.tee}', and not known as "
                    f"yours: {misses}"
                )


def make_ratls(
    key: ec.EllipticCurvePrivateKey,
    attester: Attester,
    *,
    now: datetime,
    lifetime: timedelta = _LIFETIME,
) -> bytes:
    """A certificate for a key, signed with it, with evidence that this machine has it, in DER.

    Args:
        attester: of SGX or TDX.
        now: aware.

    Raises:
        NoTEE: this machine is none of that kind.
        Unsupported: the attester is of another TEE.
        FormatError: the attester gives no quote.
    """
    import cbor2
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    entry = cbor2.dumps([_SHA256, sha256(spki).digest()])
    claims = cbor2.dumps({_PUBKEY_HASH: entry})
    if attester.tee not in _QUOTED:
        raise Unsupported(
            f"RA-TLS has no tag for evidence of the TEE {attester.tee!r}: expected sgx or tdx"
        )
    evidence = attester.collect(ReportData(sha256(claims).digest()))
    quote = View(evidence.body, what=f"{evidence.tee} evidence").bytes64("quote")
    value = cbor2.dumps(cbor2.CBORTag(_TEE_ECDSA_QUOTE, [quote, claims]))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "RA-TLS")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(_DICE), value), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def _read_dice(value: bytes, key: bytes) -> tuple[bytes, bytes]:
    """The quote, and the report data that makes the claims its own.

    Raises:
        EvidenceRejected: the claims are of another key.
        FormatError: something else stands there.
    """
    tagged = parse_cbor(value, what=_WHAT, max_bytes=_MAX_CERTIFICATE)
    match tagged:
        case Tag(number=60000, value=(bytes(quote), bytes(claims))):
            pass
        case _:
            raise FormatError(
                "expected CBOR with the tag 60000, of a quote and claims", what=_WHAT, where=_DICE
            )
    view = CBORView.parse(claims, what=_CLAIMS, max_bytes=_MAX_CERTIFICATE)
    entry = parse_cbor(view.byte_string(_PUBKEY_HASH), what=_CLAIMS, max_bytes=_MAX_CERTIFICATE)
    match entry:
        case (int(number), bytes(told)) if number in _HASHES and number is not True:
            actual = _HASHES[number](key).digest()
        case _:
            raise view.error("expected [1, 7 or 8, hash value]", _PUBKEY_HASH)
    with step("3, key"):
        if not compare_digest(told, actual):
            raise mismatch(_PUBKEY_HASH, actual.hex(), told.hex())
    return quote, sha256(claims).digest()


def _read_certificate(
    der: bytes,
) -> tuple[bytes, tuple[datetime, datetime], dict[str, bytes]]:
    """SubjectPublicKeyInfo, validity, and the values of the extensions that have evidence.

    Raises:
        FormatError: it is no certificate of version 3 in DER.
    """
    whole = _elements(_content(der, _SEQUENCE))
    if [one.tag for one in whole] != [_SEQUENCE, _SEQUENCE, _BITS]:
        raise _no_certificate()
    body = _elements(whole[0].content)
    if not body or body[0].tag != _VERSION:
        raise _no_certificate()
    if _content(body[0].content, _INTEGER) != bytes((_VERSION_3,)):
        raise _no_certificate()
    fields, rest = body[1 : 1 + len(_BODY)], body[1 + len(_BODY) :]
    if tuple(one.tag for one in fields) != _BODY:
        raise _no_certificate()
    rest = [one for one in rest if one.tag not in _UNIQUE_IDS]
    if [one.tag for one in rest] not in ([], [_EXTENSIONS]):
        raise _no_certificate()
    extensions = _read_extensions(rest[0].content) if rest else {}
    times = [_time(one) for one in _elements(fields[3].content)]
    if len(times) != 2:
        raise _no_certificate()
    return fields[5].raw, (times[0], times[1]), extensions


def _read_extensions(der: bytes) -> dict[str, bytes]:
    seen: set[bytes] = set()
    found: dict[str, bytes] = {}
    for extension in _elements(_content(der, _SEQUENCE)):
        parts = _elements(extension.content)
        tags = [one.tag for one in parts]
        if extension.tag != _SEQUENCE or tags not in (
            [_OID, _OCTETS],
            [_OID, _BOOLEAN, _OCTETS],
        ):
            raise _no_certificate()
        oid = parts[0].raw
        if oid in seen:
            raise FormatError("has an extension twice", what=_WHAT)
        seen.add(oid)
        if len(parts) == 3 and oid not in _UNDERSTOOD:
            raise FormatError(
                f"has a critical extension that is not known here: {oid[2:].hex()[:64]}",
                what=_WHAT,
            )
        if oid in _FORMS:
            found[_FORMS[oid]] = parts[-1].content
    return found


def _pkcs1_of(key: bytes) -> bytes:
    """The RSAPublicKey in a SubjectPublicKeyInfo.

    Raises:
        FormatError: the key is none of RSA.
    """
    parts = _elements(_content(key, _SEQUENCE))
    rsa = encode(_SEQUENCE, encode_oid("1.2.840.113549.1.1.1"), b"\5\0")
    if len(parts) != 2 or parts[0].raw != rsa or parts[1].content[:1] != b"\0":
        raise FormatError(f"expected an RSA key beside the evidence of {_RATS_TLS}", what=_WHAT)
    return parts[1].content[1:]


def _elements(data: bytes) -> list[Element]:
    """The elements of `data`, each in the one form of DER.

    Raises:
        FormatError: one has another form.
    """
    found = split(data, what=_WHAT)
    if any(one.raw != encode(one.tag, one.content) for one in found):
        raise FormatError("expected DER", what=_WHAT)
    return found


def _content(data: bytes, tag: int) -> bytes:
    _elements(data)
    return only(data, tag, what=_WHAT)


def _time(element: Element) -> datetime:
    """Of RFC 5280, section 4.1.2.5: to the second, in UTC."""
    text = element.content.decode("ascii", "replace")
    if element.tag == _UTC_TIME and len(text) == 13:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif element.tag != _GENERALIZED_TIME:
        text = ""
    if len(text) == 15 and text[:14].isascii() and text[:14].isdigit() and text[14] == "Z":
        try:
            return datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            pass
    raise FormatError("expected a time in UTC, to the second", what=_WHAT)


def _no_certificate() -> FormatError:
    return FormatError("expected a certificate X.509, version 3, in DER", what=_WHAT)
