# SPDX-License-Identifier: Apache-2.0
"""Rows of the sealed tables, each as the brokers of this store last made it, or an error.

Who can write the database and has no key can change rows, put old ones back, remove some or all,
and put a whole old database in the place of the new one. What is read here is compared with the
head that the brokers of the store made: the digest of a row with its digest in the head, the names
of rows with all names in the head, and the head's number with the highest one that was seen. What
is written here goes into the next head, and nothing else does: what was changed from outside is
never believed because something else was changed after it.

    rows = SealedRows(...)             # of one transaction
    rows.get("bindings", path, digest)
    rows.put("bindings", (path, digest))

Tables and their columns are in `tables`. Statements about them are made here alone.
"""

from __future__ import annotations

import hmac
import json
import threading
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from imagers.broker.keeping.database import StoreFailed
from imagers.broker.keeping.head import (
    BUCKETS,
    DIGEST_BYTES,
    Bucket,
    Head,
    bucket_of,
    row_digest,
    shown,
)
from imagers.broker.keeping.tables import DEFAULT_TENANT, LASTING, SEALED
from imagers.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from imagers.broker.keeping.database import Cursor
    from imagers.broker.keeping.head import Name, Value
    from imagers.broker.keeping.rows import StoreRow

__all__ = ["Altered", "HeadKeys", "HeldHeads", "SealedRows"]

_HELD = 8  # heads: a reader may still see the state before some changes
_HINT = (
    "somebody writes this database besides the brokers: docs/broker.md, 'The store was changed "
    "from outside', says what to do"
)


class Altered(StoreFailed):
    """A row, or the whole database, is not what the brokers of this store made it."""

    def __init__(self, what: str, *, path: str, hint: str = _HINT) -> None:
        super().__init__(f"the store was changed from outside: {what}", path=path, hint=hint)


class HeadKeys(Protocol):
    """The keys of heads, by the ids of the master keys that they are derived from.

    Attributes:
        current: id of the key in force: new heads are made with it.
    """

    current: str

    def mac(self, key: str, message: bytes) -> bytes:
        """The MAC of a message.

        Raises:
            LocalError: there is no such key here.
        """
        ...


class HeldHeads:
    """The heads that one broker has verified, the newest ones.

    Args:
        path: of the database, for messages.

    Attributes:
        number: the highest that was seen; a database with a lower one is an old one.
        on_newest: is called for each head that is newer than all before.
        fault: what was changed from outside, once that was seen; else None.

    Threads: safe.
    """

    def __init__(self, keys: HeadKeys, *, path: str) -> None:
        self.keys = keys
        self.path = path
        self.number = 0
        self.on_newest: Callable[[], None] | None = None
        self.fault: Altered | None = None
        self._lock = threading.Lock()
        self._heads: tuple[Head, ...] = ()
        self._former: set[str] = set()

    def hold(self, head: Head) -> None:
        """Remember a head that was verified, or made and kept."""
        with self._lock:
            is_newest = not self._heads or head.number > self._heads[0].number
            others = [one for one in self._heads if one.number != head.number]
            heads = sorted((head, *others), key=lambda one: -one.number)
            self._heads = tuple(heads[:_HELD])
            self.number = max(self.number, head.number)
            if is_newest:
                self._former |= {one.key for one in heads} - {head.key, ""}
                self.keys.current = head.key
        if is_newest and self.on_newest is not None:
            self.on_newest()

    def find(self, row: StoreRow) -> Head | None:
        """The head of a state of the database; None: it is another broker's, or long ago.

        Raises:
            Altered: there were two states of this number.
        """
        for head in self._heads:
            if head.number == row.changes:
                if row.head != head.mac:
                    raise self.altered(f"change {row.changes} has another head")
                return head
        return None

    def check_key(self, row: StoreRow) -> None:
        """Raise where a new head is made with a key that was rotated away: others may have it.

        Raises:
            Altered: it is.
        """
        if row.changes > self.number and row.head_key in self._former:
            raise self.altered("its head is made with a former master key")

    def newest(self) -> Head:
        """The newest; one without rows where there is none."""
        heads = self._heads
        return heads[0] if heads else Head(0, "", b"")

    def altered(self, what: str) -> Altered:
        """The error, which is remembered."""
        error = Altered(what, path=self.path)
        self.fault = self.fault or error
        return error


def _columns(table: str) -> tuple[str, ...]:
    return (*SEALED[table].key, *SEALED[table].values)


def _is_lasting(table: str, *row: Value) -> bool:
    """Whether a row, the values of all columns, stays for ever."""
    if table not in LASTING:
        return False
    column, value = LASTING[table]
    return row[_columns(table).index(column)] == value


@cache
def _select(table: str, columns: int) -> str:
    """The statement for rows whose key has so many columns given."""
    tests = " AND ".join(f"{name} = :{name}" for name in SEALED[table].key[:columns])
    where = f" WHERE {tests}" if tests else ""
    return f"SELECT {', '.join(_columns(table))} FROM {table}{where}"  # noqa: S608 - names of ours


@cache
def _insert(table: str) -> str:
    names = _columns(table)
    values = ", ".join(f":{name}" for name in names)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"  # noqa: S608 - names of ours


@cache
def _delete(table: str) -> str:
    tests = " AND ".join(f"{name} = :{name}" for name in SEALED[table].key)
    return f"DELETE FROM {table} WHERE {tests}"  # noqa: S608 - names of ours


_SET_BUCKET = (
    "INSERT INTO buckets (number, digest) VALUES (:number, :digest) "
    "ON CONFLICT (number) DO UPDATE SET digest = excluded.digest"
)
_DROP_SEAL = "DELETE FROM seals WHERE bucket = :bucket AND name = :name"
_ADD_SEAL = "INSERT INTO seals (bucket, name, digest) VALUES (:bucket, :name, :digest)"
_SET_HEAD = "UPDATE store SET changes = :number, head = :mac, head_key = :key"


class SealedRows:
    """Reads and writes of the sealed tables in one transaction.

    Args:
        run: runs a statement.
        row: what the database says of itself, in this transaction.
        heads: None: the store was not unsealed; nothing of it can be read then.
        alone: whether it may write.

    Attributes:
        made_lasting: the rows that were written here and stay for ever, by name; see `lasting`.
    """

    def __init__(
        self,
        run: Callable[..., Cursor],
        row: Callable[[], StoreRow],
        heads: HeldHeads | None,
        *,
        alone: bool,
    ) -> None:
        self._run = run
        self._row = row
        self._heads = heads
        self._alone = alone
        self._head: Head | None = None
        self._marked: dict[Name, bytes | None] = {}
        self.made_lasting: dict[Name, tuple[Value, ...]] = {}

    # Reading

    def get(self, table: str, *key: str | int) -> Sequence[Any] | None:
        """The values of the row of that key; None: there is none.

        Raises:
            Altered: it is not as it was made, or there is one where there should be none.
        """
        count = len(SEALED[table].key)
        assert len(key) == count  # else it would be any of several rows
        found = self._select(table, key).fetchone()
        name = (table, *key)
        self._compare(name, found, self._digest(name))
        return None if found is None else found[count:]

    def rows(self, table: str, *key: str | int) -> Sequence[tuple[Any, ...]]:
        """All rows of a table whose key begins so, keys and values, sorted by key.

        Raises:
            Altered: one of them is not as it was made; one is missing, or too many.
        """
        count = len(SEALED[table].key)
        expected = self._expected((table, *key))
        found = {(table, *row[:count]): row for row in self._select(table, key).fetchall()}
        for name, row in found.items():
            self._compare(name, row, expected.get(name))
        if len(found) < len(expected):
            for name in expected.keys() - found.keys():
                self._compare(name, None, expected[name])
        return [found[name] for name in sorted(found)]

    def names(self, table: str, *key: str | int) -> Sequence[Name]:
        """The names of the rows whose key begins so, sorted; the table itself is not read."""
        return sorted(self._expected((table, *key)))

    def _expected(self, prefix: Name) -> Mapping[Name, bytes]:
        """The digests of the rows whose name begins so, by name, as this transaction has them."""
        there = self._verified().rows(prefix)
        if not self._marked:
            return there
        marked = {n: one for n, one in self._marked.items() if n[: len(prefix)] == prefix}
        return {name: one for name, one in ({**there, **marked}).items() if one is not None}

    def _select(self, table: str, key: Sequence[str | int]) -> Cursor:
        given = dict(zip(SEALED[table].key, key, strict=False))
        return self._run(_select(table, len(key)), **given)

    def _compare(self, name: Name, row: Sequence[Any] | None, expected: bytes | None) -> None:
        if row is None:
            if expected is not None:
                raise self._held.altered(f"the row {shown(name)} is missing")
            return
        if expected is None:
            raise self._held.altered(f"no broker made the row {shown(name)}")
        if row_digest(name, row[len(name) - 1 :]) != expected:
            raise self._held.altered(f"the row {shown(name)} is not what a broker made it")

    def _digest(self, name: Name) -> bytes | None:
        return self._marked[name] if name in self._marked else self._verified().find(name)

    @property
    def _held(self) -> HeldHeads:
        if self._heads is None:
            raise RuntimeError("the store was not unsealed")
        return self._heads

    def lasting(self) -> Sequence[tuple[Value, ...]]:
        """The rows that stay for ever: table, then the values of all columns.

        Raises:
            Altered: one of them is not as it was made.
        """
        # Of all rows: one whose column was changed would not be found by it.
        found = ((table, *row) for table in LASTING for row in self.rows(table))
        return [row for row in found if _is_lasting(*row)]

    # Writing

    def insert(self, table: str, key: Sequence[str | int], values: Sequence[Value] = ()) -> None:
        """Add a row. The database refuses it where there is one of this key."""
        name = self._writable(table, key)
        given = dict(zip(_columns(table), (*key, *values), strict=True))
        self._run(_insert(table), **given)
        self._marked[name] = row_digest(name, values)
        if _is_lasting(table, *key, *values):
            self.made_lasting[name] = (table, *key, *values)

    def put(self, table: str, key: Sequence[str | int], values: Sequence[Value] = ()) -> None:
        """Add a row, in the place of the one that may be there."""
        self.remove(table, *key)
        self.insert(table, key, values)

    def remove(self, table: str, *key: str | int) -> bool:
        """Remove a row; whether there was one."""
        name = self._writable(table, key)
        was_there = self._digest(name) is not None
        self._run(_delete(table), **dict(zip(SEALED[table].key, key, strict=True)))
        self._marked[name] = None
        return was_there

    def remove_all(self, table: str, *key: str | int) -> None:
        """Remove all rows whose key begins so."""
        for name in self.names(table, *key):
            self.remove(*name)  # type: ignore[arg-type]  # the first part is the table

    def _writable(self, table: str, key: Sequence[str | int]) -> Name:
        if not self._alone:
            raise RuntimeError(f"'{table}' is sealed: only a change may write it")
        self._verified()  # before anything of it is written
        return (table, *key)

    # The head

    def _verified(self) -> Head:
        """The head of the state that the transaction sees.

        Raises:
            Altered: it is none of the brokers', or older than one that was seen.
            StoreFailed: its key is not here.
        """
        if self._head is None:
            row = self._row()
            if row.head is None:
                raise self._held.altered("it has no head")
            self._head = self._held.find(row) or self._load(row, row.head)
        return self._head

    def _load(self, row: StoreRow, mac: bytes) -> Head:
        """Read the buckets that are other ones than in the newest head that is held."""
        held, base = self._held, self._held.newest()
        digests = [Bucket().digest] * BUCKETS
        for number, digest in self._run("SELECT number, digest FROM buckets").fetchall():
            is_one = isinstance(digest, bytes) and len(digest) == DIGEST_BYTES
            if not isinstance(number, int) or number not in range(BUCKETS) or not is_one:
                raise held.altered("its head is none of the brokers'")
            digests[number] = digest
        held.check_key(row)
        message = Head.message(row.changes, digests)
        if not hmac.compare_digest(self._mac(row.head_key, message), mac):
            raise held.altered("its head is none of the brokers'")
        others = [n for n, digest in enumerate(digests) if digest != base.buckets[n].digest]
        groups: dict[int, dict[Name, dict[Name, bytes]]] = {number: {} for number in others}
        for bucket, name, digest in self._seals(others):
            if bucket in groups:
                found = self._parse(name, digest)
                groups[bucket].setdefault(found[:2], {})[found] = digest
        buckets = list(base.buckets)
        for number in others:
            buckets[number] = Bucket.of(groups[number])
            if buckets[number].digest != digests[number]:
                raise held.altered("the digests of its rows are not those of its head")
        head = Head(row.changes, row.head_key, mac, tuple(buckets))
        held.hold(head)
        return head

    def _parse(self, name: Any, digest: Any) -> Name:
        """What `shown` gave, or anything else, whose digest is then another one."""
        with suppress(TypeError, ValueError, RecursionError):
            found = tuple(json.loads(name))
            # Of another length, it could be one digest and the whole of the next row after it.
            is_digest = isinstance(digest, bytes) and len(digest) == DIGEST_BYTES
            if is_digest and all(isinstance(one, (str, int)) for one in found):
                return found
        raise self._held.altered("it has a seal that is none")

    def _mac(self, key: str, message: bytes) -> bytes:
        try:
            return self._held.keys.mac(key, message)
        except LocalError as error:
            raise StoreFailed(str(error), hint=error.hint) from None

    def _seals(self, buckets: Sequence[int]) -> Sequence[tuple[Any, ...]]:
        all_of_them = "SELECT bucket, name, digest FROM seals"
        if len(buckets) > BUCKETS // 8:
            return self._run(all_of_them).fetchall()
        found: list[tuple[Any, ...]] = []
        for number in buckets:
            one = f"{all_of_them} WHERE bucket = :bucket"
            found += self._run(one, bucket=number).fetchall()
        return found

    def verify(self, *, rows: bool = False) -> None:
        """Raise unless the head is one of the brokers'.

        Args:
            rows: and each row of all tables is as it says.

        Raises:
            Altered: it is not.
            StoreFailed: its key is not here.
        """
        self._verified()
        for table in SEALED if rows else ():
            self.rows(table)

    def begin(self) -> bool:
        """Begin the first head, of all rows that are there; whether a broker has put any there."""
        assert self._alone
        self._head = Head(self._row().changes, "", b"")
        for table, sealed in SEALED.items():
            for row in self._run(_select(table, 0)).fetchall():
                name = (table, *row[: len(sealed.key)])
                self._marked[name] = row_digest(name, row[len(sealed.key) :])
        return bool(self._marked.keys() - {("tenants", DEFAULT_TENANT)})

    def fill(
        self,
        rows: Iterable[tuple[str, Mapping[str, Value]]],
        *,
        number: int,
        head: bytes,
        head_key: str,
    ) -> None:
        """Put rows of another store in the place of all that is here, and its head, unverified.

        Args:
            rows: tables, sealed and others, and values by column: names of ours.
        """
        for table in SEALED:
            self._run(f"DELETE FROM {table}")  # noqa: S608 - names of ours
        for table, row in rows:
            values = ", ".join(f":{name}" for name in row)
            self._run(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})", **row)  # noqa: S608 - names of ours
        self._run(_SET_HEAD, number=number, mac=head, key=head_key)

    def seal(self, *, number: int | None = None) -> Head:
        """End a change: write the next head, with what was written here and nothing else.

        Args:
            number: of it; None: the next one.
        """
        before = self._verified()
        if number is None:
            number = before.number + 1
        changed = before.changed(self._marked)
        for name, digest in self._marked.items():
            if before.find(name) == digest:
                continue
            given = {"bucket": bucket_of(name), "name": shown(name)}
            self._run(_DROP_SEAL, **given)
            if digest is not None:
                self._run(_ADD_SEAL, **given, digest=digest)
        buckets = list(before.buckets)
        for bucket_number, bucket in changed.items():
            buckets[bucket_number] = bucket
            self._run(_SET_BUCKET, number=bucket_number, digest=bucket.digest)
        key = self._held.keys.current
        mac = self._mac(key, Head.message(number, (bucket.digest for bucket in buckets)))
        self._run(_SET_HEAD, number=number, mac=mac, key=key)
        self._marked.clear()
        return Head(number, key, mac, tuple(buckets))
