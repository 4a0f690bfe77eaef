# SPDX-License-Identifier: Apache-2.0
"""Where images come from and go to: Protocols, and the view of one image.

    source (oci: or docker:)  ->  Image  ->  change  ->  sink (oci: or docker:)

A sink takes blobs first and the manifest last, so that a half-written image has no name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar, runtime_checkable

from imagers.errors import NotFound, SizeMismatch
from imagers.model.closing import Closable
from imagers.model.digest import check_digest
from imagers.model.manifest import (
    ImageConfig,
    Index,
    Manifest,
    RawManifest,
    check_config_size,
    check_layer_count,
    parse_config,
    parse_manifest_or_index,
)
from imagers.model.stream import read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.stream import ByteStream, RawStream

__all__ = [
    "BlobFile",
    "BlobSource",
    "CheckedBlobSource",
    "Image",
    "ImageSink",
    "ImageSource",
    "Layer",
    "ReferenceSink",
    "ResumableSource",
    "StagedBlob",
    "StagedFileBlob",
    "load_image",
    "open_layer_blob",
    "read_config",
    "read_entry",
    "stays_behind",
]


class CheckedBlobSource(Protocol):
    """Gives the stored bytes of blobs, checked."""

    def open_blob(self, descriptor: Descriptor, *, what: str) -> ByteStream:
        """The blob, checked against its descriptor at the end of the stream.

        Args:
            what: name in messages, such as `config` or `layer 3 of 7`.

        Raises:
            NotFound: there is no such blob.
            RemoteError, LocalError: it could not be opened.
        """


class BlobSource(CheckedBlobSource, Protocol):
    """Gives the stored bytes of blobs."""

    def open_raw_blob(self, descriptor: Descriptor, *, what: str) -> RawStream:
        """The same bytes, *unchecked*: for `imagers.core`, which checks size and digest itself.

        A stream over a local file also has `fileno()`.
        """


@runtime_checkable
class ResumableSource(Protocol):
    """A `BlobSource` whose blobs are far away, so that it pays to have a part of one already."""

    def open_raw_blob_from(self, first: int, descriptor: Descriptor, *, what: str) -> RawStream:
        """The bytes of `open_raw_blob` from the one with the number `first` on, *unchecked*.

        Raises:
            As `BlobSource.open_raw_blob`.
        """


class ImageSource(BlobSource, Closable, Protocol):
    """One place that an image is read from, such as a repository of a registry."""

    @property
    def name(self) -> str:
        """As the user wrote it, with its transport: `docker://127.0.0.1:5000/app:v1`."""

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        """The manifest or index that the source names, or the one with `digest`.

        The bytes are bounded, and checked against `digest` if there is one (or the source
        is pinned); nothing of the rest is verified.

        Raises:
            NotFound: there is none.
            DigestMismatch: other bytes than asked for.
            RemoteError, LocalError: it could not be read.
        """


class StagedBlob(Protocol):
    """A blob on its way into a sink: a file that has no name there yet.

    Write to `fileno()` from offset 0, then `commit` or `abort`. Leaving the context without
    `commit` aborts.
    """

    def fileno(self) -> int:
        """A file descriptor, open for reading and writing; this object keeps it."""

    def commit(self, descriptor: Descriptor, *, what: str) -> None:
        """Make the blob part of the sink, under the digest of `descriptor`.

        The caller has computed digest and size from the bytes that it wrote. An upload that
        fails is tried again with the same bytes, from the file.

        Raises:
            SizeMismatch: the file has another size.
            RemoteError, LocalError: the sink did not take it; nothing is left there.
        """

    def abort(self) -> None:
        """Drop the bytes. Safe after `commit`, and twice."""

    def __enter__(self) -> Self:
        """The blob itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Abort what was not committed."""


class BlobFile(Protocol):
    """A file of a sink that has no name yet."""

    @property
    def size(self) -> int:
        """In bytes, now."""

    def fileno(self) -> int:
        """A file descriptor, open for reading and writing; this object keeps it."""

    def close(self) -> None:
        """Drop the file unless it was published. Safe to call twice."""


_File = TypeVar("_File", bound=BlobFile)


class StagedFileBlob(Generic[_File]):
    """A `StagedBlob` that is a file, and what its sink does with it.

    Args:
        file: owned by this object.
        publish: makes it part of the sink, under the digest of a descriptor; it is given the
            file, the descriptor, and the name for messages.
        on_end: is called when the blob is committed or aborted.
    """

    def __init__(
        self,
        file: _File,
        publish: Callable[[_File, Descriptor, str], None],
        on_end: Callable[[StagedFileBlob[_File]], None] | None = None,
    ) -> None:
        self._file = file
        self._publish = publish
        self._on_end = on_end

    def fileno(self) -> int:
        """See `StagedBlob`."""
        return self._file.fileno()

    def commit(self, descriptor: Descriptor, *, what: str) -> None:
        """See `StagedBlob`."""
        if self._file.size != descriptor.size:
            raise SizeMismatch(expected=descriptor.size, actual=self._file.size, what=what)
        self._publish(self._file, descriptor, what)
        self._end()

    def abort(self) -> None:
        """See `StagedBlob`."""
        self._file.close()
        self._end()

    def _end(self) -> None:
        if self._on_end is not None:
            self._on_end(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()


class ImageSink(Closable, Protocol):
    """One place that an image is written to."""

    @property
    def name(self) -> str:
        """As the user wrote it, with its transport."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether a blob with this digest and size is there already."""

    def stage_blob(self) -> StagedBlob:
        """Room for a new blob, on the sink's own file system or in a spool file."""

    def put_blob(self, descriptor: Descriptor, data: bytes, *, what: str) -> None:
        """A small blob from memory, such as a config.

        Raises:
            DigestMismatch, SizeMismatch: `data` is not what `descriptor` says.
        """

    def put_manifest(
        self, raw: bytes, media_type: str, *, by_name: bool, digest: Digest | None = None
    ) -> None:
        """A manifest or index, byte for byte, after its blobs.

        Args:
            by_name: under the name (tag) of the sink; else under its digest only, for the
                children of an index.
            digest: which it is then known by; None: the SHA-256 of `raw`.
        """


@runtime_checkable
class ReferenceSink(Protocol):
    """A sink where foreign layers may be missing: they stay where their URLs say."""

    @property
    def takes_references(self) -> bool:
        """True."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image.

    Attributes:
        index: from 0, the base.
        count: layers of the image.
        descriptor: of the stored bytes.
        diff_id: digest of the tar.
    """

    index: int
    count: int
    descriptor: Descriptor
    diff_id: Digest
    source: BlobSource

    @property
    def what(self) -> str:
        """The layer's name in messages."""
        return f"layer {self.index + 1} of {self.count}"

    def open_stored(self) -> ByteStream:
        """The stored bytes, checked against the descriptor at the end."""
        return self.source.open_blob(self.descriptor, what=self.what)

    def open_raw(self) -> RawStream:
        """The stored bytes, unchecked: for `imagers.core` only."""
        return open_layer_blob(self.source, self.descriptor, what=self.what)

    @property
    def is_resumable(self) -> bool:
        """Whether `open_raw_from` is there."""
        return isinstance(self.source, ResumableSource)

    def open_raw_from(self, first: int) -> RawStream:
        """The stored bytes from the one with the number `first` on, unchecked."""
        assert isinstance(self.source, ResumableSource)  # see `is_resumable`
        return self.source.open_raw_blob_from(first, self.descriptor, what=self.what)


@dataclass(frozen=True, slots=True)
class Image:
    """An immutable view of one image. Manifest and config agree; nothing else is verified.

    `TrustedImage` of `imagers.pull` is the type for images whose origin was verified.
    """

    manifest: Manifest
    config: ImageConfig
    source: BlobSource

    def layers(self) -> Iterator[Layer]:
        """The layers, from the base up."""
        count = len(self.manifest.layers)
        for index, (descriptor, diff_id) in enumerate(
            zip(self.manifest.layers, self.config.diff_ids, strict=True)
        ):
            yield Layer(index, count, descriptor, diff_id, self.source)


def open_layer_blob(source: BlobSource, descriptor: Descriptor, *, what: str) -> RawStream:
    """As `open_raw_blob`; of a layer that is not there it says where it is said to be."""
    try:
        return source.open_raw_blob(descriptor, what=what)
    except NotFound as error:
        if not descriptor.urls:
            raise
        kind = "is a foreign layer, and not" if descriptor.is_reference else "is not"
        raise NotFound(
            f"{what}: {kind} where its image is: it is said to be at {descriptor.urls[0][:160]!r}",
            hint="nothing is read from there; a copy to docker:// or oci: leaves a foreign layer "
            "where it is, and so does 'imagers encrypt' with --skip-base or --encrypt-layer",
        ) from error


def stays_behind(descriptor: Descriptor, sink: ImageSink) -> bool:
    """Whether a layer that is not changed is copied as a reference alone, as skopeo does it.

    What may not be distributed is not sent on, also where somebody has stored it.
    """
    return descriptor.is_reference and isinstance(sink, ReferenceSink)


def read_entry(source: ImageSource, entry: Descriptor) -> Manifest | Index:
    """The document behind an entry of an index, with the digest and size of the entry.

    Raises:
        DigestMismatch, SizeMismatch: the source has other bytes.
        FormatError, Unsupported: they are no manifest and no index, or not of the entry's type.
        NotFound, RemoteError, LocalError: the source does not have them, or failed.
    """
    answer = source.read_manifest(entry.digest)
    what = f"{source.name}: manifest {entry.digest}"
    if len(answer.raw) != entry.size:
        raise SizeMismatch(expected=entry.size, actual=len(answer.raw), what=what)
    check_digest(answer.raw, entry.digest, what=what)
    return parse_manifest_or_index(answer.raw, media_type=entry.media_type)


def read_config(manifest: Manifest, source: CheckedBlobSource) -> ImageConfig:
    """The config of a parsed manifest, held to its descriptor.

    Raises:
        FormatError, Unsupported: the config is none, or too large.
        IntegrityError: it is not the config of the descriptor.
    """
    descriptor = manifest.config
    check_config_size(descriptor)
    with source.open_blob(descriptor, what="config") as stream:
        raw = read_all(stream, size=descriptor.size)
    check_digest(raw, descriptor.digest, what="config")
    return parse_config(raw, media_type=descriptor.media_type)


def load_image(manifest: Manifest, source: BlobSource) -> Image:
    """The image of a parsed manifest: reads and checks its config.

    Raises:
        FormatError, Unsupported: the config is none, or too large.
        IntegrityError: it is not the config of the descriptor, or counts differ.
    """
    config = read_config(manifest, source)
    check_layer_count(manifest, config)
    return Image(manifest, config, source)
