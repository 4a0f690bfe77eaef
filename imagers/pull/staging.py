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
import secrets
import shutil
import stat
from typing import TYPE_CHECKING

from imagers.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["Staging", "check_destination"]

_MARK = ".imagers-"


def check_destination(bundle: Path) -> None:
    """Nothing, if a bundle may appear at this path: missing, or an empty directory.

    Raises:
        LocalError: something is there, or the directory above is missing.
    """
    if not bundle.parent.is_dir():
        raise LocalError(
            "expected a directory to put the bundle in, got none", path=str(bundle.parent)
        )
    try:
        status = os.lstat(bundle)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LocalError(str(error.strerror).lower(), path=str(bundle)) from error
    if not stat.S_ISDIR(status.st_mode):
        raise LocalError("expected nothing or an empty directory, got a file", path=str(bundle))
    with os.scandir(bundle) as entries:
        if next(entries, None) is not None:
            raise LocalError(
                "expected nothing or an empty directory, got one with content",
                path=str(bundle),
                hint="a bundle is never overwritten; remove it or choose another path",
            )


class Staging:
    """See the module. Entering makes the place; leaving removes what was not published.

    Args:
        bundle: where the bundle will appear.

    Raises:
        LocalError: on entering, if the place cannot be made.
    """

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._path = bundle.parent / f".{bundle.name}{_MARK}{secrets.token_hex(4)}"
        self._lock_fd = -1
        self.root_fd = -1

    def __enter__(self) -> Self:
        check_destination(self._bundle)
        self._remove_abandoned()
        try:
            os.mkdir(self._path, 0o700)
            self._lock_fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.mkdir("rootfs", 0o755, dir_fd=self._lock_fd)
            # mkdir obeys the umask; a root file system must be passable for its users.
            self.root_fd = os.open(
                "rootfs",
                os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW,
                dir_fd=self._lock_fd,
            )
            os.fchmod(self.root_fd, 0o755)
        except OSError as error:
            self._discard()
            raise LocalError(
                f"cannot make a staging place: {str(error.strerror).lower()}",
                path=str(self._bundle.parent),
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._discard()

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
            _sync_directory(self._bundle.parent)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise LocalError(
                    "expected nothing or an empty directory, got content that appeared "
                    "during the pull",
                    path=str(self._bundle),
                ) from error
            raise LocalError(
                f"cannot publish: {str(error.strerror).lower()}", path=str(self._bundle)
            ) from error

    def _discard(self) -> None:
        for name in ("root_fd", "_lock_fd"):
            fd: int = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)
        _remove_tree(self._path)

    def _remove_abandoned(self) -> None:
        """Remove places of dead processes for the same bundle."""
        prefix = f".{self._bundle.name}{_MARK}"
        with contextlib.suppress(OSError):
            for entry in self._bundle.parent.iterdir():
                if entry.name.startswith(prefix) and not _is_locked(entry):
                    _remove_tree(entry)


def _is_locked(path: Path) -> bool:
    """Whether a living process holds the place; one that is not ours counts as held."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            return True
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _remove_tree(path: Path) -> None:
    """Remove a tree, also one whose directories forbid it to their own owner."""

    def retry(function: Callable[[str], object], name: str, _: object) -> None:
        # Layers may hold directories without write permission.
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, 0o700)
                shutil.rmtree(name, ignore_errors=True)
            else:
                function(name)

    shutil.rmtree(path, onerror=retry)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
