# SPDX-License-Identifier: Apache-2.0
"""A digest over all that is below a directory: names, kinds, modes, owners, times, bytes.

    content_digest(fd, leave_out={b"seal"})          # 64 hex digits

The SHA-256 of one record for each name, in the order of a walk that takes the names of a
directory sorted by their bytes, and what is below one right behind it. A record is a list of
fields, each with its length before it in 8 bytes, little-endian:

    path, mode, uid, gid, device, mtime in ns, then of its kind: the target of a symbolic link;
    the SHA-256 of a regular file; then each extended attribute, name and value, by name

Numbers are decimal text. The times of reading and of changing the inode, its number and the
count of its links are not in it: they say where the files are, and not what.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["content_digest"]

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1024 * 1024
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def content_digest(place: int, *, leave_out: Collection[str] = ()) -> str:
    """The digest, as hex.

    Args:
        place: descriptor of the directory; stays the caller's. It is no part of the digest.
        leave_out: names right in it that are none.

    Raises:
        OSError: something cannot be read.
    """
    total = hashlib.sha256()
    here = os.open(".", _FLAGS, dir_fd=place)
    try:
        path: list[str] = []
        # Names of each directory on the way that are still to come, the next one at the end.
        left = [[name for name in _names(here) if name not in leave_out]]
        while True:
            if left[-1]:
                name = left[-1].pop()
                if _add(total, here, "/".join((*path, name)), name):
                    following = os.open(name, _FLAGS, dir_fd=here)
                    os.close(here)
                    here = following
                    path.append(name)
                    left.append(_names(here))
            elif path:
                # By "..", so that a deep tree takes no more descriptors than a flat one.
                following = os.open("..", _FLAGS, dir_fd=here)
                os.close(here)
                here = following
                path.pop()
                left.pop()
            else:
                return total.hexdigest()
    finally:
        os.close(here)


def _names(fd: int) -> list[str]:
    return sorted(os.listdir(fd), key=os.fsencode, reverse=True)


def _add(total: hashlib._Hash, parent: int, path: str, name: str) -> bool:
    """Take one name into the digest; whether it is a directory."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    mode = status.st_mode
    is_node = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    device = status.st_rdev if is_node else 0
    numbers = (mode, status.st_uid, status.st_gid, device, status.st_mtime_ns)
    fields = [os.fsencode(path), *(b"%d" % number for number in numbers)]
    if stat.S_ISREG(mode):
        fd = os.open(name, _FILE_FLAGS, dir_fd=parent)
        try:
            fields.append(_digest_of(fd))
            _add_attributes(fields, fd)
        finally:
            os.close(fd)
    else:
        if stat.S_ISLNK(mode):
            fields.append(os.fsencode(os.readlink(name, dir_fd=parent)))
        _add_attributes(fields, f"/proc/self/fd/{parent}/{name}")
    record = bytearray()
    for field in fields:
        record += len(field).to_bytes(8, "little")
        record += field
    total.update(record)
    return stat.S_ISDIR(mode)


def _digest_of(fd: int) -> bytes:
    found = hashlib.sha256()
    while data := os.read(fd, _PIECE):
        found.update(data)
    return found.digest()


def _add_attributes(fields: list[bytes], where: int | str) -> None:
    follow = isinstance(where, int)
    for attribute in sorted(os.listxattr(where, follow_symlinks=follow)):
        fields.append(os.fsencode(attribute))
        fields.append(os.getxattr(where, attribute, follow_symlinks=follow))
