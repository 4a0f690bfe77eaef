# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.encrypt.recipients import (
    DecryptionKey,
    ProviderKey,
    Recipient,
    parse_decryption_key,
    parse_recipient,
    parse_recipients,
)
from imagers.errors import FormatError, UsageError
from imagers.model.keys import SecretKey


def test_parse_recipients_takes_commas_and_repeats_in_order():
    assert parse_recipients(["jwe:a.pem,jwe:b.pem", "broker:kbs:///a/b/c"]) == (
        Recipient("jwe", "a.pem"),
        Recipient("jwe", "b.pem"),
        Recipient("broker", "kbs:///a/b/c"),
    )


def test_parse_recipient_keeps_colons_of_a_path():
    assert parse_recipient("jwe:dir:x/a.pem") == Recipient("jwe", "dir:x/a.pem")


@pytest.mark.parametrize(
    "text", ["broker:kbs:///a/b", "broker:kbs:///a/", "broker:https://x/a/b/c", "broker:a/b/c"]
)
def test_parse_recipient_with_a_name_that_is_none_raises(text):
    with pytest.raises(FormatError, match="kbs:///REPOSITORY/TYPE/TAG"):
        parse_recipient(text)


@pytest.mark.parametrize("text", ["", "jwe", "jwe:", "a.pem", ":a", "JWE:a.pem", "rsa:a.pem"])
def test_parse_recipient_of_other_text_raises(text):
    with pytest.raises(UsageError, match="recipient: expected"):
        parse_recipient(text)


@pytest.mark.parametrize(
    ("text", "recipient"),
    [
        ("pkcs7:dir/a.crt", Recipient("pkcs7", "dir/a.crt")),
        ("pgp:Alice Example", Recipient("pgp", "Alice Example")),
        ("pkcs11:token.yaml", Recipient("pkcs11", "token.yaml")),
        ("provider:attestation-agent", Recipient("provider", "attestation-agent")),
        ("provider:agent:a:b=c", Recipient("provider", "agent:a:b=c")),
    ],
)
def test_parse_recipient_of_each_scheme_keeps_what_follows(text, recipient):
    assert parse_recipient(text) == recipient


def test_parse_recipient_of_a_provider_shows_no_parameters():
    assert "secret" not in repr(parse_recipient("provider:agent:secret"))


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", "-a", "a" * 65])
def test_parse_recipient_of_a_provider_with_a_bad_name_raises(name):
    with pytest.raises(FormatError, match="expected a provider name"):
        parse_recipient(f"provider:{name}:x")


def test_parse_decryption_key_of_a_path_has_no_password():
    key = parse_decryption_key("dir/a.pem")
    assert key == DecryptionKey("dir/a.pem")
    assert not key.has_password_in_argument


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("a.pem:correct horse", b"correct horse"),
        ("a.pem:pass=correct=horse", b"correct=horse"),
        ("a.pem:x:y", b"x:y"),
        ("a.pem:other=x", b"other=x"),
        ("a.pem:p\udcffw", b"p\xffw"),
    ],
)
def test_parse_decryption_key_with_password_in_argument_says_so(text, secret):
    key = parse_decryption_key(text)
    assert key.path == "a.pem"
    assert key.has_password_in_argument
    assert key.password.secret == SecretKey(secret)
    assert "horse" not in repr(key)


def test_parse_decryption_key_with_file_or_descriptor_keeps_the_place_only():
    by_file = parse_decryption_key("a.pem:file=dir/pw:1")
    assert (by_file.password.kind, by_file.password.path) == ("file", "dir/pw:1")
    by_fd = parse_decryption_key("a.pem:fd=7")
    assert (by_fd.password.kind, by_fd.password.descriptor) == ("fd", 7)
    assert not by_file.has_password_in_argument
    assert not by_fd.has_password_in_argument


@pytest.mark.parametrize("text", ["", ":x", "a.pem:", "a.pem:pass=", "a.pem:file="])
def test_parse_decryption_key_with_nothing_where_something_belongs_raises(text):
    with pytest.raises(UsageError, match="decryption key"):
        parse_decryption_key(text)


@pytest.mark.parametrize("number", ["", "x", "-1", "+1", " 1", "1_0", "٣", "9" * 30])
def test_parse_decryption_key_with_a_descriptor_that_is_no_number_raises(number):
    with pytest.raises(UsageError, match="expected fd= and a number"):
        parse_decryption_key(f"a.pem:fd={number}")


def test_parse_decryption_key_of_a_provider_keeps_name_and_parameters():
    assert parse_decryption_key("provider:attestation-agent") == ProviderKey("attestation-agent")
    assert parse_decryption_key("provider:agent:a:b") == ProviderKey("agent", "a:b")
    assert "b" not in repr(parse_decryption_key("provider:agent:b")).replace("ProviderKey", "")


def test_parse_decryption_key_with_a_word_may_name_a_certificate():
    assert parse_decryption_key("a.key:a.crt").certificate == "a.crt"
    assert parse_decryption_key("a.key:pass=a.crt").certificate == ""
    assert parse_decryption_key("a.key:file=a.crt").certificate == ""


@pytest.mark.parametrize("text", ["", "jwe", "jwe:", "foo:bar"])
def test_parse_recipient_of_none_names_all_kinds_in_the_same_words(text):
    with pytest.raises(UsageError, match="provider:NAME or broker:URI, got"):
        parse_recipient(text)
