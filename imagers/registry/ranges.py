# SPDX-License-Identifier: Apache-2.0
"""A big blob over several connections at once, read as one stream.

    blob     | part 0 | part 1 | part 2 | part 3 | part 4 | ...
    lane 0     ======>                    ======>
    lane 1              ======>                    ======>        each lane: one request a part,
    lane 2                       ======>                          one buffer, one thread

Parts are fetched in their order, so that the one the reader is at is always on its way; a
lane takes its next part when the reader is through with its last one. What is in memory is
one part a lane, and all lanes of one source together are bounded by a `Room`.

A part that breaks off goes on at its next byte. A server that gives the whole blob in place of
a part ends it: the rest comes over one connection.

Spec: RFC 9110 section 14.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers import waiting
from imagers.errors import RemoteError
from imagers.registry.resume import PARTIAL, check_range, give_up
from imagers.waiting import Cancellation

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.stream import RawStream
    from imagers.net.stream import ResponseStream
    from imagers.registry.resume import Opener, Patience

__all__ = ["RangedStream", "Ranges", "Room"]

_MIB = 1024 * 1024
_GRACE_S = 2.0  # for lanes to see that all is over


@dataclass(frozen=True, slots=True)
class Ranges:
    """Whether, and how, blobs come in parts.

    Attributes:
        count: connections a blob; 1: whole, over one.
        part_bytes: of one request; big enough that asking costs nothing beside it.
        least_bytes: of a blob that is worth it.
        max_parts: in memory at once, of all blobs of one source together: 16 MiB.
    """

    count: int = 1
    part_bytes: int = 4 * _MIB
    least_bytes: int = 64 * _MIB
    max_parts: int = 4

    def lanes(self, size: int) -> int:
        """Connections that a blob of `size` is worth; 1 or more."""
        if self.count < 2 or size < self.least_bytes:
            return 1
        return min(self.count, -(-size // self.part_bytes))


class Room:
    """Buffers that are still free; who gets none reads over one connection.

    Threads: safe.
    """

    def __init__(self, parts: int) -> None:
        self._free = parts
        self._lock = threading.Lock()

    def take(self, count: int) -> int:
        """Up to `count`, and 0 where it is not enough for two lanes."""
        with self._lock:
            taken = min(count, self._free)
            if taken < 2:
                return 0
            self._free -= taken
            return taken

    def give_back(self, count: int) -> None:
        """So many are free again."""
        with self._lock:
            self._free += count


class _Part:
    """Some bytes of the blob on their way: of `buffer`, `filled` are there and `read` are read."""

    __slots__ = ("buffer", "filled", "first", "read")

    def __init__(self, first: int, buffer: memoryview) -> None:
        self.first = first
        self.buffer = buffer
        self.filled = 0
        self.read = 0

    @property
    def last(self) -> int:
        return self.first + len(self.buffer) - 1


class RangedStream:
    """A `RawStream` over a blob of known size, fetched in parts.

    Args:
        stream: the answer to the request for the first part, of status 206; owned. None: it is
            asked for here.
        size: of the blob.
        lanes: connections; as many places of `room` are this object's, and given back.
        part_bytes: of one part.
        what: name in messages.
        again: opens parts.
        patience: makes one for each lane, from what waits.
        alone: the rest of the blob from a byte on, over one connection.
        first: the byte that the reader wants first; parts are counted from there.

    Raises:
        SizeMismatch: the server says that the blob has another size.
        RemoteError: the first answer is another part.

    Threads: one reader at a time.
    """

    def __init__(
        self,
        stream: ResponseStream | None,
        size: int,
        *,
        lanes: int,
        part_bytes: int,
        what: str,
        room: Room,
        again: Opener,
        patience: Callable[[Callable[[float], None]], Patience],
        alone: Callable[[int], RawStream],
        first: int = 0,
    ) -> None:
        self._size = size
        self._part_bytes = part_bytes
        self._what = what
        self._room = room
        self._again = again
        self._patience = patience
        self._alone = alone
        self._first = first
        self._at = first  # of the reader
        self._next = first  # first byte of the part that no lane has taken yet
        self._parts: dict[int, _Part] = {}  # taken and not read yet, by first byte
        self._ends_at = size  # from here on the server gives no parts
        self._rest: RawStream | None = None
        self._error: BaseException | None = None
        self._stopped = False
        self._end = Cancellation(within=waiting.in_force())  # of what the lanes wait for
        self._changed = threading.Condition()
        self._lanes: list[threading.Thread] = []
        self._start(stream, lanes)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of `buffer`; 0 at the end of the blob.

        Raises:
            RemoteError: a part broke off too often in a row, or is another one.
        """
        if not len(buffer):
            raise ValueError("expected a buffer with room, got an empty one")
        if self._rest is None:
            found = self._wait_for_bytes()
            if found is not None:
                return self._read(*found, buffer)
            if self._at == self._size:
                return 0
            # What other lanes still have is of no use any more.
            self._stop()
            self._rest = self._alone(self._at)
        return self._rest.readinto(buffer)

    def close(self) -> None:
        """Safe to call twice; a lane that hangs is left to its time limits."""
        self._stop()
        if self._rest is not None:
            self._rest.close()
        deadline = time.monotonic() + _GRACE_S
        for lane in self._lanes:
            lane.join(max(0.0, deadline - time.monotonic()))

    # The reader.

    def _wait_for_bytes(self) -> tuple[_Part, int] | None:
        """The part that the reader is in, and how far it is filled; None: no part will come."""
        first = self._at - (self._at - self._first) % self._part_bytes
        with self._changed, waiting.waits_for(waiting.OTHERS):
            while True:
                if self._error is not None:
                    raise self._error
                if self._at >= self._ends_at:
                    return None
                part = self._parts.get(first)
                if part is not None and part.filled > part.read:
                    return part, part.filled
                waiting.check()
                self._changed.wait(waiting.TICK_S)

    def _read(self, part: _Part, filled: int, buffer: memoryview) -> int:
        # Without the lock: below `filled` nobody writes, and only the reader moves `read`.
        count = min(filled - part.read, len(buffer))
        buffer[:count] = part.buffer[part.read : part.read + count]
        part.read += count
        self._at += count
        if part.read == len(part.buffer):
            with self._changed:
                del self._parts[part.first]
                self._changed.notify_all()
        return count

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._end.cancel()

    # The lanes.

    def _start(self, stream: ResponseStream | None, count: int) -> None:
        begun: list[tuple[ResponseStream | None, _Part | None]] = [(None, None)] * count
        try:
            if stream is not None:
                part = self._parts[self._first] = _Part(
                    self._first, memoryview(bytearray(self._part_bytes))
                )
                self._next += self._part_bytes
                begun[0] = (stream, part)
                check_range(
                    stream, first=part.first, last=part.last, size=self._size, what=self._what
                )
            for number, one in enumerate(begun):
                # They do not keep the program alive: one may hang on a server after Ctrl-C.
                lane = threading.Thread(
                    target=self._run, args=one, daemon=True, name=f"range-{number}"
                )
                lane.start()
                self._lanes.append(lane)
        except BaseException:
            self._stop()
            self._room.give_back(count - len(self._lanes))
            if stream is not None and not self._lanes:
                stream.close()
            raise

    def _run(self, stream: ResponseStream | None, part: _Part | None) -> None:
        with self._end.in_force():
            self._work(stream, part)

    def _work(self, stream: ResponseStream | None, part: _Part | None) -> None:
        """One lane: part after part into one buffer."""
        try:
            buffer = memoryview(bytearray(self._part_bytes)) if part is None else part.buffer
            patience = self._patience(self._pause)
            part = part or self._take(buffer, None)
            while part is not None:
                self._fetch(part, stream, patience)
                stream = None
                part = self._take(buffer, part)
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            with self._changed:
                if not self._stopped:
                    self._error = error
                self._stopped = True
                self._changed.notify_all()
        finally:
            self._room.give_back(1)

    def _take(self, buffer: memoryview, done: _Part | None) -> _Part | None:
        """The next part, when the reader is through with the last one; None: no more."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or done is None or done.first not in self._parts
            )
            if self._stopped or self._next >= self._ends_at:
                return None
            part = _Part(self._next, buffer[: self._size - self._next])
            self._parts[part.first] = part
            self._next += len(part.buffer)
            return part

    def _fetch(self, part: _Part, stream: ResponseStream | None, patience: Patience) -> None:
        """Fill a part, over as many connections as it takes."""
        while not self._stopped:
            try:
                stream = stream or self._again(part.first + part.filled, part.last)
                try:
                    self._fill(part, stream, patience)
                finally:
                    stream.close()
                return
            except RemoteError as error:
                stream = None
                if not patience.wait(error):
                    at = part.first + part.filled
                    give_up(error, what=self._what, at=at, size=self._size)
        if stream is not None:
            stream.close()

    def _fill(self, part: _Part, stream: ResponseStream, patience: Patience) -> None:
        first = part.first + part.filled
        if stream.status != PARTIAL:
            # The whole blob: to read it up to our byte, on each lane, would be a waste.
            with self._changed:
                self._ends_at = min(self._ends_at, first)
                self._changed.notify_all()
            return
        check_range(stream, first=first, last=part.last, size=self._size, what=self._what)
        at, goal = part.filled, len(part.buffer)
        while at < goal and not self._stopped:
            count = stream.readinto(part.buffer[at:])
            if count == 0:
                raise RemoteError(
                    f"{self._what}: the answer ended at byte {part.first + at}, before byte "
                    f"{part.last}",
                    temporary=True,
                )
            patience.progress(count)
            at += count
            # Before the last bytes are given out: after them nobody looks any more.
            if at == goal and stream.readinto(memoryview(bytearray(1))):
                raise RemoteError(
                    f"{self._what}: expected the bytes from {first} to {part.last}, got more",
                    status=stream.status,
                    hint="the registry, or a proxy before it, does not keep to ranges",
                )
            with self._changed:
                part.filled = at
                self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        """Wait, unless all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, timeout=seconds)
