# SPDX-License-Identifier: Apache-2.0
"""The time that sessions are judged by, and how wrong a clock may be."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from imagers.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

__all__ = ["MAX_CLOCK_ERROR", "SessionTime", "is_too_far_back", "milliseconds"]

MAX_CLOCK_ERROR = timedelta(minutes=5)  # how far back a clock may go, and brokers be apart
_MAX_ERROR_MS = MAX_CLOCK_ERROR // timedelta(milliseconds=1)


class SessionTime:
    """The time that sessions are judged by: never earlier than one that was seen before.

    With a clock that goes back, an expired nonce would be good again after its row is gone.

    Threads: safe.
    """

    def __init__(self, clock: Callable[[], datetime], seen_ms: int) -> None:
        self._clock = clock
        self._seen_ms = seen_ms
        self._lock = threading.Lock()

    def now_ms(self, stored_ms: int = 0) -> int:
        """Milliseconds since 1970.

        Args:
            stored_ms: the highest time that the store has seen.

        Raises:
            LocalError: the clock is too far behind. Until it catches up no session would end.
        """
        clock_ms = milliseconds(self._clock())
        with self._lock:
            self._seen_ms = max(self._seen_ms, stored_ms, clock_ms)
            seen_ms = self._seen_ms
        if is_too_far_back(clock_ms, seen_ms):
            raise LocalError(
                f"the clock is {(seen_ms - clock_ms) // 1000} s behind a time that was seen before",
                hint="set the clock; if it is right now and was ahead before, restart the "
                "broker: all sessions end, and time begins again",
            )
        return seen_ms


def is_too_far_back(clock_ms: int, seen_ms: int) -> bool:
    """Whether a clock is further behind than a clock may be."""
    return seen_ms - clock_ms > _MAX_ERROR_MS


def milliseconds(when: datetime) -> int:
    """Since 1970."""
    return int(when.timestamp() * 1000)
