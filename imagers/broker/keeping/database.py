# SPDX-License-Identifier: Apache-2.0
"""What a kind of database has to tell the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from imagers.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Connection", "Crossed", "Cursor", "Database", "StoreFailed", "Taken"]


class StoreFailed(LocalError):
    """The database did not do what it was asked: full, away, locked, damaged, or it said no.

    Nothing of the transaction is kept.
    """


class Crossed(StoreFailed):
    """Two transactions waited for each other; this one was undone, and can be tried again."""


class Taken(StoreFailed):
    """A row that must be the only one of its name is there already."""


class Cursor(Protocol):
    """What a statement gave: the part of DB-API 2.0 that is used here."""

    @property
    def rowcount(self) -> int:
        """How many rows were written."""
        ...

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row."""
        ...

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that are left."""
        ...


class Connection(Protocol):
    """One that is held; each statement is its own transaction, until `begin`."""

    def execute(self, statement: str, parameters: Mapping[str, Any] = ..., /) -> Cursor:
        """Run a statement, in the database's own words."""
        ...

    def close(self) -> None:
        """Close it; a transaction that is open is undone."""
        ...


class Database(Protocol):
    """Where the rows are.

    Attributes:
        errors: the class of all its exceptions.
        taken: those that say that a row must be the only one of its name.
        again: those that say that transactions waited for each other, and this one had to go.
    """

    errors: type[Exception]
    taken: type[Exception]
    again: tuple[type[Exception], ...]

    @property
    def name(self) -> str:
        """For messages: a path, or a URL without a secret."""
        ...

    @property
    def waits(self) -> bool:
        """Whether reading may wait for a network, so that it must not in an event loop."""
        ...

    @property
    def takes_over(self) -> bool:
        """Whether stores of earlier versions, whose rows have no head, are taken over."""
        ...

    def make_schema(self) -> None:
        """Make or take over the tables.

        Raises:
            LocalError: it is no store of ours, or of another version.
        """
        ...

    def words(self, statement: str) -> str:
        """A statement, whose parameters are `:name`, in the database's own words."""
        ...

    def connect(self, *, writes: bool) -> Connection:
        """A new connection; the caller closes it.

        Args:
            writes: else it cannot write.
        """
        ...

    def begin_reading(self) -> Sequence[str]:
        """The statements that begin a transaction which sees one state, and waits for nobody."""
        ...

    def begin_writing(self, *, alone: bool, patient: bool) -> Sequence[str]:
        """The statements that begin a transaction which writes.

        Args:
            alone: no other transaction of any broker writes beside it; else, none that is alone.
            patient: wait a while for other processes; else fail at once.
        """
        ...

    def close(self) -> None:
        """Close what it holds itself. Safe to call twice."""
        ...
