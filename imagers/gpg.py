# SPDX-License-Identifier: Apache-2.0
"""gpg on a short lead: homes of its own, an end to every run, and nothing left behind.

    with PrivateHome(agent=True) as home:
        home.gpg.import_keys(data)

What gpg is given here comes from registries: 9 KB of a compressed message keep it busy for
minutes. So each run has a deadline, a limit on its CPU time and a session of its own, which is
ended as a whole when the run is over, whatever ended it; and a run dies with this process.

A private home is a directory (0700) that one process holds by a lock on it. What a process
that was killed has left is found by the next one that makes a home, and removed. The agent of
a home caches no passphrase, and ends with this process.

This module is for `imagers.sign` and `imagers.encrypt`; what gpg says is theirs to judge.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagers import waiting
from imagers.errors import LocalError
from imagers.model.closing import Closing
from imagers.programs import end_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["OWN", "STRANGERS", "Limits", "PrivateHome", "user_gpg"]

_PREFIX = "imagers-gpg-"
_MODE = 0o700  # of homes
_MAX_SOCKET = 107  # bytes of a unix socket's path on Linux, without the NUL
_LONGEST_SOCKET = "/S.gpg-agent.browser"
_ATTEMPTS = 8  # to make a home: somebody who tidies up may take it for an abandoned one
_START_S = 10  # that an agent may take to listen
_STOP_S = 10  # that gpgconf may take to end an agent that is not ours
_POLL_S = 0.005
# gpg-agent(1): nothing is kept, so that whoever finds the socket has no use for it.
_AGENT_CONF = "default-cache-ttl 0\nmax-cache-ttl 0\nignore-cache-for-signing\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run of gpg may take.

    Attributes:
        wall_s: until its whole session is killed.
        cpu_s: of the processor, as RLIMIT_CPU; whole seconds.
    """

    wall_s: float
    cpu_s: int


STRANGERS = Limits(wall_s=20, cpu_s=5)
"""For what a registry gave: a real message takes milliseconds."""

OWN = Limits(wall_s=600, cpu_s=120)
"""For the user's keys, and his own gpg, which may wait for a card or a passphrase."""


def _with_us(words: Sequence[str]) -> list[str]:
    """The command, dying with the thread that starts it where setpriv(1) of util-linux is."""
    program = _setpriv()
    return [program, "--pdeathsig", "KILL", "--", *words] if program else list(words)


@functools.cache
def _setpriv() -> str | None:
    program = shutil.which("setpriv")
    if program is None:
        return None
    try:
        probe = subprocess.run(
            [program, "--pdeathsig", "KILL", "--", "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_STOP_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return program if probe.returncode == 0 else None  # that of busybox knows no --pdeathsig


def _make_class() -> type[Any]:
    """`gnupg.GPG` with limits. A function: the library is imported when it is first needed."""
    import gnupg

    # It logs the first bytes of what it decrypts, at debug level, and warns on standard error.
    gnupg.logger.setLevel(logging.WARNING)
    if not gnupg.logger.handlers:
        gnupg.logger.addHandler(logging.NullHandler())

    class Limited(gnupg.GPG):  # type: ignore[misc]  # python-gnupg has no types
        """With limits on what python-gnupg starts, in the two methods that start and wait.

        Attributes:
            limits: of the next run.
            seconds: that the last run took.
            was_ended: whether it was ended by its limits.
        """

        def __init__(self, before: Callable[[], None], **options: Any) -> None:
            self._before = before
            self._running: dict[int, tuple[threading.Event, float]] = {}
            self.limits = OWN
            self.seconds = 0.0
            self.was_ended = False
            super().__init__(**options)

        def _open_subprocess(self, args: list[str], passphrase: bool = False) -> Any:  # noqa: FBT001, FBT002  # the library's shape
            self._before()
            process = subprocess.Popen(
                _with_us(self.make_args(args, passphrase)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.env,
                start_new_session=True,
            )
            cpu_s = self.limits.cpu_s
            # Where a sandbox forbids it, or gpg has ended, there is still the deadline.
            with contextlib.suppress(OSError):
                resource.prlimit(process.pid, resource.RLIMIT_CPU, (cpu_s, cpu_s))
            is_over = threading.Event()
            self._running[process.pid] = is_over, time.monotonic()
            threading.Thread(
                target=_end_in_time,
                args=(process, self.limits.wall_s, waiting.in_force(), is_over),
                daemon=True,
            ).start()
            return process

        def _collect_output(self, process: Any, result: Any, *more: Any, **named: Any) -> Any:
            try:
                with waiting.waits_for("gpg"):
                    return super()._collect_output(process, result, *more, **named)
            finally:
                is_over, start = self._running.pop(process.pid)
                is_over.set()
                end_group(process)
                for pipe in (process.stdin, process.stdout, process.stderr):
                    pipe.close()
                self.seconds = time.monotonic() - start
                self.was_ended = process.returncode in (-signal.SIGKILL, -signal.SIGXCPU)
                waiting.check()

        # In threads, which find their pipes closed when something else ended the run.
        def _read_data(self, *arguments: Any) -> None:
            with contextlib.suppress(ValueError):
                super()._read_data(*arguments)

        def _read_response(self, *arguments: Any) -> None:
            with contextlib.suppress(ValueError):
                super()._read_response(*arguments)

    return Limited


def _end_in_time(
    process: subprocess.Popen[bytes],
    wall_s: float,
    cancellation: waiting.Cancellation | None,
    is_over: threading.Event,
) -> None:
    """End a run that takes too long, or that nobody waits for any more."""
    end = time.monotonic() + wall_s
    while not is_over.wait(min(waiting.TICK_S, max(0.0, end - time.monotonic()))):
        if time.monotonic() >= end or (cancellation is not None and cancellation.is_cancelled):
            end_group(process)
            return


def _start(home: str | None, options: Sequence[str], before: Callable[[], None]) -> Any:
    try:
        return _class()(before, gnupghome=home, options=list(options))
    except (OSError, ValueError) as error:
        raise LocalError(
            "gpg does not start, and OpenPGP keys and signatures need it",
            hint="install GnuPG 2.2 or later: the package gnupg or gpg",
        ) from error


_class = functools.cache(_make_class)


def user_gpg(home: str | os.PathLike[str] | None = None) -> Any:
    """The user's own gpg, with his keys, his configuration and his agent.

    Args:
        home: None: gpg's default.

    Raises:
        LocalError: gpg is not installed.
    """
    return _start(None if home is None else os.fspath(home), (), lambda: None)


class PrivateHome(Closing):
    """A home that holds what is put into it and nothing else, until `close`.

    Args:
        agent: whether secret keys are used: then an agent runs beside it.
        options: of every run of gpg.

    Attributes:
        gpg: a `gnupg.GPG`; its `limits` hold for the next run.

    Raises:
        LocalError: gpg is not installed, or there is no place for a home.

    Threads: one at a time.
    """

    def __init__(self, *, agent: bool, options: Sequence[str] = ()) -> None:
        _remove_abandoned()
        self.path, self._lock = _make_home()
        self._agent: subprocess.Popen[bytes] | None = None
        self._socket = ""
        self._wants_agent = agent
        try:
            if agent:
                with open(os.path.join(self.path, "gpg-agent.conf"), "w") as file:
                    file.write(_AGENT_CONF)
            self.gpg = _start(
                self.path,
                ["--no-options", "--batch", "--no-autostart", "--disable-dirmngr", *options],
                self._before,
            )
        except BaseException:
            self.close()
            raise

    def _before(self) -> None:
        """Before each run: an agent that is wanted listens."""
        if not self._wants_agent:
            return
        if self._agent is not None:
            # What keeps it alive may outlive it, so that it is asked.
            if _is_running(self._agent) and _listens(self._socket):
                return
            _end_agent(self._agent)
        self._agent, self._socket = _start_agent(self.path)

    def close(self) -> None:
        """End the agent, remove the home. Safe to call twice."""
        if self._agent is not None:
            _end_agent(self._agent)
            self._agent = None
        if self._lock >= 0:
            _remove(self.path)
            os.close(self._lock)
            self._lock = -1


def _places() -> Iterator[str]:
    """Where homes may be: in memory first, as there may be secret keys in them."""
    for parent in dict.fromkeys(("/dev/shm", tempfile.gettempdir(), "/tmp")):
        longest = os.path.join(parent, f"{_PREFIX}12345678{_LONGEST_SOCKET}")
        if len(os.fsencode(longest)) <= _MAX_SOCKET:
            yield parent


def _make_home() -> tuple[str, int]:
    """A fresh directory (0700) whose path leaves room for sockets, and a locked descriptor."""
    for parent in _places():
        for _ in range(_ATTEMPTS):
            try:
                path = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
                # A umask takes bits away, and a parent with the bit of its group adds one.
                os.chmod(path, _MODE)
            except OSError:
                break
            lock = _locked(path)
            if lock is not None:
                return path, lock
            with contextlib.suppress(OSError):
                os.rmdir(path)  # where nothing can be locked, as on some network file systems
    raise LocalError("expected room for a private directory of gpg in /dev/shm or /tmp, found none")


def _locked(path: str) -> int | None:
    """A descriptor of the directory that holds its lock; None: it is gone, or not ours."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(lock)
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == _MODE:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path, follow_symlinks=False).st_ino == status.st_ino:
                return lock
    except OSError:  # somebody holds it, or has removed it
        pass
    os.close(lock)
    return None


def _remove_abandoned() -> None:
    """Remove the homes of this user that no process holds: theirs was killed.

    An agent that still runs for one is ended.
    """
    for parent in _places():
        with contextlib.suppress(OSError), os.scandir(parent) as entries:
            names = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
            for path in names:
                lock = _locked(path)
                if lock is not None:
                    _end_foreign_agent(path)
                    _remove(path)
                    os.close(lock)


def _remove(path: str) -> None:
    # The directory of sockets below /run/user, which is there on some systems.
    _gpgconf(path, "--remove-socketdir")
    shutil.rmtree(path, ignore_errors=True)


def _end_foreign_agent(path: str) -> None:
    _gpgconf(path, "--kill", "all")


def _gpgconf(path: str, *words: str) -> str:
    """What gpgconf says of a home; "" where it cannot be asked."""
    try:
        done = subprocess.run(
            ["gpgconf", "--homedir", path, *words],  # noqa: S607  # the user's gpg
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_STOP_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def _start_agent(path: str) -> tuple[subprocess.Popen[bytes], str]:
    """The process that keeps an agent for the home at `path` alive, and where that listens.

    An agent with a command to serve ends some seconds after that, at its next look. The command
    is `cat`, which ends with the pipe that this process holds; with --no-detach the agent stays
    in its process group.
    """
    place = _gpgconf(path, "--list-dirs", "agent-socket") or os.path.join(path, "S.gpg-agent")
    # One that was killed a moment ago may still have it open, and would count as running.
    with contextlib.suppress(OSError):
        os.unlink(place)
    words = ["gpg-agent", "--homedir", path, "--quiet", "--no-detach", "--daemon", "cat"]
    try:
        process = subprocess.Popen(
            _with_us(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise LocalError(
            "gpg-agent does not start, and secret keys of OpenPGP need it",
            hint="install GnuPG 2.2 or later: the packages gpg and gpg-agent",
        ) from error
    deadline = time.monotonic() + _START_S
    while _is_running(process) and time.monotonic() < deadline:
        if _listens(place):
            return process, place
        time.sleep(_POLL_S)
    _end_agent(process)
    raise LocalError("gpg-agent does not start: it does not listen", path=place)


def _listens(place: str) -> bool:
    """Whether an agent answers at its socket."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.settimeout(1)
        probe.connect(place)
        return probe.recv(2) == b"OK"
    return False


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has not ended. It is not waited for: its group can still be ended by its number.

    What keeps an agent alive may end before the agent, as with the thread that started it.
    """
    if process.returncode is not None:
        return False
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None


def _end_agent(process: subprocess.Popen[bytes]) -> None:
    end_group(process)
    if process.stdin is not None:
        process.stdin.close()
