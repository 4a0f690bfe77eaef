# SPDX-License-Identifier: Apache-2.0
"""Programs of others: asked one question, with an end to how long and how much they answer.

    answer = ask_program(["docker-credential-pass", "get"], b"registry.example.org", timeout_s=60,
                         max_bytes=65536, own_session=False)

A program may leave children that hold its pipes. They do not keep anybody waiting here: what
still runs at the end of the time is killed, with its session where it has one of its own.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers import waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Answer", "ask_program", "end_group"]

_MAX_ERROR_BYTES = 1024
_PIECE = 64 * 1024
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said.

    Attributes:
        status: as `subprocess.Popen.returncode`.
        out: whoever asked wipes it, if it is a secret.
        error: the first KiB of its standard error; empty where that is the user's.
    """

    status: int
    out: bytearray
    error: bytes


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the session that `process` leads, and wait for it.

    The group is killed before the process is waited for: until then its number is nobody else's.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask_program(
    words: Sequence[str],
    question: bytes | memoryview,
    *,
    timeout_s: float,
    max_bytes: int,
    own_session: bool,
    name: str = "",
) -> Answer:
    """The answer of a program to what it reads on its standard input.

    Args:
        max_bytes: of its answer.
        own_session: whether it gets a session, which ends with it when it fails, and a standard
            error of its own; else it keeps the user's terminal, where it may ask.
        name: of who is waited for; "": the first of the words.

    Raises:
        OSError, ValueError: it does not start.
        TimeoutError: it did not answer, or not end, in time.
        OverflowError: it answers more.
        Cancelled: see `imagers.waiting.check`.
    """
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if own_session else None,
        start_new_session=own_session,
        bufsize=0,
    )
    talk = _Talk(process, timeout_s, max_bytes)
    try:
        with waiting.waits_for(f"the program {name or os.path.basename(words[0])!r}"):
            talk.run(memoryview(question))
        return Answer(process.wait(), talk.answer, bytes(talk.error[:_MAX_ERROR_BYTES]))
    except BaseException:
        talk.answer[:] = bytes(len(talk.answer))
        if own_session:
            end_group(process)
        else:
            process.kill()
            process.wait()
        raise
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


class _Talk:
    """One question and answer on the pipes of a program."""

    def __init__(self, process: subprocess.Popen[bytes], timeout_s: float, max_bytes: int) -> None:
        self._process = process
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._max_bytes = max_bytes
        self.answer = bytearray()
        self.error = bytearray()

    def run(self, question: memoryview) -> None:
        """Until it has ended; it is not waited for."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    os.set_blocking(pipe.fileno(), False)
                    is_ours = pipe is process.stdin
                    selector.register(
                        pipe, selectors.EVENT_WRITE if is_ours else selectors.EVENT_READ
                    )
            while selector.get_map():
                waiting.check()
                left_s = self._deadline - time.monotonic()
                # Not by an empty answer: where enough is written, there is always some.
                if left_s <= 0:
                    raise TimeoutError(f"no answer within {self._timeout_s:g} s")
                for key, _ in selector.select(min(left_s, waiting.TICK_S)):
                    if key.fileobj is process.stdin:
                        question = self._write(question)
                        if not question:
                            selector.unregister(process.stdin)
                            process.stdin.close()
                    elif not self._read(key.fd, is_answer=key.fileobj is process.stdout):
                        selector.unregister(key.fileobj)
        # It may have closed its pipes long before its end.
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"did not end within {self._timeout_s:g} s")
            waiting.pause(_POLL_S)

    def _write(self, question: memoryview) -> memoryview:
        assert self._process.stdin is not None
        try:
            return question[os.write(self._process.stdin.fileno(), question[:_PIECE]) :]
        except BrokenPipeError:
            return question[:0]  # it may know the answer without the question

    def _read(self, fd: int, *, is_answer: bool) -> bool:
        """Whether there may be more."""
        piece = os.read(fd, _PIECE)
        if is_answer:
            self.answer += piece
            if len(self.answer) > self._max_bytes:
                raise OverflowError(
                    f"expected an answer of at most {self._max_bytes} bytes, got more"
                )
        elif len(self.error) < _MAX_ERROR_BYTES:
            self.error += piece
        return bool(piece)
