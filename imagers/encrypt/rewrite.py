# SPDX-License-Identifier: Apache-2.0
"""What encryption and decryption of an image share: the reports and the new manifest.

A changed manifest keeps all that it is not about: other annotations, members that nobody
here knows, the order of members. An unchanged one keeps its bytes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from imagers.core import Budget, Cancellation, OnProgress, Watch
from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest, digest_of
from imagers.model.image import Layer
from imagers.model.media import OCI_CONFIG, OCI_MANIFEST
from imagers.model.strict_json import JSONObject, dump_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imagers.model.image import Image, ImageSink

__all__ = [
    "LayerAction",
    "LayerReport",
    "RewrittenImage",
    "Run",
    "build_manifest",
    "write_config_and_manifest",
]


class LayerAction(Enum):
    """What was done to one layer."""

    ENCRYPTED = "encrypted"
    DECRYPTED = "decrypted"
    COPIED = "copied"  # in the clear before and after
    KEPT = "kept"  # encrypted already, for whom it was
    SHARED = "shared"  # done as a layer of another image of the index
    REWRAPPED = "rewrapped"  # other recipients, the same bytes


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What was done to one layer, and what it cost.

    Attributes:
        index: from 0, the base.
        digest: of the stored bytes afterwards.
        media_type: afterwards.
        cipher: "" for layers that were copied or kept.
        keys: the recipients, or the description of the unwrapper that opened it.
        source_size: stored bytes before.
        size: stored bytes afterwards.
        seconds: from the first byte read to the blob in its place.
        moved: whether its bytes passed here. Else the sink had them, or the registry took them
            from another repository of its own, or another image of the index has the layer too.
        left_out: names of annotations that speak of the layer in the clear, and are not there
            any more.
    """

    index: int
    action: LayerAction
    digest: Digest
    media_type: str
    cipher: str
    keys: tuple[str, ...]
    source_size: int
    size: int
    seconds: float
    left_out: tuple[str, ...] = ()
    moved: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """How the work on an image is done, whatever it is.

    Attributes:
        by_name: whether the manifest gets the name of the sink; else it is stored under its
            digest only, for an index to point to.
        budget: what all layers may use together; the result does not depend on it.
        on_progress: told how far each layer is, in the thread that does it.
        cancellation: ends the work from elsewhere.
    """

    by_name: bool = True
    budget: Budget = field(default_factory=Budget)
    on_progress: OnProgress | None = None
    cancellation: Cancellation | None = None

    def watch(self, layer: Layer) -> Watch:
        """The block that works on a layer."""
        return Watch(self.on_progress, layer.what, layer.descriptor.size)


@dataclass(frozen=True, slots=True)
class RewrittenImage:
    """An image that is in its sink.

    Attributes:
        raw: the manifest, byte for byte.
        media_type: of the manifest.
        descriptor: of the manifest.
        layers: a report each, in order.
        was_docker: whether a Docker manifest became an OCI one.
        opens: whether the keys that opened it before still do; of a change of recipients only.
    """

    raw: bytes = field(repr=False)
    media_type: str
    descriptor: Descriptor
    layers: tuple[LayerReport, ...]
    was_docker: bool
    opens: bool = True

    def count(self, *actions: LayerAction) -> int:
        """How many layers had one of these done to them."""
        return sum(layer.action in actions for layer in self.layers)


def write_config_and_manifest(
    image: Image,
    sink: ImageSink,
    descriptors: Sequence[Descriptor],
    *,
    was_docker: bool,
    by_name: bool,
) -> tuple[bytes, str, Descriptor]:
    """The config and, last of all, the manifest in the sink."""
    manifest = image.manifest
    media_type = OCI_MANIFEST if was_docker else manifest.descriptor.media_type
    unchanged = tuple(descriptors) == manifest.layers
    raw = manifest.raw if unchanged else build_manifest(image, descriptors, was_docker=was_docker)
    sink.put_blob(manifest.config, image.config.raw, what="config")
    sink.put_manifest(raw, media_type, by_name=by_name)
    return raw, media_type, Descriptor(media_type, digest_of(raw), len(raw))


def build_manifest(image: Image, descriptors: Iterable[Descriptor], *, was_docker: bool) -> bytes:
    """The manifest with other layers, and all else as it was."""
    document = copy.deepcopy(image.manifest.document)
    if was_docker:
        document["mediaType"] = OCI_MANIFEST
        config = document["config"]
        assert isinstance(config, dict)  # parsed as a descriptor before
        config["mediaType"] = OCI_CONFIG
    layers = document["layers"] = document.get("layers") or []
    assert isinstance(layers, list)  # parsed as one before
    for index, (old, new) in enumerate(zip(image.manifest.layers, descriptors, strict=True)):
        entry = layers[index]
        assert isinstance(entry, dict)
        if new != old:
            layers[index] = _build_layer(entry, new, old)
    return dump_json(document)


def _build_layer(entry: JSONObject, new: Descriptor, old: Descriptor) -> JSONObject:
    """The descriptor `entry` of a layer with the values of `new`; unknown members are kept."""
    value = dict(entry)
    if new.digest != old.digest:
        # Both speak of the old bytes: where else to get them, and the bytes themselves, which
        # after encryption would be the layer in the clear.
        value.pop("urls", None)
        value.pop("data", None)
    value["mediaType"] = new.media_type
    value["digest"] = str(new.digest)
    value["size"] = new.size
    value.pop("annotations", None)
    if new.annotations:
        value["annotations"] = dict(new.annotations)
    return value
