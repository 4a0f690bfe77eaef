# SPDX-License-Identifier: Apache-2.0
"""The private key that notation signs with, and the certificates of its owner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from imagers.errors import FormatError, KeyUnavailable, Unsupported, UsageError
from imagers.pki.algorithms import algorithm_of, sign
from imagers.pki.chain import parse_certificates

if TYPE_CHECKING:
    from cryptography import x509

    from imagers.model.keys import SecretKey

__all__ = ["NotationKey", "parse_notation_key"]


@dataclass(frozen=True, slots=True)
class NotationKey:
    """A private key and the certificates of its owner. It does not print.

    Attributes:
        chain: leaf first, to the root.
    """

    chain: tuple[x509.Certificate, ...]
    _key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """The signature over `data`: PSS, or the two numbers of ECDSA."""
        return sign(self._key, data)


def parse_notation_key(
    key_pem: bytes,
    chain_pem: bytes,
    passphrase: SecretKey | None,
    *,
    what: str,
    chain_what: str = "certificate chain",
) -> NotationKey:
    """The key in one PEM file, with the certificates in another.

    Raises:
        FormatError: not such files, or the leaf is the certificate of another key.
        Unsupported: a key that notation has no algorithm for.
        UsageError: a passphrase for a key that has none.
        KeyUnavailable: the passphrase is missing or does not open it.
    """
    chain = parse_certificates(chain_pem, what=chain_what)
    password: bytes | None = None
    if passphrase is not None and len(passphrase):
        with passphrase.view() as view:
            password = bytes(view)
    try:
        key = serialization.load_pem_private_key(key_pem, password)
    except TypeError:  # of this library: encrypted and no passphrase, or the reverse
        if password is None:
            raise KeyUnavailable(f"{what}: the key has a passphrase, and none was given") from None
        raise UsageError(
            f"{what}: a passphrase was given, and the key has none",
            hint="leave the passphrase away, or check that this is the right file",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        if password is not None and b"ENCRYPTED" in key_pem:
            raise KeyUnavailable(f"{what}: the passphrase does not open it") from None
        raise FormatError("expected a private key in PEM", what=what) from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise Unsupported(f"{what}: expected an RSA or an EC key")
    try:
        algorithm_of(key.public_key())
    except Unsupported as error:
        raise Unsupported(f"{what}: {error}") from error
    der = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*der) != chain[0].public_key().public_bytes(*der):
        raise FormatError("expected the certificate of the key first", what=chain_what)
    return NotationKey(chain, key)
