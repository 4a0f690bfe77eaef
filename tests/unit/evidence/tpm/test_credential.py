# SPDX-License-Identifier: Apache-2.0
"""A credential is opened as the specification has it; TPMs do it in tests/interop/test_tpm.py."""

import hmac
from hashlib import sha256
from struct import pack

import pytest
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from imagers.errors import Unsupported
from imagers.evidence.tpm.credential import RSA_SEED_BYTES, make_credential

NAME, SECRET = b"\0\x0b" + b"n" * 32, b"s" * 32
RSA = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


def seed_by_rsa(sealed):
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0")
    return RSA.decrypt(sealed, oaep)


def seed_by_curve(sealed):
    assert sealed[:2] == sealed[34:36] == b"\0\x20"
    x, y = (int.from_bytes(one) for one in (sealed[2:34], sealed[36:]))
    point = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    own = CURVE.public_key().public_numbers().x.to_bytes(32)
    shared = CURVE.exchange(ec.ECDH(), point)
    return sha256(pack(">I", 1) + shared + b"IDENTITY\0" + sealed[2:34] + own).digest()


def opened(seed, blob):
    integrity, identity = blob[2:34], blob[34:]
    key = hmac.digest(seed, pack(">I", 1) + b"INTEGRITY\0" + pack(">I", 256), sha256)
    assert hmac.digest(key, identity + NAME, sha256) == integrity
    key = hmac.digest(seed, pack(">I", 1) + b"STORAGE\0" + NAME + pack(">I", 128), sha256)[:16]
    decryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor()
    return decryptor.update(identity) + decryptor.finalize()


def test_secret_is_for_an_rsa_key():
    blob, sealed = make_credential(RSA.public_key(), NAME, SECRET)
    assert len(sealed) == RSA_SEED_BYTES
    assert opened(seed_by_rsa(sealed), blob) == b"\0\x20" + SECRET


def test_secret_is_for_a_key_on_a_curve():
    blob, sealed = make_credential(CURVE.public_key(), NAME, SECRET)
    assert opened(seed_by_curve(sealed), blob) == b"\0\x20" + SECRET


def test_point_has_no_zeros_in_front():
    for _ in range(300):
        _, sealed = make_credential(CURVE.public_key(), NAME, SECRET)
        assert sealed[2]
        assert sealed[36]


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 3072).public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        None,
    ],
    ids=["RSA of 3072 bits", "P-384", "nothing"],
)
def test_other_endorsement_keys_are_not_supported(key):
    with pytest.raises(Unsupported, match="RSA with 2048 bits, or on P-256"):
        make_credential(key, NAME, SECRET)
