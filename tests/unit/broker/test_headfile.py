# SPDX-License-Identifier: Apache-2.0
import json
import stat

import pytest

from imagers.broker.headfile import HeadFile
from imagers.broker.keeping.head import Seen
from imagers.broker.sealing import Sealer
from imagers.errors import FormatError, LocalError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "head"


@pytest.fixture
def file(path):
    return HeadFile(path, Sealer([bytearray(32)]))


def test_number_is_there_for_its_owner_only_and_is_replaced_whole(file, path):
    assert file.read() is None
    for number in (7, 8):
        file.write(Seen(number))
        assert file.read() == Seen(number)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["head"]


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"number": 6}, LocalError, "was not written by a broker of this store"),
        ({"mac": "00" * 32}, LocalError, "was not written by a broker of this store"),
        ({"mac": "\u00e9"}, LocalError, "was not written by a broker of this store"),
        ({"key": "00" * 8}, LocalError, "sealed with the master key 0000000000000000"),
        ({"number": -1}, FormatError, "number"),
        ({"lasting": []}, LocalError, "was not written by a broker of this store"),
        ({"lasting": None}, LocalError, "was not written by a broker of this store"),
        ({"more": 1}, FormatError, "more"),
    ],
)
def test_file_that_no_broker_wrote_is_refused(file, path, change, error, told):
    file.write(Seen(7, (("images", "a", 1),)))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=told):
        file.read()


def test_file_of_another_master_key_is_refused(file, path):
    file.write(Seen(7))
    with pytest.raises(LocalError, match="sealed with the master key"):
        HeadFile(path, Sealer([bytearray(b"x" * 32)])).read()


def test_file_that_others_may_read_or_that_is_a_link_is_refused(file, path, tmp_path):
    file.write(Seen(7))
    path.chmod(0o644)
    with pytest.raises(LocalError, match="expected mode 0600"):
        file.read()
    path.rename(tmp_path / "other")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(LocalError, match="symbolic link"):
        file.read()


def test_file_that_cannot_be_written_stays_as_it_was(file, path, monkeypatch):
    file.write(Seen(7))

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(LocalError, match="no space"):
            file.write(Seen(8))
    assert file.read() == Seen(7)
    assert [one.name for one in path.parent.iterdir()] == ["head"]


def test_rows_that_stay_for_ever_are_kept_with_those_before(file, path):
    file.write(Seen(7, (("images", "a", 1),)))
    file.write(Seen(8, (("images", "b", 2), ("images", "a", 1))))
    file.write(Seen(9))
    again = HeadFile(path, Sealer([bytearray(32)]))
    assert again.read() == Seen(9, (("images", "a", 1), ("images", "b", 2)))
    again.write(Seen(10, (("images", "c", 3),)))
    assert len(file.read().lasting) == 3
