# SPDX-License-Identifier: Apache-2.0
"""When to try again, and after how long: exponential back-off with jitter, `Retry-After`.

Nothing here sleeps; `HTTPClient` does.

Spec: RFC 9110 sections 9.2.2 (idempotent methods) and 10.2.3 (Retry-After).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["RETRIED_STATUS", "RetryPolicy", "is_idempotent", "parse_retry_after"]

# 500 is here because storage behind registries gives it for a moment of overload.
RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
_MAX_SECONDS = 10**6  # of a Retry-After that is still a number and not a joke


def is_idempotent(method: str) -> bool:
    """Whether sending a request of this method twice does no more than sending it once."""
    return method in _IDEMPOTENT


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, or None if it says nothing usable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:10]), _MAX_SECONDS))
    try:
        when = parsedate_to_datetime(text[:64])
    except (ValueError, OverflowError):  # the latter for a year that no machine word holds
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max((when - now).total_seconds(), 0.0), float(_MAX_SECONDS))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to wait.

    Attributes:
        attempts: requests in all, the first included.
        backoff_s: upper bound of the first wait; it doubles with each further one.
        max_wait_s: upper bound on all waits of one request together.
    """

    attempts: int = 4
    backoff_s: float = 0.5
    max_wait_s: float = 60.0

    def wait_before(
        self, attempt: int, *, retry_after: float | None, waited: float
    ) -> float | None:
        """Seconds to wait before `attempt` (2 is the first retry), or None to give up.

        Args:
            retry_after: what the server asked for, if it did.
            waited: seconds spent on earlier waits of the same request.
        """
        if attempt > self.attempts:
            return None
        # Full jitter: clients that failed together must not come back together.
        wait = random.uniform(0, self.backoff_s * 2 ** (attempt - 2))  # noqa: S311  # no secret
        if retry_after is not None:
            wait = max(wait, retry_after)
        return wait if waited + wait <= self.max_wait_s else None
