# SPDX-License-Identifier: Apache-2.0
"""Downloads of layers whose turn has not come yet.

    with ReadAhead(layers, staging_fd, downloads=3, cancellation=stop) as ahead:
        for index in range(len(layers)):
            stream = ahead.open(index)

Layers are unpacked one after another, because each changes what is below it. While one is,
the next ones are fetched into files without a name in the staging place, and are read from
there when their turn comes, also while they are still growing. What is in the files is as
unverified as what a registry sends, and is checked by whoever reads it.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from imagers.errors import Cancelled, LocalError
from imagers.files import local_errors, reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from imagers.core import Cancellation
    from imagers.model.image import Layer
    from imagers.model.stream import RawStream

__all__ = ["ReadAhead"]

_PLACE = "the staging place of the bundle"  # in messages
_PIECE = 1024 * 1024
_TICK_S = 0.1
_GRACE_S = 2.0  # for all threads to see that all is over


class ReadAhead:
    """See the module. Leaving stops the downloads and gives the files back.

    Args:
        layers: in the order in which they will be opened.
        place: a directory for the files.
        downloads: at the same time, that of the layer whose turn it is included. With 1,
            and for layers that are local files, nothing is fetched ahead.
        cancellation: ends the waiting for a download.
    """

    def __init__(
        self, layers: Sequence[Layer], place: int, *, downloads: int, cancellation: Cancellation
    ) -> None:
        self._layers = layers
        self._place = place
        self._downloads = downloads
        self._cancellation = cancellation
        self._changed = threading.Condition()
        self._turn = -1  # the layer that was opened last
        self._next = 0  # the first that nobody has begun to fetch
        self._stopped = False
        self._files: dict[int, _GrowingFile] = {}
        self._threads: list[threading.Thread] = []

    def open(self, index: int) -> RawStream:
        """The stored bytes of a layer, unchecked; its turn has come. In order, each once.

        Raises:
            RemoteError, LocalError, NotFound: it cannot be had.
        """
        with self._changed:
            self._turn = index
            self._next = max(self._next, index + 1)
            file = self._files.pop(index, None)
            self._changed.notify_all()
        if file is not None:
            return file.reader(self._cancellation)
        stream = self._layers[index].open_raw()
        is_local = hasattr(stream, "fileno")
        if not (is_local or self._threads):
            self._start()
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            files = list(self._files.values())
        for file in files:
            file.close()
        deadline = time.monotonic() + _GRACE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _start(self) -> None:
        left = len(self._layers) - self._turn - 1
        # One that hangs on a server must not keep the program alive.
        self._threads = [
            threading.Thread(target=self._work, daemon=True, name=f"download-{number}")
            for number in range(min(self._downloads - 1, left))
        ]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while (found := self._wait_for_layer()) is not None:
            layer, file = found
            file.fill(layer)

    def _wait_for_layer(self) -> tuple[Layer, _GrowingFile] | None:
        """The next layer to fetch; None when there will be none."""
        with self._changed:
            while not self._stopped and self._next < len(self._layers):
                if self._next - self._turn < self._downloads:
                    index = self._next
                    self._next += 1
                    file = self._files[index] = _GrowingFile(self._place, f"layer-{index}")
                    return self._layers[index], file
                self._changed.wait()
            return None


class _GrowingFile:
    """A file without a name that one thread fills and another reads; the last closes it."""

    def __init__(self, place: int, name: str) -> None:
        self._changed = threading.Condition()
        self._name = name
        self._place = place
        self._fd = -1
        self._size = 0
        self._filling = True
        self._closed = False
        self._error: BaseException | None = None

    def fill(self, layer: Layer) -> None:
        """Fetch the layer; what goes wrong is the reader's."""
        error: BaseException | None = None
        try:
            self._fetch(layer)
        except BaseException as raised:  # noqa: BLE001  # raised where it is read
            error = raised
        with self._changed:
            self._filling = False
            self._error = error
            if self._closed:
                self._close_file()
            self._changed.notify_all()

    def _fetch(self, layer: Layer) -> None:
        stream = layer.open_raw()
        try:
            self._make_file()
            # A byte more than there should be is enough to see that there is too much.
            left = layer.descriptor.size + 1
            buffer = memoryview(bytearray(min(_PIECE, left)))
            while left and not self._closed and (count := stream.readinto(buffer[:left])):
                self._write(buffer[:count])
                left -= count
        finally:
            stream.close()

    def _make_file(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with local_errors(_PLACE, "cannot keep a layer that is downloaded ahead"), self._changed:
            if self._closed:  # and so, perhaps, is the place
                raise Cancelled("cancelled")
            self._fd = os.open(self._name, flags, 0o600, dir_fd=self._place)
            os.unlink(self._name, dir_fd=self._place)

    def _write(self, piece: memoryview) -> None:
        try:
            while piece:
                count = os.write(self._fd, piece)
                piece = piece[count:]
                with self._changed:
                    self._size += count
                    self._changed.notify_all()
        except OSError as error:
            raise LocalError(
                f"cannot write a layer that is downloaded ahead: {reason_of(error)}",
                path=_PLACE,
                hint="with --jobs 1 nothing is downloaded ahead",
            ) from error

    def reader(self, cancellation: Cancellation) -> RawStream:
        """The bytes from the first, as they come; its closing closes the file."""
        with self._changed:
            if not self._filling and self._error is None:
                # All there: the descriptor itself, which the core reads without us.
                fd, self._fd, self._closed = self._fd, -1, True
                os.lseek(fd, 0, os.SEEK_SET)
                return os.fdopen(fd, "rb", buffering=0)
        return _Reader(self, cancellation)

    def read_at(self, offset: int, buffer: memoryview, cancellation: Cancellation) -> int:
        """Some bytes; 0 at the end."""
        with self._changed:
            while self._size <= offset:
                if self._error is not None:
                    raise self._error
                if not self._filling:
                    return 0
                if cancellation.is_cancelled or self._closed:
                    raise Cancelled("cancelled")
                self._changed.wait(_TICK_S)
            count = min(len(buffer), self._size - offset)
        with local_errors(_PLACE, "cannot read a layer that was downloaded ahead"):
            return os.preadv(self._fd, [buffer[:count]], offset)

    def close(self) -> None:
        """Nobody reads it any more. Safe to call twice."""
        with self._changed:
            self._closed = True
            if not self._filling:
                self._close_file()
            self._changed.notify_all()

    def _close_file(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Reader:
    def __init__(self, file: _GrowingFile, cancellation: Cancellation) -> None:
        self._file = file
        self._cancellation = cancellation
        self._at = 0

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._file.read_at(self._at, buffer, self._cancellation)
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
