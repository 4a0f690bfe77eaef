# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from imagers.encrypt.keyfiles import TokenFile, load_private_key, load_public_key
from imagers.encrypt.schemes.pkcs11 import (
    PKCS11Unwrapper,
    PKCS11Wrapper,
    TokenUnwrapper,
    open_token_key,
    parse_token_file,
    parse_token_uri,
)
from imagers.errors import FormatError, LocalError, PluginNotFound, Unsupported
from imagers.model.keys import NotMine, SecretKey, UnwrapContext, WrapContext, WrappedKey
from imagers.model.token import TokenReference

KEYS = Path(__file__).resolve().parents[3] / "vectors" / "ocicrypt" / "keys"
OPTIONS = b"x" * 193  # as many as real private options have
CONTEXT = UnwrapContext("layer 1 of 1", None)


def public(name):
    return load_public_key(str(KEYS / f"{name}.pub"))


def wrap(*names, **options):
    wrapper = PKCS11Wrapper([public(name) for name in names], **options)
    return wrapper.wrap(SecretKey(OPTIONS), WrapContext("layer 1 of 1"))


def unwrap(name, packet, scheme="pkcs11"):
    unwrapper = PKCS11Unwrapper(load_private_key(str(KEYS / f"{name}.key")))
    return unwrapper.unwrap(WrappedKey(scheme, packet), CONTEXT)


def test_wrap_for_several_keys_opens_for_each_with_the_hash_that_fits():
    packet = wrap("r2048", "r3072")
    assert [one["hash"] for one in json.loads(packet)["recipients"]] == ["sha1", "sha256"]
    assert unwrap("r2048", packet) == unwrap("r3072", packet) == SecretKey(OPTIONS)


def test_wrap_is_written_as_ocicrypt_does():
    text = wrap("r3072").decode()
    assert text.startswith('{"version":0,"recipients":[{"version":0,"blob":"')
    assert text.endswith('","hash":"sha256"}]}')


def test_wrap_with_a_given_hash_uses_it_or_says_that_it_does_not_fit():
    assert b'"hash":"sha1"' in wrap("r3072", hash_name="sha1")
    with pytest.raises(Unsupported, match="an RSA key of 2048 bits has no room for 193 bytes"):
        wrap("r2048", hash_name="sha256")
    with pytest.raises(Unsupported, match="expected hash sha256 or sha1, got 'md5'"):
        wrap("r2048", hash_name="md5")


def test_unwrap_without_a_hash_takes_sha1():
    document = json.loads(wrap("r2048", hash_name="sha1"))
    for hash_name in ("", None):
        document["recipients"][0]["hash"] = hash_name
        assert unwrap("r2048", json.dumps(document).encode()) == SecretKey(OPTIONS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 1}, "expected version 0, got 1"),
        ({"recipients": [{"version": 1, "blob": ""}]}, "expected version 0, got 1"),
        ({"recipients": [{"blob": "?"}]}, "expected base64"),
        ({"recipients": ["x"]}, "expected an object"),
        ({"recipients": []}, "for other keys"),
        ({"recipients": [{"blob": "AAAA", "hash": "md5"}]}, "for other keys"),
    ],
)
def test_unwrap_of_a_document_that_is_not_right_is_not_mine(change, reason):
    packet = json.dumps(json.loads(wrap("r2048")) | change).encode()
    with pytest.raises(NotMine, match=reason):
        unwrap("r2048", packet)


def test_unwrap_with_another_key_or_scheme_is_not_mine():
    with pytest.raises(NotMine, match="for other keys, or was changed"):
        unwrap("wrong", wrap("r2048"))
    with pytest.raises(NotMine, match="the scheme is 'jwe'"):
        unwrap("r2048", wrap("r2048"), scheme="jwe")


def test_ec_keys_are_refused():
    with pytest.raises(Unsupported, match="expected an RSA key for pkcs11:"):
        PKCS11Wrapper([public("ec256")])
    with pytest.raises(Unsupported, match="expected an RSA key for pkcs11:"):
        PKCS11Unwrapper(load_private_key(str(KEYS / "ec256.key")))


def test_parse_token_uri_reads_each_part():
    found = parse_token_uri(
        "pkcs11:token=my%20token;object=k;id=%01%ff;slot-id=3;serial=s;type=private"
        "?module-path=/x/y.so&module-name=z&pin-value=12%2034",
        what="f",
    )
    assert found == TokenReference(
        token="my token",
        serial="s",
        slot_id=3,
        object="k",
        id=b"\x01\xff",
        pin=SecretKey(b"12 34"),
        module_path="/x/y.so",
        module_name="z",
    )
    assert "12 34" not in repr(found)


def test_parse_token_uri_reads_the_pin_from_a_file(tmp_path):
    (tmp_path / "pin").write_text("1234\n")
    for scheme in ("", "file:"):
        found = parse_token_uri(f"pkcs11:object=k?pin-source={scheme}{tmp_path}/pin", what="f")
        assert found.pin == SecretKey(b"1234")
    with pytest.raises(LocalError):
        parse_token_uri(f"pkcs11:object=k?pin-source={tmp_path}/none", what="f")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pkcs12:object=k", "starts with pkcs11:"),
        ("pkcs11:object", "each part once"),
        ("pkcs11:object=k;object=l", "each part once"),
        ("pkcs11:object=k;manufacturer=x", "'manufacturer', which is not known"),
        ("pkcs11:object=%ff", "not UTF-8"),
        ("pkcs11:object=k;slot-id=-1", "expected a number as slot-id"),
        ("pkcs11:token=t", "expected an object or an id"),
        ("pkcs11:object=k?pin-value=1&pin-source=x", "got both"),
        ("pkcs11:object=k?pin-source=|cat%20x", "a program as pin-source"),
    ],
)
def test_parse_token_uri_of_others_raises_and_repeats_no_value(uri, message):
    with pytest.raises(FormatError, match=message):
        parse_token_uri(uri, what="f")


def token_file(text):
    return TokenFile(SecretKey(text.encode()), "key.yaml")


def test_parse_token_file_reads_uri_and_environment():
    file = token_file("pkcs11:\n  uri: pkcs11:object=k\nmodule:\n  env:\n    SOFTHSM2_CONF: /x\n")
    assert parse_token_file(file) == TokenReference(object="k", environment={"SOFTHSM2_CONF": "/x"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pkcs11: [", "is not YAML"),
        ("pkcs11: x", r"pkcs11: expected an object, got a string"),
        ("pkcs11:\n  uri: 3", "uri: expected a string, got a number"),
        (
            "pkcs11:\n  uri: pkcs11:object=k\nmodule:\n  env: [1]",
            "env: expected an object, got a list",
        ),
        (
            "pkcs11:\n  uri: pkcs11:object=k\nmodule:\n  env: {A: 1}",
            "expected a string, got a number",
        ),
        ("pkcs11:\n  uri: pkcs11:object=k\nmodule:\n  env: {A: ''}", "names with texts"),
        ("pkcs11:\n  uri: pkcs11:object=k\nmodule:\n  env: {1: a}", "names with texts"),
        ("pkcs11:\n  uri: pkcs11:object=k\nmodule: x", "module: expected an object"),
    ],
)
def test_parse_token_file_of_others_raises(text, message):
    with pytest.raises(FormatError, match=message):
        parse_token_file(token_file(text))


def test_open_token_key_without_the_plugin_says_so(monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    with pytest.raises(PluginNotFound, match="keys on tokens need it") as caught:
        open_token_key(token_file("pkcs11:\n  uri: pkcs11:object=k\n"), private=True)
    assert caught.value.name == "pkcs11"


def test_token_unwrapper_asks_the_key_and_closes_it():
    class Key:
        """A token that opens one blob."""

        closed = 0

        def public_key(self):
            return b""

        def decrypt_oaep(self, ciphertext, hash_name):
            return SecretKey(b"opened") if (ciphertext, hash_name) == (b"b", "sha256") else None

        def close(self):
            self.closed += 1

    key = Key()
    recipients = [{"blob": "YQ==", "hash": "sha256"}, {"blob": "Yg==", "hash": "sha256"}]
    packet = WrappedKey("pkcs11", json.dumps({"recipients": recipients}).encode())
    with TokenUnwrapper(key, "key.yaml") as unwrapper:
        assert unwrapper.unwrap(packet, CONTEXT) == SecretKey(b"opened")
        assert unwrapper.description == "key file 'key.yaml'"
    assert key.closed == 1
