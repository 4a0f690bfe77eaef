# SPDX-License-Identifier: Apache-2.0
import getpass

import pytest

from imagers.cli import passphrases
from imagers.cli.passphrases import (
    ask_passphrase,
    new_passphrase,
    open_with_passphrase,
    read_passphrase,
)
from imagers.errors import KeyUnavailable, LocalError, UsageError
from imagers.model.keys import SecretKey


def secret(path):
    with read_passphrase(path) as passphrase, passphrase.view() as data:
        return bytes(data)


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


@pytest.fixture
def terminal(home, monkeypatch):
    """A function: what is typed on a terminal; gives the list of what was asked."""
    assert home.is_dir()
    monkeypatch.delenv("COSIGN_PASSWORD", raising=False)
    asked = []

    def types(*lines):
        left = list(lines)

        def getpass_(prompt):
            asked.append(prompt)
            if not left:
                raise EOFError
            return left.pop(0)

        monkeypatch.setattr(passphrases.sys, "stdin", type("T", (), {"isatty": lambda _: True})())
        monkeypatch.setattr(getpass, "getpass", getpass_)
        return asked

    return types


def opens(right, tried):
    """A key that opens with one passphrase."""

    def load(passphrase):
        with passphrase.view() as data:
            tried.append(bytes(data))
        if tried[-1] != right:
            raise KeyUnavailable("does not open")
        return "the key"

    return load


def opened(right, path=None, *, has_variable=True):
    tried = []
    try:
        load = opens(right, tried)
        key = open_with_passphrase(load, path, what="--key 'k'", has_variable=has_variable)
    except KeyUnavailable as error:
        return tried, str(error), error.hint
    return tried, key, None


def test_passphrase_of_a_key_without_one_is_not_asked_for(terminal):
    asked = terminal("typed")
    assert opened(b"") == ([b""], "the key", None)
    assert asked == []


def test_passphrase_that_was_not_given_is_asked_for(terminal):
    asked = terminal("typed")
    assert opened(b"typed") == ([b"", b"typed"], "the key", None)
    assert asked == ["passphrase of --key 'k': "]
    terminal("wrong")
    assert opened(b"typed")[1] == "--key 'k': the passphrase that was typed does not open it"


def test_passphrase_order_is_file_then_variable_then_terminal(terminal, tmp_path, monkeypatch):
    asked = terminal("typed")
    (tmp_path / "pw").write_text("in the file\n")
    monkeypatch.setenv("COSIGN_PASSWORD", "in the variable")
    path = str(tmp_path / "pw")
    assert opened(b"in the file", path)[1] == "the key"
    assert opened(b"in the variable")[1] == "the key"
    tried, told, _ = opened(b"other", path)
    assert (tried, told) == (
        [b"in the file"],
        f"--key 'k': the passphrase of --passphrase-file {path} does not open it",
    )
    assert opened(b"x")[1] == "--key 'k': the passphrase of COSIGN_PASSWORD does not open it"
    assert asked == []
    # It is of cosign's keys; and an empty one is one.
    assert opened(b"typed", has_variable=False)[0] == [b"", b"typed"]
    monkeypatch.setenv("COSIGN_PASSWORD", "")
    assert opened(b"typed")[0] == [b""]


def test_passphrase_that_nobody_can_type_is_an_error_that_says_how(home, monkeypatch):
    assert home.is_dir()
    monkeypatch.delenv("COSIGN_PASSWORD", raising=False)
    tried, told, hint = opened(b"x")
    assert (tried, told) == ([b""], "--key 'k': the key has a passphrase, and none was given")
    assert "--passphrase-file or in COSIGN_PASSWORD" in hint
    assert "COSIGN" not in opened(b"x", has_variable=False)[2]


def test_new_passphrase_is_typed_twice(terminal, capsys):
    terminal("horse", "horse")
    assert new_passphrase(None) == SecretKey(b"horse")
    assert capsys.readouterr().err == ""
    terminal("horse", "hrose")
    with pytest.raises(UsageError, match="two different ways"):
        new_passphrase(None)
    terminal()
    with pytest.raises(UsageError, match="no passphrase could be read"):
        new_passphrase(None)


def test_new_passphrase_that_is_empty_is_said_aloud(terminal, capsys, monkeypatch):
    terminal("", "")
    assert len(new_passphrase(None)) == 0
    assert "warning: the passphrase is empty" in capsys.readouterr().err
    monkeypatch.setenv("COSIGN_PASSWORD", "")
    assert len(new_passphrase(None)) == 0
    assert "warning: the passphrase is empty" in capsys.readouterr().err
    monkeypatch.setenv("COSIGN_PASSWORD", "horse")
    assert new_passphrase(None) == SecretKey(b"horse")


def test_terminal_that_would_show_the_passphrase_is_not_used(terminal, monkeypatch):
    terminal()

    def shows(_):
        passphrases.warnings.warn("echo", getpass.GetPassWarning, stacklevel=1)
        return "seen by all"

    monkeypatch.setattr(getpass, "getpass", shows)
    with pytest.raises(UsageError, match="no passphrase could be read"):
        ask_passphrase("x")
