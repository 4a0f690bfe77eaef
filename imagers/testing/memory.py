# SPDX-License-Identifier: Apache-2.0
"""Images in memory: an `ImageSource` and an `ImageSink` that can be told to lie.

repository = MemoryRepository(make_image(make_tar(("a", b"1"))))
repository.lies["layer 1 of 1"] = Lie(error=RemoteError("broken off"), after=100)
with pytest.raises(RemoteError):
    ...
assert repository.asked == ["manifest", "config", "layer 1 of 1"]
assert repository.left_open == []
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import NotFound
from imagers.model.closing import Closing
from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest, check_digest, digest_of
from imagers.model.image import StagedFileBlob
from imagers.model.manifest import RawManifest
from imagers.model.stream import CheckedStream
from imagers.registry.spool import SpoolFile
from imagers.testing.images import SmallImage

if TYPE_CHECKING:
    from imagers.model.image import ImageSink, ImageSource, ResumableSource

__all__ = ["Lie", "MemoryRepository"]


@dataclass(frozen=True, slots=True)
class Lie:
    """What a question gets in place of the truth.

    Attributes:
        data: bytes in place of those that are there.
        error: is raised.
        after: how many bytes are given before the error, or before an end that is too early.
            None: all of them; an error comes at once, in place of an answer.
    """

    data: bytes | None = None
    error: BaseException | None = None
    after: int | None = None


class MemoryRepository(Closing):
    """One repository in memory, with one name: source and sink at once.

    Threads: may be read by many; `asked` then has the order in which they came.

    Args:
        image: what it has; None: nothing yet.
        name: of the image, with its transport.

    Attributes:
        top: the manifest or index under the name; None: none.
        manifests: all of them.
        blobs: all configs and layers.
        asked: what it was asked, in order: `manifest`, `manifest sha256:...`, `config`,
            `layer 1 of 2`, `layer 1 of 2 from 100`; what it was given: `put manifest`,
            `put config`, `put layer 1 of 2`.
        lies: by the same names. A gift can only be refused: of those, `error` alone counts.
    """

    def __init__(
        self,
        image: SmallImage | None = None,
        *,
        name: str = "docker://registry.example.org/team/app:v1",
    ) -> None:
        self._name = name
        self.top: RawManifest | None = None
        self.manifests: dict[Digest, RawManifest] = {}
        self.blobs: dict[Digest, bytes] = {}
        self.asked: list[str] = []
        self.lies: dict[str, Lie] = {}
        self._streams: list[_Stream] = []
        if image is not None:
            image.write(self)
            self.asked.clear()

    @property
    def name(self) -> str:
        """See `ImageSource`."""
        return self._name

    @property
    def left_open(self) -> list[str]:
        """Blobs that were opened and not closed."""
        return [stream.what for stream in self._streams if not stream.is_closed]

    # --- a source

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        """See `ImageSource`; unlike others it does not check that a lie has the digest."""
        what = "manifest" if digest is None else f"manifest {digest}"
        lie = self._ask(what)
        answer = self.top if digest is None else self.manifests.get(digest)
        if answer is None:
            raise NotFound(f"{what} is not there")
        if lie.data is None and lie.after is None:
            return answer
        raw = answer.raw if lie.data is None else lie.data
        raw = raw[: lie.after]
        return RawManifest(raw, answer.media_type, digest or digest_of(raw))

    def open_raw_blob(self, descriptor: Descriptor, *, what: str) -> _Stream:
        """See `ImageSource`."""
        return self._open_blob(0, descriptor, what, self._ask(what))

    def open_raw_blob_from(self, first: int, descriptor: Descriptor, *, what: str) -> _Stream:
        """See `ResumableSource`."""
        return self._open_blob(first, descriptor, what, self._ask(f"{what} from {first}"))

    def _open_blob(self, first: int, descriptor: Descriptor, what: str, lie: Lie) -> _Stream:
        data = self.blobs.get(descriptor.digest) if lie.data is None else lie.data
        if data is None:
            raise NotFound(f"{what} is not there")
        self._streams.append(_Stream(data[first:], lie, what))
        return self._streams[-1]

    def open_blob(self, descriptor: Descriptor, *, what: str) -> CheckedStream:
        """See `ImageSource`."""
        return CheckedStream(self.open_raw_blob(descriptor, what=what), descriptor, what=what)

    # --- a sink

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `ImageSink`."""
        return descriptor.digest in self.blobs

    def stage_blob(self) -> StagedFileBlob[SpoolFile]:
        """See `ImageSink`."""
        return StagedFileBlob(SpoolFile(), self._take)

    def put_blob(self, descriptor: Descriptor, data: bytes, *, what: str) -> None:
        """See `ImageSink`; a descriptor may lie about the size, as that of a wrong image does."""
        self._ask(f"put {what}")
        check_digest(data, descriptor.digest, what=what)
        self.blobs[descriptor.digest] = bytes(data)

    def put_manifest(
        self, raw: bytes, media_type: str, *, by_name: bool, digest: Digest | None = None
    ) -> None:
        """See `ImageSink`."""
        self._ask("put manifest")
        answer = RawManifest(raw, media_type, digest or digest_of(raw))
        self.manifests[digest or digest_of(raw)] = answer
        if by_name:
            self.top = answer

    def close(self) -> None:
        """See `ImageSource`; what it has can be read afterwards, too."""

    def _ask(self, what: str) -> Lie:
        """What to say of `what`; raises what is to be raised at once."""
        self.asked.append(what)
        lie = self.lies.get(what, Lie())
        if lie.error is not None and lie.after is None:
            raise lie.error
        return lie

    def _take(self, file: SpoolFile, descriptor: Descriptor, what: str) -> None:
        self.put_blob(descriptor, os.pread(file.fileno(), file.size, 0), what=what)


class _Stream:
    """A `RawStream` over bytes, which may lie."""

    def __init__(self, data: bytes, lie: Lie, what: str) -> None:
        self._data = data[: lie.after]
        self._error = lie.error
        self._offset = 0
        self.what = what
        self.is_closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        """See `RawStream`."""
        piece = self._data[self._offset :][: len(buffer)]
        if not piece and self._error is not None:
            raise self._error
        buffer[: len(piece)] = piece
        self._offset += len(piece)
        return len(piece)

    def close(self) -> None:
        """See `RawStream`."""
        self.is_closed = True


if TYPE_CHECKING:
    # What it promises, checked by mypy.
    _source: type[ImageSource] = MemoryRepository
    _resumable: type[ResumableSource] = MemoryRepository
    _sink: type[ImageSink] = MemoryRepository
