import pytest

from imagers.cli.passphrases import read_passphrase
from imagers.errors import LocalError, UsageError


def secret(path):
    with read_passphrase(path) as passphrase, passphrase.view() as data:
        return bytes(data)


def test_read_passphrase_without_a_file_is_empty():
    assert secret(None) == b""


@pytest.mark.parametrize(
    ("content", "expected"), [(b"horse", b"horse"), (b"horse\n", b"horse"), (b"h \r\n", b"h ")]
)
def test_read_passphrase_leaves_one_line_end_away(tmp_path, content, expected):
    (tmp_path / "file").write_bytes(content)
    assert secret(str(tmp_path / "file")) == expected


def test_read_passphrase_empty_file_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"\n")
    with pytest.raises(UsageError, match="is empty"):
        read_passphrase(str(tmp_path / "file"))


def test_read_passphrase_missing_file_refused(tmp_path):
    with pytest.raises(LocalError, match="no such file"):
        read_passphrase(str(tmp_path / "nowhere"))
