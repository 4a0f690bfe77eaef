# SPDX-License-Identifier: Apache-2.0
"""Encrypted answers of a broker: JWE in flattened JSON, both directions.

    {"protected": b64url({"alg":..,"enc":"A256GCM","epk":{"crv","kty","x","y"} or "ek":b64url}),
     "encrypted_key": b64url(40 bytes), "iv": b64url(12), "ciphertext": .., "tag": b64url(16)}

A broker seals for the public key that evidence has bound; a guest opens. Sealing knows
`ECDH-ES+A256KW`, `ML-KEM-768+A192KW` and `RSA-OAEP-256`, opening the first two: keys that we make.

The Rust guests compute the additional authenticated data from the header that they
re-serialise, so the header is written in exactly that form: compact, `alg`, `enc`, the rest
sorted. When opening, the received text is tried first and that form second.

Built on the primitives of `cryptography`: jwcrypto keeps keys and plaintext in objects
that cannot be overwritten. A test opens these with jwcrypto and the other way round.

Spec: RFC 7516 section 7.2.2; RFC 7518 sections 4.3, 4.6, 5.3; RFC 3394;
draft-ietf-jose-pqc-kem-05.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import FormatError, TagMismatch, Unsupported
from imagers.kbs.messages import ECDH_ES_A256KW, ECPublicKey, MLKEMPublicKey, RSAPublicKey
from imagers.kbs.tee_key import ECKey, encapsulate, load_mlkem, load_point
from imagers.model.base64 import decode_base64url, encode_base64url
from imagers.model.keys import SecretKey
from imagers.model.strict_json import View, dump_json
from imagers.pki.jose import derive_kek

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

    from imagers.kbs.messages import TEEPublicKey
    from imagers.kbs.tee_key import TEEKey
    from imagers.model.strict_json import JSON, JSONObject

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_RESOURCE_BYTES",
    "aad_of_header",
    "check_public_key",
    "open_answer",
    "seal_answer",
]

MAX_RESOURCE_BYTES = 2 * 1024 * 1024  # of one secret; the default limit of Trustee
MAX_ANSWER_BYTES = 3 * 1024 * 1024  # the same in base64, with its header
_MAX_HEADER = 16 * 1024
_ENC = "A256GCM"
_CEK_BYTES = 32
_IV_BYTES = 12
_TAG_BYTES = 16
_WRAPPED_BYTES = _CEK_BYTES + 8  # RFC 3394 adds one block of 64 bits
_WHAT = "broker answer"
_TEE_PUBKEY = "tee-pubkey"
# These change what the other members mean; a reader that ignores them reads something else.
_REFUSED_MEMBERS = ("apu", "apv", "crit", "zip", "b64")


def aad_of_header(header: JSONObject) -> bytes:
    """The header as the Rust peers re-serialise it, in base64url: what they authenticate."""
    ordered: JSONObject = {name: header[name] for name in ("alg", "enc") if name in header}
    for name in sorted(header):
        ordered.setdefault(name, _sorted(header[name]))
    return encode_base64url(dump_json(ordered)).encode("ascii")


def _sorted(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def seal_answer(secret: SecretKey, key: TEEPublicKey) -> bytes:
    """The JSON of `secret` encrypted to a guest's public key, with fresh key and IV.

    Raises:
        FormatError: the public key is no point of its curve, or no RSA key.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap

    cek = os.urandom(_CEK_BYTES)
    header: JSONObject = {"alg": key.alg, "enc": _ENC}
    if isinstance(key, ECPublicKey):
        epk, wrapped = _wrap_ecdh(cek, key)
        header["epk"] = {"crv": epk.crv, "kty": "EC", "x": epk.x, "y": epk.y}
    elif isinstance(key, MLKEMPublicKey):
        kek, ciphertext = encapsulate(key, what=_TEE_PUBKEY)
        wrapped = aes_key_wrap(kek, cek)
        header["ek"] = encode_base64url(ciphertext)
    else:
        wrapped = _wrap_rsa(cek, key)
    protected = aad_of_header(header)
    iv = os.urandom(_IV_BYTES)
    with secret.view() as data:
        sealed = AESGCM(cek).encrypt(iv, data, protected)
    return dump_json(
        {
            "protected": protected.decode("ascii"),
            "encrypted_key": encode_base64url(wrapped),
            "iv": encode_base64url(iv),
            "ciphertext": encode_base64url(sealed[:-_TAG_BYTES]),
            "tag": encode_base64url(sealed[-_TAG_BYTES:]),
        }
    )


def check_public_key(key: TEEPublicKey) -> None:
    """Raise unless answers can be sealed to `key`.

    Raises:
        FormatError: the public key is no point of its curve, or no key of RSA or ML-KEM.
    """
    if isinstance(key, ECPublicKey):
        load_point(key, what=_TEE_PUBKEY)
    elif isinstance(key, MLKEMPublicKey):
        load_mlkem(key, what=_TEE_PUBKEY)
    else:
        _load_rsa(key)


def _wrap_ecdh(cek: bytes, key: ECPublicKey) -> tuple[ECPublicKey, bytes]:
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap

    ephemeral = ECKey(key.crv)
    kek = derive_kek(ephemeral.agree(key, what=_TEE_PUBKEY), ECDH_ES_A256KW)
    return ephemeral.public, aes_key_wrap(kek, cek)


def _wrap_rsa(cek: bytes, key: RSAPublicKey) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=None)
    return _load_rsa(key).encrypt(cek, oaep)


def _load_rsa(key: RSAPublicKey) -> rsa.RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric import rsa

    numbers = rsa.RSAPublicNumbers(
        e=int.from_bytes(decode_base64url(key.e, what=_TEE_PUBKEY)),
        n=int.from_bytes(decode_base64url(key.n, what=_TEE_PUBKEY)),
    )
    try:
        public = numbers.public_key()
    except ValueError:
        public = None
    if public is None or not numbers.n % 2:  # an even modulus loads, and fails when used
        raise FormatError("expected an RSA public key", what=_TEE_PUBKEY)
    return public


@dataclass(frozen=True, slots=True)
class _Parts:
    protected: str
    header: View
    wrapped: bytes
    iv: bytes
    ciphertext: bytes
    tag: bytes


def open_answer(data: bytes, key: TEEKey) -> SecretKey:
    """The secret in an answer that was sealed to `key`; the caller closes it.

    Raises:
        FormatError: not such an answer.
        Unsupported: another algorithm than the one that we asked for.
        TagMismatch: sealed to another key, or changed on the way.
    """
    from cryptography.hazmat.primitives.keywrap import (
        InvalidUnwrap,
        aes_key_unwrap,
    )

    parts = _parse(data, key.public.alg)
    try:
        cek = aes_key_unwrap(key.unwrapping_key(parts.header), parts.wrapped)
    except InvalidUnwrap:
        raise TagMismatch(what=_WHAT) from None
    received = parts.protected.encode("ascii")
    for aad in dict.fromkeys((received, aad_of_header(parts.header.value))):
        secret = _decrypt(cek, parts, aad)
        if secret is not None:
            return secret
    raise TagMismatch(what=_WHAT)


def _decrypt(cek: bytes, parts: _Parts, aad: bytes) -> SecretKey | None:
    """The plaintext, or None where the tag does not fit. It never stands in `bytes`."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import (
        Cipher,
        algorithms,
        modes,
    )

    decryptor = Cipher(algorithms.AES256(cek), modes.GCM(parts.iv, parts.tag)).decryptor()
    decryptor.authenticate_additional_data(aad)
    plain = bytearray(len(parts.ciphertext) + 15)  # update_into wants a block less one to spare
    try:
        size = decryptor.update_into(parts.ciphertext, plain)
        decryptor.finalize()
        with memoryview(plain) as view:
            return SecretKey(view[:size])
    except InvalidTag:
        return None
    finally:
        plain[:] = bytes(len(plain))


def _parse(data: bytes, alg: str) -> _Parts:
    answer = View.parse(data, what=_WHAT, max_bytes=MAX_ANSWER_BYTES)
    if answer.value.get("aad") is not None:
        raise Unsupported(f"{_WHAT}: has the member 'aad', which no broker writes")
    header = View.parse(
        answer.bytes64url("protected"), what=f"{_WHAT} header", max_bytes=_MAX_HEADER
    )
    _check_header(header, alg)
    return _Parts(
        protected=answer.text("protected"),
        header=header,
        wrapped=answer.bytes64url("encrypted_key", size=_WRAPPED_BYTES),
        iv=answer.bytes64url("iv", size=_IV_BYTES),
        ciphertext=answer.bytes64url("ciphertext"),
        tag=answer.bytes64url("tag", size=_TAG_BYTES),
    )


def _check_header(header: View, alg: str) -> None:
    for name, expected in (("alg", alg), ("enc", _ENC)):
        actual = header.text(name)
        if actual != expected:
            raise Unsupported(
                f"{header.what} at $.{name}: expected {expected!r}, got {actual[:40]!r}"
            )
    for name in _REFUSED_MEMBERS:
        if header.value.get(name) not in (None, ""):
            raise Unsupported(f"{header.what} at $.{name}: is not understood here")
