# SPDX-License-Identifier: Apache-2.0
"""One blob that stays as it is, brought from a source into a sink by the shortest way.

A blob that the sink has is not sent again; one that its registry has in another repository is
mounted; a local file goes to a registry without a copy of it; all else passes here, and is held
against its descriptor before it becomes part of the sink.
"""

from __future__ import annotations

from contextlib import closing
from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imagers.files import local_errors, write_all
from imagers.model.image import open_layer_blob, stays_behind
from imagers.model.pieces import checked_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.core import Cancellation, Watch
    from imagers.model.descriptor import Descriptor
    from imagers.model.image import BlobSource, ImageSink
    from imagers.model.stream import RawStream

__all__ = ["MountingSink", "SendingSink", "Way", "bring_blob", "find_blob"]


@runtime_checkable
class MountingSink(Protocol):
    """A sink that can have blobs of some sources without their bytes passing here."""

    def try_mount(self, descriptor: Descriptor, source: object) -> bool:
        """Whether the sink has the blob now."""


@runtime_checkable
class SendingSink(Protocol):
    """A sink that takes a blob from a local file, and needs no copy of it for that."""

    def send_blob(
        self, descriptor: Descriptor, open_raw: Callable[[], RawStream], *, what: str
    ) -> None:
        """The blob that `open_raw` gives, which may be called again; checked by the sink."""


class Way(Enum):
    """How a blob came to be where it had to be."""

    FOREIGN = "foreign"  # it stays where its URLs say
    THERE = "there"  # the sink had it already
    MOUNTED = "mounted"  # the registry took it from another repository of its own
    MOVED = "moved"  # its bytes passed here


def find_blob(descriptor: Descriptor, source: BlobSource, sink: ImageSink) -> Way | None:
    """How the sink has the blob without its bytes passing here; None if they have to.

    Raises:
        RemoteError, LocalError: the sink could not be asked.
    """
    if stays_behind(descriptor, sink):
        return Way.FOREIGN
    if sink.has_blob(descriptor):
        return Way.THERE
    if isinstance(sink, MountingSink) and sink.try_mount(descriptor, source):
        return Way.MOUNTED
    return None


def bring_blob(
    descriptor: Descriptor,
    source: BlobSource,
    sink: ImageSink,
    *,
    what: str,
    stop: Cancellation,
    watch: Watch,
) -> Way:
    """Let the sink have the blob, checked against its descriptor if its bytes pass here.

    Raises:
        IntegrityError: the source has other bytes.
        NotFound, RemoteError, LocalError: a side failed.
        Cancelled: `stop` was, and nothing came into the sink after that.
    """
    if (way := find_blob(descriptor, source, sink)) is not None:
        return way

    def open_() -> _Watched:
        return _Watched(open_layer_blob(source, descriptor, what=what), stop, watch)

    with closing(open_()) as raw:
        if raw.is_file and isinstance(sink, SendingSink):
            sink.send_blob(descriptor, open_, what=what)
        else:
            _move(raw, descriptor, sink, what, stop)
    return Way.MOVED


def _move(
    raw: RawStream, descriptor: Descriptor, sink: ImageSink, what: str, stop: Cancellation
) -> None:
    # The caller may have closed the sink while this waited for the source: nothing may come
    # into it any more.
    stop.check()
    with (
        sink.stage_blob() as staged,
        closing(checked_pieces(raw, descriptor, what=what)) as pieces,
    ):
        for piece in pieces:
            _write(staged.fileno(), piece, sink.name)
        stop.check()
        staged.commit(descriptor, what=what)


def _write(fd: int, piece: memoryview, where: str) -> None:
    hint = "is there room for the largest layer, here or in the spool directory?"
    with local_errors(where, "could not be written", hint=hint):
        write_all(fd, piece)


class _Watched:
    """A `RawStream` that ends when the work is over, and tells how far it was read."""

    def __init__(self, raw: RawStream, stop: Cancellation, watch: Watch) -> None:
        self._raw = raw
        self._stop = stop
        self._watch = watch
        self._done = 0
        watch.show(0)

    @property
    def is_file(self) -> bool:
        """Whether it is a local file, which can be read again as often as needed."""
        return hasattr(self._raw, "fileno")  # see `BlobSource`

    def readinto(self, buffer: memoryview, /) -> int:
        """See `RawStream`."""
        self._stop.check()
        count = self._raw.readinto(buffer)
        self._done += count
        self._watch.show(self._done)
        return count

    def close(self) -> None:
        """See `RawStream`."""
        self._raw.close()
