# SPDX-License-Identifier: Apache-2.0
"""Streams of bytes from outside, and what "verified at the end" means.

Bytes that a checked stream hands out are *provisional* until it has returned 0 from
`readinto`: only then were size and digest compared. A sink must not publish them before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from imagers.errors import DigestMismatch, TrailingData, Truncated
from imagers.model.closing import Closable, Closing
from imagers.model.digest import Digest, new_hasher

if TYPE_CHECKING:
    from imagers.model.descriptor import Descriptor

__all__ = ["ByteStream", "CheckedStream", "RawStream", "read_all"]

_PIECE = 256 * 1024


class RawStream(Protocol):
    """Bytes as a peer sends them: nothing checked, no bound but the reader's own."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of `buffer`; 0 only at the end of the stream."""

    def close(self) -> None:
        """Give back what the stream holds. Safe to call twice."""


class ByteStream(Closable, Protocol):
    """Bytes that are checked against a descriptor. Closing checks nothing.

    Raises from `readinto`, in place of a 0 at the end: `Truncated`, `TrailingData`,
    `DigestMismatch`. An error is sticky: every later call raises it again.
    """

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of `buffer`; 0 means ended *and* everything checked.

        Raises:
            ValueError: `buffer` is empty; 0 would say what is not known.
        """


class CheckedStream(Closing):
    """A `ByteStream` over a `RawStream`: size and digest of a descriptor, held to the byte.

    It never hands out more than `descriptor.size` bytes: the first surplus byte is an error.

    Args:
        raw: is owned by this object afterwards and closed with it.
        what: name in messages, such as `layer 3 of 7`.
    """

    def __init__(self, raw: RawStream, descriptor: Descriptor, *, what: str) -> None:
        self._raw = raw
        self._expected = descriptor
        self._what = what
        self._hasher = new_hasher(descriptor.digest.algorithm)
        self._size = 0
        self._ended = False
        self._error: Exception | None = None

    def readinto(self, buffer: memoryview, /) -> int:
        """See `ByteStream`."""
        if self._error is not None:
            raise self._error
        if not len(buffer):
            raise ValueError("expected a buffer with room, got an empty one")
        if self._ended:
            return 0
        try:
            return self._read(buffer)
        except Exception as error:
            self._error = error
            raise

    def _read(self, buffer: memoryview) -> int:
        left = self._expected.size - self._size
        if left == 0:
            surplus = memoryview(bytearray(1))
            if self._raw.readinto(surplus):
                raise TrailingData(expected=self._expected.size, what=self._what)
            actual = Digest(self._expected.digest.algorithm, self._hasher.hexdigest())
            if actual != self._expected.digest:
                raise DigestMismatch(expected=self._expected.digest, actual=actual, what=self._what)
            self._ended = True
            return 0
        piece = buffer[:left]
        count = self._raw.readinto(piece)
        if count == 0:
            raise Truncated(expected=self._expected.size, actual=self._size, what=self._what)
        if not 0 < count <= len(piece):
            raise RuntimeError(f"raw stream filled {count} of {len(piece)} bytes")
        self._hasher.update(piece[:count])
        self._size += count
        return count

    def close(self) -> None:
        """See `ByteStream`."""
        self._raw.close()


def read_all(stream: ByteStream, *, size: int) -> bytes:
    """All bytes of a checked stream, which must be `size` long; verified when it returns.

    Args:
        size: of the descriptor, already bounded by the caller: it is allocated at once.
    """
    data = bytearray(size)
    view = memoryview(data)
    at = 0
    while at < size:
        count = stream.readinto(view[at : at + _PIECE])
        if count == 0:  # unreachable: a ByteStream raises where it ends early
            raise Truncated(expected=size, actual=at)
        at += count
    # The last call does the checks: it must give 0.
    if stream.readinto(memoryview(bytearray(1))):
        raise TrailingData(expected=size)
    return bytes(data)
