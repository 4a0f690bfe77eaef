"""The staging place of a bundle: beside the destination, published by one rename.

    with Staging(bundle) as staging:
        ...                        # write below staging.root_fd
        staging.publish(config)    # config.json, sync, rename
                                   # left without publish: everything is removed

The place is `.NAME.imagers-XXXXXXXX` in the directory of the bundle, so that the rename
stays on one file system. It is open to its owner only and holds a lock as long as its
process lives: a later pull to the same bundle removes what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from typing import TYPE_CHECKING

from imagers.errors import LocalError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["Staging", "check_destination"]

_MARK = ".imagers-"
_ATTEMPTS = 8  # at a place that no other pull takes away while it is being made


def check_destination(bundle: Path) -> None:
    """Nothing, if a bundle may appear at this path: missing, or an empty directory.

    Raises:
        LocalError: something is there, or the directory above is missing.
    """
    if not bundle.name or bundle.name == "..":
        raise LocalError("expected a path that ends in a name", path=str(bundle))
    try:
        if not bundle.parent.is_dir():
            raise LocalError(
                "expected a directory to put the bundle in, got none", path=str(bundle.parent)
            )
        # Not followed: a rename replaces a symbolic link and not what it points to.
        mode = os.lstat(bundle).st_mode
        if not stat.S_ISDIR(mode):
            found = "a symbolic link" if stat.S_ISLNK(mode) else "a file"
            raise LocalError(
                f"expected nothing or an empty directory, got {found}", path=str(bundle)
            )
        with os.scandir(bundle) as entries:
            is_empty = next(entries, None) is None
    except FileNotFoundError:
        return
    except OSError as error:
        raise LocalError(_reason(error), path=str(bundle)) from error
    if not is_empty:
        raise LocalError(
            "expected nothing or an empty directory, got one with content",
            path=str(bundle),
            hint="a bundle is never overwritten; remove it or choose another path",
        )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


class Staging:
    """See the module. Entering makes the place; leaving removes what was not published.

    Args:
        bundle: where the bundle will appear.

    Raises:
        LocalError: on entering, if the place cannot be made.
    """

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle.absolute()
        self._path = self._bundle
        self._parent_fd = -1
        self._lock_fd = -1
        self.root_fd = -1

    def __enter__(self) -> Self:
        check_destination(self._bundle)
        self._remove_abandoned()
        try:
            # Opened now, so that the last step cannot fail for want of permission.
            self._parent_fd = os.open(
                self._bundle.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            )
            self._make_place()
            os.mkdir("rootfs", 0o755, dir_fd=self._lock_fd)
            self.root_fd = os.open(
                "rootfs",
                os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW,
                dir_fd=self._lock_fd,
            )
            # mkdir obeys the umask; a root file system must be passable for its users.
            os.fchmod(self.root_fd, 0o755)
        except OSError as error:
            self._discard()
            raise LocalError(
                f"cannot make a staging place: {_reason(error)}", path=str(self._bundle.parent)
            ) from error
        except BaseException:
            self._discard()
            raise
        return self

    def _make_place(self) -> None:
        """A new directory that is locked, and still there once it is."""
        for _ in range(_ATTEMPTS):
            path = self._bundle.parent / f".{self._bundle.name}{_MARK}{secrets.token_hex(4)}"
            os.mkdir(path, 0o700)
            self._path = path
            # Until it is locked, another pull to this bundle may take it for abandoned and
            # remove it: holding its lock, so that one of the two sees the other.
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                self._lock_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self._lock_fd), os.lstat(path)):
                    return
            self._close("_lock_fd")
        raise BlockingIOError(errno.EAGAIN, "other pulls to the same bundle are in the way")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._discard()

    @property
    def place_fd(self) -> int:
        """The place itself, beside the root: for what must not outlive the pull."""
        return self._lock_fd

    def publish(self, config: bytes) -> None:
        """Write config.json and let the bundle appear.

        Raises:
            LocalError: the disk is full, or something came to the destination meanwhile.
        """
        try:
            fd = os.open(
                "config.json",
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                0o600,
                dir_fd=self._lock_fd,
            )
            with open(fd, "wb") as file:
                file.write(config)
            # A rename may reach the disk before the data of the files: after a power cut
            # the bundle would be there with holes. So the data goes first.
            os.sync()
            os.rename(self._path, self._bundle)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise LocalError(
                    "expected nothing or an empty directory, got content that appeared "
                    "during the pull",
                    path=str(self._bundle),
                ) from error
            raise LocalError(f"cannot publish: {_reason(error)}", path=str(self._bundle)) from error
        try:
            os.fsync(self._parent_fd)
        except OSError as error:
            # A failure leaves nothing at the destination.
            with contextlib.suppress(OSError):
                os.rename(self._bundle, self._path)
            raise LocalError(f"cannot publish: {_reason(error)}", path=str(self._bundle)) from error
        self._path = self._bundle  # nothing is left to be removed

    def _close(self, name: str) -> None:
        fd: int = getattr(self, name)
        if fd >= 0:
            os.close(fd)
            setattr(self, name, -1)

    def _discard(self) -> None:
        self._close("root_fd")
        if self._path != self._bundle:
            _remove_tree(self._path)
            self._path = self._bundle
        self._close("_lock_fd")  # not before: who gets the lock may remove the place
        self._close("_parent_fd")

    def _remove_abandoned(self) -> None:
        """Remove places of dead processes for the same bundle, and nothing else."""
        ours = re.compile(re.escape(f".{self._bundle.name}{_MARK}") + r"[0-9a-f]{8}")
        with contextlib.suppress(OSError):
            for entry in self._bundle.parent.iterdir():
                if ours.fullmatch(entry.name):
                    _remove_if_abandoned(entry)


def _remove_if_abandoned(path: Path) -> None:
    """Remove a place, unless a living process holds it or it is not ours."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        _remove_tree(path)
    finally:
        os.close(fd)


def _remove_tree(path: Path) -> None:
    """Remove a tree as far as possible, whatever an image has put there.

    Not `shutil.rmtree`: that keeps a descriptor and a Python frame for each level, so that
    a deep layer could not be removed, and it stops at directories without permission.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    # The caller keeps others out of the tree, so `..` leads to where we came from.
    with contextlib.suppress(OSError):
        here = _open_directory(str(path), None, flags)
        try:
            names: list[str] = []  # from `path` down to `here`
            left = [_remove_files(here)]  # directories of each of them that are still there
            while names or left[-1]:
                if left[-1]:
                    names.append(left[-1].pop())
                    here = _step(here, _open_directory(names[-1], here, flags))
                    left.append(_remove_files(here))
                else:
                    here = _step(here, os.open("..", flags, dir_fd=here))
                    left.pop()
                    os.rmdir(names.pop(), dir_fd=here)
        finally:
            os.close(here)
        os.rmdir(path)


def _step(here: int, following: int) -> int:
    os.close(here)
    return following


def _open_directory(name: str, dir_fd: int | None, flags: int) -> int:
    """A directory of ours, open, and with the permission to remove what is in it."""
    os.chmod(name, 0o700, dir_fd=dir_fd)  # it is a directory; Linux cannot say "not a link"
    return os.open(name, flags, dir_fd=dir_fd)


def _remove_files(fd: int) -> list[str]:
    """Remove what is no directory; the names of those that are."""
    with os.scandir(fd) as entries:
        listed = list(entries)
    directories = []
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            directories.append(entry.name)
        else:
            os.unlink(entry.name, dir_fd=fd)
    return directories
