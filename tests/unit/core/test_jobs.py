# SPDX-License-Identifier: Apache-2.0
"""Arguments on their way to an implementation."""

import gzip
import io
import os
import socket

import pytest

from imagers.core import DirectorySink, Limits, Ownership
from imagers.core.jobs import check_cipher, check_descriptors, check_limits, source_of


class Stream:
    def __init__(self, file):
        self._file = file

    def fileno(self):
        return self._file.fileno()

    def readinto(self, buffer):
        return self._file.readinto(buffer)

    def close(self):
        self._file.close()


def test_source_that_is_a_descriptor_stays():
    assert source_of(5) == 5


def test_source_over_a_regular_file_is_its_descriptor(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    with (tmp_path / "f").open("rb", buffering=0) as file:
        assert source_of(Stream(file)) == file.fileno()
        assert source_of(file) == file.fileno()


def test_source_that_has_read_ahead_stays_a_stream(tmp_path):
    with gzip.open(tmp_path / "f", "wb") as file:
        file.write(b"x")
    with (tmp_path / "f").open("rb") as file:
        assert source_of(file) is file
    with gzip.open(tmp_path / "f") as file:
        assert source_of(file) is file


def test_source_over_something_else_stays_a_stream():
    """The socket of an HTTP answer has more in it than the answer's body."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(ours)
        assert source_of(stream) is stream
    closed = Stream(io.BytesIO(b""))
    assert source_of(closed) is closed
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as file, os.fdopen(write, "wb"):
        assert source_of(Stream(file)) is not None


def test_cipher_none_needs_no_hmac():
    check_cipher(None, None, what="layer")
    with pytest.raises(ValueError, match="without a cipher"):
        check_cipher(None, bytes(32), what="layer")


@pytest.mark.parametrize(
    "changes",
    [
        {"max_name_bytes": 0},
        {"max_name_bytes": 4096},
        {"max_ratio": -1},
        {"max_tar_bytes": 1 << 62},
        {"free_tar_bytes": -1},
        {"max_entries": 1 << 32},
    ],
    ids=str,
)
def test_limits_that_make_no_sense_are_the_callers_bug(changes):
    check_limits(Limits())
    with pytest.raises(ValueError, match="must be"):
        check_limits(Limits(**changes))


def test_descriptor_below_zero_is_the_callers_bug():
    """To the C half -1 means "none": a sink that is not open must not become "check only"."""
    check_descriptors(0, None, 5, object(), DirectorySink(3, Ownership.MINE))
    for one in (-1, DirectorySink(-1, Ownership.KEEP)):
        with pytest.raises(ValueError, match="descriptor -1 is not open"):
            check_descriptors(0, one)
