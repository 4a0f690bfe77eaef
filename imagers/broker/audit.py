"""The audit log: every release, refusal and change, in rows that only grow. Never a secret.

A row is written in the same transaction as what it tells, so neither is there without the
other; a secret leaves the broker only after its row is on disk.

Refusals of callers that proved nothing yet are bounded a minute, or anybody could fill the
disk; what was left out is counted in the next row that is kept.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

    from imagers.broker.storage import Session, Transaction

__all__ = ["AuditEvent", "StrangerLimit", "append", "shown_session"]

_MAX_TEXT = 400  # characters of a member
_SESSION_DIGITS = 12  # of the session's name: enough to tell sessions apart
_STRANGERS_A_MINUTE = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One thing that happened; "" where a member does not apply."""

    event: Literal[
        "start", "auth", "attest", "release", "put", "replace", "delete", "bind", "policy", "admin"
    ]
    outcome: Literal["ok", "refused"]
    tee: str = ""
    path: str = ""
    image: str = ""
    rule: str = ""
    session: str = ""
    detail: str = ""


def append(transaction: Transaction, event: AuditEvent, *, now: datetime) -> None:
    """Write one row."""
    row = {
        name: "".join(c if c.isprintable() else "\ufffd" for c in value[:_MAX_TEXT])
        for name, value in asdict(event).items()
    }
    transaction.append_audit({"at": now.isoformat(timespec="milliseconds"), **row})


def shown_session(session: Session | None) -> str:
    """How rows name a session: by a part of its hash, which opens nothing."""
    return session.name[:_SESSION_DIGITS] if session is not None else ""


class StrangerLimit:
    """Bounds the rows that callers without a session or an admin key can cause.

    Threads: safe.
    """

    def __init__(self, a_minute: int = _STRANGERS_A_MINUTE) -> None:
        self._a_minute = a_minute
        self._lock = threading.Lock()
        self._minute = 0
        self._count = 0
        self._left_out = 0

    def admit(self, now: datetime) -> int | None:
        """None if the row is to be left out, else how many were left out before it."""
        minute = int(now.timestamp() // 60)
        with self._lock:
            if minute != self._minute:
                self._minute, self._count = minute, 0
            if self._count >= self._a_minute:
                self._left_out += 1
                return None
            self._count += 1
            left_out, self._left_out = self._left_out, 0
            return left_out
