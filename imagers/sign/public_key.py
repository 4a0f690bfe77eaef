# SPDX-License-Identifier: Apache-2.0
"""Public keys of signers: PEM in, a fingerprint and a yes or no out.

    key = parse_public_key(pem, what="key 'release.pub'")
    key.fingerprint                      # SHA-256 of the DER SubjectPublicKeyInfo
    key.is_good(signature, payload)

Schemes, by kind of key: ECDSA over P-256, P-384 and P-521 (ASN.1 DER), RSA PKCS#1 v1.5 with
SHA-256, Ed25519 (the plain one, and Ed25519ph, which is cosign's default for such keys).

Spec: cosign SIGNATURE_SPEC.md; containers/image df7e80d2, signature/internal/
sigstore_payload.go; RFC 7468 section 13.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from imagers.errors import FormatError, Unsupported

__all__ = ["MAX_KEY_BYTES", "PublicKey", "parse_public_key", "public_key_of"]

MAX_KEY_BYTES = 64 * 1024  # an RSA-8192 key has 1.5 KB of PEM
_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192  # above, one verification costs more than it is worth to an attacker
_BEGIN = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----[ \t\r]*$", re.MULTILINE)
_LABELS = (b"PUBLIC KEY", b"RSA PUBLIC KEY")

_Key = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
# containers/image hashes with SHA-256 for every curve; image-rs and the specification take
# the hash of the curve's size. Both are good signatures by the same key.
_ECDSA_HASHES: dict[str, tuple[hashes.HashAlgorithm, ...]] = {
    "secp256r1": (hashes.SHA256(),),
    "secp384r1": (hashes.SHA256(), hashes.SHA384()),
    "secp521r1": (hashes.SHA256(), hashes.SHA512()),
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A signer's public key. Make one with `parse_public_key` or `public_key_of`.

    Attributes:
        spki: DER SubjectPublicKeyInfo.
    """

    spki: bytes
    _key: _Key = field(compare=False, repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER SubjectPublicKeyInfo, in lower-case hex."""
        return hashlib.sha256(self.spki).hexdigest()

    @property
    def kind(self) -> str:
        """Such as `ECDSA P-256`, for messages."""
        if isinstance(self._key, ec.EllipticCurvePublicKey):
            return f"ECDSA P-{self._key.curve.key_size}"
        if isinstance(self._key, rsa.RSAPublicKey):
            return f"RSA {self._key.key_size}"
        return "Ed25519"

    def to_pem(self) -> bytes:
        """PEM `PUBLIC KEY`, as cosign writes and everybody reads it."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def is_good(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` was made over exactly `data` by the secret half of this key."""
        key = self._key
        if isinstance(key, ec.EllipticCurvePublicKey):
            for algorithm in _ECDSA_HASHES[key.curve.name]:
                try:
                    key.verify(signature, data, ec.ECDSA(algorithm))
                except InvalidSignature:
                    continue
                return True
            return False
        try:
            if isinstance(key, rsa.RSAPublicKey):
                key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            else:
                key.verify(signature, data)
        except InvalidSignature:
            return isinstance(key, ed25519.Ed25519PublicKey) and _is_good_ed25519ph(
                key, signature, data
            )
        return True


def _is_good_ed25519ph(key: ed25519.Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    """The same for Ed25519ph; the two can never verify each other's signatures (RFC 8032)."""
    from nacl import bindings
    from nacl.exceptions import CryptoError

    state = bindings.crypto_sign_ed25519ph_state()
    bindings.crypto_sign_ed25519ph_update(state, data)
    try:
        return bool(
            bindings.crypto_sign_ed25519ph_final_verify(state, signature, key.public_bytes_raw())
        )
    except (CryptoError, ValueError, TypeError):
        return False


def public_key_of(key: object, *, what: str) -> PublicKey:
    """The `PublicKey` around a key object of `cryptography`.

    Raises:
        Unsupported: a kind, curve or size that is not used for signatures of images.
    """
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _ECDSA_HASHES:
        good: _Key = key
    elif isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, rsa.RSAPublicKey) and _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS
    ):
        good = key
    else:
        raise Unsupported(
            f"{what}: expected an ECDSA key on P-256, P-384 or P-521, an RSA key of "
            f"{_MIN_RSA_BITS} to {_MAX_RSA_BITS} bits or an Ed25519 key, got another kind"
        )
    spki = good.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PublicKey(spki, good)


def parse_public_key(pem: bytes, *, what: str) -> PublicKey:
    """The one public key in `pem`.

    A file with two keys is refused: readers differ in which of them they take.

    Raises:
        FormatError: not PEM with exactly one public key.
        Unsupported: a key that is not used for signatures of images.
    """
    if len(pem) > MAX_KEY_BYTES:
        raise FormatError(f"expected at most {MAX_KEY_BYTES} bytes, got {len(pem)}", what=what)
    labels = _BEGIN.findall(pem)
    # The plain count sees a second block that the pattern, stricter than readers, does not.
    if pem.count(b"-----BEGIN") != 1 or labels not in ([_LABELS[0]], [_LABELS[1]]):
        found = ", ".join(repr(label.decode()) for label in labels[:4]) or "no PEM block"
        raise FormatError(
            f"expected one PEM block 'PUBLIC KEY', got {found}",
            what=what,
            hint="several keys go into several files and keyPaths; "
            "'imagers key show --public FILE' prints the public half of a private one",
        )
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("the PEM block is not a public key that can be read", what=what) from None
    return public_key_of(key, what=what)
