# SPDX-License-Identifier: Apache-2.0
"""Layers as directories, each with the whole tree up to that layer: for every file system and user.

    PLACE/tree

A tree starts as that of the layer below, with the very same files: unpacking replaces files and
never writes to one that is there. What a container gets is a copy, which takes no room and little
time where the file system has reflinks: a container does write to its files.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from imagers.files import local_errors
from imagers.pull.snapshots.clone import clone_tree
from imagers.pull.snapshots.places import TREE, make_root, open_directory, remove_directory
from imagers.pull.snapshots.snapshotter import Prepared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from imagers.pull.snapshots.snapshotter import Committed, Snapshotter

__all__ = ["SNAPSHOTTER", "Plain"]

_SPARE = "spare"


class Plain:
    """See the module."""

    name = "plain"

    def check(self, directory: Path) -> None:
        """See `Snapshotter`: there is nothing that it would need."""

    @contextmanager
    def prepare(self, parents: Sequence[Committed], place: Path) -> Iterator[Prepared]:
        """See `Snapshotter`."""
        root = place / TREE
        with ExitStack() as opened:
            with local_errors(place):
                root_fd = make_root(opened, root)
                if parents:
                    _clone(parents[-1].place / TREE, root, place, share=True)
            yield Prepared(root_fd)

    def compose(self, layers: Sequence[Committed], root: Path, scratch: Path) -> None:
        """See `Snapshotter`."""
        del scratch
        if layers:
            with local_errors(root):
                # Not in `scratch`: files are linked there, and it may be on another file system.
                _clone(layers[-1].place / TREE, root, root.parent, share=False)

    def release(self, root: Path) -> None:
        """See `Snapshotter`: nothing was mounted."""


SNAPSHOTTER: Snapshotter = Plain()


def _clone(source: Path, target: Path, place: Path, *, share: bool) -> None:
    spare = place / _SPARE
    spare.mkdir()
    with ExitStack() as opened:
        directories = [open_directory(opened, path) for path in (source, target, spare)]
        clone_tree(*directories, share=share)
    remove_directory(spare)
