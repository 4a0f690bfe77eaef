# SPDX-License-Identifier: Apache-2.0
"""Tars, layers and images of a few bytes, made in memory.

    app = make_image(make_tar(("etc/hostname", b"guest"), TarEntry.directory("tmp")))
    app.push("127.0.0.1:5000/team/app:v1")  # to a registry
    app.save(tmp_path / "app")              # as an OCI layout; gives "oci:.../app:v1"
    app.write(sink)                         # to any `ImageSink`

The same arguments give the same bytes. What a maker is given in place of the usual members goes
into the document as it is, so that images can be wrong: digests above it stay right.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal, TypedDict, Unpack

import zstandard

from imagers import transport
from imagers.model.descriptor import Descriptor, Platform
from imagers.model.digest import Digest, digest_of
from imagers.model.image import ImageSink
from imagers.model.media import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Compression,
)

__all__ = [
    "SmallImage",
    "SmallLayer",
    "TarAttributes",
    "TarEntry",
    "TarForm",
    "make_image",
    "make_index",
    "make_layer",
    "make_tar",
]

TarForm = Literal[0, 1, 2]  # tarfile.USTAR_FORMAT, GNU_FORMAT, PAX_FORMAT

_BLOCK = 512
_LAYER_TYPES = {
    Compression.NONE: OCI_LAYER,
    Compression.GZIP: OCI_LAYER_GZIP,
    Compression.ZSTD: OCI_LAYER_ZSTD,
}
_AMD64 = Platform("linux", "amd64")


class TarAttributes(TypedDict, total=False):
    """What an entry has besides name, kind and content, in the words of `tarfile.TarInfo`."""

    mode: int
    uid: int
    gid: int
    uname: str
    gname: str
    mtime: int
    size: int
    devmajor: int
    devminor: int
    linkname: str
    pax_headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry of a tar: root's, from 1970, mode 0644 or 0755 where nothing else is said."""

    name: str
    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    attributes: TarAttributes = field(default_factory=TarAttributes)

    @classmethod
    def file(
        cls, name: str, content: bytes | str = b"", **attributes: Unpack[TarAttributes]
    ) -> TarEntry:
        """A regular file."""
        data = content if isinstance(content, bytes) else content.encode()
        return cls(name, tarfile.REGTYPE, data, attributes)

    @classmethod
    def directory(cls, name: str, **attributes: Unpack[TarAttributes]) -> TarEntry:
        """A directory."""
        return cls(name, tarfile.DIRTYPE, b"", {"mode": 0o755, **attributes})

    @classmethod
    def symlink(cls, name: str, target: str, **attributes: Unpack[TarAttributes]) -> TarEntry:
        """A symbolic link."""
        return cls(name, tarfile.SYMTYPE, b"", {"linkname": target, **attributes})

    @classmethod
    def link(cls, name: str, target: str, **attributes: Unpack[TarAttributes]) -> TarEntry:
        """A hard link to another entry."""
        return cls(name, tarfile.LNKTYPE, b"", {"linkname": target, **attributes})

    @classmethod
    def other(cls, name: str, kind: bytes, **attributes: Unpack[TarAttributes]) -> TarEntry:
        """What `kind` says: `tarfile.CHRTYPE` with `devmajor` and `devminor`, a FIFO, anything."""
        return cls(name, kind, b"", attributes)

    def to_bytes(self, form: TarForm) -> bytes:
        """Its headers, and its content in whole blocks."""
        info = tarfile.TarInfo(self.name)
        info.type = self.kind
        info.size = len(self.content)
        for name, value in self.attributes.items():
            setattr(info, name, value)
        padding = bytes(-len(self.content) % _BLOCK)
        return info.tobuf(form, "utf-8", "surrogateescape") + self.content + padding


def make_tar(
    *entries: TarEntry | tuple[str, bytes] | tuple[str, str],
    form: TarForm = tarfile.PAX_FORMAT,
    end: bool = True,
) -> bytes:
    """A tar of `entries`, in their order.

    Args:
        entries: of a pair, bytes are the content of a file, and text is the target of a
            symbolic link.
        form: one of `tarfile`'s formats.
        end: with the two blocks of zeros that end a tar.
    """
    out = BytesIO()
    for one in entries:
        if isinstance(one, TarEntry):
            entry = one
        else:
            name, what = one
            entry = (
                TarEntry.file(name, what)
                if isinstance(what, bytes)
                else TarEntry.symlink(name, what)
            )
        out.write(entry.to_bytes(form))
    if end:
        out.write(bytes(2 * _BLOCK))
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class SmallLayer:
    """A layer in memory.

    Attributes:
        descriptor: of the stored bytes; another one of the same digest goes into the manifest
            as it is (`dataclasses.replace`).
        stored: what a registry has.
        tar: what is in it; its digest is the diff_id.
    """

    descriptor: Descriptor
    stored: bytes
    tar: bytes

    @property
    def diff_id(self) -> Digest:
        """Digest of the tar."""
        return digest_of(self.tar)


def make_layer(
    tar: bytes,
    compression: Compression = Compression.GZIP,
    *,
    stored: bytes | None = None,
    media_type: str | None = None,
    annotations: Mapping[str, str] | None = None,
    urls: tuple[str, ...] = (),
) -> SmallLayer:
    """A layer of `tar`; of any bytes, where nobody unpacks it.

    Args:
        stored: bytes in place of the compressed tar.
        media_type: in place of the one that says what the bytes are.
    """
    if stored is None:
        stored = tar
        if compression is Compression.GZIP:
            stored = gzip.compress(tar, mtime=0)
        elif compression is Compression.ZSTD:
            stored = zstandard.compress(tar)
    descriptor = Descriptor(
        media_type or _LAYER_TYPES[compression],
        digest_of(stored),
        len(stored),
        annotations=annotations or {},
        urls=urls,
    )
    return SmallLayer(descriptor, stored, tar)


@dataclass(frozen=True, slots=True)
class SmallImage:
    """An image in memory, or an index of images.

    Attributes:
        raw: the manifest or index.
        blobs: the config first, then the layers; empty for an index.
        platform: as its entry in an index says; None for an index.
        children: the images of an index.
    """

    raw: bytes
    media_type: str
    blobs: Mapping[Descriptor, bytes]
    platform: Platform | None = None
    children: tuple[SmallImage, ...] = ()

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers that have blobs, from the base up; each once."""
        return tuple(self.blobs)[1:]

    @property
    def digest(self) -> Digest:
        """Of the manifest or index."""
        return digest_of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """Of the manifest or index, with its platform."""
        return Descriptor(self.media_type, self.digest, len(self.raw), platform=self.platform)

    def write(self, sink: ImageSink, *, by_name: bool = True) -> None:
        """Put everything into `sink`, which stays open."""
        for child in self.children:
            child.write(sink, by_name=False)
        for descriptor, data in self.blobs.items():
            sink.put_blob(descriptor, data, what="blob")
        sink.put_manifest(self.raw, self.media_type, by_name=by_name)

    def push(self, reference: str, options: transport.TransportOptions | None = None) -> str:
        """Put it into a registry; the name of the image there, with its transport.

        Args:
            reference: such as `127.0.0.1:5000/team/app:v1`.
            options: how to reach the registry.

        Raises:
            RemoteError: the registry did not take it.
        """
        name = f"docker://{reference}"
        with transport.open_sink(transport.parse_image_name(name), options) as sink:
            self.write(sink)
        return name

    def save(self, layout: Path, tag: str = "v1") -> str:
        """Write a new OCI layout; the name of the image there, with its transport.

        By hand and without any check, because what it says may be wrong.
        """
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        left = [self]
        while left:
            image = left.pop()
            left += image.children
            for data in (image.raw, *image.blobs.values()):
                (blobs / digest_of(data).hex).write_bytes(data)
        named = {"annotations": {"org.opencontainers.image.ref.name": tag}}
        entry = Descriptor(self.media_type, self.digest, len(self.raw)).to_json() | named
        index = {"schemaVersion": 2, "manifests": [entry]}
        (layout / "index.json").write_text(json.dumps(index))
        (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        return f"oci:{layout}:{tag}"


def make_image(
    *layers: SmallLayer | bytes,
    platform: Platform = _AMD64,
    config: Mapping[str, object] | bytes | None = None,
    manifest: Mapping[str, object] | bytes | None = None,
    docker: bool = False,
) -> SmallImage:
    """An image of `layers`, from the base up.

    Args:
        layers: a tar becomes a layer with gzip.
        config: members besides the usual ones, or in their place; `...` leaves one away. Bytes
            are the whole config.
        manifest: the same for the manifest.
        docker: with the media types of Docker's manifest and config, not OCI's.
    """
    made = [make_layer(one) if isinstance(one, bytes) else one for one in layers]
    usual = {
        "os": platform.os,
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(one.diff_id) for one in made]},
    }
    config_raw = _document(usual, config)
    config_type = DOCKER_CONFIG if docker else OCI_CONFIG
    config_descriptor = Descriptor(config_type, digest_of(config_raw), len(config_raw))
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    raw = _document(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config_descriptor.to_json(),
            "layers": [one.descriptor.to_json() for one in made],
        },
        manifest,
    )
    blobs = {config_descriptor: config_raw, **{one.descriptor: one.stored for one in made}}
    return SmallImage(raw, media_type, blobs, platform)


def make_index(
    *images: SmallImage | Descriptor,
    media_type: str = OCI_INDEX,
    index: Mapping[str, object] | bytes | None = None,
) -> SmallImage:
    """An index of `images`.

    Args:
        images: a descriptor is an entry for what is not there.
        index: members besides the usual ones, as for `make_image`.
    """
    entries = [one if isinstance(one, Descriptor) else one.descriptor for one in images]
    usual = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [one.to_json() for one in entries],
    }
    children = tuple(one for one in images if isinstance(one, SmallImage))
    return SmallImage(_document(usual, index), media_type, {}, None, children)


def _document(usual: Mapping[str, object], other: Mapping[str, object] | bytes | None) -> bytes:
    if isinstance(other, bytes):
        return other
    members = {**usual, **(other or {})}
    # Indented as nobody writes it: whoever makes the document anew and does not copy its bytes
    # gets another digest.
    return json.dumps({k: v for k, v in members.items() if v is not ...}, indent=3).encode()
