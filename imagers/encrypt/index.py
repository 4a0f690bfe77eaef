# SPDX-License-Identifier: Apache-2.0
"""All images of an index: each is rewritten, layers that they share once, the index last.

    shared = SharedLayers()
    rewrite_index(source, sink, lambda image: encrypt_image(
        image, sink, wrappers, shared=shared, by_name=False, allow_nothing=True))

The index keeps everything but digests, sizes and types of its entries. What is no image of
a platform, such as the attestations that buildx writes and other artifacts, is left out: it
speaks of digests that the new index does not have, and tells in the clear what is in layers.

Spec: OCI image-spec v1.1, image-index.md.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.errors import FormatError, UsageError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.image import load_image, read_entry
from imagers.model.manifest import Index, check_platform, parse_manifest_or_index
from imagers.model.media import DOCKER_INDEX, OCI_INDEX
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.encrypt.rewrite import RewrittenImage
    from imagers.model.digest import Digest
    from imagers.model.image import Image, ImageSink, ImageSource
    from imagers.model.manifest import RawManifest

__all__ = ["LeftOutEntry", "RewrittenIndex", "rewrite_index"]

_MAX_NESTING = 3  # of indexes in indexes


@dataclass(frozen=True, slots=True)
class LeftOutEntry:
    """An entry of an index that is no image of a platform, and is not in the new one.

    Attributes:
        descriptor: of the entry.
        artifact_type: what it calls itself, or its manifest does; "" if neither says.
        subject: the manifest of the old index that it says it is about.
        platform: of that image; "" where nothing says.
    """

    descriptor: Descriptor
    artifact_type: str
    subject: Digest | None
    platform: str


@dataclass(frozen=True, slots=True)
class RewrittenIndex:
    """An index that is in its sink.

    Attributes:
        raw: byte for byte.
        descriptor: of it.
        images: the platform of each, and what was done to it, in the order of the index.
        left_out: entries that were no image of a platform.
        was_docker: whether a Docker manifest or index became an OCI one.
    """

    raw: bytes = field(repr=False)
    descriptor: Descriptor
    images: tuple[tuple[str, RewrittenImage], ...]
    left_out: tuple[LeftOutEntry, ...]
    was_docker: bool


def rewrite_index(
    source: ImageSource,
    sink: ImageSink,
    change: Callable[[Image], RewrittenImage],
    *,
    top: RawManifest | None = None,
    check: Callable[[tuple[RewrittenImage, ...]], None] | None = None,
) -> RewrittenIndex:
    """Write what `source` names into `sink`, each of its images by `change`.

    Args:
        change: writes one image, without a name.
        top: as for `imagers.transport.copy.copy_image`.
        check: is called with all of them before the index gets its name.

    Raises:
        UsageError: the source names no index, or one without images.
        FormatError, IntegrityError: the index, or a manifest in it, is not what it should be.
        VerificationError: an image is for another platform than its entry says.
        What `change` and `check` raise.
    """
    answer = source.read_manifest() if top is None else top
    document = parse_manifest_or_index(answer.raw, media_type=answer.media_type)
    if not isinstance(document, Index):
        raise UsageError(f"{source.name}: is one image and no index", hint="leave --all away")
    work = _Rewrite(source, sink, change)
    raw, media_type = work.rewrite(document, depth=0)
    if not work.images:
        raise UsageError(f"{source.name}: the index holds no image of a platform")
    if check is not None:
        check(tuple(image for _, image in work.images))
    sink.put_manifest(raw, media_type, by_name=True)
    return RewrittenIndex(
        raw,
        Descriptor(media_type, digest_of(raw), len(raw)),
        tuple(work.images),
        tuple(work.left_out),
        work.was_docker,
    )


class _Rewrite:
    """One index on its way."""

    def __init__(
        self, source: ImageSource, sink: ImageSink, change: Callable[[Image], RewrittenImage]
    ) -> None:
        self._source = source
        self._sink = sink
        self._change = change
        self._done: dict[tuple[Digest, int, str], Descriptor] = {}
        self.images: list[tuple[str, RewrittenImage]] = []
        self.left_out: list[LeftOutEntry] = []
        self.was_docker = False

    def rewrite(self, index: Index, *, depth: int) -> tuple[bytes, str]:
        """The new index, not written yet: bytes and media type."""
        if depth == _MAX_NESTING:
            raise FormatError(
                f"expected indexes nested at most {_MAX_NESTING} deep", what=self._source.name
            )
        document = copy.deepcopy(index.document)
        entries = document.get("manifests") or []
        assert isinstance(entries, list)  # parsed as an index before
        kept = []
        for entry, value in zip(index.manifests, entries, strict=True):
            assert isinstance(value, dict)
            new = entry.artifact_kind if entry.is_artifact else self._rewrite_entry(entry, depth)
            if isinstance(new, str):
                self.left_out.append(_left_out(entry, new, index))
                continue
            value["mediaType"] = new.media_type
            value["digest"] = str(new.digest)
            value["size"] = new.size
            if new.digest != entry.digest:
                value.pop("data", None)  # the old bytes
                value.pop("urls", None)
            kept.append(value)
        if entries:
            document["manifests"] = list(kept)
        if index.descriptor.media_type == DOCKER_INDEX:
            self.was_docker = True
            document["mediaType"] = OCI_INDEX
            return dump_json(document), OCI_INDEX
        if document == index.document:
            return index.raw, index.descriptor.media_type
        return dump_json(document), index.descriptor.media_type

    def _rewrite_entry(self, entry: Descriptor, depth: int) -> Descriptor | str:
        """What became of an image or an index; the type of what turns out to be neither."""
        # An index is done once, however many paths lead to it through those that it is nested in.
        if (known := self._done.get((entry.digest, entry.size, entry.media_type))) is not None:
            return known
        document = read_entry(self._source, entry)
        if isinstance(document, Index):
            raw, media_type = self.rewrite(document, depth=depth + 1)
            self._sink.put_manifest(raw, media_type, by_name=False)
            descriptor = Descriptor(media_type, digest_of(raw), len(raw))
            self._done[entry.digest, entry.size, entry.media_type] = descriptor
            return descriptor
        if document.is_artifact:
            return document.artifact_type or document.config.media_type
        image = load_image(document, self._source)
        if entry.platform is not None:
            check_platform(image.config, entry.platform, entry=entry.platform)
        changed = self._change(image)
        self.was_docker = self.was_docker or changed.was_docker
        self.images.append((str(entry.platform or image.config.platform), changed))
        return changed.descriptor


def _left_out(entry: Descriptor, kind: str, index: Index) -> LeftOutEntry:
    platforms = {one.digest: one.platform for one in index.manifests if not one.is_artifact}
    platform = entry.attested and platforms.get(entry.attested)
    return LeftOutEntry(entry, kind, entry.attested, str(platform) if platform else "")
