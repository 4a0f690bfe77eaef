# SPDX-License-Identifier: Apache-2.0
"""The bytes of a blob in pieces, hashed by a thread of their own while the caller works on them.

    with closing(checked_pieces(raw, descriptor, what="layer 1 of 3")) as pieces:
        for piece in pieces:
            ...                         # write it, or send it: provisional but for the last

Reading and writing or sending take the caller's thread, SHA takes another, about as much of a
processor as the rest: a blob goes through in the time of the slower of the two.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Self

from imagers.errors import DigestMismatch, TrailingData, Truncated
from imagers.model.digest import Digest, new_hasher

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from imagers.model.descriptor import Descriptor
    from imagers.model.stream import RawStream

__all__ = ["checked_pieces"]

# Threads that wait for each other are woken for each piece: with half the size or half the
# number a download takes 6 % longer, with more of either no less.
_PIECE = 2 * 1024 * 1024
_SLOTS = 4


def checked_pieces(
    raw: RawStream, descriptor: Descriptor, *, what: str
) -> Generator[memoryview, None, None]:
    """All bytes of `raw`, held to the size and the digest of `descriptor`.

    The last piece comes only after both were compared, and after `raw` has ended: who has
    seen the end has verified bytes, and who stops before it lacks at least one byte.

    Args:
        raw: stays the caller's.
        what: name in messages, such as `layer 3 of 7`.

    Yields:
        Read-only views of 2 MiB, the last one shorter; each valid until the next is asked for.

    Raises:
        Truncated, TrailingData, DigestMismatch: `raw` is not what `descriptor` says.
            Whatever `raw` raises passes.
    """
    slots: list[memoryview] = []
    left = descriptor.size
    with _Hashing(descriptor.digest.algorithm, in_thread=left > _PIECE) as hashing:
        number = 0
        piece = memoryview(b"")
        while left:
            if number < _SLOTS:  # not more than a small blob needs
                slots.append(memoryview(bytearray(min(left, _PIECE))))
            else:
                hashing.wait_for_one()  # the piece that was in this slot
            piece = slots[number % _SLOTS][:left]
            _fill(raw, piece, descriptor, left, what)
            hashing.update(piece)
            left -= len(piece)
            number += 1
            if left:
                yield piece.toreadonly()
        if raw.readinto(memoryview(bytearray(1))):
            raise TrailingData(expected=descriptor.size, what=what)
        actual = hashing.finish()
        if actual != descriptor.digest:
            raise DigestMismatch(expected=descriptor.digest, actual=actual, what=what)
        if piece:
            yield piece.toreadonly()


def _fill(raw: RawStream, piece: memoryview, descriptor: Descriptor, left: int, what: str) -> None:
    at = 0
    while at < len(piece):
        count = raw.readinto(piece[at:])
        if count == 0:
            actual = descriptor.size - left + at
            raise Truncated(expected=descriptor.size, actual=actual, what=what)
        if not 0 < count <= len(piece) - at:
            raise RuntimeError(f"raw stream filled {count} of {len(piece) - at} bytes")
        at += count


class _Hashing:
    """A hash of pieces, in order, in a thread that ends with the context."""

    def __init__(self, algorithm: str, *, in_thread: bool) -> None:
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm)
        self._todo: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._pending = 0
        self._thread = None
        if in_thread:
            self._thread = threading.Thread(target=self._work, daemon=True, name="hash")

    def _work(self) -> None:
        while (piece := self._todo.get()) is not None:
            try:
                self._hasher.update(piece)
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                self._done.put(error)
                return
            self._done.put(None)

    def update(self, piece: memoryview) -> None:
        """Hash `piece`, which must stay as it is until `wait_for_one` was called for it."""
        if self._thread is None:
            self._hasher.update(piece)
            return
        self._pending += 1
        self._todo.put(piece)

    def wait_for_one(self) -> None:
        """Wait for the oldest piece that was not waited for."""
        error = self._done.get()
        self._pending -= 1
        if error is not None:
            raise error

    def finish(self) -> Digest:
        """The digest of all pieces."""
        while self._pending:
            self.wait_for_one()
        return Digest(self._algorithm, self._hasher.hexdigest())

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join()  # a piece takes a millisecond
