# SPDX-License-Identifier: Apache-2.0
"""JSON Web signatures, tokens and key agreement: the pieces that more than one format has.

    token = sign_token({"sub": "guest"}, key=key)
    verify_token(token, key=key.public_key(), what="token")

    message = parse_jws(document)       # a View with protected, payload and signature
    message.check_signature(key)

    derive_kek(shared_secret, "ECDH-ES+A256KW")

The key decides how a signature is checked, the header has to name that algorithm: an `alg`
never chooses.

Spec: RFC 7515 sections 3, 5 and 7; RFC 7518 section 4.6; RFC 7519; RFC 8725 section 3.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import FormatError, SignatureInvalid, Unsupported
from imagers.model.base64 import decode_base64, encode_base64url
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.strict_json import JSONObject
    from imagers.pki.algorithms import PrivateKey

__all__ = [
    "JWS",
    "KEK_BYTES",
    "MAX_TOKEN_BYTES",
    "build_jws",
    "derive_kek",
    "parse_jws",
    "parse_token",
    "sign_token",
    "verify_token",
    "x5c_of",
]

MAX_TOKEN_BYTES = 128 * 1024  # the limit of the Rust server for a request head
KEK_BYTES = {"ECDH-ES+A128KW": 16, "ECDH-ES+A192KW": 24, "ECDH-ES+A256KW": 32}
_MAX_HEADER = 1024 * 1024
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
_PARTS = ("protected", "payload", "signature")  # in the order of the compact form


@dataclass(frozen=True, slots=True)
class JWS:
    """One signature and what it is over. Nothing is verified.

    Attributes:
        what: name of the message in errors.
        header: the protected one.
        payload: what was signed; read it after the check.
        to_be_signed: the bytes that the signature is over.
    """

    what: str
    header: View
    payload: bytes
    signature: bytes
    to_be_signed: bytes

    def check_signature(self, key: object) -> None:
        """Raise unless `key` made the signature, by its one algorithm, which the header names.

        Raises:
            SignatureInvalid: it did not.
        """
        from imagers.pki.algorithms import algorithm_of, verify

        told = self.header.value.get("alg")
        try:
            expected = algorithm_of(key).jws
        except Unsupported as error:
            raise SignatureInvalid(f"{self.what}: {error}") from error
        if told != expected:
            raise SignatureInvalid(
                f"{self.what}: expected algorithm {expected} for this key, got '{str(told)[:40]}'"
            )
        verify(key, self.signature, self.to_be_signed, what=self.what)


def parse_jws(document: View) -> JWS:
    """The signature in the members `protected`, `payload` and `signature`.

    Others are the caller's to know, critical members of the header included.

    Raises:
        FormatError: one is missing, or no base64url, or the header is no object.
    """
    header = View.parse(
        document.bytes64url("protected"), what=f"{document.what} header", max_bytes=_MAX_HEADER
    )
    return JWS(
        document.what,
        header,
        document.bytes64url("payload"),
        document.bytes64url("signature"),
        f"{document.text('protected')}.{document.text('payload')}".encode("ascii"),
    )


def x5c_of(header: View) -> list[bytes]:
    """DER of the certificates in a header, leaf first.

    Raises:
        FormatError: there are none, or they are no base64.
    """
    where = header.at("x5c")
    return [
        decode_base64(text, what=header.what, where=f"{where}[{index}]")
        for index, text in enumerate(header.texts("x5c"))
    ]


def build_jws(header: JSONObject, payload: bytes, sign: Callable[[bytes], bytes]) -> JSONObject:
    """The three members; `sign` makes the signature over the bytes that it gets."""
    head, body = encode_base64url(dump_json(header)), encode_base64url(payload)
    signature = sign(f"{head}.{body}".encode("ascii"))
    return {"payload": body, "protected": head, "signature": encode_base64url(signature)}


def sign_token(payload: JSONObject, *, key: PrivateKey, header: JSONObject | None = None) -> str:
    """The compact token of `payload`.

    Args:
        header: members beside `typ` and `alg`.
    """
    from imagers.pki.algorithms import algorithm_of, sign

    protected: JSONObject = {"typ": "JWT", "alg": algorithm_of(key.public_key()).jws}
    parts = build_jws(
        {**protected, **(header or {})}, dump_json(payload), lambda data: sign(key, data)
    )
    return ".".join(str(parts[name]) for name in _PARTS)


def parse_token(token: str, *, what: str) -> JWS:
    """A compact token. Nothing of it is verified, and critical members are the caller's to know.

    Raises:
        FormatError: it is none.
    """
    if len(token) > MAX_TOKEN_BYTES or not _COMPACT.match(token):
        raise FormatError("expected a JWT", what=what)
    return parse_jws(View(dict(zip(_PARTS, token.split("."), strict=True)), what=what))


def verify_token(token: str, *, key: object, what: str) -> View:
    """The payload of a token that `key` signed. Its times are the caller's to check.

    Args:
        key: a public one.

    Raises:
        FormatError: not a compact token, or its payload is no object.
        SignatureInvalid: another key, another algorithm, or changed.
    """
    message = parse_token(token, what=what)
    if "crit" in message.header:
        raise SignatureInvalid(f"{what}: has critical members in its header, which nobody knows")
    message.check_signature(key)
    return View.parse(message.payload, what=what, max_bytes=MAX_TOKEN_BYTES)


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
