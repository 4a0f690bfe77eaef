# SPDX-License-Identifier: Apache-2.0
"""A store in one SQLite file with mode 0600.

What writes takes SQLite's write lock at its start, so that what was read still holds when
something is written. What only reads takes no lock.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import sqlalchemy as sa

from imagers.broker.keeping.store import BROKER
from imagers.broker.keeping.tables import (
    AUDIT_TEXTS,
    METADATA,
    NUMBER_DIGITS,
    collateral,
    era,
    store,
)
from imagers.broker.keeping.transaction import STORE_ID_BYTES, Transaction
from imagers.broker.keyfiles import check_owner_only, make_owner_only
from imagers.errors import LocalError

if TYPE_CHECKING:
    from pathlib import Path

    from imagers.broker.keeping.database import Database

__all__ = ["SQLiteDatabase"]

_SCHEMA_VERSION = 4
_WITH_OPEN_SESSIONS = 1  # the version that wrote a row at `auth`, and had no id
_WITHOUT_CLAIMS = 2  # the version whose tokens had no claims to appraise
_WITHOUT_CHAIN = 3  # the version whose audit rows had no hash
_BUSY_MS = 10_000  # how long a transaction waits for another process's
_TRIGGERS = tuple(
    f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
    "BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
    for verb in ("UPDATE", "DELETE")
)
_PRAGMAS = (
    f"busy_timeout = {_BUSY_MS}",
    "journal_mode = WAL",
    "synchronous = FULL",  # an answer is sent after its audit row is safe
    "secure_delete = ON",
    "trusted_schema = OFF",
)


class SQLiteDatabase:
    """One file; it is made if it is missing.

    Raises:
        LocalError: it is open to others.
    """

    waits = False

    def __init__(self, path: Path) -> None:
        make_owner_only(path, b"")
        check_owner_only(path)
        self.name = str(path)
        # An absolute path as a value, not as text in a URL, which would need quoting.
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path.resolve())),
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",  # `begin_*` does it
            hide_parameters=True,  # a log at DEBUG would have tokens and sealed values
            connect_args={"check_same_thread": False},  # one thread at a time
        )
        sa.event.listen(self._engine, "connect", _configure)

    def make_schema(self) -> None:
        """See `Database`."""
        with self.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            version = connection.exec_driver_sql("PRAGMA user_version").scalar()
            if version != _SCHEMA_VERSION:
                if version not in (0, _WITH_OPEN_SESSIONS, _WITHOUT_CLAIMS, _WITHOUT_CHAIN):
                    raise LocalError(
                        f"expected a store of version {_SCHEMA_VERSION}, got {version}",
                        path=self.name,
                        hint="it was made by another version of imagers",
                    )
                _make(connection, version)
                connection.exec_driver_sql(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            connection.exec_driver_sql("COMMIT")

    def connect(self) -> sa.Connection:
        """See `Database`."""
        return self._engine.connect()

    def begin_reading(self, connection: sa.Connection) -> None:
        """See `Database`."""
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN DEFERRED")

    def begin_writing(self, connection: sa.Connection, *, alone: bool) -> None:  # noqa: ARG002
        """See `Database`. Each writer is alone."""
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def close(self) -> None:
        """See `Database`."""
        self._engine.dispose()


if TYPE_CHECKING:

    def _is_database(database: SQLiteDatabase) -> Database:
        return database


def _configure(connection: object, _: object) -> None:
    """Settings of a new connection."""
    cursor = connection.cursor()  # type: ignore[attr-defined]  # the DBAPI connection
    try:
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _make(connection: sa.Connection, version: int) -> None:
    """The tables, and in them what an older version kept.

    Guests whose sessions are dropped shake hands again.
    """

    def run(statement: str) -> None:
        connection.exec_driver_sql(statement)

    if version:
        run("DROP TABLE sessions")
        if version != _WITH_OPEN_SESSIONS:
            run("ALTER TABLE store RENAME TO old_store")
        run("ALTER TABLE audit RENAME TO old_audit")
        for verb in ("update", "delete"):
            run(f"DROP TRIGGER audit_no_{verb}")
    METADATA.create_all(connection)
    for trigger in _TRIGGERS:
        run(trigger)
    identity, seen_ms = os.urandom(STORE_ID_BYTES), 0
    if version in (_WITHOUT_CLAIMS, _WITHOUT_CHAIN):
        identity, seen_ms = connection.exec_driver_sql("SELECT id, seen_ms FROM old_store").one()
        run("DROP TABLE old_store")
    connection.execute(sa.insert(store), {"number": 1, "id": identity, "changes": 0})
    connection.execute(sa.insert(era), {"number": 1})
    transaction = Transaction(connection, BROKER, alone=True)
    transaction.enter_broker()
    transaction.keep_time(seen_ms)
    if version:
        columns = ", ".join(AUDIT_TEXTS)
        rows = connection.exec_driver_sql(f"SELECT {columns} FROM old_audit ORDER BY number")  # noqa: S608
        for row in rows.mappings().all():
            transaction.append_audit(dict(row))
        run("DROP TABLE old_audit")
    if version == _WITHOUT_CHAIN:
        for name, number in connection.execute(sa.select(collateral)).all():
            here = sa.update(collateral).where(collateral.c.name == name)
            connection.execute(here, {"number": f"{int(number):0{NUMBER_DIGITS}}"})
