# SPDX-License-Identifier: Apache-2.0
"""The key pair of a guest: its public half is in the evidence, its secret half opens answers.

A fresh pair is made for each handshake and lives as long as the session. The secret half
is inside `cryptography`, which gives no way to overwrite it (docs/threats.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import FormatError, Unsupported
from imagers.kbs.messages import EC_CURVES, ECPublicKey
from imagers.model.base64 import decode_base64url, encode_base64url

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["TEEKey", "curve_of", "load_point", "public_jwk"]


def curve_of(crv: str) -> ec.EllipticCurve:
    """The curve of a JWK name that `messages` accepted."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return {"P-256": ec.SECP256R1, "P-521": ec.SECP521R1}[crv]()


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


class TEEKey:
    """An EC key pair for `ECDH-ES+A256KW`.

    Args:
        crv: `P-256` (what every peer defaults to) or `P-521`.

    Raises:
        Unsupported: another curve.

    Threads: safe; nothing changes after the constructor.
    """

    __slots__ = ("_private", "public")

    def __init__(self, crv: str = "P-256") -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        if crv not in EC_CURVES:
            raise Unsupported(f"expected the curve 'P-256' or 'P-521', got {crv!r}")
        self._private = ec.generate_private_key(curve_of(crv))
        self.public = public_jwk(self._private.public_key(), crv)

    def __repr__(self) -> str:
        return f"TEEKey({self.public.crv})"

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


def public_jwk(key: ec.EllipticCurvePublicKey, crv: str) -> ECPublicKey:
    """The typed form of a public key, coordinates of fixed length."""
    numbers = key.public_numbers()
    size = EC_CURVES[crv]
    return ECPublicKey(
        crv=crv,
        x=encode_base64url(numbers.x.to_bytes(size)),
        y=encode_base64url(numbers.y.to_bytes(size)),
    )
