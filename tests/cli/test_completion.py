# SPDX-License-Identifier: Apache-2.0
"""Completion in the shells themselves: what is typed, and what a TAB makes of it."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest

from imagers.cli.main import VERBS

WITHIN = 60  # seconds
HEAVY = ("cryptography", "urllib3", "jwcrypto", "tqdm", "docker")


@pytest.fixture
def environment(imagers, tmp_path):
    """One in which the program is found, and two files are here."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "imagers"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m imagers "$@"\n')
    script.chmod(0o755)
    (imagers.here / "first.json").touch()
    (imagers.here / "second").mkdir()
    path = f"{tmp_path / 'bin'}:{imagers.environment['PATH']}"
    return {**imagers.environment, "PATH": path, "TERM": "dumb", "PS1": "> "}


def needs(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    return shell


def typed(words, text, *, env, cwd):
    """What a shell shows that has a terminal of its own, on which this is typed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execvpe(words[0], words, env)  # noqa: S606  # the words of a test
    os.write(terminal, text.encode())
    shown, end = b"", time.monotonic() + WITHIN
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        shown += data
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown.decode()


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ""),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D\n"),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("help pul\t", "usage: imagers pull "),
        ("help broker pu\t", "usage: imagers broker put "),
        ("inspect --refer\t oci:nowhere", "nowhere: expected an OCI layout"),
        ("broker audit --event replac\t --broker http://127.0.0.1:1", "admin key cannot be read"),
        ("policy check fir\t", "policy 'first.json'"),
        ("pull oci:x sec\t", "second"),
        ("pull docker://127.0.0.1:1/x:v1 sec\t --policy first.json", "second"),
        ("inspect oci:sec\t", "second: expected an OCI layout"),
        ("copy dir:secon\t oci:sec\t", "second"),
        ("encrypt oci:x oci:y --encryption-key jwe:fir\t", "jwe:first.json"),
    ],
)
def test_what_a_tab_makes_of_it_is_run(imagers, environment, shell, text, runs):
    needs(shell)
    words, before = SHELLS[shell]
    switch = f'eval "$(_IMAGERS_COMPLETE={shell}_source imagers)"\n'
    keys = f"{before}{switch}imagers {text}\nexit\n"
    shown = typed(words, keys, env=environment, cwd=imagers.here)
    assert runs in shown, shown


@pytest.mark.parametrize("shell", SHELLS)
def test_name_of_a_file_is_no_command(imagers, environment, shell):
    """Whoever may write into a directory would have a command run by a TAB and a return."""
    needs(shell)
    (imagers.here / "third$(touch executed)").mkdir()
    (imagers.here / "fourth\x1b[2J").mkdir()
    words, before = SHELLS[shell]
    switch = f'eval "$(_IMAGERS_COMPLETE={shell}_source imagers)"\n'
    keys = f"{before}{switch}imagers inspect oci:thir\t\nimagers inspect oci:fourt\t\nexit\n"
    shown = typed(words, keys, env=environment, cwd=imagers.here)
    assert "expected an OCI layout" in shown
    assert not (imagers.here / "executed").exists()
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("imagers ", [*VERBS, "help"]),
        ("imagers -q help broker p", ["policy", "put"]),
        ("imagers key generate ", ["admin", "cosign", "ec", "kek", "rsa"]),
        ("imagers verify --p", ["--platform", "--policy"]),
        ("imagers verify x --policy fi", ["first.json"]),
        ("imagers verify oci:", ["oci:first.json", "oci:second"]),
        ("imagers copy x oci-archive:./fi", ["oci-archive:./first.json"]),
        ("imagers verify docker:", []),
        ("imagers verify oci:nowhere/", []),
    ],
)
def test_fish_offers_what_fits(imagers, environment, line, offered):
    switch = "_IMAGERS_COMPLETE=fish_source imagers | source"
    done = subprocess.run(
        [needs("fish"), "--no-config", "-c", f"{switch}; complete -C '{line}'"],
        env=environment,
        cwd=imagers.here,
        capture_output=True,
        text=True,
        check=True,
        timeout=WITHIN,
    )
    assert {one.partition("\t")[0] for one in done.stdout.splitlines()} == set(offered)


@pytest.mark.parametrize("words", ["imagers ", "imagers broker p", "imagers pull --p"])
def test_completing_loads_nothing_heavy_and_runs_nothing(imagers, words):
    script = (
        "import sys\n"
        "from imagers.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    given = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**imagers.environment, "_IMAGERS_COMPLETE": "bash_complete", **given},
        capture_output=True,
        text=True,
        check=True,
        timeout=WITHIN,
    )
    assert done.stderr == "\n"
    assert "plain," in done.stdout


def test_every_verb_is_told_with_what_it_does(imagers):
    given = {"COMP_WORDS": "imagers ", "COMP_CWORD": "", "_IMAGERS_COMPLETE": "zsh_complete"}
    done = imagers(env={**imagers.environment, **given, "COMP_CWORD": "1"})
    lines = done.stdout.splitlines()
    about = dict(zip(lines[1::3], lines[2::3], strict=True))
    assert list(about) == [*VERBS, "help"]
    assert about["pull"] == "verify, get keys, decrypt, unpack for a runtime"
    assert all(len(text) > 5 for text in about.values())
