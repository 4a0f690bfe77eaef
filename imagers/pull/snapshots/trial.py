# SPDX-License-Identifier: Apache-2.0
"""Whether a snapshotter works in a directory: two small layers are made there, and looked at."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import LocalError, Unsupported
from imagers.files import local_errors, reason_of
from imagers.pull.snapshots.snapshotter import Committed

if TYPE_CHECKING:
    from imagers.pull.snapshots.snapshotter import Snapshotter

__all__ = ["check_by_trial"]

# Of a place that is full: another snapshotter would fare no better.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_by_trial(snapshotter: Snapshotter, directory: Path) -> None:
    """Raise unless it does what it is for below `directory`; nothing of the trial is left.

    Raises:
        Unsupported: it does not.
        LocalError: nothing can be written there, or there is no room.
    """
    with (
        local_errors(directory),
        tempfile.TemporaryDirectory(dir=directory.absolute(), prefix=".imagers-") as trial,
    ):
        try:
            found = _tree_of_two(snapshotter, Path(trial))
        except (LocalError, OSError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
                raise
            reason = reason_of(cause) if isinstance(cause, OSError) else str(error)
        else:
            if found == ["replaced"]:
                return
            reason = f"expected one directory in the tree of a trial, got {found}"
    raise Unsupported(
        f"the snapshotter '{snapshotter.name}' does not work below '{directory}': {reason}",
        hint="the snapshotter 'plain' works everywhere",
    )


def _tree_of_two(snapshotter: Snapshotter, trial: Path) -> list[str]:
    """What is there after a directory was removed, and another one replaced."""
    for name in ("1", "2", "root", "scratch"):
        (trial / name).mkdir()
    with snapshotter.prepare([], trial / "1") as first:
        for name in ("removed", "replaced", "replaced/below"):
            os.mkdir(name, dir_fd=first.root_fd)
    layers = [Committed(trial / "1", first.facts)]
    with snapshotter.prepare(layers, trial / "2") as second:
        for name in ("removed", "replaced/below", "replaced"):
            os.rmdir(name, dir_fd=second.root_fd)
        os.mkdir("replaced", dir_fd=second.root_fd)
    layers.append(Committed(trial / "2", second.facts))
    root = trial / "root"
    snapshotter.compose(layers, root, trial / "scratch")
    try:
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))
    finally:
        snapshotter.release(root)
