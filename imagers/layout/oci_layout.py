# SPDX-License-Identifier: Apache-2.0
"""OCI layouts on disk, as source and sink of images.

    layout/oci-layout              {"imageLayoutVersion": "1.0.0"}
    layout/index.json              an image index; an entry's name is an annotation
    layout/blobs/sha256/HEX        blobs and manifests

    source = OCILayoutSource("build/app", "v1", name="oci:build/app:v1")
    raw = source.read_manifest()

Nothing that is read is trusted: the layout file and the index are bounded and strict, blobs
are held against their descriptors. What is written appears by renames, blobs first, the
entry of the index last; a sink that is closed before removes the blobs that it brought.

Writers of this project serialise on a lock of the layout file, so that no entry of the
index is lost; an entry is made only while all that it names is there.

Spec: OCI image-spec v1.1, image-layout.md.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from imagers.errors import FormatError, LocalError, NotFound, SizeMismatch
from imagers.files import (
    StagedFile,
    is_hidden_name,
    local_errors,
    open_for_lock,
    open_regular,
    sync_directory,
    write_all,
)
from imagers.layout.layout import Layout
from imagers.layout.layout_index import (
    LAYOUT_FILE,
    REF_NAME,
    Selection,
    find_entry,
    parse_layout_index,
    replace_entry,
)
from imagers.model.closing import Closing
from imagers.model.descriptor import Descriptor
from imagers.model.digest import check_digest, digest_of, new_hasher
from imagers.model.image import StagedFileBlob
from imagers.model.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    RawManifest,
    parse_manifest_or_index,
)
from imagers.model.stream import CheckedStream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagers.model.digest import Digest
    from imagers.model.image import ImageSink, ImageSource, StagedBlob
    from imagers.model.manifest import Index
    from imagers.model.stream import ByteStream, RawStream

__all__ = ["OCILayoutSink", "OCILayoutSource"]

_DIRECTORY_MODE = 0o755  # less the umask
_PIECE = 1024 * 1024
_STAGING = "blobs/sha256"  # on the file system of nearly every blob


def _state_of(fd: int) -> tuple[int, int, int]:
    """What changes when a file is written or replaced."""
    status = os.fstat(fd)
    return status.st_ino, status.st_mtime_ns, status.st_size


class OCILayoutSource(Closing):
    """An `ImageSource` over one entry of a layout.

    Args:
        path: of the layout.
        ref: name of the entry; None: the only one, or the one at `position`.
        name: as the user wrote it, with its transport.
        position: of the entry in the index, from 0.
        layout: read in place of the directory at `path`.

    Threads: safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        ref: str | None,
        *,
        name: str,
        position: int | None = None,
        layout: Layout | None = None,
    ) -> None:
        self._layout = layout or Layout(path, name)
        self._selection = Selection(ref, position)

    @property
    def name(self) -> str:
        """See `ImageSource`."""
        return self._layout.name

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        """See `ImageSource`."""
        index = self._read_index()
        if digest is None:
            return self._read_entry(find_entry(index, self._selection, name=self.name))
        told = [entry.media_type for entry in index.manifests if entry.digest == digest]
        return RawManifest(self._read_manifest_blob(digest), told[0] if told else "", digest)

    def read_tag(self, tag: str) -> RawManifest:
        """The manifest of another entry of the same layout, such as one with signatures.

        Raises:
            NotFound: no entry has this name.
        """
        return self._read_entry(
            find_entry(self._read_index(), Selection(ref=tag), name=f"{self.name}: {tag!r}")
        )

    def list_names(self) -> tuple[str, ...]:
        """What all entries of the layout are called; `@N` for one without a name."""
        entries = self._read_index().manifests
        return tuple(one.annotations.get(REF_NAME) or f"@{at}" for at, one in enumerate(entries))

    def open_blob(self, descriptor: Descriptor, *, what: str) -> ByteStream:
        """See `BlobSource`; the size is compared before the first byte."""
        return CheckedStream(self.open_raw_blob(descriptor, what=what), descriptor, what=what)

    def open_raw_blob(self, descriptor: Descriptor, *, what: str) -> RawStream:
        """See `BlobSource`; the size is compared before the first byte."""
        return self._layout.open_blob(descriptor, what=what)

    def close(self) -> None:
        """Nothing is held between calls."""

    def _read_index(self) -> Index:
        layout = self._layout
        if not layout.check_version():
            raise LocalError(
                "expected an OCI layout, but there is no file oci-layout"
                if layout.path.is_dir()
                else "expected an OCI layout, but there is no such directory",
                path=str(layout.path),
                hint="oci:PATH names the directory that holds oci-layout and index.json",
            )
        raw = layout.read_index()
        if raw is None:
            raise FormatError("expected a file index.json, got none", what=str(layout.path))
        return parse_layout_index(raw, what=str(layout.index_file))

    def _read_entry(self, entry: Descriptor) -> RawManifest:
        raw = self._read_manifest_blob(entry.digest)
        if len(raw) != entry.size:
            raise SizeMismatch(expected=entry.size, actual=len(raw), what=f"{self.name}: manifest")
        return RawManifest(raw, entry.media_type, entry.digest)

    def _read_manifest_blob(self, digest: Digest) -> bytes:
        raw = self._layout.read_small(self._layout.blob_path(digest), MAX_MANIFEST_BYTES)
        if raw is None:
            raise NotFound(
                f"{self.name}: the layout has no manifest {digest}",
                hint="the layout is incomplete; copy the image into it again",
            )
        check_digest(raw, digest, what=f"{self.name}: manifest")
        return raw


class OCILayoutSink(Closing):
    """An `ImageSink` into one entry of a layout, which is made if it is missing.

    Nothing is written before the first blob. `close` without a named manifest before it
    takes back what was written, as far as nobody else has published anything meanwhile.

    Args:
        path: of the layout.
        ref: name of the entry, or None for one without a name.
        name: as the user wrote it, with its transport.

    Threads: blobs may be staged and committed from several; the rest one at a time.
    """

    def __init__(self, path: str | os.PathLike[str], ref: str | None, *, name: str) -> None:
        self._layout = Layout(path, name)
        self._ref = ref
        self._lock = threading.Lock()
        self._prepared = False
        self._made: list[Path] = []  # directories and the layout file, in order
        self._unpublished: list[Path] = []  # blobs that were not there before
        self._checked: dict[Path, tuple[int, int, int]] = {}  # blobs that are what they say
        self._staged: set[StagedFile] = set()
        self._index_before: bytes | None = None

    @property
    def name(self) -> str:
        """See `ImageSink`."""
        return self._layout.name

    @property
    def takes_references(self) -> bool:
        """See `ReferenceSink`."""
        return True

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `ImageSink`.

        A file that was there before is read once by this sink and held against its digest: a
        damaged blob would otherwise be taken for the good one and left in its place.
        """
        with local_errors(self._layout.path):
            if not self._layout.has_blob(descriptor):
                return False
            path = self._layout.blob_path(descriptor.digest)
            with os.fdopen(open_regular(path), "rb", buffering=0) as file:
                state = _state_of(file.fileno())
                if self._checked.get(path) == state:
                    return True
                hasher = new_hasher(descriptor.digest.algorithm)
                while piece := file.read(_PIECE):
                    hasher.update(piece)
            if hasher.hexdigest() != descriptor.digest.hex:
                return False
            self._checked[path] = state
            return True

    def stage_blob(self) -> StagedBlob:
        """See `ImageSink`: a file without a name on the layout's own file system."""
        return self._stage()

    def put_blob(self, descriptor: Descriptor, data: bytes, *, what: str) -> None:
        """See `ImageSink`."""
        if len(data) != descriptor.size:
            raise SizeMismatch(expected=descriptor.size, actual=len(data), what=what)
        check_digest(data, descriptor.digest, what=what)
        with self._stage() as staged:
            with local_errors(self._layout.path):
                write_all(staged.fileno(), data)
            staged.commit(descriptor, what=what)

    def put_manifest(
        self, raw: bytes, media_type: str, *, by_name: bool, digest: Digest | None = None
    ) -> None:
        """See `ImageSink`.

        Raises:
            NotFound: something that the manifest names is not in the layout.
        """
        descriptor = self._put_manifest_blob(raw, media_type, digest)
        if by_name:
            self._publish(descriptor, self._ref)

    def read_tag(self, tag: str) -> RawManifest:
        """As of `OCILayoutSource`: what another entry of the same layout is now."""
        if self._layout.read_index() is None:
            raise NotFound(f"{self.name}: the layout has no entries yet")
        return OCILayoutSource(
            self._layout.path, None, name=self.name, layout=self._layout
        ).read_tag(tag)

    def put_manifest_as(self, raw: bytes, media_type: str, tag: str) -> None:
        """Like `put_manifest` by name, for another entry of the same layout."""
        self._publish(self._put_manifest_blob(raw, media_type), tag)

    def close(self) -> None:
        """See `ImageSink`; takes back what was not published."""
        for staged in list(self._staged):
            staged.drop()  # not closed: a thread that hangs on a source may still write to it
        # What cannot be taken back is a blob without a name: no reason to hide a first error.
        with suppress(LocalError, FormatError):
            self._take_back()
        self._staged.clear()
        self._unpublished.clear()
        self._made.clear()
        self._prepared = False

    def _stage(self) -> StagedFileBlob[StagedFile]:
        self._prepare()
        directory = self._layout.path / _STAGING
        with local_errors(directory):
            self._make_directory(directory)
            file = StagedFile(directory)
        self._staged.add(file)
        return StagedFileBlob(file, self._commit, lambda _: self._staged.discard(file))

    def _commit(self, file: StagedFile, descriptor: Descriptor, what: str) -> None:
        del what
        path = self._layout.blob_path(descriptor.digest)
        with local_errors(path):
            self._make_directory(path.parent)
            if not path.exists():
                self._unpublished.append(path)
            # Of the file and not of the path, which may be another one when it is looked at.
            state = _state_of(file.fileno())
            try:
                file.publish(path)
            except LocalError:
                # Another writer may have brought the same blob at the same moment.
                if not self.has_blob(descriptor):
                    raise
                file.close()
            else:
                self._checked[path] = state

    def _put_manifest_blob(
        self, raw: bytes, media_type: str, digest: Digest | None = None
    ) -> Descriptor:
        self._check_complete(parse_manifest_or_index(raw, media_type=media_type))
        descriptor = Descriptor(media_type, digest or digest_of(raw), len(raw))
        self.put_blob(descriptor, raw, what="manifest")
        return descriptor

    def _check_complete(self, document: Manifest | Index) -> None:
        """Raise unless all that `document` names is in the layout."""
        if isinstance(document, Manifest):
            needed = [document.config, *(one for one in document.layers if not one.is_reference)]
        else:
            needed = list(document.manifests)
        for one in needed:
            if not self.has_blob(one):
                raise NotFound(
                    f"{self.name}: the layout has no blob {one.digest} of {one.size} bytes, "
                    "which the manifest names",
                    hint="if another program removed it meanwhile, run the command again",
                )

    def _publish(self, descriptor: Descriptor, ref: str | None) -> None:
        layout = self._layout
        with self._locked():
            # Again, now that no other sink can take back a blob that it brought and we use.
            raw = layout.read_small(layout.blob_path(descriptor.digest), MAX_MANIFEST_BYTES)
            if raw is None:
                raise NotFound(
                    f"{self.name}: the manifest was removed by another program",
                    hint="run the command again",
                )
            self._check_complete(parse_manifest_or_index(raw, media_type=descriptor.media_type))
            before = layout.read_index()
            after = replace_entry(before, descriptor, ref, what=str(layout.index_file))
            if after != before:
                self._write_index(after)
            self._index_before = after
            self._unpublished.clear()
            self._made.clear()

    def _write_index(self, data: bytes) -> None:
        path = self._layout.index_file
        with local_errors(path):
            file = StagedFile(path.parent)
            try:
                write_all(file.fileno(), data)
                file.publish(path)
            finally:
                file.close()

    def _prepare(self) -> None:
        """Make the layout if there is none, and remember its index."""
        layout = self._layout
        with self._lock:
            if self._prepared:
                return
            with local_errors(layout.path):
                if not layout.check_version():
                    self._make_layout()
            self._index_before = layout.read_index()
            if self._index_before is not None:  # before the work, not after it
                parse_layout_index(self._index_before, what=str(layout.index_file))
            self._prepared = True

    def _make_layout(self) -> None:
        layout = self._layout
        if layout.path.exists() and not (layout.path.is_dir() and self._is_ours_to_make()):
            # Unless another writer has made it since we looked.
            if layout.check_version():
                return
            raise LocalError(
                "expected an OCI layout, an empty directory or nothing",
                path=str(layout.path),
                hint="choose another path",
            )
        self._make_directory(layout.path / _STAGING)
        file = StagedFile(layout.path)
        try:
            write_all(file.fileno(), LAYOUT_FILE)
            file.publish_new(layout.layout_file)
            self._made.append(layout.layout_file)
        except FileExistsError:
            pass  # another writer was first
        finally:
            file.close()

    def _is_ours_to_make(self) -> bool:
        """Whether the directory has nothing but what another writer makes at this moment."""
        return all(
            one.name == "blobs" or is_hidden_name(one.name) for one in self._layout.path.iterdir()
        )

    def _make_directory(self, path: Path) -> None:
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for one in reversed(missing):
            try:
                one.mkdir(mode=_DIRECTORY_MODE)
            except FileExistsError:
                if not one.is_dir():
                    raise
            else:
                self._made.append(one)
                sync_directory(one.parent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The block alone among the writers of this project."""
        path = self._layout.layout_file
        with ExitStack() as stack:
            while True:
                self._prepare()
                with local_errors(path), suppress(FileNotFoundError):
                    fd = open_for_lock(path)
                    stack.callback(os.close, fd)
                    fcntl.flock(fd, fcntl.LOCK_EX)
                    if os.path.samestat(os.fstat(fd), path.stat()):
                        break
                # Its maker took the layout back while we waited: make it again.
                self._prepared = False
            yield

    def _take_back(self) -> None:
        """Remove what this sink brought, unless somebody has published since it began.

        A sink that found our blob and relies on it looks again under the same lock before
        it publishes.
        """
        layout = self._layout
        if (self._unpublished or self._made) and layout.layout_file.exists():
            with self._locked():
                if layout.read_index() != self._index_before:
                    return
                for blob in self._unpublished:
                    blob.unlink(missing_ok=True)
                if self._index_before is None and layout.layout_file in self._made:
                    layout.layout_file.unlink(missing_ok=True)
        for one in reversed(self._made):
            with suppress(OSError):  # not empty: somebody else is at work in it
                one.rmdir()


if TYPE_CHECKING:
    # What the two promise, checked by mypy.
    _source: type[ImageSource] = OCILayoutSource
    _sink: type[ImageSink] = OCILayoutSink
