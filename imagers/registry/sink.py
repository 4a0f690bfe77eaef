# SPDX-License-Identifier: Apache-2.0
"""A repository of a registry as the place that images are written to.

    sink = RegistrySink(reference, client, name="docker://127.0.0.1:5000/app:v1")
    with sink.stage_blob() as staged:
        ...                                        # write to staged.fileno()
        staged.commit(descriptor, what="layer 1 of 3")
    sink.put_manifest(raw, media_type, by_name=True)

Every attempt of an upload sends the same bytes: a blob is spooled whole before it, or it is in a
file of the source, which is read again; its digest is then taken of the very bytes that are sent,
and the last of them go after it was compared. Manifests go byte for byte, with their own media
type.

Spec: OCI distribution-spec v1.1, "Pushing blobs" (POST then PUT; in chunks where a proxy has a
limit), "Mounting a blob from another repository", "Pushing manifests".
"""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from imagers.errors import DigestMismatch, ImagersError, NotFound, RemoteError, SizeMismatch
from imagers.model.closing import Closing
from imagers.model.digest import check_digest, digest_of, parse_digest
from imagers.model.image import StagedFileBlob
from imagers.model.manifest import parse_manifest_or_index
from imagers.model.reference import Reference
from imagers.net.http import FileBody, PieceBody
from imagers.net.urls import join_url
from imagers.registry.answers import DONE, OTHER_FORM
from imagers.registry.referrers import add_to_referrers_tag, referrer_of
from imagers.registry.source import RegistrySource
from imagers.registry.spool import Reread, SpoolFile

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.image import ImageSink, StagedBlob
    from imagers.model.manifest import RawManifest
    from imagers.model.stream import RawStream
    from imagers.net.http import Response
    from imagers.registry.client import RegistryClient

__all__ = ["RegistrySink"]

_log = logging.getLogger(__name__)
_UPLOADS = 3  # whole uploads of one blob, each a new session
_FOUND = (200,)
_MOUNTED_OR_NOT = (201, 202)
_UNAUTHORIZED = 401  # the login is not believed, and will not be for the blob
_TOO_LARGE = 413
# Bytes of a request where whole blobs are too large for a proxy: under the limits that are
# usual there (100 MB, 10 MB, nginx's 1 MB).
_CHUNKS = (64 * 1024 * 1024, 8 * 1024 * 1024, 1000 * 1000)
_ALL_AT_ONCE = sys.maxsize  # bytes of a request: one PATCH, where a PUT may not have a body


class RegistrySink(Closing):
    """An `ImageSink` into one repository.

    Args:
        reference: the name that the image gets.
        client: of the same repository, for `pull,push`; owned by this object afterwards.
        name: as the user wrote it, with its transport.
        spool_directory: for blobs that wait for their upload.

    Threads: safe.
    """

    def __init__(
        self,
        reference: Reference,
        client: RegistryClient,
        *,
        name: str,
        spool_directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self.reference = reference
        self._client = client
        self._name = name
        self._spool_directory = spool_directory
        self._known_missing: set[Digest] = set()
        self._mounts = True
        self._chunk_bytes: int | None = None  # of uploads in pieces; None: whole ones
        self._knows_form = False  # which of the two the registry takes

    @property
    def name(self) -> str:
        """See `ImageSink`."""
        return self._name

    @property
    def takes_references(self) -> bool:
        """See `ReferenceSink`."""
        return True

    @property
    def lists_referrers(self) -> bool:
        """A manifest with a subject comes into its list of referrers by itself."""
        return True

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `ImageSink`; the registry's word, which readers hold against the digest."""
        try:
            answer = self._client.request(
                "HEAD", f"blobs/{descriptor.digest}", doing="look for a blob", expected=_FOUND
            )
        except RemoteError as error:
            if error.status in (None, _UNAUTHORIZED):
                raise
            # The question only saves work: whoever may not ask it sends the blob.
            self._known_missing.add(descriptor.digest)
            return False
        return answer.headers.get("Content-Length", str(descriptor.size)) == str(descriptor.size)

    def try_mount(self, descriptor: Descriptor, source: object) -> bool:
        """Whether the registry took the blob from another repository of its own.

        Args:
            source: of the copy; only one in the same registry helps.

        A registry that will not is no error: the blob is sent then.
        """
        other = getattr(source, "reference", None)
        if (
            not isinstance(other, Reference)
            or other.registry != self.reference.registry
            or other.repository == self.reference.repository
            or not self._mounts
        ):
            return False
        try:
            answer = self._client.request(
                "POST",
                f"blobs/uploads/?mount={descriptor.digest}&from={other.repository}",
                doing="mount of a blob",
                expected=_MOUNTED_OR_NOT,
                repeatable=True,
                more_scope=f"repository:{other.repository}:pull",
            )
        except RemoteError as error:
            if error.status is None:
                raise
            self._mounts = False
            return False
        if answer.status == _MOUNTED_OR_NOT[0]:
            # Its size is still the registry's word, as for every blob that is not sent.
            return self.has_blob(descriptor)
        self._mounts = False  # it opened a session in place of it, as it may
        with suppress(RemoteError):
            self._cancel(self._session(answer, "mount of a blob"), "mount of a blob")
        return False

    def stage_blob(self) -> StagedBlob:
        """See `ImageSink`: a spool file, uploaded by `commit`."""
        return StagedFileBlob(SpoolFile(self._spool_directory), self._upload_spooled)

    def _upload_spooled(self, file: SpoolFile, descriptor: Descriptor, what: str) -> None:
        """A blob that the registry has already is not sent."""
        self.upload_missing(descriptor, FileBody(file.fileno(), descriptor.size), what=what)

    def put_blob(self, descriptor: Descriptor, data: bytes, *, what: str) -> None:
        """See `ImageSink`."""
        if len(data) != descriptor.size:
            raise SizeMismatch(expected=descriptor.size, actual=len(data), what=what)
        check_digest(data, descriptor.digest, what=what)
        self.upload_missing(descriptor, data, what=what)

    def send_blob(
        self, descriptor: Descriptor, open_raw: Callable[[], RawStream], *, what: str
    ) -> None:
        """A blob from where it is, checked while it is sent, without a spool file.

        Args:
            open_raw: opens it at its first byte; called for each attempt.

        Raises:
            IntegrityError: it is not what `descriptor` says; the registry did not get all of it.
            RemoteError: the registry did not take it. What `open_raw` raises passes.
        """
        self.upload_missing(descriptor, Reread(descriptor, open_raw, what=what), what=what)

    def put_manifest(
        self, raw: bytes, media_type: str, *, by_name: bool, digest: Digest | None = None
    ) -> None:
        """See `ImageSink`.

        Raises:
            DigestMismatch: the sink is named by a digest, and these are other bytes; or the
                registry says that it stored other bytes.
        """
        reference = self.reference
        if not by_name:
            reference = reference.with_digest(digest or digest_of(raw))
        self._put_manifest(raw, media_type, reference)

    def read_tag(self, tag: str) -> RawManifest:
        """As of `RegistrySource`: what another tag of the same repository is now."""
        return RegistrySource(self.reference, self._client, name=self.name).read_tag(tag)

    def put_manifest_as(self, raw: bytes, media_type: str, tag: str) -> None:
        """Like `put_manifest` by name, for another tag of the same repository."""
        self._put_manifest(raw, media_type, self.reference.with_tag(tag))

    def upload_missing(
        self, descriptor: Descriptor, body: bytes | FileBody | Reread, *, what: str
    ) -> None:
        """Send a blob that is not there yet, if need be more than once, always the same bytes.

        Raises:
            RemoteError: the registry did not take it.
            DigestMismatch: it says that it stored other bytes.
        """
        # Who has just asked need not ask again.
        if descriptor.digest not in self._known_missing and self.has_blob(descriptor):
            return
        self._known_missing.discard(descriptor.digest)
        for attempt in range(1, _UPLOADS + 1):
            try:
                self._upload_once(descriptor, body, what)
            except RemoteError as error:
                if attempt == _UPLOADS or not (error.temporary or isinstance(error, NotFound)):
                    raise
                _log.debug("uploads again, attempt %d of %d: %s", attempt + 1, _UPLOADS, error)
                # A lost session, or a lost answer to an upload that did arrive.
                if self.has_blob(descriptor):
                    return
            else:
                return

    def close(self) -> None:
        """See `ImageSink`."""
        self._client.close()

    def _upload_once(
        self, descriptor: Descriptor, blob: bytes | FileBody | Reread, what: str
    ) -> None:
        doing = f"upload of {what}"
        with ExitStack() as stack:
            body = PieceBody(descriptor.size, blob.pieces) if isinstance(blob, Reread) else blob
            if self._chunk_bytes is not None and isinstance(blob, Reread):
                # Its digest is one of all requests together.
                spool = stack.enter_context(SpoolFile(self._spool_directory))
                spool.write(blob.pieces())
                body = FileBody(spool.fileno(), descriptor.size)
            # Repeating it leaves at most a session without bytes, which registries clear away.
            opened = self._client.request(
                "POST", "blobs/uploads/", doing=doing, expected=DONE, repeatable=True
            )
            session = self._session(opened, doing)
            try:
                if self._chunk_bytes is not None and not isinstance(body, PieceBody):
                    session = self._send_chunks(session, body, descriptor.size, doing)
                    body = b""
                # Repeated from a new session and not into this one: see `upload_missing`.
                stored = self._client.request(
                    "PUT",
                    session + ("&" if "?" in session else "?") + f"digest={descriptor.digest}",
                    doing=doing,
                    headers={"Content-Type": "application/octet-stream"},
                    body=body,
                    expected=DONE,
                    repeatable=False,
                )
            except ImagersError as error:
                with suppress(RemoteError):
                    self._cancel(session, doing)
                status = error.status if isinstance(error, RemoteError) else None
                again = (status == _TOO_LARGE and self._fewer_bytes(descriptor.size)) or (
                    status in OTHER_FORM and self._other_form()
                )
                if not again:
                    raise
                stored = None
        if stored is None:
            self._upload_once(descriptor, blob, what)
            return
        if isinstance(blob, Reread) and not blob.complete:
            raise RemoteError(
                f"{self.reference}: {doing}: the registry said that it has all, "
                "before it was sent all",
                status=stored.status,
                hint="do not use what it has; this may be no registry",
            )
        self._check_told_digest(stored, descriptor.digest, what)

    def _send_chunks(self, session: str, body: bytes | FileBody, size: int, doing: str) -> str:
        """All bytes in pieces into a session; where the session is then."""
        assert self._chunk_bytes is not None  # only then
        for at in range(0, size, self._chunk_bytes):
            count = min(self._chunk_bytes, size - at)
            piece = (
                FileBody(body.fd, count, body.offset + at)
                if isinstance(body, FileBody)
                else body[at : at + count]
            )
            answer = self._client.request(
                "PATCH",
                session,
                doing=doing,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{at}-{at + count - 1}",
                },
                body=piece,
                expected=DONE,
                repeatable=False,
            )
            session = self._session(answer, doing)
        return session

    def _fewer_bytes(self, size: int) -> bool:
        """Whether smaller requests are left to try, after one was too large for somebody."""
        before = size if self._chunk_bytes is None else self._chunk_bytes
        smaller = [count for count in _CHUNKS if count < before]
        if smaller:
            self._chunk_bytes = smaller[0]
        return bool(smaller)

    def _other_form(self) -> bool:
        """Whether the other form of an upload is left to try: with a PATCH, or without."""
        if self._knows_form:
            return False
        self._knows_form = True
        self._chunk_bytes = _ALL_AT_ONCE if self._chunk_bytes is None else None
        return True

    def _cancel(self, session: str, doing: str) -> None:
        self._client.request(
            "DELETE", session, doing=doing, expected=range(200, 500), repeatable=False
        )

    def _session(self, opened: Response, doing: str) -> str:
        location = opened.headers.get("Location")
        if location is None:
            raise RemoteError(
                f"{self.reference}: {doing}: expected a Location header in the answer, got none",
                status=opened.status,
                hint="this may be no registry",
            )
        return join_url(opened.url, location)

    def _put_manifest(self, raw: bytes, media_type: str, reference: Reference) -> None:
        if reference.digest is not None:
            check_digest(raw, reference.digest, what=f"{reference.name}: manifest")
        stored = self._client.request(
            "PUT",
            f"manifests/{reference.target}",
            doing="manifest",
            headers={"Content-Type": media_type},
            body=raw,
            expected=DONE,
        )
        self._check_told_digest(stored, reference.digest or digest_of(raw), "manifest")
        if b'"subject"' in raw and "OCI-Subject" not in stored.headers:
            # A registry without the referrers API: the list is the client's to keep.
            document = parse_manifest_or_index(raw, media_type=media_type)
            if document.subject is not None:
                add_to_referrers_tag(
                    self._client, referrer_of(document), subject=document.subject.digest
                )

    def _check_told_digest(self, answer: Response, expected: Digest, what: str) -> None:
        """Raise if the registry itself says that it has other bytes than we sent."""
        told = answer.headers.get("Docker-Content-Digest")
        if told is None:
            return
        actual = parse_digest(told, what=f"{self.reference}: Docker-Content-Digest")
        if actual.algorithm == expected.algorithm and actual != expected:
            raise DigestMismatch(
                expected=expected,
                actual=actual,
                what=f"{self.reference}: {what}",
                hint="the registry changed what it was given; do not use it",
            )


if TYPE_CHECKING:
    _sink: type[ImageSink] = RegistrySink  # what it promises, checked by mypy
