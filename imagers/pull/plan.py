# SPDX-License-Identifier: Apache-2.0
"""What a pull will do: which layers, in what order, with which keys still to be got.

A plan is made of a `TrustedImage` only, before any key is asked for and any layer is
fetched. Layers are applied from the base up, each into the same root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.model.digest import digest_of
from imagers.model.image import Layer
from imagers.model.media import Compression, compression_of, is_encrypted, plaintext_media_type
from imagers.pull.bundle import check_runtime_config

if TYPE_CHECKING:
    from imagers.model.digest import Digest
    from imagers.model.image import BlobSource
    from imagers.pull.trust import TrustedImage

__all__ = ["Plan", "PlannedLayer", "make_plan"]


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """One layer and what has to be done with it.

    Attributes:
        layer: with the descriptor and diff_id that trust fixed.
        is_encrypted: whether a key is needed.
        compression: of the layer once it is decrypted, as its media type says.
    """

    layer: Layer
    is_encrypted: bool
    compression: Compression


@dataclass(frozen=True, slots=True)
class Plan:
    """All layers, base first."""

    trusted: TrustedImage
    layers: tuple[PlannedLayer, ...]

    @property
    def chain_ids(self) -> list[Digest]:
        """Of each layer, with those below it (OCI image-spec v1.1, config.md, "Layer ChainID")."""
        found: list[Digest] = []
        for planned in self.layers:
            own = planned.layer.diff_id
            found.append(digest_of(f"{found[-1]} {own}".encode()) if found else own)
        return found


def make_plan(trusted: TrustedImage, source: BlobSource) -> Plan:
    """The plan for a trusted image whose blobs `source` has.

    Raises:
        FormatError: its config could be read in two ways.
    """
    manifest, config = trusted.manifest, trusted.config
    check_runtime_config(config)
    count = len(manifest.layers)
    layers = []
    for index, (descriptor, diff_id) in enumerate(
        zip(manifest.layers, config.diff_ids, strict=True)
    ):
        encrypted = is_encrypted(descriptor.media_type)
        media_type = (
            plaintext_media_type(descriptor.media_type) if encrypted else descriptor.media_type
        )
        layers.append(
            PlannedLayer(
                layer=Layer(index, count, descriptor, diff_id, source),
                is_encrypted=encrypted,
                compression=compression_of(media_type),
            )
        )
    return Plan(trusted, tuple(layers))
