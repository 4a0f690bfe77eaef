# SPDX-License-Identifier: Apache-2.0
"""Copying an image between transports: bytes and digests stay as they are.

    report = copy_image(source, sink, platform=Platform("linux", "arm64"))
    report.digest

Every blob is held against its descriptor while it is copied, and becomes part of the sink
only after that; the manifest follows its blobs, the named one is last.

Nothing else is verified: a copy of an image that nobody should trust is no better.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imagers.core import Cancellation, OnProgress, Watch, run_together
from imagers.errors import FormatError
from imagers.model.descriptor import Platform
from imagers.model.digest import Digest
from imagers.model.image import ImageSink, ImageSource, read_config, read_entry, stays_behind
from imagers.model.manifest import (
    Index,
    Manifest,
    RawManifest,
    check_platform,
    parse_manifest_or_index,
)
from imagers.transport.blobs import Way, bring_blob
from imagers.transport.referrers import TagSink, copy_referrers
from imagers.transport.resolve import this_platform

if TYPE_CHECKING:
    from imagers.model.descriptor import Descriptor

__all__ = [
    "ChoosySink",
    "CopyReport",
    "copy_image",
]

_MAX_NESTING = 3  # of indexes in indexes


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
        mounted: of `blobs`, those that the registry took from another repository of its own.
        referrers: manifests of signatures and other referrers that were copied with it.
        foreign: layers that stay where their URLs say, and were not copied.
    """

    digest: Digest
    media_type: str
    blobs: int
    size: int
    skipped: int
    mounted: int = 0
    referrers: int = 0
    foreign: int = 0


def copy_image(
    source: ImageSource,
    sink: ImageSink,
    *,
    top: RawManifest | None = None,
    platform: Platform | None = None,
    all_platforms: bool = False,
    with_referrers: bool = False,
    jobs: int = 1,
    on_size: Callable[[int], None] | None = None,
    on_progress: OnProgress | None = None,
    cancellation: Cancellation | None = None,
) -> CopyReport:
    """Copy what `source` names to the name of `sink`.

    Args:
        top: what the name of `source` means, where somebody has read and judged it; None: it
            is read now.
        platform: which image of an index; None: that of this machine. An image that is in
            no index is copied whatever it is for.
        all_platforms: the index with all its images, whatever `platform` says.
        with_referrers: and what refers to it, and cosign's tags: signatures, attestations.
        jobs: blobs on the way at the same time.
        on_size: told of each image, and of each referrer, how many bytes its blobs have.
        on_progress: told how far each blob is, in the thread that copies it.
        cancellation: ends the work from elsewhere.

    Raises:
        NotFound: an index without the platform, or the source lacks something.
        VerificationError: the only image of an index is for another platform.
        IntegrityError: bytes are not what their descriptor says; the sink has no such name.
        RemoteError, LocalError: a side failed.
        Cancelled: `cancellation` was; the sink has no such name.
    """
    answer = source.read_manifest() if top is None else top
    document = parse_manifest_or_index(answer.raw, media_type=answer.media_type)
    if isinstance(document, Index) and not all_platforms:
        wanted = platform or this_platform()
        entry = document.require_platform(wanted, what=source.name)
        document = read_entry(source, entry)
        if entry.platform is None and isinstance(document, Manifest):
            check_platform(read_config(document, source), wanted)  # the index does not say it
    if isinstance(sink, ChoosySink):
        sink.check_image(document)
    referrers = 0
    work = _Copy(source, sink, jobs, _News(on_size, on_progress), cancellation)
    if with_referrers:
        referrers = copy_referrers(source, sink, _digests_of(document), work.copy_as)
        # The report is about the image.
        work.forget()
    work.copy(document, by_name=True)
    return CopyReport(
        digest=document.descriptor.digest,
        media_type=document.descriptor.media_type,
        blobs=len(work.seen),
        size=work.size,
        skipped=work.ways[Way.THERE],
        mounted=work.ways[Way.MOUNTED],
        referrers=referrers,
        foreign=work.foreign,
    )


def _digests_of(document: Manifest | Index) -> list[Digest]:
    """The manifests that signatures and referrers may be about: the index and its entries."""
    found = [document.descriptor.digest]
    if isinstance(document, Index):
        found += [entry.digest for entry in document.manifests]
    return found


@dataclass(frozen=True, slots=True)
class _News:
    """Who is told what; `of` says whose blobs they are, where there are several images."""

    on_size: Callable[[int], None] | None
    on_progress: OnProgress | None
    of: str = ""

    def tell_size(self, size: int) -> None:
        if self.on_size is not None:
            self.on_size(size)

    def watch(self, what: str, size: int) -> Watch:
        return Watch(self.on_progress, self.of + what, size)


class _Copy:
    """One copy on its way."""

    def __init__(
        self,
        source: ImageSource,
        sink: ImageSink,
        jobs: int,
        news: _News,
        cancellation: Cancellation | None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._jobs = jobs
        self._news = news
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self.seen: set[tuple[Digest, int]] = set()
        # Of indexes: each once, however many paths lead to it through those that are nested.
        self._children: set[tuple[Digest, int, str]] = set()
        self.ways: Counter[Way] = Counter()
        self.size = 0
        self.foreign = 0

    def forget(self) -> None:
        """Count anew."""
        self.seen.clear()
        self._children.clear()
        self.ways.clear()
        self.size = self.foreign = 0

    def copy_as(self, document: Manifest | Index, tag: str | None) -> None:
        """`document`, a referrer, and all that it names, under a tag or only its digest."""
        news = replace(self._news, of="referrer: ")
        if tag is None:
            self.copy(document, by_name=False, news=news)
            return
        assert isinstance(self._sink, TagSink)  # asked before
        self._copy_parts(document, 0, news)
        self._sink.put_manifest_as(document.raw, document.descriptor.media_type, tag)

    def copy(
        self,
        document: Manifest | Index,
        *,
        by_name: bool,
        depth: int = 0,
        digest: Digest | None = None,
        news: _News | None = None,
    ) -> None:
        """`document` and all that it names, itself last."""
        self._copy_parts(document, depth, news or self._news)
        media_type = document.descriptor.media_type
        self._sink.put_manifest(document.raw, media_type, by_name=by_name, digest=digest)

    def _copy_parts(self, document: Manifest | Index, depth: int, news: _News) -> None:
        if isinstance(document, Index):
            if depth == _MAX_NESTING:
                raise FormatError(
                    f"expected indexes nested at most {_MAX_NESTING} deep", what=self._source.name
                )
            for entry in document.manifests:
                key = (entry.digest, entry.size, entry.media_type)
                if key in self._children:
                    continue
                self._children.add(key)
                child = read_entry(self._source, entry)
                of = news if entry.platform is None else replace(news, of=f"{entry.platform} ")
                self.copy(child, by_name=False, depth=depth + 1, digest=entry.digest, news=of)
            return
        count = len(document.layers)
        parts = [(document.config, "config")]
        for at, layer in enumerate(document.layers, 1):
            if stays_behind(layer, self._sink):
                self.foreign += 1
            else:
                parts.append((layer, f"layer {at} of {count}"))
        fresh = [part for part in parts if (part[0].digest, part[0].size) not in self.seen]
        unique = {(part[0].digest, part[0].size): part for part in reversed(fresh)}
        self.seen |= unique.keys()
        news.tell_size(sum(size for _, size in unique))
        # Several at a time; the first error ends it.
        run_together(
            [partial(self._copy_blob, *part, news) for part in reversed(unique.values())],
            jobs=self._jobs,
            cancellation=self._cancellation,
        )

    def _copy_blob(
        self, descriptor: Descriptor, what: str, news: _News, stop: Cancellation
    ) -> None:
        with news.watch(what, descriptor.size) as watch:
            way = bring_blob(
                descriptor, self._source, self._sink, what=what, stop=stop, watch=watch
            )
        with self._lock:
            self.ways[way] += 1
            if way is Way.MOVED:
                self.size += descriptor.size
