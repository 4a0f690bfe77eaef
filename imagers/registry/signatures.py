# SPDX-License-Identifier: Apache-2.0
"""What a registry keeps for images: referrers, and signatures by an older extension.

    signatures = RegistrySignatures(source)
    entries, has_api = signatures.read_referrers(digest)

Nothing of what is read is verified, and it can be written by whoever may push.

Spec: for referrers see `referrers`; the extension: OpenShift,
"X-Registry-Supports-Signatures", containers/image docs/signature-protocols.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.registry.answers import DONE
from imagers.registry.referrers import add_to_referrers_tag, list_referrers

if TYPE_CHECKING:
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.registry.sink import RegistrySink
    from imagers.registry.source import RegistrySource

__all__ = ["RegistrySignatures"]

_FOUND = (200,)
_HEADER = "X-Registry-Supports-Signatures"


class RegistrySignatures:
    """Requests about one repository, over the connections of its source or sink.

    Args:
        place: stays the owner of its client.
    """

    def __init__(self, place: RegistrySource | RegistrySink) -> None:
        self._place = place
        self._client = place._client  # noqa: SLF001  # same package: one client a repository

    def read_referrers(self, digest: Digest) -> tuple[tuple[Descriptor, ...], bool]:
        """As `referrers.list_referrers`: all entries, and whether the API was there."""
        return list_referrers(self._client, digest)

    def put_referrer(self, raw: bytes, entry: Descriptor, subject: Digest) -> None:
        """A manifest that refers to `subject`, and its place in the list of referrers.

        Where the registry has no referrers API, the list is kept in a tag.

        Args:
            raw: the manifest; its blobs are there already.
            entry: for the list: media type, digest and size of `raw`, and what it is.

        Raises:
            FormatError, Unsupported: the tag is no list of referrers, or it is full.
            RemoteError: the registry did not take it, or the tag does not keep it.
        """
        answer = self._client.request(
            "PUT",
            f"manifests/{entry.digest}",
            doing="manifest of the signature",
            headers={"Content-Type": entry.media_type},
            body=raw,
            expected=DONE,
        )
        if "OCI-Subject" not in answer.headers:
            add_to_referrers_tag(self._client, entry, subject=subject)

    def supports_signatures(self) -> bool:
        """Whether the registry says that it keeps OpenPGP signatures itself.

        Raises:
            RemoteError: it could not be asked.
        """
        answer = self._client.request(
            "GET", self._origin("/v2/"), doing="version", expected=(200, 401), any_answer=True
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
            expected=DONE,
        )

    def _signatures_url(self, digest: Digest) -> str:
        repository = self._place.reference.repository
        return self._origin(f"/extensions/v2/{repository}/signatures/{digest}")

    def _origin(self, path: str) -> str:
        return self._client._base_url() + path  # noqa: SLF001  # same package
