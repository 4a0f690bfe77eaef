# SPDX-License-Identifier: Apache-2.0
"""Look for the signatures of a manifest, in every place that may have one the policy demands.

    finder = Finder(Places(reference, repository=source, referrers=referrers))
    found = finder.find(digest, {"sigstore"})

| format          | places                                                                 |
|-----------------|------------------------------------------------------------------------|
| simple signing  | the registry's extension if it has one; the lookaside of registries.d  |
| sigstore        | tag `sha256-HEX.sig` of the repository                                 |
| sigstore bundle | referrers of the manifest: the API, or the tag `sha256-HEX`            |
| notation        | the same                                                               |

A place that says "there is none" is an answer; any other failure is kept as `CouldNotLook`.
Nothing is verified here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from imagers.errors import Cancelled, FormatError, ImagersError
from imagers.model.manifest import parse_manifest
from imagers.model.media import OCI_MANIFEST
from imagers.model.stream import read_all
from imagers.sign.formats.format import FORMATS, find_format
from imagers.sign.found import CouldNotLook, Found, Looked
from imagers.sign.registries_d import RegistriesD, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.manifest import RawManifest
    from imagers.model.reference import Reference
    from imagers.sign.formats.format import SignatureFormat
    from imagers.sign.formats.lookaside import SignatureExtension
    from imagers.sign.found import Signature
    from imagers.sign.repository import ManifestSource

__all__ = ["Finder", "Places", "ReferrersSource", "read_attached"]

MAX_ENVELOPE_BYTES = 1024 * 1024  # of a bundle or an envelope, with its certificates
_MAX_ATTACHED = 256  # signatures in one referrer
_MAX_LOOKED_AT = 256  # manifests of referrers: each costs a request


class ReferrersSource(Protocol):
    """A repository that lists what refers to a manifest, such as `RegistrySignatures`."""

    def read_referrers(self, digest: Digest) -> tuple[tuple[Descriptor, ...], bool]:
        """The entries, unfiltered, and whether the registry has the API."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where signatures of one image may be.

    Attributes:
        reference: as the user named it; None for an image in a directory.
        directory: of an image of the transport `dir:`.
        repository: None where there is no registry.
        referrers: what that registry knows to refer to manifests.
        extension: signatures that it may keep itself.
        config: of registries.d.
        default_lookaside: URL for repositories that registries.d does not mention.
        fetch: for lookasides over http, see `lookaside.find_in_lookaside`.
    """

    reference: Reference | None = None
    directory: str | None = None
    repository: ManifestSource | None = None
    referrers: ReferrersSource | None = None
    extension: SignatureExtension | None = None
    config: RegistriesD = field(default_factory=lambda: RegistriesD(Scope(), {}))
    default_lookaside: str | None = None
    fetch: Callable[[str], bytes | None] | None = None

    def lookaside(self, *, write: bool = False) -> str | None:
        """The URL of the lookaside of this image, None where there is none."""
        if self.reference is None:
            return None
        sign = "@" if self.reference.is_pinned else ":"
        scope = self.config.for_repository(self.reference.name, f"{sign}{self.reference.target}")
        return (scope.staging if write else scope.lookaside) or self.default_lookaside


class Finder:
    """Looks in all `places`; what refers to a manifest is read once for all formats.

    Threads: one at a time.
    """

    def __init__(self, places: Places) -> None:
        self._places = places

    def find(self, digest: Digest, formats: Collection[str]) -> Found:
        """The signatures of these formats of the manifest with `digest`."""
        places = self._places
        if places.directory is not None:
            from imagers.sign.formats.lookaside import find_in_directory

            kept = find_in_directory(places.directory, digest) if formats else Found()
            return _with_the_rest(kept, formats, "an image directory")
        found = Found()
        if places.reference is None and places.repository is None:
            return _with_the_rest(found, formats, "an image without a registry")
        wanted = [find_format(name) for name in FORMATS if name in formats]
        for one in wanted:
            found += one.find(places, digest)
        if places.repository is None:
            return _with_the_rest(found, formats, "an image without a registry")
        attached = [one.name for one in wanted if one.is_attached]
        if attached and places.referrers is not None:
            found += read_attached(places.repository, places.referrers, digest, attached)
        return found


def _with_the_rest(found: Found, formats: Collection[str], place: str) -> Found:
    """With the formats that such a place has none of: that is known without asking."""
    rest = [
        name
        for name in FORMATS
        if name in formats and not found.was_looked_for(name) and found.failure(name) is None
    ]
    return found + Found(looked=tuple(Looked(name, f"{place} keeps none", 0) for name in rest))


def read_attached(
    repository: ManifestSource,
    referrers: ReferrersSource,
    digest: Digest,
    formats: Collection[str],
) -> Found:
    """The signatures of these formats that refer to a manifest. Nothing is verified."""
    place = f"referrers of {digest}"
    try:
        entries, has_api = referrers.read_referrers(digest)
        place += "" if has_api else f" (tag {digest.algorithm}-{digest.hex}: no referrers API)"
        if len(entries) > _MAX_LOOKED_AT:
            raise FormatError(
                f"expected at most {_MAX_LOOKED_AT} referrers, got {len(entries)}",
                what=place,
            )
    except Cancelled:
        raise
    except ImagersError as error:
        return Found(failures=tuple(CouldNotLook(error, name, place) for name in formats))
    records = [find_format(name) for name in formats]
    signatures: list[Signature] = []
    failures: list[CouldNotLook] = []
    for number, entry in enumerate(entries, 1):
        name = f"referrer {number} of {len(entries)}"
        try:
            signatures += _read_attached(repository, entry, digest, name, records)
        except Cancelled:
            raise
        except ImagersError as error:
            failures.append(CouldNotLook(error, None, f"{place}, {name}"))
    found = Found(tuple(signatures), (), tuple(failures))
    looked = tuple(Looked(name, place, len(found.of(name))) for name in formats)
    return Found(found.signatures, looked, found.failures)


def _read_attached(
    repository: ManifestSource,
    entry: Descriptor,
    subject: Digest,
    name: str,
    records: Collection[SignatureFormat],
) -> list[Signature]:
    """The signatures in one referrer; none if it is something else."""
    if entry.media_type != OCI_MANIFEST:
        return []
    answer: RawManifest = repository.read_manifest(entry.digest)
    manifest = parse_manifest(answer.raw, media_type=entry.media_type)
    # The list is the registry's word; the manifest is content, and says what it refers to.
    if manifest.subject is None or manifest.subject.digest != subject:
        return []
    kind = manifest.artifact_type or manifest.config.media_type
    found: list[Signature] = []
    for layer in manifest.layers:
        record = next((one for one in records if one.is_in(kind, layer)), None)
        if record is not None:
            raw = _read_layer(repository, layer, name)
            found.append(record.attached(raw, layer, f"{name}, {layer.digest}"))
        if len(found) > _MAX_ATTACHED:
            raise FormatError(f"expected at most {_MAX_ATTACHED} signatures", what=name)
    return found


def _read_layer(repository: ManifestSource, layer: Descriptor, name: str) -> bytes:
    if layer.size > MAX_ENVELOPE_BYTES:
        raise FormatError(
            f"expected at most {MAX_ENVELOPE_BYTES} bytes, got {layer.size}", what=name
        )
    with repository.open_blob(layer, what=name) as stream:
        return read_all(stream, size=layer.size)
