# SPDX-License-Identifier: Apache-2.0
"""The store of one broker: connections that are held, and one writer.

To be durable costs the same for one row and for a hundred. So what waits to be written is written
together: `write` gives its work to a thread that runs all that waits in one transaction, each part
so that it can be undone alone, and answers when the transaction is on disk.

    reading       sees one state, and waits for no writer
    write         adds: sessions, audit rows
    change        alters what releases are judged by; no `write` of any broker runs beside it

So who has judged by what it read, and finds the store's `changes` the same in its `write`, has
judged by what is in force.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from imagers.broker.keeping.database import StoreFailed, Taken
from imagers.broker.keeping.transaction import Transaction
from imagers.model.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import sqlalchemy as sa

    from imagers.broker.keeping.database import Database

__all__ = ["BROKER", "Store"]

BROKER = "broker"
"""The name of a broker that shares its store with no other."""
_MOST_AT_ONCE = 256  # parts of one transaction

_T = TypeVar("_T")


@dataclass(slots=True)
class _Part(Generic[_T]):
    """Work that waits to be written, and how it ended."""

    work: Callable[[Transaction], _T]
    alone: bool
    future: asyncio.Future[_T]
    loop: asyncio.AbstractEventLoop
    result: _T | None = None
    error: BaseException | None = None

    def run(self, transaction: Transaction) -> None:
        transaction.begin_part()
        try:
            self.result = self.work(transaction)
        except IntegrityError as error:
            self.error = error
            transaction.undo_part()
        except SQLAlchemyError:
            raise  # of the database, and all of the transaction ends
        except Exception as error:  # noqa: BLE001 - handed to who waits for it
            self.error = error
            transaction.undo_part()
        else:
            transaction.keep_part()

    def tell(self, database: str) -> None:
        if self.future.done():  # who waited has gone
            return
        if isinstance(self.error, SQLAlchemyError):
            self.future.set_exception(_failure(self.error, database))
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # it ran


class Store(Closing):
    """What one broker keeps.

    Args:
        database: where; it is closed with the store.
        broker: the name of this broker among those that share the database.

    Raises:
        LocalError: it cannot be opened, is not a store of ours, or open to others.

    Threads: safe.
    """

    def __init__(self, database: Database, broker: str = BROKER) -> None:
        self._database = database
        self._broker = broker
        self._readers: deque[sa.Connection] = deque()
        self._writer: sa.Connection | None = None
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Part[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        try:
            with self._errors():
                database.make_schema()
            with self.transaction() as transaction:
                transaction.enter_broker()
        except BaseException:
            self.close()
            raise

    # In this thread

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """A block that only reads, of one state of the store; it waits for no writer.

        Raises:
            StoreFailed: the database cannot be read; also at a write.
        """
        with self._errors():
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._database.connect()
            try:
                self._database.begin_reading(connection)
                yield Transaction(connection, self._broker, alone=False)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                _end(connection)
                raise
            self._readers.append(connection)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A block of reads and writes, counted as a change; an exception undoes all of it.

        Raises:
            StoreFailed: the disk is full, the file damaged, another process holds the lock.
        """
        with self._writing(alone=True) as transaction:
            yield transaction

    @contextmanager
    def _writing(self, *, alone: bool) -> Iterator[Transaction]:
        with self._lock, self._errors():
            connection = self._writer or self._database.connect()
            self._writer = None
            try:
                self._database.begin_writing(connection, alone=alone)
                transaction = Transaction(connection, self._broker, alone=alone)
                yield transaction
                if alone:
                    transaction.count_change()
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                _end(connection)
                raise
            self._writer = connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise _failure(error, self._database.name) from None

    # In an event loop

    async def read(self, work: Callable[[Transaction], _T]) -> _T:
        """What `work` reads. Raises as `reading`."""
        if self._database.waits:
            return await asyncio.to_thread(self._read, work)
        return self._read(work)

    async def write(self, work: Callable[[Transaction], _T]) -> _T:
        """What `work` gives, once what it wrote is on disk. An exception of it undoes it alone.

        Raises:
            StoreFailed: nothing of it is kept, or, where the connection was lost at the end of the
                transaction, it is not known.
        """
        return await self._submit(work, alone=False)

    async def change(self, work: Callable[[Transaction], _T]) -> _T:
        """The same as `write`, for what releases are judged by."""
        return await self._submit(work, alone=True)

    def _read(self, work: Callable[[Transaction], _T]) -> _T:
        with self.reading() as transaction:
            return work(transaction)

    def _submit(self, work: Callable[[Transaction], _T], *, alone: bool) -> asyncio.Future[_T]:
        loop = asyncio.get_running_loop()
        part = _Part(work, alone, loop.create_future(), loop)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._write_all, name="imagers-broker-writer", daemon=True
                    )
                    self._thread.start()
        self._queue.put(part)
        return part.future

    def _write_all(self) -> None:
        """The writer's thread: transactions of all that waits, until the store is closed."""
        waiting: deque[_Part[Any] | None] = deque()
        while True:
            waiting.append(self._queue.get())
            while not self._queue.empty():
                waiting.append(self._queue.get())
            while waiting:
                first = waiting.popleft()
                if first is None:
                    return
                parts = [first]
                while (
                    not first.alone
                    and len(parts) < _MOST_AT_ONCE
                    and waiting
                    and waiting[0] is not None
                    and not waiting[0].alone
                ):
                    parts.append(waiting.popleft())  # type: ignore[arg-type]  # it is not None
                self._write_parts(parts, alone=first.alone)

    def _write_parts(self, parts: Sequence[_Part[Any]], *, alone: bool) -> None:
        try:
            with self._writing(alone=alone) as transaction:
                for part in parts:
                    part.run(transaction)
        except BaseException as error:  # noqa: BLE001 - handed to who waits for it
            for part in parts:
                part.error = error
        for loop in {part.loop for part in parts}:
            mine = [part for part in parts if part.loop is loop]
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(_tell, mine, self._database.name)

    def close(self) -> None:
        """Write what waits, then close all connections. Safe to call twice."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        while self._readers:
            self._readers.pop().close()
        self._database.close()


def _tell(parts: Sequence[_Part[Any]], database: str) -> None:
    for part in parts:
        part.tell(database)


def _failure(error: SQLAlchemyError, database: str) -> StoreFailed:
    """What failed, without statement and parameters: those hold sealed values and tokens."""
    cause = getattr(error, "orig", None)
    told = str(cause or "see the log").partition("\n")[0]
    kind = Taken if isinstance(error, IntegrityError) else StoreFailed
    return kind(f"the store failed: {type(cause or error).__name__}: {told}", path=database)


def _end(connection: sa.Connection) -> None:
    """Close a connection whose transaction failed: what it still holds is undone."""
    with suppress(SQLAlchemyError):
        connection.exec_driver_sql("ROLLBACK")
    connection.invalidate()
    connection.close()
