import os
import signal
import sys
import time

import click
import pytest

from imagers import __version__
from imagers.cli import main
from imagers.cli.main import HELP, VERBS, root


def test_run_version_prints_it(run):
    outcome = run("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"imagers {__version__}\n", "")


def test_run_nothing_prints_the_help_and_is_a_usage_error(run):
    outcome = run()
    assert (outcome.code, outcome.out, outcome.err) == (2, HELP, "")


def test_run_unknown_verb_is_a_usage_error_with_a_hint(run):
    outcome = run("nosuch")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "imagers: error: no such command 'nosuch'",
        'imagers: hint: "imagers --help" shows what it takes',
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["key"], "generate, show"),
        (["policy"], "check, init"),
        (["broker", "policy"], "show, set, reset"),
    ],
    ids=" ".join,
)
def test_run_group_without_a_word_names_the_words_and_not_the_whole_help(run, words, expected):
    outcome = run(*words)
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        f"imagers: error: expected one of {expected}, got nothing",
        f'imagers: hint: "imagers {" ".join(words)} --help" shows what it takes',
    ]


def test_run_error_gives_its_exit_code_its_line_and_its_hint(run):
    outcome = run("inspect", "oci:nowhere:v1")
    assert outcome.code == 13
    error, hint = outcome.err.splitlines()
    assert "nowhere: expected an OCI layout" in error
    assert hint.startswith("imagers: hint: ")


def test_run_debug_lets_the_error_through(run):
    from imagers.errors import LocalError  # noqa: PLC0415

    with pytest.raises(LocalError):
        run("--debug", "inspect", "oci:nowhere:v1")


def test_run_file_of_the_user_that_is_missing_is_a_local_error(run, admin):
    outcome = run("broker", "put", "kbs:///a/b/c", "nowhere", *admin)
    assert outcome.code == 13
    assert outcome.err == "imagers: error: nowhere: no such file or directory\n"


def test_every_verb_is_found_and_has_help():
    for name in VERBS:
        command = root.get_command(click.Context(root), name)
        assert command is not None
        assert command.help.startswith("usage: imagers ")
    assert root.get_command(click.Context(root), "nosuch") is None


def test_signals_unwind_once_and_then_wait_for_the_grace(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(main.time, "monotonic", lambda: now[0])
    signals = main._Signals()
    with pytest.raises(KeyboardInterrupt):
        signals._handle(signal.SIGINT, None)
    signals._handle(signal.SIGINT, None)  # the clean-up goes on
    signals._handle(signal.SIGTERM, None)
    now[0] += 3.0
    with pytest.raises(main._Terminated):
        signals._handle(signal.SIGTERM, None)


def test_signal_that_a_destructor_swallowed_comes_again(monkeypatch, capfd):
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    handlers[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    class Deaf:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)

    def work():
        for _ in range(3000):
            time.sleep(0.01)

    try:
        main._Signals().install()
        Deaf()
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert capfd.readouterr().err == ""


def test_one_line_of_click_becomes_one_of_ours():
    assert main._one_line("No such option\n  '--x'.") == "no such option '--x'"


def test_warnings_become_lines(capsys):
    main._show_warning("careful", UserWarning, "file.py", 3)
    assert capsys.readouterr().err == "imagers: warning: careful\n"
