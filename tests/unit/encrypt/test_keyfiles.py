# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from imagers.encrypt.keyfiles import (
    Password,
    load_private_key,
    load_public_key,
    parse_private_key,
    parse_public_key,
    read_password,
)
from imagers.errors import (
    FormatError,
    KeyUnavailable,
    LocalError,
    TimedOut,
    Unsupported,
    UsageError,
)
from imagers.model.keys import SecretKey
from imagers.waiting import Cancellation


def argument(text):
    return Password("argument", secret=SecretKey(text.encode()))


def opened(key):
    with key.view() as data:
        return bytes(data)


@pytest.fixture(scope="module")
def curve_key():
    return ec.generate_private_key(ec.SECP256R1())


def test_load_every_key_of_the_vectors_and_the_halves_fit(vectors, vector_keys):
    seen = 0
    for key in vector_keys.values():
        if key["use"] != "jwe":
            continue
        public = load_public_key(str(vectors / key["public"]))
        password = key["password"] and argument(key["password"])
        private = load_private_key(str(vectors / key["private"]), password)
        assert private.key.public_key() == public.key
        seen += 1
    assert seen == 10


def test_load_public_jwk_keeps_algorithm_and_kid(public_key):
    key = public_key("jwkrsa.jwk")
    assert (key.algorithm, key.kid) == ("RSA-OAEP-256", "jwkrsa")


@pytest.mark.parametrize("form", ["pkcs8", "pkcs1", "sec1 with parameters"])
@pytest.mark.parametrize("password", [None, "a b:c"])
def test_load_private_key_as_openssl_writes_it(tmp_path, form, password):
    path = tmp_path / "key.pem"
    if form == "pkcs8":
        command = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]
        command += ["-aes256", "-pass", f"pass:{password}"] if password else []
    elif form == "pkcs1":
        command = ["genrsa", "-traditional"]
        command += ["-aes256", "-passout", f"pass:{password}"] if password else []
    else:
        command = ["ecparam", "-genkey", "-name", "prime256v1"]
        password = None
    made = subprocess.run(["openssl", *command], capture_output=True, check=True, timeout=60)
    path.write_bytes(made.stdout)
    key = load_private_key(str(path), password and argument(password))
    assert key.name == str(path)
    assert "EC" in type(key.key).__name__ or "RSA" in type(key.key).__name__


@pytest.mark.parametrize(
    ("encoding", "format_", "password"),
    [
        (encoding, format_, password)
        for encoding in (Encoding.PEM, Encoding.DER)
        for format_ in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
        for password in (None, b"pw")
        # The one form that does not exist.
        if (encoding, format_, password) != (Encoding.DER, PrivateFormat.TraditionalOpenSSL, b"pw")
    ],
)
def test_parse_private_key_of_every_form_gives_the_key(curve_key, encoding, format_, password):
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    data = SecretKey(curve_key.private_bytes(encoding, format_, encryption))
    key = parse_private_key(data, name="k", password=password and SecretKey(password))
    assert key.key.private_numbers() == curve_key.private_numbers()


def test_parse_public_key_of_any_label_and_der_gives_the_key(curve_key):
    public = curve_key.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for data in (der, pem, pem.replace(b"PUBLIC KEY", b"MY RECIPIENT"), b"a comment\n" + pem):
        assert parse_public_key(data, name="k").key == public


def test_private_key_does_not_print(private_key):
    assert "RSAPrivateKey" not in repr(private_key("r2048.key"))


@pytest.mark.parametrize("form", ["pkcs8", "der", "jwk", "encrypted"])
def test_parse_public_key_of_a_private_one_says_so(vectors, curve_key, form):
    data = {
        "pkcs8": (vectors / "keys" / "r2048.key").read_bytes(),
        "der": (vectors / "keys" / "rder.key").read_bytes(),
        "jwk": (vectors / "keys" / "jwkrsa.priv.jwk").read_bytes(),
        "encrypted": curve_key.private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
        ),
    }[form]
    with pytest.raises(FormatError, match=r"a\.key: is a private key, expected a public one") as e:
        parse_public_key(data, name="a.key")
    assert "'imagers key show --public a.key' prints it" in e.value.hint


def test_parse_public_key_of_a_private_one_behind_its_curve_says_so():
    made = subprocess.run(
        ["openssl", "ecparam", "-genkey", "-name", "prime256v1"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert made.stdout.startswith(b"-----BEGIN EC PARAMETERS-----")
    with pytest.raises(FormatError, match="is a private key"):
        parse_public_key(made.stdout, name="k")


@pytest.mark.parametrize("kid", ["a" * 257, "\u202e", "a\nb"])
def test_parse_public_jwk_with_a_kid_that_cannot_be_shown_raises(vectors, kid):
    document = json.loads((vectors / "keys" / "jwkrsa.jwk").read_text())
    data = json.dumps({**document, "kid": kid}).encode()
    with pytest.raises(FormatError, match=r"\$\.kid: expected at most 256 printable"):
        parse_public_key(data, name="k")


@pytest.mark.parametrize("name", ["r2048.pub", "jwkrsa.jwk"])
def test_parse_private_key_of_a_public_one_says_so(vectors, name):
    data = SecretKey((vectors / "keys" / name).read_bytes())
    with pytest.raises(FormatError, match="is a public key, expected a private one"):
        parse_private_key(data, name=name)


def test_parse_private_key_of_public_der_says_so(curve_key):
    der = curve_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(FormatError, match="is a public key, expected a private one"):
        parse_private_key(SecretKey(der), name="k")


def test_parse_public_key_of_a_certificate_says_how_to_get_the_key(vectors):
    with pytest.raises(FormatError, match="is a certificate, expected a public key") as caught:
        parse_public_key((vectors / "keys" / "cert1.crt").read_bytes(), name="cert1.crt")
    assert "openssl x509 -in cert1.crt" in caught.value.hint


@pytest.mark.parametrize("name", ["cosign1.key", "sigstore1.private"])
def test_parse_private_key_of_a_signing_key_says_so(vectors, name):
    data = SecretKey((vectors / "keys" / name).read_bytes())
    with pytest.raises(Unsupported, match="is a signing key"):
        parse_private_key(data, name=name)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x30\x03\x02\x01\x00", b"-----BEGIN X-----", b"{"]
)
def test_parse_key_of_anything_else_raises_and_names_the_file(data):
    for parse in (
        lambda: parse_public_key(data, name="some file"),
        lambda: parse_private_key(SecretKey(data), name="some file"),
    ):
        with pytest.raises(FormatError, match="some file"):
            parse()


def test_parse_key_of_pgp_ring_raises_with_what_is_expected(vectors):
    data = SecretKey((vectors / "keys" / "alice.sec.gpg").read_bytes())
    with pytest.raises(FormatError, match=r"expected a private key \(PEM, DER or JWK\)"):
        parse_private_key(data, name="alice.sec.gpg")


@pytest.mark.parametrize(
    ("make", "piece"),
    [
        (lambda: rsa.generate_private_key(65537, 1024), "to 16384 bits, got 1024"),  # noqa: S505
        (lambda: ec.generate_private_key(ec.SECP256K1()), "got EC secp256k1"),
        (ed25519.Ed25519PrivateKey.generate, "got Ed25519"),
    ],
)
def test_parse_public_key_of_another_kind_or_size_raises_unsupported(make, piece):
    public = make().public_key()
    data = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Unsupported, match=r"k\.pem") as caught:
        parse_public_key(data, name="k.pem")
    assert piece in str(caught.value)


def test_load_private_key_without_its_password_says_how_to_give_it(vectors):
    path = str(vectors / "keys" / "rpw.key")
    with pytest.raises(KeyUnavailable, match="has a password, and none was given") as caught:
        load_private_key(path)
    assert f"{path}:file=" in caught.value.hint


def test_load_private_key_with_a_wrong_password_says_so_and_does_not_repeat_it(vectors):
    for n in range(40):  # some wrong passwords leave padding that looks right
        with pytest.raises(KeyUnavailable, match="the password does not open") as caught:
            load_private_key(str(vectors / "keys" / "rpw.key"), argument(f"wrong-{n}"))
        assert "wrong-" not in str(caught.value)


@pytest.mark.parametrize("name", ["r2048.key", "rder.key", "jwkrsa.priv.jwk"])
def test_load_private_key_with_a_needless_password_raises(vectors, name):
    with pytest.raises(UsageError, match="a password was given, and the key has none"):
        load_private_key(str(vectors / "keys" / name), argument("x"))


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"pw\n", b"pw"), (b"pw\r\n", b"pw"), (b"p\n\n", b"p\n"), (b"pw", b"pw")],
)
def test_read_password_from_a_file_leaves_one_line_end_away(tmp_path, content, password):
    path = tmp_path / "pw"
    path.write_bytes(content)
    assert opened(read_password(Password("file", path=str(path)))) == password


def test_read_password_from_a_pipe_takes_all_pieces():
    reader, writer = os.pipe()
    try:
        os.write(writer, b"correct ")
        os.write(writer, b"horse\n")
        os.close(writer)
        assert opened(read_password(Password("fd", descriptor=reader))) == b"correct horse"
    finally:
        os.close(reader)


@pytest.mark.parametrize("kind", ["file", "fd"])
def test_read_password_from_a_pipe_without_an_end_ends_with_what_is_in_force(tmp_path, kind):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)  # a writer as well, which is silent
    password = Password(kind, path=str(path), descriptor=reader)
    try:
        limit = Cancellation(seconds=0.3, phase="set-up")
        with pytest.raises(TimedOut, match="waited for '"), limit.in_force():
            read_password(password)
    finally:
        os.close(reader)


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n"])
def test_read_password_that_is_empty_raises(tmp_path, content):
    path = tmp_path / "pw"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is empty"):
        read_password(Password("file", path=str(path)))


def test_read_password_from_a_closed_descriptor_raises_local_error():
    with pytest.raises(LocalError, match="file descriptor 99999"):
        read_password(Password("fd", descriptor=99999))


@pytest.mark.parametrize("name", ["missing", ".", "a\0b"])
def test_load_key_from_a_path_that_cannot_be_read_raises_local_error(tmp_path, name):
    path = str(tmp_path / name)
    for load in (load_public_key, load_private_key):
        with pytest.raises(LocalError, match="cannot be read") as caught:
            load(path)
        assert caught.value.path == path


def test_load_key_from_a_huge_file_stops_at_the_bound():
    with pytest.raises(FormatError, match="expected at most 131072 bytes"):
        load_private_key("/dev/zero")
