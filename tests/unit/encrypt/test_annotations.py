import base64

import pytest

from imagers.encrypt.annotations import (
    clear_annotations,
    read_annotations,
    read_wrapped_keys,
    write_annotations,
)
from imagers.encrypt.options import AES_256_CTR_HMAC_SHA256, PublicOptions
from imagers.errors import FormatError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.keys import WrappedKey

ENC = "org.opencontainers.image.enc"
PUBLIC = PublicOptions(AES_256_CTR_HMAC_SHA256, bytes(32))


def b64(data):
    return base64.b64encode(data).decode()


def layer(annotations):
    return Descriptor("application/x+encrypted", digest_of(b""), 0, annotations)


def test_write_annotations_joins_packets_of_one_scheme_and_keeps_others():
    written = write_annotations(
        {"org.example.keep": "yes", f"{ENC}.keys.pgp": "stale", f"{ENC}.pubopts": "stale"},
        PUBLIC,
        [WrappedKey("jwe", b"one"), WrappedKey("provider.x", b"p"), WrappedKey("jwe", b"two")],
    )
    assert set(written) == {
        "org.example.keep",
        f"{ENC}.pubopts",
        f"{ENC}.keys.jwe",
        f"{ENC}.keys.provider.x",
    }
    assert written[f"{ENC}.keys.jwe"] == f"{b64(b'one')},{b64(b'two')}"


def test_read_annotations_gives_back_what_was_written_with_the_network_last():
    wrapped = [
        WrappedKey("provider.other", b"3"),
        WrappedKey("provider.attestation-agent", b"2"),
        WrappedKey("jwe", b"1"),
    ]
    info = read_annotations(layer(write_annotations({}, PUBLIC, wrapped)), what="layer 1 of 1")
    assert info.public == PUBLIC
    assert info.wrapped == tuple(reversed(wrapped))


@pytest.mark.parametrize("value", ["", ",", ",,,"])
def test_read_wrapped_keys_of_empty_elements_gives_none(value):
    assert read_wrapped_keys(layer({f"{ENC}.keys.jwe": value}), what="x") == ()


def test_read_wrapped_keys_with_a_trailing_comma_gives_the_one():
    found = read_wrapped_keys(layer({f"{ENC}.keys.jwe": b64(b"a") + ","}), what="x")
    assert found == (WrappedKey("jwe", b"a"),)


@pytest.mark.parametrize(
    ("annotations", "piece"),
    [
        ({f"{ENC}.keys.jwe": "%%%," + b64(b"a")}, "keys.jwe': is not standard"),
        ({f"{ENC}.keys.jwe": b64(b"a") + ",%%%"}, "keys.jwe': is not standard"),
        ({f"{ENC}.keys.jwe": b64(b"a") + ", " + b64(b"b")}, "keys.jwe': is not standard"),
        ({f"{ENC}.keys.jwe": "," * 200}, "at most 128 packets, got 201"),
        ({f"{ENC}.keys.jwe": "A" * 400_000}, "at most 262144 bytes"),
        ({f"{ENC}.keys.s{n}": "QQ==" for n in range(33)}, "at most 32 schemes"),
    ],
)
def test_read_wrapped_keys_with_a_fault_raises(annotations, piece):
    with pytest.raises(FormatError, match="layer 2 of 3") as caught:
        read_wrapped_keys(layer(annotations), what="layer 2 of 3")
    assert piece in str(caught.value)
    assert len(str(caught.value)) < 300


def test_read_wrapped_keys_lets_no_control_character_into_its_message():
    with pytest.raises(FormatError) as caught:
        read_wrapped_keys(layer({f"{ENC}.keys.\x1b[31m\n": "%"}), what="layer 1 of 1")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("annotations", [{}, {f"{ENC}.pubopts": ""}])
def test_read_annotations_without_public_options_raises_and_names_the_annotation(annotations):
    with pytest.raises(FormatError, match="missing or empty") as caught:
        read_annotations(layer(annotations), what="layer 1 of 1")
    assert caught.value.where == f"annotation '{ENC}.pubopts'"


def test_clear_annotations_removes_all_that_begins_with_the_prefix_and_nothing_else():
    kept = {"org.opencontainers.image.title": "x", "org.example": "y"}
    assert (
        clear_annotations({**kept, f"{ENC}.pubopts": "", f"{ENC}ode": "", f"{ENC}.keys.x": ""})
        == kept
    )
