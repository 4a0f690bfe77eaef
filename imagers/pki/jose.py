"""JSON Web signatures, tokens and key agreement: the pieces that more than one format has.

    sign_token({"sub": "guest"}, key=key, algorithm="ES256")
    verify_token(token, key=key, algorithm="ES256", what="token")
    derive_kek(shared_secret, "ECDH-ES+A256KW")

One algorithm is named at each call, and a header that names another one is refused: the
`alg` of a token never chooses how it is checked.

Spec: RFC 7515 section 7.1; RFC 7518 section 4.6; RFC 7519; RFC 8725 section 3.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagers.errors import FormatError, SignatureInvalid
from imagers.model.base64 import decode_base64url
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from typing import Literal

    from jwcrypto.jwk import JWK

    from imagers.model.strict_json import JSONObject

    TokenAlgorithm = Literal["ES256", "EdDSA"]

__all__ = ["KEK_BYTES", "MAX_TOKEN_BYTES", "derive_kek", "sign_token", "verify_token"]

MAX_TOKEN_BYTES = 128 * 1024  # the limit of the Rust server for a request head
KEK_BYTES = {"ECDH-ES+A128KW": 16, "ECDH-ES+A192KW": 24, "ECDH-ES+A256KW": 32}
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")


def derive_kek(shared_secret: bytes, algorithm: str) -> bytes:
    """The key-encryption key of an algorithm of `KEK_BYTES`, with empty apu and apv.

    Spec: RFC 7518 section 4.6.2; NIST SP 800-56A section 5.8.1 (Concat KDF).
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

    length = KEK_BYTES[algorithm]
    name = algorithm.encode("ascii")
    # In turn: AlgorithmID, PartyUInfo and PartyVInfo, which are empty, SuppPubInfo.
    other_info = len(name).to_bytes(4) + name + bytes(4) + bytes(4) + (length * 8).to_bytes(4)
    return ConcatKDFHash(hashes.SHA256(), length, other_info).derive(shared_secret)


def sign_token(
    payload: JSONObject, *, key: JWK, algorithm: TokenAlgorithm, header: JSONObject | None = None
) -> str:
    """The compact token of `payload`.

    Args:
        header: members beside `typ` and `alg`.
    """
    from jwcrypto.jws import JWS

    protected = {"typ": "JWT", "alg": algorithm, **(header or {})}
    token = JWS(dump_json(payload))
    token.add_signature(key, algorithm, dump_json(protected).decode())
    return str(token.serialize(compact=True))


def verify_token(token: str, *, key: JWK, algorithm: TokenAlgorithm, what: str) -> View:
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
    header = View.parse(
        decode_base64url(token.partition(".")[0], what=what),
        what=f"{what} header",
        max_bytes=MAX_TOKEN_BYTES,
    )
    if header.value.get("alg") != algorithm or "crit" in header:
        raise SignatureInvalid(f"{what}: expected a signature with {algorithm!r}")
    parsed = JWS()
    parsed.allowed_algs = [algorithm]
    try:
        parsed.deserialize(token, key)
    except (JWException, ValueError, TypeError, KeyError):
        # jwcrypto lets some faults of a header through as they are.
        raise SignatureInvalid(f"{what}: the signature is not by the expected key") from None
    return View.parse(parsed.payload, what=what, max_bytes=MAX_TOKEN_BYTES)
