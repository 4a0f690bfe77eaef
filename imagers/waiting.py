# SPDX-License-Identifier: Apache-2.0
"""Work that can be ended: from elsewhere, or by a time limit, wherever it waits.

    stop = Cancellation()                       # anybody may call stop.cancel()
    limit = Cancellation(within=stop, seconds=30, phase="trust")
    with limit.in_force():
        pause(60)                               # either of them ends it

What waits, for a socket, a program or a lock, is far below those who know when it has to end. It is
not handed down through all that is between, whose functions plugins have too: it is in force in a
block, in one thread, and what waits asks here, ten times a second. Where nothing is in force it
waits as long as it takes. In a thread that is started nothing is, until it says so.

The clock is monotonic: who sets the time of the machine ends nothing by it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from imagers.errors import Cancelled, TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = [
    "OTHERS",
    "TICK_S",
    "Cancellation",
    "check",
    "held",
    "in_force",
    "left_s",
    "lock_file",
    "pause",
    "run_aside",
    "wait_to_read",
    "waits_for",
]

TICK_S = 0.1
"""Seconds after which what waits looks whether it has to end."""
OTHERS = ""
"""For whom a thread waits that waits for other threads of the same work."""

_LOCK_POLL_S = 0.02
_MOST_SHOWN = 3  # of those who are waited for
_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class _Scope:
    """What one `Cancellation` knows by itself.

    Attributes:
        end: on the monotonic clock; None: there is no limit.
        owner: the thread that does the work, others help it.
        waiting: for whom each thread waits that waits.
        told: the error, once there is one: whoever notices first knows what was going on.
    """

    seconds: float | None
    end: float | None
    phase: str
    owner: int = field(default_factory=threading.get_ident)
    flag: threading.Event = field(default_factory=threading.Event)
    step: str = ""
    waiting: dict[int, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    told: TimedOut | None = None

    @property
    def is_over(self) -> bool:
        return self.end is not None and time.monotonic() >= self.end

    def waits_for(self) -> str:
        """For whom all of it waits; "" where it works."""
        waiting = dict(self.waiting)
        own = waiting.pop(self.owner, None)
        if own != OTHERS:
            return own or ""
        others = sorted({one for one in waiting.values() if one != OTHERS})
        return " and ".join(others[:_MOST_SHOWN])


class Cancellation:
    """A flag by which anyone ends a job, from any thread or from a signal handler.

    A job looks at it ten times a second, but not while it waits inside the `readinto` of a source
    that is somebody else's: time limits are that source's own.

    Args:
        within: a larger piece of work, whose end is the end of this one too.
        seconds: after which it ends by itself, counted from now; None: it does not.
        phase: of the work, for the message; "": that of `within`. The thread that makes this is
            the one that does the work.

    Threads: safe.
    """

    __slots__ = ("_scopes",)

    def __init__(
        self,
        *,
        within: Cancellation | None = None,
        seconds: float | None = None,
        phase: str = "",
    ) -> None:
        end = None if seconds is None else time.monotonic() + seconds
        outer = () if within is None else within._scopes  # noqa: SLF001  # of the same class
        self._scopes: tuple[_Scope, ...] = (_Scope(seconds, end, phase), *outer)

    def cancel(self) -> None:
        """End each job that was given this object. Safe to call twice."""
        self._scopes[0].flag.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called, or a time limit is reached."""
        return any(scope.flag.is_set() or scope.is_over for scope in self._scopes)

    @property
    def left_s(self) -> float | None:
        """Seconds until the next time limit, 0 or more; None: there is none."""
        ends = [scope.end for scope in self._scopes if scope.end is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def check(self) -> None:
        """Raise if `cancel` was called, or a time limit is reached.

        Raises:
            Cancelled: it was; for a limit it is `TimedOut`.
        """
        if any(scope.flag.is_set() for scope in self._scopes):
            raise Cancelled("cancelled")
        for scope in reversed(self._scopes):
            if scope.is_over:
                raise self._timed_out(scope)

    def note(self, step: str) -> None:
        """What is done now, and how far it is: for the message."""
        self._phase.step = step

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """A block, in this thread, in which this ends what waits.

        Raises:
            TimedOut: in place of a `Cancelled` of those who were not told why.
        """
        token = _in_force.set(self)
        try:
            yield
        except Cancelled as error:
            if not isinstance(error, TimedOut):
                self.check()
            raise
        finally:
            _in_force.reset(token)

    @contextmanager
    def waiting(self, who: str) -> Iterator[None]:
        """A block in which this thread waits for somebody: for the message."""
        waiting, thread = self._phase.waiting, threading.get_ident()
        before = waiting.get(thread)
        waiting[thread] = who
        try:
            yield
        finally:
            if before is None:
                del waiting[thread]
            else:
                waiting[thread] = before

    @property
    def _phase(self) -> _Scope:
        return next((scope for scope in self._scopes if scope.phase), self._scopes[-1])

    def _timed_out(self, scope: _Scope) -> TimedOut:
        """The error for a limit that is reached; all threads say the same."""
        phase = self._phase
        with phase.lock:
            if phase.told is None:
                phase.told = TimedOut(
                    phase=phase.phase,
                    limit_s=scope.seconds or 0.0,
                    in_all=scope is not phase,
                    step=phase.step,
                    waited_for=phase.waits_for(),
                )
            return copy(phase.told)  # another thread may raise it, too


_in_force: ContextVar[Cancellation | None] = ContextVar("imagers_cancellation", default=None)


def in_force() -> Cancellation | None:
    """What ends this thread's waiting; None: nothing does."""
    return _in_force.get()


def check() -> None:
    """See `Cancellation.check`, of what is in force."""
    cancellation = _in_force.get()
    if cancellation is not None:
        cancellation.check()


def left_s(seconds: float) -> float:
    """What is left of `seconds` that something else allows."""
    cancellation = _in_force.get()
    left = None if cancellation is None else cancellation.left_s
    return seconds if left is None else min(seconds, left)


def waits_for(who: str) -> AbstractContextManager[None]:
    """See `Cancellation.waiting`, of what is in force."""
    cancellation = _in_force.get()
    return nullcontext() if cancellation is None else cancellation.waiting(who)


def pause(seconds: float) -> None:
    """Wait.

    Raises:
        Cancelled: see `check`.
    """
    end = time.monotonic() + seconds
    check()
    while (left := end - time.monotonic()) > 0:
        time.sleep(left if in_force() is None else min(left, TICK_S))
        check()


@contextmanager
def held(lock: threading.Lock, who: str) -> Iterator[None]:
    """A block that has a lock, of which another thread may let go late.

    Args:
        who: is waited for.

    Raises:
        Cancelled: see `check`.
    """
    with waits_for(who):
        while not lock.acquire(timeout=-1 if in_force() is None else TICK_S):
            check()
    try:
        yield
    finally:
        lock.release()


def lock_file(fd: int, *, shared: bool, what: str) -> None:
    """Lock an open file or directory, until it is closed.

    Args:
        what: it is, for messages.

    Raises:
        OSError: it cannot be locked.
        Cancelled: see `check`.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    if in_force() is None:
        fcntl.flock(fd, kind)
        return
    with waits_for(f"the lock of {what}"):
        while True:
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                pause(_LOCK_POLL_S)
            else:
                return


def wait_to_read(fd: int, who: str) -> None:
    """Wait until a pipe, a terminal or a socket has something to read, or its end.

    A file has so at once, and then this raises nothing. Of a named pipe that was opened with
    `O_NONBLOCK` it is waited for the first who writes, too.

    Raises:
        Cancelled: see `check`.
    """
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return
    import select  # nothing but pipes needs it

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if poll.poll(0):
        return  # also for who cleans up when the time is over
    with waits_for(who):
        while not poll.poll(None if in_force() is None else TICK_S * 1000):
            check()


def run_aside(work: Callable[[], _T], *, if_late: Callable[[], None] = lambda: None) -> _T:
    """What `work` gives, which may wait where nothing can end it: in the kernel, in a resolver.

    It has a thread, which is left behind where this ends before it does.

    Args:
        if_late: called in that thread at its end, if nobody waits any more.

    Raises:
        Cancelled: see `check`. What `work` raises passes.
    """
    if in_force() is None:
        return work()
    job = _Aside(work, if_late)
    # It does not keep the program alive.
    thread = threading.Thread(target=copy_context().run, args=(job.run,), daemon=True, name="aside")
    thread.start()
    return job.result()


class _Aside(Generic[_T]):
    def __init__(self, work: Callable[[], _T], if_late: Callable[[], None]) -> None:
        self._work = work
        self._if_late = if_late
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._is_left = False
        self._got: list[_T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._got.append(self._work())
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            self._error = error
        with self._lock:
            self._ended.set()
            if not self._is_left:
                return
        self._if_late()

    def result(self) -> _T:
        try:
            while not self._ended.wait(TICK_S):
                check()
        except BaseException:
            with self._lock:
                self._is_left = True
                is_late = self._ended.is_set()  # just now
            if is_late:
                self._if_late()
            raise
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback has this frame
        return self._got.pop()
