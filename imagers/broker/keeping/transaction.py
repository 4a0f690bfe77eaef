# SPDX-License-Identifier: Apache-2.0
"""Reads and writes that happen together or not at all.

Statements are made once: to build one costs more than to run it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from imagers.broker.keeping.rows import Session, StoredResource, StoreRow
from imagers.broker.keeping.tables import AUDIT_TEXTS, NUMBER_DIGITS
from imagers.kbs.resources import ResourcePath, parse_resource_path
from imagers.model.digest import Digest, parse_digest
from imagers.model.references import parse_references, references_to_json
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from imagers.broker.keeping.database import Connection, Cursor
    from imagers.model.references import ReferenceValue

__all__ = ["FIRST_HASH", "STORE_ID_BYTES", "Link", "Transaction", "chain_hash"]

STORE_ID_BYTES = 16
FIRST_HASH = bytes(32)
"""What stands in for the hash before the first row of a chain."""
_SESSION = tuple(one.name for one in fields(Session))
_AUDIT = ("broker", "number", *AUDIT_TEXTS)


def _insert(table: str, *columns: str) -> str:
    values = ", ".join(f":{name}" for name in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608 - names of ours


_FIND_RESOURCE = "SELECT sealed, size, version, created_at FROM resources WHERE path = :path"
_INSERT_RESOURCE = _insert("resources", "path", "sealed", "size", "version", "created_at")
_NEXT_VERSION = (
    "INSERT INTO versions (path, last) VALUES (:path, 1) "
    "ON CONFLICT (path) DO UPDATE SET last = versions.last + 1"
)
_STORE = (
    "SELECT id, changes, (SELECT max(seen_ms) FROM brokers), (SELECT count(*) FROM era) FROM store"
)
_KEEP_TIME = "UPDATE brokers SET seen_ms = :now_ms WHERE name = :broker AND seen_ms < :now_ms"
_FIND_SESSION = f"SELECT {', '.join(_SESSION)} FROM sessions WHERE name = :name"  # noqa: S608 - ours
_INSERT_SESSION = _insert("sessions", "broker", *_SESSION)
_KEEP_COLLATERAL = (
    "INSERT INTO collateral (name, number) VALUES (:name, :number) "
    "ON CONFLICT (name) DO UPDATE SET number = excluded.number "
    "WHERE collateral.number < excluded.number"
)
_LAST_LINK = "SELECT number, hash FROM audit WHERE broker = :broker ORDER BY number DESC LIMIT 1"
_INSERT_AUDIT = _insert("audit", *_AUDIT, "hash")
_SHOWN_AUDIT = ("hash", *AUDIT_TEXTS)
_NEXT_LINKS = (
    f"SELECT {', '.join(_AUDIT)}, hash, place FROM audit "  # noqa: S608 - names of ours
    "WHERE broker = :broker AND (number > :number OR (number = :number AND place > :place)) "
    "ORDER BY number, place LIMIT 1000"
)
_LAST_HEADS = (
    "SELECT signed FROM audit_heads AS one WHERE number = "
    "(SELECT max(number) FROM audit_heads WHERE broker = one.broker) ORDER BY broker"
)
_ID_BYTES = 8  # of a row's hash


@dataclass(frozen=True, slots=True)
class Link:
    """A row of a chain, by its broker, number from 1, and hash of 32 bytes."""

    broker: str
    number: int
    hash: bytes


def chain_hash(before: bytes, row: Mapping[str, str | int]) -> bytes:
    """The hash of an audit row, which names all rows of its chain before it.

    SHA-256 of the hash before, 32 bytes, and of the row's JSON: broker, number and texts in the
    order of the table, compact, in UTF-8.
    """
    told = {name: row[name] for name in _AUDIT}
    return sha256(before + dump_json(told)).digest()


class Transaction:
    """Reads and writes that happen together or not at all. Good inside its block.

    Args:
        words: see `Database`.
        broker: whose chain the audit rows continue.
        alone: whether it may change what releases are judged by.
    """

    def __init__(
        self,
        connection: Connection,
        words: Callable[[str], str],
        broker: str,
        *,
        alone: bool,
    ) -> None:
        self.is_alone = alone
        self._execute = connection.execute
        self._words = words
        self._broker = broker
        self._row: StoreRow | None = None
        self._link: Link | None = None
        self._has_new_link = False

    def _run(self, statement: str, **parameters: Any) -> Cursor:
        return self._execute(self._words(statement), parameters)

    # One piece of work among others

    def begin_part(self) -> None:
        """Begin what can be undone alone."""
        self._execute("SAVEPOINT part")

    def keep_part(self) -> None:
        """End it."""
        self._execute("RELEASE SAVEPOINT part")

    def undo_part(self) -> None:
        """End it as if it had not been."""
        self._execute("ROLLBACK TO SAVEPOINT part")
        self.keep_part()
        self._row = self._link = None  # `has_new_link` may say too much, which is no harm

    # Resources

    def find_resource(self, path: ResourcePath) -> StoredResource | None:
        """The resource of that name."""
        row = self._run(_FIND_RESOURCE, path=str(path)).fetchone()
        return None if row is None else StoredResource(path, *row)

    def next_version(self, path: ResourcePath) -> int:
        """The number for the next value of that name; it is never given again."""
        self._run(_NEXT_VERSION, path=str(path))
        found = self._run("SELECT last FROM versions WHERE path = :path", path=str(path))
        return int(_one(found)[0])

    def insert_resource(self, resource: StoredResource) -> None:
        """A new row; the name must be free."""
        self._run(
            _INSERT_RESOURCE,
            path=str(resource.path),
            sealed=resource.sealed,
            size=resource.size,
            version=resource.version,
            created_at=resource.created_at,
        )

    def delete_resource(self, path: ResourcePath) -> bool:
        """Whether there was one; its bindings go with it."""
        self._run("DELETE FROM bindings WHERE path = :path", path=str(path))
        return self._run("DELETE FROM resources WHERE path = :path", path=str(path)).rowcount > 0

    def list_resources(self) -> tuple[ResourcePath, ...]:
        """All names, sorted."""
        rows = self._run("SELECT path FROM resources ORDER BY path").fetchall()
        return tuple(parse_resource_path(path) for (path,) in rows)

    def bindings(self, path: ResourcePath) -> frozenset[Digest]:
        """The images that a resource belongs to."""
        found = self._run("SELECT manifest_digest FROM bindings WHERE path = :path", path=str(path))
        return frozenset(parse_digest(digest) for (digest,) in found.fetchall())

    def add_binding(self, path: ResourcePath, digest: Digest) -> None:
        """One more image; the pair must be new."""
        add = _insert("bindings", "path", "manifest_digest")
        self._run(add, path=str(path), manifest_digest=str(digest))

    # The store

    def store_row(self) -> StoreRow:
        """The one row about the database, as it was when this transaction first looked."""
        if self._row is None:
            identity, changes, seen_ms, eras = _one(self._run(_STORE))
            self._row = StoreRow(identity, changes, seen_ms or 0, eras > 0)
        return self._row

    def enter_broker(self) -> None:
        """Write down that there is this broker, if it is new."""
        statement = _insert("brokers", "name", "seen_ms") + " ON CONFLICT (name) DO NOTHING"
        self._run(statement, name=self._broker, seen_ms=0)

    def touch(self) -> None:
        """Write a row as it is: to see whether the store takes it."""
        self._run("UPDATE brokers SET seen_ms = seen_ms WHERE name = :name", name=self._broker)

    def count_change(self) -> None:
        """Tell all who remember what was in force that it may be so no more."""
        self._run("UPDATE store SET changes = changes + 1")
        self._row = None

    def keep_time(self, now_ms: int) -> None:
        """Remember a time, if it is later than the one that is kept."""
        row = self.store_row()
        if now_ms > row.seen_ms:
            self._run(_KEEP_TIME, broker=self._broker, now_ms=now_ms)
            self._row = replace(row, seen_ms=now_ms)

    def begin_again(self, now_ms: int) -> None:
        """Another id, no sessions, and time from `now_ms` on."""
        self._run("DELETE FROM sessions")
        self._run("DELETE FROM era")
        self._run("INSERT INTO era (number) VALUES (1)")
        self._run("UPDATE store SET id = :id", id=os.urandom(STORE_ID_BYTES))
        self._run("UPDATE brokers SET seen_ms = :now_ms", now_ms=now_ms)
        self._row = None

    # Sessions

    def drop_sessions(self, now_ms: int) -> None:
        """Forget those that need not be kept any more."""
        self._run("DELETE FROM sessions WHERE keep_until_ms <= :now_ms", now_ms=now_ms)

    def count_sessions(self) -> int:
        """How many attested at this broker and are kept."""
        statement = "SELECT count(*) FROM sessions WHERE broker = :broker"
        return int(_one(self._run(statement, broker=self._broker))[0])

    def find_slot(self, tee: str, instance: str, *, most: int) -> int | None:
        """A free place of a machine, which has `most` of them; None: all are taken."""
        statement = "SELECT slot FROM sessions WHERE tee = :tee AND instance = :instance"
        taken = {slot for (slot,) in self._run(statement, tee=tee, instance=instance).fetchall()}
        return next((slot for slot in range(most) if slot not in taken), None)

    def insert_session(self, session: Session) -> None:
        """A new row; its nonce, its name and its place must be free."""
        values = {name: getattr(session, name) for name in _SESSION}
        self._run(_INSERT_SESSION, broker=self._broker, **values)

    def find_session(self, name: str) -> Session | None:
        """The session of that name, whether it is over or not."""
        row = self._run(_FIND_SESSION, name=name).fetchone()
        return None if row is None else Session(**dict(zip(_SESSION, row, strict=True)))

    # Settings

    def get_setting(self, name: str) -> bytes | None:
        """A value, or None."""
        row = self._run("SELECT value FROM settings WHERE name = :name", name=name).fetchone()
        return None if row is None else row[0]

    def set_setting(self, name: str, value: bytes) -> None:
        """Set or replace a value."""
        self.delete_setting(name)
        self._run(_insert("settings", "name", "value"), name=name, value=value)

    def delete_setting(self, name: str) -> None:
        """Have no such value."""
        self._run("DELETE FROM settings WHERE name = :name", name=name)

    # Reference values

    def reference_values(self) -> Mapping[str, ReferenceValue]:
        """All of them by name, sorted."""
        rows = self._run("SELECT value FROM reference_values ORDER BY name").fetchall()
        found = (one for (value,) in rows for one in parse_references(value))
        return {one.name: one for one in found}

    def set_reference_value(self, value: ReferenceValue) -> None:
        """Set or replace one."""
        self.delete_reference_value(value.name)
        data = dump_json(references_to_json([value]))
        self._run(_insert("reference_values", "name", "value"), name=value.name, value=data)

    def delete_reference_value(self, name: str) -> bool:
        """Whether there was one."""
        statement = "DELETE FROM reference_values WHERE name = :name"
        return self._run(statement, name=name).rowcount > 0

    # Collateral

    def seen_collateral(self) -> Mapping[str, int]:
        """The highest number or time of each document that was believed."""
        rows = self._run("SELECT name, number FROM collateral").fetchall()
        return {name: int(number) for name, number in rows}

    def keep_collateral(self, numbers: Mapping[str, int]) -> None:
        """Remember numbers and times, where they are higher than those that are kept."""
        if not numbers:
            return
        seen = self.seen_collateral()
        for name, number in numbers.items():
            if number > seen.get(name, -1):
                self._run(_KEEP_COLLATERAL, name=name, number=f"{number:0{NUMBER_DIGITS}}")

    # Audit

    def append_audit(self, texts: Mapping[str, str]) -> None:
        """One more row, chained to the last one of this broker."""
        last = self.last_link()
        row: dict[str, Any] = {"broker": self._broker, "number": last.number + 1, **texts}
        row["hash"] = chain_hash(last.hash, row)
        self._run(_INSERT_AUDIT, **row)
        self._link = Link(self._broker, row["number"], row["hash"])
        self._has_new_link = True

    def last_link(self) -> Link:
        """The last row of this broker's chain; number 0 where it has none."""
        if self._link is None:
            row = self._run(_LAST_LINK, broker=self._broker).fetchone()
            self._link = Link(self._broker, *(row or (0, FIRST_HASH)))
        return self._link

    @property
    def has_new_link(self) -> bool:
        """Whether rows were appended."""
        return self._has_new_link

    def keep_audit_head(self, link: Link, signed: str) -> None:
        """One more signed head; repeating it is no fault."""
        statement = _insert("audit_heads", "broker", "number", "signed")
        self._run(
            f"{statement} ON CONFLICT (broker, number) DO NOTHING",
            broker=link.broker,
            number=link.number,
            signed=signed,
        )

    def audit_heads(self) -> Sequence[str]:
        """The last signed head of each chain."""
        return [signed for (signed,) in self._run(_LAST_HEADS).fetchall()]

    def all_audit_heads(self) -> Sequence[str]:
        """All signed heads."""
        return [signed for (signed,) in self._run("SELECT signed FROM audit_heads").fetchall()]

    def list_audit(
        self, limit: int, wanted: Mapping[str, str] | None = None
    ) -> Sequence[Mapping[str, str]]:
        """The last rows, oldest first: the texts, and `id`, the first 16 hex digits of the hash.

        Args:
            wanted: by column, what a row must have; `image` and `session` by their beginning;
                `since` is the earliest `at`, as it is stored; `id` is that of the one row.
        """
        tests, values = [], dict[str, Any](wanted or {})
        for name in wanted or {}:
            if name == "since":
                tests.append("at >= :since")
            elif name == "id":
                tests.append("hash >= :id AND hash <= :end")
                values["id"] = bytes.fromhex(values["id"])
                values["end"] = values["id"] + b"\xff" * (len(FIRST_HASH) - _ID_BYTES)
            elif name in ("image", "session"):
                tests.append(f"substr({name}, 1, length(:{name})) = :{name}")
            else:
                assert name in AUDIT_TEXTS  # the caller's own names would be SQL
                tests.append(f"{name} = :{name}")
        where = f"WHERE {' AND '.join(tests)} " if tests else ""
        statement = (
            f"SELECT {', '.join(_SHOWN_AUDIT)} FROM audit {where}"  # noqa: S608 - names of ours
            "ORDER BY place DESC LIMIT :limit"
        )
        rows = self._run(statement, limit=limit, **values).fetchall()
        return [
            {"id": hashed[:_ID_BYTES].hex(), **dict(zip(AUDIT_TEXTS, texts, strict=True))}
            for hashed, *texts in rows[::-1]
        ]

    def audit_chains(self) -> Iterator[tuple[Mapping[str, str | int], bytes]]:
        """All rows with their hashes: chain by chain, in their order."""
        brokers = self._run("SELECT DISTINCT broker FROM audit ORDER BY broker").fetchall()
        for (broker,) in brokers:
            number = place = 0
            # No constraint is relied on: who changes rows may have dropped it.
            while rows := self._links_after(broker, number, place):
                for *told, hashed, _ in rows:
                    yield dict(zip(_AUDIT, told, strict=True)), hashed
                number, place = rows[-1][1], rows[-1][-1]

    def _links_after(self, broker: str, number: int, place: int) -> Sequence[tuple[Any, ...]]:
        return self._run(_NEXT_LINKS, broker=broker, number=number, place=place).fetchall()


def _one(found: Cursor) -> tuple[Any, ...]:
    """The row that there always is."""
    row = found.fetchone()
    assert row is not None
    return row
