# SPDX-License-Identifier: Apache-2.0
"""Manifests, indexes and image configs: strict, bounded, raw bytes kept.

The raw bytes are what a digest and a signature speak of, so they are kept as they came
and nothing is ever serialised again to be compared.

    manifest = parse_manifest(raw, media_type="")
    manifest.layers[0].digest

Bounds: a manifest or index 4 MiB, a config 8 MiB. They bound the number of layers and entries,
too: a count below what fits would refuse images that all others read.

Spec: OCI image-spec v1.1, manifest.md, image-index.md, config.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from imagers.errors import FormatError, NotFound, SizeMismatch, Unsupported, VerificationError
from imagers.model.descriptor import (
    Descriptor,
    Platform,
    is_artifact_type,
    parse_descriptor,
)
from imagers.model.digest import Digest, digest_of, parse_digest
from imagers.model.media import (
    IMAGE_CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
)
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.strict_json import JSONObject

__all__ = [
    "MAX_CONFIG_BYTES",
    "MAX_MANIFEST_BYTES",
    "ImageConfig",
    "Index",
    "Manifest",
    "RawManifest",
    "check_config_size",
    "check_layer_count",
    "check_platform",
    "parse_config",
    "parse_index",
    "parse_manifest",
    "parse_manifest_or_index",
]

MAX_MANIFEST_BYTES = 4 * 1024 * 1024  # as the distribution specification and containers/image
MAX_CONFIG_BYTES = 8 * 1024 * 1024

# As containers/image does: members that cannot stand beside each other.
_FOREIGN = {
    "layers": ("manifests", "fsLayers", "history"),
    "config": ("manifests", "fsLayers", "history"),
    "manifests": ("fsLayers", "history"),
}
_DOCUMENT_MEMBERS = frozenset(
    {
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "fsLayers",
        "history",
        "subject",
        "artifactType",
        "annotations",
    }
)
_CONFIG_MEMBERS = frozenset({"os", "architecture", "variant", "rootfs", "config"})
_ROOTFS_MEMBERS = frozenset({"type", "diff_ids"})
# What servers say of files that they know nothing of: no word about which manifest it is.
_ANY_TYPES = frozenset(
    {
        *("application/json", "application/octet-stream", "binary/octet-stream"),
        *("text/html", "text/plain"),
    }
)


@dataclass(frozen=True, slots=True)
class RawManifest:
    """Bytes of a manifest or index as they came, with the media type that came with them.

    Attributes:
        raw: at most `MAX_MANIFEST_BYTES`.
        media_type: of the answer's header or the descriptor; "" where nothing said one.
        digest: SHA-256 of `raw` (or the algorithm that it was asked for by).
    """

    raw: bytes = field(repr=False)
    media_type: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: a config and its layers.

    Attributes:
        raw: the bytes as they came.
        document: the parsed members, for functions that change an image and must keep
            members that they do not know. Treat it as read-only.
        descriptor: media type, digest and size of `raw`.
    """

    raw: bytes = field(repr=False)
    document: JSONObject = field(repr=False)
    descriptor: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    subject: Descriptor | None
    artifact_type: str | None

    @property
    def is_artifact(self) -> bool:
        """Whether it says that it is no image."""
        return (
            is_artifact_type(self.artifact_type) or self.config.media_type not in IMAGE_CONFIG_TYPES
        )


@dataclass(frozen=True, slots=True)
class Index:
    """Several images, usually one a platform.

    Attributes:
        raw: the bytes as they came.
        document: the parsed members; treat as read-only.
        descriptor: media type, digest and size of `raw`.
        manifests: the entries, in order.
        subject: what the index refers to, since version 1.1.
    """

    raw: bytes = field(repr=False)
    document: JSONObject = field(repr=False)
    descriptor: Descriptor
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    subject: Descriptor | None
    artifact_type: str | None

    def find_platform(self, platform: Platform) -> Descriptor | None:
        """The best entry for `platform`, of those that run there; of equal ones the first.

        The variants of an architecture that has no known ones are not compared where none is
        asked for. What is no image is never taken, whatever platform it names. An index with
        one image that names none means that image; its config says what it is for.
        """
        images = [one for one in self.manifests if not one.is_artifact]
        if len(images) == 1 and images[0].platform is None:
            return images[0]
        entries = [(one, one.platform.normal) for one in images if one.platform]
        for wanted in platform.candidates():
            for entry, found in entries:
                if found == wanted:
                    return entry
        wanted = platform.normal
        if wanted.variant:
            return None
        same = (wanted.os, wanted.architecture)
        return next((one for one, found in entries if (found.os, found.architecture) == same), None)

    def platforms(self) -> tuple[Platform, ...]:
        """Of the images, in order."""
        return tuple(
            one.platform
            for one in self.manifests
            if one.platform is not None and not one.is_artifact
        )

    def require_platform(self, platform: Platform, *, what: str) -> Descriptor:
        """As `find_platform`, with an error for none.

        Args:
            what: name of the image in the message.

        Raises:
            NotFound: no entry is for `platform`.
        """
        entry = self.find_platform(platform)
        if entry is None:
            offered = ", ".join(map(str, self.platforms()))
            if not offered and not all(one.is_artifact for one in self.manifests):
                raise NotFound(
                    f"{what} is not there for platform '{platform}': the index has several images "
                    "and says of none what it is for",
                    hint="take one by its digest, NAME@DIGEST",
                )
            raise NotFound(
                f"{what} is not there for platform '{platform}': expected one of "
                f"{offered[:200] or 'none'}",
                hint="choose another one with --platform OS/ARCH",
            )
        return entry


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The configuration of an image; readable to everybody, also in an encrypted image.

    Attributes:
        raw: the bytes as they came.
        document: the parsed members; treat as read-only.
        platform: what the image is for; empty words where it says nothing.
        diff_ids: digests of the tars of the layers, in order.
        config: the `config` member (Env, Entrypoint, Labels, ...), empty if absent.
    """

    raw: bytes = field(repr=False)
    document: JSONObject = field(repr=False)
    platform: Platform
    diff_ids: tuple[Digest, ...]
    config: JSONObject


def _check_document(view: View) -> None:
    """Refuse what another reader would take for another kind of document."""
    document = view.value
    view.check_spelling(_DOCUMENT_MEMBERS)
    # Writers in Go leave it away, or write 0; readers do not look at it.
    version = 0 if document.get("schemaVersion") is None else view.integer("schemaVersion")
    if version == 1:
        raise Unsupported(
            "manifest of schema 1 is not supported: expected schema 2; push the image again "
            "with a current tool"
        )
    if version not in (0, 2):  # the only version
        raise view.error(f"expected 2, got {version}", "schemaVersion")
    # CVE-2021-41190: a document that two readers take for two different kinds. A member that
    # is null makes it another kind for nobody; `fsLayers` and `history` are those of schema 1.
    present = {name for name, value in document.items() if value is not None}
    for mark in ("layers", "config", "manifests"):
        for other in _FOREIGN[mark]:
            if mark in present and other in present:
                raise view.error(f"has both {mark!r} and {other!r}")


def _check_media_type(view: View, told: str, allowed: frozenset[str]) -> str:
    """The media type, from the document and from outside, which must agree."""
    inside = view.optional_text("mediaType")
    if inside and told in MANIFEST_TYPES | INDEX_TYPES and inside != told:
        raise view.error(
            f"expected {told!r}, as which it was announced, got {inside[:160]!r}", "mediaType"
        )
    media_type = inside or ("" if told in _ANY_TYPES else told)
    if media_type and media_type not in allowed:
        raise Unsupported(
            f"media type {media_type[:160]!r} of the {view.what} is not supported: expected one "
            "of " + ", ".join(sorted(allowed))
        )
    return media_type


def parse_manifest(raw: bytes, *, media_type: str = "") -> Manifest:
    """The manifest in `raw`.

    Args:
        media_type: what came beside the bytes (header or descriptor); "" for nothing.

    Raises:
        FormatError: not a manifest, or beyond a bound.
        Unsupported: a well-formed manifest of another kind.
    """
    view = View.parse(raw, what="manifest", max_bytes=MAX_MANIFEST_BYTES)
    return _make_manifest(raw, view, media_type)


def _make_manifest(raw: bytes, view: View, media_type: str) -> Manifest:
    _check_document(view)
    found = _check_media_type(view, media_type, MANIFEST_TYPES) or OCI_MANIFEST
    return Manifest(
        raw=raw,
        document=view.value,
        descriptor=Descriptor(found, digest_of(raw), len(raw)),
        config=parse_descriptor(view.object("config")),
        layers=tuple(map(parse_descriptor, view.objects("layers", null_is_empty=True))),
        annotations=MappingProxyType(view.string_map("annotations")),
        subject=_parse_subject(view),
        artifact_type=view.optional_text("artifactType"),
    )


def _parse_subject(view: View) -> Descriptor | None:
    subject = view.optional_object("subject")
    return None if subject is None else parse_descriptor(subject)


def parse_index(raw: bytes, *, media_type: str = "") -> Index:
    """The index in `raw`; arguments and errors as for `parse_manifest`."""
    return _make_index(raw, View.parse(raw, what="index", max_bytes=MAX_MANIFEST_BYTES), media_type)


def _make_index(raw: bytes, view: View, media_type: str) -> Index:
    _check_document(view)
    found = _check_media_type(view, media_type, INDEX_TYPES) or OCI_INDEX
    entries = view.objects("manifests", null_is_empty=_may_be_empty_index(view.value, media_type))
    return Index(
        raw=raw,
        document=view.value,
        descriptor=Descriptor(found, digest_of(raw), len(raw)),
        manifests=tuple(map(parse_descriptor, entries)),
        annotations=MappingProxyType(view.string_map("annotations")),
        subject=_parse_subject(view),
        artifact_type=view.optional_text("artifactType"),
    )


def parse_manifest_or_index(raw: bytes, *, media_type: str = "") -> Manifest | Index:
    """Whichever of the two `raw` holds, told by its members and checked against its type."""
    view = View.parse(raw, what="manifest", max_bytes=MAX_MANIFEST_BYTES)
    if _is_index(view.value, media_type):
        return _make_index(raw, View(view.value, what="index"), media_type)
    return _make_manifest(raw, view, media_type)


def _is_index(document: JSONObject, told: str) -> bool:
    """Whether it is an index: by its members, and where those are not there by its type."""
    if document.get("manifests") is not None:
        return True
    has_layers = document.get("config") is not None or document.get("layers") is not None
    return not has_layers and _may_be_empty_index(document, told)


def _may_be_empty_index(document: JSONObject, told: str) -> bool:
    """Whether a document without entries says that it is an index.

    Of one that does not, such as an error or `{}`, nobody may conclude that a registry has no
    signatures.
    """
    inside = document.get("mediaType")
    if "manifests" in document or (isinstance(inside, str) and inside in INDEX_TYPES):
        return True
    return told in INDEX_TYPES and document.get("schemaVersion") is not None


def parse_config(raw: bytes, *, media_type: str = OCI_CONFIG) -> ImageConfig:
    """The image config in `raw`.

    Only what decides anything is looked at: a null or missing list is an empty one, and how
    members of `config` are spelt is up to who runs the image.

    Raises:
        FormatError: not a config, or beyond a bound.
        Unsupported: another kind of config, as artifacts have.
    """
    if media_type not in IMAGE_CONFIG_TYPES:
        raise Unsupported(
            f"config of media type {media_type[:160]!r} is not supported: expected an image, "
            "this may be another kind of artifact"
        )
    view = View.parse(raw, what="config", max_bytes=MAX_CONFIG_BYTES)
    view.check_spelling(_CONFIG_MEMBERS)
    rootfs = view.object("rootfs", null_is_empty=True)
    rootfs.check_spelling(_ROOTFS_MEMBERS)
    if (rootfs.optional_text("type") or "layers") != "layers":
        raise rootfs.error("expected 'layers'", "type")
    diff_ids = rootfs.texts("diff_ids", null_is_empty=True)
    return ImageConfig(
        raw=raw,
        document=view.value,
        platform=Platform(
            *(view.optional_text(name) or "" for name in ("os", "architecture", "variant"))
        ),
        diff_ids=tuple(
            parse_digest(one, what="config", where=f"$.rootfs.diff_ids[{index}]")
            for index, one in enumerate(diff_ids)
        ),
        config=view.object("config", null_is_empty=True).value,
    )


def check_config_size(descriptor: Descriptor) -> None:
    """Raise unless a config of this descriptor may be fetched.

    Raises:
        FormatError: it claims more than the bound.
    """
    if descriptor.size > MAX_CONFIG_BYTES:
        raise FormatError(
            f"expected at most {MAX_CONFIG_BYTES} bytes, got {descriptor.size}",
            what="manifest",
            where="$.config.size",
        )


def check_layer_count(manifest: Manifest, config: ImageConfig) -> None:
    """Raise unless every layer of the manifest has its diff_id in the config.

    Raises:
        SizeMismatch: the counts differ: layers were added or dropped.
    """
    if len(manifest.layers) != len(config.diff_ids):
        raise SizeMismatch(
            noun="count of layers",
            expected=len(config.diff_ids),
            actual=len(manifest.layers),
            what="manifest and config",
            hint="layers were added to or dropped from the manifest; do not use this image",
        )


def check_platform(config: ImageConfig, wanted: Platform, *, entry: Platform | None = None) -> None:
    """Raise unless the image is for the platform that it was taken for.

    The platform in an entry of an index, or in a name, is covered by no signature of the
    image; the config is. Without this, whoever owns the registry serves any image that was
    ever signed under the name as the one for another platform.

    Args:
        wanted: the platform that was asked for; the config may say any that runs there. Its
            variant is compared if it has one.
        entry: what the index said of the image, if there is an index: then its variant is
            the one that is compared.

    Raises:
        VerificationError: the config is verified, and names another platform.

    Spec: OCI image-spec v1.1, config.md, `os`, `architecture`, `variant`.
    """
    found, asked = config.platform.normal, wanted.normal
    expected, allowed = wanted, {found.variant}
    if entry is not None and (entry.variant or wanted.variant):
        expected, allowed = entry, {entry.normal.variant}
    elif wanted.variant:
        allowed = {one.variant for one in wanted.candidates()}
    if (found.os, found.architecture) != (asked.os, asked.architecture) or (
        found.variant not in allowed
    ):
        if not (found.os and found.architecture):
            got, hint = "no platform", "this may be another kind of artifact; an image names both"
        else:
            got = f"'{config.platform}'"
            hint = "if that is the image that you mean, name its platform: --platform OS/ARCH"
        if entry is not None:
            hint = "somebody changed the index; do not use this image"
        raise VerificationError(
            f"config: expected an image for '{expected}', got one for {got}", hint=hint
        )
