# SPDX-License-Identifier: Apache-2.0
"""Checked streams: held to the byte, and no zero before everything was compared."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import DigestMismatch, RemoteError, TrailingData, Truncated
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.stream import CheckedStream, read_all


class Pieces:
    """A raw stream of given pieces; b"" stands for an error of the peer."""

    def __init__(self, *pieces):
        self.pieces = [bytearray(piece) for piece in pieces]
        self.calls = 0
        self.closed = 0

    def readinto(self, buffer):
        self.calls += 1
        if not self.pieces:
            return 0
        piece = self.pieces[0]
        if not piece:
            raise RemoteError("connection was reset", temporary=True)
        count = min(len(buffer), len(piece))
        buffer[:count] = piece[:count]
        del piece[:count]
        if not piece:
            del self.pieces[0]
        return count

    def close(self):
        self.closed += 1


def checked(raw, data, **changes):
    descriptor = Descriptor(
        "a/b", changes.get("digest", digest_of(data)), changes.get("size", len(data))
    )
    return CheckedStream(raw, descriptor, what="layer 3 of 7")


def drain(stream, step=4):
    out = bytearray()
    buffer = memoryview(bytearray(step))
    while count := stream.readinto(buffer):
        out += buffer[:count]
    return bytes(out)


def test_checked_stream_right_bytes_given_and_zero_at_the_end_stays():
    stream = checked(Pieces(b"hello ", b"world"), b"hello world")
    assert drain(stream) == b"hello world"
    assert stream.readinto(memoryview(bytearray(1))) == 0


def test_checked_stream_empty_blob_is_checked_too():
    assert drain(checked(Pieces(), b"")) == b""
    with pytest.raises(DigestMismatch):
        drain(checked(Pieces(), b"", digest=digest_of(b"x")))
    with pytest.raises(TrailingData):
        drain(checked(Pieces(b"x"), b""))


def test_checked_stream_short_raises_truncated_in_place_of_the_end():
    stream = checked(Pieces(b"hell"), b"hello")
    with pytest.raises(
        Truncated, match="layer 3 of 7: ends too early: expected 5 bytes, got 4"
    ) as caught:
        drain(stream)
    assert (caught.value.expected, caught.value.actual) == (5, 4)


def test_checked_stream_long_raises_trailing_data_and_hands_out_no_surplus_byte():
    raw = Pieces(b"hello!")
    stream = checked(raw, b"hello")
    buffer = memoryview(bytearray(64))
    assert stream.readinto(buffer) == 5
    assert bytes(buffer) == b"hello" + bytes(59)
    with pytest.raises(TrailingData, match="expected 5 bytes, got more") as caught:
        stream.readinto(buffer)
    assert caught.value.expected == 5
    assert bytes(buffer[5:]) == bytes(59)


def test_checked_stream_endless_peer_is_asked_for_one_byte_more_only():
    raw = Pieces(b"x" * 1000)
    stream = checked(raw, b"x" * 10)
    with pytest.raises(TrailingData):
        drain(stream, step=1000)
    assert len(raw.pieces[0]) == 1000 - 11


def test_checked_stream_other_bytes_raise_digest_mismatch_with_both():
    stream = checked(Pieces(b"hellO"), b"hello")
    with pytest.raises(DigestMismatch) as caught:
        drain(stream)
    assert caught.value.expected == digest_of(b"hello")
    assert caught.value.actual == digest_of(b"hellO")
    assert caught.value.what == "layer 3 of 7"


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        pytest.param((b"hell",), Truncated, id="short"),
        pytest.param((b"hello!",), TrailingData, id="long"),
        pytest.param((b"Hello",), DigestMismatch, id="other"),
        pytest.param((b"he", b"", b"llo"), RemoteError, id="error of the peer"),
    ],
)
def test_checked_stream_error_is_sticky_and_the_peer_is_not_asked_again(pieces, error):
    raw = Pieces(*pieces)
    stream = checked(raw, b"hello")
    with pytest.raises(error) as first:
        drain(stream)
    calls = raw.calls
    for _ in range(3):
        with pytest.raises(error) as again:
            stream.readinto(memoryview(bytearray(8)))
        assert again.value is first.value
    assert raw.calls == calls


def test_checked_stream_empty_buffer_refused_because_zero_means_verified():
    stream = checked(Pieces(b"Hello"), b"hello")
    with pytest.raises(ValueError, match="empty"):
        stream.readinto(memoryview(b""))
    with pytest.raises(DigestMismatch):
        drain(stream)


def test_checked_stream_raw_that_claims_more_than_its_buffer_is_a_bug():
    class Liar(Pieces):
        def readinto(self, buffer):
            return len(buffer) + 1

    with pytest.raises(RuntimeError, match="filled 6 of 5 bytes"):
        drain(checked(Liar(), b"hello"), step=64)


def test_checked_stream_closes_the_raw_stream_with_it():
    raw = Pieces(b"hello")
    with checked(raw, b"hello"):
        pass
    assert raw.closed == 1


@given(
    data=st.binary(max_size=200),
    seed=st.integers(0, 2**32),
    step=st.integers(1, 64),
    change=st.sampled_from(["none", "short", "long", "flip"]),
)
def test_checked_stream_odd_pieces_pass_only_unchanged(data, seed, step, change):
    chance = random.Random(seed)  # noqa: S311  # repeatable
    sent = bytearray(data)
    if change == "long":
        sent += b"\0"
    elif data and change == "short":
        del sent[chance.randrange(len(sent))]
    elif data and change == "flip":
        sent[chance.randrange(len(sent))] ^= 1 << chance.randrange(8)
    pieces = []
    left = bytes(sent)
    while left:
        cut = chance.randint(1, len(left))
        pieces.append(left[:cut])
        left = left[cut:]
    stream = checked(Pieces(*pieces), data)
    if bytes(sent) == data:
        assert drain(stream, step) == data
    else:
        with pytest.raises((Truncated, TrailingData, DigestMismatch)):
            drain(stream, step)


def test_read_all_gives_verified_bytes():
    data = bytes(range(256)) * 3000
    assert read_all(checked(Pieces(data[:7], data[7:]), data), size=len(data)) == data
    assert read_all(checked(Pieces(), b""), size=0) == b""


@pytest.mark.parametrize(
    ("sent", "error"),
    [(b"hell", Truncated), (b"hello!", TrailingData), (b"hellO", DigestMismatch)],
)
def test_read_all_wrong_bytes_give_nothing(sent, error):
    with pytest.raises(error):
        read_all(checked(Pieces(sent), b"hello"), size=5)


def test_read_all_stream_longer_than_asked_for_raises():
    with pytest.raises(TrailingData):
        read_all(checked(Pieces(b"hello"), b"hello"), size=4)
