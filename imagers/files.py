# SPDX-License-Identifier: Apache-2.0
"""Files: one translation of `OSError`, bounded reading, and writing that leaves nothing half done.

A `StagedFile` has no name on file systems with O_TMPFILE, so that even a killed process
leaves nothing; elsewhere it has a hidden one. `publish` makes it appear by one rename, after
its bytes are on the disk.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from imagers.errors import FormatError, LocalError
from imagers.waiting import wait_to_read

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Mount",
    "StagedFile",
    "check_new",
    "has_name",
    "is_hidden_name",
    "is_shared_with_host",
    "local_errors",
    "open_for_lock",
    "open_regular",
    "read_bounded",
    "read_mounts",
    "reason_of",
    "sync_directory",
    "sync_file_system",
    "write_all",
    "write_new",
]

_FILE_MODE = 0o644  # less the umask
_NO_UNNAMED_FILES = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_HIDDEN = ".imagers-"
_PROC_FD = "/proc/self/fd"
_PIECE = 64 * 1024
_SHARED = frozenset({"9p", "virtiofs", "vboxsf", "fuse.vmhgfs-fuse", "vmhgfs", "prl_fs"})
_MAX_MOUNTS = 4 * 1024 * 1024
_MOUNTS = Path("/proc/self/mountinfo")
_MOUNT_DEVICE = 2
_MOUNT_POINT = 4  # the fifth word of a line, blanks in it as octal numbers
_OCTAL = re.compile(r"\\([0-7]{3})")


def reason_of(error: OSError) -> str:
    """Why the system refused, as a piece of a message."""
    return (error.strerror or str(error) or "failed").lower()


@contextmanager
def local_errors(
    path: str | os.PathLike[str], doing: str = "", *, hint: str | None = None
) -> Iterator[None]:
    """Turns an `OSError` of the block into a `LocalError` about `path`.

    A name that can be none, for a NUL or a lone surrogate that a document put into it, is one too.

    Args:
        doing: what did not work, such as "cannot be read"; "" where the reason says it all.
        hint: None: for a full disk there is one.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            reason = reason_of(error)
            if hint is None and error.errno in (errno.ENOSPC, errno.EDQUOT):
                hint = "make room, or choose a destination on another file system"
        elif isinstance(error, UnicodeEncodeError) or "null byte" in str(error):
            reason = "is not a file name"
        else:
            raise
        raise LocalError(
            f"{doing}: {reason}" if doing else reason, path=str(path), hint=hint
        ) from error


def read_bounded(
    path: str | os.PathLike[str], *, max_bytes: int, doing: str = "", hint: str | None = None
) -> bytes:
    """The bytes of a file that the user named, a pipe among them.

    Args:
        doing, hint: see `local_errors`.

    Raises:
        LocalError: it cannot be read, has more than `max_bytes`, or the name is none.
        Cancelled: see `imagers.waiting.check`; a pipe may have nobody who writes.
    """
    data = bytearray()
    with (
        local_errors(path, doing, hint=hint),
        open(path, "rb", buffering=0, opener=_open_to_read) as file,
    ):
        while len(data) <= max_bytes:
            wait_to_read(file.fileno(), f"'{os.fspath(path)}'")
            piece = file.read(min(_PIECE, max_bytes + 1 - len(data)))
            if not piece:
                break
            data += piece
    if len(data) > max_bytes:
        raise LocalError(f"expected at most {max_bytes} bytes, got more", path=str(path))
    return bytes(data)


def _open_to_read(path: str, flags: int) -> int:
    # Without O_NONBLOCK a pipe that nobody writes to would hold us here for ever.
    return os.open(path, flags | os.O_NONBLOCK)


def is_shared_with_host(path: Path | str, *, mounts: Path = _MOUNTS) -> bool:
    """Whether a file is on a file system that a hypervisor shares with its guest.

    Not where the whole system is on it: then so is the program that asks.

    Raises:
        LocalError: it cannot be told.
    """
    real = os.path.realpath(path)
    best = ("", "")
    for mount in read_mounts(mounts):
        point = mount.point.rstrip("/")
        # A later mount covers an earlier one at the same place.
        if len(point) >= len(best[0]) and (real == point or real.startswith(point + "/")):
            best = (point, mount.kind)
    point, kind = best
    return bool(point) and kind in _SHARED


class Mount(NamedTuple):
    """A line of mountinfo (proc(5)): the device of the file system as "0:42", where, and what."""

    device: str
    point: str
    kind: str


def read_mounts(path: Path = _MOUNTS) -> list[Mount]:
    """What is mounted, as this process sees it, the last at the end.

    Raises:
        LocalError: it cannot be told.
    """
    found = []
    for line in os.fsdecode(read_bounded(path, max_bytes=_MAX_MOUNTS)).split("\n"):
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        if len(words) > _MOUNT_POINT and after:
            point = _OCTAL.sub(lambda one: chr(int(one[1], 8)), words[_MOUNT_POINT])
            found.append(Mount(words[_MOUNT_DEVICE], point, after.split(" ")[0]))
    return found


def check_new(path: Path | str) -> None:
    """Raise where `write_new` would, as far as it can be told beforehand.

    Raises:
        LocalError: the name exists, or the directory that it would be in does not.
    """
    with local_errors(path):
        os.stat(Path(path).absolute().parent)
        if os.path.lexists(path):
            raise _exists(path)


def _exists(path: Path | str) -> LocalError:
    return LocalError(
        "exists, and nothing is written over a file",
        path=str(path),
        hint="choose another name, or move the old file away",
    )


def write_new(path: Path | str, data: bytes, *, mode: int) -> None:
    """Write a file to a name that does not exist yet; on failure nothing is left.

    Args:
        mode: less the umask.

    Raises:
        LocalError: the name exists, or cannot be written, or has another file afterwards.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with local_errors(path):
        try:
            descriptor = os.open(path, flags, mode)
        except FileExistsError:
            raise _exists(path) from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                _check_is_at(path, file.fileno())
        except BaseException:
            with suppress(OSError):
                os.unlink(path)  # made by this call, see O_EXCL
            raise


def open_regular(path: Path) -> int:
    """A descriptor of a regular file, for reading.

    Raises:
        FileNotFoundError, OSError: as `os.open`; the caller knows what is missing.
        FormatError: it is a directory, a FIFO, a device.
    """
    # Without O_NONBLOCK a FIFO in a layout would hold us for ever.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatError("expected a regular file", what=str(path))
    return fd


def open_for_lock(path: Path) -> int:
    """A descriptor of a file, for `flock`; its bytes are not touched."""
    try:
        # NFS makes byte range locks of it, and those want a file that may be written.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        return open_regular(path)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data` at the position of `fd`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_file_system(fd: int) -> None:
    """Put all that was written to the file system of a descriptor on its disk."""
    import ctypes  # Python has sync and fsync, and nothing between

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_directory(path: Path) -> None:
    """Put the names in a directory on the disk."""
    fd = _open_directory(path)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class StagedFile:
    """A new file without a name, open for reading and writing.

    Args:
        directory: where its bytes go; `publish` must stay on the same file system.
    """

    def __init__(self, directory: Path) -> None:
        self._name = ""  # the hidden one, where a file must have one, in `_place`
        self._closed = False
        self._dropped = False
        # Held, not looked up again: somebody may put another directory at its path.
        self._place = _open_directory(directory)
        try:
            fd = _open_unnamed(self._place)
            if fd is None:
                self._name = _hidden_name()
                flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
                fd = os.open(self._name, flags, _FILE_MODE, dir_fd=self._place)
        except BaseException:
            os.close(self._place)
            raise
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor; this object keeps it."""
        return self._fd

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._fd).st_size

    def publish(self, target: Path) -> None:
        """Give it its name, in place of what has it, after its bytes are on the disk; close.

        Raises:
            LocalError: what has the name afterwards is another file, of somebody who writes
                to the same place.
        """
        self._sync(target)
        parent = _open_directory(target.parent)
        try:
            self._publish(target, parent)
        finally:
            os.close(parent)

    def publish_inside(self, name: str) -> None:
        """Like `publish`, in the very directory that it was made in, whatever is at its path."""
        self._sync(Path(name))
        self._publish(Path(name), self._place)

    def _publish(self, target: Path, parent: int) -> None:
        place = self._place
        if not self._name:
            place = parent
            name = _hidden_name()
            self._link(name, parent)
            self._name = name
        try:
            os.rename(self._name, target.name, src_dir_fd=place, dst_dir_fd=parent)
        except BaseException:
            _unlink(self._name, place)
            raise
        finally:
            self._name = ""
        self._check_has_name(target, parent)
        os.fsync(parent)
        self.close()

    def publish_new(self, target: Path) -> None:
        """Like `publish`, but `FileExistsError` if something has the name; stays open then."""
        self._sync(target)
        parent = _open_directory(target.parent)
        try:
            if self._name:
                os.link(self._name, target.name, src_dir_fd=self._place, dst_dir_fd=parent)
            else:
                self._link(target.name, parent)
            self._check_has_name(target, parent)
            os.fsync(parent)
        finally:
            os.close(parent)
        self.close()

    def drop(self) -> None:
        """Take the hidden name away: it cannot be published any more. Its owner still closes it.

        For whoever cannot wait for a thread that writes: a descriptor that is closed under it may
        be another file's when it writes next.
        """
        self._dropped = True
        if self._name:
            _unlink(self._name, self._place)

    def _sync(self, target: Path) -> None:
        os.fsync(self._fd)
        if self._dropped:  # looked at behind what may take seconds
            raise LocalError("not written: its destination was closed before", path=str(target))

    def _link(self, name: str, parent: int) -> None:
        # A directory descriptor makes Python use linkat, which follows the link in /proc.
        os.link(f"{_PROC_FD}/{self._fd}", name, dst_dir_fd=parent)

    def _check_has_name(self, target: Path, parent: int) -> None:
        if not has_name(self._fd, target.name, parent=parent):
            raise LocalError(
                "somebody else put another file in its place meanwhile",
                path=str(target),
                hint="if that was you, run the command again; else choose a directory of your own",
            )

    def close(self) -> None:
        """Drop the file if it was not published. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        os.close(self._fd)
        if self._name:
            _unlink(self._name, self._place)
        os.close(self._place)


def has_name(fd: int, name: str, *, parent: int) -> bool:
    """Whether what has `name` in the directory `parent` is what `fd` is."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), found)


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _unlink(name: str, place: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=place)


def _open_unnamed(directory: int) -> int | None:
    """A file without a name, or None where that cannot be had (or could not be named later)."""
    if not os.path.isdir(_PROC_FD):  # a constant
        return None
    try:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        return os.open(".", flags, _FILE_MODE, dir_fd=directory)
    except OSError as error:
        if error.errno in _NO_UNNAMED_FILES:
            return None
        raise


def _hidden_name() -> str:
    return f"{_HIDDEN}{os.urandom(8).hex()}"


def is_hidden_name(name: str) -> bool:
    """Whether it is the name of a file that is being staged."""
    return name.startswith(_HIDDEN)


def _check_is_at(path: Path | str, descriptor: int) -> None:
    if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
        raise LocalError(
            "somebody else put another file in its place meanwhile",
            path=str(path),
            hint="choose a directory of your own",
        )
