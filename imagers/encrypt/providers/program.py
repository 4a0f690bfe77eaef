"""A key provider that is a program: one question on its standard input, one answer back.

It gets the environment of this process, as under ocicrypt, and a session of its own, which
is killed as a whole at the end of the time limit. What it writes to standard error goes into
the message if it fails, bounded; what it answers is bounded too.

Spec: containers/ocicrypt v1.3.2, utils/keyprovider and utils/ioutils.go.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from imagers.encrypt.providers.messages import MAX_ANSWER_BYTES
from imagers.errors import ProviderFailed
from imagers.model.keys import SecretKey

if TYPE_CHECKING:
    from imagers.encrypt.providers.config import ProgramProvider

__all__ = ["ask_program"]

_MAX_ERROR_BYTES = 1024
_PIECE = 64 * 1024
_POLL_S = 0.01


def ask_program(
    provider: ProgramProvider, question: SecretKey, *, timeout_s: float, what: str
) -> SecretKey:
    """The answer of the program; the caller closes it.

    Raises:
        ProviderFailed: it does not start, fails, answers too much, or not in time.
    """
    try:
        process = subprocess.Popen(
            [provider.path, *provider.args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ProviderFailed(f"{what}: cannot start {provider.path[:200]!r}: {reason}") from error
    talk = _Talk(process, time.monotonic() + timeout_s, f"{what} ({provider.path[:200]!r})")
    try:
        with question.view() as data:
            talk.run(data, timeout_s)
        return SecretKey(talk.answer)
    finally:
        talk.end()


class _Talk:
    """One question and answer on three pipes."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float, what: str) -> None:
        self._process = process
        self._deadline = deadline
        self._what = what
        self.answer = bytearray()
        self._error = bytearray()

    def run(self, question: memoryview, timeout_s: float) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            for pipe in (process.stdin, process.stdout, process.stderr):
                os.set_blocking(pipe.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, self._deadline - time.monotonic()))
                if not ready:
                    raise ProviderFailed(f"{self._what}: no answer within {timeout_s:g} s")
                for key, _ in ready:
                    if key.fileobj is process.stdin:
                        question = self._write(question)
                        if not question:
                            selector.unregister(process.stdin)
                            process.stdin.close()
                    elif not self._read(key.fd, is_answer=key.fileobj is process.stdout):
                        selector.unregister(key.fileobj)
        self._wait(timeout_s)

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
            if len(self.answer) > MAX_ANSWER_BYTES:
                raise ProviderFailed(
                    f"{self._what}: expected an answer of at most {MAX_ANSWER_BYTES} bytes, "
                    "got more"
                )
        elif len(self._error) < _MAX_ERROR_BYTES:
            self._error += piece
        return bool(piece)

    def _wait(self, timeout_s: float) -> None:
        try:
            status = self._process.wait(max(_POLL_S, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise ProviderFailed(f"{self._what}: did not end within {timeout_s:g} s") from error
        if status != 0:
            said = bytes(self._error[:_MAX_ERROR_BYTES]).decode("utf-8", "replace").strip()
            how = f"exit code {status}" if status > 0 else f"signal {-status}"
            raise ProviderFailed(f"{self._what}: failed with {how}" + (f": {said}" if said else ""))

    def end(self) -> None:
        """Close the pipes, end what still runs, wipe the answer."""
        process = self._process
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()
        self.answer[:] = bytes(len(self.answer))
