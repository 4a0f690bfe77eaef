# SPDX-License-Identifier: Apache-2.0
"""A secret for a TPM that it gives out only if a key of its own is loaded: credential activation.

    blob, seed = make_credential(endorsement_key, name_of_ak, secret)
    # in the TPM: TPM2_ActivateCredential(ak, endorsement key, blob, seed) -> secret

    seed    to the endorsement key: RSA: OAEP with SHA-256 and the label IDENTITY; curve: a point,
            from whose product with the key KDFe makes it
    blob    HMAC 2B, and the secret 2B in AES-128 (CFB): both keys are by KDFa from the seed,
            the one of AES with the name of the key, which the HMAC is over too

The TPM opens it only where a key with that very name is loaded, and the name is a hash over all
that the key is. The parameters are those of the usual endorsement keys, templates L-1 (RSA, 2048
bits) and L-2 (P-256): SHA-256 and AES-128.

Spec: TCG TPM 2.0 Library 1.59, part 1: 11.4.10 (KDFa, KDFe), 24 (credentials), B.10.4 and C.6.4
(seeds); TCG EK Credential Profile 2.5, annex B.3.
"""

from __future__ import annotations

import hmac
import os
import struct
from hashlib import sha256

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from imagers.errors import Unsupported
from imagers.evidence.tpm.structures import sized

__all__ = ["EK_TEMPLATES", "RSA_SEED_BYTES", "SECRET_BYTES", "make_credential"]

SECRET_BYTES = 32
_HASH_BYTES = 32
_KEY_BYTES = 16
_RSA_BITS = 2048
RSA_SEED_BYTES = _RSA_BITS // 8
_COORDINATE = 32
_IDENTITY = b"IDENTITY\0"
_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""That who has the password of the endorsement hierarchy may use the key."""
_ATTRIBUTES = 0x000300B2
_AES_128_CFB = struct.pack(">HHH", 0x0006, 128, 0x0043)
EK_TEMPLATES = {
    "rsa": struct.pack(">HHI", 0x0001, 0x000B, _ATTRIBUTES)
    + sized(_POLICY)
    + _AES_128_CFB
    + struct.pack(">HHI", 0x0010, _RSA_BITS, 0)
    + sized(bytes(RSA_SEED_BYTES)),
    "ecc": struct.pack(">HHI", 0x0023, 0x000B, _ATTRIBUTES)
    + sized(_POLICY)
    + _AES_128_CFB
    + struct.pack(">HHH", 0x0010, 0x0003, 0x0010)
    + sized(bytes(_COORDINATE)) * 2,
}
"""From which a TPM makes its endorsement key, the same each time."""


def make_credential(endorsement_key: object, name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """A secret for the TPM with this endorsement key, if it has a key of this name.

    Returns:
        Credential blob and encrypted seed, as TPM2_ActivateCredential takes them.

    Raises:
        Unsupported: it is another kind of key.
    """
    if isinstance(endorsement_key, rsa.RSAPublicKey) and endorsement_key.key_size == _RSA_BITS:
        seed = os.urandom(_HASH_BYTES)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), _IDENTITY)
        sealed = endorsement_key.encrypt(seed, oaep)
    elif isinstance(endorsement_key, ec.EllipticCurvePublicKey) and isinstance(
        endorsement_key.curve, ec.SECP256R1
    ):
        seed, sealed = _seed_by_curve(endorsement_key)
    else:
        raise Unsupported("expected an endorsement key of RSA with 2048 bits, or on P-256")
    key = _kdfa(seed, b"STORAGE\0", name, _KEY_BYTES)
    identity = _encrypted(key, sized(secret))
    integrity = hmac.digest(_kdfa(seed, b"INTEGRITY\0", b"", _HASH_BYTES), identity + name, sha256)
    return sized(integrity) + identity, sealed


def _encrypted(key: bytes, data: bytes) -> bytes:
    """AES in the mode CFB, from zeros, which cryptography has in several places."""
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305  # of single blocks
    block, blocks = bytes(_KEY_BYTES), []
    for at in range(0, len(data), _KEY_BYTES):
        pairs = zip(cipher.update(block), data[at : at + _KEY_BYTES], strict=False)
        block = bytes(a ^ b for a, b in pairs)
        blocks.append(block)
    return b"".join(blocks)


def _seed_by_curve(key: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    own = _coordinates(key)
    while True:
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        shared = ephemeral.exchange(ec.ECDH(), key)
        x, y = _coordinates(ephemeral.public_key())
        # TPMs differ in whether they drop zeros in front: then there is nothing to drop.
        if shared[0] and x[0] and y[0]:
            break
    message = struct.pack(">I", 1) + shared + _IDENTITY + x + own[0]
    return sha256(message).digest(), sized(x) + sized(y)


def _coordinates(key: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    numbers = key.public_numbers()
    return numbers.x.to_bytes(_COORDINATE), numbers.y.to_bytes(_COORDINATE)


def _kdfa(key: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """KDFa of at most one block; the label has its zero."""
    message = struct.pack(">I", 1) + label + context + struct.pack(">I", size * 8)
    return hmac.digest(key, message, sha256)[:size]
