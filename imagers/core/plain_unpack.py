# SPDX-License-Identifier: Apache-2.0
"""Unpacking below a directory descriptor, in plain Python.

The rules, which `src/untar.c` keeps too:

* A name is relative to the root, also where it starts with `/`, as docker and umoci have
  it. A `..` in the name of an entry or in the target of a hard link is refused: no tool
  writes one into a layer.
* The directories of a name are resolved inside the root: symbolic links of this layer or
  lower ones are followed, absolute ones and `..` from the root, and cannot leave it.
  Missing ones are made, 0755, with the time of the entry that needed them.
* The last part of a name is never followed. What is there is replaced, except that a
  directory stays a directory and only changes its owner, mode and time.
* A whiteout removes what lower layers put there, and not what this layer did.
* Owner, then extended attributes (chown clears file capabilities), then mode (chown clears
  set-user-id), then time. A directory that gets new content gets its time back when the next
  directory is worked on, so that none has to be remembered.
* What cannot or must not be made is left out and counted: left_out.py says what and why. What
  had its name goes all the same, and so do hard links to a device that was left out.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imagers.core.failures import Fault, failure_of
from imagers.core.left_out import Left, LeftOuts
from imagers.core.plain_attributes import BadAttribute, clear_attributes, set_attributes
from imagers.core.plain_resolve import (
    IMPLIED_MODE,
    OPEN_DIRECTORY,
    Lock,
    Resolver,
    lstat,
)
from imagers.core.plain_tar import Entry, Kind
from imagers.core.values import DirectorySink, Limits, Ownership

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.core.left_out import LeftOut

__all__ = ["Unpacker", "make_directories"]

_WHITEOUT = b".wh."  # OCI image-spec v1.1, layer.md, "Whiteouts"
_AUFS = b".wh..wh."  # reserved by the file system that the prefix comes from
_OPAQUE = b".wh..wh..opq"
_LINKS = b".wh..wh.plnk"  # where aufs keeps files that have several names
_MAX_COMPONENT = 255  # NAME_MAX of Linux
_MAX_DEPTH = 100  # of what a whiteout hides, where some of it must stay
_DEVICES = {Kind.CHARACTER_DEVICE: stat.S_IFCHR, Kind.BLOCK_DEVICE: stat.S_IFBLK}


class _Parent:
    """An open directory whose content changes; it gets its time and mode back."""

    def __init__(self, fd: int, *, keep: bool) -> None:
        self.fd = fd
        before = os.fstat(fd)
        self._times = (before.st_atime_ns, before.st_mtime_ns)
        self.inode = (before.st_dev, before.st_ino)
        self.changed = False
        self._lock = Lock(fd, keep=keep)

    def close(self) -> None:
        try:
            self._lock.close()
            if self.changed:
                os.utime(self.fd, ns=self._times)
        finally:
            os.close(self.fd)


class Unpacker:
    """Takes entries and makes files of them. An error leaves what was made so far.

    Args:
        sink: its descriptor stays the caller's.
    """

    def __init__(self, sink: DirectorySink, limits: Limits, what: str) -> None:
        self._root = sink.fd
        self._keep = sink.ownership is Ownership.KEEP
        self._limits = limits
        self._what = what
        self.entries = 0
        self._name = b""  # of the entry at hand, for messages
        self._parent: _Parent | None = None
        self._parent_path: tuple[bytes, ...] = ()
        # What this layer made: names by the directory's inode, because paths have aliases.
        self._made: set[tuple[tuple[int, int], bytes]] = set()
        self._file: int | None = None
        self._entry: Entry | None = None
        self._has_links = False  # files in _LINKS
        self._left_outs = LeftOuts()
        self._resolver = Resolver(self._root, self._made, keep=self._keep, count=self._count)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What is not in the tree, by kind."""
        return self._left_outs.found

    # EntrySink

    def begin(self, entry: Entry) -> None:
        """See `EntrySink`."""
        self._name = entry.name
        self._count()
        with self._translated():
            self._begin(entry)

    def seek(self, offset: int) -> None:
        """See `EntrySink`."""
        if self._file is not None:
            with self._translated():
                os.lseek(self._file, offset, os.SEEK_SET)

    def data(self, data: bytes) -> None:
        """See `EntrySink`."""
        if self._file is None:  # data of a whiteout, or of what is left out
            return
        view = memoryview(data)
        with self._translated():
            while view:
                view = view[os.write(self._file, view) :]

    def end(self) -> None:
        """See `EntrySink`."""
        if self._file is None or self._entry is None:
            return
        with self._translated():
            if self._entry.is_sparse:
                os.ftruncate(self._file, self._entry.size)
            self._set_attributes(self._file, self._entry)
            fd, self._file = self._file, None
            os.close(fd)

    def finish(self) -> None:
        """See `EntrySink`."""
        with self._translated():
            if self._has_links:
                self._has_links = False
                parent = self._enter_existing(())
                assert parent is not None  # the root
                parent.changed = True
                self._remove_tree(parent.fd, _LINKS)
            self._leave()

    def close(self) -> None:
        """Give back all descriptors. Safe to call twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._parent is not None:
            os.close(self._parent.fd)
            self._parent = None

    # The rules

    def _fault(self, fault: Fault, more: bytes = b"", number: int = 0) -> Exception:
        return failure_of(fault, what=self._what, text=self._name, more=more, number=number)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            faults = {
                errno.ELOOP: Fault.ENTRY_LOOP,
                errno.ENAMETOOLONG: Fault.ENTRY_LONG_COMPONENT,
                errno.ENOTDIR: Fault.ENTRY_PARENT,
            }
            fault = faults.get(error.errno or 0, Fault.UNPACK)
            raise self._fault(fault, number=error.errno or 0) from error

    def _leave_out(self, kind: Left, attribute: bytes = b"") -> None:
        self._left_outs.add(kind, self._name, attribute)

    def _count(self) -> None:
        self.entries += 1
        if self.entries > self._limits.max_entries:
            limit = self._limits.max_entries
            raise failure_of(Fault.ENTRIES, what=self._what, number=limit)

    def _parts_of(self, name: bytes, dotdot: Fault, more: bytes = b"") -> tuple[bytes, ...]:
        parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
        if b".." in parts:
            raise self._fault(dotdot, more)
        if any(len(part) > _MAX_COMPONENT for part in parts):
            raise self._fault(Fault.ENTRY_LONG_COMPONENT)
        return parts

    def _begin(self, entry: Entry) -> None:
        parts = self._parts_of(entry.name, Fault.ENTRY_DOTDOT)
        if not parts:
            if entry.kind is not Kind.DIRECTORY:
                raise self._fault(Fault.ENTRY_ROOT)
            self._leave()
            clear_attributes(self._root, keep=self._keep)
            self._set_attributes(self._root, entry)
            return
        # Files in _LINKS are targets of hard links: there until the end of the layer.
        is_link = (
            parts[0] == _LINKS
            and len(parts) == 2
            and entry.kind is Kind.FILE
            and not parts[1].startswith(_WHITEOUT)
        )
        if any(part.startswith(_AUFS) and part != _OPAQUE for part in parts[is_link:]):
            self._leave_out(Left.AUFS)
            return
        if is_link:
            self._leave_out(Left.AUFS)
            self._has_links = True
        elif any(part.startswith(_WHITEOUT) for part in parts[:-1]):
            raise self._fault(Fault.ENTRY_WHITEOUT)
        if parts[-1].startswith(_WHITEOUT):
            self._whiteout(parts, entry)
            return
        if entry.kind is Kind.HARD_LINK:
            self._hard_link(parts, entry)
            return
        parent = self._enter(parts[:-1], entry)
        name = parts[-1]
        parent.changed = True
        if entry.kind is Kind.DIRECTORY:
            self._directory(parent.fd, name, entry)
        elif entry.kind is Kind.SYMLINK:
            self._symlink(parent.fd, name, entry)
        elif entry.kind is Kind.FIFO or entry.kind in _DEVICES:
            self._node(parent, name, entry)
        else:
            self._create(parent.fd, name)
            self._entry = entry
        self._made.add((parent.inode, name))

    def _create(self, parent: int, name: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self._remove_tree(parent, name)
            self._file = os.open(name, flags, 0o600, dir_fd=parent)

    def _directory(self, parent: int, name: bytes, entry: Entry) -> None:
        is_old = False
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            is_old = stat.S_ISDIR(there.st_mode)
            if not is_old:
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o700, dir_fd=parent)
        fd = self._resolver.open_directory(parent, name)
        try:
            if is_old:
                clear_attributes(fd, keep=self._keep)
            self._set_attributes(fd, entry)
        finally:
            os.close(fd)

    def _symlink(self, parent: int, name: bytes, entry: Entry) -> None:
        if not entry.target:
            raise self._fault(Fault.ENTRY_EMPTY_TARGET)
        try:
            os.symlink(entry.target, name, dir_fd=parent)
        except FileExistsError:
            self._remove_tree(parent, name)
            os.symlink(entry.target, name, dir_fd=parent)
        if self._keep:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        self._set_extended(self._place(parent, name), entry)
        times = (entry.mtime, entry.mtime)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _node(self, parent: _Parent, name: bytes, entry: Entry) -> None:
        """A device or a FIFO, which nobody opens here."""
        fd, kind = parent.fd, _DEVICES.get(entry.kind, stat.S_IFIFO)
        if kind == stat.S_IFCHR and entry.device == (0, 0):
            self._without_node(parent, name, Left.WHITEOUT_DEVICE)
            return
        if kind != stat.S_IFIFO and not self._keep:
            self._without_node(parent, name, Left.DEVICE)
            return
        device = os.makedev(*entry.device)
        try:
            try:
                os.mknod(name, kind | 0o600, device, dir_fd=fd)
            except FileExistsError:
                self._remove_tree(fd, name)
                os.mknod(name, kind | 0o600, device, dir_fd=fd)
        except OSError as error:
            # Root of a user namespace, or of a container that may not.
            if error.errno != errno.EPERM or kind == stat.S_IFIFO:
                raise
            self._without_node(parent, name, Left.DEVICE)
            return
        if self._keep:
            os.chown(name, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
        self._set_extended(self._place(fd, name), entry)
        os.chmod(name, entry.mode, dir_fd=fd)  # it is no link: made just now
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=fd, follow_symlinks=False)

    def _without_node(self, parent: _Parent, name: bytes, kind: Left) -> None:
        """Leave a device out: what had its name goes, and links to it are left out too."""
        self._leave_out(kind)
        if lstat(parent.fd, name) is not None:
            self._remove_tree(parent.fd, name)
        self._made.add((parent.inode, self._mark_of(name, kind)))

    @staticmethod
    def _mark_of(name: bytes, kind: Left) -> bytes:
        """In `_made`: no name of a file, because of the slashes."""
        return (b"/" if kind is Left.DEVICE else b"//") + name

    def _find_left_out(self, directory: int, name: bytes) -> Left | None:
        """As what a device of this name was left out, if it was."""
        status = os.fstat(directory)
        inode = (status.st_dev, status.st_ino)
        for kind in (Left.DEVICE, Left.WHITEOUT_DEVICE):
            if (inode, self._mark_of(name, kind)) in self._made:
                return kind
        return None

    def _hard_link(self, parts: tuple[bytes, ...], entry: Entry) -> None:
        """A second name for what is there; owner, mode and time are those of the first."""
        target = self._parts_of(entry.target, Fault.ENTRY_TARGET_DOTDOT, entry.target)
        if not target:
            raise self._fault(Fault.ENTRY_TARGET_DIRECTORY, entry.target)
        source = self._resolver.resolve(target[:-1], None)
        if source is None:
            raise self._fault(Fault.ENTRY_TARGET, entry.target)
        try:
            # Not longer: the directory may be the parent that is left, or the one that is entered.
            with Lock(source, keep=self._keep):
                there = lstat(source, target[-1])
            if there is None:
                kind = self._find_left_out(source, target[-1])
                if kind is None:
                    raise self._fault(Fault.ENTRY_TARGET, entry.target)
                parent = self._enter(parts[:-1], entry)
                parent.changed = True
                self._without_node(parent, parts[-1], kind)
                return
            if stat.S_ISDIR(there.st_mode):
                raise self._fault(Fault.ENTRY_TARGET_DIRECTORY, entry.target)
            parent = self._enter(parts[:-1], entry)
            old = lstat(parent.fd, parts[-1])
            # Removing the old name first would lose the file if both are one.
            if old is None or (old.st_dev, old.st_ino) != (there.st_dev, there.st_ino):
                if old is not None:
                    self._remove_tree(parent.fd, parts[-1])
                parent.changed = True
                try:
                    with Lock(source, keep=self._keep):
                        os.link(
                            target[-1],
                            parts[-1],
                            src_dir_fd=source,
                            dst_dir_fd=parent.fd,
                            follow_symlinks=False,
                        )
                except FileNotFoundError:  # it was inside what this entry replaces
                    raise self._fault(Fault.ENTRY_TARGET, entry.target) from None
            self._made.add((parent.inode, parts[-1]))
        finally:
            os.close(source)

    def _set_attributes(self, fd: int, entry: Entry) -> None:
        if self._keep:
            os.fchown(fd, entry.uid, entry.gid)
        elif entry.attributes:
            os.fchmod(fd, 0o700)  # of a file that may not be written none can be set
        self._set_extended(fd, entry)
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    @staticmethod
    def _place(parent: int, name: bytes) -> bytes:
        """A path for calls that take no descriptor, of something that cannot be opened."""
        return b"/proc/self/fd/%d/%b" % (parent, name)

    def _set_extended(self, place: int | bytes, entry: Entry) -> None:
        try:
            set_attributes(place, entry, keep=self._keep, leave_out=self._leave_out)
        except BadAttribute as error:
            raise self._fault(Fault.ENTRY_XATTR, error.name) from error

    # Whiteouts

    def _whiteout(self, parts: tuple[bytes, ...], entry: Entry) -> None:
        name = parts[-1]
        hidden = name.removeprefix(_WHITEOUT)
        # On aufs all whiteouts are one file: in a tar of it they are links to the first.
        is_file = entry.kind in (Kind.FILE, Kind.HARD_LINK)
        if hidden in (b"", b".", b"..") or not is_file:
            raise self._fault(Fault.ENTRY_WHITEOUT)
        parent = self._enter_existing(parts[:-1])
        if parent is None:
            return
        parent.changed = True
        if name == _OPAQUE:
            self._clear(parent.fd, 0)
            return
        there = lstat(parent.fd, hidden)
        if there is not None:
            self._hide(parent.fd, parent.inode, hidden, there, 0)

    def _hide(
        self, fd: int, inode: tuple[int, int], name: bytes, there: os.stat_result, depth: int
    ) -> None:
        """Remove one name of a directory as far as lower layers put it there."""
        ours = (inode, name) in self._made
        if not stat.S_ISDIR(there.st_mode):
            if not ours:
                os.unlink(name, dir_fd=fd)
            return
        if not self._made:
            self._remove_tree(fd, name)
            return
        child = self._resolver.open_directory(fd, name)
        try:
            times = (there.st_atime_ns, there.st_mtime_ns)
            if not self._keep:
                os.fchmod(child, stat.S_IMODE(there.st_mode) | 0o700)
            self._clear(child, depth + 1)
            os.fchmod(child, stat.S_IMODE(there.st_mode))
            os.utime(child, ns=times)
        finally:
            os.close(child)
        if not ours:
            try:
                os.rmdir(name, dir_fd=fd)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def _clear(self, fd: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise self._fault(Fault.ENTRY_DEPTH, number=_MAX_DEPTH)
        status = os.fstat(fd)
        inode = (status.st_dev, status.st_ino)
        # Once for each directory: what is in it afterwards is of this layer, and so is all that
        # comes later. The mark is a name that is never made.
        if (inode, _OPAQUE) in self._made:
            return
        for text in os.listdir(fd):
            name = os.fsencode(text)
            there = lstat(fd, name)
            if there is not None:
                self._hide(fd, inode, name, there, depth)
        if self._made:  # else the directory is empty now, and whole trees may be removed
            self._made.add((inode, _OPAQUE))

    def _remove_tree(self, parent: int, name: bytes) -> None:
        """Remove a name and all below it. Takes two descriptors at any depth."""
        try:
            os.unlink(name, dir_fd=parent)
            return
        except (IsADirectoryError, PermissionError):
            pass
        at = self._resolver.open_directory(parent, name)
        path = [name]
        try:
            while path:
                deeper = self._remove_files(at)
                if deeper is not None:
                    child = self._resolver.open_directory(at, deeper)
                    path.append(deeper)
                else:
                    # Nobody moves directories here meanwhile: `..` is where we came from.
                    child = os.open(b"..", OPEN_DIRECTORY, dir_fd=at) if path[1:] else -1
                    os.rmdir(path[-1], dir_fd=child if path[1:] else parent)
                    path.pop()
                os.close(at)
                at = child
        finally:
            if at >= 0:
                os.close(at)

    def _remove_files(self, fd: int) -> bytes | None:
        """Remove all of a directory that is no directory; the first one that is, or None.

        It is listed only so far: beside a hundred thousand directories it is listed as often.
        """
        if not self._keep:
            os.fchmod(fd, 0o700)
        any_left = True
        while any_left:  # until a whole pass finds nothing
            any_left = False
            with os.scandir(fd) as entries:
                for entry in entries:
                    any_left = True
                    if entry.is_dir(follow_symlinks=False):
                        return os.fsencode(entry.name)
                    os.unlink(entry.name, dir_fd=fd)
        return None

    # Directories

    def _leave(self) -> None:
        if self._parent is not None:
            parent, self._parent = self._parent, None
            parent.close()

    def _enter(self, path: tuple[bytes, ...], entry: Entry) -> _Parent:
        """The directory `path`, made if it is missing."""
        return self._entered(path, entry)  # type: ignore[return-value]  # None only without entry

    def _enter_existing(self, path: tuple[bytes, ...]) -> _Parent | None:
        return self._entered(path, None)

    def _entered(self, path: tuple[bytes, ...], entry: Entry | None) -> _Parent | None:
        if self._parent is not None and self._parent_path == path:
            return self._parent
        self._leave()
        fd = self._resolver.resolve(path, entry)
        if fd is None:
            return None
        try:
            self._parent = _Parent(fd, keep=self._keep)
        except OSError:
            os.close(fd)
            raise
        self._parent_path = path
        return self._parent

    # For those who need a directory in a tree that is complete

    def make_directories(self, path: bytes) -> None:
        """See the function of this name."""
        self._name = path
        parts = tuple(part for part in path.split(b"/") if part not in (b"", b"."))
        entry = Entry(Kind.DIRECTORY, path, b"", IMPLIED_MODE, 0, 0, 0, 0)
        with self._translated():
            fd = self._resolver.resolve(parts, entry)
            assert fd is not None  # made where it was missing
            os.close(fd)


def make_directories(sink: DirectorySink, path: bytes, *, what: str) -> None:
    """Make the directory `path` inside a tree, with those above it, where it is missing.

    Symbolic links are followed as a process whose root is the tree follows them. What is made
    has mode 0755, belongs to the caller, and is from 1970: the same tree each time.

    Raises:
        FormatError: something on the way is no directory.
        LocalError: the machine.
    """
    unpacker = Unpacker(sink, Limits(), what)
    try:
        unpacker.make_directories(path)
    finally:
        unpacker.close()
