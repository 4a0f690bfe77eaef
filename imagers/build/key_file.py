# SPDX-License-Identifier: Apache-2.0
"""What a key file holds, told by its public half: nothing of the secret one leaves this module.

    with read_small_file("release.key") as content:
        facts = describe_key(content, name="release.key", passphrase=passphrase)
    facts.fingerprint

Read are public keys of recipients, of signers and of a broker's admins, private keys that decrypt,
those of admins, and private keys of signers in cosign's format. A key-encryption key has no public
half, and is refused as all else.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from imagers.encrypt.keyfiles import (
    PublicKey,
    holds_private_key,
    parse_private_key,
    parse_public_key,
)
from imagers.encrypt.schemes.jwe import key_id
from imagers.errors import FormatError, Unsupported
from imagers.model.keys import SecretKey
from imagers.sign.public_key import parse_public_key as parse_signers_key
from imagers.sign.sigstore_key import open_private_key

__all__ = ["KeyFacts", "describe_key", "is_cosign_key"]

_COSIGN = re.compile(rb"-----BEGIN ENCRYPTED (?:SIGSTORE|COSIGN) PRIVATE KEY-----")
_KEK_BYTES = 32


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """One key, by its public half.

    Attributes:
        half: that the file holds: `public` or `private`.
        kind: such as `RSA 3072`, `EC P-256` or `Ed25519`.
        fingerprint: SHA-256 of the DER SubjectPublicKeyInfo, hex.
        key_id: what a JWE calls its recipient by; None for a key that can be none.
        public_pem: the public half in PEM.
    """

    half: str
    kind: str
    fingerprint: str
    key_id: str | None
    public_pem: str


def is_cosign_key(content: SecretKey) -> bool:
    """Whether it is a private key in cosign's format, which has a passphrase in any case."""
    with content.view() as view:
        return _COSIGN.search(bytes(view)) is not None


def describe_key(content: SecretKey, *, name: str, passphrase: SecretKey) -> KeyFacts:
    """What `content` holds, which stays the caller's.

    Args:
        name: of its file, for messages.
        passphrase: empty where nobody gave one.

    Raises:
        KeyUnavailable: a private key that the passphrase does not open.
        UsageError: a passphrase for a key that has none.
        FormatError, Unsupported: it is no key, or one of another kind.
    """
    with content.view() as view:
        data = bytes(view)
    if is_cosign_key(content):
        signer = open_private_key(data, passphrase, what=name)
        return _facts("private", signer.public_key.spki)
    if holds_private_key(data, name=name):
        try:
            private = parse_private_key(
                content, name=name, password=passphrase if len(passphrase) else None
            )
        except Unsupported:
            if (admin := _admin_key(data)) is None:
                raise
            return _facts("private", _spki(admin.public_key()))
        return _facts("private", _spki(private.key.public_key()), private.kid)
    if len(data) == _KEK_BYTES:
        raise FormatError(
            "expected a key with a public half, got 32 bytes, which a key-encryption key has",
            what=name,
        )
    try:
        public = parse_public_key(data, name=name)
    except Unsupported:
        return _facts("public", parse_signers_key(data, what=name).spki)  # Ed25519
    return _facts("public", _spki(public.key), public.kid)


def _admin_key(data: bytes) -> ed25519.Ed25519PrivateKey | None:
    """The key, if it is one as `imagers key generate admin` makes it."""
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ed25519.Ed25519PrivateKey) else None


def _spki(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _facts(half: str, spki: bytes, kid: str = "") -> KeyFacts:
    key = load_der_public_key(spki)
    named: str | None = None
    kind = "Ed25519"
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        named = key_id(PublicKey(key, "", kid=kid))
        kind = f"{'RSA ' if isinstance(key, rsa.RSAPublicKey) else 'EC P-'}{key.key_size}"
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return KeyFacts(half, kind, hashlib.sha256(spki).hexdigest(), named, pem.decode("ascii"))
