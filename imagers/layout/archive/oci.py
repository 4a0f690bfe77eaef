# SPDX-License-Identifier: Apache-2.0
"""OCI layouts in one tar, as source and sink of images.

    source = OCIArchiveSource("app.tar", "v1", name="oci-archive:app.tar:v1")

Writing replaces the file, by one rename after its last byte.

Spec: OCI image-spec v1.1, image-layout.md; containers-transports(5).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import FormatError, NotFound, SizeMismatch
from imagers.files import local_errors
from imagers.layout.archive.archive_sink import ArchiveSink
from imagers.layout.archive.tar_file import TarFile
from imagers.layout.layout import MAX_LAYOUT_FILE, Layout
from imagers.layout.layout_index import LAYOUT_FILE, check_layout_file, replace_entry
from imagers.layout.oci_layout import OCILayoutSource

if TYPE_CHECKING:
    import os

    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.image import ImageSink, ImageSource
    from imagers.model.stream import RawStream

__all__ = ["ArchivedLayout", "OCIArchiveSink", "OCIArchiveSource"]


class ArchivedLayout(Layout):
    """A layout in a tar, which is opened when it is first read."""

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        super().__init__(path, name)
        self._tar: TarFile | None = None

    def read_small(self, path: Path, max_bytes: int) -> bytes | None:
        """See `Layout`."""
        return self.tar().read(path.relative_to(self.path).as_posix(), max_bytes)

    def check_version(self) -> bool:
        """See `Layout`."""
        raw = self.read_small(self.layout_file, MAX_LAYOUT_FILE)
        if raw is None:
            raise FormatError(
                "expected an OCI layout, but there is no file oci-layout in the archive",
                what=str(self.path),
                hint="docker-archive:PATH reads what docker save writes",
            )
        check_layout_file(raw, what=f"{self.path}: oci-layout")
        return True

    def open_blob(self, descriptor: Descriptor, *, what: str) -> RawStream:
        """See `Layout`."""
        name = self.blob_path(descriptor.digest).relative_to(self.path).as_posix()
        tar = self.tar()
        member = tar.find(name)
        if member is None:
            raise NotFound(f"{self.name}: {what}: the archive has no blob {descriptor.digest}")
        if member.size != descriptor.size:
            raise SizeMismatch(expected=descriptor.size, actual=member.size, what=what)
        return tar.open_member(member)

    def tar(self) -> TarFile:
        """The archive, opened on first use."""
        if self._tar is None:
            with local_errors(self.path, "could not be opened"):
                self._tar = TarFile.open(self.path)
        return self._tar

    def close(self) -> None:
        """Safe to call twice."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None


class OCIArchiveSource(OCILayoutSource):
    """An `ImageSource` over one entry of an archived layout; arguments as `OCILayoutSource`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        ref: str | None,
        *,
        name: str,
        position: int | None = None,
    ) -> None:
        self._archive = ArchivedLayout(path, name)
        super().__init__(path, ref, name=name, position=position, layout=self._archive)

    def close(self) -> None:
        """See `ImageSource`."""
        self._archive.close()


class OCIArchiveSink(ArchiveSink):
    """An `ImageSink` that writes a new archive with one named entry.

    Args:
        path: of the archive; a file there is replaced.
        ref: name of the entry, or None for one without a name.
        name: as the user wrote it, with its transport.
    """

    def __init__(self, path: str | os.PathLike[str], ref: str | None, *, name: str) -> None:
        self._path = Path(path)
        super().__init__(self._path.parent, name=name)
        self._ref = ref
        self._index: bytes | None = None

    @property
    def takes_references(self) -> bool:
        """See `ReferenceSink`."""
        return True

    def put_manifest(
        self, raw: bytes, media_type: str, *, by_name: bool, digest: Digest | None = None
    ) -> None:
        """See `ImageSink`; the named one publishes the archive."""
        descriptor, _ = self._put_manifest_blob(raw, media_type, digest)
        if not by_name:
            return
        self._add_entry(descriptor, self._ref)
        assert self._index is not None  # has an entry
        with local_errors(self._path):
            builder = self._open_tar()
            builder.add_bytes("oci-layout", LAYOUT_FILE)
            builder.add_bytes("index.json", self._index)
        self._publish(self._path)
        self._index = None

    def put_manifest_as(self, raw: bytes, media_type: str, tag: str) -> None:
        """Another entry of the archive; before the named manifest, which publishes it."""
        descriptor, _ = self._put_manifest_blob(raw, media_type)
        self._add_entry(descriptor, tag)

    def _add_entry(self, descriptor: Descriptor, ref: str | None) -> None:
        self._index = replace_entry(self._index, descriptor, ref, what=f"{self._path}: index.json")


if TYPE_CHECKING:
    # What the two promise, checked by mypy.
    _source: type[ImageSource] = OCIArchiveSource
    _sink: type[ImageSink] = OCIArchiveSink
