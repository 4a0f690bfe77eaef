# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.encrypt.schemes.pgp_packets import split_session_keys
from imagers.errors import FormatError

VECTORS = Path(__file__).resolve().parents[3] / "vectors" / "ocicrypt"


def vector_packet(name):
    """The first packet of an image that skopeo encrypted."""
    layout = VECTORS / "encrypted" / name / "image"
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads((layout / "blobs" / "sha256" / digest).read_text())
    value = manifest["layers"][0]["annotations"]["org.opencontainers.image.enc.keys.pgp"]
    return b64decode(value.split(",")[0])


def test_split_of_skopeos_message_gives_a_key_id_a_recipient_and_the_rest():
    packet = vector_packet("pgp-by-name-two-B")
    keys, rest = split_session_keys(packet)
    assert len({one.key_id for one in keys}) == 2
    assert b"".join(one.raw for one in keys) + rest == packet
    assert rest[0] in (0xD2, 0xC9 + 9)  # tag 18 in the new form


def session_key(form, body=b"\x03" + b"12345678" + b"\x01rest"):
    length = len(body)
    return {
        "old, 1 byte": bytes((0x84, length)) + body,
        "old, 2 bytes": b"\x85" + length.to_bytes(2) + body,
        "old, 4 bytes": b"\x86" + length.to_bytes(4) + body,
        "new, 1 byte": bytes((0xC1, length)) + body,
        "new, 5 bytes": b"\xc1\xff" + length.to_bytes(4) + body,
    }[form]


@pytest.mark.parametrize(
    "form", ["old, 1 byte", "old, 2 bytes", "old, 4 bytes", "new, 1 byte", "new, 5 bytes"]
)
def test_split_reads_each_form_of_a_length(form):
    keys, rest = split_session_keys(session_key(form) * 2 + b"\xd2\xe1partial")
    assert [one.key_id for one in keys] == [b"12345678"] * 2
    assert rest == b"\xd2\xe1partial"


def test_split_reads_a_length_of_two_bytes_in_the_new_form():
    body = b"\x03" + b"12345678" + bytes(300)
    length = len(body) - 192
    packet = b"\xc1" + bytes((192 + (length >> 8), length & 0xFF)) + body
    assert split_session_keys(packet)[0][0].raw == packet


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"", "session keys at its start"),
        (b"\xd2\x01x", "session keys at its start"),
        (b"text", "is not binary OpenPGP"),
        (b"\x84\x20short", "ends inside a packet"),
        (b"\xc1", "ends inside a packet"),
        (b"\x84\x01\x03", "expected session keys of version 3"),
        (session_key("old, 1 byte", b"\x06" + bytes(20)), "expected session keys of version 3"),
        (session_key("old, 1 byte") * 301, "at most 300 recipients"),
    ],
)
def test_split_of_other_bytes_raises(packet, message):
    with pytest.raises(FormatError, match=message):
        split_session_keys(packet)


@given(st.binary(max_size=60))
def test_split_of_any_bytes_gives_its_parts_or_a_format_error(data):
    with contextlib.suppress(FormatError):
        keys, rest = split_session_keys(data)
        assert b"".join(one.raw for one in keys) + rest == data
