# SPDX-License-Identifier: Apache-2.0
"""JSON Web Keys of RSA and EC, parsed to keys of `cryptography`.

Spec: RFC 7517 section 4, RFC 7518 section 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from imagers.errors import FormatError, Unsupported

if TYPE_CHECKING:
    from imagers.model.strict_json import View

__all__ = [
    "KEY_ALGORITHMS",
    "is_private_jwk",
    "jwk_algorithm",
    "jwk_private_key",
    "jwk_public_key",
]

# What layer keys are wrapped by (RFC 7518 section 4), and the kty of the keys that it is
# for: the list of ocicrypt on go-jose v4. RSA1_5, dir and PBES2 are left out on purpose.
KEY_ALGORITHMS = {
    "RSA-OAEP": "RSA",
    "RSA-OAEP-256": "RSA",
    "ECDH-ES+A128KW": "EC",
    "ECDH-ES+A192KW": "EC",
    "ECDH-ES+A256KW": "EC",
}

_MAX_NUMBER_BYTES = 2048  # of an RSA-16384 modulus
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
}


def is_private_jwk(key: View) -> bool:
    """Whether the key has a secret member."""
    return "d" in key or "k" in key


def jwk_algorithm(key: View) -> str:
    """What the key asks to be used with; "" where it says nothing.

    Raises:
        Unsupported: an algorithm that recipients cannot have, or not with this kind of key.
    """
    name = key.optional_text("alg") or ""
    if name and KEY_ALGORITHMS.get(name) != key.value.get("kty"):
        raise Unsupported(
            f"{key.what}: expected alg of the key to be one of {', '.join(KEY_ALGORITHMS)} "
            f"that fits its kty, got {name[:80]!r}"
        )
    return name


def jwk_public_key(key: View) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """The public half of the key.

    Raises:
        FormatError: a member is missing or wrong, or the numbers are no key.
        Unsupported: another kind of key or curve.
    """
    try:
        return _public_numbers(key).public_key()
    except ValueError as error:
        raise FormatError("the numbers are not a key", what=key.what) from error


def jwk_private_key(key: View) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """The key itself; errors as for `jwk_public_key`."""
    public = _public_numbers(key)
    d = _number(key, "d")
    try:
        if isinstance(public, ec.EllipticCurvePublicNumbers):
            return ec.EllipticCurvePrivateNumbers(d, public).private_key()
        p, q = _number(key, "p"), _number(key, "q")
        # Computed, not read: dp, dq and qi that do not fit would leak p in a faulty result.
        return rsa.RSAPrivateNumbers(
            p=p,
            q=q,
            d=d,
            dmp1=rsa.rsa_crt_dmp1(d, p),
            dmq1=rsa.rsa_crt_dmq1(d, q),
            iqmp=rsa.rsa_crt_iqmp(p, q),
            public_numbers=public,
        ).private_key()
    except (ValueError, ArithmeticError) as error:
        raise FormatError("the numbers are not a key", what=key.what) from error


def _public_numbers(key: View) -> rsa.RSAPublicNumbers | ec.EllipticCurvePublicNumbers:
    kind = key.text("kty")
    if kind == "RSA":
        return rsa.RSAPublicNumbers(e=_number(key, "e"), n=_number(key, "n"))
    if kind != "EC":
        raise Unsupported(f"{key.what}: expected a key of kty RSA or EC, got {kind[:80]!r}")
    curve = key.text("crv")
    if curve not in _CURVES:
        raise Unsupported(
            f"{key.what}: expected an EC key on {', '.join(_CURVES)}, got {curve[:80]!r}"
        )
    return ec.EllipticCurvePublicNumbers(
        x=_number(key, "x"), y=_number(key, "y"), curve=_CURVES[curve]()
    )


def _number(key: View, name: str) -> int:
    """A positive number in base64url; a message shows nothing of it."""
    data = key.bytes64url(name, max_size=_MAX_NUMBER_BYTES)
    if not data:
        raise key.error("expected a number in base64url", name)
    return int.from_bytes(data)
