# SPDX-License-Identifier: Apache-2.0
"""Names to directories, inside the root of a tree and nowhere else."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from imagers.model.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.core.plain_tar import Entry

__all__ = ["IMPLIED_MODE", "OPEN_DIRECTORY", "Lock", "Resolver", "lstat"]

_MAX_LINKS = 40  # MAXSYMLINKS of Linux
_MAX_STEPS = 100_000  # for one name: see `_step`
IMPLIED_MODE = 0o755
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Lock(Closing):
    """Makes a directory one that its owner, us, can read, search and change, until `close`.

    Args:
        keep: the tree is made by root, who needs nothing of it.
    """

    def __init__(self, fd: int, *, keep: bool) -> None:
        self._fd = fd
        self._mode: int | None = None
        mode = 0o700 if keep or os.geteuid() == 0 else stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & 0o700 != 0o700:
            self._mode = mode
            os.fchmod(fd, mode | 0o700)

    def close(self) -> None:
        """Give it its mode back; the descriptor stays the caller's."""
        if self._mode is not None:
            mode, self._mode = self._mode, None
            os.fchmod(self._fd, mode)


def lstat(parent: int, name: bytes) -> os.stat_result | None:
    """What a directory has under this name, not followed; None where that is nothing."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


class Resolver:
    """Opens directories of one tree.

    Args:
        root: stays the caller's.
        made: gets the names of directories that are made, by the inode of the one above.
        keep: the tree is made by root.
        count: is called for each directory before it is made.
    """

    def __init__(
        self,
        root: int,
        made: set[tuple[tuple[int, int], bytes]],
        *,
        keep: bool,
        count: Callable[[], None],
    ) -> None:
        self._root = root
        self._made = made
        self._keep = keep
        self._count = count
        self._links = self._steps = 0  # of the name at hand

    def _step(self) -> None:
        """Before each directory that is opened.

        Links may lead up as often as they have room for, and from a deep directory each time costs
        its depth: ten million steps for a name, where a layer wants to keep us busy. Without that
        a name has some hundred.
        """
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def open_directory(self, parent: int, name: bytes) -> int:
        """A descriptor of a directory by the last part of its name; also an unreadable one."""
        try:
            return os.open(name, OPEN_DIRECTORY, dir_fd=parent)
        except PermissionError:
            if self._keep:
                raise
            there = lstat(parent, name)
            if there is None or not stat.S_ISDIR(there.st_mode):
                raise
            # Ours, and made unreadable by a layer: readable for as long as it takes to open.
            os.chmod(name, 0o700, dir_fd=parent)
            fd = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
            os.fchmod(fd, stat.S_IMODE(there.st_mode))
            return fd

    def resolve(self, path: tuple[bytes, ...], entry: Entry | None) -> int | None:
        """A descriptor of the directory `path` inside the root; None if it is missing.

        openat2(RESOLVE_IN_ROOT) by hand: each part is opened without following it, a
        symbolic link is put in front of what is left.
        """
        done: list[bytes] = []  # parts that are no links: re-opened from the root on `..`
        todo = list(reversed(path))
        self._links = self._steps = 0
        at = self._again(done)
        try:
            while todo:
                self._step()
                part = todo.pop()
                # Closed before the next one is opened: they may be the same directory.
                with Lock(at, keep=self._keep):
                    fresh = self._next(at, part, todo, done, entry)
                if fresh is None:
                    os.close(at)
                    return None
                if fresh != at:
                    os.close(at)
                    at = fresh
        except BaseException:
            os.close(at)
            raise
        return at

    def _next(
        self, at: int, part: bytes, todo: list[bytes], done: list[bytes], entry: Entry | None
    ) -> int | None:
        """A descriptor of the directory that `part` leads to, perhaps `at`; None: missing."""
        if part == b"..":
            if not done:
                return at  # above the root is the root
            done.pop()
            return self._again(done)
        there = lstat(at, part)
        if there is None:
            if entry is None:
                return None
            self._imply(at, part, entry)
        elif stat.S_ISLNK(there.st_mode):
            self._links += 1
            if self._links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(part, dir_fd=at)
            todo += reversed([p for p in target.split(b"/") if p not in (b"", b".")])
            if not target.startswith(b"/"):
                return at
            done.clear()
            return self._again(done)
        child = self.open_directory(at, part)  # ENOTDIR where it is none
        done.append(part)
        return child

    def _again(self, done: list[bytes]) -> int:
        """A descriptor of the directory `done`, which has no links in it."""
        with Lock(self._root, keep=self._keep):
            fresh = os.open(b".", OPEN_DIRECTORY, dir_fd=self._root)
        for part in done:
            try:
                self._step()
                with Lock(fresh, keep=self._keep):
                    child = self.open_directory(fresh, part)
            finally:
                os.close(fresh)
            fresh = child
        return fresh

    def _imply(self, at: int, name: bytes, entry: Entry) -> None:
        """Make a directory that a name needs and no entry describes."""
        self._count()
        before = os.fstat(at)
        os.mkdir(name, 0o700, dir_fd=at)
        fd = self.open_directory(at, name)
        try:
            os.fchmod(fd, IMPLIED_MODE)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)
        os.utime(at, ns=(before.st_atime_ns, before.st_mtime_ns))
        self._made.add(((before.st_dev, before.st_ino), name))
