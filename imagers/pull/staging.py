# SPDX-License-Identifier: Apache-2.0
"""The staging place of a bundle: beside the destination, published by one rename.

    with Staging(bundle) as staging:
        ...                        # write below staging.root_fd
        staging.publish(config)    # config.json, sync, rename
                                   # left without publish: everything is removed

The place is `.NAME.imagers-XXXXXXXX` in the directory of the bundle, which nobody but root and
the caller may be able to change (`imagers.layout.guarded`): a bundle that somebody else can
swap is not the one that was verified. It is open to its owner only and holds a lock as long
as its process lives: a later pull to the same bundle removes what a killed one left behind.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from imagers.errors import LocalError
from imagers.files import local_errors, reason_of, sync_file_system
from imagers.layout.guarded import open_guarded
from imagers.layout.staged_directory import StagedDirectory, remove_abandoned
from imagers.pull.trace import traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from imagers.pull.trace import Trace

__all__ = ["Staging", "check_destination"]

_MARK = ".imagers-"


def check_destination(bundle: Path) -> None:
    """Raise unless a bundle may appear at this path: missing, or an empty directory.

    Raises:
        LocalError: something is there, or the directory above is missing or open to others.
    """
    os.close(_open_parent(bundle))


def _open_parent(bundle: Path) -> int:
    """The directory in which a bundle may appear; errors as for `check_destination`."""
    if not bundle.name or bundle.name == "..":
        raise LocalError("expected a path that ends in a name", path=str(bundle))
    try:
        parent = open_guarded(bundle.parent)
    except (FileNotFoundError, NotADirectoryError):
        raise LocalError(
            "expected a directory to put the bundle in, got none", path=str(bundle.parent)
        ) from None
    except OSError as error:
        raise LocalError(reason_of(error), path=str(bundle.parent)) from error
    try:
        _check_free(bundle, parent)
    except BaseException:
        os.close(parent)
        raise
    return parent


def _check_free(bundle: Path, parent: int) -> None:
    try:
        # Not followed: a rename replaces a symbolic link and not what it points to.
        mode = os.stat(bundle.name, dir_fd=parent, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            found = "a symbolic link" if stat.S_ISLNK(mode) else "a file"
            raise LocalError(
                f"expected nothing or an empty directory, got {found}", path=str(bundle)
            )
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(bundle.name, flags, dir_fd=parent)
        try:
            with os.scandir(fd) as entries:
                is_empty = next(entries, None) is None
        finally:
            os.close(fd)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LocalError(reason_of(error), path=str(bundle)) from error
    if not is_empty:
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
        self._bundle = bundle.absolute()
        self._parent_fd = -1
        self._place: StagedDirectory | None = None
        self._release: Callable[[], None] | None = None
        self.root_fd = -1

    def __enter__(self) -> Self:
        # Opened now, so that the last step cannot fail for want of permission.
        self._parent_fd = _open_parent(self._bundle)
        try:
            mark = f".{self._bundle.name}{_MARK}"
            remove_abandoned(self._parent_fd, mark)
            self._place = StagedDirectory(self._parent_fd, self._bundle.name, mark)
            os.mkdir("rootfs", 0o755, dir_fd=self._place.fd)
            self.root_fd = self._open_root()
            # mkdir obeys the umask; a root file system must be passable for its users.
            os.fchmod(self.root_fd, 0o755)
        except OSError as error:
            self._discard()
            raise LocalError(
                f"cannot make a staging place: {reason_of(error)}", path=str(self._bundle.parent)
            ) from error
        except BaseException:
            self._discard()
            raise
        return self

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
        assert self._place is not None  # entered
        return self._place.fd

    @property
    def root(self) -> Path:
        """The path of the root, until it is published."""
        assert self._place is not None  # entered
        return self._bundle.parent / self._place.name / "rootfs"

    def compose(self, compose: Callable[[Path], None], release: Callable[[Path], None]) -> None:
        """Let somebody else make the root at its path, with a mount perhaps.

        Args:
            release: undoes that; it is called where nothing is published.

        Raises:
            LocalError: it is not there afterwards. What `compose` raises passes.
        """
        root = self.root
        self._release = lambda: release(root)
        compose(root)
        os.close(self.root_fd)
        self.root_fd = -1
        with local_errors(root, "cannot be opened"):
            self.root_fd = self._open_root()

    def _open_root(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open("rootfs", flags, dir_fd=self.place_fd)

    def publish(
        self,
        config: bytes,
        *,
        on_publish: Callable[[], None] | None = None,
        trace: Trace | None = None,
    ) -> None:
        """Write config.json and let the bundle appear.

        Args:
            on_publish: called right before it appears, when nothing is left that takes its time.

        Raises:
            LocalError: the disk is full, or something came to the destination meanwhile.
        """
        assert self._place is not None  # entered
        try:
            fd = os.open(
                "config.json",
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                0o600,
                dir_fd=self._place.fd,
            )
            with open(fd, "wb") as file:
                file.write(config)
            # A rename may reach the disk before the data of the files: after a power cut
            # the bundle would be there with holes. So the data goes first.
            with traced(trace, "sync"):
                sync_file_system(self.root_fd)
                sync_file_system(self._place.fd)
            with traced(trace, "publish"):
                if on_publish is not None:
                    on_publish()
                self._place.publish()
            self._release = None
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise LocalError(
                    "expected nothing or an empty directory, got content that appeared "
                    "during the pull",
                    path=str(self._bundle),
                ) from error
            raise LocalError(
                f"cannot publish: {reason_of(error)}", path=str(self._bundle)
            ) from error

    def _discard(self) -> None:
        root, self.root_fd = self.root_fd, -1
        if root >= 0:
            os.close(root)
        release, self._release = self._release, None
        try:
            if release is not None:
                release()
        finally:
            if self._place is not None:
                self._place.discard()
                self._place = None
            parent, self._parent_fd = self._parent_fd, -1
            if parent >= 0:
                os.close(parent)
