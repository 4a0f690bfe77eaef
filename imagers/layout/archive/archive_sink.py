# SPDX-License-Identifier: Apache-2.0
"""What archives that are written have in common: blobs into one nameless tar.

A blob is staged in a file of its own and appended when it is whole, so that several may be
under way; the tar gets its name when the named manifest was put, and never before.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import NotFound, SizeMismatch
from imagers.files import StagedFile, local_errors, write_all
from imagers.layout.archive.tar_builder import TarBuilder
from imagers.model.closing import Closing
from imagers.model.descriptor import Descriptor
from imagers.model.digest import check_digest, digest_of
from imagers.model.image import ReferenceSink, StagedFileBlob
from imagers.model.manifest import Manifest, parse_manifest_or_index

if TYPE_CHECKING:
    import os

    from imagers.model.digest import Digest
    from imagers.model.image import StagedBlob
    from imagers.model.manifest import Index

__all__ = ["ArchiveSink", "blob_name"]


def blob_name(digest: Digest) -> str:
    """The member of a blob, as in an OCI layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


class ArchiveSink(Closing):
    """The part of an `ImageSink` that archives share.

    Args:
        directory: holds the nameless files.
        name: as the user wrote it, with its transport.

    Threads: blobs may be staged and committed from several; the rest one at a time.
    """

    def __init__(self, directory: str | os.PathLike[str], *, name: str) -> None:
        self._directory = Path(directory)
        self._name = name
        self._lock = threading.Lock()
        self._file: StagedFile | None = None
        self._builder: TarBuilder | None = None
        self._blobs: dict[Digest, int] = {}

    @property
    def name(self) -> str:
        """See `ImageSink`."""
        return self._name

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `ImageSink`: whether this object has put it into the archive."""
        return self._blobs.get(descriptor.digest) == descriptor.size

    def stage_blob(self) -> StagedBlob:
        """See `ImageSink`."""
        with local_errors(self._directory):
            return StagedFileBlob(StagedFile(self._directory), self._append)

    def put_blob(self, descriptor: Descriptor, data: bytes, *, what: str) -> None:
        """See `ImageSink`."""
        if len(data) != descriptor.size:
            raise SizeMismatch(expected=descriptor.size, actual=len(data), what=what)
        check_digest(data, descriptor.digest, what=what)
        with self.stage_blob() as staged:
            with local_errors(self._directory):
                write_all(staged.fileno(), data)
            staged.commit(descriptor, what=what)

    def close(self) -> None:
        """See `ImageSink`; what was not published is gone."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = self._builder = None
            self._blobs.clear()

    def _append(self, file: StagedFile, descriptor: Descriptor, what: str) -> None:
        del what
        with local_errors(self._directory), self._lock:
            builder = self._open_tar()
            if descriptor.digest not in self._blobs:
                builder.add_file(blob_name(descriptor.digest), file.fileno(), descriptor.size)
                self._blobs[descriptor.digest] = descriptor.size
        file.close()

    def _open_tar(self) -> TarBuilder:
        if self._file is None or self._builder is None:
            self._file = StagedFile(self._directory)
            self._builder = TarBuilder(self._file.fileno())
        return self._builder

    def _put_manifest_blob(
        self, raw: bytes, media_type: str, digest: Digest | None = None
    ) -> tuple[Descriptor, Manifest | Index]:
        document = parse_manifest_or_index(raw, media_type=media_type)
        if isinstance(document, Manifest):
            layers = [
                one
                for one in document.layers
                if not (isinstance(self, ReferenceSink) and one.is_reference)
            ]
            needed = [document.config, *layers]
        else:
            needed = list(document.manifests)
        for one in needed:
            if not self.has_blob(one):
                raise NotFound(
                    f"{self.name}: the archive has no blob {one.digest} of {one.size} bytes, "
                    "which the manifest names"
                )
        descriptor = Descriptor(media_type, digest or digest_of(raw), len(raw))
        self.put_blob(descriptor, raw, what="manifest")
        return descriptor, document

    def _finish(self) -> StagedFile:
        """The whole archive, still without a name."""
        self._open_tar().finish()
        assert self._file is not None  # made by _open_tar
        return self._file

    def _publish(self, path: Path) -> None:
        with local_errors(path):
            self._finish().publish(path)
        self.close()
