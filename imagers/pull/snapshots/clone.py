# SPDX-License-Identifier: Apache-2.0
"""Another tree of the same content, in each way that a file system has.

    clone_tree(source, target, spare, share=False)

Owners, modes, times, extended attributes, devices, holes and hard links are those of the source.
Nothing is followed, and no path is made of names: trees may be deeper than a path is long.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import ExitStack, suppress

from imagers.core.plain_attributes import is_set
from imagers.errors import Unsupported
from imagers.pull.snapshots.places import DIRECTORY

__all__ = ["clone_tree", "copy_attributes"]

_FICLONE = 0x40049409  # Linux UAPI, linux/fs.h
_NO_REFLINKS = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL)
_PIECE = 1 << 30
# From this many names on, those in one tree are kept together by hand: Linux file systems take
# 65,000 or more, of all trees that share a file.
_MANY = 15_000


def copy_attributes(source: int, target: int) -> None:
    """Owner, extended attributes, mode and times of an open file, in the order of unpacking."""
    there = os.fstat(source)
    os.fchown(target, there.st_uid, there.st_gid)
    _copy_extended(source, target)
    os.fchmod(target, stat.S_IMODE(there.st_mode))
    os.utime(target, ns=(there.st_atime_ns, there.st_mtime_ns))


def _copy_extended(source: int | str, target: int | str) -> None:
    """Those that unpacking sets; of paths, what is at their end is not followed."""
    follow = isinstance(source, int)
    try:
        names = os.listxattr(source, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        if is_set(os.fsencode(name), keep=True):
            value = os.getxattr(source, name, follow_symlinks=follow)
            os.setxattr(target, name, value, follow_symlinks=follow)


def clone_tree(source: int, target: int, spare: int, *, share: bool) -> None:
    """Make an empty directory the same as another.

    Args:
        source, target, spare: directories, open for reading. `spare` is an empty one on the file
            system of `target`; what is in it afterwards is of no use.
        share: whether files may be those of the source, by hard links. Right for trees in which
            files are replaced and never written to.

    Raises:
        OSError: what the file system said.
        Unsupported: this user may not read what is his own.
    """
    try:
        with ExitStack() as opened:
            moved = [os.dup(source), os.dup(target)]
            for fd in moved:
                opened.callback(os.close, fd)
            _Clone(spare, share=share).run(*moved)
    except PermissionError as error:
        if error.errno != errno.EACCES or os.geteuid() == 0:
            raise
        raise Unsupported(
            f"expected files and directories that their owner may read, got one that he may not: "
            f"'{error.filename}'",
            hint="root can unpack this image",
        ) from error


class _Clone:
    """Goes down into each directory, and up again by `..`: two descriptors at any depth."""

    def __init__(self, spare: int, *, share: bool) -> None:
        self._spare = spare
        self._share = share
        self._reflinks = True  # until one did not work

    def run(self, source: int, target: int) -> None:
        """The tree; both descriptors are others' afterwards."""
        todo = [self._files(source, target)]  # directories, of each level
        while todo:
            if todo[-1]:
                name = todo[-1].pop()
                os.mkdir(name, 0o700, dir_fd=target)
                _move(source, name)
                _move(target, name)
                todo.append(self._files(source, target))
                continue
            todo.pop()
            # Opened before the directory gets its mode, which may let nobody out again.
            above = os.open("..", DIRECTORY, dir_fd=target) if todo else target
            copy_attributes(source, target)
            if todo:
                _move(source, "..")
                os.dup2(above, target, inheritable=False)
                os.close(above)

    def _files(self, source: int, target: int) -> list[str]:
        """Makes what is in one directory; gives the names of the directories in it."""
        directories = []
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                else:
                    there = entry.stat(follow_symlinks=False)
                    self._file(entry.name, there, source, target)
        return directories

    def _file(self, name: str, there: os.stat_result, source: int, target: int) -> None:
        if self._share and there.st_nlink < _MANY:
            _link(name, name, source, target)
            return
        # Where a file has several names, the first that is made here is kept for the others. That
        # of a shared file may also be one in another tree.
        kept = str(there.st_ino) if there.st_nlink > 1 else None
        if kept is not None:
            with suppress(FileNotFoundError):
                _link(kept, name, self._spare, target)
                return
        if self._share and there.st_nlink < 2 * _MANY:
            _link(name, name, source, target)
        elif stat.S_ISREG(there.st_mode):
            self._copy(name, source, target)
        else:
            _make_node(name, there, source, target)
        if kept is not None:
            _link(name, kept, target, self._spare)

    def _copy(self, name: str, source: int, target: int) -> None:
        read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            written = os.open(name, flags, 0o600, dir_fd=target)
            try:
                if not self._reflink(read, written):
                    _copy_data(read, written)
                copy_attributes(read, written)
            finally:
                os.close(written)
        finally:
            os.close(read)

    def _reflink(self, read: int, written: int) -> bool:
        if self._reflinks:
            try:
                fcntl.ioctl(written, _FICLONE, read)
            except OSError as error:
                if error.errno not in _NO_REFLINKS:
                    raise
                self._reflinks = False
        return self._reflinks


def _move(fd: int, name: str) -> None:
    """Let a descriptor of a directory be one of a directory in it."""
    other = os.open(name, DIRECTORY, dir_fd=fd)
    os.dup2(other, fd, inheritable=False)
    os.close(other)


def _link(old: str, new: str, source: int, target: int) -> None:
    os.link(old, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)


def _copy_data(read: int, written: int) -> None:
    """The bytes of a file; where there are none, there is a hole again."""
    size = os.fstat(read).st_size
    os.ftruncate(written, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(read, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a hole up to the end
                raise
            return
        end = os.lseek(read, start, os.SEEK_HOLE)
        os.lseek(written, start, os.SEEK_SET)
        while start < end:
            count = os.sendfile(written, read, start, min(end - start, _PIECE))
            if count == 0:
                raise OSError(errno.EIO, "a file became shorter while it was copied")
            start += count


def _make_node(name: str, there: os.stat_result, source: int, target: int) -> None:
    """A symbolic link, or a device, FIFO or socket, which nobody opens."""
    is_link = stat.S_ISLNK(there.st_mode)
    if is_link:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        kind = stat.S_IFMT(there.st_mode) | 0o600
        os.mknod(name, kind, there.st_rdev, dir_fd=target)
    os.chown(name, there.st_uid, there.st_gid, dir_fd=target, follow_symlinks=False)
    _copy_extended(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}")
    if not is_link:
        os.chmod(name, stat.S_IMODE(there.st_mode), dir_fd=target)  # no link: made just now
    times = (there.st_atime_ns, there.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
