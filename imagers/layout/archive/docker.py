# SPDX-License-Identifier: Apache-2.0
"""What `docker save` and `podman save` write, as source and sink of images.

    source = DockerArchiveSource("app.tar", None, name="docker-archive:app.tar")

Four shapes are read (facts of each in `docker_manifest`). Where the archive holds the
manifest of an image, as Docker writes it since 25, its bytes and digest stay; for the others
one is made, from the config and the layers as they are, always the same.

What is written holds both: an OCI layout, which keeps the digests, and manifest.json, which
`docker load` and `podman load` read. Encrypted layers are refused: no engine opens them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import FormatError, LocalError, NotFound, SizeMismatch, Unsupported
from imagers.files import StagedFile, local_errors
from imagers.layout.archive.archive_sink import ArchiveSink, blob_name
from imagers.layout.archive.docker_manifest import dump_saved, find_saved, parse_saved
from imagers.layout.archive.tar_file import Member, TarFile
from imagers.layout.layout_index import LAYOUT_FILE, REF_NAME
from imagers.model.closing import Closing
from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest, digest_of, new_hasher
from imagers.model.manifest import (
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    Index,
    Manifest,
    RawManifest,
    parse_config,
    parse_index,
    parse_manifest,
)
from imagers.model.media import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Compression,
    compressed_media_type,
    compression_of_bytes,
    is_encrypted,
)
from imagers.model.stream import CheckedStream
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from imagers.layout.archive.docker_manifest import SavedImage
    from imagers.model.image import ImageSink, ImageSource
    from imagers.model.reference import Reference
    from imagers.model.stream import ByteStream, RawStream

__all__ = ["DockerArchiveSink", "DockerArchiveSource", "check_no_encryption"]

_PIECE = 1024 * 1024
_MAX_NESTING = 2
_NAME_OF_CONTAINERD = "io.containerd.image.name"


def check_no_encryption(manifest: Manifest, *, name: str) -> None:
    """Raise unless an engine can open all layers.

    Raises:
        Unsupported: one is encrypted.
    """
    for number, layer in enumerate(manifest.layers, 1):
        if is_encrypted(layer.media_type):
            raise Unsupported(
                f"{name}: layer {number} of {len(manifest.layers)} is encrypted, which archives "
                "and engines of Docker cannot hold",
                hint="decrypt the image first, or write to oci:, oci-archive:, dir: or docker://",
            )


class DockerArchiveSource(Closing):
    """An `ImageSource` over one image of an archive.

    Args:
        path: of the archive, or of whatever `tar` came from.
        ref: which image; None: the only one, or the one at `position`.
        name: as the user wrote it, with its transport.
        position: in manifest.json, from 0.
        tar: the archive, already open; owned by this object afterwards.

    Threads: one at a time until `read_manifest` has returned, then safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        ref: Reference | None,
        *,
        name: str,
        position: int | None = None,
        tar: TarFile | None = None,
    ) -> None:
        self._path = Path(path)
        self._ref = ref
        self._position = position
        self._name = name
        self._tar = tar
        self._manifest: RawManifest | None = None
        self._members: dict[Digest, Member] = {}

    @property
    def name(self) -> str:
        """See `ImageSource`."""
        return self._name

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        """See `ImageSource`."""
        if self._manifest is None:
            self._manifest = self._load()
        if digest not in (None, self._manifest.digest):
            raise NotFound(f"{self.name}: the archive has no manifest {digest}")
        return self._manifest

    def list_names(self) -> tuple[str, ...]:
        """The tags of all images of the archive, as it has them; `@N` for one without any."""
        return tuple(
            tag for at, one in enumerate(self._read_saved()) for tag in one.tags or (f"@{at}",)
        )

    def open_blob(self, descriptor: Descriptor, *, what: str) -> ByteStream:
        """See `BlobSource`."""
        return CheckedStream(self.open_raw_blob(descriptor, what=what), descriptor, what=what)

    def open_raw_blob(self, descriptor: Descriptor, *, what: str) -> RawStream:
        """See `BlobSource`."""
        self.read_manifest()
        tar = self._open()
        member = self._members.get(descriptor.digest) or tar.find(blob_name(descriptor.digest))
        if member is None:
            raise NotFound(f"{self.name}: {what}: the archive has no blob {descriptor.digest}")
        if member.size != descriptor.size:
            raise SizeMismatch(expected=descriptor.size, actual=member.size, what=what)
        return tar.open_member(member)

    def close(self) -> None:
        """See `ImageSource`."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def _open(self) -> TarFile:
        if self._tar is None:
            with local_errors(self._path, "could not be opened"):
                self._tar = TarFile.open(self._path)
        return self._tar

    def _read_saved(self) -> tuple[SavedImage, ...]:
        raw = self._open().read("manifest.json", MAX_MANIFEST_BYTES)
        if raw is None:
            raise FormatError(
                "expected a file manifest.json in the archive, got none",
                what=self.name,
                hint="oci-archive:PATH reads OCI layouts; this must be from docker or podman save",
            )
        return parse_saved(raw, what=f"{self.name}: manifest.json")

    def _load(self) -> RawManifest:
        tar = self._open()
        saved = find_saved(self._read_saved(), self._ref, self._position, name=self.name)
        config = tar.read(saved.config, MAX_CONFIG_BYTES)
        if config is None:
            raise NotFound(f"{self.name}: the archive has no config {saved.config[:160]!r}")
        return self._find_own(tar, saved, digest_of(config)) or self._make(tar, saved, config)

    def _find_own(self, tar: TarFile, saved: SavedImage, config: Digest) -> RawManifest | None:
        """The manifest in the archive whose config and layers are those of manifest.json."""
        for one in _manifests(tar):
            if one.config.digest == config and [blob_name(e.digest) for e in one.layers] == list(
                saved.layers
            ):
                return RawManifest(one.raw, one.descriptor.media_type, one.descriptor.digest)
        return None

    def _make(self, tar: TarFile, saved: SavedImage, config: bytes) -> RawManifest:
        diff_ids = parse_config(config).diff_ids
        if len(diff_ids) != len(saved.layers):
            raise SizeMismatch(
                expected=len(diff_ids),
                actual=len(saved.layers),
                what=self.name,
                noun="number of layers",
            )
        own = Descriptor(OCI_CONFIG, digest_of(config), len(config))
        member = tar.find(saved.config)
        assert member is not None  # it was just read
        self._members[own.digest] = member
        layers = [
            self._layer(tar, path, diff_id)
            for path, diff_id in zip(saved.layers, diff_ids, strict=True)
        ]
        raw = dump_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": own.to_json(),
                "layers": [layer.to_json() for layer in layers],
            }
        )
        return RawManifest(raw, OCI_MANIFEST, digest_of(raw))

    def _layer(self, tar: TarFile, path: str, diff_id: Digest) -> Descriptor:
        member = tar.find(path)
        if member is None:
            raise NotFound(f"{self.name}: the archive has no layer {path[:160]!r}")
        stream = tar.open_member(member)
        try:
            buffer = memoryview(bytearray(_PIECE))
            count = stream.readinto(buffer)
            what = f"{self.name}: layer {path[:160]!r}"
            found = compression_of_bytes(bytes(buffer[: min(count, 512)]), what=what)
            digest = diff_id
            if found is not Compression.NONE:
                # Only a plain layer has the digest of its tar; this one is read for its own.
                hasher = new_hasher("sha256")
                while count:
                    hasher.update(buffer[:count])
                    count = stream.readinto(buffer)
                digest = Digest("sha256", hasher.hexdigest())
        finally:
            stream.close()
        self._members[digest] = member
        return Descriptor(compressed_media_type(OCI_LAYER, found), digest, member.size)


def _manifests(tar: TarFile) -> Iterator[Manifest]:
    """The image manifests below index.json of the archive, as far as they are in it.

    Each document is read once, however many entries name it: of three indexes with a thousand
    entries that all mean the next one, a thousand million paths lead to the last manifest.
    """
    seen: set[Digest] = set()
    names = ["index.json"]
    for _ in range(_MAX_NESTING + 1):
        below = []
        for name in names:
            raw = tar.read(name, MAX_MANIFEST_BYTES)
            for entry in () if raw is None else parse_index(raw).manifests:
                if entry.digest in seen:
                    continue
                seen.add(entry.digest)
                if entry.media_type in INDEX_TYPES:
                    below.append(blob_name(entry.digest))
                    continue
                if entry.media_type not in MANIFEST_TYPES:
                    continue  # of another kind of artifact
                found = tar.read(blob_name(entry.digest), MAX_MANIFEST_BYTES)
                if found is not None and digest_of(found, entry.digest.algorithm) == entry.digest:
                    yield parse_manifest(found, media_type=entry.media_type)
        names = below


class DockerArchiveSink(ArchiveSink):
    """An `ImageSink` that writes an archive for `docker load` and `podman load`.

    Args:
        path: of the archive, which must not be there yet; None: `take_file` gives it.
        ref: the tag that the image gets when it is loaded; None: none.
        name: as the user wrote it, with its transport.
        directory: of the nameless files; None: that of `path`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        ref: Reference | None,
        *,
        name: str,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self._path = None if path is None else Path(path)
        if directory is None:
            directory = Path() if self._path is None else self._path.parent
        super().__init__(directory, name=name)
        self._ref = ref

    def check_image(self, document: Manifest | Index) -> None:
        """Raise unless the archive can hold it; asked before its first blob.

        Raises:
            Unsupported: it is encrypted, an index, or no image.
            LocalError: there is an archive already.
        """
        if isinstance(document, Index):
            raise Unsupported(
                f"{self.name}: archives for Docker hold one platform, and this is an index",
                hint="leave out --all, and choose with --platform OS/ARCH",
            )
        check_no_encryption(document, name=self.name)
        if self._path is not None and self._path.exists():
            raise LocalError(
                "is there already, and archives for Docker are not changed",
                path=str(self._path),
                hint="remove it, or choose another name",
            )

    def put_manifest(
        self, raw: bytes, media_type: str, *, by_name: bool, digest: Digest | None = None
    ) -> None:
        """See `ImageSink`; publishes the archive."""
        descriptor, document = self._put_manifest_blob(raw, media_type, digest)
        self.check_image(document)
        if not by_name:
            return
        assert isinstance(document, Manifest)  # checked
        tag = None if self._ref is None or self._ref.tag is None else str(self._ref)
        entry = descriptor.to_json()
        if tag is not None:
            # The whole name: containerd reads the second, podman takes the first as it is.
            entry["annotations"] = {REF_NAME: tag, _NAME_OF_CONTAINERD: tag}
        index = dump_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
        saved = dump_saved(
            blob_name(document.config.digest),
            [blob_name(layer.digest) for layer in document.layers],
            tag,
        )
        with local_errors(self._path or self._directory):
            builder = self._open_tar()
            builder.add_bytes("index.json", index)
            builder.add_bytes("manifest.json", saved)
            builder.add_bytes("oci-layout", LAYOUT_FILE)
        if self._path is not None:
            self._publish(self._path)

    def take_file(self) -> StagedFile:
        """The whole archive in its nameless file, which this object keeps; after the manifest."""
        with local_errors(self._directory):
            return self._finish()


if TYPE_CHECKING:
    # What the two promise, checked by mypy.
    _source: type[ImageSource] = DockerArchiveSource
    _sink: type[ImageSink] = DockerArchiveSink
