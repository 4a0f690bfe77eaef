# SPDX-License-Identifier: Apache-2.0
"""Pieces with a hash beside them: the last one only after everything was compared."""

import random
import threading
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import DigestMismatch, RemoteError, TrailingData, Truncated
from imagers.model import pieces
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.pieces import checked_pieces


class Cut:
    """A raw stream of bytes, cut as a seed says; an error of the peer after `fails_after`."""

    def __init__(self, data, *, seed=0, longest=7, fails_after=None):
        self.left = memoryview(data)
        self.given = 0
        self._random = random.Random(seed)  # noqa: S311  # no secret
        self._longest = longest
        self._fails_after = fails_after

    def readinto(self, buffer):
        if self._fails_after is not None and self.given >= self._fails_after:
            raise RemoteError("connection was reset", temporary=True)
        count = min(len(buffer), len(self.left), self._random.randint(1, self._longest))
        buffer[:count] = self.left[:count]
        self.left = self.left[count:]
        self.given += count
        return count

    def close(self):
        pass


@pytest.fixture(autouse=True, scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_PIECE", 16)
        yield


def described(data, **changes):
    return Descriptor("a/b", changes.get("digest", digest_of(data)), changes.get("size", len(data)))


def drain(raw, descriptor):
    """What was given, and the error that ended it or None."""
    out = bytearray()
    try:
        with closing(checked_pieces(raw, descriptor, what="layer 3 of 7")) as found:
            for piece in found:
                out += piece
    except Exception as error:  # noqa: BLE001  # told to the test
        return bytes(out), error
    return bytes(out), None


def hashing_threads():
    return [one for one in threading.enumerate() if one.name == "hash"]


@given(st.binary(max_size=200), st.integers(0, 1000), st.integers(1, 40))
def test_checked_pieces_right_bytes_come_however_they_are_cut(data, seed, longest):
    assert drain(Cut(data, seed=seed, longest=longest), described(data)) == (data, None)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 47, 48, 49, 160])
def test_checked_pieces_are_whole_but_the_last(size):
    data = bytes(range(size))
    found = [bytes(one) for one in checked_pieces(Cut(data), described(data), what="x")]
    assert found == [data[at : at + 16] for at in range(0, size, 16)]


def test_checked_pieces_sha512_is_compared():
    data = bytes(100)
    assert drain(Cut(data), described(data, digest=digest_of(data, "sha512"))) == (data, None)
    wrong = digest_of(b"other", "sha512")
    assert isinstance(drain(Cut(data), described(data, digest=wrong))[1], DigestMismatch)


@pytest.mark.parametrize("size", [0, 1, 16, 17, 100])
def test_checked_pieces_other_bytes_raise_before_the_last_piece(size):
    data = bytes(size)
    out, error = drain(Cut(data), described(data, digest=digest_of(b"other")))
    assert isinstance(error, DigestMismatch)
    assert (error.expected, error.actual) == (digest_of(b"other"), digest_of(data))
    assert "layer 3 of 7" in str(error)
    assert out == data[: max(size - 1, 0) // 16 * 16]


@pytest.mark.parametrize("size", [0, 1, 16, 17, 100])
def test_checked_pieces_one_byte_more_raises_before_the_last_piece(size):
    data = bytes(size)
    raw = Cut(data + b"xyz")
    out, error = drain(raw, described(data))
    assert isinstance(error, TrailingData)
    assert len(out) < size or size == 0
    assert raw.given == size + 1  # no more was read than shows it


@pytest.mark.parametrize("size", [0, 1, 16, 17, 99])
def test_checked_pieces_too_few_bytes_raise(size):
    error = drain(Cut(bytes(size)), described(bytes(100)))[1]
    assert isinstance(error, Truncated)
    assert (error.expected, error.actual) == (100, size)


@pytest.mark.parametrize("after", [0, 5, 50, 100])
def test_checked_pieces_an_error_of_the_stream_passes_and_ends_the_thread(after):
    error = drain(Cut(bytes(100), fails_after=after), described(bytes(100)))[1]
    assert isinstance(error, RemoteError)
    assert hashing_threads() == []


def test_checked_pieces_left_in_the_middle_end_the_thread():
    with closing(checked_pieces(Cut(bytes(100)), described(bytes(100)), what="x")) as found:
        next(found)
        assert len(hashing_threads()) == 1
    assert hashing_threads() == []


def test_checked_pieces_of_a_small_blob_need_no_thread():
    with closing(checked_pieces(Cut(bytes(16)), described(bytes(16)), what="x")) as found:
        next(found)
        assert hashing_threads() == []


def test_checked_pieces_cannot_be_written_to():
    for piece in checked_pieces(Cut(bytes(20)), described(bytes(20)), what="x"):
        assert piece.readonly


def test_checked_pieces_a_stream_that_says_more_than_it_was_asked_for_is_a_bug():
    class Liar(Cut):
        def readinto(self, buffer):
            return len(buffer) + 1

    error = drain(Liar(b""), described(bytes(5)))[1]
    assert isinstance(error, RuntimeError)


def test_checked_pieces_a_hash_that_fails_is_raised(monkeypatch):
    class Broken:
        def update(self, _):
            raise MemoryError

    monkeypatch.setattr(pieces, "new_hasher", lambda _: Broken())
    assert isinstance(drain(Cut(bytes(100)), described(bytes(100)))[1], MemoryError)
    assert hashing_threads() == []
