# SPDX-License-Identifier: Apache-2.0
"""A store in one SQLite file with mode 0600.

What writes takes SQLite's write lock at its start, so that what was read still holds when
something is written. What only reads takes no lock.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from imagers.broker.keeping.store import BROKER
from imagers.broker.keeping.tables import AUDIT_TEXTS, DEFAULT_TENANT, TABLES
from imagers.broker.keeping.transaction import STORE_ID_BYTES, Transaction
from imagers.broker.keyfiles import check_owner_only, make_owner_only
from imagers.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagers.broker.keeping.database import Database

__all__ = ["SQLiteDatabase"]

_SCHEMA_VERSION = 4
_WITH_OPEN_SESSIONS = 1  # the version that wrote a row at `auth`, and had no id
_WITHOUT_CLAIMS = 2  # the version whose tokens had no claims to appraise
_WITHOUT_CHAIN = 3  # the version whose audit rows had no hash
# Of old stores: columns that they did not have, and policies, which were among the settings.
_OLD_AUDIT = {
    "tenant": "CASE WHEN event IN ('start', 'stop', 'auth', 'attest', 'admin') "
    f"THEN '' ELSE '{DEFAULT_TENANT}' END",
}
_OLD_POLICIES = "name = 'policy' OR substr(name, 1, 19) = 'attestation-policy/'"
_BUSY_MS = 10_000  # how long a transaction waits for another process's
_TYPES = {"BYTES": "BLOB", "PLACE": "INTEGER PRIMARY KEY"}
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
    "temp_store = MEMORY",
)


class SQLiteDatabase:
    """One file; it is made if it is missing.

    Raises:
        LocalError: it is open to others.
    """

    waits = False
    takes_over = True
    errors: type[Exception] = sqlite3.Error
    taken: type[Exception] = sqlite3.IntegrityError
    again: tuple[type[Exception], ...] = ()  # who writes is alone

    def __init__(self, path: Path) -> None:
        make_owner_only(path, b"")
        check_owner_only(path)
        self._path = path.resolve()
        self.name = str(path)

    def make_schema(self) -> None:
        """See `Database`."""
        with closing(self.connect(writes=True)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != _SCHEMA_VERSION:
                if version not in (0, _WITH_OPEN_SESSIONS, _WITHOUT_CLAIMS, _WITHOUT_CHAIN):
                    raise LocalError(
                        f"expected a store of version {_SCHEMA_VERSION}, got {version}",
                        path=self.name,
                        hint="it was made by another version of imagers",
                    )
                _make(connection, version)
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            connection.execute("COMMIT")

    def words(self, statement: str) -> str:
        """See `Database`."""
        return statement

    def connect(self, *, writes: bool) -> sqlite3.Connection:
        """See `Database`."""
        connection = sqlite3.connect(
            self._path,
            isolation_level=None,  # transactions are begun by us
            check_same_thread=False,  # one thread at a time
        )
        for pragma in (*_PRAGMAS, f"query_only = {'OFF' if writes else 'ON'}"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def begin_reading(self) -> Sequence[str]:
        """See `Database`."""
        return ("BEGIN DEFERRED",)

    def begin_writing(self, *, alone: bool, patient: bool) -> Sequence[str]:  # noqa: ARG002
        """See `Database`. Each writer is alone."""
        return (f"PRAGMA busy_timeout = {_BUSY_MS if patient else 0}", "BEGIN IMMEDIATE")

    def close(self) -> None:
        """See `Database`: it holds nothing."""


if TYPE_CHECKING:

    def _is_database(database: SQLiteDatabase) -> Database:
        return database


def _make(connection: sqlite3.Connection, version: int) -> None:
    """The tables, and in them what an older version kept.

    Guests whose sessions are dropped shake hands again.
    """
    run = connection.execute
    identity, seen_ms = os.urandom(STORE_ID_BYTES), 0
    rows, numbers, policies, references, resources = [], [], [], [], []
    if version in (_WITHOUT_CLAIMS, _WITHOUT_CHAIN):
        identity, seen_ms = run("SELECT id, seen_ms FROM store").fetchone()
        run("DROP TABLE store")
    if version == _WITHOUT_CHAIN:
        numbers = run("SELECT name, number FROM collateral").fetchall()
        references = run("SELECT name, value FROM reference_values").fetchall()
        run("DROP TABLE collateral")
        run("DROP TABLE reference_values")
    if version:
        names = "path, sealed, size, version, created_at, 0, 0, 0"
        resources = run(f"SELECT {names} FROM resources").fetchall()  # noqa: S608 - ours
        run("DROP TABLE resources")
        had = {name for (_, name, *_) in run("PRAGMA table_info(audit)")}
        old = {name: name for name in had} | _OLD_AUDIT
        columns = ", ".join(old.get(name, "''") for name in AUDIT_TEXTS)
        rows = run(f"SELECT {columns} FROM audit ORDER BY number").fetchall()  # noqa: S608 - ours
        policies = run(f"SELECT name, value FROM settings WHERE {_OLD_POLICIES}").fetchall()  # noqa: S608 - ours
        run(f"DELETE FROM settings WHERE {_OLD_POLICIES}")  # noqa: S608 - ours
        run("DROP TABLE sessions")
        run("DROP TABLE audit")
    there = {name for (name,) in run("SELECT name FROM sqlite_master")}
    for table in TABLES:
        if table.split()[2] not in there:
            run(re.sub("|".join(_TYPES), lambda found: _TYPES[found[0]], table))
    for trigger in _TRIGGERS:
        run(trigger)
    run("INSERT INTO store (id, changes) VALUES (?, 0)", [identity])
    run("INSERT INTO era (number) VALUES (1)")
    run("INSERT INTO tenants (name, gone) VALUES (?, 0)", [DEFAULT_TENANT])
    transaction = Transaction(connection, lambda statement: statement, BROKER, alone=True)
    transaction.enter_broker()
    transaction.keep_time(seen_ms)
    transaction.keep_collateral({name: int(number) for name, number in numbers})
    # Before there is a head, which is made of all that is there.
    for table, found in (("policies", policies), ("reference_values", references)):
        for name, value in found:
            columns = "(tenant, name, value) VALUES (?, ?, ?)"
            run(f"INSERT INTO {table} {columns}", [DEFAULT_TENANT, name, value])
    for resource in resources:
        run("INSERT INTO resources VALUES (?, ?, ?, ?, ?, ?, ?, ?)", resource)
    if version:
        _know_images(connection)
    for row in rows:
        transaction.append_audit(dict(zip(AUDIT_TEXTS, row, strict=True)))


def _know_images(connection: sqlite3.Connection) -> None:
    """Images in the order in which secrets were bound to them."""
    bound = connection.execute("SELECT path, manifest_digest FROM bindings ORDER BY rowid")
    known: dict[str, list[str]] = {}
    for path, digest in bound.fetchall():
        images = known.setdefault(path.partition("/")[0], [])
        if digest not in images:
            images.append(digest)
            connection.execute(
                "INSERT INTO images VALUES (?, ?, ?, 'current', '', '', '', '')",
                [path.partition("/")[0], digest, len(images)],
            )
