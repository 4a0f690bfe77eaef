import io
import sys

import pytest

from imagers.cli.output import ProgressBar, human_bytes, print_json, print_line, print_table, say


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


def test_progress_bar_is_silent_where_nobody_looks(capsys):
    with ProgressBar(100, "pull") as bar:
        bar.set_total(200)
        bar.show("layer 1 of 1", 50)
    assert capsys.readouterr() == ("", "")


def test_progress_bar_adds_up_the_parts_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar(0, "pull") as bar:
        bar.set_total(300)
        bar.show("layer 1 of 2", 100)
        bar.show("layer 2 of 2", 50)
        bar.show("layer 2 of 2", 200)
        assert bar._bar.n == 300
        assert bar._bar.total == 300
    assert "layer 2 of 2" in terminal.getvalue()
