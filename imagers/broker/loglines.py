# SPDX-License-Identifier: Apache-2.0
"""Log lines that callers can cause, bounded a minute: a log fills a disk as well as anything."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from imagers.broker.audit import RefusalLimit

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["LimitedLog"]

_LINES_A_MINUTE = 30


class LimitedLog(logging.LoggerAdapter[logging.Logger]):
    """A logger of one broker that leaves lines out when there are many, and says how many.

    Threads: safe.
    """

    def __init__(self, name: str, a_minute: int = _LINES_A_MINUTE) -> None:
        super().__init__(logging.getLogger(name), {})
        self._limit = RefusalLimit(a_minute, a_minute)

    @property
    def level(self) -> int:
        """As of a logger, for uvicorn."""
        return self.logger.level

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """See `logging.Logger.log`."""
        if not self.isEnabledFor(level):
            return
        left_out = self._limit.admit(datetime.now(UTC), "")
        if left_out is None:
            return
        if left_out:
            msg = f"{msg} ({left_out} lines before it left out)"
        self.logger.log(level, msg, *args, **kwargs)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Nothing is added."""
        return msg, kwargs
