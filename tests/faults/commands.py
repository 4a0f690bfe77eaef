# SPDX-License-Identifier: Apache-2.0
"""The command as a process, many times: forked from one that has loaded its modules before.

What a start costs is nearly all the time of a small pull. What has to be there from the first
instruction on, as strace and a preloaded library, gets a start of its own.
"""

import contextlib
import multiprocessing
import os
import pkgutil
import resource
import signal
import subprocess
import sys
from multiprocessing.reduction import DupFd

import imagers


def _all_modules():
    names = [one.name for one in pkgutil.walk_packages(imagers.__path__, "imagers.")]
    return [name for name in names if not name.endswith("__main__")]


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["__main__", "tests.faults.commands", *_all_modules()])


def start(words, *, folder, environment, before=(), limit=None):
    """A process of `imagers`, without input and output: its errors can be read.

    Args:
        words: of the command line, after the program.
        folder: where it works.
        environment: all of it.
        before: words of a program that starts it.
        limit: of the size of a file, in bytes.
    """
    if before or "LD_PRELOAD" in environment:
        assert limit is None or not before  # strace writes no file
        return subprocess.Popen(
            [*before, sys.executable, "-m", "imagers", *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: _limit(limit),  # noqa: PLW1509 - it asks nobody
        )
    return _Forked(words, folder, environment, limit)


def _limit(size):
    if size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class _Forked:
    """As `subprocess.Popen` has it."""

    def __init__(self, words, folder, environment, limit):
        self._reader, writer = os.pipe()
        arguments = (words, str(folder), environment, limit, DupFd(writer))
        self._process = _CONTEXT.Process(target=_run, args=arguments)
        self._process.start()
        os.close(writer)

    @property
    def pid(self):
        return self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(self.pid, number)

    def communicate(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("imagers", timeout)
        stderr = b""
        if self._reader >= 0:
            with open(self._reader, "rb") as file:
                os.set_blocking(self._reader, False)
                stderr = file.read() or b""
            self._reader = -1
        return "", stderr.decode()


def _run(words, folder, environment, limit, stderr):
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    null, errors = os.open(os.devnull, os.O_RDWR), stderr.detach()
    for fd, place in ((null, 0), (null, 1), (errors, 2)):
        os.dup2(fd, place)
    os.close(null)
    os.close(errors)
    _limit(limit)
    sys.argv = ["imagers", *words]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # until `main` handles them
    sys.modules["imagers.cli.main"].main()
