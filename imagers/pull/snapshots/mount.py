# SPDX-License-Identifier: Apache-2.0
"""Mounts that nobody sees until they are complete, by the system calls themselves.

    tree = apart(lambda: mount_overlay(...))    # at no path; gone with its last descriptor
    attach(tree, root)                          # now it is at a path
    detach(root)

What runs `apart` is in a mount namespace of its own. It ends with that, and so do the mounts made
in it, whatever ends the process. Directories that mounts are made of must be opened in there.

They are named by the numbers of their descriptors, relative to /proc/self/fd: no name has a
character that would have to be escaped, and the names of 500 layers, which is what overlayfs
takes, fit into the page of options that mount(2) takes.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from imagers.pull.snapshots.places import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ["MAX_LOWERS", "apart", "attach", "detach", "mount_image", "mount_overlay"]

MAX_LOWERS = 500
"""Directories that overlayfs shows as one, without the one that is written to (OVL_MAX_STACK)."""

_T = TypeVar("_T")

# Linux UAPI: sched.h, mount.h. The numbers of the calls are those of all machines but Alpha.
_CLONE_NEWNS = 0x00020000
_MS_RDONLY = 1
_MS_NODEV = 4
_MS_REC = 0x4000
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40

# What a machine may have other defaults for. A name that leads elsewhere, or content that is kept
# elsewhere, is never followed; numbers of inodes stay the same where layers are on several file
# systems, which unpacking relies on.
_OPTIONS = "redirect_dir=nofollow,metacopy=off,index=off,xino=on"


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> int:
    result: int = getattr(_libc(), name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def apart(work: Callable[[], _T]) -> _T:
    """What `work` gives, in a thread with mounts and a working directory of its own.

    Raises:
        OSError: this user may have none; and what `work` raises.
    """
    result: Future[_T] = Future()

    def run() -> None:
        try:
            with _own_mounts():
                result.set_result(work())
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            result.set_exception(error)

    thread = threading.Thread(target=run, name="mounts")
    thread.start()
    thread.join()
    return result.result()


@contextmanager
def _own_mounts() -> Iterator[None]:
    """Of this thread. Leaving waits until all that was mounted is gone."""
    ours = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", _CLONE_NEWNS)
        try:
            # Else what is mounted would appear for everybody.
            _mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
            os.chdir("/proc/self/fd")  # of this thread alone: unshare(2), CLONE_FS
            yield
        finally:
            # Root of a user namespace may not go back to mounts of others; the end of the thread
            # does it then, a moment later.
            with suppress(OSError):
                _call("setns", ours, _CLONE_NEWNS)
    finally:
        os.close(ours)


def _mount(
    source: bytes | None, target: bytes, kind: bytes | None, flags: int, options: bytes | None
) -> None:
    _call("mount", source, target, kind, ctypes.c_ulong(flags), options)


def mount_image(image: int, at: int, name: str, kind: str) -> int:
    """The root of the file system in a file or a block device, mounted for reading `apart`.

    Args:
        at, name: a directory, and one in it to mount on.

    Raises:
        OSError: ENOTBLK where this kernel takes no files.
    """
    _mount(b"%d" % image, _name(at, name), kind.encode(), _MS_RDONLY | _MS_NODEV, None)
    return os.open(name, DIRECTORY, dir_fd=at)


def mount_overlay(
    lowers: Sequence[int], upper: int, work: int, at: int, name: str, *, options: Sequence[str]
) -> int:
    """Show directories as one, mounted `apart`; gives its root, which is at no path.

    Args:
        lowers: the top first.
        upper: where changes go, on the file system of `work`.
        at, name: a directory, and one in it to mount on.
        options: besides those that are always set.

    Raises:
        OSError: this kernel does not do it, or this file system does not.
    """
    text = ",".join(
        (
            f"lowerdir={':'.join(map(str, lowers))},upperdir={upper},workdir={work},{_OPTIONS}",
            *options,
        )
    )
    _mount(b"overlay", _name(at, name), b"overlay", 0, text.encode())
    return _call("syscall", _SYS_OPEN_TREE, at, name.encode(), _OPEN_TREE_CLONE | os.O_CLOEXEC)


def _name(at: int, name: str) -> bytes:
    return f"{at}/{name}".encode()


def attach(tree: int, root: Path) -> None:
    """Let what is at no path appear at `root`, an empty directory.

    Raises:
        OSError: it is none.
    """
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
        _call("syscall", _SYS_MOVE_MOUNT, tree, b"", fd, b"", flags)
    finally:
        os.close(fd)


def detach(root: Path) -> None:
    """Take away what is mounted at `root`, also while somebody uses it; nothing where nothing is.

    Raises:
        OSError: this user may not.
    """
    try:
        _call("umount2", os.fsencode(root), _MNT_DETACH | _UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # no mount; no such name
            raise
