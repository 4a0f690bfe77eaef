# SPDX-License-Identifier: Apache-2.0
"""Programs that answer badly, late, without end, or leave somebody behind."""

import os
import selectors
import time
from pathlib import Path

import pytest

from imagers import programs as module
from imagers.errors import TimedOut
from imagers.programs import ask_program
from imagers.waiting import Cancellation

LIMITS = {"timeout_s": 30.0, "max_bytes": 1024, "own_session": True}


def ask(script, question=b"question", **limits):
    return ask_program(["sh", "-c", script], question, **{**LIMITS, **limits})


def ends(pid):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("own_session", [True, False])
def test_ask_gives_status_answer_and_error(own_session):
    answer = ask("cat; exit 3", own_session=own_session)
    assert (answer.status, bytes(answer.out)) == (3, b"question")
    said = ask("echo no >&2; exit 1")
    assert (said.status, said.error) == (1, b"no\n")


def test_ask_of_a_child_that_outlives_its_program_ends_the_child(tmp_path):
    with pytest.raises(TimeoutError, match="no answer within 1 s"):
        ask(f"sleep 1000 & echo $! > {tmp_path}/pid; exit 0", timeout_s=1.0)
    assert ends(int((tmp_path / "pid").read_text()))


def test_ask_without_a_session_does_not_wait_for_a_child_with_the_pipe(tmp_path):
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        ask(f"sleep 1000 & echo $! > {tmp_path}/pid", timeout_s=1.0, own_session=False)
    assert time.monotonic() - start < 60
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_ask_leaves_a_child_alone_that_holds_no_pipe(tmp_path):
    # As an agent that a program starts for the next time.
    script = f"sleep 1000 < /dev/null > /dev/null 2>&1 & echo $! > {tmp_path}/pid"
    assert ask(script).status == 0
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)
    os.kill(pid, 9)


@pytest.mark.parametrize("own_session", [True, False])
def test_ask_of_an_answer_without_end_stops_at_the_bound(own_session):
    with pytest.raises(OverflowError, match="at most 1024 bytes"):
        ask("exec yes", own_session=own_session)


def test_ask_ends_at_its_deadline_where_there_is_always_something_to_read(monkeypatch):
    give_up = time.monotonic() + 20

    class AlwaysReady(selectors.DefaultSelector):
        """As with writers that are faster than the reader."""

        def select(self, _timeout_s=None):
            assert time.monotonic() < give_up
            return super().select(None)

    monkeypatch.setattr(module.selectors, "DefaultSelector", AlwaysReady)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        ask("exec yes >&2", timeout_s=0.2)


def test_ask_of_no_program_raises_what_the_system_says():
    with pytest.raises(FileNotFoundError):
        ask_program(["/nonexistent"], b"", **LIMITS)


@pytest.mark.parametrize("own_session", [True, False])
@pytest.mark.parametrize("script", ["exec sleep 1000", "exec >/dev/null 2>&1; exec sleep 1000"])
def test_ask_ends_with_what_is_in_force(own_session, script):
    """Also where the program has closed what it was to answer on."""
    limit = Cancellation(seconds=0.3, phase="keys")
    start = time.monotonic()
    with pytest.raises(TimedOut, match=r"waited for the program 'sh'$"), limit.in_force():
        ask(script, own_session=own_session)
    assert time.monotonic() - start < LIMITS["timeout_s"] / 2


def test_ask_names_who_is_waited_for_as_it_is_told():
    limit = Cancellation(seconds=0.1, phase="layers")
    with pytest.raises(TimedOut, match=r"waited for the program 'mkfs'$"), limit.in_force():
        ask("exec sleep 1000", name="mkfs")
