# SPDX-License-Identifier: Apache-2.0
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from imagers.errors import FormatError, KeyUnavailable, Unsupported, UsageError
from imagers.model.keys import SecretKey
from imagers.sign.formats.notation.key import NotationKey, parse_notation_key


def pem_of(key, passphrase=None):
    sealed = (
        serialization.NoEncryption()
        if passphrase is None
        else serialization.BestAvailableEncryption(passphrase)
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)


def test_notation_key_of_rsa_signs(pki):
    leaf = pki.leaf(key=rsa.generate_private_key(65537, 2048))
    key = NotationKey((leaf,), pki.keys["leaf"])
    assert len(key.sign(b"x")) == 256
    assert "_key" not in repr(key)


def test_notation_key_is_read_with_and_without_a_passphrase(pki, pem):
    leaf = pki.leaf()
    chain = pem(leaf, pki.middle)
    key = pki.keys["leaf"]
    assert parse_notation_key(pem_of(key), chain, None, what="k").chain == (leaf, pki.middle)
    with SecretKey(b"pw") as passphrase:
        assert parse_notation_key(pem_of(key, b"pw"), chain, passphrase, what="k")
        with pytest.raises(UsageError, match="the key has none"):
            parse_notation_key(pem_of(key), chain, passphrase, what="k")
    with pytest.raises(KeyUnavailable, match="none was given"):
        parse_notation_key(pem_of(key, b"pw"), chain, None, what="k")
    with SecretKey(b"no") as wrong, pytest.raises(KeyUnavailable, match="does not open"):
        parse_notation_key(pem_of(key, b"pw"), chain, wrong, what="k")


def test_notation_key_that_does_not_fit_is_refused(pki, pem):
    leaf = pki.leaf()
    with pytest.raises(FormatError, match="the certificate of the key first"):
        parse_notation_key(pem_of(pki.keys["leaf"]), pem(pki.middle, leaf), None, what="k")
    with pytest.raises(FormatError, match="k: expected a private key in PEM"):
        parse_notation_key(b"x", pem(leaf), None, what="k")
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(Unsupported, match="RSA or an EC key"):
        parse_notation_key(pem_of(key), pem(leaf), None, what="k")
