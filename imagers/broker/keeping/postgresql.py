# SPDX-License-Identifier: Apache-2.0
"""A store in PostgreSQL, which any number of brokers share.

Brokers do not wait for each other where they add rows: each has a chain of audit rows of its own,
and each `write` a shared lock, which only a `change` is kept out by. Sessions are in tables without
a log of their own; a server that falls empties them, and `era` with them, which is how brokers
know.

The tables are in the schema `imagers` of the database that the URL names.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from imagers.broker.keeping.tables import DEFAULT_TENANT, PASSING, TABLES
from imagers.broker.keeping.transaction import STORE_ID_BYTES
from imagers.errors import FormatError, LocalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.abc import PQGen
    from psycopg.waiting import Ready, Wait

    from imagers.broker.keeping.database import Connection, Database

__all__ = ["PostgreSQLDatabase"]

_SCHEMA_VERSION = b"4"
_TYPES = {"BYTES": "BYTEA", "PLACE": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"}
# Of advisory locks: numbers that nobody else in this database takes.
_SCHEMA_LOCK, _CHANGE_LOCK, _NAME_LOCK = 0x696D6701, 0x696D6702, 0x696D6703
_PATIENCE_MS = 10_000
_NAME_PATIENCE_MS = 2_000
_GIVE_UP_S = 15.0  # on a server that keeps none of its own limits: stopped, or its disk is
# So that the server ends what a broker had whose machine is gone: its name, and its locks.
_KEEPALIVES = {"idle": "5", "interval": "2", "count": "3"}
_OPTIONS = {
    "search_path": "imagers",
    "statement_timeout": f"{_PATIENCE_MS}",
    "lock_timeout": f"{_PATIENCE_MS}",
    "idle_in_transaction_session_timeout": f"{_PATIENCE_MS}",  # of a broker that was stopped
    **{f"tcp_keepalives_{name}": value for name, value in _KEEPALIVES.items()},
}
_CONNECTION = {
    "connect_timeout": "5",
    "tcp_user_timeout": f"{_PATIENCE_MS}",
    **{f"keepalives_{name}": value for name, value in _KEEPALIVES.items()},
}
_PARAMETER = re.compile(r":(\w+)")
_NEVER_CHANGED = """
CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$;
CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows();
"""


_T = TypeVar("_T")


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """One that gives a server up that does not answer."""

    def wait(self, gen: PQGen[_T], *args: Any, **named: Any) -> _T:
        return super().wait(_bounded(gen), *args, **named)


def _bounded(steps: PQGen[_T]) -> PQGen[_T]:
    """The steps, which psycopg wakes up some times a second, until the time is over."""
    end = time.monotonic() + _GIVE_UP_S
    ready: Ready | int
    try:
        wanted: Wait = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > end:
                raise psycopg.OperationalError("the server does not answer")
            wanted = steps.send(ready)
    except StopIteration as done:
        result: _T = done.value
        return result


class PostgreSQLDatabase:
    """A database of a server.

    Args:
        url: `postgresql://USER@HOST/DATABASE`, and what else libpq takes, but no password: that
            is in the file that PGPASSFILE names, or ~/.pgpass.
        broker: the name of this broker, which no other may have at the same time.

    Raises:
        UsageError, FormatError: the URL has a password, or is none.
        LocalError: the server cannot be reached, or another broker has the name.
    """

    waits = True
    takes_over = False
    errors: type[Exception] = psycopg.Error
    taken: type[Exception] = psycopg.IntegrityError
    again: tuple[type[Exception], ...] = (psycopg.errors.DeadlockDetected,)

    def __init__(self, url: str, broker: str) -> None:
        try:
            told = conninfo_to_dict(url)
        except psycopg.Error:
            # Its words repeat the text, and a password that is in it.
            raise FormatError("expected postgresql://USER@HOST/DATABASE", what="database") from None
        if "password" in told:
            raise UsageError(
                "database: expected a URL without a password, which others could read",
                hint="write it into ~/.pgpass with mode 0600, as "
                "'HOST:PORT:DATABASE:USER:PASSWORD', or name such a file in PGPASSFILE",
            )
        self.name = f"postgresql://{told.get('host', '')}/{told.get('dbname', '')}"
        options = " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items())
        self._conninfo = make_conninfo(
            url, **_CONNECTION, options=options, application_name=f"imagers-broker {broker}"
        )
        self._broker = broker
        self._presence: Connection | None = None

    def make_schema(self) -> None:
        """See `Database`."""
        self._presence = self._take_name()
        with closing(self.connect(writes=True)) as connection:
            connection.execute("BEGIN")
            connection.execute(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
            _check_durable(connection, self.name)
            row = connection.execute("SELECT to_regclass('imagers.settings') IS NULL").fetchone()
            if row == (True,):
                _make(connection)
            found = connection.execute("SELECT value FROM settings WHERE name = 'schema'")
            version = found.fetchone()
            if version != (_SCHEMA_VERSION,):
                told = version[0].decode("ascii", "replace") if version else "none"
                raise LocalError(
                    f"expected a store of version {_SCHEMA_VERSION.decode()}, got {told}",
                    path=self.name,
                    hint="it was made by another version of imagers",
                )
            connection.execute("COMMIT")

    def _take_name(self) -> Connection:
        """A connection that has the broker's name, until it is closed."""
        connection = self.connect(writes=False)
        try:
            # The server takes a moment to see that the one before has gone.
            connection.execute(f"SET lock_timeout = {_NAME_PATIENCE_MS}")
            connection.execute(
                f"SELECT pg_advisory_lock({_NAME_LOCK}, hashtext(%(name)s))", {"name": self._broker}
            )
        except psycopg.errors.LockNotAvailable:
            connection.close()
            raise LocalError(
                f"another broker named '{self._broker}' runs on this database",
                path=self.name,
                hint="give each broker a name of its own with --name",
            ) from None
        return connection

    def words(self, statement: str) -> str:
        """See `Database`."""
        return _PARAMETER.sub(r"%(\1)s", statement)

    def connect(self, *, writes: bool) -> Connection:
        """See `Database`."""
        connection = _Connection.connect(self._conninfo, autocommit=True)
        if not writes:
            connection.execute("SET default_transaction_read_only = on")
        return connection

    def begin_reading(self) -> Sequence[str]:
        """See `Database`."""
        return ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",)

    def begin_writing(self, *, alone: bool, patient: bool) -> Sequence[str]:  # noqa: ARG002
        """See `Database`. The server's own time limits are its patience."""
        kind = "" if alone else "_shared"
        # Whatever the database's default is: what is read must be what is there after the wait.
        lock = f"SELECT pg_advisory_xact_lock{kind}({_CHANGE_LOCK})"
        return (f"BEGIN ISOLATION LEVEL READ COMMITTED; {lock}",)

    def close(self) -> None:
        """See `Database`."""
        if self._presence is not None:
            with suppress(psycopg.Error):
                self._presence.close()
            self._presence = None


if TYPE_CHECKING:

    def _is_database(database: PostgreSQLDatabase) -> Database:
        return database


def _check_durable(connection: Connection, name: str) -> None:
    """Raise where the server would lose what it said it kept."""
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        if connection.execute(f"SHOW {setting}").fetchone() == ("off",):
            raise LocalError(
                f"the server has {setting} = off: what it kept would be lost when it falls",
                path=name,
                hint=f"set it to on, for this database: ALTER DATABASE ... SET {setting} = on; "
                "or for the server",
            )


def _make(connection: Connection) -> None:
    connection.execute("CREATE SCHEMA IF NOT EXISTS imagers")
    for table in TABLES:
        connection.execute(re.sub("|".join(_TYPES), lambda found: _TYPES[found[0]], table))
    for name in PASSING:
        connection.execute(f"ALTER TABLE {name} SET UNLOGGED")
    connection.execute(_NEVER_CHANGED)
    connection.execute(
        "INSERT INTO store (id, changes) VALUES (%(id)s, 0)", {"id": os.urandom(STORE_ID_BYTES)}
    )
    connection.execute("INSERT INTO era (number) VALUES (1)")
    connection.execute(
        "INSERT INTO tenants (name, gone) VALUES (%(name)s, 0)", {"name": DEFAULT_TENANT}
    )
    connection.execute(
        "INSERT INTO settings (name, value) VALUES ('schema', %(version)s)",
        {"version": _SCHEMA_VERSION},
    )
