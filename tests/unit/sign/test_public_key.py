# SPDX-License-Identifier: Apache-2.0
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, x25519
from nacl import bindings

from imagers.errors import FormatError, Unsupported
from imagers.sign.public_key import MAX_KEY_BYTES, parse_public_key

DATA = b"the exact bytes"


def pem_of(private, form=serialization.PublicFormat.SubjectPublicKeyInfo):
    return private.public_key().public_bytes(serialization.Encoding.PEM, form)


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    ("curve", "algorithm", "good"),
    [
        (ec.SECP256R1(), hashes.SHA256(), True),
        (ec.SECP256R1(), hashes.SHA384(), False),
        (ec.SECP256R1(), hashes.SHA1(), False),  # noqa: S303  # that it is refused
        (ec.SECP384R1(), hashes.SHA256(), True),
        (ec.SECP384R1(), hashes.SHA384(), True),
        (ec.SECP384R1(), hashes.SHA512(), False),
        (ec.SECP521R1(), hashes.SHA256(), True),
        (ec.SECP521R1(), hashes.SHA512(), True),
    ],
)
def test_public_key_ecdsa_is_good_with_the_hashes_of_its_curve(curve, algorithm, good):
    private = ec.generate_private_key(curve)
    key = parse_public_key(pem_of(private), what="key")
    signature = private.sign(DATA, ec.ECDSA(algorithm))
    assert key.is_good(signature, DATA) is good
    assert not key.is_good(signature, DATA + b" ")
    assert not key.is_good(signature[:-1], DATA)
    assert not key.is_good(signature + b"\0", DATA)
    assert not key.is_good(b"", DATA)
    assert key.kind == f"ECDSA P-{curve.key_size}"


def test_public_key_rsa_is_good_with_pkcs1_and_sha256_only(rsa_key):
    key = parse_public_key(pem_of(rsa_key), what="key")
    assert key.is_good(rsa_key.sign(DATA, padding.PKCS1v15(), hashes.SHA256()), DATA)
    assert not key.is_good(rsa_key.sign(DATA, padding.PKCS1v15(), hashes.SHA512()), DATA)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert not key.is_good(rsa_key.sign(DATA, pss, hashes.SHA256()), DATA)
    assert not key.is_good(b"", DATA)
    assert key.kind == "RSA 2048"


def test_public_key_rsa_pkcs1_form_is_the_same_key(rsa_key):
    one = parse_public_key(pem_of(rsa_key), what="key")
    other = parse_public_key(pem_of(rsa_key, serialization.PublicFormat.PKCS1), what="key")
    assert one == other
    assert one.fingerprint == hashlib.sha256(one.spki).hexdigest()


def test_public_key_ed25519_is_good_over_the_plain_bytes():
    private = ed25519.Ed25519PrivateKey.generate()
    key = parse_public_key(pem_of(private), what="key")
    assert key.is_good(private.sign(DATA), DATA)
    assert not key.is_good(private.sign(DATA)[:-1] + b"\0", DATA + b".")
    assert not key.is_good(b"short", DATA)
    assert key.to_pem() == pem_of(private)
    assert key.kind == "Ed25519"


def test_public_key_ed25519_is_good_prehashed_as_cosign_makes_it():
    private = ed25519.Ed25519PrivateKey.generate()
    key = parse_public_key(pem_of(private), what="key")
    secret = private.private_bytes_raw() + private.public_key().public_bytes_raw()
    state = bindings.crypto_sign_ed25519ph_state()
    bindings.crypto_sign_ed25519ph_update(state, DATA)
    signature = bindings.crypto_sign_ed25519ph_final_create(state, secret)
    assert key.is_good(signature, DATA)
    for wrong in (signature[:-1], signature + b"\0", bytes(64), b""):
        assert not key.is_good(wrong, DATA)
    assert not key.is_good(signature, DATA + b" ")
    assert not key.is_good(signature, hashlib.sha512(DATA).digest())


@pytest.mark.parametrize(
    "private",
    [
        rsa.generate_private_key(65537, 1024),  # noqa: S505  # refused
        ec.generate_private_key(ec.SECP256K1()),
        x25519.X25519PrivateKey.generate(),
        dsa.generate_private_key(1024),  # noqa: S505  # refused
    ],
    ids=["RSA of 1024 bits", "another curve", "X25519", "DSA"],
)
def test_public_key_of_another_kind_is_unsupported(private):
    with pytest.raises(Unsupported) as caught:
        parse_public_key(pem_of(private), what="key file 'a.pub'")
    assert str(caught.value).startswith("key file 'a.pub': expected an ECDSA key")


def test_public_key_file_with_two_keys_is_refused():
    pem = pem_of(ec.generate_private_key(ec.SECP256R1()))
    for two in (pem + pem, pem + b"  " + pem, b"x" + pem + pem):
        with pytest.raises(FormatError) as caught:
            parse_public_key(two, what="key")
        assert "expected one PEM block" in str(caught.value)
        assert "keyPaths" in caught.value.hint


def test_public_key_file_that_holds_something_else_is_refused(vectors):
    for raw, piece in [
        (b"", "got no PEM block"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "can be read"),
        (b"-----BEGIN PUBLIC KEY-----\n", "can be read"),
        ((vectors / "keys/cosign1.key").read_bytes(), "ENCRYPTED SIGSTORE PRIVATE KEY"),
        ((vectors / "keys/fulcio-ca.pem").read_bytes(), "CERTIFICATE"),
        (b" " * (MAX_KEY_BYTES + 1), "at most"),
    ]:
        with pytest.raises(FormatError) as caught:
            parse_public_key(raw, what="key")
        assert caught.value.what == "key"
        assert piece in str(caught.value)
