# SPDX-License-Identifier: Apache-2.0
"""Layers as overlayfs shows them, each a directory with what it changes.

    PLACE/tree      what the layer has, and in the kernel's own way what it takes away

A layer is unpacked through the mounted overlay of those below it, so that the kernel writes what
hides their files. The first is unpacked as it is.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from imagers.errors import Unsupported
from imagers.files import local_errors, read_bounded
from imagers.pull.snapshots.clone import copy_attributes
from imagers.pull.snapshots.mount import (
    MAX_LOWERS,
    apart,
    attach,
    detach,
    mount_overlay,
)
from imagers.pull.snapshots.places import TREE, make_root, open_directory, remove_directory
from imagers.pull.snapshots.snapshotter import Prepared
from imagers.pull.snapshots.trial import check_by_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from imagers.pull.snapshots.snapshotter import Committed, Snapshotter

    OpenLowers = Callable[[ExitStack, int, str], list[int]]

__all__ = ["SNAPSHOTTER", "Overlay", "change_tree", "compose_tree"]

_UPPER = "upper"
_WORK = "work"
_WHOLE_MACHINE = [b"0", b"0", b"4294967295"]  # /proc/self/uid_map outside of user namespaces
_MARKS = "marks"  # the fact: what the names of attributes start with that the kernel reads itself


class Overlay:
    """See the module."""

    name = "overlay"

    def check(self, directory: Path) -> None:
        """See `Snapshotter`."""
        check_by_trial(self, directory)

    @contextmanager
    def prepare(self, parents: Sequence[Committed], place: Path) -> Iterator[Prepared]:
        """See `Snapshotter`."""
        _check(parents)
        opens = _open_trees(parents) if parents else None
        with change_tree(opens, place, TREE) as root_fd:
            prepared = Prepared(root_fd)
            yield prepared
        prepared.facts.update(_facts())

    def compose(self, layers: Sequence[Committed], root: Path, scratch: Path) -> None:
        """See `Snapshotter`."""
        _check(layers)
        if layers:
            compose_tree(_open_trees(layers), root, scratch)

    def release(self, root: Path) -> None:
        """See `Snapshotter`."""
        with local_errors(root, "cannot unmount"):
            detach(root)


SNAPSHOTTER: Snapshotter = Overlay()


def _facts() -> dict[str, str]:
    own = read_bounded("/proc/self/uid_map", max_bytes=4096).split() != _WHOLE_MACHINE
    return {_MARKS: "user" if own else "trusted"}


def _check(layers: Sequence[Committed]) -> None:
    """Raise unless the kernel reads in these layers what it has written there."""
    expected = _facts()
    for layer in layers:
        if layer.facts != expected:
            raise Unsupported(
                f"expected a layer with '{expected[_MARKS]}.overlay.' attributes, got one with "
                f"'{layer.facts.get(_MARKS)}.overlay.': '{layer.place}'",
                hint="root and root of a user namespace need a store each",
            )


def _open_trees(layers: Sequence[Committed]) -> OpenLowers:
    def opens(opened: ExitStack, _at: int, _name: str) -> list[int]:
        return [open_directory(opened, layer.place / TREE) for layer in reversed(layers)]

    return opens


@contextmanager
def change_tree(opens: OpenLowers | None, place: Path, upper: str) -> Iterator[int]:
    """A descriptor of the tree of layers; what is changed there goes to `upper` of `place`.

    Args:
        opens: as for `compose_tree`; None where there is no layer yet.
    """
    with ExitStack() as opened:
        with local_errors(place):
            if opens is None:
                root_fd = make_root(opened, place / upper)
            else:
                tree = _show(opens, place, upper)
                opened.callback(os.close, tree)
                root_fd = open_directory(opened, ".", tree)
        yield root_fd
    if opens is not None:
        with local_errors(place):
            remove_directory(place / _WORK)


def compose_tree(opens: OpenLowers, root: Path, scratch: Path) -> None:
    """Let the tree of layers appear at `root`; what is changed there is in `scratch`.

    Args:
        opens: gives the root of each layer, the top first, opened `apart`; it may mount on the
            name in the directory that it is given.
    """
    tree = _show(opens, scratch, _UPPER)
    try:
        with local_errors(root, "cannot mount the layers"):
            attach(tree, root)
    finally:
        os.close(tree)


def _show(opens: OpenLowers, place: Path, upper: str) -> int:
    """The tree of layers, at no path."""

    def make() -> int:
        with ExitStack() as opened:
            at = open_directory(opened, place)
            for name in (upper, _WORK):
                os.mkdir(name, 0o700, dir_fd=at)
            upper_fd = open_directory(opened, upper, at)
            work_fd = open_directory(opened, _WORK, at)
            lowers = opens(opened, at, upper)
            if len(lowers) > MAX_LOWERS:
                raise Unsupported(
                    f"expected at most {MAX_LOWERS} layers for overlayfs, got {len(lowers)}",
                    hint="the snapshotter 'plain' takes any number",
                )
            # The root of an overlay is its upper one's.
            copy_attributes(lowers[0], upper_fd)
            options = ["userxattr"] if _facts()[_MARKS] == "user" else []
            return mount_overlay(lowers, upper_fd, work_fd, at, upper, options=options)

    with local_errors(place, "cannot mount the layers"):
        return apart(make)
