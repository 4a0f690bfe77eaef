# SPDX-License-Identifier: Apache-2.0
import io
import os
import sys

import click
import pytest

from imagers.cli.output import (
    ProgressBar,
    human_bytes,
    print_bytes,
    print_json,
    print_line,
    print_table,
    say,
    write_file,
)
from imagers.core import BlobProgress
from imagers.errors import LocalError, UsageError

MIB = 1024**2


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("error", "imagers: error: text\n"),
        ("", "imagers: text\n"),
        ("hint", "imagers: hint: text\n"),
    ],
)
def test_say_writes_one_line_to_stderr(capsys, kind, line):
    say(kind, "text")
    assert capsys.readouterr() == ("", line)


def test_say_makes_text_of_strangers_harmless(capsys):
    say("error", "a\nimagers: trusted\x1b[2J\u202e")
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_print_json_is_one_document_in_any_language(capsys):
    print_json({"name": "größe"})
    assert capsys.readouterr().out == '{\n  "name": "größe"\n}\n'


def test_print_json_keeps_control_characters_from_the_terminal(capsys):
    print_json({"name": "a\x1b[2J\u202eb\x9b"})
    text = capsys.readouterr().out
    assert "\\u001b" in text
    assert not {"\x1b", "\u202e", "\x9b"} & set(text)


def test_print_line_makes_text_of_strangers_harmless(capsys):
    print_line("größe a\nb\x1b[1m\u202e")
    assert capsys.readouterr().out == "größe a\ufffdb\ufffd[1m\ufffd\n"


def test_print_table_sets_numbers_right_and_words_left(capsys):
    print_table(["no", "name"], [["1", "a"], ["10", "bc"]])
    assert capsys.readouterr().out == "no  name\n 1  a\n10  bc\n"


def test_print_table_without_rows_has_its_head(capsys):
    print_table(["no", "name"], [])
    assert capsys.readouterr().out == "no  name\n"


def test_print_table_makes_cells_of_strangers_harmless(capsys):
    print_table(["name"], [["a\nb\x1b[1m"]])
    assert capsys.readouterr().out == "name\na\ufffdb\ufffd[1m\n"


@pytest.mark.parametrize(
    "data", [b'{"a": "\xc3\xa4"}\n\t', b"\xff\x00\x1b[2J", "\u202e\u009b".encode()]
)
def test_print_bytes_gives_a_pipe_what_they_are(capfdbinary, data):
    print_bytes(data)
    assert capfdbinary.readouterr().out == data


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x1b[2J", b"a\rb", b"\x00", "\u202e".encode(), "\u009b2J".encode()]
)
def test_print_bytes_gives_a_terminal_nothing_that_moves_it(capfdbinary, monkeypatch, data):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_bytes(b'{"a": "b"}\n\t')
    assert capfdbinary.readouterr().out == b'{"a": "b"}\n\t'
    with pytest.raises(UsageError, match=f"got {len(data)} bytes with other") as caught:
        print_bytes(data)
    assert "> FILE" in caught.value.hint
    assert capfdbinary.readouterr().out == b""


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2048 * 1024**3, "2048.0 GiB"),
    ],
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text


class Terminal(io.StringIO):
    """A terminal without a size."""

    def isatty(self):
        return True


@pytest.fixture
def open_terminal(monkeypatch):
    """A function: what is standard error then."""

    def open_terminal():
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    return open_terminal


def test_progress_is_a_line_for_the_beginning_and_the_end_of_a_blob_in_a_log(capsys):
    with ProgressBar("encrypt") as bar:
        bar.step("looks for signatures")
        bar.add(120 * MIB)
        for done in (0, 0, MIB, 60 * MIB):
            bar.show(BlobProgress("layer 2 of 7", 120 * MIB, done))
        bar.show(BlobProgress("layer 2 of 7", 120 * MIB, 120 * MIB, 3.14))
    assert capsys.readouterr() == (
        "",
        "imagers: layer 2 of 7: 120.0 MiB\nimagers: layer 2 of 7: done in 3.1 s\n",
    )


def test_small_blobs_and_those_that_were_not_moved_are_not_in_a_log(capsys):
    with ProgressBar("copy") as bar:
        bar.show(BlobProgress("config", MIB - 1, 0))
        bar.show(BlobProgress("config", MIB - 1, MIB - 1, 0.1))
        bar.show(BlobProgress("layer 1 of 1", MIB, MIB, 0.1))
    assert capsys.readouterr() == ("", "")


def test_progress_says_nothing_after_its_end(capsys):
    with ProgressBar("copy") as bar:
        pass
    bar.show(BlobProgress("layer 1 of 1", MIB, 0))
    assert capsys.readouterr() == ("", "")


def test_progress_is_silent_without_standard_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with ProgressBar("copy") as bar:
        bar.add(MIB)
        bar.show(BlobProgress("layer 1 of 1", MIB, 0))


def test_progress_bar_adds_up_the_blobs_on_a_terminal(open_terminal):
    terminal = open_terminal()
    with ProgressBar("pull") as bar:
        bar.step("looks for signatures")
        bar.add(2 * MIB)
        bar.step("opens the keys")
        assert "\rpull: opens the keys   " in terminal.getvalue()  # in place of the bar
        bar.add(MIB)
        bar.show(BlobProgress("layer 1 of 2", MIB, MIB))
        bar.show(BlobProgress("layer 2 of 2", 2 * MIB, MIB))
        bar.show(BlobProgress("layer 1 of 2", MIB, MIB, 1.0))
        inner = bar._view._bar
        assert (inner.n, inner.total) == (2.0, 3.0)
        bar.show(BlobProgress("layer 2 of 2", 2 * MIB, 0))  # it is sent once more
        assert inner.n == 1.0
        bar.show(BlobProgress("layer 2 of 2", 2 * MIB, 2 * MIB, 1.0))
        inner.refresh()
    shown = terminal.getvalue()
    assert "\rpull: looks for signatures" in shown
    assert "pull 100% 3.0/3.0 MiB |" in shown
    assert "layer" not in shown


def test_progress_bar_is_gone_when_something_is_said_and_at_the_end(open_terminal):
    terminal = open_terminal()

    def line():
        return terminal.getvalue().rstrip("\r").rpartition("\r")[2].strip()

    with ProgressBar("pull") as bar:
        bar.add(MIB)
        bar._view._bar.refresh()
        assert line().startswith("pull")
        say("warning", "one thing")
        assert terminal.getvalue().endswith("\rimagers: warning: one thing\n")
    assert line() == ""


def test_progress_bar_takes_more_than_was_told_of(open_terminal):
    terminal = open_terminal()
    with ProgressBar("copy") as bar:
        bar.show(BlobProgress("layer 1 of 1", 5 * MIB, 5 * MIB))
        bar._view._bar.refresh()
    assert "copy 100% 5.0/5.0 MiB" in terminal.getvalue()


def test_write_file_replaces_a_link_and_not_what_it_points_to(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    write_file(str(tmp_path / "link"), "new")
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "new"


def test_write_file_writes_to_a_pipe_and_to_what_is_open(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(str(tmp_path / "pipe"), "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    with pytest.raises(LocalError):
        write_file(str(tmp_path / "pipe"), "nobody reads")
    write_file("/dev/null", "gone")
    assert not os.path.isfile("/dev/null")
    reader, writer = os.pipe()
    write_file(f"/dev/fd/{writer}", "open")
    assert os.read(reader, 100) == b"open"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("place", ["/dev/fd", "/proc/self/fd"])
def test_write_file_to_an_open_file_goes_on_where_it_stands(tmp_path, place):
    log = tmp_path / "log"
    log.write_text("what was there\n")
    fd = os.open(log, os.O_WRONLY | os.O_APPEND)
    write_file(f"{place}/{fd}", "new")
    os.write(fd, b", more")
    os.close(fd)
    assert log.read_text() == "what was there\nnew, more"
    with pytest.raises(LocalError, match="bad file descriptor"):
        write_file(f"{place}/{fd}", "closed")


def test_write_file_to_standard_output_stands_in_order(capfd):
    click.echo("before")
    write_file("/dev/stdout", "between\n")
    click.echo("after")
    write_file("/dev/stderr", "told")
    assert capfd.readouterr() == ("before\nbetween\nafter\n", "told")


def test_write_file_to_a_directory_or_nowhere_is_a_local_error(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "file"):
        with pytest.raises(LocalError) as caught:
            write_file(str(path), "text")
        assert caught.value.path == str(path)
    assert list(tmp_path.iterdir()) == []
