import json

from imagers.encrypt.describe import describe_wrapped_key
from imagers.encrypt.jwe import JWEWrapper
from imagers.encrypt.packets import BrokerKeyWrapper
from imagers.model.keys import SecretKey, WrapContext, WrappedKey

CONTEXT = WrapContext("layer 1 of 1")
SECRET = SecretKey(b"private options")


def test_describe_jwe_names_algorithms_and_key_ids(public_key):
    keys = [public_key(name) for name in ("r2048.pub", "ec256.pub", "jwkrsa.jwk")]
    packet = JWEWrapper(keys).wrap(SECRET, CONTEXT)
    assert describe_wrapped_key(WrappedKey("jwe", packet)) == (
        "jwe (RSA-OAEP, ECDH-ES+A256KW, jwkrsa)"
    )


def test_describe_jwe_for_many_is_bounded(public_key):
    packet = JWEWrapper([public_key("ec256.pub")] * 6).wrap(SECRET, CONTEXT)
    assert describe_wrapped_key(WrappedKey("jwe", packet)).endswith("ECDH-ES+A256KW and 2 more)")


def test_describe_packet_names_the_key():
    packet = BrokerKeyWrapper(SecretKey(bytes(32)), "kbs:///a/b/c").wrap(SECRET, CONTEXT)
    scheme = "provider.attestation-agent"
    assert describe_wrapped_key(WrappedKey(scheme, packet)) == f"{scheme} kbs:///a/b/c (A256GCM)"


def test_describe_of_what_cannot_be_read_is_the_scheme():
    for scheme in ("jwe", "pgp", "provider.x"):
        assert describe_wrapped_key(WrappedKey(scheme, b"\xff")) == scheme


def test_describe_lets_no_control_character_through():
    packet = {"kid": "\x1b[31m", "wrapped_data": "", "provider": "aws\n"}
    text = describe_wrapped_key(WrappedKey("provider.x\n", json.dumps(packet).encode()))
    assert text.isprintable() or "\ufffd" in text
    assert not {"\n", "\x1b"} & set(text)
