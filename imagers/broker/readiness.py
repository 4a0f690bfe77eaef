# SPDX-License-Identifier: Apache-2.0
"""Whether a broker can serve guests now.

Its store takes writes, was not changed from outside, and its policy can be read.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from imagers.broker.keeping.database import StoreFailed
from imagers.broker.refusals import Refusal

if TYPE_CHECKING:
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.rules import Rules
    from imagers.broker.state import BrokerState

__all__ = ["Readiness"]

_GOOD_S = 1.0  # anybody may ask: at most one write to the disk in this time


class Readiness:
    """Looks, and knows the answer for a second.

    Threads: one, that of the event loop.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state
        self._looked_at: float | None = None
        self._fault = ""
        self._looking = asyncio.Lock()

    async def check(self) -> None:
        """Raise unless guests can be served.

        Raises:
            Refusal: they cannot. The reason has no paths: it is for whoever asks.
        """
        async with self._looking:  # what was good is no answer while a store does not answer
            if self._looked_at is None or time.monotonic() - self._looked_at > _GOOD_S:
                self._fault = await self._look()
                self._looked_at = time.monotonic()
        if self._fault:
            raise Refusal("StoreUnavailable", self._fault)

    async def _look(self) -> str:
        try:
            rules = await self._state.store.write(self._write)
        except StoreFailed:
            if self._state.store.fault is None:
                return "the store cannot be written"
        if self._state.store.fault is not None:
            # Until the next start: what else is there, nobody knows.
            return "the store was changed from outside"
        return "the stored policy is damaged" if rules.policy is None else ""

    def _write(self, transaction: Transaction) -> Rules:
        transaction.touch()
        return self._state.rules(transaction)
