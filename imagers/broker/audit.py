# SPDX-License-Identifier: Apache-2.0
"""The audit log: every release, refusal and change, in rows that only grow. Never a secret.

A row is written in the same transaction as what it tells, so neither is there without the
other; a secret leaves the broker only after its row is on disk.

What is given out always has its row. Refusals are bounded a minute, of each caller and of all
together, or anybody could fill the disk. What was left out is counted in the next row that is
kept. Each kind of refusal has a bound of its own, and so have guests that have attested, and each
tenant: noise at one door hides nothing at the others.

A row is of the tenant that it is about, or the broker's own: its starts, and handshakes, which are
for no tenant yet.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from imagers.broker.keeping.transaction import Transaction

__all__ = [
    "AuditEvent",
    "Event",
    "Outcome",
    "RefusalLimit",
    "RefusalLimits",
    "append",
    "shown_session",
]

_MAX_TEXT = 400  # characters of a member
_MAX_DETAIL = 2000  # of why: several claims of 96 digits, wanted and found
_SESSION_DIGITS = 12  # of the session's name: enough to tell sessions apart
_A_MINUTE = 120
_A_MINUTE_OF_ONE = 30


Event = Literal[
    "start",
    "stop",
    "auth",
    "attest",
    "release",
    "put",
    "replace",
    "delete",
    "undelete",
    "bind",
    "approve",
    "supersede",
    "revoke",
    "floor",
    "policy",
    "reference",
    "admin",
    "admin-key",
    "restore",
    "rotate",
    "tenant",
]
Outcome = Literal["ok", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One thing that happened; "" where a member does not apply.

    Attributes:
        tenant: whose row it is; "": the broker's own.
        client: the address that asked.
        evidence: SHA-256 of the guest's attestation as it came, in hex.
        claims: SHA-256 of what its token says of it, `submods`, in hex.
        admin: who did it.
    """

    event: Event
    outcome: Outcome
    tenant: str = ""
    tee: str = ""
    path: str = ""
    image: str = ""
    rule: str = ""
    session: str = ""
    client: str = ""
    evidence: str = ""
    claims: str = ""
    admin: str = ""
    detail: str = ""


_MEMBERS = tuple(one.name for one in fields(AuditEvent))


def append(transaction: Transaction, event: AuditEvent, *, now: datetime) -> None:
    """Write one row."""
    row = {"at": now.isoformat(timespec="milliseconds")}
    for name in _MEMBERS:
        text = getattr(event, name)[: _MAX_DETAIL if name == "detail" else _MAX_TEXT]
        row[name] = text if text.isprintable() else _printable(text)
    transaction.append_audit(row)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def shown_session(name: str) -> str:
    """How rows name a session: by a part of its name, which opens nothing."""
    return name[:_SESSION_DIGITS]


class RefusalLimit:
    """Bounds the rows about refusals: those of one caller in a minute, and those of all.

    Threads: safe.
    """

    def __init__(self, a_minute: int = _A_MINUTE, of_one: int = _A_MINUTE_OF_ONE) -> None:
        self._a_minute = a_minute
        self._of_one = of_one
        self._lock = threading.Lock()
        self._minute = 0
        self._count = 0
        self._counts: dict[str, int] = {}  # never more callers than rows
        self._left_out = 0

    def admit(self, now: datetime, caller: str) -> int | None:
        """None if the row is to be left out, else how many were left out before it."""
        minute = int(now.timestamp() // 60)
        with self._lock:
            if minute != self._minute:
                self._minute, self._count = minute, 0
                self._counts.clear()
            of_one = self._counts.get(caller, 0)
            if self._count >= self._a_minute or of_one >= self._of_one:
                self._left_out += 1
                return None
            self._count += 1
            self._counts[caller] = of_one + 1
            left_out, self._left_out = self._left_out, 0
            return left_out

    def take_left_out(self) -> int:
        """How many were left out since the last row; they count as told."""
        with self._lock:
            left_out, self._left_out = self._left_out, 0
            return left_out


class RefusalLimits:
    """A limit of its own for each kind of refusal and each tenant.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._limits: defaultdict[tuple[str, str, bool], RefusalLimit] = defaultdict(RefusalLimit)

    def admit(self, event: AuditEvent, now: datetime, caller: str, *, attested: bool) -> int | None:
        """As of `RefusalLimit`.

        Args:
            attested: whether the caller proved what he is.
        """
        return self._limits[event.tenant, event.event, attested].admit(now, caller)

    def take_left_out(self) -> Mapping[str, int]:
        """As of `RefusalLimit`, by tenant."""
        left_out: Counter[str] = Counter()
        for (tenant, *_), limit in list(self._limits.items()):
            left_out[tenant] += limit.take_left_out()
        return +left_out
