# SPDX-License-Identifier: Apache-2.0
"""The store of one broker: connections that are held, and one writer.

To be durable costs the same for one row and for a hundred. So what waits to be written is written
together, each part so that it can be undone alone, and `write` answers when the transaction is on
disk. Where statements wait for nobody, they run in the event loop: a thread for them would cost
more than they do. What waits, the flush to disk or a database far away, is a thread's.

    reading       sees one state, and waits for no writer
    write         adds: sessions, audit rows
    change        alters what releases are judged by; no `write` of any broker runs beside it

So who has judged by what it read, and finds the store's `changes` the same in its `write`, has
judged by what is in force.

A store is unsealed once, with the keys of its head; before that its sealed tables are not read.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from imagers.broker.keeping.database import Crossed, StoreFailed, Taken
from imagers.broker.keeping.head import Seen
from imagers.broker.keeping.sealed import Altered, HeldHeads
from imagers.broker.keeping.tables import LASTING
from imagers.broker.keeping.transaction import Transaction
from imagers.model.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from imagers.broker.keeping.database import Connection, Database
    from imagers.broker.keeping.head import Head, Name, Value
    from imagers.broker.keeping.rows import StoreRow
    from imagers.broker.keeping.sealed import HeadKeys

__all__ = ["BROKER", "Older", "Store", "Unsealed"]

BROKER = "broker"
"""The name of a broker that shares its store with no other."""

_ASIDE = 2  # looks that take their time, at once

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Unsealed:
    """How a store was found.

    Attributes:
        is_first: it had no head until now.
        older: the number of its head, where that is lower than one that was seen before.
    """

    is_first: bool
    older: int | None


class Older(StoreFailed):
    """A whole database that is older than one that this broker has seen.

    Attributes:
        number: of its head.
    """

    def __init__(self, number: int, least: int, *, path: str) -> None:
        super().__init__(
            f"expected change {least} or later, got {number}: it is an old copy",
            path=path,
            hint="if you have put back a backup, and will take back again what was taken back "
            "since: say --accept-older-state, once",
        )
        self.number = number


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

    Attributes:
        before_commit: called with each transaction that wrote, at its end.

    Threads: safe.
    """

    def __init__(self, database: Database, broker: str = BROKER) -> None:
        self._database = database
        self._words = lru_cache(maxsize=None)(database.words)
        self._broker = broker
        self._readers: deque[Connection] = deque()
        self._writer: Connection | None = None
        self._writes = threading.Lock()  # who has it has the writer's connection
        self._guard = threading.RLock()  # of the three below
        self._waiting: deque[_Part[Any]] = deque()
        self._is_writing = False
        self._is_closed = False
        self._heads: HeldHeads | None = None
        self._keep: Callable[[Seen], None] | None = None
        self._kept = threading.Lock()  # of the three below
        self._made_lasting: list[tuple[Value, ...]] = []
        self._kept_number = 0
        self._kept_digests: dict[str, Mapping[Name, bytes]] = {}
        # Of its own, or some admins' long looks would take all threads that judge evidence.
        self._aside = ThreadPoolExecutor(_ASIDE, "imagers-broker-look")
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # of the thread
        self._thread = threading.Thread(
            target=self._run_work, name="imagers-broker-writer", daemon=True
        )
        self._thread.start()
        self.before_commit: Callable[[Transaction], None] = _do_nothing
        try:
            with self._errors():
                database.make_schema()
            with self._writing(alone=False) as transaction:
                transaction.enter_broker()
        except BaseException:
            self.close()
            raise

    def unseal(
        self,
        keys: HeadKeys,
        *,
        seen: Seen | None = None,
        accept_older: bool = False,
        keep: Callable[[Seen], None] | None = None,
        fill: Callable[[Transaction], None] | None = None,
    ) -> Unsealed:
        """Verify the head; from then on the sealed tables are read and written.

        A store without a head gets one if it may: it has no rows that somebody could have put
        there, or was taken over from an earlier version; not where a head was seen before.

        Args:
            seen: what this broker saw of the store; None: nothing.
            accept_older: believe a head with a lower number; what stays for ever is put into it.
            keep: writes down what was seen, outside of the database; not in an event loop.
            fill: puts rows and a head there first; each row is compared with the head then, and
                all is undone where one does not fit.

        Raises:
            Altered: it is not what the brokers of this store made it.
            Older: it is older than what was seen.
            StoreFailed: the key of its head is not here.
        """
        heads = HeldHeads(keys, path=self._database.name)
        least = None if seen is None else seen.number
        with self._writes, self._errors():
            connection, transaction = self._open(alone=True, heads=heads)
            try:
                if fill is not None:
                    fill(transaction)
                row = transaction.store_row()
                if row.head is None:
                    self._begin_head(transaction, heads, least)
                transaction.sealed.verify(rows=fill is not None)
                older = self._older(row, least, accept=accept_older)
                if older is not None and seen is not None:
                    transaction.put_lasting(seen.lasting)
            except BaseException:
                self._undo(connection)
                raise
            heads.on_newest = lambda: self._work.put(self._keep_number)
            self._heads, self._keep = heads, keep
            self._commit(connection, transaction, number=max(row.changes, least or 0) + 1)
        return Unsealed(is_first=row.head is None, older=older)

    def _older(self, row: StoreRow, least: int | None, *, accept: bool) -> int | None:
        """The number, where it is lower than one that was seen; raises unless that is accepted."""
        if least is None or least <= row.changes:
            return None
        if not accept:
            raise Older(row.changes, least, path=self._database.name)
        return row.changes

    def _begin_head(self, transaction: Transaction, heads: HeldHeads, least: int | None) -> None:
        if least is not None:
            raise heads.altered("it has no head")
        if transaction.sealed.begin() and not self._database.takes_over:
            raise heads.altered("it has rows, and no head")

    @property
    def fault(self) -> Altered | None:
        """What was changed from outside, once that was seen."""
        return None if self._heads is None else self._heads.fault

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
            connection = self._begun(held, self._database.begin_reading(), writes=False)
            try:
                yield self._transaction(connection, alone=False)
            finally:
                self._end_reading(connection)

    def _end_reading(self, connection: Connection) -> None:
        try:
            connection.execute("ROLLBACK")
        except self._database.errors:
            self._end(connection)
        else:
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
            connection, transaction = self._open(alone=alone)
            try:
                yield transaction
            except BaseException:
                self._undo(connection)
                raise
            self._commit(connection, transaction)

    def _transaction(
        self, connection: Connection, *, alone: bool, heads: HeldHeads | None = None
    ) -> Transaction:
        heads = heads or self._heads
        return Transaction(connection, self._words, self._broker, heads, alone=alone)

    def _open(
        self, *, alone: bool, patient: bool = True, heads: HeldHeads | None = None
    ) -> tuple[Connection, Transaction]:
        """A transaction that writes, for who has `_writes`."""
        held, self._writer = self._writer, None
        begin = self._database.begin_writing(alone=alone, patient=patient)
        connection = self._begun(held, begin, writes=True)
        return connection, self._transaction(connection, alone=alone, heads=heads)

    def _commit(
        self, connection: Connection, transaction: Transaction, *, number: int | None = None
    ) -> None:
        head = None
        try:
            if transaction.is_alone:
                head = transaction.sealed.seal(number=number)
            self.before_commit(transaction)
            connection.execute("COMMIT")
        except BaseException:
            self._end(connection)
            raise
        self._writer = connection
        if head is not None and self._heads is not None:
            # It is on disk: no state before it is believed any more, nor after another start.
            with self._kept:  # what stays for ever, as it was made: it may be changed by now
                self._made_lasting += transaction.sealed.made_lasting.values()
            self._heads.hold(head)
            self._keep_number()

    def _keep_number(self) -> None:
        """Let what was seen be written down outside of the database, if it is more than before."""
        if self._heads is None or self._keep is None:
            return
        with self._kept:
            if (number := self._heads.number) > self._kept_number:
                lasting = (*self._made_lasting, *self._lasting(self._heads.newest()))
                self._keep(Seen(number, tuple(dict.fromkeys(lasting))))
                self._kept_number = number
                self._made_lasting.clear()

    def _lasting(self, head: Head) -> tuple[tuple[Value, ...], ...]:
        """The rows that stay for ever, where there can be others than the last time."""
        digests = {table: head.rows((table,)) for table in LASTING}
        if digests == self._kept_digests:
            return ()
        try:
            with self.reading() as transaction:
                rows = tuple(transaction.sealed.lasting())
        except StoreFailed:  # the change is on disk; they are looked for again after the next one
            return ()
        self._kept_digests = digests
        return rows

    def _undo(self, connection: Connection) -> None:
        try:
            connection.execute("ROLLBACK")
        except self._database.errors:
            self._end(connection)
        else:
            self._writer = connection

    def _begun(self, held: Connection | None, begin: Sequence[str], *, writes: bool) -> Connection:
        """A connection in a transaction: the one that is held, or a new one where that is dead."""
        if held is not None:
            try:
                for statement in begin:
                    held.execute(statement)
            except self._database.errors:
                self._end(held)
            else:
                return held
        connection = self._database.connect(writes=writes)
        try:
            for statement in begin:
                connection.execute(statement)
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

    async def read_aside(self, work: Callable[[Transaction], _T]) -> _T:
        """The same, for what takes its time: in a thread of a few that guests do not wait for."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, self._read, work)

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
            if self._is_writing or not self._waiting or self._is_closed:
                return
            self._is_writing = True
            parts = self._take()
            if self._database.waits or not self._writes.acquire(blocking=False):
                self._work.put(partial(self._write_all, parts))
                return
        try:
            connection, transaction = self._open(alone=parts[0].alone, patient=False)
        except Exception:  # noqa: BLE001 - another process writes, or the thread fails and tells it
            self._work.put(partial(self._write_all, parts))
            self._writes.release()
            return
        error: BaseException | None = None
        try:
            self._run_all(parts, transaction)
        except BaseException as failure:  # noqa: BLE001 - handed to who waits for it
            error = failure
        self._work.put(partial(self._finish, parts, connection, transaction, error))

    def _run_work(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _take(self) -> Sequence[_Part[Any]]:
        """The parts of the next transaction: one that is alone, or all until the next such."""
        with self._guard:
            parts = [self._waiting.popleft()] if self._waiting else []
            while parts and not parts[0].alone and self._waiting and not self._waiting[0].alone:
                parts.append(self._waiting.popleft())
        return parts

    def _write_all(self, parts: Sequence[_Part[Any]]) -> None:
        """In the thread: these parts, and then all that waits."""
        while parts:
            error = self._write_together(parts)
            if isinstance(error, Crossed):
                # With another broker's, over rows that both add. One part holds few of them.
                for part in parts:
                    part.error = None
                    self._tell([part], self._write_together([part]))
            else:
                self._tell(parts, error)
            parts = self._take()
        self._end_writing()

    def _write_together(self, parts: Sequence[_Part[Any]]) -> BaseException | None:
        """What ended the transaction of these parts, if something did."""
        try:
            with self._writing(alone=parts[0].alone) as transaction:
                self._run_all(parts, transaction)
        except BaseException as error:  # noqa: BLE001 - handed to who waits for it
            return error
        return None

    def _finish(
        self,
        parts: Sequence[_Part[Any]],
        connection: Connection,
        transaction: Transaction,
        error: BaseException | None,
    ) -> None:
        """In the thread: the end of a transaction whose statements ran."""
        try:
            if error is None:
                self._commit(connection, transaction)
            else:
                self._undo(connection)
        except BaseException as failure:  # noqa: BLE001 - handed to who waits for it
            error = failure
        finally:
            self._writes.release()
        self._tell(parts, error)
        self._end_writing()

    def _end_writing(self) -> None:
        with self._guard:
            self._is_writing = False
            loops = {part.loop for part in self._waiting}
        for loop in loops:
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(self._begin_writing)

    def _run_all(self, parts: Sequence[_Part[Any]], transaction: Transaction) -> None:
        """Run the work of each part. What it raises ends the whole transaction."""
        if len(parts) == 1:  # it is undone with all of it
            parts[0].result = parts[0].work(transaction)
            return
        for part in parts:
            self._run_part(part, transaction)

    def _run_part(self, part: _Part[Any], transaction: Transaction) -> None:
        transaction.begin_part()
        try:
            part.result = part.work(transaction)
        except self._database.again:
            raise  # all of the transaction has to go
        except Exception as error:  # noqa: BLE001 - handed to who waits for it
            part.error = error
            transaction.undo_part()  # which fails where the whole transaction has
        else:
            transaction.keep_part()

    def _tell(self, parts: Sequence[_Part[Any]], error: BaseException | None) -> None:
        """Let those know who wait."""
        for part in parts:
            found = error if error is not None else part.error
            is_ours = isinstance(found, self._database.errors)
            part.error = self._failure(found) if is_ours and found is not None else found
        for loop in {part.loop for part in parts}:
            mine = [part for part in parts if part.loop is loop]
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(_tell, mine)

    def close(self) -> None:
        """Write what waits, then close all connections. Safe to call twice."""
        with self._guard:
            self._is_closed = True
        with self._writes:  # whose statements run has handed over the rest when it is free
            self._work.put(lambda: self._write_all(self._take()))
            self._work.put(None)
        self._thread.join()
        self._aside.shutdown(cancel_futures=True)
        self._keep_number()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        while self._readers:
            self._readers.pop().close()
        self._database.close()


def _do_nothing(transaction: Transaction) -> None:
    """What is done before a commit unless somebody wants more."""


def _tell(parts: Sequence[_Part[Any]]) -> None:
    for part in parts:
        part.tell()
