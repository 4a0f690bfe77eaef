# SPDX-License-Identifier: Apache-2.0
"""What signing and looking for signatures need of a repository: four Protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.manifest import RawManifest
    from imagers.model.stream import ByteStream

__all__ = ["ManifestSource", "ReferrersSink", "SignatureSink", "SignatureSource"]


class SignatureSource(Protocol):
    """A repository that signatures are read from, such as `RegistrySource`."""

    def read_tag(self, tag: str) -> RawManifest:
        """The manifest of another tag of the repository.

        Raises:
            NotFound: there is no such tag.
            RemoteError: it could not be asked.
        """

    def open_blob(self, descriptor: Descriptor, *, what: str) -> ByteStream:
        """A blob of the repository, checked at its end against `descriptor`."""


class ManifestSource(SignatureSource, Protocol):
    """A repository that an image is read from to be signed."""

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        """The manifest or index that the source names, or the one with `digest`."""


class ReferrersSink(Protocol):
    """A repository that lists referrers, such as `RegistrySignatures`."""

    def read_referrers(self, digest: Digest) -> tuple[tuple[Descriptor, ...], bool]:
        """The entries, unfiltered, and whether the registry has the API."""

    def put_referrer(self, raw: bytes, entry: Descriptor, subject: Digest) -> None:
        """A manifest that refers to `subject`, and its place in the list."""


class SignatureSink(Protocol):
    """A repository that signatures are written to, such as `RegistrySink`."""

    def put_blob(self, descriptor: Descriptor, data: bytes, *, what: str) -> None:
        """A small blob."""

    def put_manifest_as(self, raw: bytes, media_type: str, tag: str) -> None:
        """A manifest, byte for byte, under a tag of the repository."""
