# SPDX-License-Identifier: Apache-2.0
"""Directories in the places of layers: how each is opened, and how a root is made."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from imagers.layout.staged_directory import remove_content

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DIRECTORY", "TREE", "make_root", "open_directory", "remove_directory"]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""The flags."""

TREE = "tree"
"""The root of a layer that is kept as a directory."""

_ROOT_MODE = 0o755  # where layers do not say it, as for a tree that is unpacked at once


def open_directory(opened: ExitStack, path: Path | str, at: int | None = None) -> int:
    """A descriptor that is closed with `opened`."""
    fd = os.open(path, DIRECTORY, dir_fd=at)
    opened.callback(os.close, fd)
    return fd


def make_root(opened: ExitStack, path: Path) -> int:
    """The root of a tree that is to be filled: a descriptor that is closed with `opened`."""
    path.mkdir()
    fd = open_directory(opened, path)
    os.fchmod(fd, _ROOT_MODE)  # mkdir obeys the umask
    os.utime(fd, ns=(0, 0))  # so that the same layers are the same tree
    return fd


def remove_directory(path: Path) -> None:
    """Remove a directory of ours with all in it, at any depth.

    Raises:
        OSError: something is left.
    """
    with ExitStack() as opened:
        remove_content(open_directory(opened, path))
    path.rmdir()
