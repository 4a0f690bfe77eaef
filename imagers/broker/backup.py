# SPDX-License-Identifier: Apache-2.0
"""Copies of a store in a file, and back: from either kind of database into either kind.

    {"imagers-broker-backup": 1, "changes": 17, "head": "…", "head_key": "…", "seen_ms": …,
     "tables": {"resources": ["path", …], …}}
    ["resources", "default/key/1", {"b": "base64"}, …]        a row, in the order of its columns
    …
    {"rows": 240, "sha256": "…"}                              of all bytes before this line

A document a line. Secrets are in it as in the database, sealed; no master key is, and none is
needed to make one. What a restore believes is what the head of the copy says, whose MAC the master
key checks, all in one transaction: nothing of a copy that was changed is put in force. Sessions are
in no copy.
"""

from __future__ import annotations

import hmac
import json
import os
import re
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagers.broker.audit import AuditEvent, append
from imagers.broker.keeping.database import StoreFailed
from imagers.broker.keeping.store import Store
from imagers.broker.keeping.tables import AUDIT_TEXTS, COLUMNS, SEALED, WITH_SECRETS
from imagers.broker.keyfiles import lock_state_directory, make_state_directory, write_owner_only
from imagers.broker.start import open_database
from imagers.broker.unsealing import OWN_KEYS, check_descriptor, open_sealer, require_store, unseal
from imagers.errors import FormatError, LocalError
from imagers.files import local_errors, open_regular
from imagers.model.base64 import decode_base64, encode_base64
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from imagers.broker.config import BrokerConfig
    from imagers.broker.keeping.database import Cursor
    from imagers.broker.keeping.transaction import Transaction
    from imagers.model.strict_json import JSON

__all__ = ["Backup", "Restored", "make_backup", "restore"]

_NAME = "restore"  # of the chain of audit rows about it
_FORMAT = "imagers-broker-backup"
_MAX_LINE = 16 * 1024 * 1024  # a secret of 2 MiB, sealed, in base64, many times over
_NUMBERS_END = 2**63
_HALF = re.compile("[\ud800-\udfff]")  # of a pair: no text has it
_PAGE, _LARGE_PAGE = 500, 16  # rows that are read at once


@dataclass(frozen=True, slots=True)
class _Copied:
    """A table: what its rows are read in the order of, and its columns."""

    order: tuple[str, ...]
    columns: tuple[str, ...]


_COPIED: Mapping[str, _Copied] = {
    **{name: _Copied(one.key, (*one.key, *one.values)) for name, one in SEALED.items()},
    "seals": _Copied(("bucket", "name"), ("bucket", "name", "digest")),
    "buckets": _Copied(("number",), ("number", "digest")),
    "settings": _Copied(("name",), ("name", "value")),
    "collateral": _Copied(("name",), ("name", "number")),
    "audit": _Copied(("place",), ("broker", "number", *AUDIT_TEXTS, "hash")),
    "audit_heads": _Copied(("broker", "number"), ("broker", "number", "signed")),
}


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy that was made.

    Attributes:
        number: of the head: how often the store was changed.
        rows: how many it has, of all tables.
    """

    number: int
    rows: int


@dataclass(frozen=True, slots=True)
class Restored:
    """A copy that is in force.

    Attributes:
        number: of the head in the copy.
        is_older: than what was seen here.
    """

    number: int
    rows: int
    is_older: bool


def make_backup(config: BrokerConfig, path: Path) -> Backup:
    """Copy a store as it is at one moment, while brokers use it.

    Raises:
        LocalError: the store cannot be read, or the file exists or cannot be written.
    """
    require_store(config)
    database = open_database(config.state_directory, config.database, name=_NAME)
    try:
        with closing(database.connect(writes=False)) as connection, write_owner_only(path) as file:

            def run(statement: str, **given: Any) -> Cursor:
                return connection.execute(database.words(statement), given)

            for statement in database.begin_reading():
                connection.execute(statement)
            return _write(run, file)
    except database.errors as error:
        told = str(error).partition("\n")[0]
        raise StoreFailed(f"the store cannot be read: {told}", path=database.name) from None


def _write(run: Callable[..., Cursor], file: BinaryIO) -> Backup:
    store = run("SELECT changes, head, head_key, (SELECT max(seen_ms) FROM brokers) FROM store")
    number, head, head_key, seen_ms = store.fetchall()[0]
    if head is None:
        raise LocalError("nothing is sealed in this store yet: there is nothing to back up")
    digest, rows = sha256(), 0

    def line(document: JSON) -> None:
        data = dump_json(document) + b"\n"
        digest.update(data)
        file.write(data)

    line(
        {
            _FORMAT: 1,
            "changes": number,
            "head": head.hex(),
            "head_key": head_key,
            "seen_ms": seen_ms or 0,
            "tables": {name: list(one.columns) for name, one in _COPIED.items()},
        }
    )
    for name in _COPIED:
        for row in _rows(run, name):
            if name == "settings" and row[0] not in OWN_KEYS:
                continue  # what a kind of database keeps about itself
            line([name, *(_shown(value) for value in row)])
            rows += 1
    file.write(dump_json({"rows": rows, "sha256": digest.hexdigest()}) + b"\n")
    return Backup(number, rows)


def _rows(run: Callable[..., Cursor], name: str) -> Iterator[Sequence[Any]]:
    copied = _COPIED[name]
    order = ", ".join(copied.order)
    what = f"SELECT {', '.join((*copied.order, *copied.columns))} FROM {name}"  # noqa: S608 - ours
    end = f"ORDER BY {order} LIMIT {_LARGE_PAGE if name in WITH_SECRETS else _PAGE}"
    after = f"({order}) > ({', '.join(f':after_{one}' for one in copied.order)})"
    found = run(f"{what} {end}").fetchall()
    while found:
        for row in found:
            yield row[len(copied.order) :]
        given = {f"after_{one}": value for one, value in zip(copied.order, row, strict=False)}
        found = run(f"{what} WHERE {after} {end}", **given).fetchall()


def _shown(value: Any) -> JSON:
    return {"b": encode_base64(value)} if isinstance(value, bytes) else value


def _value(shown: Any, kind: str, what: str) -> Any:
    """The value of a column of that kind; a database of loose types would take any other."""
    if kind == "BYTES":
        if isinstance(shown, dict) and shown.keys() == {"b"} and isinstance(shown["b"], str):
            return decode_base64(shown["b"], what=what)
    elif kind == "BIGINT":
        if type(shown) is int and abs(shown) < _NUMBERS_END:
            return shown
    elif isinstance(shown, str) and "\0" not in shown and not _HALF.search(shown):
        return shown
    raise FormatError("has a value that is none", what=what)


class _Reader:
    """A copy, line by line."""

    def __init__(self, file: BinaryIO, what: str) -> None:
        self._file = file
        self._what = what
        self._digest = sha256()
        self.rows = 0
        first = self._line()
        self.header = View.parse(first, what=what, max_bytes=_MAX_LINE)
        if self.header.value.get(_FORMAT) != 1:
            raise FormatError("is no backup of a broker", what=what)
        tables = {name: list(one.columns) for name, one in _COPIED.items()}
        if self.header.value.get("tables") != tables:
            raise FormatError("was made by another version of imagers", what=what)
        self.number = self.header.integer("changes")
        self.seen_ms = self.header.integer("seen_ms")
        self.head_key = self.header.text("head_key")
        try:
            self.head = bytes.fromhex(self.header.text("head"))
        except ValueError:
            raise self.header.error("expected a MAC in hex", "head") from None

    def _line(self) -> bytes:
        line = self._file.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise FormatError("expected more lines: it was cut off", what=self._what)
        return line

    def __iter__(self) -> Iterator[tuple[str, Sequence[Any]]]:
        """The rows; the end, and what it says of all before it, is checked."""
        self._file.seek(0)
        self._digest, self.rows = sha256(self._line()), 0
        while (line := self._line()).startswith(b"["):
            self._digest.update(line)
            self.rows += 1
            try:
                name, *row = json.loads(line)
                columns = _COPIED[name].columns
            except (ValueError, KeyError, TypeError, RecursionError):
                raise FormatError(f"has no row in line {self.rows + 1}", what=self._what) from None
            if len(row) != len(columns):
                raise FormatError(f"has no row in line {self.rows + 1}", what=self._what)
            kinds = COLUMNS[name]
            yield (
                name,
                [
                    _value(one, kinds[column], self._what)
                    for one, column in zip(row, columns, strict=True)
                ],
            )
        end = View.parse(line, what=self._what, max_bytes=_MAX_LINE)
        is_whole = end.integer("rows") == self.rows and self._file.read(1) == b""
        if not is_whole or not hmac.compare_digest(
            end.text("sha256").encode(), self._digest.hexdigest().encode()
        ):
            raise FormatError("is not what was written: its digest is another one", what=self._what)


def restore(config: BrokerConfig, path: Path) -> Restored:
    """Put a copy in force, in a store that is empty.

    Raises:
        LocalError: the store is not empty, a broker runs on the state directory, or the master key
            is not here.
        FormatError: the file is no copy, or was changed.
        Altered: what is in it is not what the brokers of a store made.
        Older: than what was seen here, which the configuration does not accept.
    """
    check_descriptor(config)
    with local_errors(path, "cannot be read"):
        descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        reader = _Reader(file, str(path))
        for _ in reader:  # all of it, before anything is made
            pass
        if config.master_key_fd is None and not config.master_key_file.exists():
            raise LocalError(
                "the master key is missing, and the backup was sealed with it",
                path=str(config.master_key_file),
                hint="bring the file back from where it was saved",
            )
        make_state_directory(config.state_directory)
        with _alone(config.state_directory):
            return _put_back(config, reader)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    lock = lock_state_directory(directory)
    try:
        yield
    finally:
        os.close(lock)


def _put_back(config: BrokerConfig, reader: _Reader) -> Restored:
    database = open_database(config.state_directory, config.database, name=_NAME)
    with Store(database, _NAME) as store:
        with store.reading() as transaction:
            _require(transaction.store_row().head is None, database.name)
        sealer, _ = open_sealer(config, store)

        def fill(transaction: Transaction) -> None:
            # A store of a former version has no head, and keys; and another broker may have begun.
            keys = [transaction.get_setting(name) for name in OWN_KEYS]
            _require(not any(keys), database.name)
            _fill(transaction, reader)

        unsealed = unseal(config, store, sealer, fill=fill)
        with store.transaction() as transaction:
            detail = f"a backup of change {reader.number}, {reader.rows} rows"
            if unsealed.older is not None:
                detail += ", older than what was seen here"
            event = AuditEvent(event="restore", outcome="ok", detail=detail)
            append(transaction, event, now=config.clock())
    return Restored(reader.number, reader.rows, unsealed.older is not None)


def _require(is_empty: bool, name: str) -> None:  # noqa: FBT001
    if not is_empty:
        raise LocalError(
            "expected an empty store",
            path=name,
            hint="move what is there away, or name another --state or --database",
        )


def _fill(transaction: Transaction, reader: _Reader) -> None:
    transaction.sealed.fill(
        ((name, dict(zip(_COPIED[name].columns, row, strict=True))) for name, row in reader),
        number=reader.number,
        head=reader.head,
        head_key=reader.head_key,
    )
    transaction.keep_time(reader.seen_ms)
