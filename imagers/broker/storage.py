# SPDX-License-Identifier: Apache-2.0
"""What the broker keeps, in one SQLite file with mode 0600: nothing that matters is in memory.

    resources  path -> sealed secret, its size and version
    bindings   path, manifest digest: which images a resource belongs to
    sessions   handshakes whose evidence was accepted, unique by nonce
    store      one row: the random id of this database, the highest time that it has seen,
               how many sessions there are
    settings   the sealed token key, the policy
    reference_values  name -> what claims of that name have to equal
    collateral        name -> the highest number or time of a document that was believed
    audit      rows that triggers protect from change

What writes is in transactions that take SQLite's write lock at their start, so that what was
read still holds when something is written: create-only puts, one-time nonces and the limit
on sessions rest on that, for any number of processes. What only reads takes no lock.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from imagers.broker.keyfiles import check_owner_only, make_owner_only
from imagers.errors import LocalError
from imagers.kbs.resources import ResourcePath, parse_resource_path
from imagers.model.digest import Digest, parse_digest
from imagers.model.references import parse_references, references_to_json
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from imagers.model.references import ReferenceValue

__all__ = ["Session", "Store", "StoreRow", "StoredResource", "Transaction"]

_SCHEMA_VERSION = 3
_WITH_OPEN_SESSIONS = 1  # the version that wrote a row at `auth`
_WITHOUT_CLAIMS = 2  # the version whose tokens had no claims to appraise
_STORE_ID_BYTES = 16
_WRITES = "imagers_writes"
_BUSY_MS = 10_000  # how long a transaction waits for another process's

_metadata = sa.MetaData()
_resources = sa.Table(
    "resources",
    _metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
)
# Version numbers go on when a path is deleted and made again: an old sealed value does not open
# in the new row.
_versions = sa.Table(
    "versions",
    _metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("last", sa.Integer, nullable=False),
)
_bindings = sa.Table(
    "bindings",
    _metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("manifest_digest", sa.Text, primary_key=True),
)
_sessions = sa.Table(
    "sessions",
    _metadata,
    sa.Column("nonce", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("tee", sa.Text, nullable=False),
    sa.Column("instance", sa.Text, nullable=False),
    sa.Column("expires_ms", sa.Integer, nullable=False),
    sa.Column("keep_until_ms", sa.Integer, nullable=False, index=True),
    sa.Column("attested_with", sa.Text, nullable=False),
    sa.Column("token", sa.Text, nullable=False),
    sa.Index("sessions_of_instance", "tee", "instance"),
)
_store = sa.Table(
    "store",
    _metadata,
    sa.Column("id", sa.LargeBinary, nullable=False),
    sa.Column("seen_ms", sa.Integer, nullable=False),
    sa.Column("sessions", sa.Integer, nullable=False),
)
_settings = sa.Table(
    "settings",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
_reference_values = sa.Table(
    "reference_values",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
_collateral = sa.Table(
    "collateral",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.Text, nullable=False),  # a CRL number can have 20 bytes
)
_audit = sa.Table(
    "audit",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    *(
        sa.Column(name, sa.Text, nullable=False)
        for name in (
            "at",
            "event",
            "outcome",
            "tee",
            "path",
            "image",
            "rule",
            "session",
            "detail",
        )
    ),
    sqlite_autoincrement=True,
)
_TRIGGERS = tuple(
    f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
    "BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
    for verb in ("UPDATE", "DELETE")
)


@dataclass(frozen=True, slots=True)
class StoredResource:
    """A resource as it is stored; `sealed` opens with kind `resource`, its path and version."""

    path: ResourcePath
    sealed: bytes
    size: int
    version: int
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A handshake whose evidence was accepted.

    Attributes:
        name: hash of the session's id, in hex: names the session and does not open it.
        instance: which machine the evidence is of, where its verifier tells; else "".
        expires_ms: when session and token are over.
        keep_until_ms: until when the row is kept, so that its nonce is taken once.
        attested_with: hash of the attestation that was accepted.
    """

    name: str
    nonce: str
    tee: str
    instance: str = ""
    expires_ms: int
    keep_until_ms: int
    attested_with: str
    token: str


@dataclass(frozen=True, slots=True)
class StoreRow:
    """What the database says of itself.

    Attributes:
        id: random; of this database and of no copy that began again.
        seen_ms: the highest time that was kept.
        sessions: how many rows of sessions there are.
    """

    id: bytes
    seen_ms: int
    sessions: int


class Transaction:
    """Reads and writes that happen together or not at all. Good inside its `with` block."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    # Resources

    def find_resource(self, path: ResourcePath) -> StoredResource | None:
        """The resource of that name."""
        row = self._connection.execute(
            sa.select(_resources).where(_resources.c.path == str(path))
        ).first()
        if row is None:
            return None
        return StoredResource(path, row.sealed, row.size, row.version, row.created_at)

    def next_version(self, path: ResourcePath) -> int:
        """The number for the next value of that name; it is never given again."""
        last = self._connection.execute(
            sa.select(_versions.c.last).where(_versions.c.path == str(path))
        ).scalar()
        if last is None:
            self._connection.execute(sa.insert(_versions).values(path=str(path), last=1))
            return 1
        self._connection.execute(
            sa.update(_versions).where(_versions.c.path == str(path)).values(last=last + 1)
        )
        return int(last) + 1

    def insert_resource(self, resource: StoredResource) -> None:
        """A new row; the name must be free."""
        self._connection.execute(
            sa.insert(_resources).values(
                path=str(resource.path),
                sealed=resource.sealed,
                size=resource.size,
                version=resource.version,
                created_at=resource.created_at,
            )
        )

    def delete_resource(self, path: ResourcePath) -> bool:
        """Whether there was one; its bindings go with it."""
        self._connection.execute(sa.delete(_bindings).where(_bindings.c.path == str(path)))
        gone = self._connection.execute(sa.delete(_resources).where(_resources.c.path == str(path)))
        return gone.rowcount > 0

    def list_resources(self) -> tuple[ResourcePath, ...]:
        """All names, sorted."""
        rows = self._connection.execute(sa.select(_resources.c.path).order_by(_resources.c.path))
        return tuple(parse_resource_path(row.path) for row in rows)

    def bindings(self, path: ResourcePath) -> frozenset[Digest]:
        """The images that a resource belongs to."""
        rows = self._connection.execute(
            sa.select(_bindings.c.manifest_digest).where(_bindings.c.path == str(path))
        )
        return frozenset(parse_digest(row.manifest_digest) for row in rows)

    def add_binding(self, path: ResourcePath, digest: Digest) -> None:
        """One more image; the pair must be new."""
        self._connection.execute(
            sa.insert(_bindings).values(path=str(path), manifest_digest=str(digest))
        )

    # Sessions

    def store_row(self) -> StoreRow:
        """The one row about the database."""
        row = self._connection.execute(sa.select(_store)).one()
        return StoreRow(bytes(row.id), row.seen_ms, row.sessions)

    def keep_time(self, now_ms: int) -> None:
        """Remember a time, if it is later than the one that is kept."""
        self._connection.execute(
            sa.update(_store).where(_store.c.seen_ms < now_ms).values(seen_ms=now_ms)
        )

    def begin_again(self, now_ms: int) -> None:
        """Another id, no sessions, and time from `now_ms` on."""
        self._connection.execute(sa.delete(_sessions))
        self._connection.execute(
            sa.update(_store).values(id=os.urandom(_STORE_ID_BYTES), seen_ms=now_ms, sessions=0)
        )

    def drop_sessions(self, now_ms: int) -> None:
        """Forget those that need not be kept any more."""
        gone = self._connection.execute(
            sa.delete(_sessions).where(_sessions.c.keep_until_ms <= now_ms)
        )
        if gone.rowcount:
            self._count_sessions(-gone.rowcount)

    def sessions_of(self, tee: str, instance: str) -> int:
        """How many there are of one machine."""
        count = self._connection.execute(
            sa.select(sa.func.count())
            .select_from(_sessions)
            .where(_sessions.c.tee == tee, _sessions.c.instance == instance)
        )
        return int(count.scalar_one())

    def insert_session(self, session: Session) -> None:
        """A new row; its nonce and its name must be free."""
        self._connection.execute(sa.insert(_sessions).values(**asdict(session)))
        self._count_sessions(1)

    def find_session(self, name: str) -> Session | None:
        """The session of that name, whether it is over or not."""
        row = (
            self._connection.execute(sa.select(_sessions).where(_sessions.c.name == name))
            .mappings()
            .first()
        )
        return None if row is None else Session(**row)

    def _count_sessions(self, more: int) -> None:
        # Counting rows under the write lock would cost a scan of all of them each time.
        self._connection.execute(sa.update(_store).values(sessions=_store.c.sessions + more))

    # Settings

    def get_setting(self, name: str) -> bytes | None:
        """A value, or None."""
        value = self._connection.execute(
            sa.select(_settings.c.value).where(_settings.c.name == name)
        ).scalar()
        return None if value is None else bytes(value)

    def set_setting(self, name: str, value: bytes) -> None:
        """Set or replace a value."""
        self._connection.execute(sa.delete(_settings).where(_settings.c.name == name))
        self._connection.execute(sa.insert(_settings).values(name=name, value=value))

    # Reference values

    def reference_values(self, names: Iterable[str] | None = None) -> Mapping[str, ReferenceValue]:
        """By name, sorted.

        Args:
            names: of those that are wanted; None: all.
        """
        query = sa.select(_reference_values).order_by(_reference_values.c.name)
        if names is not None:
            query = query.where(_reference_values.c.name.in_(tuple(names)))
        rows = self._connection.execute(query)
        found: dict[str, ReferenceValue] = {}
        for row in rows:
            found.update((one.name, one) for one in parse_references(bytes(row.value)))
        return found

    def set_reference_value(self, value: ReferenceValue) -> None:
        """Set or replace one."""
        self.delete_reference_value(value.name)
        data = dump_json(references_to_json([value]))
        self._connection.execute(sa.insert(_reference_values).values(name=value.name, value=data))

    def delete_reference_value(self, name: str) -> bool:
        """Whether there was one."""
        gone = self._connection.execute(
            sa.delete(_reference_values).where(_reference_values.c.name == name)
        )
        return gone.rowcount > 0

    # Collateral

    def seen_collateral(self) -> Mapping[str, int]:
        """The highest number or time of each document that was believed."""
        rows = self._connection.execute(sa.select(_collateral))
        return {row.name: int(row.number) for row in rows}

    def keep_collateral(self, numbers: Mapping[str, int]) -> None:
        """Remember numbers and times, where they are higher than those that are kept."""
        seen = self.seen_collateral()
        for name, number in numbers.items():
            if number > seen.get(name, -1):
                self._connection.execute(sa.delete(_collateral).where(_collateral.c.name == name))
                self._connection.execute(
                    sa.insert(_collateral).values(name=name, number=str(number))
                )

    # Audit

    def append_audit(self, row: dict[str, str]) -> None:
        """One more row."""
        self._connection.execute(sa.insert(_audit).values(**row))

    def list_audit(
        self, limit: int, wanted: Mapping[str, str] | None = None
    ) -> list[dict[str, str | int]]:
        """The last rows, oldest first.

        Args:
            wanted: by column, what a row must have; `image` and `session` by their beginning;
                `since` is the earliest `at`, as it is stored.
        """
        query = sa.select(_audit).order_by(_audit.c.number.desc()).limit(limit)
        for name, value in (wanted or {}).items():
            if name == "since":
                query = query.where(_audit.c.at >= value)
            elif name in ("image", "session"):
                query = query.where(_audit.c[name].startswith(value, autoescape=True))
            else:
                query = query.where(_audit.c[name] == value)
        rows = self._connection.execute(query).mappings()
        return [dict(row) for row in rows][::-1]


class Store:
    """The database of one state directory.

    Raises:
        LocalError: it cannot be opened, is not a store of ours, or open to others.

    Threads: safe; each transaction has a connection of its own.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        make_owner_only(path, b"")
        check_owner_only(path)
        # An absolute path as a value, not as text in a URL, which would need quoting.
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path.resolve())),
            pool_size=8,
            max_overflow=64,
            hide_parameters=True,  # a log at DEBUG would have tokens and sealed values
        )
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        try:
            self._make_schema()
        except BaseException:
            self._engine.dispose()
            raise

    def _make_schema(self) -> None:
        with self._begin() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar()
            if version == _SCHEMA_VERSION:
                return
            if version in (_WITH_OPEN_SESSIONS, _WITHOUT_CLAIMS):
                # All else is as it was. Guests whose sessions are dropped shake hands again.
                connection.exec_driver_sql("DROP TABLE sessions")
            elif version != 0:
                raise LocalError(
                    f"expected a store of version {_SCHEMA_VERSION}, got {version}",
                    path=str(self._path),
                    hint="it was made by another version of imagers",
                )
            _metadata.create_all(connection)
            if version == 0:
                for trigger in _TRIGGERS:
                    connection.exec_driver_sql(trigger)
            if version == _WITHOUT_CLAIMS:
                connection.execute(sa.update(_store).values(sessions=0))
            else:
                connection.execute(
                    sa.insert(_store).values(id=os.urandom(_STORE_ID_BYTES), seen_ms=0, sessions=0)
                )
            connection.exec_driver_sql(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A block of reads and writes; an exception undoes all of it.

        Raises:
            LocalError: the disk is full, the file damaged, another process holds the lock.
        """
        with self._begin() as connection:
            yield Transaction(connection)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """A block that only reads, of one state of the store; it waits for no writer.

        Raises:
            LocalError: as `transaction`; also at a write.
        """
        with self._begin(writes=False) as connection:
            yield Transaction(connection)

    @contextmanager
    def _begin(self, *, writes: bool = True) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                connection.info[_WRITES] = writes
                with connection.begin():
                    yield connection
        except SQLAlchemyError as error:
            # Neither statement nor parameters: those hold sealed values and tokens.
            cause = getattr(error, "orig", None)
            raise LocalError(
                f"the store failed: {type(cause or error).__name__}: {cause or 'see the log'}",
                path=str(self._path),
            ) from None

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        self._engine.dispose()


def _configure(connection: object, _: object) -> None:
    """Settings of a new connection."""
    # sqlite3 would open transactions by its own rules; `_begin` does it instead.
    connection.isolation_level = None  # type: ignore[attr-defined]  # the DBAPI connection
    cursor = connection.cursor()  # type: ignore[attr-defined]  # same
    try:
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # an answer is sent after its audit row is safe
        cursor.execute("PRAGMA secure_delete = ON")
        cursor.execute("PRAGMA trusted_schema = OFF")
    finally:
        cursor.close()


def _begin(connection: sa.Connection) -> None:
    writes = connection.info[_WRITES]
    connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")
