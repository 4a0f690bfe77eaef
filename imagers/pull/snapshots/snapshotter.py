# SPDX-License-Identifier: Apache-2.0
"""What every snapshotter does: make a layer on top of others, and a root file system of layers.

    snapshotter = load_snapshotter("overlay")
    snapshotter.check(store)
    with snapshotter.prepare(parents, place) as prepared:
        open_layer(stream, DirectorySink(prepared.root_fd, Ownership.KEEP), ...)
    seal(place, prepared.facts)                      # of the store
    ...
    snapshotter.compose(layers, root, scratch)       # a writable tree at root
    snapshotter.release(root)

The tree is the same by each, because a layer is unpacked by the same sink into a directory that
shows the tree below it. What is committed is never written again.

Nothing here is put on the disk for good: whoever commits a place syncs its file system first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["Committed", "Prepared", "Snapshotter"]


@dataclass(frozen=True, slots=True)
class Committed:
    """A layer that was prepared before, on top of those before it.

    Attributes:
        place: the directory that was given to `prepare`.
        facts: as `prepare` gave them, from a seal that nobody could change; never from the place.
    """

    place: Path
    facts: Mapping[str, str]


@dataclass(slots=True)
class Prepared:
    """A layer that is being made.

    Attributes:
        root_fd: of a directory that shows the tree of the parents, to be changed into that of the
            layer. Closed when the block is left.
        facts: what the seal of the layer must bind; filled when the block is left well.
    """

    root_fd: int
    facts: dict[str, str] = field(default_factory=dict)


class Snapshotter(Protocol):
    """See the module. Has no state: one object may be used by many threads."""

    @property
    def name(self) -> str:
        """As in the table and in seals: a layer is used by the snapshotter that made it."""

    def check(self, directory: Path) -> None:
        """Raise unless it can work below this directory, by this user, on this machine.

        Raises:
            Unsupported: why not.
            LocalError: nothing can be written there, or there is no room.
        """

    def prepare(
        self, parents: Sequence[Committed], place: Path
    ) -> AbstractContextManager[Prepared]:
        """Unpack a layer on top of `parents`, the base first.

        Args:
            place: an empty directory. When the block is left well it holds what `compose` needs,
                all of it below this directory; when it is left by an error its content is rubbish.

        A process that is killed leaves nothing mounted.

        Raises:
            IntegrityError: a parent is not what its facts say.
            Unsupported: a parent was made where trees are written in another way.
            LocalError: the disk is full, a mount was refused.
        """

    def compose(self, layers: Sequence[Committed], root: Path, scratch: Path) -> None:
        """Let the tree of `layers`, the base first, appear at `root`, writable.

        Args:
            root: an empty directory, in one that only the caller uses.
            scratch: an empty directory, for what changes at `root`; it must stay as long as that is
                used.

        Both may be renamed afterwards by a directory above them. After an error nothing is mounted.

        Raises:
            As `prepare`.
        """

    def release(self, root: Path) -> None:
        """Take away what `compose` mounted at `root`; nothing happens where nothing is mounted."""
