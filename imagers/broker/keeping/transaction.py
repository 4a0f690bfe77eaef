# SPDX-License-Identifier: Apache-2.0
"""Reads and writes that happen together or not at all.

Statements are made once: to build one costs more than to run it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from imagers.broker.keeping.rows import Session, StoredResource, StoreRow
from imagers.broker.keeping.tables import (
    AUDIT_TEXTS,
    NUMBER_DIGITS,
    audit,
    bindings,
    brokers,
    collateral,
    era,
    reference_values,
    resources,
    sessions,
    settings,
    store,
    versions,
)
from imagers.kbs.resources import ResourcePath, parse_resource_path
from imagers.model.digest import Digest, parse_digest
from imagers.model.references import parse_references, references_to_json
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagers.model.references import ReferenceValue

__all__ = ["STORE_ID_BYTES", "Transaction", "chain_hash"]

STORE_ID_BYTES = 16
_FIRST_HASH = bytes(32)  # before the first row of a chain
_COUNT = sa.func.count()
_P: sa.BindParameter[Any] = sa.bindparam("p")

_FIND_RESOURCE = sa.select(resources).where(resources.c.path == _P)
_INSERT_RESOURCE = sa.insert(resources)
_DELETE_RESOURCE = sa.delete(resources).where(resources.c.path == _P)
_LIST_RESOURCES = sa.select(resources.c.path).order_by(resources.c.path)
_LAST_VERSION = sa.select(versions.c.last).where(versions.c.path == _P)
_INSERT_VERSION = sa.insert(versions)
_NEXT_VERSION = sa.update(versions).where(versions.c.path == _P).values(last=versions.c.last + 1)
_BINDINGS = sa.select(bindings.c.manifest_digest).where(bindings.c.path == _P)
_ADD_BINDING = sa.insert(bindings)
_DELETE_BINDINGS = sa.delete(bindings).where(bindings.c.path == _P)
_STORE = sa.select(
    store.c.id,
    store.c.changes,
    sa.select(sa.func.max(brokers.c.seen_ms)).scalar_subquery().label("seen_ms"),
    sa.select(_COUNT).select_from(era).scalar_subquery().label("eras"),
)
_ENTER_BROKER = sa.text(
    "INSERT INTO brokers (name, seen_ms) VALUES (:name, 0) ON CONFLICT (name) DO NOTHING"
)
_CHANGE = sa.update(store).values(changes=store.c.changes + 1)
_KEEP_TIME = (
    sa.update(brokers)
    .where(brokers.c.name == sa.bindparam("broker"), brokers.c.seen_ms < sa.bindparam("now_ms"))
    .values(seen_ms=sa.bindparam("now_ms"))
)
_FIND_SESSION = sa.select(*(column for column in sessions.c if column.name != "broker")).where(
    sessions.c.name == _P
)
_INSERT_SESSION = sa.insert(sessions)
_DROP_SESSIONS = sa.delete(sessions).where(sessions.c.keep_until_ms <= _P)
_COUNT_SESSIONS = sa.select(_COUNT).select_from(sessions).where(sessions.c.broker == _P)
_SLOTS = sa.select(sessions.c.slot).where(
    sessions.c.tee == sa.bindparam("tee"), sessions.c.instance == sa.bindparam("instance")
)
_GET_SETTING = sa.select(settings.c.value).where(settings.c.name == _P)
_DELETE_SETTING = sa.delete(settings).where(settings.c.name == _P)
_INSERT_SETTING = sa.insert(settings)
_REFERENCE_VALUES = sa.select(reference_values.c.value).order_by(reference_values.c.name)
_INSERT_REFERENCE_VALUE = sa.insert(reference_values)
_DELETE_REFERENCE_VALUE = sa.delete(reference_values).where(reference_values.c.name == _P)
_COLLATERAL = sa.select(collateral)
_KEEP_COLLATERAL = sa.text(
    "INSERT INTO collateral (name, number) VALUES (:name, :number) "
    "ON CONFLICT (name) DO UPDATE SET number = excluded.number "
    "WHERE collateral.number < excluded.number"
)
_LAST_LINK = (
    sa.select(audit.c.number, audit.c.hash)
    .where(audit.c.broker == _P)
    .order_by(audit.c.number.desc())
    .limit(1)
)
_INSERT_AUDIT = sa.insert(audit)
_SHOWN = tuple(audit.c[name] for name in ("broker", "number", *AUDIT_TEXTS))


def chain_hash(before: bytes, row: Mapping[str, str | int]) -> bytes:
    """The hash of an audit row, which names all rows of its chain before it.

    SHA-256 of the hash before, 32 bytes, and of the row's JSON: broker, number and texts in the
    order of the table, compact, in UTF-8.
    """
    told = {name: row[name] for name in ("broker", "number", *AUDIT_TEXTS)}
    return sha256(before + dump_json(told)).digest()


class Transaction:
    """Reads and writes that happen together or not at all. Good inside its block.

    Args:
        broker: whose chain the audit rows continue.
        alone: whether it may change what releases are judged by.
    """

    def __init__(self, connection: sa.Connection, broker: str, *, alone: bool) -> None:
        self.is_alone = alone
        self._connection = connection
        self._broker = broker
        self._row: StoreRow | None = None
        self._link: tuple[int, bytes] | None = None

    def _run(self, statement: sa.Executable, **parameters: Any) -> sa.CursorResult[Any]:
        return self._connection.execute(statement, parameters)

    # One piece of work among others

    def begin_part(self) -> None:
        """Begin what can be undone alone."""
        self._connection.exec_driver_sql("SAVEPOINT part")

    def keep_part(self) -> None:
        """End it."""
        self._connection.exec_driver_sql("RELEASE SAVEPOINT part")

    def undo_part(self) -> None:
        """End it as if it had not been."""
        self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT part")
        self.keep_part()
        self._row = self._link = None

    # Resources

    def find_resource(self, path: ResourcePath) -> StoredResource | None:
        """The resource of that name."""
        row = self._run(_FIND_RESOURCE, p=str(path)).first()
        if row is None:
            return None
        return StoredResource(path, bytes(row.sealed), row.size, row.version, row.created_at)

    def next_version(self, path: ResourcePath) -> int:
        """The number for the next value of that name; it is never given again."""
        if self._run(_NEXT_VERSION, p=str(path)).rowcount == 0:
            self._run(_INSERT_VERSION, path=str(path), last=1)
        return int(self._run(_LAST_VERSION, p=str(path)).scalar_one())

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
        self._run(_DELETE_BINDINGS, p=str(path))
        return self._run(_DELETE_RESOURCE, p=str(path)).rowcount > 0

    def list_resources(self) -> tuple[ResourcePath, ...]:
        """All names, sorted."""
        return tuple(parse_resource_path(row.path) for row in self._run(_LIST_RESOURCES))

    def bindings(self, path: ResourcePath) -> frozenset[Digest]:
        """The images that a resource belongs to."""
        rows = self._run(_BINDINGS, p=str(path))
        return frozenset(parse_digest(row.manifest_digest) for row in rows)

    def add_binding(self, path: ResourcePath, digest: Digest) -> None:
        """One more image; the pair must be new."""
        self._run(_ADD_BINDING, path=str(path), manifest_digest=str(digest))

    # The store

    def store_row(self) -> StoreRow:
        """The one row about the database, as it was when this transaction first looked."""
        if self._row is None:
            row = self._run(_STORE).one()
            self._row = StoreRow(bytes(row.id), row.changes, row.seen_ms or 0, row.eras > 0)
        return self._row

    def enter_broker(self) -> None:
        """Write down that there is this broker, if it is new."""
        self._run(_ENTER_BROKER, name=self._broker)

    def count_change(self) -> None:
        """Tell all who remember what was in force that it may be so no more."""
        self._run(_CHANGE)
        self._row = None

    def keep_time(self, now_ms: int) -> None:
        """Remember a time, if it is later than the one that is kept."""
        row = self.store_row()
        if now_ms > row.seen_ms:
            self._run(_KEEP_TIME, broker=self._broker, now_ms=now_ms)
            self._row = replace(row, seen_ms=now_ms)

    def begin_again(self, now_ms: int) -> None:
        """Another id, no sessions, and time from `now_ms` on."""
        self._run(sa.delete(sessions))
        self._run(sa.delete(era))
        self._run(sa.insert(era), number=1)
        self._run(sa.update(store), id=os.urandom(STORE_ID_BYTES))
        self._run(sa.update(brokers), seen_ms=now_ms)
        self._row = None

    # Sessions

    def drop_sessions(self, now_ms: int) -> None:
        """Forget those that need not be kept any more."""
        self._run(_DROP_SESSIONS, p=now_ms)

    def count_sessions(self) -> int:
        """How many attested at this broker and are kept."""
        return int(self._run(_COUNT_SESSIONS, p=self._broker).scalar_one())

    def find_slot(self, tee: str, instance: str, *, most: int) -> int | None:
        """A free place of a machine, which has `most` of them; None: all are taken."""
        taken = set(self._run(_SLOTS, tee=tee, instance=instance).scalars())
        return next((slot for slot in range(most) if slot not in taken), None)

    def insert_session(self, session: Session) -> None:
        """A new row; its nonce, its name and its place must be free."""
        self._run(_INSERT_SESSION, broker=self._broker, **asdict(session))

    def find_session(self, name: str) -> Session | None:
        """The session of that name, whether it is over or not."""
        row = self._run(_FIND_SESSION, p=name).mappings().first()
        return None if row is None else Session(**row)

    # Settings

    def get_setting(self, name: str) -> bytes | None:
        """A value, or None."""
        value = self._run(_GET_SETTING, p=name).scalar()
        return None if value is None else bytes(value)

    def set_setting(self, name: str, value: bytes) -> None:
        """Set or replace a value."""
        self._run(_DELETE_SETTING, p=name)
        self._run(_INSERT_SETTING, name=name, value=value)

    # Reference values

    def reference_values(self) -> Mapping[str, ReferenceValue]:
        """All of them by name, sorted."""
        found: dict[str, ReferenceValue] = {}
        for value in self._run(_REFERENCE_VALUES).scalars():
            found.update((one.name, one) for one in parse_references(bytes(value)))
        return found

    def set_reference_value(self, value: ReferenceValue) -> None:
        """Set or replace one."""
        self.delete_reference_value(value.name)
        data = dump_json(references_to_json([value]))
        self._run(_INSERT_REFERENCE_VALUE, name=value.name, value=data)

    def delete_reference_value(self, name: str) -> bool:
        """Whether there was one."""
        return self._run(_DELETE_REFERENCE_VALUE, p=name).rowcount > 0

    # Collateral

    def seen_collateral(self) -> Mapping[str, int]:
        """The highest number or time of each document that was believed."""
        return {row.name: int(row.number) for row in self._run(_COLLATERAL)}

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
        if self._link is None:
            last = self._run(_LAST_LINK, p=self._broker).first()
            self._link = (0, _FIRST_HASH) if last is None else (last.number, bytes(last.hash))
        number, before = self._link
        row: dict[str, Any] = {"broker": self._broker, "number": number + 1, **texts}
        row["hash"] = chain_hash(before, row)
        self._run(_INSERT_AUDIT, **row)
        self._link = row["number"], row["hash"]

    def list_audit(
        self, limit: int, wanted: Mapping[str, str] | None = None
    ) -> Sequence[Mapping[str, str | int]]:
        """The last rows, oldest first.

        Args:
            wanted: by column, what a row must have; `image` and `session` by their beginning;
                `since` is the earliest `at`, as it is stored.
        """
        query = sa.select(*_SHOWN).order_by(audit.c.place.desc()).limit(limit)
        for name, value in (wanted or {}).items():
            if name == "since":
                query = query.where(audit.c.at >= value)
            elif name in ("image", "session"):
                query = query.where(audit.c[name].startswith(value, autoescape=True))
            else:
                query = query.where(audit.c[name] == value)
        rows = self._connection.execute(query).mappings()
        return [dict(row) for row in rows][::-1]
