# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from imagers.errors import DigestMismatch, LocalError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.registry.spool import Reread, SpoolFile


def test_spool_file_has_no_name_and_is_private(tmp_path):
    file = SpoolFile(tmp_path)
    os.write(file.fileno(), b"data")
    assert file.size == 4
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
    file.close()
    file.close()


def test_spool_file_default_is_not_in_memory():
    file = SpoolFile()
    expected = os.stat("/var/tmp").st_dev if os.access("/var/tmp", os.W_OK) else None
    assert expected in (None, os.fstat(file.fileno()).st_dev)
    file.close()


def test_spool_file_in_a_missing_directory_is_a_local_error(tmp_path):
    with pytest.raises(LocalError, match="no spool file") as caught:
        SpoolFile(tmp_path / "none")
    assert caught.value.path == str(tmp_path / "none")
    assert "room" in caught.value.hint


def test_spool_file_takes_pieces(tmp_path):
    file = SpoolFile(tmp_path)
    file.write(memoryview(one) for one in (b"first", b"", b"second"))
    assert os.pread(file.fileno(), 100, 0) == b"firstsecond"
    file.close()


def test_spool_file_that_cannot_be_written_is_a_local_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    file = SpoolFile(tmp_path)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LocalError, match="no space left") as caught:
        file.write([memoryview(b"data")])
    assert caught.value.path == str(tmp_path)
    file.close()


class Bytes:
    def __init__(self, data):
        self.left = data
        self.closed = False

    def readinto(self, buffer):
        piece, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self):
        self.closed = True


def test_reread_is_complete_when_all_was_given_and_checked():
    opened = []

    def open_raw():
        opened.append(Bytes(b"data"))
        return opened[-1]

    blob = Reread(Descriptor("a/b", digest_of(b"data"), 4), open_raw, what="layer")
    assert not blob.complete
    for _ in range(2):
        pieces = blob.pieces()
        assert bytes(next(pieces)) == b"data"
        assert not blob.complete  # nobody has said that it arrived
        assert list(pieces) == []
        assert blob.complete
    assert [one.closed for one in opened] == [True, True]


def test_reread_of_other_bytes_is_never_complete():
    raw = Bytes(b"other")
    blob = Reread(Descriptor("a/b", digest_of(b"data"), 5), lambda: raw, what="layer 3")
    with pytest.raises(DigestMismatch, match="layer 3"):
        list(blob.pieces())
    assert (blob.complete, raw.closed) == (False, True)
