# SPDX-License-Identifier: Apache-2.0
"""Descriptors: media type, digest and size of a blob, with annotations.

A bare digest is not a handle for a blob, because it cannot bound a read; this is.

Spec: OCI image-spec v1.1, descriptor.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from imagers.errors import FormatError, Unsupported
from imagers.model.digest import Digest, parse_digest
from imagers.model.media import IMAGE_CONFIG_TYPES, INDEX_TYPES, MANIFEST_TYPES, is_foreign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.strict_json import JSONObject, View

__all__ = ["Descriptor", "Platform", "is_artifact_type", "parse_descriptor"]

# containerd/platforms, database.go, normalizeArch: other names of an architecture, with the
# variant that they imply, and the names of the variant that each has anyway.
_ARCHITECTURES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_DEFAULT_VARIANTS = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
# containers/image, internal/pkg/platform; containerd/platforms, compare.go: a machine runs what is
# for its own variant and for those behind it. A v3 binary is an illegal instruction elsewhere.
_VARIANTS = {
    "amd64": ("v4", "v3", "v2", "v1"),
    "arm64": ("v9", "v8"),
    "arm": ("v8", "v7", "v6", "v5"),
}
_BARE_VARIANT = re.compile(r"[0-9]{1,2}\Z")

# RFC 6838 section 4.2: at most 127 characters on each side of the slash.
_TYPE_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(rf"{_TYPE_NAME}/{_TYPE_NAME}\Z")
_MEMBERS = frozenset({"mediaType", "digest", "size", "annotations", "platform", "artifactType"})
_PLATFORM_MEMBERS = frozenset({"os", "architecture", "variant"})
_ATTESTATION = "vnd.docker.reference.type"
_ATTESTED = "vnd.docker.reference.digest"
_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system and architecture that an image is for, in GOOS and GOARCH words."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def is_none(self) -> bool:
        """Whether it says that there is none, as buildx writes it for what is no image."""
        return (self.os, self.architecture) == ("unknown", "unknown")

    @property
    def normal(self) -> Platform:
        """The same platform with one name for each thing: what may be compared.

        `arm64` is `arm64/v8`, `arm` is `arm/v7`, `amd64` is `amd64/v1`, `x86_64` is `amd64`.

        Spec: containerd/platforms v1, database.go; OCI image-spec v1.1, image-index.md,
        "Platform Variants".
        """
        os, architecture, variant = (
            part.lower() for part in (self.os, self.architecture, self.variant)
        )
        architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
        if _BARE_VARIANT.match(variant):
            variant = f"v{variant}"
        variant = variant or implied or _DEFAULT_VARIANTS.get(architecture, "")
        return Platform("darwin" if os == "macos" else os, architecture, variant)

    def candidates(self) -> tuple[Platform, ...]:
        """What runs where this was asked for, the best one first, each `normal`.

        Without a variant it is the default one of the architecture that was asked for.
        """
        wanted = self.normal
        variants = _VARIANTS.get(wanted.architecture, ())
        if wanted.variant not in variants:
            return (wanted,)
        return tuple(
            replace(wanted, variant=one) for one in variants[variants.index(wanted.variant) :]
        )


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The handle for any blob.

    Attributes:
        media_type: as written; not checked against a list here.
        digest: of the stored bytes.
        size: of the stored bytes.
        annotations: read-only; may be empty.
        platform: only in the entries of an index.
        artifact_type: only where the manifest behind it has one.
        urls: where else the bytes are said to be. Nobody reads from there.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: _EMPTY, hash=False, repr=False)
    platform: Platform | None = None
    artifact_type: str | None = None
    urls: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_attestation(self) -> bool:
        """Whether, as the entry of an index, it says that it is an attestation, as of BuildKit."""
        nowhere = self.platform is not None and self.platform.is_none
        return nowhere or bool(self.annotations.get(_ATTESTATION))

    @property
    def is_artifact(self) -> bool:
        """Whether, as the entry of an index, it says that it is no image of a platform.

        An attestation may name the platform of the image that it is about.

        Spec: BuildKit, docs/attestations/attestation-storage.md; OCI image-spec v1.1,
        descriptor.md, `artifactType`.
        """
        return (
            is_artifact_type(self.artifact_type)
            or self.media_type not in MANIFEST_TYPES | INDEX_TYPES
            or self.is_attestation
        )

    @property
    def artifact_kind(self) -> str:
        """What an entry that is no image calls itself; "" if it does not say."""
        return self.artifact_type or self.annotations.get(_ATTESTATION, "")

    @property
    def attested(self) -> Digest | None:
        """The manifest in the same index that an attestation of BuildKit says it is about."""
        try:
            return parse_digest(self.annotations.get(_ATTESTED, ""), what=_ATTESTED)
        except (FormatError, Unsupported):
            return None

    @property
    def is_reference(self) -> bool:
        """Whether, as a layer, it is a foreign one whose bytes are somewhere else.

        Spec: OCI image-spec v1.1, layer.md, "Non-Distributable Layers".
        """
        return bool(self.urls) and is_foreign(self.media_type)

    def to_json(self) -> JSONObject:
        """The members in the order of the specification's examples."""
        value: JSONObject = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform is not None:
            platform: JSONObject = {
                "architecture": self.platform.architecture,
                "os": self.platform.os,
            }
            if self.platform.variant:
                platform["variant"] = self.platform.variant
            value["platform"] = platform
        if self.artifact_type is not None:
            value["artifactType"] = self.artifact_type
        return value


def is_artifact_type(kind: str | None) -> bool:
    """Whether an `artifactType` says that there is something else than an image."""
    # Some repeat there what the config of an image is.
    return bool(kind) and kind not in IMAGE_CONFIG_TYPES


def parse_descriptor(view: View) -> Descriptor:
    """A `Descriptor` from its JSON. Unknown members are ignored, as the specification asks.

    Raises:
        FormatError: a member is missing, has another type, or a value out of range.
    """
    view.check_spelling(_MEMBERS)
    media_type = view.text("mediaType")
    if not _MEDIA_TYPE.match(media_type):
        raise view.error(f"expected a media type, got {media_type[:80]!r}", "mediaType")
    urls = view.value.get("urls")
    if urls is not None and not isinstance(urls, list):
        raise view.error("expected a list", "urls")
    return Descriptor(
        media_type=media_type,
        digest=parse_digest(view.text("digest"), what=view.what, where=view.at("digest")),
        size=view.integer("size"),
        annotations=MappingProxyType(view.string_map("annotations")),
        platform=_parse_platform(view.optional_object("platform")),
        artifact_type=view.optional_text("artifactType"),
        urls=tuple(one for one in urls or () if isinstance(one, str)),
    )


def _parse_platform(view: View | None) -> Platform | None:
    if view is None:
        return None
    view.check_spelling(_PLATFORM_MEMBERS)
    platform = Platform(
        *(view.optional_text(name) or "" for name in ("os", "architecture", "variant"))
    )
    # Go writes `{}` for a platform that nobody has set; half of one is none either.
    return platform if platform.os and platform.architecture else None
