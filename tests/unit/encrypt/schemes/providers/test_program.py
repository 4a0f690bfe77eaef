# SPDX-License-Identifier: Apache-2.0
import os
import time

import pytest

from imagers.encrypt.schemes.providers.config import ProgramProvider
from imagers.encrypt.schemes.providers.program import ask_program
from imagers.errors import ProviderFailed
from imagers.model.keys import SecretKey


def ask(command, question=b"question", timeout_s=20.0):
    provider = ProgramProvider(*command)
    return ask_program(provider, SecretKey(question), timeout_s=timeout_s, what="provider")


def test_ask_gives_question_and_answer_larger_than_a_pipe(program):
    command = program("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])")
    question = os.urandom(1_000_000)
    assert ask(command, question) == SecretKey(question[::-1])


def test_ask_of_a_program_that_does_not_read_takes_its_answer(program):
    assert ask(program("print('x', end='')"), bytes(1_000_000)) == SecretKey(b"x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys; sys.exit('no such key')", "failed with exit code 1: no such key"),
        ("import os; os.kill(os.getpid(), 9)", "failed with signal 9"),
        ("import sys; sys.stderr.write('x' * 10**6); sys.exit(3)", "exit code 3: x{1024}$"),
        ("while True: print('x' * 1000)", "at most 2097152 bytes, got more"),
    ],
    ids=["error", "signal", "long error", "endless answer"],
)
def test_ask_of_a_program_that_fails_raises_what_it_said(program, text, message):
    with pytest.raises(ProviderFailed, match=message):
        ask(program(text))


@pytest.mark.parametrize("path", ["/nonexistent/program", "/etc/passwd", "no-such-program-here"])
def test_ask_of_no_program_raises(path):
    with pytest.raises(ProviderFailed, match="provider: cannot start"):
        ask((path, ()))


def test_ask_of_a_program_that_hangs_ends_it_and_its_children(program, tmp_path):
    command = program(f"""
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "100"])
        open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
        time.sleep(100)
        """)
    start = time.monotonic()
    with pytest.raises(ProviderFailed, match=r"no answer within 1 s"):
        ask(command, timeout_s=1)
    assert time.monotonic() - start < 60
    for pid in (tmp_path / "pids").read_text().split():
        assert is_gone(int(pid))


def is_gone(pid):
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_ask_of_a_program_that_closes_its_pipes_and_stays_raises(program):
    text = "import os, time; [os.close(n) for n in (0, 1, 2)]; time.sleep(100)"
    with pytest.raises(ProviderFailed, match="did not end within 1 s"):
        ask(program(text), timeout_s=1)
