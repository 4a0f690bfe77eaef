# SPDX-License-Identifier: Apache-2.0
"""Signatures as JWS and COSE have them: a key's one algorithm, its names, and both directions.

| key                    | JWS                 | COSE          |
|------------------------|---------------------|---------------|
| RSA 2048, 3072, 4096   | PS256, PS384, PS512 | -37, -38, -39 |
| EC P-256, P-384, P-521 | ES256, ES384, ES512 | -7, -35, -36  |
| Ed25519                | EdDSA               | -8            |

    algorithm_of(key).jws
    verify(key, signature, data, what="token")

The key decides and never the message: a header that names another algorithm is refused by who
reads it. ECDSA signatures are the two numbers, one behind the other.

Spec: RFC 7518 sections 3.4 and 3.5, RFC 8037 section 3.1; RFC 9053 section 2, RFC 8230.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from imagers.errors import SignatureInvalid, Unsupported

__all__ = ["Algorithm", "PrivateKey", "algorithm_of", "sign", "verify"]

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A signature algorithm: its name in JWS, its number in COSE, its hash."""

    jws: str
    cose: int
    hash: hashes.HashAlgorithm


_RSA = {
    2048: Algorithm("PS256", -37, hashes.SHA256()),
    3072: Algorithm("PS384", -38, hashes.SHA384()),
    4096: Algorithm("PS512", -39, hashes.SHA512()),
}
_EC = {
    "secp256r1": Algorithm("ES256", -7, hashes.SHA256()),
    "secp384r1": Algorithm("ES384", -35, hashes.SHA384()),
    "secp521r1": Algorithm("ES512", -36, hashes.SHA512()),
}
_EDDSA = Algorithm("EdDSA", -8, hashes.SHA512())


def algorithm_of(key: object) -> Algorithm:
    """The one algorithm of a public key.

    Raises:
        Unsupported: there is none for this kind and size.
    """
    found: Algorithm | None = None
    if isinstance(key, rsa.RSAPublicKey):
        found = _RSA.get(key.key_size)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        found = _EC.get(key.curve.name)
    elif isinstance(key, ed25519.Ed25519PublicKey):
        found = _EDDSA
    if found is None:
        raise Unsupported(
            "expected an RSA key of 2048, 3072 or 4096 bits, an EC key on P-256, P-384 or P-521, "
            "or an Ed25519 key"
        )
    return found


def sign(key: PrivateKey, data: bytes) -> bytes:
    """The signature over `data` by the algorithm of the key.

    Raises:
        Unsupported: it has none.
    """
    algorithm = algorithm_of(key.public_key())
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, _pss(algorithm), algorithm.hash)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        halves = decode_dss_signature(key.sign(data, ec.ECDSA(algorithm.hash)))
        return b"".join(one.to_bytes(_half_size(key.curve)) for one in halves)
    return key.sign(data)


def verify(key: object, signature: bytes, data: bytes, *, what: str) -> None:
    """Raise unless `key` made the signature over exactly `data`.

    Raises:
        SignatureInvalid: it did not, or it has no algorithm.
    """
    try:
        algorithm = algorithm_of(key)
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, _pss(algorithm), algorithm.hash)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            size = _half_size(key.curve)
            if len(signature) != 2 * size:
                raise SignatureInvalid(
                    f"{what}: expected a signature of {2 * size} bytes, got {len(signature)}"
                )
            halves = (int.from_bytes(signature[:size]), int.from_bytes(signature[size:]))
            key.verify(encode_dss_signature(*halves), data, ec.ECDSA(algorithm.hash))
        else:
            assert isinstance(key, ed25519.Ed25519PublicKey)  # it has an algorithm
            key.verify(signature, data)
    except InvalidSignature:
        raise SignatureInvalid(
            f"{what}: the signature does not fit its content and its key"
        ) from None
    except Unsupported as error:
        raise SignatureInvalid(f"{what}: {error}") from error


def _pss(algorithm: Algorithm) -> padding.PSS:
    return padding.PSS(padding.MGF1(algorithm.hash), padding.PSS.DIGEST_LENGTH)


def _half_size(curve: ec.EllipticCurve) -> int:
    return (curve.key_size + 7) // 8
