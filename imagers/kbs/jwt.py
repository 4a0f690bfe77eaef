"""Compact signed tokens: ES256 for a broker's guests, EdDSA for its admins.

One algorithm is named at each call, and a header that names another one is refused: the
`alg` of a token never chooses how it is checked.

Spec: RFC 7515 section 7.1; RFC 7519; RFC 8725 section 3.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagers.errors import FormatError, SignatureInvalid
from imagers.kbs.messages import decode_base64url
from imagers.model.strict_json import dump_json, parse_object

if TYPE_CHECKING:
    from typing import Literal

    from jwcrypto.jwk import JWK

    from imagers.model.strict_json import JSONObject

    Algorithm = Literal["ES256", "EdDSA"]

__all__ = ["MAX_TOKEN_BYTES", "sign_token", "verify_token"]

MAX_TOKEN_BYTES = 128 * 1024  # the limit of the Rust server for a request head
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")


def sign_token(
    payload: JSONObject, *, key: JWK, algorithm: Algorithm, header: JSONObject | None = None
) -> str:
    """The token of `payload`.

    Args:
        header: members beside `typ` and `alg`.
    """
    from jwcrypto.jws import JWS

    protected = {"typ": "JWT", "alg": algorithm, **(header or {})}
    token = JWS(dump_json(payload))
    token.add_signature(key, algorithm, dump_json(protected).decode())
    return str(token.serialize(compact=True))


def verify_token(token: str, *, key: JWK, algorithm: Algorithm, what: str) -> JSONObject:
    """The payload of a token that `key` signed. Its times are the caller's to check.

    Raises:
        FormatError: not a compact token, or its payload is no object.
        SignatureInvalid: another key, another algorithm, or changed.
    """
    from jwcrypto.common import JWException
    from jwcrypto.jws import JWS

    if len(token) > MAX_TOKEN_BYTES or not _COMPACT.match(token):
        raise FormatError("expected a JWT", what=what)
    # Before jwcrypto, which would follow any nesting: the header is anybody's bytes.
    header = parse_object(
        decode_base64url(token.partition(".")[0], what=what),
        what=f"{what} header",
        max_bytes=MAX_TOKEN_BYTES,
    )
    if header.get("alg") != algorithm or "crit" in header:
        raise SignatureInvalid(f"{what}: expected a signature with {algorithm!r}")
    parsed = JWS()
    parsed.allowed_algs = [algorithm]
    try:
        parsed.deserialize(token, key)
    except (JWException, ValueError, TypeError, KeyError):
        # jwcrypto lets some faults of a header through as they are.
        raise SignatureInvalid(f"{what}: the signature is not by the expected key") from None
    return parse_object(parsed.payload, what=what, max_bytes=MAX_TOKEN_BYTES)
