# SPDX-License-Identifier: Apache-2.0
"""Rotation of the master key, while brokers serve.

1. The next key is made, in a file beside the one in force. Brokers look for it when they meet it.
2. The head of the store names it: from then on it seals what is new, in all brokers.
3. What names another key is sealed anew: the store's own keys, then resources, some in a change.
4. Nothing names another key any more: the next key's file takes the place of that in force, which
   stays under a name of its own, since it opens older backups.

A rotation that was cut off at any step is continued by the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.broker.audit import AuditEvent, append
from imagers.broker.keeping.head import Seen
from imagers.broker.keeping.store import Store
from imagers.broker.keeping.tables import SEALED, WITH_SECRETS
from imagers.broker.keyfiles import make_owner_only, new_master_key
from imagers.broker.sealing import RESOURCE_KIND, SETTING_KIND
from imagers.broker.start import open_database
from imagers.broker.unsealing import (
    OWN_KEYS,
    check_descriptor,
    head_file,
    open_sealer,
    require_store,
)
from imagers.errors import LocalError
from imagers.files import local_errors, sync_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagers.broker.config import BrokerConfig
    from imagers.broker.keeping.head import Name
    from imagers.broker.keeping.sealed import SealedRows
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.sealing import Sealer

__all__ = ["NAME", "Rotated", "make_next_key", "rotate"]

NAME = "rotate-master-key"
"""Of the chain of audit rows about it."""
_ROWS, _BYTES = 100, 4 * 1024 * 1024  # of one change, about: it keeps releases waiting


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was done.

    Attributes:
        before, key: ids of the master keys, of which the latter is in force now.
        sealed: how many values were sealed anew.
        old_file: where the former key is now; None: it was given by a descriptor.
    """

    before: str
    key: str
    sealed: int
    old_file: Path | None


def make_next_key(config: BrokerConfig) -> bool:
    """Whether the next master key was made now; False: an earlier rotation is not at its end.

    Raises:
        LocalError: there is no store, or no master key of one.
    """
    require_store(config)
    if not config.master_key_file.is_file():
        raise LocalError("there is no master key", path=str(config.master_key_file))
    return make_owner_only(config.next_key_file, new_master_key())


def rotate(config: BrokerConfig) -> Rotated:
    """Seal all with the next master key, and put it in force.

    Raises:
        LocalError: there is no next key, or the store cannot be used.
    """
    check_descriptor(config)
    database = open_database(config.state_directory, config.database, name=NAME)
    with Store(database, NAME) as store:
        with store.reading() as transaction:
            if transaction.store_row().head is None:
                raise LocalError("nothing is sealed in this store yet", path=database.name)
        sealer, _ = open_sealer(config, store)
        if len(sealer.ids) == 1:
            raise LocalError(
                "expected the master key in force and the next one, got one key",
                hint="a descriptor gives both, one after the other",
            )
        before, key = sealer.ids
        file = head_file(config, sealer)
        store.unseal(sealer, seen=file.read())
        with store.transaction() as transaction:
            transaction.sealed.verify()  # which tells the sealer the key in force until now
            sealer.current = key
            told = AuditEvent(event="rotate", outcome="ok", detail=f"master key {key} is in force")
            append(transaction, told, now=config.clock())
        count = _seal_anew(store, sealer)
        with store.transaction() as transaction:
            detail = f"{count} values were sealed anew; master key {before} is in use no more"
            told = AuditEvent(event="rotate", outcome="ok", detail=detail)
            append(transaction, told, now=config.clock())
        with store.reading() as transaction:
            file.write(Seen(transaction.store_row().changes))
    old_file = None if config.master_key_fd is not None else _exchange_files(config, before)
    return Rotated(before, key, count, old_file)


def _seal_anew(store: Store, sealer: Sealer) -> int:
    with store.transaction() as transaction:
        count = _seal_own_keys(transaction, sealer)
        rows = transaction.sealed
        names = [name for table in WITH_SECRETS for name in rows.names(table)]
    while names:
        with store.transaction() as transaction:
            done, sealed = _seal_some(transaction.sealed, sealer, names)
        names, count = names[done:], count + sealed
    return count


def _seal_own_keys(transaction: Transaction, sealer: Sealer) -> int:
    count = 0
    for name in OWN_KEYS:
        sealed = transaction.get_setting(name)
        if sealed is None or sealer.key_of(sealed) == sealer.current:
            continue
        with sealer.open(sealed, kind=SETTING_KIND, name=name, version=1) as key:
            anew = sealer.seal(key, kind=SETTING_KIND, name=name, version=1)
        transaction.set_setting(name, anew)
        count += 1
    return count


def _seal_some(rows: SealedRows, sealer: Sealer, names: Sequence[Name]) -> tuple[int, int]:
    """How many of the rows were looked at, and how many values sealed anew."""
    done = count = size = 0
    for table, *key in names:
        if count == _ROWS or size >= _BYTES:
            break
        done += 1
        columns = SEALED[str(table)]
        values = rows.get(str(table), *key)
        if values is None:
            continue
        row = dict(zip((*columns.key, *columns.values), (*key, *values), strict=True))
        if sealer.key_of(row["sealed"]) == sealer.current:
            continue
        place = {"kind": RESOURCE_KIND, "name": row["path"], "version": row["version"]}
        size += len(row["sealed"])
        with sealer.open(row["sealed"], **place) as secret:
            row["sealed"] = sealer.seal(secret, **place)
        rows.put(str(table), key, [row[name] for name in columns.values])
        count += 1
    return done, count


def _exchange_files(config: BrokerConfig, before: str) -> Path:
    """Let the next key's file be that of the key in force; where the former one is now."""
    path = config.master_key_file
    old = path.with_name(f"{path.name}.{before}")
    with local_errors(path, "cannot be replaced"):
        if not old.exists():
            old.hardlink_to(path)
        config.next_key_file.replace(path)
        sync_directory(path.parent)
    return old
