# SPDX-License-Identifier: Apache-2.0
"""What a kind of database has to tell the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from imagers.errors import LocalError

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Database", "StoreFailed", "Taken"]


class StoreFailed(LocalError):
    """The database did not do what it was asked: full, away, locked, damaged, or it said no.

    Nothing of the transaction is kept.
    """


class Taken(StoreFailed):
    """A row that must be the only one of its name is there already."""


class Database(Protocol):
    """Where the rows are.

    Connections are in the mode in which each statement is its own transaction, until `begin`.
    """

    @property
    def name(self) -> str:
        """For messages: a path, or a URL without a secret."""
        ...

    @property
    def waits(self) -> bool:
        """Whether reading may wait for a network, so that it must not in an event loop."""
        ...

    def make_schema(self) -> None:
        """Make or take over the tables.

        Raises:
            StoreFailed, LocalError: it is no store of ours, or of another version.
        """
        ...

    def connect(self) -> sa.Connection:
        """A new connection; the caller closes it."""
        ...

    def begin_reading(self, connection: sa.Connection) -> None:
        """Begin a transaction that sees one state and cannot write."""
        ...

    def begin_writing(self, connection: sa.Connection, *, alone: bool) -> None:
        """Begin a transaction that writes.

        Args:
            alone: no other transaction of any broker writes beside it; else, none that is alone.
        """
        ...

    def close(self) -> None:
        """Close what was opened. Safe to call twice."""
        ...
