"""What a registry keeps beside images: referrers, and signatures by an older extension.

    beside = RegistrySignatures(source)
    entries = beside.read_referrers(digest)

Nothing of what is read is verified. A registry without the referrers API keeps them in an
index under a tag, which is read in its place; both can be written by whoever may push.

Spec: OCI distribution-spec v1.1, "Listing Referrers", "Referrers Tag Schema"; the extension:
OpenShift, "X-Registry-Supports-Signatures", containers/image docs/signature-protocols.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagers.errors import FormatError, NotFound, RemoteError
from imagers.model.manifest import MAX_MANIFEST_BYTES, parse_index
from imagers.model.media import OCI_INDEX
from imagers.model.strict_json import dump_json
from imagers.net.urls import join_url

if TYPE_CHECKING:
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.registry.sink import RegistrySink
    from imagers.registry.source import RegistrySource

__all__ = ["MAX_REFERRERS", "RegistrySignatures", "referrers_tag"]

MAX_REFERRERS = 1024  # of one manifest, all pages together
_MAX_PAGES = 32
_ATTEMPTS = 3  # to write where somebody else writes at the same time
_FOUND = (200,)
_CREATED = (201,)
_HEADER = "X-Registry-Supports-Signatures"
_NEXT = re.compile(r"<([^<>]{1,2048})>\s*;\s*rel=\"?next\"?\s*(?:;.*)?\Z", re.IGNORECASE)
_MAX_ALGORITHM = 32  # characters, as the tag schema cuts them
_MAX_HEX = 64


def referrers_tag(digest: Digest) -> str:
    """The tag that lists referrers where the registry has no API for them."""
    return f"{digest.algorithm[:_MAX_ALGORITHM]}-{digest.hex[:_MAX_HEX]}"


class RegistrySignatures:
    """Requests about one repository, over the connections of its source or sink.

    Args:
        place: stays the owner of its client.
    """

    def __init__(self, place: RegistrySource | RegistrySink) -> None:
        self._place = place
        self._client = place._client  # noqa: SLF001  # same package: one client a repository

    def read_referrers(self, digest: Digest) -> tuple[tuple[Descriptor, ...], bool]:
        """Entries for manifests that say they refer to `digest`; whether the API was there.

        They are not filtered: cosign 3.1 writes another artifact type into the index than
        into the manifest, and servers copy what they like.

        Raises:
            FormatError: the answer is no index, or beyond a bound.
            RemoteError: it could not be asked.
        """
        found: list[Descriptor] = []
        target = f"referrers/{digest}"
        for _ in range(_MAX_PAGES):
            try:
                answer = self._client.request(
                    "GET",
                    target,
                    doing="referrers",
                    headers={"Accept": OCI_INDEX},
                    max_bytes=MAX_MANIFEST_BYTES,
                    expected=_FOUND,
                )
            except NotFound:
                if found:
                    raise
                return self._read_referrers_tag(digest), False
            found += parse_index(answer.body).manifests
            if len(found) > MAX_REFERRERS:
                raise FormatError(
                    f"expected at most {MAX_REFERRERS} entries, got more", what="referrers"
                )
            link = _NEXT.match(answer.headers.get("Link", "").strip())
            if link is None:
                return tuple(found), True
            target = join_url(answer.url, link[1])
        raise FormatError(f"expected at most {_MAX_PAGES} pages, got more", what="referrers")

    def put_referrer(self, raw: bytes, entry: Descriptor, subject: Digest) -> None:
        """A manifest that refers to `subject`, and its place in the list of referrers.

        Where the registry has no referrers API, the list is an index under a tag that
        everybody who adds something writes: what is there stays, it is read again
        afterwards, and written again if somebody else wrote meanwhile.

        Args:
            raw: the manifest; its blobs are there already.
            entry: for the list: media type, digest and size of `raw`, and what it is.

        Raises:
            RemoteError: the registry did not take it, or the tag does not keep it.
        """
        answer = self._client.request(
            "PUT",
            f"manifests/{entry.digest}",
            doing="manifest of the signature",
            headers={"Content-Type": entry.media_type},
            body=raw,
            expected=_CREATED,
        )
        if answer.headers.get("OCI-Subject"):
            return
        tag = referrers_tag(subject)
        for _ in range(_ATTEMPTS):
            listed = self._read_referrers_tag(subject)
            if any(one.digest == entry.digest for one in listed):
                return
            if len(listed) >= MAX_REFERRERS:
                raise FormatError(
                    f"expected at most {MAX_REFERRERS} entries, got more", what="referrers"
                )
            index = dump_json(
                {
                    "schemaVersion": 2,
                    "mediaType": OCI_INDEX,
                    "manifests": [one.to_json() for one in (*listed, entry)],
                }
            )
            self._client.request(
                "PUT",
                f"manifests/{tag}",
                doing="list of referrers",
                headers={"Content-Type": OCI_INDEX},
                body=index,
                expected=_CREATED,
            )
        if not any(one.digest == entry.digest for one in self._read_referrers_tag(subject)):
            raise RemoteError(
                f"tag '{tag}' does not keep the entry: somebody else writes it",
                temporary=True,
                hint="sign again when nobody else does",
            )

    def _read_referrers_tag(self, digest: Digest) -> tuple[Descriptor, ...]:
        from imagers.registry.source import RegistrySource  # noqa: PLC0415  # only for the reader

        reader = self._place
        if not isinstance(reader, RegistrySource):
            reader = RegistrySource(reader.reference, self._client, name=reader.name)
        try:
            answer = reader.read_tag(referrers_tag(digest))
        except NotFound:
            return ()
        return parse_index(answer.raw, media_type=answer.media_type).manifests

    def supports_signatures(self) -> bool:
        """Whether the registry says that it keeps OpenPGP signatures itself.

        Raises:
            RemoteError: it could not be asked.
        """
        answer = self._client.request(
            "GET", self._origin("/v2/"), doing="version", expected=(200, 401)
        )
        return answer.headers.get(_HEADER, "") == "1"

    def read_signatures(self, digest: Digest, *, max_bytes: int) -> bytes:
        """The list of OpenPGP signatures of a manifest, as JSON.

        Raises:
            NotFound: it knows no such manifest.
            RemoteError: it could not be asked.
        """
        return self._client.request(
            "GET",
            self._signatures_url(digest),
            doing="signatures",
            headers={"Accept": "application/json"},
            max_bytes=max_bytes,
            expected=_FOUND,
        ).body

    def put_signature(self, digest: Digest, body: bytes) -> None:
        """Add one OpenPGP signature, which is JSON.

        Raises:
            RemoteError: the registry did not take it.
        """
        self._client.request(
            "PUT",
            self._signatures_url(digest),
            doing="signature",
            headers={"Content-Type": "application/json"},
            body=body,
            expected=(200, 201, 202, 204),
        )

    def _signatures_url(self, digest: Digest) -> str:
        repository = self._place.reference.repository
        return self._origin(f"/extensions/v2/{repository}/signatures/{digest}")

    def _origin(self, path: str) -> str:
        return self._client._base_url() + path  # noqa: SLF001  # same package
