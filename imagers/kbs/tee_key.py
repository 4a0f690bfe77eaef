# SPDX-License-Identifier: Apache-2.0
"""The key pair of a guest: its public half is in the evidence, its secret half opens answers.

A fresh pair is made for each handshake and lives as long as the session. The secret half
is inside `cryptography`, which gives no way to overwrite it (docs/threats.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from imagers.core import kmac256
from imagers.errors import FormatError, UsageError
from imagers.kbs.messages import (
    EC_CURVES,
    ECDH_ES_A256KW,
    ML_KEM_768_A192KW,
    ECPublicKey,
    MLKEMPublicKey,
)
from imagers.model.base64 import decode_base64url, encode_base64url
from imagers.pki.jose import derive_kek

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, mlkem

    from imagers.model.strict_json import View

__all__ = [
    "DEFAULT_TEE_KEY",
    "ECKey",
    "MLKEMKey",
    "TEEKey",
    "curve_of",
    "encapsulate",
    "load_mlkem",
    "load_point",
    "make_tee_key",
    "public_jwk",
]

_CIPHERTEXT_BYTES = 1088
_REMEMBERED = 256  # public keys: a guest shows its own each time
_KEM_KEK_BYTES = 24


def curve_of(crv: str) -> ec.EllipticCurve:
    """The curve of a JWK name that `messages` accepted."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return {"P-256": ec.SECP256R1, "P-521": ec.SECP521R1}[crv]()


@lru_cache(_REMEMBERED)
def load_point(key: ECPublicKey, *, what: str) -> ec.EllipticCurvePublicKey:
    """The public key, after the check that its point lies on the curve.

    Raises:
        FormatError: it does not: the invalid-curve attack, or noise.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(decode_base64url(key.x, what=what)),
        int.from_bytes(decode_base64url(key.y, what=what)),
        curve_of(key.crv),
    )
    try:
        return numbers.public_key()
    except ValueError:
        raise FormatError(f"expected a point on {key.crv}", what=what) from None


class ECKey:
    """A key pair on a curve for `ECDH-ES+A256KW`.

    Args:
        crv: `P-256` (what every peer defaults to) or `P-521`.

    Threads: safe; nothing changes after the constructor.
    """

    __slots__ = ("_private", "public")

    def __init__(self, crv: str = "P-256") -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._private = ec.generate_private_key(curve_of(crv))
        self.public = public_jwk(self._private.public_key(), crv)

    def __repr__(self) -> str:
        return f"ECKey({self.public.crv})"

    def agree(self, other: ECPublicKey, *, what: str) -> bytes:
        """The shared secret Z: the x coordinate, of fixed length.

        Raises:
            FormatError: `other` is of another curve, or no point of it.
        """
        from cryptography.hazmat.primitives.asymmetric import ec

        if other.crv != self.public.crv:
            raise FormatError(
                f"expected a key on {self.public.crv}, got one on {other.crv}", what=what
            )
        return self._private.exchange(ec.ECDH(), load_point(other, what=what))

    def unwrapping_key(self, header: View) -> bytes:
        """See `TEEKey`: agreed with the key in `epk`."""
        epk = header.object("epk")
        for name, expected in (("kty", "EC"), ("crv", self.public.crv)):
            actual = epk.text(name)
            if actual != expected:
                raise epk.error(f"expected {expected!r}, got {actual[:40]!r}", name)
        for name in ("x", "y"):
            epk.bytes64url(name, size=EC_CURVES[self.public.crv])
        other = ECPublicKey(crv=self.public.crv, x=epk.text("x"), y=epk.text("y"))
        return derive_kek(self.agree(other, what=header.what), ECDH_ES_A256KW)


class MLKEMKey:
    """A key pair of ML-KEM-768 for `ML-KEM-768+A192KW`: no quantum computer opens the answers.

    Threads: safe; nothing changes after the constructor.
    """

    __slots__ = ("_private", "public")

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import mlkem

        self._private = mlkem.MLKEM768PrivateKey.generate()
        pub = self._private.public_key().public_bytes_raw()
        self.public = MLKEMPublicKey(encode_base64url(pub))

    def __repr__(self) -> str:
        return "MLKEMKey()"

    def unwrapping_key(self, header: View) -> bytes:
        """See `TEEKey`: from the secret that `ek` encapsulates.

        One for another key gives another secret, and no error.
        """
        secret = self._private.decapsulate(header.bytes64url("ek", size=_CIPHERTEXT_BYTES))
        return _derive_kem_kek(secret)


def encapsulate(key: MLKEMPublicKey, *, what: str) -> tuple[bytes, bytes]:
    """A fresh key to wrap with, of 24 bytes, and the ciphertext that only the key's owner opens.

    Raises:
        FormatError: it is no encapsulation key.
    """
    secret, ciphertext = load_mlkem(key, what=what).encapsulate()
    return _derive_kem_kek(secret), ciphertext


def load_mlkem(key: MLKEMPublicKey, *, what: str) -> mlkem.MLKEM768PublicKey:
    """The public key, after the check of FIPS 203, section 7.2.

    Raises:
        FormatError: it is none.
    """
    from cryptography.hazmat.primitives.asymmetric import mlkem

    try:
        return mlkem.MLKEM768PublicKey.from_public_bytes(decode_base64url(key.pub, what=what))
    except ValueError:
        raise FormatError("expected a key of ML-KEM-768", what=what) from None


def _derive_kem_kek(secret: bytes) -> bytes:
    """KMAC256 of a shared secret, over the algorithm and the length of the result in bits.

    Spec: draft-ietf-jose-pqc-kem-05, section 6.
    """
    alg = ML_KEM_768_A192KW.encode()
    length = (8 * _KEM_KEK_BYTES).to_bytes(4)
    return kmac256(secret, len(alg).to_bytes(4) + alg + length, length=_KEM_KEK_BYTES)


TEEKey = ECKey | MLKEMKey
"""A guest's key pair; `unwrapping_key` gives what the key of an answer is wrapped with.

It raises FormatError where the header of the answer has no such public key or ciphertext.
"""

_KINDS: Mapping[str, Callable[[], TEEKey]] = {
    "ECDH-ES+A256KW-P256": ECKey,
    "ECDH-ES+A256KW-P521": partial(ECKey, "P-521"),
    ML_KEM_768_A192KW: MLKEMKey,
}
DEFAULT_TEE_KEY = "ECDH-ES+A256KW-P256"


def make_tee_key(algorithm: str = DEFAULT_TEE_KEY) -> TEEKey:
    """A fresh key pair.

    Args:
        algorithm: `ECDH-ES+A256KW-P256`, which every peer takes, `ECDH-ES+A256KW-P521` or
            `ML-KEM-768+A192KW`: as in the option `tee_key_algorithm` of guest-components.

    Raises:
        UsageError: another one.
    """
    make = _KINDS.get(algorithm)
    if make is None:
        raise UsageError(f"expected a key for one of {', '.join(_KINDS)}, got {algorithm[:40]!r}")
    return make()


def public_jwk(key: ec.EllipticCurvePublicKey, crv: str) -> ECPublicKey:
    """The typed form of a public key, coordinates of fixed length."""
    numbers = key.public_numbers()
    size = EC_CURVES[crv]
    return ECPublicKey(
        crv=crv,
        x=encode_base64url(numbers.x.to_bytes(size)),
        y=encode_base64url(numbers.y.to_bytes(size)),
    )
