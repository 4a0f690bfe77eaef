# SPDX-License-Identifier: Apache-2.0
import base64
import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagers.encrypt.image import encrypt_image
from imagers.encrypt.keys import unwrap_layer_keys
from imagers.encrypt.schemes.broker import BrokerKeyWrapper
from imagers.encrypt.schemes.jwe import JWEUnwrapper, JWEWrapper
from imagers.errors import (
    FormatError,
    ImagersError,
    KeyRefused,
    KeyUnavailable,
    NoMatchingKey,
    RemoteError,
    Unsupported,
)
from imagers.model.keys import NotMine, SecretKey

JWE = "org.opencontainers.image.enc.keys.jwe"


class Says:
    """An unwrapper that raises one thing, and counts."""

    description = "a stub"

    def __init__(self, error):
        self.error = error
        self.asked = []

    def unwrap(self, wrapped, context):
        self.asked.append((wrapped.scheme, context))
        raise self.error


@pytest.fixture
def encrypted(plain_image, public_key, new_sink, load_layout):
    """The layers of an image for one RSA key and one key at a broker."""
    sink, path = new_sink("encrypted")
    wrappers = [
        BrokerKeyWrapper(SecretKey(bytes(32)), "kbs:///a/b/c"),
        JWEWrapper([public_key("r2048.pub")]),
    ]
    encrypt_image(plain_image("gzip"), sink, wrappers, layers=[0, 2])
    return list(load_layout(path).layers())


def unwrap(layers, *unwrappers):
    return unwrap_layer_keys(layers, unwrappers, manifest_digest=None)


def test_unwrap_layer_keys_gives_one_entry_a_layer_and_wipes_them_at_the_end(
    encrypted, private_key
):
    with unwrap(encrypted, JWEUnwrapper(private_key("r2048.key"))) as keys:
        assert [key is None for key in keys] == [False, True, False]
        first, _, last = keys
        assert first.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
        assert first.scheme == "jwe"
        assert first.opened_by.endswith("r2048.key'")
        assert (len(first.cipher.key), len(first.cipher.nonce), len(first.hmac)) == (32, 16, 32)
        assert first.cipher.key != last.cipher.key
        assert first.cipher.nonce != last.cipher.nonce
    for key in (first, last):
        with pytest.raises(ValueError, match="closed"), key.cipher.key.view():
            pass


def test_unwrap_layer_keys_of_a_plain_image_asks_nobody(plain_image):
    stub = Says(RemoteError("down"))
    assert unwrap(list(plain_image("gzip").layers()), stub) == [None, None, None]
    assert stub.asked == []


def test_unwrap_layer_keys_asks_for_local_keys_first(encrypted, private_key):
    stub = Says(NotMine("no"))
    unwrap(encrypted, stub, JWEUnwrapper(private_key("r2048.key"))).close()
    assert [scheme for scheme, _ in stub.asked] == ["jwe", "jwe"]


def test_unwrap_layer_keys_goes_on_where_a_key_is_not_to_be_had(encrypted, private_key):
    stub = Says(KeyRefused("refused", reason="policy"))
    unwrap(encrypted, stub, JWEUnwrapper(private_key("r2048.key"))).close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyRefused("refused", reason="policy"), KeyRefused),
        (KeyUnavailable("none"), KeyUnavailable),
        (Unsupported("old"), Unsupported),
    ],
)
def test_unwrap_layer_keys_says_why_a_key_is_not_to_be_had(encrypted, private_key, error, kind):
    with pytest.raises(kind) as caught:
        unwrap(encrypted, JWEUnwrapper(private_key("wrong.key")), Says(error))
    assert caught.value is error


def test_unwrap_layer_keys_stops_where_the_broker_cannot_be_asked(encrypted):
    stub = Says(RemoteError("down"))
    with pytest.raises(RemoteError, match="down"):
        unwrap(encrypted, stub)
    assert len(stub.asked) == 1


def test_unwrap_layer_keys_of_which_none_fits_lists_what_was_tried(encrypted, private_key):
    with pytest.raises(NoMatchingKey, match="layer 1 of 3: none of the given keys") as caught:
        unwrap(encrypted, JWEUnwrapper(private_key("wrong.key")))
    assert len(caught.value.tried) == 2
    assert "wrong.key': jwe: the JWE is for another key" in caught.value.tried[0]
    assert "wrong.key' (key id " in str(caught.value)
    assert caught.value.hint.startswith("it is encrypted for: jwe (RSA-OAEP ")
    assert "provider.attestation-agent (A256GCM kbs:///" in caught.value.hint
    assert "--decryption-key" in caught.value.hint


def encrypted_for(layer, **packets):
    kept = {k: v for k, v in layer.descriptor.annotations.items() if ".enc.keys." not in k}
    added = {
        f"org.opencontainers.image.enc.keys.{scheme}": base64.b64encode(packet).decode()
        for scheme, packet in packets.items()
    }
    object.__setattr__(layer.descriptor, "annotations", kept | added)


@pytest.mark.parametrize(
    ("packets", "error", "told"),
    [
        ({"jwe": b"{"}, FormatError, "keys.jwe', packet 1: the key packet is malformed: JWE: is"),
        ({"jwe": b"{", "pgp": b"x"}, FormatError, "keys.jwe', packet 1: the key packet is malf"),
        ({"rot13": b"x"}, Unsupported, "keys.rot13', packet 1: the key packet is not supported"),
    ],
)
def test_unwrap_layer_keys_of_malformed_packets_says_so(
    encrypted, private_key, packets, error, told
):
    encrypted_for(encrypted[0], **packets)
    with pytest.raises(error) as caught:
        unwrap(encrypted, JWEUnwrapper(private_key("r2048.key")))
    assert type(caught.value) is error
    assert str(caught.value).startswith("layer 1 of 3: annotation 'org.opencontainers.image.enc.")
    assert told in str(caught.value)


def test_unwrap_layer_keys_tells_of_a_malformed_packet_beside_one_for_others(
    encrypted, private_key
):
    whole = base64.b64decode(encrypted[0].descriptor.annotations[JWE])
    encrypted_for(encrypted[0], jwe=whole, pgp=b"x")
    with pytest.raises(NoMatchingKey, match=r"one packet cannot be read: .*keys\.pgp'"):
        unwrap(encrypted, JWEUnwrapper(private_key("wrong.key")))


def test_unwrap_layer_keys_without_any_key_says_so(encrypted):
    with pytest.raises(NoMatchingKey, match="layer 1 of 3: is encrypted, and no key was given"):
        unwrap(encrypted)


def test_unwrap_layer_keys_reads_all_annotations_before_it_asks_for_a_key(encrypted):
    annotations = encrypted[2].descriptor.annotations
    object.__setattr__(encrypted[2].descriptor, "annotations", {**annotations, JWE: "%%%"})
    stub = Says(NotMine("no"))
    with pytest.raises(FormatError, match="layer 3 of 3"):
        unwrap(encrypted, stub)
    assert stub.asked == []


def test_unwrap_layer_keys_wipes_the_first_key_when_the_second_fails(encrypted, private_key):
    annotations = dict(encrypted[2].descriptor.annotations)
    document = json.loads(base64.b64decode(annotations[JWE]))
    document["tag"] = "AAAAAAAAAAAAAAAAAAAAAA"
    annotations[JWE] = base64.b64encode(json.dumps(document).encode()).decode()
    object.__setattr__(encrypted[2].descriptor, "annotations", annotations)
    with pytest.raises(NoMatchingKey, match="layer 3 of 3") as caught:
        unwrap(encrypted, JWEUnwrapper(private_key("r2048.key")))
    frames = []
    traceback = caught.value.__traceback__
    while traceback:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    (keys,) = [f.f_locals["keys"] for f in frames if f.f_code.co_name == "unwrap_layer_keys"]
    assert [key is None for key in keys] == [False, True]
    with pytest.raises(ValueError, match="closed"), keys[0].cipher.key.view():
        pass


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_unwrap_layer_keys_of_randomly_changed_annotations_gives_keys_or_an_error_of_ours(
    encrypted, private_key, data
):
    """Annotations are anybody's to change; what comes of it is one of our errors, never another."""
    layer = encrypted[0]
    annotations = dict(layer.descriptor.annotations)
    name = data.draw(st.sampled_from([name for name in annotations if ".enc." in name]))
    changed = bytearray(base64.b64decode(annotations[name]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    text = base64.b64encode(changed).decode() + data.draw(st.sampled_from(["", ",", ",QQ==", ",Q"]))
    descriptor = replace(layer.descriptor, annotations={**annotations, name: text})
    unwrapper = JWEUnwrapper(private_key("r2048.key"))
    with contextlib.suppress(ImagersError):
        unwrap([replace(layer, descriptor=descriptor)], unwrapper, Says(NotMine("no"))).close()
