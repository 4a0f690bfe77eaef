# SPDX-License-Identifier: Apache-2.0
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa

from imagers.errors import SignatureInvalid, Unsupported
from imagers.pki.algorithms import algorithm_of, sign, verify

KEYS = {
    ("PS256", -37, 256): rsa.generate_private_key(65537, 2048),
    ("PS384", -38, 384): rsa.generate_private_key(65537, 3072),
    ("PS512", -39, 512): rsa.generate_private_key(65537, 4096),
    ("ES256", -7, 64): ec.generate_private_key(ec.SECP256R1()),
    ("ES384", -35, 96): ec.generate_private_key(ec.SECP384R1()),
    ("ES512", -36, 132): ec.generate_private_key(ec.SECP521R1()),
    ("EdDSA", -8, 64): ed25519.Ed25519PrivateKey.generate(),
}
OTHERS = {
    "RSA 2304": rsa.generate_private_key(65537, 2304),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "brainpool": ec.generate_private_key(ec.BrainpoolP256R1()),
    "DSA": dsa.generate_private_key(2048),
}


@pytest.mark.parametrize("names", KEYS, ids=lambda one: one[0])
def test_algorithm_follows_the_key_in_both_directions(names):
    key = KEYS[names]
    algorithm = algorithm_of(key.public_key())
    assert (algorithm.jws, algorithm.cose) == names[:2]
    signature = sign(key, b"text")
    assert len(signature) == names[2]
    verify(key.public_key(), signature, b"text", what="w")


@pytest.mark.parametrize("name", OTHERS)
def test_algorithm_of_other_keys_is_none(name):
    key = OTHERS[name]
    with pytest.raises(Unsupported, match="expected an RSA key of"):
        algorithm_of(key.public_key())
    with pytest.raises(SignatureInvalid, match="w: expected an RSA key of"):
        verify(key.public_key(), b"", b"", what="w")


@pytest.mark.parametrize("names", KEYS, ids=lambda one: one[0])
def test_verify_refuses_other_data_another_signature_and_another_length(names):
    key = KEYS[names]
    signature = sign(key, b"text")
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    for one, data in (
        (signature, b"Text"),
        (flipped, b"text"),
        (signature + b"\0", b"text"),
        (signature[:-1], b"text"),
        (b"", b"text"),
        (bytes(len(signature)), b"text"),
    ):
        with pytest.raises(SignatureInvalid, match="w: "):
            verify(key.public_key(), one, data, what="w")


def test_verify_refuses_another_form_of_the_same_keys_signature():
    key = KEYS["PS256", -37, 256]
    old = key.sign(b"text", padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(SignatureInvalid, match="does not fit"):
        verify(key.public_key(), old, b"text", what="w")
    key = KEYS["ES256", -7, 64]
    der = key.sign(b"text", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(SignatureInvalid, match=f"expected a signature of 64 bytes, got {len(der)}"):
        verify(key.public_key(), der, b"text", what="w")
