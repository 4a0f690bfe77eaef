# SPDX-License-Identifier: Apache-2.0
"""Public and private options: the two JSON documents of an encrypted layer.

The public ones stand in the annotation `org.opencontainers.image.enc.pubopts`:

    {"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"<32 bytes>","cipheroptions":{}}

The private ones are what recipients' packets hold, 193 bytes:

    {"symkey":"<32 bytes>","digest":"sha256:<64 hex>","cipheroptions":{"nonce":"<16 bytes>"}}

With the cipher `AES256_GCM_HKDF_1MB` (docs/formats.md) there is no HMAC and no nonce, both
are in the stored bytes, and the private options may bind the layer's diff_id:

    {"cipher":"AES256_GCM_HKDF_1MB","cipheroptions":{}}
    {"symkey":"<32 bytes>","digest":"sha256:...","diff_id":"sha256:...","cipheroptions":{}}

Bytes are standard padded base64, members in the order of ocicrypt, which readers must not
depend on. Closed here, because the peers leave them open:

- a nonce in the *public* options wins in ocicrypt over the encrypted one, and no MAC covers
  it: anybody could turn a layer into garbage that passes. It is refused;
- a missing nonce is invented at random there, one of another length crashes it: refused;
- `digest` is of whatever the encrypting tool was handed, so real images carry a digest that
  fits nothing. It is read, and never compared; diff_ids are the check.

Unknown members are ignored. Names are matched exactly: ocicrypt writes no other case.

Spec: containers/ocicrypt v1.3.2, blockcipher/blockcipher.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from imagers.core import AES256_GCM_HKDF_1MB, AES_256_CTR_HMAC_SHA256
from imagers.errors import Unsupported
from imagers.model.base64 import encode_base64
from imagers.model.closing import Closing
from imagers.model.digest import Digest, parse_digest
from imagers.model.keys import SecretKey
from imagers.model.strict_json import View, dump_json

__all__ = [
    "AES256_GCM_HKDF_1MB",
    "AES_256_CTR_HMAC_SHA256",
    "CIPHERS",
    "PrivateOptions",
    "PublicOptions",
    "associated_data",
    "build_private_options",
    "build_public_options",
    "check_cipher",
    "parse_private_options",
    "parse_public_options",
]

CIPHERS = frozenset({AES256_GCM_HKDF_1MB, AES_256_CTR_HMAC_SHA256})

_KEY_BYTES = 32
_NONCE_BYTES = 16
_HMAC_BYTES = 32
_MAX_BYTES = 16 * 1024  # of either document; 193 and some 120 in practice


@dataclass(frozen=True, slots=True)
class PublicOptions:
    """What everybody may read of an encrypted layer. Not authenticated by anything.

    Attributes:
        cipher: one of `CIPHERS`.
        hmac: HMAC-SHA256 of the stored bytes, 32 bytes; empty for a cipher without one.
    """

    cipher: str
    hmac: bytes


@dataclass(frozen=True, slots=True)
class PrivateOptions(Closing):
    """The secret half: with it, and only with it, a layer can be read.

    Attributes:
        key: of cipher and HMAC, 32 bytes; wiped by `close`.
        nonce: the initial counter block, 16 bytes; empty for a cipher that draws its own.
        digest: as written by the encrypting tool; "" where absent. Fits nothing reliably.
        diff_id: of the layer that was encrypted; None where it is not bound.
    """

    key: SecretKey
    nonce: bytes
    digest: str
    diff_id: Digest | None = None

    def close(self) -> None:
        """Wipe the key. Safe to call twice."""
        self.key.close()


def check_cipher(name: str, *, what: str) -> None:
    """Raise unless `name` is a cipher that exists here.

    Raises:
        Unsupported: it is not.
    """
    if name not in CIPHERS:
        raise Unsupported(
            f"{what}: cipher {name[:80]!r} is not supported: expected {', '.join(sorted(CIPHERS))}"
        )


def build_public_options(options: PublicOptions) -> bytes:
    """The document, byte for byte as ocicrypt writes it.

    `cipheroptions` is always there: the Rust reader refuses null and absent.
    """
    if options.cipher == AES256_GCM_HKDF_1MB:
        return dump_json({"cipher": options.cipher, "cipheroptions": {}})
    return dump_json(
        {"cipher": options.cipher, "hmac": encode_base64(options.hmac), "cipheroptions": {}}
    )


def parse_public_options(data: bytes, *, what: str) -> PublicOptions:
    """The public options in `data`.

    Raises:
        FormatError: not the document; no cipher named; HMAC missing or not 32 bytes; a nonce
            where everybody could put one.
        Unsupported: a cipher that does not exist here.
    """
    document = View.parse(data, what=f"{what}: public options", max_bytes=_MAX_BYTES)
    cipher = document.optional_text("cipher")
    if not cipher:
        raise document.error("names no cipher", "cipher")
    check_cipher(cipher, what=what)
    if "nonce" in document.string_map("cipheroptions"):
        raise document.error(
            "has a nonce, which belongs into the encrypted options",
            "cipheroptions.nonce",
            hint="the annotation was changed after encryption; do not use this image",
        )
    if cipher == AES256_GCM_HKDF_1MB:
        if document.value.get("hmac") is not None:
            raise document.error("is there, and this cipher has none", "hmac")
        return PublicOptions(cipher=cipher, hmac=b"")
    return PublicOptions(cipher=cipher, hmac=document.bytes64("hmac", size=_HMAC_BYTES))


def build_private_options(
    key: SecretKey, nonce: bytes, *, digest: Digest, diff_id: Digest | None = None
) -> SecretKey:
    """The document that recipients wrap; the caller closes it.

    Args:
        key: 32 fresh random bytes; stays the caller's.
        nonce: 16 fresh random bytes; empty with a `diff_id`.
        digest: of the blob that is encrypted, as its descriptor had it.
        diff_id: of the layer, for `AES256_GCM_HKDF_1MB`; None for the other cipher.
    """
    if len(key) != _KEY_BYTES or len(nonce) != (_NONCE_BYTES if diff_id is None else 0):
        raise ValueError("a key has 32 bytes and a nonce 16")
    bound = "" if diff_id is None else f'"diff_id":"{diff_id}",'
    inner = "" if diff_id is not None else f'"nonce":"{encode_base64(nonce)}"'
    # The base64 text of the key is an immutable copy until this function returns.
    with key.view() as data:
        text = (
            f'{{"symkey":"{encode_base64(data)}","digest":"{digest}",{bound}'
            f'"cipheroptions":{{{inner}}}}}'
        )
    return SecretKey(text.encode("ascii"))


def parse_private_options(
    document: SecretKey, *, what: str, cipher: str = AES_256_CTR_HMAC_SHA256
) -> PrivateOptions:
    """The private options in an unwrapped `document`, which stays the caller's.

    JSON forces immutable copies of the key; they live no longer than this call.

    Raises:
        FormatError: not the document; key not 32 bytes; nonce missing or not 16 bytes, or
            there for a cipher that has none; diff_id not one.
    """
    with document.view() as data:
        parsed = View.parse(bytes(data), what=f"{what}: private options", max_bytes=_MAX_BYTES)
    options = parsed.object("cipheroptions", null_is_empty=True)
    nonce = b""
    diff_id = None
    if cipher == AES256_GCM_HKDF_1MB:
        # Made for the other cipher: an attacker may have renamed it in the public options.
        if options.value.get("nonce") is not None:
            raise options.error("is there, and this cipher has none", "nonce")
        bound = parsed.optional_text("diff_id")
        if bound is not None:
            diff_id = parse_digest(bound, what=parsed.what, where=parsed.at("diff_id"))
    else:
        nonce = options.bytes64("nonce", size=_NONCE_BYTES)
    digest = parsed.optional_text("digest") or ""
    key = parsed.bytes64("symkey", size=_KEY_BYTES)
    return PrivateOptions(key=SecretKey(key), nonce=nonce, digest=digest, diff_id=diff_id)


def associated_data(cipher: str, media_type: str) -> bytes:
    """What a cipher authenticates beside a layer of `media_type` in the clear.

    The type is the only thing about a layer that is known to both sides before it is opened
    and that an attacker could change: `AES_256_CTR_HMAC_SHA256` has no place for it.
    """
    if cipher != AES256_GCM_HKDF_1MB:
        return b""
    return b"imagers-layer-v1\0" + media_type.encode("ascii")
