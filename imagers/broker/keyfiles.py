# SPDX-License-Identifier: Apache-2.0
"""Files and folders that only their owner may read: the state directory and its keys.

A key file is made whole or not at all: it is written under a temporary name and then linked
to its own, which fails if that exists.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from imagers.errors import FormatError, LocalError
from imagers.files import local_errors, sync_directory, write_new
from imagers.kbs.tenants import parse_admin_public_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

__all__ = [
    "check_owner_only",
    "load_admin_public_key",
    "load_master_key",
    "lock_state_directory",
    "make_admin_key",
    "make_owner_only",
    "make_state_directory",
    "new_master_key",
    "read_master_key",
    "read_master_keys",
    "replace_owner_only",
    "write_owner_only",
]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MASTER_KEY_BYTES = 32
_MAX_PEM = 64 * 1024
_LOCK = "lock"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # on this file system


def make_state_directory(path: Path) -> None:
    """The directory with mode 0700, made with its parents if it is missing.

    Raises:
        LocalError: it cannot be made, is another user's, or open to others.
    """
    with local_errors(path, "the state directory cannot be made"):
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            raise LocalError("expected a state directory, got a file", path=str(path)) from None
    check_owner_only(path)


def lock_state_directory(path: Path) -> int:
    """A descriptor that keeps a second broker away from the directory until it is closed.

    The lock is the kernel's, on an empty file: it goes with the process, however that ends.

    Raises:
        LocalError: another broker has it, or the file system knows no locks.
    """
    file = path / _LOCK
    # Writable: NFS makes byte range locks of it, and those want a file that may be written.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with local_errors(file, "cannot be opened"):
        descriptor = os.open(file, flags, 0o600)
    try:
        check_owner_only(file)
        with local_errors(file, "cannot be locked"):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except LocalError as error:
        os.close(descriptor)
        if not isinstance(error.__cause__, BlockingIOError):
            raise
        raise LocalError(
            "another broker runs on this state directory",
            path=str(path),
            hint="stop that one first, or give this one a directory of its own with --state",
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_owner_only(path: Path, *, readable: bool = False) -> None:
    """Raise unless only this user may touch `path`.

    Args:
        readable: others may read it, and not write.

    Raises:
        LocalError: it is another user's, or open to others.
    """
    with local_errors(path, "cannot be looked at"):
        status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise LocalError("expected the file itself, got a symbolic link", path=str(path))
    if status.st_uid != os.geteuid():
        raise LocalError(
            f"expected to be its owner (user {os.geteuid()}), it belongs to user {status.st_uid}",
            path=str(path),
        )
    mode = stat.S_IMODE(status.st_mode)
    wanted = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
    if mode & (_OTHERS_WRITE if readable else _OTHERS):
        raise LocalError(
            f"expected mode {wanted:04o}, got {mode:04o}: others could read or change it",
            path=str(path),
            hint=f"if nobody has: chmod {wanted:o} {path}",
        )


def make_owner_only(path: Path, data: bytes) -> bool:
    """Whether `path` was made now, with mode 0600 and `data`; False if it existed.

    Raises:
        LocalError: it could not be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with local_errors(path, "cannot be written"):
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        sync_directory(path.parent)
    return True


@contextmanager
def write_owner_only(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which has the name with mode 0600 when the block ends well, or never.

    Raises:
        LocalError: the name exists, or the file could not be written.
    """
    if os.path.lexists(path):  # else it is told after all was written
        raise LocalError("is there already", path=str(path), hint="give it another name")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with local_errors(path, "cannot be written"):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _name_new(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


def _name_new(temporary: Path, path: Path) -> None:
    """Give a file its name, which nothing may have.

    Where the file system has no links the name is taken by an empty file first, which the other
    replaces at once: nothing of another is written over, and only a crash between the two leaves
    the empty one.
    """
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            temporary.replace(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def replace_owner_only(path: Path, data: bytes) -> None:
    """Let `path` have mode 0600 and `data`, whether it existed or not, or be as it was.

    Raises:
        LocalError: it could not be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with local_errors(path, "cannot be written"):
        try:
            write_new(temporary, data, mode=0o600)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


def load_master_key(path: Path, *, may_make: Callable[[], bool]) -> tuple[bytearray, bool]:
    """The master key, and whether it was made now.

    Args:
        may_make: whether a missing file may be made: not once something was sealed.

    Raises:
        LocalError: missing and not to be made; of another length; open to others.
    """
    made = False
    if not path.exists() and not path.is_symlink():
        if not may_make():
            raise LocalError(
                "the master key is missing, and the store was sealed with it",
                path=str(path),
                hint="bring the file back from where it was saved; without it the secrets are lost",
            )
        made = make_owner_only(path, new_master_key())
    return read_master_key(path), made


def new_master_key() -> bytes:
    """A master key that nobody has."""
    return secrets.token_bytes(_MASTER_KEY_BYTES)


def read_master_key(path: Path) -> bytearray:
    """The master key of a file; the caller wipes it.

    Raises:
        LocalError: it cannot be read; of another length; open to others.
    """
    check_owner_only(path)
    data = bytearray(_read(path, _MASTER_KEY_BYTES + 1))
    if len(data) != _MASTER_KEY_BYTES:
        raise LocalError(
            f"expected a master key of {_MASTER_KEY_BYTES} bytes, got {len(data)}"
            + (" or more" if len(data) > _MASTER_KEY_BYTES else ""),
            path=str(path),
        )
    return data


def read_master_keys(descriptor: int) -> list[bytearray]:
    """The master key that a descriptor gives, and the next one while it is rotated; it is closed.

    Raises:
        LocalError: it cannot be read, or has something else.
    """
    what = f"descriptor {descriptor}"
    with local_errors(what, "cannot be read"), os.fdopen(descriptor, "rb") as file:
        data = bytearray(file.read(2 * _MASTER_KEY_BYTES + 1))
    if len(data) not in (_MASTER_KEY_BYTES, 2 * _MASTER_KEY_BYTES):
        raise LocalError(
            f"expected a master key of {_MASTER_KEY_BYTES} bytes, or two while it is rotated, got "
            f"{len(data)} bytes" + (" or more" if len(data) > 2 * _MASTER_KEY_BYTES else ""),
            path=what,
        )
    keys = [data[:_MASTER_KEY_BYTES], data[_MASTER_KEY_BYTES:]]
    data[:] = bytes(len(data))
    return [key for key in keys if key]


def make_admin_key(private_path: Path, public_path: Path) -> bool:
    """Whether an Ed25519 admin key was made now: not if its public half is there.

    The broker needs the public file only; the private one may be moved elsewhere.

    Raises:
        LocalError: it could not be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    if public_path.exists() or public_path.is_symlink():
        return False
    private = ed25519.Ed25519PrivateKey.generate()
    made = make_owner_only(
        private_path,
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    if not made:
        # A start that was cut off between the two files, or another that runs now.
        check_owner_only(private_path)
        private = _load_private(private_path)
    make_owner_only(
        public_path,
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )
    return made


def load_admin_public_key(path: Path) -> Ed25519PublicKey:
    """The admin's public key; others may read the file, and must not be able to change it.

    Raises:
        LocalError: it cannot be read, or others may write it.
        FormatError: no such key in it.
    """
    check_owner_only(path, readable=True)
    return parse_admin_public_key(_read(path, _MAX_PEM), what=str(path))


def _load_private(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    try:
        key = serialization.load_pem_private_key(_read(path, _MAX_PEM), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise FormatError("expected a PEM file with an Ed25519 private key", what=str(path))
    return key


def _read(path: Path, limit: int) -> bytes:
    with local_errors(path, "cannot be read"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit)
