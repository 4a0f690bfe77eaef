# SPDX-License-Identifier: Apache-2.0
"""News of the blobs of an image while they are worked on, for a user interface.

    with Watch(on_progress, "layer 2 of 7", size) as watch:
        watch.show(bytes_done)
    watch.seconds

`show` may be called as often as there is something to say: who listens chooses what to draw.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["BlobProgress", "OnProgress", "Watch"]


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """How far one blob is. Nothing of it is verified before its end.

    Attributes:
        what: the blob's name in messages, such as "layer 2 of 7".
        size: its stored bytes, before the work.
        done: of these.
        seconds: the whole work took; None until it has ended well. A blob that did not have to
            be moved has no other news than this.
    """

    what: str
    size: int
    done: int
    seconds: float | None = None


OnProgress = Callable[[BlobProgress], None]
"""Gets the news, in the thread that does the work."""


class Watch:
    """A block that works on one blob; its good end is told.

    Args:
        told: gets the news; None: nobody does.

    Attributes:
        seconds: that the block took, after it.
    """

    def __init__(self, told: OnProgress | None, what: str, size: int) -> None:
        self._told = told
        self._what = what
        self._size = size
        self._start = 0.0
        self.seconds = 0.0

    def show(self, done: int) -> None:
        """So many bytes are done; 0: the work begins."""
        if self._told is not None:
            self._told(BlobProgress(self._what, self._size, min(done, self._size)))

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds = time.monotonic() - self._start
        if self._told is not None and kind is None:
            self._told(BlobProgress(self._what, self._size, self._size, self.seconds))
