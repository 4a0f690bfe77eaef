# SPDX-License-Identifier: Apache-2.0
import base64
import json
import pickle

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from nacl.secret import SecretBox

from imagers.errors import FormatError, KeyUnavailable, Unsupported
from imagers.model.keys import SecretKey
from imagers.sign.public_key import MAX_KEY_BYTES, parse_public_key
from imagers.sign.sigstore_key import (
    SigstorePrivateKey,
    _derive,
    generate_private_key,
    open_private_key,
    seal_private_key,
)


def document_of(pem):
    return json.loads(base64.b64decode(b"".join(pem.splitlines()[1:-1])))


def pem_of(document, label="ENCRYPTED SIGSTORE PRIVATE KEY"):
    body = base64.b64encode(json.dumps(document).encode()).decode()
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode()


@pytest.fixture
def cosign_file(vectors):
    return (vectors / "keys/cosign1.key").read_bytes()


@pytest.mark.parametrize("name", ["cosign1.key", "cosign2.key", "sigstore1.private"])
def test_open_private_key_of_other_tools_signs_for_their_public_key(name, vectors, passphrase):
    key = open_private_key((vectors / "keys" / name).read_bytes(), passphrase)
    public = name.split(".")[0] + ".pub"
    expected = parse_public_key((vectors / "keys" / public).read_bytes(), what="key")
    assert key.public_key == expected
    assert expected.is_good(key.sign(b"data"), b"data")


@pytest.mark.parametrize("secret", [b"", b"geheim", "pässwörd\n".encode()])
def test_seal_private_key_opens_with_the_same_passphrase_only(secret):
    key = generate_private_key()
    with SecretKey(secret) as passphrase, SecretKey(secret + b"x") as wrong:
        pem = seal_private_key(key, passphrase)
        assert open_private_key(pem, passphrase).public_key == key.public_key
        with pytest.raises(KeyUnavailable) as caught:
            open_private_key(pem, wrong, what="key file 'a.key'")
    assert str(caught.value) == "key file 'a.key': the passphrase does not open it"
    assert caught.value.exit_code == 30
    assert "passphrase" in caught.value.hint


@pytest.mark.parametrize("n", [32768, 131072])
def test_open_private_key_reads_the_other_work_factors(n, passphrase, cosign_file):
    document = document_of(cosign_file)
    nonce = base64.b64decode(document["cipher"]["nonce"])
    salt = base64.b64decode(document["kdf"]["salt"])
    der = SecretBox(_derive(passphrase, salt, 65536)).decrypt(
        base64.b64decode(document["ciphertext"]), nonce
    )
    sealed = SecretBox(_derive(passphrase, salt, n)).encrypt(der, nonce).ciphertext
    document["kdf"]["params"]["N"] = n
    document["ciphertext"] = base64.b64encode(sealed).decode()
    expected = open_private_key(cosign_file, passphrase).public_key
    assert open_private_key(pem_of(document), passphrase).public_key == expected


def test_seal_private_key_writes_the_form_of_cosign(passphrase, cosign_file):
    pem = seal_private_key(generate_private_key(), passphrase)
    ours, theirs = document_of(pem), document_of(cosign_file)
    assert pem.splitlines()[0] == cosign_file.splitlines()[0]
    assert list(ours) == list(theirs)
    assert ours["kdf"]["params"] == theirs["kdf"]["params"]
    assert (len(ours["kdf"]["salt"]), len(ours["cipher"]["nonce"])) == (
        len(theirs["kdf"]["salt"]),
        len(theirs["cipher"]["nonce"]),
    )
    assert (
        ours["kdf"]["salt"]
        != document_of(seal_private_key(generate_private_key(), passphrase))["kdf"]["salt"]
    )


def test_private_key_does_not_print_or_pickle():
    key = generate_private_key()
    assert repr(key) == f"SigstorePrivateKey(ECDSA P-256, {key.public_key.fingerprint[:16]}…)"
    with pytest.raises(TypeError):
        pickle.dumps(key)


@pytest.mark.parametrize(
    ("params", "error", "piece"),
    [
        ({"N": 2**30, "r": 8, "p": 1}, Unsupported, "got N 1073741824, r 8 and p 1"),
        ({"N": 16384, "r": 8, "p": 1}, Unsupported, "got N 16384"),
        ({"N": 65536, "r": 2**20, "p": 1}, Unsupported, "r 1048576"),
        ({"N": 65536, "r": 8, "p": 2**20}, Unsupported, "p 1048576"),
        ({"N": 65536, "r": 8}, FormatError, "$.kdf.params.p"),
        ({"N": 65536.0, "r": 8, "p": 1}, FormatError, "whole number"),
        ({"N": -1, "r": 8, "p": 1}, FormatError, "got -1"),
    ],
)
def test_open_private_key_with_another_work_factor_is_refused_before_work(
    params, error, piece, cosign_file, passphrase
):
    document = document_of(cosign_file)
    document["kdf"]["params"] = params
    with pytest.raises(error) as caught:
        open_private_key(pem_of(document), passphrase)
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("place", "name", "value", "error", "piece"),
    [
        ("kdf", "name", "argon2id", Unsupported, "got 'argon2id'"),
        ("cipher", "name", "aes", Unsupported, "'aes'"),
        ("kdf", "salt", "AAAA", FormatError, "$.kdf.salt: expected 16 to 64 bytes, got 3"),
        ("cipher", "nonce", "AAAA", FormatError, "expected 24 bytes, got 3"),
        ("cipher", "nonce", "ää", FormatError, "$.cipher.nonce: expected base64"),
        (None, "ciphertext", "!", FormatError, "$.ciphertext: expected base64"),
        (None, "ciphertext", "", FormatError, "got 0"),
        (None, "cipher", [], FormatError, "$.cipher: expected an object"),
    ],
)
def test_open_private_key_malformed_file_is_refused(
    *, place, name, value, error, piece, cosign_file, passphrase
):
    document = document_of(cosign_file)
    (document if place is None else document[place])[name] = value
    with pytest.raises(error) as caught:
        open_private_key(pem_of(document), passphrase)
    assert piece in str(caught.value)


def test_open_private_key_damaged_ciphertext_is_key_unavailable(cosign_file, passphrase):
    document = document_of(cosign_file)
    raw = bytearray(base64.b64decode(document["ciphertext"]))
    raw[40] ^= 1
    document["ciphertext"] = base64.b64encode(raw).decode()
    with pytest.raises(KeyUnavailable):
        open_private_key(pem_of(document), passphrase)


def test_open_private_key_with_garbage_inside_is_refused(cosign_file, passphrase):
    document = document_of(cosign_file)
    salt = base64.b64decode(document["kdf"]["salt"])
    nonce = base64.b64decode(document["cipher"]["nonce"])
    box = SecretBox(_derive(passphrase, salt, 65536))
    document["ciphertext"] = base64.b64encode(box.encrypt(b"no key", nonce).ciphertext).decode()
    with pytest.raises(FormatError) as caught:
        open_private_key(pem_of(document), passphrase, what="key file 'x'")
    assert str(caught.value) == "key file 'x': holds no PKCS#8 private key"


@pytest.mark.parametrize(
    ("pem", "piece"),
    [
        (b"", "expected one PEM block"),
        (pem_of({}, "PRIVATE KEY"), "expected one PEM block"),
        (pem_of({}) + pem_of({}), "expected one PEM block"),
        (pem_of({}) + b"-----BEGIN PUBLIC KEY-----\n", "expected one PEM block"),
        (pem_of({}), "$.kdf: is missing"),
        (pem_of([]), "expected an object"),
        (b" " * (MAX_KEY_BYTES + 1), "at most"),
        (
            pem_of({}).replace(b"e30=", b"A==="),
            "expected base64",
        ),
    ],
)
def test_open_private_key_of_something_else_is_refused(pem, piece, passphrase):
    with pytest.raises(FormatError) as caught:
        open_private_key(pem, passphrase, what="key file 'a'")
    assert caught.value.what == "key file 'a'"
    assert piece in str(caught.value)


def test_private_key_of_ed25519_and_rsa_is_sealed_opened_and_signs(passphrase):
    for secret in (ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)):
        key = SigstorePrivateKey(secret)
        again = open_private_key(seal_private_key(key, passphrase), passphrase)
        assert again.public_key == key.public_key
        assert key.public_key.is_good(again.sign(b"data"), b"data")
        assert not key.public_key.is_good(again.sign(b"data"), b"date")


def owner_of(pki):
    """A key with the chain of its certificates, and that chain."""
    leaf = pki.leaf()
    chain = (leaf, pki.middle, pki.root)
    return SigstorePrivateKey(pki.keys["leaf"]), chain


def test_private_key_takes_the_certificates_of_its_owner(pki):
    key, chain = owner_of(pki)
    assert key.certificates == ()
    certified = key.with_certificates(chain)
    assert certified.certificates == chain
    assert certified.public_key == key.public_key
    assert key.with_certificates(chain[:1]).certificates == chain[:1]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((1, 0, 2), "expected the certificate of the key first"),
        ((0, 2), "certificate 1 of 2 is not issued by the next one"),
        ((0, 1), "certificate 2 of 2 is not issued by itself: it must be a root"),
        ((0, 2, 1), "certificate 1 of 3 is not issued by the next one"),
    ],
)
def test_private_key_refuses_certificates_in_another_order(pki, order, message):
    key, chain = owner_of(pki)
    with pytest.raises(FormatError, match=message):
        key.with_certificates(tuple(chain[number] for number in order))


@pytest.mark.parametrize(
    ("at", "oid", "message"),
    [
        (0, "2a8648ce3d030107", "expected the certificate of the key first"),
        (1, "2a8648ce3d030107", "certificate 1 of 3 is not issued by the next one"),
    ],
)
def test_private_key_refuses_certificates_of_keys_that_nobody_knows(pki, at, oid, message):
    key, chain = owner_of(pki)
    chain = list(chain)
    der = chain[at].public_bytes(serialization.Encoding.DER)
    known = bytes.fromhex(oid)
    assert known in der
    other = der.replace(known, known[:-1] + b"\x77")  # a curve that is none
    chain[at] = x509.load_der_x509_certificate(other)
    with pytest.raises(FormatError, match=message):
        key.with_certificates(tuple(chain))


def test_private_key_refuses_the_certificate_of_another_key(pki):
    key, _ = owner_of(pki)
    with pytest.raises(FormatError, match="expected the certificate of the key first"):
        key.with_certificates((pki.leaf("other"), pki.middle, pki.root))
