# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from jwcrypto import jwk

from imagers.encrypt.annotations import read_wrapped_keys
from imagers.encrypt.describe import describe_recipients, describe_wrapped_key, find_fault
from imagers.encrypt.schemes.broker import BrokerKeyWrapper
from imagers.encrypt.schemes.jwe import JWEWrapper
from imagers.errors import FormatError, Unsupported
from imagers.model.keys import SecretKey, WrapContext, WrappedKey

CONTEXT = WrapContext("layer 1 of 1")
SECRET = SecretKey(b"private options")


def test_describe_jwe_names_algorithms_and_key_ids(public_key):
    keys = [public_key(name) for name in ("r2048.pub", "ec256.pub", "jwkrsa.jwk")]
    packet = JWEWrapper(keys).wrap(SECRET, CONTEXT)
    thumbprints = [jwk.JWK.from_pyca(key.key).thumbprint() for key in keys]
    assert describe_wrapped_key(WrappedKey("jwe", packet)) == (
        f"jwe (RSA-OAEP {thumbprints[0]}, ECDH-ES+A256KW {thumbprints[1]}, RSA-OAEP-256 jwkrsa)"
    )
    assert describe_recipients(WrappedKey("jwe", packet))[2] == {
        "algorithm": "RSA-OAEP-256",
        "key": "jwkrsa",
    }


def test_describe_pkcs7_pgp_and_pkcs11_names_what_they_say(vectors, load_layout):
    for case, expected in (
        ("pkcs7-rsa2048-A", "pkcs7 (RSA PKCS#1 v1.5 serial "),
        ("pgp-rsa2048-A", "pgp ("),
        ("pkcs11-pubkey-rsa3072-C", "pkcs11 (RSA-OAEP with sha256)"),
    ):
        layer = next(load_layout(vectors / "encrypted" / case / "image").layers())
        (wrapped,) = read_wrapped_keys(layer.descriptor, what=layer.what)
        assert describe_wrapped_key(wrapped).startswith(expected)
        assert len(describe_recipients(wrapped)) == 1


def test_describe_jwe_for_many_is_bounded(public_key):
    packet = JWEWrapper([public_key("ec256.pub")] * 6).wrap(SECRET, CONTEXT)
    assert describe_wrapped_key(WrappedKey("jwe", packet)).endswith("and 2 more)")


def test_describe_packet_names_the_key():
    packet = BrokerKeyWrapper(SecretKey(bytes(32)), "kbs:///a/b/c").wrap(SECRET, CONTEXT)
    scheme = "provider.attestation-agent"
    assert describe_wrapped_key(WrappedKey(scheme, packet)) == f"{scheme} (A256GCM kbs:///a/b/c)"


def test_describe_of_what_cannot_be_read_says_why():
    assert describe_wrapped_key(WrappedKey("provider.x", b"\xff")) == "provider.x"
    for scheme in ("jwe", "pgp", "pkcs7", "pkcs11"):
        text = describe_wrapped_key(WrappedKey(scheme, b"\xff"))
        assert text.startswith(f"{scheme} (malformed: ")


def jwe(**changes):
    document = {"protected": "", "iv": "A" * 16, "ciphertext": "AA", "tag": "A" * 22}
    document |= {"header": {"alg": "RSA-OAEP", "enc": "A256GCM"}, **changes}
    return json.dumps({k: v for k, v in document.items() if v is not None}).encode()


@pytest.mark.parametrize(
    ("scheme", "packet", "kind", "told"),
    [
        ("jwe", b"{", FormatError, "is not JSON"),
        ("jwe", b"a.b", FormatError, "five parts"),
        ("jwe", jwe(iv="AA"), FormatError, "$.iv: expected 12 bytes"),
        ("jwe", jwe(tag="AA"), FormatError, "$.tag: expected 16 bytes"),
        ("jwe", jwe(iv="A=="), FormatError, "$.iv: expected base64url"),
        ("jwe", jwe(header={"enc": "A256GCM"}), FormatError, "alg: is missing"),
        ("jwe", jwe(header={"alg": "RSA-OAEP"}), FormatError, "enc: is missing"),
        ("pkcs7", b"\x30\x05", FormatError, "PKCS7: is not BER"),
        ("pgp", b"-----BEGIN PGP MESSAGE-----", FormatError, "OpenPGP"),
        ("pkcs11", b"[]", FormatError, ""),
        ("provider.attestation-agent", b"{}", FormatError, "$.kid: is missing"),
        ("rot13", b"x", Unsupported, "got 'rot13'"),
    ],
)
def test_fault_of_a_packet_is_found_without_a_key(scheme, packet, kind, told):
    fault = find_fault(WrappedKey(scheme, packet))
    assert type(fault) is kind
    assert told in str(fault)


def test_packets_that_are_whole_have_no_fault():
    broker = BrokerKeyWrapper(SecretKey(bytes(32)), "kbs:///a/b/c").wrap(SECRET, CONTEXT)
    assert find_fault(WrappedKey("provider.attestation-agent", broker)) is None
    assert find_fault(WrappedKey("provider.other", b"\xff")) is None
    assert find_fault(WrappedKey("jwe", jwe())) is None


@pytest.mark.parametrize("scheme", ["pkcs7", "pgp", "pkcs11"])
def test_whole_packet_in_the_annotation_of_another_scheme_is_not_damaged(scheme):
    misplaced = WrappedKey(scheme, jwe())
    assert find_fault(misplaced) is None
    assert describe_wrapped_key(misplaced) == f"{scheme} (the packet is one of jwe)"


def test_describe_lets_no_control_character_through():
    packet = {"kid": "\x1b[31m", "wrapped_data": "", "provider": "aws\n"}
    text = describe_wrapped_key(WrappedKey("provider.x\n", json.dumps(packet).encode()))
    assert text.isprintable() or "\ufffd" in text
    assert not {"\n", "\x1b"} & set(text)
