# SPDX-License-Identifier: Apache-2.0
"""What refers to an image, copied with it: referrers, and cosign's tags.

    count = copy_referrers(source, sink, digests, put)

A registry lists referrers; a layout and an archive keep the same list as an entry named by
the tag schema. A list is somebody's word: what it names goes along only if it says itself
that it refers to the image, and the list that is written is made of what was copied.

cosign's tags are `sha256-HEX.sig`, `.att` and `.sbom`; signatures and attestations of others
that are at the destination already are not lost. All is written before the image's own
name, so that what has a name is complete.

Bounds: 1024 referrers of one manifest, 4096 in all, 3 deep.

Spec: OCI distribution-spec v1.1, "Referrers Tag Schema"; cosign v2, SIGNATURE_SPEC.md.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imagers.errors import FormatError, NotFound, SizeMismatch, Unsupported
from imagers.model.digest import check_digest
from imagers.model.manifest import Index, Manifest, parse_index, parse_manifest_or_index
from imagers.model.media import OCI_INDEX
from imagers.model.strict_json import dump_json
from imagers.registry.referrers import MAX_REFERRERS, referrer_of, referrers_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.image import ImageSink, ImageSource
    from imagers.model.manifest import RawManifest

__all__ = [
    "ListingSink",
    "ReferrerSource",
    "TagSink",
    "TagSource",
    "copy_referrers",
    "read_referrers_of",
]

_SUFFIXES = (".sig", ".att", ".sbom")
_GROWING = (".sig", ".att")  # whoever signs or attests adds to what is there
_MAX_DEPTH = 3  # of what refers to what refers to an image
_MAX_COUNT = 4096  # referrers in one copy: each costs some requests


@runtime_checkable
class TagSource(Protocol):
    """A source that has other names than its own."""

    def read_tag(self, tag: str) -> RawManifest:
        """The manifest or index of this name; `NotFound` if there is none."""


@runtime_checkable
class ReferrerSource(Protocol):
    """A source that knows what refers to a manifest."""

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """Entries of all that says so; none is verified."""


@runtime_checkable
class TagSink(Protocol):
    """A sink that takes other names than its own."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `ImageSink`."""

    def put_manifest_as(self, raw: bytes, media_type: str, tag: str) -> None:
        """Like `put_manifest`, by this name."""


@runtime_checkable
class ListingSink(Protocol):
    """A sink that keeps lists of referrers by itself: a registry's."""

    @property
    def lists_referrers(self) -> bool:
        """True."""


def read_referrers_of(source: ImageSource, digest: Digest) -> tuple[Descriptor, ...]:
    """What refers to a manifest, from a registry or from the entry of a layout.

    Raises:
        RemoteError, LocalError: it could not be looked for.
        Unsupported: such a source has no referrers.
    """
    if isinstance(source, ReferrerSource):
        return source.referrers(digest)
    if not isinstance(source, TagSource):
        raise Unsupported(
            f"{source.name}: such a place has no referrers and no other names",
            hint="registries, OCI layouts and their archives have",
        )
    try:
        answer = source.read_tag(referrers_tag(digest))
    except NotFound:
        return ()
    return parse_index(answer.raw, media_type=answer.media_type).manifests


def copy_referrers(
    source: ImageSource,
    sink: ImageSink,
    digests: Iterable[Digest],
    put: Callable[[Manifest | Index, str | None], None],
) -> int:
    """Copy what refers to the manifests of `digests`; how many manifests that were.

    Args:
        put: copies a manifest with its blobs; under a tag, or None: under its digest only.

    Raises:
        Unsupported: the sink takes no names but its own.
    """
    if not isinstance(sink, TagSink):
        raise Unsupported(
            f"{sink.name}: such a place has no room for signatures and referrers",
            hint="leave out --with-referrers, or write to docker://, oci: or oci-archive:",
        )
    work = _Referrers(source, sink, put)
    for digest in digests:
        work.copy_of(digest, 0)
    return work.count


class _Referrers:
    def __init__(
        self,
        source: ImageSource,
        sink: TagSink,
        put: Callable[[Manifest | Index, str | None], None],
    ) -> None:
        self._source = source
        self._sink = sink
        self._put = put
        self._seen: set[Digest] = set()
        self.count = 0

    def copy_of(self, digest: Digest, depth: int) -> None:
        if digest in self._seen:
            return
        self._seen.add(digest)
        entries = read_referrers_of(self._source, digest)
        if len(entries) > MAX_REFERRERS:
            raise FormatError(f"expected at most {MAX_REFERRERS} referrers", what=self._source.name)
        if entries and depth == _MAX_DEPTH:
            raise FormatError(
                f"expected referrers of referrers at most {_MAX_DEPTH} deep",
                what=self._source.name,
                hint="leave out --with-referrers to copy the image alone",
            )
        copied = [one for entry in entries if (one := self._copy_referrer(entry, digest, depth))]
        # A registry's sink brings a manifest with a subject into the list by itself.
        if copied and not isinstance(self._sink, ListingSink):
            self._put_list(digest, copied)
        if isinstance(self._source, TagSource):
            self._copy_tags(self._source, digest)

    def _copy_referrer(self, entry: Descriptor, subject: Digest, depth: int) -> Descriptor | None:
        """The entry of a manifest that was copied, None if it is no referrer."""
        name = self._source.name
        what = f"{name}: referrer {entry.digest}"
        try:
            answer = self._source.read_manifest(entry.digest)
        except NotFound as error:
            raise NotFound(
                f"{what} is listed, but not there",
                status=error.status,
                code=error.code,
                hint="leave out --with-referrers to copy the image alone",
            ) from error
        check_digest(answer.raw, entry.digest, what=what)
        if len(answer.raw) != entry.size:
            raise SizeMismatch(expected=entry.size, actual=len(answer.raw), what=what)
        document = parse_manifest_or_index(answer.raw, media_type=entry.media_type)
        if document.subject is None or document.subject.digest != subject:
            return None
        self.count += 1
        if self.count > _MAX_COUNT:
            raise FormatError(f"expected at most {_MAX_COUNT} referrers in all", what=name)
        self.copy_of(entry.digest, depth + 1)
        self._put(document, None)
        return referrer_of(document)

    def _put_list(self, subject: Digest, copied: list[Descriptor]) -> None:
        """The list of a place that has none by itself, with what it lists already."""
        tag = referrers_tag(subject)
        kept: list[Descriptor] = []
        if isinstance(self._sink, TagSource):
            with suppress(NotFound):
                answer = self._sink.read_tag(tag)
                there = parse_index(answer.raw, media_type=answer.media_type).manifests
                kept = [one for one in there if self._sink.has_blob(one)]
        new = {one.digest for one in copied}
        entries = [*(one for one in kept if one.digest not in new), *copied]
        if len(entries) > MAX_REFERRERS:
            raise FormatError(f"expected at most {MAX_REFERRERS} referrers", what=tag)
        listed = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [entry.to_json() for entry in entries],
        }
        self._sink.put_manifest_as(dump_json(listed), OCI_INDEX, tag)

    def _copy_tags(self, source: TagSource, digest: Digest) -> None:
        for suffix in _SUFFIXES:
            tag = f"{digest.algorithm}-{digest.hex}{suffix}"
            try:
                answer = source.read_tag(tag)
            except NotFound:
                continue
            document = parse_manifest_or_index(answer.raw, media_type=answer.media_type)
            if suffix not in _GROWING or not self._is_there(document, tag):
                self._put(document, tag)
            self.count += 1

    def _is_there(self, document: Manifest | Index, tag: str) -> bool:
        """Whether the sink has all that is in `document` under the tag.

        Raises:
            Unsupported: it has other signatures, which would be lost.
        """
        if not isinstance(self._sink, TagSource):
            return False
        try:
            answer = self._sink.read_tag(tag)
        except NotFound:
            return False
        there = parse_manifest_or_index(answer.raw, media_type=answer.media_type)
        new, old = _parts_of(document), _parts_of(there)
        if not old <= new and not new <= old:
            raise Unsupported(
                f"tag '{tag}' holds {len(old - new)} of {len(old)} that '{self._source.name}' "
                "lacks: a copy would lose them",
                hint="copy without --with-referrers and sign again where the image is now",
            )
        return new <= old


def _parts_of(document: Manifest | Index) -> set[tuple[Digest, frozenset[tuple[str, str]]]]:
    """What a tag of cosign holds: a layer is a signature, with what is said of it."""
    parts = document.layers if isinstance(document, Manifest) else document.manifests
    return {(one.digest, frozenset(one.annotations.items())) for one in parts}
