# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
        (["broker", "policy"], "test, show, set, reset"),
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
    from imagers.errors import LocalError

    with pytest.raises(LocalError):
        run("--debug", "inspect", "oci:nowhere:v1")


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (("inspect", "oci:nowhere:v1", "--json"), "LocalError", 13),
        (("inspect", "--json"), "UsageError", 2),
        (("inspect", "oci:nowhere:v1", "--json", "--frobnicate"), "UsageError", 2),
        (("policy", "--json"), "UsageError", 2),
        (("incpect", "x", "--json"), "UsageError", 2),
        (("verify", "oci:nowhere:v1", "--json", "--key", "none.pub"), "LocalError", 13),
        (("broker", "put", "kbs:///a/b/c", "nowhere", "--json"), "LocalError", 13),
    ],
)
def test_error_is_one_document_with_json_and_the_lines_stay(run, words, kind, code):
    outcome = run(*words)
    facts = outcome.json()
    assert outcome.code == code
    assert set(facts) == {"error"}
    told = [f"imagers: error: {facts['error']['message']}"]
    if facts["error"]["hint"] is not None:
        told.append(f"imagers: hint: {facts['error']['hint']}")
    assert outcome.err.splitlines() == told
    assert (facts["error"]["type"], facts["error"]["exit_code"]) == (kind, code)


def test_json_behind_two_dashes_is_no_option(run):
    outcome = run("inspect", "--", "--json")
    assert outcome.code != 0
    assert outcome.out == ""


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
    monkeypatch.setattr(main.signal, "setitimer", lambda *_: None)
    signals = main._Signals()
    with pytest.raises(KeyboardInterrupt):
        signals._handle(signal.SIGINT, None)
    signals._handle(signal.SIGINT, None)  # the clean-up goes on
    signals._handle(signal.SIGTERM, None)
    now[0] += 3.0
    with pytest.raises(main._Terminated):
        signals._handle(signal.SIGTERM, None)


def test_signal_that_was_lost_without_a_word_comes_again_and_one_on_its_way_does_not(monkeypatch):
    timers = []
    monkeypatch.setattr(main.signal, "setitimer", lambda _, seconds: timers.append(seconds))
    signals = main._Signals()
    try:
        signals._handle(signal.SIGTERM, None)
    except main._Terminated:
        signals._handle(signal.SIGALRM, None)  # the clean-up goes on
    assert len(timers) == 2
    with pytest.raises(main._Terminated):
        signals._handle(signal.SIGALRM, None)
    signals.is_told = True
    signals._handle(signal.SIGALRM, None)
    assert len(timers) == 3


def test_import_of_the_library_and_of_the_command_changes_no_signal():
    """Handlers are those of the program alone, which `imagers.__main__` starts."""
    program = """
import signal, sys
def state():
    return [signal.getsignal(one) for one in signal.valid_signals()], sys.unraisablehook
before = state()
import imagers.pull.run, imagers.sign.verify, imagers.cli.main
sys.exit(state() != before)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


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
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert capfd.readouterr().err == ""


def test_signal_while_an_error_is_told_is_no_traceback(run, monkeypatch):
    tell = main._Ending.fail

    def fail(self, kind, *facts):
        if kind != "Interrupted":
            raise main._Interrupted
        return tell(self, kind, *facts)

    monkeypatch.setattr(main._Ending, "fail", fail)
    outcome = run("inspect", "oci:nowhere:v1")
    assert outcome.code == 130
    assert outcome.err == "imagers: error: interrupted\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("incpect", "x"), "did you mean inspect? "),
        (("push", "x"), "what is written to docker:// is pushed: "),
        (("frobnicate",), '"imagers --help" shows'),
        (("broker", "lst"), "did you mean list? "),
        (("broker", "policy", "sett"), "did you mean set? "),
        (("decrypt", "x", "y", "--key", "k"), "did you mean --decryption-key? "),
        (("copy", "x", "y", "--plain-http"), "did you mean --tls-verify=false? "),
        (("copy", "x", "y", "--retry-times", "3"), "a request that fails for a moment is tried"),
        (("encrypt", "x", "y", "--encryption-keys", "k"), "did you mean --encryption-key"),
        (("inspect", "x", "--sort-of"), '"imagers inspect --help" shows'),
    ],
)
def test_word_that_is_not_known_is_answered_with_what_was_meant(run, words, told):
    outcome = run(*words)
    assert outcome.code == 2
    error, hint = outcome.err.splitlines()
    assert "no such" in error
    assert "ean" not in error
    assert hint.startswith(f"imagers: hint: {told}")


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (("help",), ("--help",)),
        (("help", "help"), ("--help",)),
        (("help", "pull"), ("pull", "--help")),
        (("-v", "help", "broker"), ("broker", "-h")),
        (("help", "broker", "put"), ("broker", "put", "--help")),
        (("help", "broker", "policy", "set"), ("broker", "policy", "set", "-h")),
    ],
    ids=" ".join,
)
def test_help_of_a_verb_is_asked_for_in_either_way(run, words, same):
    assert run(*words) == run(*same)
    assert run(*words).code == 0


def test_help_of_what_is_no_verb_is_a_usage_error(run):
    outcome = run("help", "brok")
    assert outcome.code == 2
    assert "hint: did you mean broker? " in outcome.err


@pytest.mark.parametrize("at", [0, 1, 2, 8])
def test_loudness_is_said_before_the_verb_or_after_it(run, at):
    def said(option):
        words = ["policy", "init", "--scope", "h.example", "--key", "k.pub", "--output", "p.json"]
        Path("p.json").unlink(missing_ok=True)
        return run(*[*words[:at], option, *words[at:]] if option else words)

    run("key", "generate", "cosign", "--output", "k")
    assert (said("").code, said("").err) == (0, said("--verbose").err)
    assert said("--quiet").err == said("-q").err == ""
    assert said("").err.startswith("imagers: p.json: refuses everything but")


def test_loudness_is_one_thing(run):
    for words in (("-q", "inspect", "-v", "x"), ("inspect", "-qv", "x")):
        outcome = run(*words)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == "imagers: error: expected --quiet or --verbose, got both\n"


def test_quiet_keeps_errors_hints_warnings_and_the_result(run, plain, accept):
    outcome = run("-q", "pull", plain, "bundle", "--policy", accept)
    assert outcome.out.startswith("trusted sha256:")
    assert outcome.err.startswith("imagers: warning: the policy accepts this image unsigned")
    error, hint = run("inspect", "--quiet", "oci:nowhere:v1").err.splitlines()
    assert error.startswith("imagers: error: ")
    assert hint.startswith("imagers: hint: ")


def test_short_help_is_help(run):
    assert run("-h").out == run("--help").out == HELP
    assert run("sign", "-h").out == run("sign", "--help").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("inspect", "https://h.example/a:v1"), "docker://h.example/a:v1"),
        (("inspect", "./here"), "oci:./here or dir:./here"),
        (("inspect", "./file"), "oci-archive:./file or docker-archive:./file"),
        (("verify", "h.example/a:v1", "--policy", "r.pub"), "imagers policy init --scope SCOPE"),
        (("broker", "serve", "--listen", "8080"), "127.0.0.1:8080"),
    ],
)
def test_wrong_kind_of_word_is_answered_with_the_right_one(run, words, told):
    Path("here").mkdir()
    Path("file").touch()
    Path("r.pub").write_text("-----BEGIN PUBLIC KEY-----\n")
    outcome = run(*words)
    assert outcome.code not in (0, 1)
    assert told in outcome.err.splitlines()[-1]


def test_recipient_without_a_scheme_is_told_one(run, plain):
    outcome = run("encrypt", plain, "oci:x", "--encryption-key", "r.pub")
    assert outcome.code == 2
    assert outcome.err.endswith("hint: for the public key in a file: jwe:r.pub\n")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--key", "r.pub"), 11),
        (("--key", "nowhere"), 13),
        (("--key", "."), 13),
        (("--notation-key", "r.pub", "--notation-chain", "r.pub"), 11),
        (("--sign-by", "alice"), 2),
    ],
)
def test_key_that_is_none_is_told_with_its_option(run, words, code):
    Path("r.pub").write_text("-----BEGIN PUBLIC KEY-----\n")
    outcome = run("sign", "localhost:1/a:v1", *words)
    assert outcome.code == code
    assert outcome.err.startswith(f"imagers: error: {words[0]}")


def test_one_line_of_click_becomes_one_of_ours():
    assert main._one_line("No such option\n  '--x'.") == "no such option '--x'"


def test_warnings_become_lines(capsys):
    main._show_warning("careful", UserWarning, "file.py", 3)
    assert capsys.readouterr().err == "imagers: warning: careful\n"
