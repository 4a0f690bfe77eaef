import os

import pytest

from imagers.errors import LocalError
from imagers.registry.spool import SpoolFile


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
