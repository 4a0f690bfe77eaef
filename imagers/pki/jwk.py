"""JSON Web Keys of RSA and EC, parsed to keys of `cryptography`.

Spec: RFC 7517 section 4, RFC 7518 section 6.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from imagers.errors import FormatError, Unsupported
from imagers.model.strict_json import get_optional_str, get_str

if TYPE_CHECKING:
    from imagers.model.strict_json import JSONObject

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

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*\Z")
_MAX_NUMBER_BYTES = 2048  # of an RSA-16384 modulus
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
}


def is_private_jwk(document: JSONObject) -> bool:
    """Whether the key has a secret member."""
    return "d" in document or "k" in document


def jwk_algorithm(document: JSONObject, *, what: str) -> str:
    """What the key asks to be used with; "" where it says nothing.

    Raises:
        Unsupported: an algorithm that recipients cannot have, or not with this kind of key.
    """
    name = get_optional_str(document, "alg", what=what) or ""
    if name and KEY_ALGORITHMS.get(name) != document.get("kty"):
        raise Unsupported(
            f"{what}: expected alg of the key to be one of {', '.join(KEY_ALGORITHMS)} "
            f"that fits its kty, got {name[:80]!r}"
        )
    return name


def jwk_public_key(
    document: JSONObject, *, what: str
) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """The public half of the key.

    Raises:
        FormatError: a member is missing or wrong, or the numbers are no key.
        Unsupported: another kind of key or curve.
    """
    numbers = _public_numbers(document, what)
    try:
        return numbers.public_key()
    except ValueError as error:
        raise FormatError("the numbers are not a key", what=what) from error


def jwk_private_key(
    document: JSONObject, *, what: str
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """The key itself; errors as of `jwk_public_key`."""
    public = _public_numbers(document, what)
    d = _get_number(document, "d", what)
    try:
        if isinstance(public, ec.EllipticCurvePublicNumbers):
            return ec.EllipticCurvePrivateNumbers(d, public).private_key()
        p = _get_number(document, "p", what)
        q = _get_number(document, "q", what)
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
        raise FormatError("the numbers are not a key", what=what) from error


def _public_numbers(
    document: JSONObject, what: str
) -> rsa.RSAPublicNumbers | ec.EllipticCurvePublicNumbers:
    kind = get_str(document, "kty", what=what)
    if kind == "RSA":
        return rsa.RSAPublicNumbers(
            e=_get_number(document, "e", what), n=_get_number(document, "n", what)
        )
    if kind != "EC":
        raise Unsupported(f"{what}: expected a key of kty RSA or EC, got {kind[:80]!r}")
    curve = get_str(document, "crv", what=what)
    if curve not in _CURVES:
        raise Unsupported(f"{what}: expected an EC key on {', '.join(_CURVES)}, got {curve[:80]!r}")
    return ec.EllipticCurvePublicNumbers(
        x=_get_number(document, "x", what),
        y=_get_number(document, "y", what),
        curve=_CURVES[curve](),
    )


def _get_number(document: JSONObject, name: str, what: str) -> int:
    """Member `name`, a positive number in base64url; a message shows nothing of it."""
    text = get_str(document, name, what=what)
    padding = "=" * (-len(text) % 4)
    if (
        not text
        or len(text) % 4 == 1
        or len(text) > _MAX_NUMBER_BYTES * 4 // 3 + 4
        or not _BASE64URL.match(text)
    ):
        raise FormatError("is not a number in base64url", what=what, where=f"$.{name}")
    return int.from_bytes(base64.urlsafe_b64decode(text + padding))
