"""Look for the signatures of a manifest, in every place that may have one the policy demands.

    finder = Finder(Places(reference, repository=source, beside=beside, config=registries_d))
    found = finder.find(digest, {Form.SIMPLE})

| form       | places                                                                 |
|------------|------------------------------------------------------------------------|
| simple     | the registry's extension if it has one; the lookaside of registries.d  |
| sigstore   | tag `sha256-HEX.sig` of the repository                                 |
| bundle     | referrers of the manifest: the API, or the tag `sha256-HEX`            |
| notation   | the same                                                               |

A place that says "there is none" is an answer; any other failure is kept as `CouldNotLook`.
Nothing is verified here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from imagers.errors import Cancelled, CouldNotVerify, FormatError, ImagersError, NotFound
from imagers.model.manifest import parse_manifest
from imagers.model.media import OCI_MANIFEST
from imagers.model.stream import read_all
from imagers.sign.formats.bundle import BUNDLE_TYPE
from imagers.sign.formats.lookaside import (
    SignatureExtension,
    find_in_directory,
    find_in_extension,
    find_in_lookaside,
)
from imagers.sign.formats.sigstore import (
    SignatureManifest,
    SigstoreSignature,
    parse_signature_manifest,
    signature_tag,
)
from imagers.sign.found import (
    BundleSignature,
    CouldNotLook,
    Form,
    Found,
    Looked,
    NotationSignature,
    Signature,
)
from imagers.sign.registries_d import RegistriesD, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.manifest import RawManifest
    from imagers.model.reference import Reference
    from imagers.sign.repository import ManifestSource, SignatureSource

__all__ = [
    "Beside",
    "Finder",
    "Places",
    "ReferrersSource",
    "find_signatures",
    "read_attached",
    "read_signature_manifest",
    "read_signatures",
]

NOTATION_TYPE = "application/vnd.cncf.notary.signature"
NOTATION_ENVELOPES = ("application/jose+json", "application/cose")
MAX_ENVELOPE_BYTES = 1024 * 1024  # of a bundle or an envelope, with its certificates
_MAX_ATTACHED = 256  # signatures of one form at one manifest
_MAX_LOOKED_AT = 256  # manifests of referrers: each costs a request


class ReferrersSource(Protocol):
    """A repository that lists what refers to a manifest, such as `RegistrySignatures`."""

    def read_referrers(self, digest: Digest) -> tuple[tuple[Descriptor, ...], bool]:
        """The entries, unfiltered, and whether the registry has the API."""


class Beside(ReferrersSource, SignatureExtension, Protocol):
    """Both that a registry may have beside images."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where signatures of one image may be.

    Attributes:
        reference: as the user named it; None for an image in a directory.
        directory: of an image of the transport `dir:`.
        repository: None where there is no registry.
        beside: what that registry keeps beside images.
        config: of registries.d.
        default_lookaside: URL for repositories that registries.d does not mention.
        fetch: for lookasides over http, see `lookaside.find_in_lookaside`.
    """

    reference: Reference | None = None
    directory: str | None = None
    repository: ManifestSource | None = None
    beside: Beside | None = None
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
    """Looks in all `places`; keeps what referrers say, so that two forms cost one request.

    Threads: one at a time.
    """

    def __init__(self, places: Places) -> None:
        self._places = places

    def find(self, digest: Digest, forms: Collection[Form]) -> Found:
        """The signatures of these forms of the manifest with `digest`."""
        places = self._places
        found = Found()
        if places.directory is not None:
            kept = find_in_directory(places.directory, digest) if forms else found
            return _with_the_rest(kept, forms, "an image directory")
        if Form.SIMPLE in forms:
            found += self._find_simple(digest)
        if places.repository is None:
            return _with_the_rest(found, forms, "an image without a registry")
        if Form.SIGSTORE in forms:
            found += self._find_tag(places.repository, digest)
        wanted = {Form.BUNDLE, Form.NOTATION}.intersection(forms)
        if wanted and places.beside is not None:
            found += read_attached(places.repository, places.beside, digest, wanted)
        return found

    def _find_simple(self, digest: Digest) -> Found:
        places = self._places
        if places.beside is not None:
            assert places.reference is not None
            place = f"signatures kept by registry {places.reference.registry}"
            kept = find_in_extension(places.beside, digest, place)
            # As containers/image: a registry that keeps signatures is asked in place of a
            # lookaside, not beside it.
            if kept is not None:
                return kept
        base = places.lookaside()
        if base is None or places.reference is None:
            return Found(looked=(Looked(Form.SIMPLE, "no lookaside is configured", 0),))
        return find_in_lookaside(base, places.reference, digest, fetch=places.fetch)

    def _find_tag(self, repository: ManifestSource, digest: Digest) -> Found:
        place = f"tag {signature_tag(digest)}"
        try:
            found = find_signatures(repository, digest)
        except CouldNotVerify as error:
            return Found(failures=(CouldNotLook(error, Form.SIGSTORE, place),))
        return Found(found, (Looked(Form.SIGSTORE, place, len(found)),))


def _with_the_rest(found: Found, forms: Collection[Form], place: str) -> Found:
    """With the forms that such a place has none of: that is known without asking."""
    rest = [
        form
        for form in Form
        if form in forms and not found.was_looked_for(form) and found.failure(form) is None
    ]
    return found + Found(looked=tuple(Looked(form, f"{place} keeps none", 0) for form in rest))


def read_attached(
    repository: ManifestSource,
    beside: ReferrersSource,
    digest: Digest,
    forms: Collection[Form],
) -> Found:
    """The signatures of these forms that refer to a manifest. Nothing is verified."""
    place = f"referrers of {digest}"
    try:
        entries, has_api = beside.read_referrers(digest)
        place += "" if has_api else f" (tag {digest.algorithm}-{digest.hex}: no referrers API)"
        if len(entries) > _MAX_LOOKED_AT:
            raise FormatError(
                f"expected at most {_MAX_LOOKED_AT} referrers, got {len(entries)}",
                what=place,
            )
    except Cancelled:
        raise
    except ImagersError as error:
        return Found(failures=tuple(CouldNotLook(error, form, place) for form in forms))
    signatures: list[Signature] = []
    failures: list[CouldNotLook] = []
    for number, entry in enumerate(entries, 1):
        name = f"referrer {number} of {len(entries)}"
        try:
            signatures += _read_attached(repository, entry, digest, name, forms)
        except Cancelled:
            raise
        except ImagersError as error:
            failures.append(CouldNotLook(error, None, f"{place}, {name}"))
    found = Found(tuple(signatures), (), tuple(failures))
    looked = tuple(Looked(form, place, len(found.of(form))) for form in forms)
    return Found(found.signatures, looked, found.failures)


def _read_attached(
    repository: ManifestSource,
    entry: Descriptor,
    subject: Digest,
    name: str,
    forms: Collection[Form],
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
        if Form.BUNDLE in forms and layer.media_type == BUNDLE_TYPE:
            raw = _read_layer(repository, layer, name)
            found.append(BundleSignature(raw, f"{name}, {layer.digest}"))
        elif (
            Form.NOTATION in forms
            and kind == NOTATION_TYPE
            and layer.media_type in NOTATION_ENVELOPES
        ):
            raw = _read_layer(repository, layer, name)
            found.append(NotationSignature(raw, layer.media_type, f"{name}, {layer.digest}"))
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


def read_signature_manifest(source: SignatureSource, tag: str) -> SignatureManifest | None:
    """The signatures under a tag; None if there is no such tag."""
    try:
        found = source.read_tag(tag)
    except NotFound:
        return None
    return parse_signature_manifest(found.raw, media_type=found.media_type)


def read_signatures(
    source: SignatureSource, existing: SignatureManifest
) -> tuple[SigstoreSignature, ...]:
    """Their payloads, read. Nothing is verified."""
    payloads: dict[tuple[Digest, int], bytes] = {}
    count = len(existing.signatures)
    for number, layer in enumerate(existing.signatures, 1):
        place = (layer.digest, layer.size)
        if place not in payloads:  # one payload often has many signatures
            with source.open_blob(layer, what=f"signature {number} of {count}") as stream:
                payloads[place] = read_all(stream, size=layer.size)
    return tuple(
        SigstoreSignature(payloads[layer.digest, layer.size], layer.annotations, layer.media_type)
        for layer in existing.signatures
    )


def find_signatures(source: SignatureSource, digest: Digest) -> tuple[SigstoreSignature, ...]:
    """The signatures that are kept for the manifest with `digest`. *Nothing* is verified.

    Empty if the repository has no tag for them, which is the one answer that means "none": a
    registry that fails, a payload that is missing, a manifest that cannot be read are not.

    Args:
        digest: SHA-256 of the exact bytes of the image's manifest, not of an index around it.

    Raises:
        CouldNotVerify: they could not be looked for; the cause says why.
    """
    tag = signature_tag(digest)
    try:
        existing = read_signature_manifest(source, tag)
        return () if existing is None else read_signatures(source, existing)
    except Cancelled:
        raise
    except ImagersError as error:
        raise CouldNotVerify(
            f"could not read the signatures in tag '{tag}': {error}", hint=error.hint
        ) from error
