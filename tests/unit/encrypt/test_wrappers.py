# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from imagers.encrypt.keys import _unwrap_any
from imagers.encrypt.recipients import parse_decryption_key, parse_recipients
from imagers.encrypt.schemes.scheme import ProviderSettings
from imagers.encrypt.wrappers import opened_unwrappers, opened_wrappers
from imagers.errors import FormatError, KeyUnavailable, LocalError, Unsupported, UsageError
from imagers.model.keys import SecretKey, UnwrapContext, WrapContext, WrappedKey

KEYS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt" / "keys"
CONTEXT = UnwrapContext("layer 1 of 1", None)


def unwrap_with(packets, *keys):
    """What the first unwrapper of the keys that opens one of the packets gives."""
    with opened_unwrappers([parse_decryption_key(key) for key in keys]) as unwrappers:
        return _unwrap_any(tuple(packets), unwrappers, CONTEXT)[0]


def wrap_for(*recipients):
    with opened_wrappers(parse_recipients(recipients)) as wrappers:
        return [
            WrappedKey(one.scheme, one.wrap(SecretKey(b"x" * 193), WrapContext("layer")))
            for one in wrappers
        ]


def test_recipients_of_one_scheme_share_a_packet():
    packets = wrap_for(
        f"jwe:{KEYS}/r2048.pub",
        f"pkcs7:{KEYS}/cert1.crt",
        f"pkcs11:{KEYS}/r3072.pub",
        f"jwe:{KEYS}/ec256.pub",
        f"pkcs7:{KEYS}/cert2.crt",
    )
    assert [packet.scheme for packet in packets] == ["jwe", "pkcs7", "pkcs11"]
    for keys in (
        ["r2048.key"],
        ["ec256.key"],
        ["cert2.key", "cert2.crt"],
        ["cert1.crt", "cert1.key"],
        ["r3072.key"],
        ["wrong.key", "r3072.key"],
    ):
        assert unwrap_with(packets, *(str(KEYS / key) for key in keys)) == SecretKey(b"x" * 193)


def test_key_with_certificate_in_one_text_opens_pkcs7():
    (packet,) = wrap_for(f"pkcs7:{KEYS}/cert1.crt")
    assert unwrap_with([packet], f"{KEYS}/cert1.key:{KEYS}/cert1.crt") == SecretKey(b"x" * 193)


def test_key_without_its_certificate_does_not_open_pkcs7_and_the_hint_says_why():
    packets = wrap_for(f"pkcs7:{KEYS}/cert1.crt")
    with pytest.raises(KeyUnavailable, match="none of the given keys") as caught:
        unwrap_with(packets, f"{KEYS}/cert1.key")
    assert "needs its certificate, as FILE:CERT" in caught.value.hint


def test_certificate_without_its_key_is_an_error():
    with pytest.raises(UsageError, match=r"cert1\.crt: none of the given private keys"):
        unwrap_with([], f"{KEYS}/cert2.key", f"{KEYS}/cert1.crt")


def test_word_that_is_no_certificate_is_a_password():
    with pytest.raises(KeyUnavailable, match="the password does not open the key"):
        unwrap_with([], f"{KEYS}/rpw.key:{KEYS}/r2048.pub")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("r2048.pub", FormatError, "is a public key, expected a private one"),
        ("kek1.bin", FormatError, "expected a private key"),
        ("none", LocalError, "cannot be read"),
        ("cert1.crt:pass=x", UsageError, "a password was given"),
        ("alice.pub.gpg", FormatError, "holds no OpenPGP secret key"),
    ],
)
def test_file_that_is_no_key_is_an_error(name, error, message):
    with pytest.raises(error, match=message):
        unwrap_with([], str(KEYS / name))


@pytest.mark.parametrize("side", [opened_wrappers, opened_unwrappers])
def test_provider_without_a_configuration_says_what_to_set(side):
    parse = parse_recipients if side is opened_wrappers else list
    given = (
        ["provider:agent"] if side is opened_wrappers else [parse_decryption_key("provider:agent")]
    )
    with (
        pytest.raises(KeyUnavailable, match="no provider is configured") as caught,
        side(parse(given)),
    ):
        pass
    assert "OCICRYPT_KEYPROVIDER_CONFIG" in caught.value.hint


def test_provider_of_the_configuration_is_found(monkeypatch):
    monkeypatch.chdir(KEYS.parent)
    settings = ProviderSettings(config_path="keys/ocicrypt.conf")
    recipients = parse_recipients(["provider:attestation-agent:a", "provider:attestation-agent:b"])
    with opened_wrappers(recipients, settings) as wrappers:
        (wrapper,) = wrappers
        assert wrapper.scheme == "provider.attestation-agent"
        packet = WrappedKey(wrapper.scheme, wrapper.wrap(SecretKey(b"x"), WrapContext("layer")))
    key = parse_decryption_key("provider:attestation-agent")
    with opened_unwrappers([key], settings) as unwrappers:
        assert unwrappers[0].unwrap(packet, CONTEXT) == SecretKey(b"x")


def test_ec_certificate_is_refused_before_anything_is_wrapped():
    with pytest.raises(Unsupported, match="expected a certificate with an RSA key"):
        wrap_for(f"pkcs7:{KEYS}/pki-leaf.pem")
