# SPDX-License-Identifier: Apache-2.0
"""Several pieces of work at the same time, as if they were one call.

    digests = run_together([partial(hash_file, path) for path in paths], jobs=2)

The caller waits in its own thread, so that Ctrl-C ends all of it: the first error, and
any exception in the waiting thread, cancels what runs and keeps the rest from starting.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from imagers.errors import Cancelled
from imagers.waiting import Cancellation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["run_together"]

_T = TypeVar("_T")
_TICK_S = 0.1
_GRACE_S = 2.0  # for all threads to see that all is over


def run_together(
    tasks: Sequence[Callable[[Cancellation], _T]],
    *,
    jobs: int,
    on_done: Callable[[int, _T], None] | None = None,
    cancellation: Cancellation | None = None,
) -> list[_T]:
    """What the tasks return, in their order; they start in that order too.

    Args:
        tasks: each is given a `Cancellation` that it must heed, and runs in a thread of its
            own, or in this one if `jobs` is 1 or there is one task.
        jobs: tasks that run at the same time.
        on_done: is called in this thread with number and result of each task that ends well.
        cancellation: ends all of it.

    Raises:
        What the first task that failed has raised; of several failures that were there when
        the others had been stopped, that of the lowest number.
    """
    stop = Cancellation(within=cancellation)
    if jobs == 1 or len(tasks) <= 1:
        results = []
        for number, task in enumerate(tasks):
            stop.check()
            results.append(task(stop))
            if on_done is not None:
                on_done(number, results[-1])
        return results
    return _Crew(tasks, stop).run(min(jobs, len(tasks)), on_done)


@dataclass(frozen=True, slots=True)
class _Failure:
    number: int
    error: BaseException


class _Crew(Generic[_T]):
    def __init__(self, tasks: Sequence[Callable[[Cancellation], _T]], stop: Cancellation) -> None:
        self._tasks = tasks
        self._stop = stop
        self._waiting = iter(range(len(tasks)))
        self._lock = threading.Lock()
        self._ended: queue.SimpleQueue[tuple[int, _T] | _Failure] = queue.SimpleQueue()

    def run(self, jobs: int, on_done: Callable[[int, _T], None] | None) -> list[_T]:
        # Threads that do not keep the program alive: one may hang on a server while the user
        # has pressed Ctrl-C, and what it leaves has no name.
        threads = [
            threading.Thread(target=self._work, daemon=True, name=f"imagers-{number}")
            for number in range(jobs)
        ]
        results: dict[int, _T] = {}
        failures: dict[int, BaseException] = {}
        try:
            for thread in threads:
                thread.start()
            while len(results) < len(self._tasks) and not failures:
                try:
                    # Never for long: a signal that comes just before the waiting begins
                    # would not end it.
                    ended = self._ended.get(timeout=_TICK_S)
                except queue.Empty:
                    continue
                if isinstance(ended, _Failure):
                    failures[ended.number] = ended.error
                    continue
                number, results[ended[0]] = ended
                if on_done is not None:
                    on_done(number, results[number])
        finally:
            if len(results) < len(self._tasks):
                self._stop.cancel()
            deadline = time.monotonic() + _GRACE_S
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, deadline - time.monotonic()))
        if failures:
            raise self._cause(failures)
        return [results[number] for number in range(len(self._tasks))]

    def _cause(self, failures: dict[int, BaseException]) -> BaseException:
        """The failure to show: none that is only the echo of another one."""
        while True:
            try:
                ended = self._ended.get_nowait()
            except queue.Empty:
                break
            if isinstance(ended, _Failure):
                failures[ended.number] = ended.error
        causes = [n for n, error in failures.items() if not isinstance(error, Cancelled)]
        return failures[min(causes or failures)]

    def _work(self) -> None:
        while True:
            with self._lock:
                number = next(self._waiting, None)
            if number is None:
                return
            try:
                self._stop.check()
                self._ended.put((number, self._tasks[number](self._stop)))
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                self._ended.put(_Failure(number, error))
                return
