# SPDX-License-Identifier: Apache-2.0
"""The key of a store's seals: random, and another one after each boot.

    with load_store_key(Path("/run/imagers")) as key:
        ...

It lies where the guest keeps what lives as long as it does, not in the store: the store may be
on a disk that the host writes. What an earlier boot sealed is nothing any more; who wants it
back hands in a key of their own, such as one from a broker.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from imagers.errors import LocalError
from imagers.files import StagedFile, local_errors, write_all
from imagers.model.keys import SecretKey
from imagers.waiting import lock_file

__all__ = ["STORE_KEY_BYTES", "load_store_key"]

STORE_KEY_BYTES = 32
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_ID_BYTES = 36
_NAME = "store.key"


def load_store_key(directory: Path) -> SecretKey:
    """The key of this boot, 32 bytes, in a file of `directory`; made where there is none.

    Raises:
        LocalError: the file cannot be read or made, or others can read it.
    """
    boot = _BOOT_ID.read_bytes()[:_BOOT_ID_BYTES]
    path = directory / _NAME
    with local_errors(path, "the key of the store cannot be had"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Two that begin at the same time must not make two keys.
            lock_file(lock, shared=False, what=str(directory))
            found = _read(path)
            if found is not None and found[:_BOOT_ID_BYTES] == boot:
                return _taken(found)
            made = bytearray(boot + os.urandom(STORE_KEY_BYTES))
            file = StagedFile(directory)
            try:
                os.fchmod(file.fileno(), 0o600)
                write_all(file.fileno(), memoryview(made))
                file.publish(path)
            finally:
                file.close()
            return _taken(made)
        finally:
            os.close(lock)


def _taken(data: bytearray) -> SecretKey:
    try:
        return SecretKey(memoryview(data)[_BOOT_ID_BYTES:])
    finally:
        data[:] = bytes(len(data))


def _read(path: Path) -> bytearray | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with open(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise LocalError("expected a file of your own", path=str(path))
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise LocalError(
                f"expected a file that only you can read, got mode {status.st_mode & 0o777:o}",
                path=str(path),
                hint="remove it: a new key is made, and what was kept under the old one goes",
            )
        data = bytearray(_BOOT_ID_BYTES + STORE_KEY_BYTES + 1)
        count = file.readinto(data)
        return data[:count] if count == _BOOT_ID_BYTES + STORE_KEY_BYTES else bytearray()
