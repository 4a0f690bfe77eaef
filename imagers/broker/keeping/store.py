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
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from imagers.broker.keeping.database import Crossed, StoreFailed, Taken
from imagers.broker.keeping.transaction import Transaction
from imagers.model.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imagers.broker.keeping.database import Connection, Database

__all__ = ["BROKER", "Store"]

BROKER = "broker"
"""The name of a broker that shares its store with no other."""

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

    def tell(self) -> None:
        if self.future.done():  # who waited has gone
            return
        if self.error is not None:
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
        self._words = lru_cache(maxsize=None)(database.words)
        self._broker = broker
        self._readers: deque[Connection] = deque()
        self._writer: Connection | None = None
        self._writes = threading.Lock()  # who has it has the writer's connection
        self._guard = threading.Lock()  # of the five below
        self._waiting: list[_Part[Any]] = []
        self._is_writing = False
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._wake = threading.Semaphore(0)
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
            held = None
            with suppress(IndexError):
                held = self._readers.pop()
            connection = self._begun(held, writes=False, alone=False)
            try:
                yield Transaction(connection, self._words, self._broker, alone=False)
                connection.execute("COMMIT")
            except BaseException:
                self._end(connection)
                raise
            if self._is_closed:
                connection.close()
            else:
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
        with self._writes, self._errors():
            held, self._writer = self._writer, None
            connection = self._begun(held, writes=True, alone=alone)
            try:
                transaction = Transaction(connection, self._words, self._broker, alone=alone)
                yield transaction
                if alone:
                    transaction.count_change()
                connection.execute("COMMIT")
            except BaseException:
                self._end(connection)
                raise
            self._writer = connection

    def _begun(self, held: Connection | None, *, writes: bool, alone: bool) -> Connection:
        """A connection in a transaction: the one that is held, or a new one where that is dead."""
        begin = self._database.begin(writes=writes, alone=alone)
        if held is not None:
            try:
                held.execute(begin)
            except self._database.errors:
                self._end(held)
            else:
                return held
        connection = self._database.connect(writes=writes)
        try:
            connection.execute(begin)
        except BaseException:
            self._end(connection)
            raise
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._database.errors as error:
            raise self._failure(error) from None

    def _failure(self, error: BaseException) -> StoreFailed:
        """What failed, without statement and parameters: those hold sealed values and tokens."""
        kind = StoreFailed
        if isinstance(error, self._database.taken):
            kind = Taken
        elif isinstance(error, self._database.again):
            kind = Crossed
        told = str(error).partition("\n")[0]
        return kind(f"the store failed: {type(error).__name__}: {told}", path=self._database.name)

    def _end(self, connection: Connection) -> None:
        """Close a connection whose transaction failed: what it still holds is undone."""
        with suppress(self._database.errors):
            connection.close()

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
        with self._guard:
            if self._is_closed:
                raise StoreFailed("the store is closed", path=self._database.name)
            self._waiting.append(part)
            is_writing = self._is_writing
        if not is_writing:
            # What else is ready in this turn of the loop goes into the same transaction.
            loop.call_soon(self._begin_writing)
        return part.future

    def _begin_writing(self) -> None:
        with self._guard:
            if self._is_writing or not self._waiting:
                return
            self._is_writing = True
            self._start_thread()
        self._wake.release()

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._write_all, name="imagers-broker-writer", daemon=True
            )
            self._thread.start()

    def _write_all(self) -> None:
        """The writer's thread: transactions of all that waits, until the store is closed."""
        while True:
            self._wake.acquire()
            while True:
                with self._guard:
                    parts, self._waiting = self._waiting, []
                    self._is_writing = bool(parts)
                    if not parts and self._is_closed:
                        return
                if not parts:
                    break
                for alone, some in groupby(parts, lambda part: part.alone):
                    if alone:
                        for part in some:
                            self._write_parts([part], alone=True)
                    else:
                        self._write_parts(list(some), alone=False)

    def _write_parts(self, parts: Sequence[_Part[Any]], *, alone: bool) -> None:
        self._write_together(parts, alone=alone)
        if isinstance(parts[0].error, Crossed):
            # With another broker's, over rows that both add. One part holds few of them.
            for part in parts:
                part.error = None
                self._write_together([part], alone=alone)
        for loop in {part.loop for part in parts}:
            mine = [part for part in parts if part.loop is loop]
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(_tell, mine)

    def _write_together(self, parts: Sequence[_Part[Any]], *, alone: bool) -> None:
        try:
            with self._writing(alone=alone) as transaction:
                for part in parts:
                    self._run(part, transaction)
        except BaseException as error:  # noqa: BLE001 - handed to who waits for it
            for part in parts:
                part.error = error

    def _run(self, part: _Part[Any], transaction: Transaction) -> None:
        transaction.begin_part()
        try:
            part.result = part.work(transaction)
        except self._database.taken as error:
            part.error = self._failure(error)
        except self._database.errors:
            raise  # all of the transaction ends
        except Exception as error:  # noqa: BLE001 - handed to who waits for it
            part.error = error
        if part.error is None:
            transaction.keep_part()
        else:
            transaction.undo_part()

    def close(self) -> None:
        """Write what waits, then close all connections. Safe to call twice."""
        with self._guard:
            self._is_closed = True
            if self._waiting:
                self._start_thread()
        if self._thread is not None:
            self._wake.release()
            self._thread.join()
            self._thread = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        while self._readers:
            self._readers.pop().close()
        self._database.close()


def _tell(parts: Sequence[_Part[Any]]) -> None:
    for part in parts:
        part.tell()
