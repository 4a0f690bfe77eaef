# SPDX-License-Identifier: Apache-2.0
import base64

import pytest

from imagers.encrypt.annotations import (
    annotation_of,
    annotations_of_the_clear,
    append_packets,
    clear_annotations,
    filter_packets,
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


def test_read_wrapped_keys_asks_local_keys_first_then_the_broker_then_other_providers():
    turns = ["jwe", "pkcs7", "x", "provider.attestation-agent", "provider.a", "provider.z"]
    annotations = {f"{ENC}.keys.{scheme}": "QQ==" for scheme in reversed(turns)}
    found = read_wrapped_keys(layer(annotations), what="layer 1 of 1")
    assert [one.scheme for one in found] == turns


@pytest.mark.parametrize("value", ["", ",", ",,,"])
def test_read_wrapped_keys_of_empty_elements_gives_none(value):
    assert read_wrapped_keys(layer({f"{ENC}.keys.jwe": value}), what="x") == ()


def test_read_wrapped_keys_with_a_trailing_comma_gives_the_one():
    found = read_wrapped_keys(layer({f"{ENC}.keys.jwe": b64(b"a") + ","}), what="x")
    assert found == (WrappedKey("jwe", b"a"),)


@pytest.mark.parametrize(
    ("annotations", "piece"),
    [
        ({f"{ENC}.keys.jwe": "%%%," + b64(b"a")}, "keys.jwe': expected base64"),
        ({f"{ENC}.keys.jwe": b64(b"a") + ",%%%"}, "keys.jwe': expected base64"),
        ({f"{ENC}.keys.jwe": b64(b"a") + ", " + b64(b"b")}, "keys.jwe': expected base64"),
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


def test_read_wrapped_keys_takes_all_up_to_its_bounds():
    longest = bytes(262_144)
    annotations = {f"{ENC}.keys.s{n:02}": "QQ==" for n in range(31)}
    annotations[f"{ENC}.keys.x"] = ",".join([b64(longest)] + ["QQ=="] * 127)
    annotations |= {f"{ENC}.keys.y{n}": "" for n in range(9)}  # which is as if it were not there
    found = read_wrapped_keys(layer(annotations), what="layer 1 of 1")
    assert len(found) == 31 + 128
    assert found[31].packet == longest


@pytest.mark.parametrize(
    ("annotations", "piece", "name"),
    [
        ({f"{ENC}.keys.jwe": "QQ==," * 128}, "at most 128 packets, got 129", "keys.jwe"),
        ({f"{ENC}.keys.jwe": b64(bytes(262_144)) + "A"}, "at most 262144 bytes", "keys.jwe"),
        ({f"{ENC}.keys.pgp": "QQ==,%"}, "expected base64", "keys.pgp"),
        ({f"{ENC}.pubopts": b64(bytes(16_384)) + "A"}, "at most 16384 bytes", "pubopts"),
        ({f"{ENC}.pubopts": "%"}, "expected base64", "pubopts"),
    ],
)
def test_read_annotations_with_a_fault_names_the_annotation(annotations, piece, name):
    right = write_annotations({}, PUBLIC, [])
    with pytest.raises(FormatError) as caught:
        read_annotations(layer(right | annotations), what="layer 2 of 3")
    assert piece in str(caught.value)
    assert (caught.value.what, caught.value.where) == ("layer 2 of 3", f"annotation '{ENC}.{name}'")


def test_read_annotations_public_options_up_to_their_bound_are_decoded():
    text = b64(b"{" + bytes(16_383))
    with pytest.raises(FormatError, match="not JSON"):
        read_annotations(layer({f"{ENC}.pubopts": text}), what="layer 1 of 1")


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


def test_append_packets_come_after_those_that_are_there():
    before = {"org.example": "y", f"{ENC}.keys.jwe": b64(b"one"), f"{ENC}.keys.pgp": ""}
    added = [WrappedKey("jwe", b"two"), WrappedKey("pgp", b"p"), WrappedKey("pkcs7", b"c")]
    assert append_packets(before, added) == {
        "org.example": "y",
        f"{ENC}.keys.jwe": f"{b64(b'one')},{b64(b'two')}",
        f"{ENC}.keys.pgp": b64(b"p"),
        f"{ENC}.keys.pkcs7": b64(b"c"),
    }
    assert before[f"{ENC}.keys.pgp"] == ""


def test_filter_packets_changes_what_it_is_told_and_leaves_the_rest_as_it_stands():
    before = {
        "org.example": "y",
        f"{ENC}.pubopts": "stays",
        f"{ENC}.keys.jwe": f"{b64(b'a')},,{b64(b'b')},{b64(b'c')},",
        f"{ENC}.keys.pgp": b64(b"d"),
        f"{ENC}.keys.pkcs7": ",",
    }
    seen = []

    def change(wrapped, number):
        seen.append((wrapped.scheme, wrapped.packet, number))
        return {b"a": b"a", b"b": b"new", b"c": None, b"d": None}[wrapped.packet]

    after = filter_packets(before, change, what="layer 1 of 1")
    assert seen == [("jwe", b"a", 1), ("jwe", b"b", 2), ("jwe", b"c", 3), ("pgp", b"d", 1)]
    assert after == {
        "org.example": "y",
        f"{ENC}.pubopts": "stays",
        f"{ENC}.keys.jwe": f"{b64(b'a')},,{b64(b'new')},",
    }
    assert before[f"{ENC}.keys.pgp"] == b64(b"d")


@pytest.mark.parametrize("value", ["%", "A" * 400_000], ids=["no base64", "too long"])
def test_filter_packets_with_a_fault_names_the_annotation(value):
    with pytest.raises(FormatError) as caught:
        filter_packets({f"{ENC}.keys.jwe": value}, lambda *_: None, what="layer 1 of 1")
    assert caught.value.where == f"annotation '{ENC}.keys.jwe'"
    assert caught.value.what == "layer 1 of 1"


OF_THE_CLEAR = [
    "io.github.containers.zstd-chunked.manifest-checksum",
    "io.github.containers.zstd-chunked.manifest-position",
    "io.github.containers.zstd-chunked.tarsplit-position",
    "containerd.io/snapshot/stargz/toc.digest",
    "io.containers.estargz.uncompressed-size",
    "containerd.io/snapshot/nydus-blob",
    "containerd.io/snapshot/nydus-bootstrap",
    "containerd.io/snapshot/overlaybd/blob-digest",
    "containerd.io/uncompressed",
]


@pytest.mark.parametrize("name", OF_THE_CLEAR)
def test_write_annotations_leaves_out_what_speaks_of_the_layer_in_the_clear(name):
    before = {"org.example.keep": "yes", name: "sha256:…", "io.github.containers": "keep"}
    assert annotations_of_the_clear(before) == (name,)
    written = write_annotations(before, PUBLIC, [])
    assert set(written) == {"org.example.keep", "io.github.containers", f"{ENC}.pubopts"}


def test_annotation_of_a_scheme_is_named_quoted_and_bounded():
    assert annotation_of("jwe") == "'org.opencontainers.image.enc.keys.jwe'"
    assert annotation_of("x\n" * 200) == repr(
        ("org.opencontainers.image.enc.keys." + "x\n" * 200)[:160]
    )
