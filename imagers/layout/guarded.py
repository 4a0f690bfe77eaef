# SPDX-License-Identifier: Apache-2.0
"""A directory that nobody but root and the caller can change, nor the way to it.

    fd = open_guarded(Path("/var/lib/bundles"))

What is published in any other directory can be swapped by somebody else: while it is made,
at the rename, and after the program has said that all is well. So the way is walked from the
root, one name after another, and every directory and link on it is looked at: like the
directories above a key of ssh. What is then done below the descriptor stays in the directory
that was looked at.

    a directory is refused     that belongs to neither root nor the caller; or that all may
                               write in, or a group with other members, without the sticky bit
    a link is refused          that somebody else put into a directory with the sticky bit
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path

from imagers.errors import LocalError

__all__ = ["open_guarded"]

_MAX_LINKS = 40  # on the way, as Linux follows
_SHARED = stat.S_IWGRP | stat.S_IWOTH


def open_guarded(path: Path, *, holds: str = "bundle") -> int:
    """A descriptor of the directory at `path`, for reading; the caller closes it.

    Args:
        holds: what is to be in it, for messages.

    Raises:
        OSError: it is not there, no directory, or cannot be opened.
        LocalError: somebody else can change it, or the way to it.
    """
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    shown = "/"
    try:
        status = os.fstat(here)
        _check_directory(status, shown, holds, is_last=False)
        # What is left of the way; links put their own names in front.
        left = list(reversed(path.absolute().parts[1:]))
        links = 0
        while left:
            name = left.pop()
            following = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            found = os.fstat(following)
            if stat.S_ISLNK(found.st_mode):
                try:
                    links += 1
                    if links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    if status.st_mode & _SHARED and not _is_trusted(found.st_uid):
                        raise _refused(
                            os.path.join(shown, name), holds, "is a link of another user"
                        )
                    target = os.readlink("", dir_fd=following)
                finally:
                    os.close(following)
                parts = list(Path(target).parts)
                if parts and parts[0] == "/":
                    del parts[0]
                    os.close(here)
                    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                    status, shown = os.fstat(here), "/"
                left += reversed(parts)
                continue
            os.close(here)
            here, status, shown = following, found, os.path.join(shown, name)
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            _check_directory(status, shown, holds, is_last=not left)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def _check_directory(status: os.stat_result, shown: str, holds: str, *, is_last: bool) -> None:
    # In a user namespace nobody can say whose the directories above are: those of root
    # outside look like those of anybody else there. The last one must be known.
    if not _is_trusted(status.st_uid) and (is_last or not _is_unmapped(status.st_uid)):
        raise _refused(shown, holds, f"belongs to another user, {status.st_uid}")
    if status.st_mode & stat.S_ISVTX:
        return  # others may add names, and take away only their own
    if status.st_mode & stat.S_IWOTH:
        raise _refused(shown, holds, "can be written by every user")
    if status.st_mode & stat.S_IWGRP and _has_others(status.st_gid):
        raise _refused(shown, holds, f"can be written by the group {status.st_gid}")


def _refused(shown: str, holds: str, why: str) -> LocalError:
    return LocalError(
        f"{why}, who could put another {holds} in the place of this one",
        path=shown,
        hint="choose a place that only you and root can write to, as `mktemp -d` makes one",
    )


def _is_trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _has_others(gid: int) -> bool:
    """Whether users other than root and the caller are in a group.

    Where every user has a group of their own, a umask of 002 is usual, and that the group may
    write means nothing.
    """
    try:
        users = [pwd.getpwnam(name) for name in grp.getgrgid(gid).gr_mem]
    except KeyError:
        return True  # nobody can say
    users += [user for user in pwd.getpwall() if user.pw_gid == gid]
    return not all(_is_trusted(user.pw_uid) for user in users)


def _is_unmapped(uid: int) -> bool:
    """Whether this is the id that stands for all those without one in this user namespace."""
    try:
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
            if int(file.read(16)) != uid:
                return False
        with open("/proc/self/uid_map", "rb") as file:
            spans = [line.split() for line in file.read(65536).splitlines()]
    except (OSError, ValueError):
        return False
    return not any(int(first) <= uid < int(first) + int(count) for first, _, count in spans)
