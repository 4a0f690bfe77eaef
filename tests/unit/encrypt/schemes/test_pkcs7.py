# SPDX-License-Identifier: Apache-2.0
import contextlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagers.encrypt.keyfiles import load_certificate, load_private_key
from imagers.encrypt.schemes import pkcs7
from imagers.encrypt.schemes.pkcs7 import PKCS7Unwrapper, PKCS7Wrapper, is_pair, parse_recipients_of
from imagers.errors import FormatError, Unsupported
from imagers.model.keys import NotMine, SecretKey, UnwrapContext, WrapContext, WrappedKey
from imagers.pki.der import encode, encode_oid

KEYS = Path(__file__).resolve().parents[3] / "vectors" / "ocicrypt" / "keys"
OPTIONS = b'{"symkey":"' + b"A" * 170 + b'"}'
CONTEXT = UnwrapContext("layer 1 of 1", None)


def certificate(name):
    return load_certificate(str(KEYS / f"{name}.crt"))


def unwrapper(name):
    return PKCS7Unwrapper(load_private_key(str(KEYS / f"{name}.key")), certificate(name))


def wrap(*names):
    wrapper = PKCS7Wrapper([certificate(name) for name in names])
    return wrapper.wrap(SecretKey(OPTIONS), WrapContext("layer 1 of 1"))


def unwrap(name, packet):
    return unwrapper(name).unwrap(WrappedKey("pkcs7", packet), CONTEXT)


def openssl_cms(*words, data=OPTIONS):
    command = ["openssl", "cms", *map(str, words)]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def test_wrap_for_several_certificates_opens_for_each():
    packet = wrap("cert1", "cert2")
    assert unwrap("cert1", packet) == unwrap("cert2", packet) == SecretKey(OPTIONS)


def test_wrap_opens_with_openssl():
    words = ("-decrypt", "-inform", "DER", "-inkey", KEYS / "cert2.key")
    words += ("-recip", KEYS / "cert2.crt")
    assert openssl_cms(*words, data=wrap("cert1", "cert2")) == OPTIONS


@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des3"])
@pytest.mark.parametrize(
    "more", [[], ["-keyid"], ["-keyopt", "rsa_padding_mode:oaep"], ["-stream"]]
)
def test_unwrap_opens_what_openssl_writes(cipher, more):
    words = ["-encrypt", "-binary", f"-{cipher}", "-outform", "DER"]
    words += ["-recip", KEYS / "cert1.crt", *more]
    assert unwrap("cert1", openssl_cms(*words)) == SecretKey(OPTIONS)


def test_unwrap_opens_oaep_with_another_hash():
    options = ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"]
    words = ["-encrypt", "-binary", "-aes256", "-outform", "DER", "-recip", KEYS / "cert1.crt"]
    words += [word for option in options for word in ("-keyopt", option)]
    assert unwrap("cert1", openssl_cms(*words)) == SecretKey(OPTIONS)


def gcm_packet(parameters, *, bits=128, constructed=False):
    """What ocicrypt writes, with the parameters of AES-GCM as given."""
    key, nonce = bytes(range(bits // 8)), bytes(12)
    number = {128: 6, 192: 26, 256: 46}[bits]
    content = AESGCM(key).encrypt(nonce, OPTIONS, None)
    content = encode(0xA0, encode(0x04, content)) if constructed else encode(0x80, content)
    cipher = encode(0x30, encode_oid(f"2.16.840.1.101.3.4.1.{number}"), parameters)
    inner = encode(0x30, encode_oid("1.2.840.113549.1.7.1"), cipher, content)
    recipients = encode(0x31, pkcs7._recipient_info(certificate("cert1"), key))
    enveloped = encode(0x30, encode(0x02, b"\x00"), recipients, inner)
    return encode(0x30, encode_oid("1.2.840.113549.1.7.3"), encode(0xA0, enveloped))


def gcm_parameters(nonce_tag=0x84, *, nonce=bytes(12), icv=16):
    return encode(0x30, encode(nonce_tag, nonce), encode(0x02, bytes((icv,))))


@pytest.mark.parametrize("bits", [128, 192, 256])
@pytest.mark.parametrize("constructed", [False, True])
def test_unwrap_opens_gcm_as_ocicrypt_writes_it_and_as_the_standard_says(bits, constructed):
    for parameters in (encode(0x10, gcm_parameters()), gcm_parameters(0x04)):
        packet = gcm_packet(parameters, bits=bits, constructed=constructed)
        assert unwrap("cert1", packet) == SecretKey(OPTIONS)


@pytest.mark.parametrize(
    "parameters",
    [
        gcm_parameters(0x04, icv=12),
        gcm_parameters(0x04, nonce=bytes(16)),
        gcm_parameters(0x04, nonce=b""),
        encode(0x30, encode(0x04, bytes(12))),
        encode(0x04, bytes(12)),
        b"",
    ],
    ids=["short tag", "long nonce", "no nonce", "no tag length", "iv of CBC", "nothing"],
)
def test_unwrap_of_gcm_with_other_parameters_is_not_mine(parameters):
    with pytest.raises(NotMine, match="was changed"):
        unwrap("cert1", gcm_packet(parameters))


def test_unwrap_of_an_unknown_cipher_raises_unsupported():
    packet = wrap("cert1").replace(
        encode_oid("2.16.840.1.101.3.4.1.42"), encode_oid("2.16.840.1.101.3.4.1.99")
    )
    with pytest.raises(Unsupported, match=r"layer 1 of 1: PKCS7: cipher 2\.16"):
        unwrap("cert1", packet)


def test_unwrap_for_another_certificate_is_not_mine():
    with pytest.raises(NotMine, match="for other certificates"):
        unwrap("certw", wrap("cert1"))


def test_unwrap_of_another_scheme_is_not_mine():
    with pytest.raises(NotMine, match="the scheme is 'jwe'"):
        unwrapper("cert1").unwrap(WrappedKey("jwe", wrap("cert1")), CONTEXT)


@pytest.mark.parametrize("packet", [b"", b"\x30\x00", b"{}", b"\x30\x80\x00\x00", bytes(64)])
def test_unwrap_of_no_message_is_not_mine(packet):
    with pytest.raises(NotMine, match="PKCS7"):
        unwrap("cert1", packet)
    with pytest.raises(FormatError):
        parse_recipients_of(packet)


def test_recipients_are_named_by_issuer_and_serial():
    (recipient,) = parse_recipients_of(wrap("cert1"))
    assert recipient.name == (
        "serial 5fed5b8b89ee83149401ddd3ff5846075fd3214b of "
        "Common Name: cert1, Organization: imagers test"
    )


def test_unwrapper_of_key_and_certificate_that_are_no_pair_raises():
    key = load_private_key(str(KEYS / "cert1.key"))
    assert not is_pair(key, certificate("cert2"))
    with pytest.raises(ValueError, match="no pair"):
        PKCS7Unwrapper(key, certificate("cert2"))


def test_wrapper_for_an_ec_certificate_says_what_to_do():
    with pytest.raises(Unsupported, match="expected a certificate with an RSA key") as caught:
        PKCS7Wrapper([load_certificate(str(KEYS / "pki-leaf.pem"))])
    assert "jwe:FILE" in caught.value.hint


PACKET = wrap("cert1")


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.integers(0, len(PACKET) * 8 - 1))
def test_unwrap_with_any_bit_changed_is_refused_or_gives_other_bytes_of_no_use(bit):
    """CBC has no tag: what comes out then is no JSON, or the same (in names and versions)."""
    changed = bytearray(PACKET)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        opened = unwrap("cert1", bytes(changed))
    except (NotMine, Unsupported):
        return
    with opened.view() as data:
        text = bytes(data)
    # A bit of the iv changes one of the first block: another key, which fits no HMAC. One of
    # the content makes a block of garbage: a chance of 2^-20 or less that it is printable.
    of_iv = text[16:] == OPTIONS[16:] and len(text) == len(OPTIONS)
    assert text == OPTIONS or of_iv or not all(0x20 <= byte < 0x7F for byte in text)


@given(st.binary(max_size=300))
def test_parse_of_any_bytes_gives_recipients_or_a_format_error(data):
    with contextlib.suppress(FormatError):
        assert all(one.encrypted_key in data for one in parse_recipients_of(data))
