# SPDX-License-Identifier: Apache-2.0
"""The snapshotters by name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from imagers.errors import Unsupported
from imagers.pull.snapshots.snapshotter import Snapshotter

__all__ = ["SNAPSHOTTERS", "choose_snapshotter", "load_snapshotter"]

SNAPSHOTTERS = ("overlay", "plain", "erofs")
"""Each is the module of this name."""


def load_snapshotter(name: str) -> Snapshotter:
    """The snapshotter of this name.

    Raises:
        Unsupported: there is none.
    """
    if name not in SNAPSHOTTERS:
        raise Unsupported(
            f"expected a snapshotter, got {name!r}", hint=f"they are: {', '.join(SNAPSHOTTERS)}"
        )
    snapshotter: Snapshotter = import_module(f"imagers.pull.snapshots.{name}").SNAPSHOTTER
    return snapshotter


def choose_snapshotter(directory: Path) -> Snapshotter:
    """Overlayfs where it can be mounted below this directory, else plain directories."""
    overlay = load_snapshotter("overlay")
    try:
        overlay.check(directory)
    except Unsupported:
        return load_snapshotter("plain")
    return overlay
