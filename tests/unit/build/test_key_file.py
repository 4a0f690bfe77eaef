# SPDX-License-Identifier: Apache-2.0
import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwcrypto.jwk import JWK

from imagers.build.key_file import describe_key, is_cosign_key
from imagers.errors import FormatError, KeyUnavailable, Unsupported, UsageError
from imagers.model.keys import SecretKey
from imagers.sign.sigstore_key import generate_private_key, seal_private_key

KEYS = {
    "RSA 2048": rsa.generate_private_key(65537, 2048),
    "EC P-256": ec.generate_private_key(ec.SECP256R1()),
    "EC P-521": ec.generate_private_key(ec.SECP521R1()),
}


def describe(data, passphrase=b""):
    return describe_key(SecretKey(data), name="f", passphrase=SecretKey(passphrase))


def private(key, encoding=Encoding.PEM, form=PrivateFormat.PKCS8, password=b""):
    sealing = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(encoding, form, sealing)


def public(key, encoding=Encoding.PEM):
    return key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("kind", KEYS)
def test_every_form_of_a_key_has_the_same_public_half(kind):
    key = KEYS[kind]
    jwk = JWK.from_pyca(key)
    want = ("public", kind, public(key).decode(), jwk.thumbprint())
    for data in (public(key), public(key, Encoding.DER), jwk.export_public().encode()):
        facts = describe(data)
        assert (facts.half, facts.kind, facts.public_pem, facts.key_id) == want
    for data, passphrase in (
        (private(key), b""),
        (private(key, form=PrivateFormat.TraditionalOpenSSL), b""),
        (private(key, Encoding.DER), b""),
        (private(key, password=b"horse"), b"horse"),
        (private(key, Encoding.DER, password=b"horse"), b"horse"),
        (private(key, form=PrivateFormat.TraditionalOpenSSL, password=b"horse"), b"horse"),
        (jwk.export_private().encode(), b""),
    ):
        facts = describe(data, passphrase)
        assert (facts.half, facts.kind, facts.public_pem, facts.key_id) == ("private", *want[1:])


def test_key_id_of_a_jwk_with_a_name_is_its_name_in_both_halves():
    key = JWK.from_pyca(KEYS["EC P-256"])
    for half in (key.export_public(as_dict=True), key.export_private(as_dict=True)):
        assert describe(json.dumps(half | {"kid": "alice"}).encode()).key_id == "alice"


def test_key_of_a_signer_is_told_by_its_passphrase():
    key = generate_private_key()
    sealed = seal_private_key(key, SecretKey(b"horse"))
    assert is_cosign_key(SecretKey(sealed))
    facts = describe(sealed, b"horse")
    assert (facts.half, facts.kind) == ("private", "EC P-256")
    assert facts.fingerprint == key.public_key.fingerprint
    assert facts.public_pem == key.public_key.to_pem().decode()
    for wrong in (b"", b"cow"):
        with pytest.raises(KeyUnavailable, match="f: the passphrase does not open it"):
            describe(sealed, wrong)


def test_key_that_can_be_no_recipient_has_no_key_id():
    facts = describe(public(ed25519.Ed25519PrivateKey.generate()))
    assert (facts.kind, facts.key_id) == ("Ed25519", None)


def test_private_key_without_its_password_is_no_key_of_another_kind():
    sealed = private(KEYS["RSA 2048"], password=b"horse")
    with pytest.raises(KeyUnavailable):
        describe(sealed)
    with pytest.raises(KeyUnavailable):
        describe(sealed, b"cow")
    with pytest.raises(UsageError, match="the key has none"):
        describe(private(KEYS["RSA 2048"]), b"horse")


@pytest.mark.parametrize(
    ("data", "kind", "piece"),
    [
        (b"", FormatError, "expected a public key"),
        (b"x" * 100, FormatError, "expected a public key"),
        (os.urandom(32), FormatError, "32 bytes, which a key-encryption key has"),
        (b'{"kty":"oct","k":"AAAA"}', Unsupported, "oct"),
        (b'{"default":[]}', FormatError, "kty"),
        (private(x25519.X25519PrivateKey.generate()), Unsupported, "expected an RSA or EC"),
        (
            public(rsa.generate_private_key(65537, 1024)),  # noqa: S505  # it is refused
            Unsupported,
            "expected an",
        ),
        (public(ec.generate_private_key(ec.SECP256K1())), Unsupported, "expected an"),
    ],
    ids=["empty", "text", "kek", "symmetric", "other JSON", "X25519", "small RSA", "other curve"],
)
def test_what_is_no_key_refused(data, kind, piece):
    with pytest.raises(kind, match=piece):
        describe(data)


def test_nothing_of_a_private_key_is_in_the_facts():
    key = KEYS["EC P-256"]
    secret = JWK.from_pyca(key).export_private(as_dict=True)["d"]
    number = str(key.private_numbers().private_value)
    shown = repr(describe(private(key))) + json.dumps(describe(private(key)).public_pem)
    assert secret not in shown
    assert number not in shown
