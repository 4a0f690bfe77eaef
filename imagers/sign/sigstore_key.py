# SPDX-License-Identifier: Apache-2.0
"""Private keys of signers, in the encrypted file form of cosign.

    -----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
    base64 of {"kdf":{"name":"scrypt","params":{"N":65536,"r":8,"p":1},"salt":B64},
               "cipher":{"name":"nacl/secretbox","nonce":B64},
               "ciphertext":B64}                    plaintext: PKCS#8 DER
    -----END ENCRYPTED SIGSTORE PRIVATE KEY-----

The label `ENCRYPTED COSIGN PRIVATE KEY` of older writers is read too. The work factor comes
from the file, so it is one of the three that writers use: another would let a file ask for
any amount of memory. Those three cost 32 to 128 MiB for the length of one call.

Spec: cosign v3.1.2, pkg/cosign/keys.go; go-securesystemslib, encrypted/encrypted.go.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

from cryptography import x509  # noqa: TC002  # in types of public functions
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from imagers.errors import FormatError, KeyUnavailable, Unsupported
from imagers.model.base64 import decode_base64, encode_base64
from imagers.model.strict_json import View, dump_json
from imagers.sign.public_key import MAX_KEY_BYTES, PublicKey, public_key_of

if TYPE_CHECKING:
    from imagers.model.keys import SecretKey

__all__ = ["SigstorePrivateKey", "generate_private_key", "open_private_key", "seal_private_key"]

_LABEL = "ENCRYPTED SIGSTORE PRIVATE KEY"
_BLOCK = re.compile(
    rb"-----BEGIN (ENCRYPTED (?:SIGSTORE|COSIGN) PRIVATE KEY)-----\s"
    rb"([A-Za-z0-9+/=\s]+)-----END \1-----"
)
_SCRYPT_N = 65536  # what cosign writes
_SCRYPT_N_READ = (32768, 65536, 131072)
_SCRYPT_R = 8
_SCRYPT_P = 1
_SCRYPT_MEMORY = 129 * 131072 * _SCRYPT_R  # bytes: 128 * N * r for the largest N, and room
_SALT_BYTES = 32
_NONCE_BYTES = 24
_TAG_BYTES = 16
_KEY_BYTES = 32
_PEM_LINE = 64  # characters
_WHAT = "signing key"

_Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class SigstorePrivateKey:
    """A key that signs images. It does not print and cannot be pickled.

    Attributes:
        certificates: of the key's owner, leaf first and root last; empty where none were given.

    `cryptography` keeps the secret in memory of its own, which is freed, not wiped, when the
    last reference goes.
    """

    __slots__ = ("_key", "certificates", "public_key")

    def __init__(self, key: _Private, certificates: tuple[x509.Certificate, ...] = ()) -> None:
        self._key = key
        self.certificates = certificates
        self.public_key: PublicKey = public_key_of(key.public_key(), what=_WHAT)

    def __repr__(self) -> str:
        return f"SigstorePrivateKey({self.public_key.kind}, {self.public_key.fingerprint[:16]}…)"

    def with_certificates(self, chain: tuple[x509.Certificate, ...]) -> SigstorePrivateKey:
        """The same key, whose signatures bring these along.

        Args:
            chain: leaf first; with more than one, each issued by the next, and the last by itself:
                readers take the last one for a root, and leave it out.

        Raises:
            FormatError: the leaf is the certificate of another key, or the order is another one.
        """
        what = "certificate chain"
        der = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        try:
            of_leaf = chain[0].public_key().public_bytes(*der)
        except (ValueError, UnsupportedAlgorithm):
            of_leaf = b""
        if of_leaf != self._key.public_key().public_bytes(*der):
            raise FormatError("expected the certificate of the key first", what=what)
        issuers = (*chain[1:], chain[-1]) if len(chain) > 1 else ()
        for number, (one, issuer) in enumerate(zip(chain, issuers, strict=False), 1):
            try:
                one.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                wanted = "itself: it must be a root" if number == len(chain) else "the next one"
                raise FormatError(
                    f"certificate {number} of {len(chain)} is not issued by {wanted}", what=what
                ) from None
        return SigstorePrivateKey(self._key, chain)

    def sign(self, data: bytes) -> bytes:
        """The signature over `data`: ECDSA in DER or RSA PKCS#1 v1.5 with SHA-256; Ed25519."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    def _to_der(self) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def generate_private_key() -> SigstorePrivateKey:
    """A fresh ECDSA P-256 key, the one kind that every verifier must know."""
    return SigstorePrivateKey(ec.generate_private_key(ec.SECP256R1()))


def _derive(passphrase: SecretKey, salt: bytes, n: int) -> bytes:
    with passphrase.view() as data:
        return hashlib.scrypt(
            data,
            salt=salt,
            n=n,
            r=_SCRYPT_R,
            p=_SCRYPT_P,
            maxmem=_SCRYPT_MEMORY,
            dklen=_KEY_BYTES,
        )


def seal_private_key(key: SigstorePrivateKey, passphrase: SecretKey) -> bytes:
    """The PEM file of `key`, encrypted under `passphrase`, which may be empty as in cosign."""
    from nacl.secret import SecretBox

    salt = os.urandom(_SALT_BYTES)
    nonce = os.urandom(_NONCE_BYTES)
    box = SecretBox(_derive(passphrase, salt, _SCRYPT_N))
    ciphertext = box.encrypt(key._to_der(), nonce).ciphertext  # noqa: SLF001  # same module
    document = dump_json(
        {
            "kdf": {
                "name": "scrypt",
                "params": {"N": _SCRYPT_N, "r": _SCRYPT_R, "p": _SCRYPT_P},
                "salt": encode_base64(salt),
            },
            "cipher": {"name": "nacl/secretbox", "nonce": encode_base64(nonce)},
            "ciphertext": encode_base64(ciphertext),
        }
    )
    body = encode_base64(document)
    lines = [body[at : at + _PEM_LINE] for at in range(0, len(body), _PEM_LINE)]
    return "\n".join([f"-----BEGIN {_LABEL}-----", *lines, f"-----END {_LABEL}-----", ""]).encode()


def open_private_key(pem: bytes, passphrase: SecretKey, *, what: str = _WHAT) -> SigstorePrivateKey:
    """The key in the file `pem`.

    Raises:
        FormatError: not such a file.
        Unsupported: a key or a cipher that is not used here.
        KeyUnavailable: the passphrase does not open it.
    """
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    document = _parse_file(pem, what)
    kdf, cipher = document.object("kdf"), document.object("cipher")
    params = kdf.object("params")
    names = (kdf.text("name"), cipher.text("name"))
    if names != ("scrypt", "nacl/secretbox"):
        raise Unsupported(
            f"{what}: expected 'scrypt' and 'nacl/secretbox', "
            f"got {names[0][:80]!r} and {names[1][:80]!r}"
        )
    n, r, p = (params.integer(name) for name in ("N", "r", "p"))
    if n not in _SCRYPT_N_READ or (r, p) != (_SCRYPT_R, _SCRYPT_P):
        raise Unsupported(
            f"{what}: expected scrypt with N 32768, 65536 or 131072, r 8 and p 1, "
            f"got N {n}, r {r} and p {p}"
        )
    salt = kdf.bytes64("salt", max_size=64)
    if len(salt) < _SALT_BYTES // 2:
        raise kdf.error(f"expected {_SALT_BYTES // 2} to 64 bytes, got {len(salt)}", "salt")
    nonce = cipher.bytes64("nonce", size=_NONCE_BYTES)
    ciphertext = document.bytes64("ciphertext", max_size=MAX_KEY_BYTES)
    if len(ciphertext) <= _TAG_BYTES:
        raise document.error(f"expected more than {_TAG_BYTES} bytes, got {len(ciphertext)}")
    box = SecretBox(_derive(passphrase, salt, n))
    try:
        der = box.decrypt(ciphertext, nonce)
    except CryptoError:
        raise KeyUnavailable(
            f"{what}: the passphrase does not open it",
            hint="give the passphrase that the key was made with",
        ) from None
    try:
        key = serialization.load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FormatError("holds no PKCS#8 private key", what=what) from None
    if isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return SigstorePrivateKey(key)
    raise Unsupported(
        f"{what}: expected an ECDSA P-256, an RSA or an Ed25519 key, whose signatures other "
        "verifiers read, got another kind"
    )


def _parse_file(pem: bytes, what: str) -> View:
    if len(pem) > MAX_KEY_BYTES:
        raise FormatError(f"expected at most {MAX_KEY_BYTES} bytes, got {len(pem)}", what=what)
    blocks = _BLOCK.findall(pem)
    if len(blocks) != 1 or pem.count(b"-----BEGIN") != 1:
        raise FormatError(
            f"expected one PEM block {_LABEL!r}, got {_found(pem)}",
            what=what,
            hint="'imagers key generate' and 'cosign generate-key-pair' write such files; "
            "'cosign import-key-pair' turns another key into one",
        )
    body = "".join(blocks[0][1].decode("ascii").split())  # lines of any length, as Go reads PEM
    return View.parse(decode_base64(body, what=what), what=what, max_bytes=MAX_KEY_BYTES)


def _found(pem: bytes) -> str:
    """What is there instead, in words."""
    labels = re.findall(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----", pem)
    if not labels:
        return "no PEM at all" if pem else "an empty file"
    return " and ".join(repr(one.decode("ascii")) for one in labels[:3])
