# SPDX-License-Identifier: Apache-2.0
"""Images as directories of plain files (`dir:`), as source and sink.

    dir/version             Directory Transport Version: 1.1
    dir/manifest.json       the manifest or index that the directory is
    dir/HEX.manifest.json   the manifests of an index
    dir/HEX                 blobs

What is written is built in a hidden directory beside its place and appears by one rename;
there must be nothing, or an empty directory.

Spec: containers/image v5, directory/directory_transport.go.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import LocalError, NotFound, SizeMismatch
from imagers.files import (
    StagedFile,
    local_errors,
    open_regular,
    write_all,
)
from imagers.layout.local_blob import LocalBlob
from imagers.layout.staged_directory import StagedDirectory
from imagers.model.closing import Closing
from imagers.model.digest import check_digest, digest_of
from imagers.model.image import StagedFileBlob
from imagers.model.manifest import MAX_MANIFEST_BYTES, RawManifest
from imagers.model.stream import CheckedStream

if TYPE_CHECKING:
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.image import ImageSink, ImageSource, StagedBlob
    from imagers.model.stream import ByteStream, RawStream

__all__ = ["DirectorySink", "DirectorySource"]

_VERSION = b"Directory Transport Version: 1.1\n"
_VERSION_START = b"Directory Transport Version: 1."
_MANIFEST = "manifest.json"
_HIDDEN = ".imagers-"
_DIRECTORY_MODE = 0o777  # less the umask


class DirectorySource(Closing):
    """An `ImageSource` over a directory.

    Args:
        path: of the directory.
        name: as the user wrote it, with its transport.

    Threads: safe.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: str) -> None:
        self._path = Path(path)
        self._name = name

    @property
    def name(self) -> str:
        """See `ImageSource`."""
        return self._name

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        """See `ImageSource`; the media type is what the bytes say themselves."""
        raw = self._read(_MANIFEST if digest is None else f"{digest.hex}.{_MANIFEST}")
        if raw is None and digest is not None:
            raw = self._read(_MANIFEST)
            if raw is not None and digest_of(raw, digest.algorithm) != digest:
                raw = None
        if raw is None:
            raise NotFound(
                f"{self.name}: there is no manifest" + (f" {digest}" if digest else ""),
                hint=f"dir:PATH names a directory that holds {_MANIFEST}",
            )
        if digest is None:
            return RawManifest(raw, "", digest_of(raw))
        check_digest(raw, digest, what=f"{self.name}: manifest")
        return RawManifest(raw, "", digest)

    def open_blob(self, descriptor: Descriptor, *, what: str) -> ByteStream:
        """See `BlobSource`; the size is compared before the first byte."""
        return CheckedStream(self.open_raw_blob(descriptor, what=what), descriptor, what=what)

    def open_raw_blob(self, descriptor: Descriptor, *, what: str) -> RawStream:
        """See `BlobSource`; the size is compared before the first byte."""
        path = self._path / descriptor.digest.hex
        return LocalBlob.open(path, descriptor, name=self.name, what=what, place="directory")

    def close(self) -> None:
        """Nothing is held between calls."""

    def _read(self, name: str) -> bytes | None:
        path = self._path / name
        with local_errors(path):
            try:
                fd = open_regular(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            with os.fdopen(fd, "rb") as file:
                data = file.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise SizeMismatch(
                expected=f"at most {MAX_MANIFEST_BYTES}", actual="more", what=str(path)
            )
        return data


class DirectorySink(Closing):
    """An `ImageSink` that makes a directory.

    Args:
        path: of the directory, which must be missing or empty.
        name: as the user wrote it, with its transport.

    Threads: blobs may be staged and committed from several; the rest one at a time.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: str) -> None:
        self._path = Path(path)
        self._name = name
        # Beside the place that `path` means, which may be "." or end in a link.
        self._target = Path(os.path.realpath(self._path))
        self._parent = -1
        self._place: StagedDirectory | None = None
        self._lock = threading.Lock()
        self._blobs: dict[Digest, int] = {}

    @property
    def name(self) -> str:
        """See `ImageSink`."""
        return self._name

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `ImageSink`: whether this object has brought it."""
        return self._blobs.get(descriptor.digest) == descriptor.size

    def stage_blob(self) -> StagedBlob:
        """See `ImageSink`."""
        return StagedFileBlob(self._stage(), self._publish)

    def _publish(self, file: StagedFile, descriptor: Descriptor, what: str) -> None:
        del what
        with local_errors(self._path):
            file.publish_inside(descriptor.digest.hex)
        self._blobs[descriptor.digest] = descriptor.size

    def put_blob(self, descriptor: Descriptor, data: bytes, *, what: str) -> None:
        """See `ImageSink`."""
        if len(data) != descriptor.size:
            raise SizeMismatch(expected=descriptor.size, actual=len(data), what=what)
        check_digest(data, descriptor.digest, what=what)
        self._write(descriptor.digest.hex, data)
        self._blobs[descriptor.digest] = descriptor.size

    def put_manifest(
        self, raw: bytes, media_type: str, *, by_name: bool, digest: Digest | None = None
    ) -> None:
        """See `ImageSink`; the named one publishes the directory."""
        del media_type  # readers take it from the bytes
        if not by_name:
            self._write(f"{(digest or digest_of(raw)).hex}.{_MANIFEST}", raw)
            return
        self._write("version", _VERSION)
        self._write(_MANIFEST, raw)
        assert self._place is not None  # something was just written into it
        with local_errors(self._path):
            os.fsync(self._place.fd)
            # Onto an empty directory, too; anything else is refused by the system.
            self._place.publish()
        self.close()

    def close(self) -> None:
        """See `ImageSink`; what was not published is removed."""
        with self._lock:
            if self._place is not None:
                self._place.discard()
                self._place = None
            if self._parent >= 0:
                os.close(self._parent)
                self._parent = -1
            self._blobs.clear()

    def _write(self, name: str, data: bytes) -> None:
        file = self._stage()
        try:
            with local_errors(self._path):
                write_all(file.fileno(), data)
                file.publish_inside(name)
        finally:
            file.close()

    def _stage(self) -> StagedFile:
        """A file in the place, which is made if there is none."""
        with self._lock, local_errors(self._path):
            if self._place is None:
                self._place = self._make_place()
            # By the descriptor: whoever may write beside the place can swap its name.
            return StagedFile(Path(f"/proc/self/fd/{self._place.fd}"))

    def _make_place(self) -> StagedDirectory:
        target = self._target
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise LocalError(
                "expected an empty directory or nothing",
                path=str(self._path),
                hint="choose another path, or remove it",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        self._parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return StagedDirectory(self._parent, target.name, _HIDDEN, mode=_DIRECTORY_MODE)


if TYPE_CHECKING:
    # What the two promise, checked by mypy.
    _source: type[ImageSource] = DirectorySource
    _sink: type[ImageSink] = DirectorySink
