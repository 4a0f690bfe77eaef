# SPDX-License-Identifier: Apache-2.0
"""Downloads of layers, checked before they are opened, also of those whose turn has not come.

    with ReadAhead(layers, checks, staging_fd, downloads=3, cancellation=stop) as ahead:
        for index in range(len(layers)):
            with ahead.open(index) as arrived:
                ...                       # arrived.stream, arrived.checked

Layers are unpacked one after another, because each changes what is below it. While one is,
the next ones are fetched into files without a name in the staging place. What is in the files is
as unverified as what a registry sends:

- a layer with a check goes through it on its way into the file, and is given out when all of it
  was right, with what tells whether the file still is what was checked;
- one without is read from there when its turn comes, also while it is still growing, and is
  checked by whoever reads it.

With `keeping` the files have names, in entries of a store on their way: what was opened well may
be kept. What is kept already is read where it lies, after it was checked again.

Where a file of an earlier download is there that broke off, its bytes go through the check as if
they came from the registry, and the rest comes from there, behind them (docs/adr/0087). Such a
layer is always checked before it is opened; if it is wrong, it is downloaded once more, from its
first byte.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from imagers.core import Cancellation, Resources
from imagers.errors import Cancelled, IntegrityError, LocalError, Truncated
from imagers.files import local_errors, reason_of
from imagers.model.closing import Closing
from imagers.pull.trace import WAIT, traced
from imagers.waiting import OTHERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from imagers.core import CheckedLayer, Progress
    from imagers.model.image import Layer
    from imagers.model.stream import RawStream
    from imagers.pull.trace import Trace
    from imagers.store.store import NewBlob

__all__ = ["Arrived", "Check", "Keeping", "ReadAhead"]

_PLACE = "the staging place of the bundle"  # in messages
_STORE = "the store"
_HINT = "make room there; 'imagers pull --no-store' keeps nothing"
_PIECE = 1024 * 1024
_log = logging.getLogger(__name__)
_TICK_S = 0.1
_GRACE_S = 2.0  # for all threads to see that all is over


class Check(Protocol):
    """`imagers.core.check_layer` for one layer."""

    def __call__(
        self,
        source: RawStream,
        sink: int | None,
        /,
        *,
        resources: Resources,
        on_progress: Callable[[Progress], None] | None,
        cancellation: Cancellation,
    ) -> CheckedLayer:
        """See `check_layer`."""


class Keeping(Protocol):
    """Stored bytes that are kept from one pull to the next; layers by their index."""

    def open(self, index: int) -> RawStream | None:
        """Those of a layer, from a local file, *unchecked*; None: they are not kept."""

    def check(self, index: int) -> Check:
        """What they go through before they are used."""

    def drop(self, index: int) -> None:
        """They are not what they were."""

    def prepare(self, index: int) -> NewBlob | None:
        """A place for them, which is to be committed or closed; None: there is no room."""

    def resume(self, index: int) -> NewBlob | None:
        """The same with the first of them, unchecked, from a download that broke off, or None."""


@dataclass(frozen=True, slots=True)
class Arrived(Closing):
    """The stored bytes of a layer; closing closes all of it.

    Attributes:
        checked: of a layer with a check; the stream may give other bytes by now.
        is_kept: they were there from an earlier pull.
        entry: where they may be kept.
        resumed: how many of them were there from a download that broke off.
        is_direct: they come from their source while they are read.
    """

    stream: RawStream
    checked: CheckedLayer | None
    is_kept: bool = False
    entry: NewBlob | None = None
    resumed: int = 0
    is_direct: bool = False

    def close(self) -> None:
        """Safe to call twice."""
        self.stream.close()
        if self.checked is not None:
            self.checked.close()
        # What may still be written to is closed with its file, by whoever is last.
        if self.entry is not None and not isinstance(self.stream, _Reader):
            self.entry.close()


class ReadAhead:
    """See the module. Leaving stops the downloads and gives the files back.

    Args:
        layers: in the order in which they will be opened.
        checks: of each layer; None: it has none.
        place: a directory for the files.
        downloads: at the same time, that of the layer whose turn it is included. With 1,
            and for layers that are local files, nothing is fetched ahead.
        cancellation: ends the waiting for a download.
        keeping: what is kept of the layers; None: nothing is.
        trace: learns what was done when.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        checks: Sequence[Check | None],
        place: int,
        *,
        downloads: int,
        cancellation: Cancellation,
        keeping: Keeping | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._layers = layers
        self._trace = trace
        self._keeping = keeping
        self._checks = checks
        self._place = place
        self._downloads = downloads
        self._cancellation = Cancellation(within=cancellation)
        self._changed = threading.Condition()
        self._local = set() if keeping is None else _not_to_fetch(layers, keeping)
        self._turn = -1  # the layer that was opened last
        self._next = 0  # the first that nobody has begun to fetch
        self._stopped = False
        self._files: dict[int, _GrowingFile] = {}
        self._threads: list[threading.Thread] = []

    def open(self, index: int, show: Callable[[int], None] = lambda _: None) -> Arrived:
        """The stored bytes of a layer; its turn has come. In order, each once.

        Args:
            show: is told in this thread how many bytes are there while it is waited for a check.

        Raises:
            RemoteError, LocalError, NotFound: it cannot be had.
            IntegrityError: of a check.
        """
        with self._changed:
            self._turn = index
            self._next = max(self._next, index + 1)
            file = self._files.get(index)
            self._changed.notify_all()
        check, layer = self._checks[index], self._layers[index]
        if file is not None:
            with traced(self._trace, WAIT, layer.index):
                return file.arrived(self._cancellation, show)
        kept = self._open_kept(index, show)
        if kept is not None:
            return kept
        file = self._new_file(index)
        with self._changed:
            self._files[index] = file  # closed at the end, if a signal lets nobody have it
        if file.take_part():
            if not self._threads:
                self._start()
            file.resume(Resources(), show)
            return file.arrived(self._cancellation, show)
        with traced(self._trace, "request", layer.index):
            stream = layer.open_raw()
        try:
            is_local = hasattr(stream, "fileno")
            if not (is_local or self._threads):
                self._start()
            if is_local and check is not None:
                with traced(self._trace, "check", layer.index):
                    return Arrived(stream, self._check_in_place(stream, check, show))
            if is_local or (check is None and self._keeping is None):
                return Arrived(stream, None, is_direct=not is_local)
        except BaseException:
            stream.close()
            raise
        if check is not None:
            file.fill(stream, check, Resources(), show)
            return file.arrived(self._cancellation, show)
        # What is read while it comes goes into a file only to be kept.
        thread = threading.Thread(
            target=self._run,
            args=(file.fill, stream, None, Resources()),
            daemon=True,
            name="download-0",
        )
        self._threads.append(thread)
        thread.start()
        return file.arrived(self._cancellation, show)

    def _open_kept(self, index: int, show: Callable[[int], None]) -> Arrived | None:
        """What is kept of a layer, if it still is what it was."""
        stream = None if self._keeping is None else self._keeping.open(index)
        if self._keeping is None or stream is None:
            return None
        try:
            with traced(self._trace, "check kept", self._layers[index].index):
                checked = self._check_in_place(stream, self._keeping.check(index), show)
        except IntegrityError:
            stream.close()
            self._keeping.drop(index)
            return None
        except BaseException:
            stream.close()
            raise
        if self._checks[index] is not None:
            return Arrived(stream, checked, is_kept=True)
        checked.close()
        return Arrived(stream, None, is_kept=True)

    def _new_file(self, index: int) -> _GrowingFile:
        return _GrowingFile(
            self._place,
            self._layers[index],
            index,
            self._cancellation,
            check=self._checks[index],
            keeping=self._keeping,
            trace=self._trace,
        )

    def _check_in_place(
        self, stream: RawStream, check: Check, show: Callable[[int], None]
    ) -> CheckedLayer:
        """A file is read twice where it lies."""
        fd: int = stream.fileno()  # type: ignore[attr-defined]  # it is local
        start = os.lseek(fd, 0, os.SEEK_CUR)
        checked = check(
            stream,
            None,
            resources=Resources(),
            on_progress=lambda progress: show(progress.bytes_in),
            cancellation=self._cancellation,
        )
        os.lseek(fd, start, os.SEEK_SET)
        return checked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cancellation.cancel()
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            files = list(self._files.values())
        for file in files:
            file.close()
        deadline = time.monotonic() + _GRACE_S
        for thread in self._threads:
            if thread.is_alive():  # Ctrl-C may have come before all were started
                thread.join(max(0.0, deadline - time.monotonic()))

    def _start(self) -> None:
        left = len(self._layers) - self._turn - 1
        # One that hangs on a server must not keep the program alive.
        self._threads = [
            threading.Thread(
                target=self._run, args=(self._work,), daemon=True, name=f"download-{number}"
            )
            for number in range(min(self._downloads - 1, left))
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        """Some work in a thread of its own, which ends when all of it does."""
        with self._cancellation.in_force():
            work(*arguments)

    def _work(self) -> None:
        while (file := self._wait_for_layer()) is not None:
            file.fetch()

    def _wait_for_layer(self) -> _GrowingFile | None:
        """The next layer to fetch; None when there will be none."""
        with self._changed:
            while not self._stopped and self._next < len(self._layers):
                if self._next - self._turn < self._downloads:
                    index = self._next
                    self._next += 1
                    if index in self._local:
                        continue
                    file = self._files[index] = self._new_file(index)
                    return file
                self._changed.wait()
            return None


def _not_to_fetch(layers: Sequence[Layer], keeping: Keeping) -> set[int]:
    """Layers that are kept, and those that will be when their turn comes: they come twice."""
    seen = set()
    found = set()
    for index, layer in enumerate(layers):
        if layer.descriptor.digest in seen:
            found.add(index)
        elif (stream := keeping.open(index)) is not None:
            stream.close()
            found.add(index)
        seen.add(layer.descriptor.digest)
    return found


class _GrowingFile:
    """A file that one thread fills and another reads; the last closes it.

    Without a name, or in an entry of a store on its way.
    """

    def __init__(
        self,
        place: int,
        layer: Layer,
        index: int,
        cancellation: Cancellation,
        *,
        check: Check | None,
        keeping: Keeping | None,
        trace: Trace | None,
    ) -> None:
        self._trace = trace
        self._keeping = keeping
        self._check = check
        self._entry: NewBlob | None = None
        self._changed = threading.Condition()
        self._layer = layer
        self._index = index
        self._place = place
        self._cancellation = cancellation
        self._checked: CheckedLayer | None = None
        self._fd = -1
        self._size = 0
        self._resumed = 0
        self._waits = check is not None  # nothing is given out before all of it is there
        self._filling = True
        self._closed = False
        self._error: BaseException | None = None

    def fetch(self) -> None:
        """Fetch the layer, on the side of others; what goes wrong is the reader's."""
        resources = Resources(threads=1)
        try:
            if self.take_part():
                self.resume(resources)
                return
            with traced(self._trace, "request", self._layer.index):
                stream = self._layer.open_raw()
        except BaseException as error:  # noqa: BLE001  # raised where it is read
            self._end(error)
        else:
            self.fill(stream, self._check, resources)

    def take_part(self) -> bool:
        """Whether the beginning of the layer is there, from an earlier download; see `resume`."""
        entry = None if self._keeping is None else self._keeping.resume(self._index)
        if entry is None:
            return False
        self._resumed = entry.there
        self._take(entry)
        return True

    def _take(self, entry: NewBlob) -> None:
        try:
            with self._changed, local_errors(_STORE, f"cannot keep {self._layer.what}"):
                self._check_open()
                self._fd = os.dup(entry.blob_fd)
                self._entry = entry
                self._waits = self._waits or entry.there > 0
                self._changed.notify_all()
        except BaseException:
            entry.close()
            raise

    def _check_open(self) -> None:
        if self._closed:  # and so, perhaps, is the place, and the store
            raise Cancelled("cancelled")

    def resume(self, resources: Resources, show: Callable[[int], None] = lambda _: None) -> None:
        """Take the rest of the layer; where all of it is wrong, begin again, once."""
        assert self._keeping is not None  # see `take_part`
        check, layer, there = self._keeping.check(self._index), self._layer, self._resumed
        rest = _Rest(self._fd, there, layer)
        _log.debug("%s: %d of %d bytes are there", layer.what, there, layer.descriptor.size)
        try:
            try:
                with traced(self._trace, "resume and check", layer.index):
                    checked = self._run(check, rest, None, resources, show)
            except IntegrityError as error:
                _log.debug("with what was there, %s; it is downloaded anew", error)
                self._forget_part()
                with traced(self._trace, "request", layer.index):
                    again = layer.open_raw()
            else:
                self._end(None, checked)
                return
        except BaseException as error:  # noqa: BLE001  # raised where it is read
            self._end(error)
            return
        finally:
            rest.close()
        self.fill(again, check, resources, show)

    def _forget_part(self) -> None:
        self._resumed = 0
        with self._changed:
            fd, self._fd = self._fd, -1
            entry, self._entry = self._entry, None
        os.close(fd)
        if entry is not None:
            entry.drop()

    def fill(
        self,
        stream: RawStream,
        check: Check | None,
        resources: Resources,
        show: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Take all of a stream, and close it; what goes wrong is the reader's."""
        checked = None
        doing = "download" if check is None else "download and check"
        try:
            self._make_file()
            with traced(self._trace, doing, self._layer.index):  # over before the reader goes on
                if check is None:
                    self._copy(stream)
                else:
                    checked = self._run(check, stream, self._fd, resources, show)
            self._end(None, checked)
        except BaseException as error:  # noqa: BLE001  # raised where it is read
            self._end(error)
        finally:
            stream.close()

    def _run(
        self,
        check: Check,
        stream: RawStream,
        sink: int | None,
        resources: Resources,
        show: Callable[[int], None],
    ) -> CheckedLayer:
        def on_progress(progress: Progress) -> None:
            self._size = progress.bytes_in
            show(progress.bytes_in)

        return check(
            stream,
            sink,
            resources=resources,
            on_progress=on_progress,
            cancellation=self._cancellation,
        )

    def _end(self, error: BaseException | None, checked: CheckedLayer | None = None) -> None:
        if checked is not None and self._check is None:  # whoever opens it checks it by itself
            checked.close()
            checked = None
        with self._changed:
            self._filling = False
            self._error = error
            self._checked = checked
            # Wrong bytes are no beginning of anything, and a full disk is not to stay one.
            if isinstance(error, IntegrityError | LocalError) and self._entry is not None:
                self._entry.drop()
            if self._closed:
                self._close_file()
            self._changed.notify_all()

    def _copy(self, stream: RawStream) -> None:
        # A byte more than there should be is enough to see that there is too much.
        left = self._layer.descriptor.size + 1
        buffer = memoryview(bytearray(min(_PIECE, left)))
        while left and not self._closed and (count := stream.readinto(buffer[:left])):
            self._write(buffer[:count])
            left -= count

    def _make_file(self) -> None:
        entry = None if self._keeping is None else self._keeping.prepare(self._index)
        if entry is not None:
            self._take(entry)
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        name = f"layer-{self._index}"
        with local_errors(_PLACE, f"cannot keep {self._layer.what}"), self._changed:
            self._check_open()
            self._fd = os.open(name, flags, 0o600, dir_fd=self._place)
            os.unlink(name, dir_fd=self._place)
            self._changed.notify_all()

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

    def arrived(self, cancellation: Cancellation, show: Callable[[int], None]) -> Arrived:
        """The bytes from the first, as they come, or checked, when all of them are there.

        Closing what is given closes the file.
        """
        try:
            with self._changed, cancellation.waiting(OTHERS):
                while self._fd < 0 and self._filling:
                    cancellation.check()
                    self._changed.wait(_TICK_S)
            if self._waits:
                self._wait(cancellation, show)
        except BaseException:
            self.close()
            raise
        with self._changed:
            if not self._filling and self._error is None:
                # All there: the descriptor itself, which the core reads without us.
                fd, self._fd, self._closed = self._fd, -1, True
                checked, self._checked = self._checked, None
                os.lseek(fd, 0, os.SEEK_SET)
                stream = os.fdopen(fd, "rb", buffering=0)
                return Arrived(stream, checked, entry=self._entry, resumed=self._resumed)
        return Arrived(_Reader(self, cancellation), None, entry=self._entry)

    def _wait(self, cancellation: Cancellation, show: Callable[[int], None]) -> None:
        with self._changed, cancellation.waiting(OTHERS):
            while self._filling:
                cancellation.check()
                self._changed.wait(_TICK_S)
                show(self._size)
            if self._error is not None:
                raise self._error

    def read_at(self, offset: int, buffer: memoryview, cancellation: Cancellation) -> int:
        """Some bytes; 0 at the end."""
        with self._changed, cancellation.waiting(OTHERS):
            while self._size <= offset:
                if self._error is not None:
                    raise self._error
                if not self._filling:
                    return 0
                cancellation.check()
                if self._closed:
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
        if self._checked is not None:
            self._checked.close()
        if self._entry is not None:
            self._entry.close()


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


class _Rest:
    """What is in a file already, and then what is still to come, which is put behind it.

    Args:
        fd: of the file; stays the caller's.
        there: bytes in it.
    """

    def __init__(self, fd: int, there: int, layer: Layer) -> None:
        self._fd = fd
        self._there = there
        self._layer = layer
        self._at = 0
        self._stream: RawStream | None = None

    def readinto(self, buffer: memoryview, /) -> int:
        what, size = self._layer.what, self._layer.descriptor.size
        if self._at < self._there:
            with local_errors(_STORE, f"cannot read what is there of {what}"):
                count = os.preadv(self._fd, [buffer[: self._there - self._at]], self._at)
            if count == 0:
                raise Truncated(expected=self._there, actual=self._at, what=what)
        elif self._there == size:
            return 0  # there is nothing to ask for
        else:
            # Not before: a server does not wait until all that is there was read.
            self._stream = self._stream or self._layer.open_raw_from(self._at)
            count = self._stream.readinto(buffer)
            with local_errors(_STORE, f"cannot keep {what} until it is checked", hint=_HINT):
                left = buffer[:count]
                while left:
                    done = os.pwrite(self._fd, left, self._at + count - len(left))
                    left = left[done:]
        self._at += count
        return count

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
