# SPDX-License-Identifier: Apache-2.0
"""X.509 chains of signers: from a leaf to a given root, at a given time.

    roots = parse_certificates(pem, what="root certificates")
    leaf, *others = parse_certificates(chain_pem, what="chain")
    check_chain(leaf, others, roots, at=when, purpose=Purpose.CODE_SIGNING)

A chain is good if there is a path from the leaf to a root on which, for every certificate,

1. the issuer's key verifies it and the names agree, with a hash of at least 256 bits and keys
   of at least 2048 (RSA) or 256 (EC) bits,
2. it is valid at the given time, the root too,
3. every issuer is a CA that may sign certificates, within its path length,
4. every extended key usage that is there allows the purpose, and the leaf has one; where no
   purpose is given, none is there,
5. and there is no critical extension, and no name constraint, that is not understood here.

Revocation is not looked at: that would need the network.

Spec: RFC 5280 sections 4.2 and 6.1; containers/image df7e80d2, signature/fulcio_cert.go and
pki_cert.go; fulcio docs/oid-info.md.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from imagers.errors import FormatError, SignatureInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = [
    "MAX_CERTIFICATES",
    "Purpose",
    "alternative_names",
    "check_chain",
    "check_leaf",
    "check_validity",
    "describe",
    "load_certificate",
    "parse_certificates",
    "parse_root",
]

MAX_CERTIFICATES = 32  # of one file or one signature
_MAX_PEM_BYTES = 256 * 1024
_MAX_PATH = 8  # certificates from leaf to root
_MAX_STEPS = 256  # of the search, all branches together
_MIN_RSA_BITS = 2048
_MIN_EC_BITS = 256
_MAX_DER_BYTES = 64 * 1024
# TypeError: cryptography's, of a part of a name whose type is none for it
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_GOOD_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512, hashes.SHA3_256, hashes.SHA3_384)


class Purpose(Enum):
    """What a leaf may be used for."""

    CODE_SIGNING = ExtendedKeyUsageOID.CODE_SIGNING
    TIME_STAMPING = ExtendedKeyUsageOID.TIME_STAMPING
    TPM_ENDORSEMENT = x509.ObjectIdentifier("2.23.133.8.1")


def parse_certificates(pem: bytes, *, what: str) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file, in order; at least one.

    Raises:
        FormatError: it is none, holds something else too, or too many.
    """
    if len(pem) > _MAX_PEM_BYTES:
        raise FormatError(f"expected at most {_MAX_PEM_BYTES} bytes, got {len(pem)}", what=what)
    count = pem.count(b"-----BEGIN ")
    if count != pem.count(b"-----BEGIN CERTIFICATE-----") or not 1 <= count <= MAX_CERTIFICATES:
        raise FormatError(
            f"expected 1 to {MAX_CERTIFICATES} PEM blocks 'CERTIFICATE' and no others",
            what=what,
        )
    try:
        found = tuple(x509.load_pem_x509_certificates(pem))
        for one in found:
            _read_names(one)
    except _UNREADABLE:
        raise FormatError("a PEM block is not a certificate that can be read", what=what) from None
    if len(found) != count:
        raise FormatError(f"expected {count} certificates, could read {len(found)}", what=what)
    return found


def parse_root(pem: bytes, *, what: str) -> x509.Certificate:
    """The one certificate in a PEM file that is trusted as root.

    Raises:
        FormatError: it does not have one.
    """
    found = parse_certificates(pem, what=what)
    if len(found) != 1:
        raise FormatError(f"expected one root certificate, got {len(found)}", what=what)
    return found[0]


def load_certificate(der: bytes, *, what: str) -> x509.Certificate:
    """One certificate from DER.

    Raises:
        FormatError: it is none.
    """
    if len(der) > _MAX_DER_BYTES:
        raise FormatError(f"expected at most {_MAX_DER_BYTES} bytes, got {len(der)}", what=what)
    try:
        certificate = x509.load_der_x509_certificate(der)
        _read_names(certificate)
    except _UNREADABLE:
        raise FormatError("is not a certificate that can be read", what=what) from None
    return certificate


def _read_names(certificate: x509.Certificate) -> tuple[x509.Name, x509.Name]:
    """Issuer and subject, which `cryptography` parses only when they are asked for.

    Raises:
        ValueError: they cannot be read; the search for a chain compares them.
    """
    return certificate.issuer, certificate.subject


def describe(certificate: x509.Certificate) -> str:
    """Who it is about, in one line."""
    names = [
        *alternative_names(certificate, x509.RFC822Name),
        *alternative_names(certificate, x509.DNSName),
    ]
    names += alternative_names(certificate, x509.UniformResourceIdentifier)
    try:
        return ", ".join(names) or certificate.subject.rfc4514_string() or "nobody"
    except ValueError:
        return "a subject that cannot be read"


def check_chain(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    *,
    at: datetime | None,
    purpose: Purpose | None,
    purpose_is_optional: bool = False,
    what: str = "certificate",
) -> tuple[x509.Certificate, ...]:
    """The path from `leaf` to one of `roots`, both included.

    Args:
        intermediates: in any order, of any origin; they are trusted no more than the leaf.
        at: aware; when the chain must have been valid; None: the caller looks at times
            himself, with `check_validity` of what this gives.
        purpose: None: of signers whose certificates name none, such as a vendor's machines.
        purpose_is_optional: whether a leaf without extended key usage will do.

    Raises:
        SignatureInvalid: there is no such path; the message says why the closest one fails.
    """
    if len(intermediates) > MAX_CERTIFICATES:
        raise SignatureInvalid(
            f"{what}: expected at most {MAX_CERTIFICATES} certificates beside it, "
            f"got {len(intermediates)}"
        )
    check_leaf(leaf, at=at, purpose=purpose, purpose_is_optional=purpose_is_optional, what=what)
    search = _Search(intermediates, roots, at, purpose)
    path = search.find((leaf,))
    if path is None:
        raise SignatureInvalid(
            f"{what} of {describe(leaf)}: "
            + (search.problem or "no given root certificate leads to it"),
            hint="'openssl x509 -noout -subject -issuer -in FILE' shows who issued it",
        )
    return path


def check_leaf(
    leaf: x509.Certificate,
    *,
    at: datetime | None,
    purpose: Purpose | None,
    purpose_is_optional: bool = False,
    what: str = "certificate",
) -> None:
    """Raise unless a certificate may be that of a signer; whoever issued it. As `check_chain`."""
    problem = _problem_of(leaf, at, purpose, is_leaf=True, optional=purpose_is_optional)
    if problem:
        raise SignatureInvalid(f"{what} of {describe(leaf)}: {problem}")


class _Search:
    def __init__(
        self,
        intermediates: Sequence[x509.Certificate],
        roots: Sequence[x509.Certificate],
        at: datetime | None,
        purpose: Purpose | None,
    ) -> None:
        self._intermediates = intermediates
        self._roots = roots
        self._at = at
        self._purpose = purpose
        self._steps = 0
        self.problem = ""

    def find(self, path: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...] | None:
        """A path that begins with `path` and ends in a root."""
        for root in self._roots:
            if self._issues(root, path):
                return (*path, root)
        if len(path) >= _MAX_PATH - 1:
            return None
        for candidate in self._intermediates:
            if candidate not in path and self._issues(candidate, path):
                found = self.find((*path, candidate))
                if found is not None:
                    return found
        return None

    def _issues(self, issuer: x509.Certificate, path: tuple[x509.Certificate, ...]) -> bool:
        """Whether `issuer` may be the next of `path`, and if not, why not."""
        self._steps += 1
        if self._steps > _MAX_STEPS or path[-1].issuer != issuer.subject:
            return False
        try:
            # Also compares the names; the algorithm is that of the signed certificate.
            path[-1].verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        problem = _problem_of(issuer, self._at, self._purpose, is_leaf=False, below=len(path) - 1)
        if problem:
            self.problem = f"its issuer {describe(issuer)}: {problem}"
        return not problem


def _problem_of(
    certificate: x509.Certificate,
    at: datetime | None,
    purpose: Purpose | None,
    *,
    is_leaf: bool,
    below: int = 0,
    optional: bool = False,
) -> str:
    """Why a certificate may not be on a path, "" if it may.

    Args:
        below: how many CA certificates are between it and the leaf.
    """
    if at is not None and (untimely := _time_problem(certificate, at)):
        return untimely
    try:
        extensions = certificate.extensions
        key = certificate.public_key()
        algorithm = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        return "it cannot be read"
    weak = _weakness_of(key, algorithm)
    if weak:
        return weak
    for extension in extensions:
        if extension.oid == ExtensionOID.NAME_CONSTRAINTS:
            return "it has name constraints, which are not understood here"
        if extension.critical and extension.oid not in _UNDERSTOOD:
            return f"it has the critical extension {extension.oid.dotted_string}"
    return _usage_problem(extensions, purpose, is_leaf=is_leaf, below=below, optional=optional)


def _time_problem(certificate: x509.Certificate, at: datetime) -> str:
    if certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        return ""
    return (
        f"not valid at {at:%Y-%m-%dT%H:%M:%SZ}: expected "
        f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ} to "
        f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    )


def check_validity(path: Sequence[x509.Certificate], at: datetime | None, *, what: str) -> None:
    """Raise unless every certificate of a path is strong enough, and valid at a time.

    Raises:
        SignatureInvalid: one of them is not.
    """
    for one in path:
        problem = "" if at is None else _time_problem(one, at)
        try:
            weak = _weakness_of(one.public_key(), one.signature_hash_algorithm)
        except (ValueError, UnsupportedAlgorithm):
            weak = "it cannot be read"
        if problem or weak:
            raise SignatureInvalid(f"{what} of {describe(one)}: {problem or weak}")


def _weakness_of(key: object, algorithm: hashes.HashAlgorithm | None) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            return f"expected an RSA key of at least {_MIN_RSA_BITS} bits, got {key.key_size}"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.key_size < _MIN_EC_BITS:
            return f"expected an EC key of at least {_MIN_EC_BITS} bits, got {key.key_size}"
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        return "expected an RSA, EC or Ed25519 key, got another kind"
    if algorithm is not None and not isinstance(algorithm, _GOOD_HASHES):
        return f"expected a hash of SHA-2 or SHA-3, got {algorithm.name}"
    return ""


def _usage_problem(
    extensions: x509.Extensions,
    purpose: Purpose | None,
    *,
    is_leaf: bool,
    below: int,
    optional: bool,
) -> str:
    values = {extension.oid: extension.value for extension in extensions}
    usage = values.get(ExtensionOID.KEY_USAGE)
    constraints = values.get(ExtensionOID.BASIC_CONSTRAINTS)
    extended = values.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if purpose is None:
        if extended is not None:
            return "it has an extended key usage, where none is expected"
    elif extended is None:
        if is_leaf and not optional:
            return f"expected extended key usage {purpose.name.lower().replace('_', ' ')}, got none"
    else:
        assert isinstance(extended, x509.ExtendedKeyUsage)
        allowed = (
            {purpose.value}
            if is_leaf
            else {
                purpose.value,
                ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
            }
        )
        if not allowed.intersection(extended):
            return f"it may not be used for {purpose.name.lower().replace('_', ' ')}"
    if is_leaf:
        if purpose is Purpose.TPM_ENDORSEMENT:
            if isinstance(usage, x509.KeyUsage) and not (
                usage.key_encipherment or usage.key_agreement
            ):
                return "it may not be used for encryption"
        elif isinstance(usage, x509.KeyUsage) and not (
            usage.digital_signature or usage.content_commitment
        ):
            return "it may not be used for signatures"
        if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
            return "it is the certificate of an authority"
        return ""
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        return "it is no authority"
    if constraints.path_length is not None and constraints.path_length < below:
        return f"expected at most {constraints.path_length} authorities below it, got {below}"
    if isinstance(usage, x509.KeyUsage) and not usage.key_cert_sign:
        return "it may not sign certificates"
    return ""


def alternative_names(
    certificate: x509.Certificate,
    kind: type[x509.RFC822Name | x509.DNSName | x509.UniformResourceIdentifier],
) -> list[str]:
    """Its subject's alternative names of one kind; none where they cannot be read."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(one) for one in names.get_values_for_type(kind)]
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError, UnsupportedAlgorithm):
        return []
