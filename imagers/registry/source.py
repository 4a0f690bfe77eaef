# SPDX-License-Identifier: Apache-2.0
"""A repository of a registry as the source of images.

    source = RegistrySource(reference, client, name="docker://127.0.0.1:5000/app:v1")
    raw = source.read_manifest()

Digests are computed from the bytes that came; what the registry says about them in
`Docker-Content-Digest` is never believed.

Spec: OCI distribution-spec v1.1, "Pulling manifests", "Pulling blobs".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import NotFound, RemoteError, SizeMismatch
from imagers.model.closing import Closing
from imagers.model.digest import check_digest, digest_of
from imagers.model.manifest import MAX_MANIFEST_BYTES, RawManifest
from imagers.model.media import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from imagers.model.stream import CheckedStream
from imagers.net.http import content_encoding
from imagers.net.urls import parse_origin
from imagers.registry.answers import PAGE, check_json, media_type_of
from imagers.registry.ranges import RangedStream, Ranges, Room
from imagers.registry.referrers import read_referrers
from imagers.registry.resume import PARTIAL, Patience, ResumingStream, check_range

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.image import ImageSource, ResumableSource
    from imagers.model.reference import Reference
    from imagers.model.stream import ByteStream, RawStream
    from imagers.net.stream import ResponseStream
    from imagers.registry.client import RegistryClient
    from imagers.registry.resume import Opener

__all__ = ["ACCEPT", "RegistrySource"]

ACCEPT = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_INDEX}"
_FOUND = (200,)
_FOUND_PART = (200, PARTIAL)
_NO_RANGES = (PARTIAL, 416)  # another part than was asked for; there is no such part


class RegistrySource(Closing):
    """An `ImageSource` over one repository.

    Args:
        reference: which image of it `read_manifest` means.
        client: of the same repository; owned by this object afterwards.
        name: as the user wrote it, with its transport.
        ranges: whether big blobs come over several connections; None: over one.

    Threads: safe.
    """

    def __init__(
        self,
        reference: Reference,
        client: RegistryClient,
        *,
        name: str,
        ranges: Ranges | None = None,
    ) -> None:
        self.reference = reference
        self._client = client
        self._name = name
        self._ranges = ranges or Ranges()
        self._room = Room(self._ranges.max_parts)

    @property
    def name(self) -> str:
        """See `ImageSource`."""
        return self._name

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        """See `ImageSource`."""
        reference = self.reference if digest is None else self.reference.with_digest(digest)
        return self._read_manifest(reference)

    def read_tag(self, tag: str) -> RawManifest:
        """The manifest of another tag of the repository, such as one with signatures.

        Raises:
            NotFound: there is no such tag: the registry was asked, and said so.
            RemoteError: it could not be asked.
        """
        return self._read_manifest(self.reference.with_tag(tag))

    def referrers(
        self, digest: Digest, *, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """The manifests of the repository that say they refer to `digest`; none is verified.

        Args:
            artifact_type: only entries of this type; filtered here, whatever the server does.

        Raises:
            FormatError: the list is none, or beyond a bound.
            RemoteError: it could not be asked; an empty result says that there are none.
        """
        found = read_referrers(self._client, digest)
        return tuple(one for one in found if artifact_type in (None, one.artifact_type))

    def open_blob(self, descriptor: Descriptor, *, what: str) -> ByteStream:
        """See `BlobSource`; a size that the registry announces is compared at once."""
        return CheckedStream(self.open_raw_blob(descriptor, what=what), descriptor, what=what)

    def open_raw_blob(self, descriptor: Descriptor, *, what: str) -> RawStream:
        """See `BlobSource`; a size that the registry announces is compared at once.

        A download that breaks off goes on at the next byte, a few times in a row; a big one
        comes over several connections, if that was asked for and there is room.
        """
        return self.open_raw_blob_from(0, descriptor, what=what)

    def open_raw_blob_from(self, first: int, descriptor: Descriptor, *, what: str) -> RawStream:
        """See `ResumableSource`; where ranges are not known, or wrong, the beginning is read over.

        Over one connection it is asked for when it is read.
        """
        # Once: a `MirroredSource` may choose another place while this one is read.
        client = self._client
        http = client.http
        target, size = f"blobs/{descriptor.digest}", descriptor.size

        def again(first: int, last: int | None = None) -> ResponseStream:
            span = {"Range": f"bytes={first}-{'' if last is None else last}"}
            return client.open(
                target, doing=what, expected=_FOUND_PART, headers=span, repeatable=False
            )

        def again_or_whole(first: int, last: int | None = None) -> ResponseStream:
            """As `again`; where the registry refuses ranges, or gives other ones, the whole."""
            try:
                stream = again(first, last)
                if stream.status == PARTIAL:
                    _check_rest(stream, first=first, size=size, what=what)
            except RemoteError as error:
                if error.status not in _NO_RANGES:
                    raise
                return client.open(target, doing=what, expected=_FOUND, repeatable=False)
            return stream

        def patience(pause: Callable[[float], None]) -> Patience:
            return Patience(http.settings.retry, pause)

        def alone(
            first: int, stream: ResponseStream | None = None, *, again: Opener = again
        ) -> ResumingStream:
            return ResumingStream(
                stream,
                size,
                what=what,
                again=again,
                patience=patience(http.pause),
                first=first,
            )

        def ranged(stream: ResponseStream | None, lanes: int) -> RangedStream:
            return RangedStream(
                stream,
                size,
                lanes=lanes,
                part_bytes=self._ranges.part_bytes,
                what=what,
                room=self._room,
                again=again,
                patience=patience,
                alone=alone,
                first=first,
            )

        lanes = self._room.take(self._ranges.lanes(size - first))
        if first:
            return ranged(None, lanes) if lanes else alone(first, again=again_or_whole)
        span = {"Range": f"bytes=0-{self._ranges.part_bytes - 1}"} if lanes else {}
        expected = _FOUND_PART if lanes else _FOUND
        try:
            stream = client.open(target, doing=what, expected=expected, headers=span)
        except BaseException:
            self._room.give_back(lanes)
            raise
        if stream.status == PARTIAL:
            return ranged(stream, lanes)
        self._room.give_back(lanes)
        if stream.length is not None and stream.length != size:
            stream.close()
            raise SizeMismatch(
                expected=size,
                actual=stream.length,
                what=what,
                hint=_hint_of_size(stream),
            )
        return alone(0, stream)

    def close(self) -> None:
        """See `ImageSource`."""
        self._client.close()

    def _read_manifest(self, reference: Reference) -> RawManifest:
        try:
            answer = self._client.request(
                "GET",
                f"manifests/{reference.target}",
                doing="manifest",
                headers={"Accept": ACCEPT},
                max_bytes=MAX_MANIFEST_BYTES,
                expected=_FOUND,
            )
        except NotFound as error:
            if error.code == PAGE:
                raise
            raise NotFound(
                f"{reference}: the registry has no such image",
                status=error.status,
                code=error.code,
                hint=error.hint,
            ) from error
        check_json(answer, doing="manifest", name=str(reference))
        digest = reference.digest
        if digest is None:
            digest = digest_of(answer.body)
        else:
            check_digest(answer.body, digest, what=f"{reference.name}: manifest")
        return RawManifest(answer.body, media_type_of(answer.headers), digest)


def _check_rest(stream: ResponseStream, *, first: int, size: int, what: str) -> None:
    """Close the stream and raise, as `check_range`, unless it has all from `first` on."""
    try:
        check_range(stream, first=first, last=size - 1, size=size, what=what)
    except BaseException:
        stream.close()
        raise


def _hint_of_size(stream: ResponseStream) -> str | None:
    """What the headers say of an answer that has another size than its blob."""
    where = parse_origin(stream.url)
    if encoding := content_encoding(stream.headers):
        return (
            f"{where} says content encoding {encoding!r}: a proxy that packs answers has to leave "
            "these as they are"
        )
    if media_type_of(stream.headers) == "text/html":
        return f"{where} answered with a page: open the address in a browser"
    return None


if TYPE_CHECKING:
    # What it promises, checked by mypy.
    _source: type[ImageSource] = RegistrySource
    _resumable: type[ResumableSource] = RegistrySource
