"""Copying an image between transports: bytes and digests stay as they are.

    report = copy_image(source, sink, platform=Platform("linux", "arm64"))
    report.digest

Every blob is held against its descriptor while it is copied, and becomes part of the sink
only after that; the manifest follows its blobs, the named one is last.

Nothing else is verified: a copy of an image that nobody should trust is no better.
"""

from __future__ import annotations

import os
import platform as machine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imagers.errors import FormatError, LocalError, SizeMismatch, Unsupported
from imagers.model.descriptor import Descriptor, Platform
from imagers.model.manifest import Index, parse_manifest_or_index

if TYPE_CHECKING:
    from imagers.model.digest import Digest
    from imagers.model.image import ImageSink, ImageSource, StagedBlob
    from imagers.model.manifest import Manifest, RawManifest
    from imagers.model.stream import ByteStream

__all__ = ["ChoosySink", "CopyReport", "copy_image", "this_platform"]

_PIECE = 1024 * 1024
_MAX_NESTING = 3  # of indexes in indexes
_GOARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386"}


@runtime_checkable
class ChoosySink(Protocol):
    """A sink that cannot hold every image, and says so before the first blob."""

    def check_image(self, document: Manifest | Index) -> None:
        """Nothing, if it can hold the image.

        Raises:
            Unsupported: it cannot.
            LocalError: there is no place for it.
        """


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did.

    Attributes:
        digest: of the manifest or index that has the sink's name now.
        media_type: of the same.
        blobs: configs and layers that the image has, each counted once.
        size: bytes of those that were copied.
        skipped: of `blobs`, those that the sink had already.
    """

    digest: Digest
    media_type: str
    blobs: int
    size: int
    skipped: int


def this_platform() -> Platform:
    """The platform of this machine, in GOOS and GOARCH words."""
    return Platform("linux", _GOARCH.get(machine.machine(), machine.machine()))


def copy_image(
    source: ImageSource,
    sink: ImageSink,
    *,
    platform: Platform | None = None,
    all_platforms: bool = False,
) -> CopyReport:
    """Copy what `source` names to the name of `sink`.

    Args:
        platform: which image of an index; None: that of this machine. An image that is in
            no index is copied whatever it is for.
        all_platforms: the index with all its images, whatever `platform` says.

    Raises:
        NotFound: an index without the platform, or the source lacks something.
        IntegrityError: bytes are not what their descriptor says; the sink has no such name.
        RemoteError, LocalError: a side failed.
    """
    answer = source.read_manifest()
    document = parse_manifest_or_index(answer.raw, media_type=answer.media_type)
    if isinstance(document, Index) and not all_platforms:
        entry = document.require_platform(platform or this_platform(), what=source.name)
        document = _read_entry(source, entry)
    if isinstance(sink, ChoosySink):
        sink.check_image(document)
    work = _Copy(source, sink)
    work.copy(document, by_name=True)
    return CopyReport(
        digest=document.descriptor.digest,
        media_type=document.descriptor.media_type,
        blobs=len(work.seen),
        size=work.size,
        skipped=work.skipped,
    )


def _read_entry(source: ImageSource, entry: Descriptor) -> Manifest | Index:
    """The document behind an entry of an index."""
    answer: RawManifest = source.read_manifest(entry.digest)
    what = f"{source.name}: manifest {entry.digest}"
    if len(answer.raw) != entry.size:
        raise SizeMismatch(expected=entry.size, actual=len(answer.raw), what=what)
    return parse_manifest_or_index(answer.raw, media_type=entry.media_type)


class _Copy:
    """One copy on its way."""

    def __init__(self, source: ImageSource, sink: ImageSink) -> None:
        self._source = source
        self._sink = sink
        self._buffer = memoryview(bytearray(_PIECE))
        self.seen: set[tuple[Digest, int]] = set()
        self.size = 0
        self.skipped = 0

    def copy(self, document: Manifest | Index, *, by_name: bool, depth: int = 0) -> None:
        """`document` and all that it names, itself last."""
        if isinstance(document, Index):
            if depth == _MAX_NESTING:
                raise FormatError(
                    f"expected indexes nested at most {_MAX_NESTING} deep", what=self._source.name
                )
            for entry in document.manifests:
                if entry.digest.algorithm != "sha256":
                    raise Unsupported(
                        f"{self._source.name}: manifest {entry.digest}: only sha256 is supported "
                        "for the manifests of an index"
                    )
                self.copy(_read_entry(self._source, entry), by_name=False, depth=depth + 1)
        else:
            self._copy_blob(document.config, "config")
            count = len(document.layers)
            for number, layer in enumerate(document.layers, 1):
                self._copy_blob(layer, f"layer {number} of {count}")
        self._sink.put_manifest(document.raw, document.descriptor.media_type, by_name=by_name)

    def _copy_blob(self, descriptor: Descriptor, what: str) -> None:
        key = (descriptor.digest, descriptor.size)
        if key in self.seen:
            return
        self.seen.add(key)
        if self._sink.has_blob(descriptor):
            self.skipped += 1
            return
        with (
            self._source.open_blob(descriptor, what=what) as stream,
            self._sink.stage_blob() as staged,
        ):
            self._copy_bytes(stream, staged)
            staged.commit(descriptor, what=what)
        self.size += descriptor.size

    def _copy_bytes(self, stream: ByteStream, staged: StagedBlob) -> None:
        """All bytes of `stream`; when it returns, they were checked."""
        fd = staged.fileno()
        while count := stream.readinto(self._buffer):
            piece = self._buffer[:count]
            try:
                while piece:
                    piece = piece[os.write(fd, piece) :]
            except OSError as error:
                raise LocalError(
                    f"could not be written: {(error.strerror or 'failed').lower()}",
                    path=self._sink.name,
                    hint="is there room for the largest layer, here or in the spool directory?",
                ) from error
