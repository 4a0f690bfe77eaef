# SPDX-License-Identifier: Apache-2.0
"""The start of a broker, as far as it is about keys: master key, head, and the store's own keys.

sealer, made = open_sealer(config, store)
unsealed = unseal(config, store, sealer)
with own_key(store, sealer, TOKEN_KEY, make_signing_key) as private: ...
"""

from __future__ import annotations

import logging
import os
import secrets
from functools import partial
from typing import TYPE_CHECKING

from imagers.broker.headfile import HeadFile, OtherKey
from imagers.broker.keyfiles import load_master_key, read_master_key, read_master_keys
from imagers.broker.sealing import SETTING_KIND, Sealer
from imagers.errors import FormatError, LocalError
from imagers.files import local_errors
from imagers.model.keys import SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.broker.config import BrokerConfig
    from imagers.broker.keeping.head import Seen
    from imagers.broker.keeping.store import Store, Unsealed
    from imagers.broker.keeping.transaction import Transaction

__all__ = [
    "AUDIT_KEY",
    "CHALLENGE_KEY",
    "LOGIN_KEY",
    "OWN_KEYS",
    "TOKEN_KEY",
    "check_descriptor",
    "head_file",
    "make_challenge_key",
    "open_sealer",
    "own_key",
    "require_store",
    "unseal",
]

TOKEN_KEY, AUDIT_KEY = "token-key", "audit-key"
CHALLENGE_KEY, LOGIN_KEY = "challenge-key", "login-key"
OWN_KEYS = (TOKEN_KEY, AUDIT_KEY, CHALLENGE_KEY, LOGIN_KEY)
"""Settings that are sealed: keys that all brokers of a store share."""
_HEAD = "head"
_CHALLENGE_KEY_BYTES = 32

_log = logging.getLogger("imagers.broker")


def require_store(config: BrokerConfig) -> None:
    """Raise where there is no store in the state directory: to open one would make it.

    Raises:
        LocalError: there is none.
    """
    if config.database is None and not config.store_file.is_file():
        raise LocalError(
            "there is no store",
            path=str(config.store_file),
            hint="--state DIR names the broker's directory",
        )


def check_descriptor(config: BrokerConfig) -> None:
    """Raise where the descriptor of the master key is not open, before a file of ours gets it.

    Raises:
        LocalError: nobody gave it.
    """
    if config.master_key_fd is None:
        return
    with local_errors(f"descriptor {config.master_key_fd}", "cannot be read"):
        os.fstat(config.master_key_fd)


def open_sealer(config: BrokerConfig, store: Store) -> tuple[Sealer, bool]:
    """What the values of a store are opened with, and whether the master key was made now.

    Raises:
        LocalError: a key is missing, or is not the one of this store.
    """

    def may_make() -> bool:
        with store.reading() as transaction:
            row = transaction.store_row()
            return row.head is None and transaction.get_setting(TOKEN_KEY) is None

    made, where = False, str(config.master_key_file)
    if config.master_key_fd is not None:
        where = f"descriptor {config.master_key_fd}"
        keys = read_master_keys(config.master_key_fd)
    else:
        key, made = load_master_key(config.master_key_file, may_make=may_make)
        keys = [key, *_next_keys(config)]
    try:
        sealer = Sealer(keys, find=partial(_keys_now, config))
    finally:
        for key in keys:
            key[:] = bytes(len(key))
    with store.reading() as transaction:
        sealed = transaction.get_setting(TOKEN_KEY)
    if sealed is not None:
        sealer.open_first(sealed, kind=SETTING_KIND, name=TOKEN_KEY, master_key_path=where).close()
    return sealer, made


def _next_keys(config: BrokerConfig) -> list[bytearray]:
    """The next master key, where there is one."""
    return [read_master_key(config.next_key_file)] if config.next_key_file.exists() else []


def _keys_now(config: BrokerConfig) -> list[bytearray]:
    """The master keys of the files: a rotation may have made or exchanged them since the start."""
    if config.master_key_fd is not None:
        return []
    return [read_master_key(config.master_key_file), *_next_keys(config)]


def head_file(config: BrokerConfig, sealer: Sealer) -> HeadFile:
    """Where the number of the newest head is, outside of the database."""
    return HeadFile(config.state_directory / _HEAD, sealer)


def unseal(
    config: BrokerConfig,
    store: Store,
    sealer: Sealer,
    *,
    fill: Callable[[Transaction], None] | None = None,
) -> Unsealed:
    """Verify the head of a store, and that it is not older than one that was seen here.

    Args:
        fill: see `Store.unseal`.

    Raises:
        Altered, Older, StoreFailed: see `Store.unseal`.
        LocalError, FormatError: the file of the number is not what a broker wrote.
    """
    file = head_file(config, sealer)
    seen = None
    try:
        seen = file.read()
    except OtherKey:
        raise  # an older state is accepted with the images that were revoked since, or not at all
    except (LocalError, FormatError) as error:
        if not config.accept_older_state:
            raise
        _log.warning("images that were revoked since may be served again: %s", error)
    return store.unseal(
        sealer,
        seen=seen,
        accept_older=config.accept_older_state,
        keep=partial(_keep, file),
        fill=fill,
    )


def _keep(file: HeadFile, seen: Seen) -> None:
    try:
        file.write(seen)
    except LocalError as error:  # the change is on disk, and is not undone for this
        _log.error("an old copy of the store might be believed after the next start: %s", error)


def make_challenge_key() -> SecretKey:
    """What `Challenges` derives its keys from: the store's, so that it outlives a master key."""
    return SecretKey(secrets.token_bytes(_CHALLENGE_KEY_BYTES))


def own_key(store: Store, sealer: Sealer, name: str, make: Callable[[], SecretKey]) -> SecretKey:
    """A key that all brokers of the store share; the caller closes it."""
    with store.transaction() as transaction:
        sealed = transaction.get_setting(name)
        if sealed is not None:
            return sealer.open(sealed, kind=SETTING_KIND, name=name, version=1)
        key = make()
        sealed = sealer.seal(key, kind=SETTING_KIND, name=name, version=1)
        transaction.set_setting(name, sealed)
        return key
