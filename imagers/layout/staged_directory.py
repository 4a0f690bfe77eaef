# SPDX-License-Identifier: Apache-2.0
"""A new directory on its way to its name: built below a descriptor, published by one rename.

    with StagedDirectory(parent_fd, "bundle", ".bundle.imagers-") as place:
        ...                     # write below place.fd
        place.publish()         # one rename; left without it: everything is removed

It lies beside its destination, so that the rename stays on one file system, and holds a lock
as long as its process lives: `remove_abandoned` removes what a killed one left behind.

Nothing is done by a path, since whoever may write in the parent can swap any name in it at any
time. The parent and the place are descriptors; names are looked up in the parent only, and
what has the destination's name after the rename is compared with what was built.
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

from imagers.files import has_name

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["StagedDirectory", "SwappedError", "remove_abandoned", "remove_content"]

_ATTEMPTS = 8  # at a place that nobody else takes away while it is being made
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SwappedError(OSError):
    """Somebody else has put another thing in the place of what was to be published."""

    def __init__(self) -> None:
        super().__init__(errno.EBUSY, "somebody else put another thing in its place meanwhile")


class StagedDirectory:
    """See the module.

    Args:
        parent: descriptor of the directory that it will appear in; stays the caller's.
        name: that it will have there.
        mark: what the names of places begin with; eight digits follow.
        mode: less the umask.

    Raises:
        OSError: the place cannot be made.
    """

    def __init__(self, parent: int, name: str, mark: str, *, mode: int = 0o700) -> None:
        self._parent = parent
        self._target = name
        self._name = ""
        self.fd = -1
        try:
            for _ in range(_ATTEMPTS):
                self._name = f"{mark}{secrets.token_hex(4)}"
                os.mkdir(self._name, mode, dir_fd=parent)
                # Until it is locked, another process may take it for abandoned and remove it:
                # holding its lock, so that one of the two sees the other.
                with contextlib.suppress(FileNotFoundError, BlockingIOError):
                    self.fd = os.open(self._name, _FLAGS, dir_fd=parent)
                    fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if has_name(self.fd, self._name, parent=parent) and self._is_ours():
                        return
                self._close()
        except BaseException:
            self.discard()
            raise
        self._name = ""
        raise BlockingIOError(errno.EAGAIN, "others make the same thing and are in the way")

    @classmethod
    def found(cls, parent: int, name: str, fd: int, *, target: str) -> Self:
        """A place that an earlier process has left, see `leave`.

        Args:
            name: of the place.
            fd: of the same, with an exclusive lock; owned by the result.
            target: the name that it will have.
        """
        place = cls.__new__(cls)
        place._parent, place._target, place._name = parent, target, name  # noqa: SLF001  # its own
        place.fd = fd
        return place

    def rename(self, name: str) -> None:
        """Give the place another name until it is published: one that does not count as abandoned.

        Raises:
            OSError: something has that name.
        """
        os.rename(self._name, name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        self._name = name

    def leave(self) -> None:
        """Let it be there under its name, unlocked. Safe to call twice, and after `publish`."""
        self._name = ""
        self._close()

    @property
    def name(self) -> str:
        """Of the place in its parent; "" when it is no place any more."""
        return self._name

    def _is_ours(self) -> bool:
        """Whether it is the new directory, and not what somebody put there before it was opened."""
        with os.scandir(self.fd) as entries:
            is_empty = next(entries, None) is None
        return is_empty and os.fstat(self.fd).st_uid == os.geteuid()

    def publish(self) -> None:
        """Give it its name, in place of nothing or of an empty directory; durable afterwards.

        Raises:
            SwappedError: what has the name is something else. That is moved away again.
            OSError: as the system says; nothing has the name then that had it not before.
        """
        parent = self._parent
        appeared = False
        try:
            os.rename(self._name, self._target, src_dir_fd=parent, dst_dir_fd=parent)
            appeared = True
            os.fsync(parent)
            if not has_name(self.fd, self._target, parent=parent):
                raise SwappedError  # noqa: TRY301  # undone as every failure is
        except BaseException:
            # A failure leaves nothing at the destination; nor does a signal, which Python may
            # raise as soon as the rename is done.
            with contextlib.suppress(OSError):
                if appeared or has_name(self.fd, self._target, parent=parent):
                    os.rename(self._target, self._name, src_dir_fd=parent, dst_dir_fd=parent)
            raise
        self._name = ""  # nothing is left to be removed
        self._close()

    def discard(self) -> None:
        """Remove what was not published. Safe to call twice, and after `publish`."""
        if self.fd >= 0 and self._name:
            remove_content(self.fd)
        if self._name:
            _remove_empty(self._name, self._parent)
        self._name = ""
        self._close()  # not before: who gets the lock may remove the place

    def _close(self) -> None:
        # Forgotten first: a signal in between would have it closed twice, as another's by then.
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()


def remove_abandoned(parent: int, mark: str) -> None:
    """Remove places of dead processes with this mark, and nothing else.

    Only those that are open to their owner: nobody else can have put anything in there.
    """
    places = re.compile(re.escape(mark) + r"[0-9a-f]{8}")
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if places.fullmatch(entry.name):
                _remove_if_abandoned(entry.name, parent)


def _remove_if_abandoned(name: str, parent: int) -> None:
    """Remove a place, unless a living process holds it or it is not ours."""
    try:
        fd = os.open(name, _FLAGS, dir_fd=parent)
    except OSError:
        return
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner may have published it, and let go of it, since it was opened here.
        if not has_name(fd, name, parent=parent):
            return
        remove_content(fd)
        _remove_empty(name, parent)
    except OSError:
        return
    finally:
        os.close(fd)


def _remove_empty(name: str, parent: int) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=parent)


def remove_content(place: int) -> None:
    """Remove all that is in a directory, as far as possible, whatever an image has put there.

    Not `shutil.rmtree`: that keeps a descriptor and a Python frame for each level, so that
    a deep layer could not be removed, and it stops at directories without permission.

    Args:
        place: its descriptor. Others are kept out of it by its mode, so `..` of what is in it
            leads to where we came from.
    """
    with contextlib.suppress(OSError):
        here = os.open(".", _FLAGS, dir_fd=place)
        try:
            names: list[str] = []  # from `place` down to `here`
            left = [_remove_files(here)]  # directories of each of them that are still there
            while names or left[-1]:
                if left[-1]:
                    names.append(left[-1].pop())
                    here = _step(here, _open_directory(names[-1], here))
                    left.append(_remove_files(here))
                else:
                    here = _step(here, os.open("..", _FLAGS, dir_fd=here))
                    left.pop()
                    os.rmdir(names.pop(), dir_fd=here)
        finally:
            os.close(here)


def _step(here: int, following: int) -> int:
    os.close(here)
    return following


def _open_directory(name: str, parent: int) -> int:
    """A directory of ours, open, and with the permission to remove what is in it.

    The mode is never changed by the name: a link that was put there would lead it elsewhere.
    """
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        # Without permission to read it there is no descriptor that fchmod would take.
        os.chmod(f"/proc/self/fd/{place}", 0o700)
        return os.open(".", _FLAGS, dir_fd=place)
    finally:
        os.close(place)


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
