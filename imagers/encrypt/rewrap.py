# SPDX-License-Identifier: Apache-2.0
"""Other recipients for an encrypted image, its layers' bytes untouched.

    add_recipients(image, sink, wrappers, unwrappers)       one packet more a layer and scheme
    remove_recipients(image, sink, targets)                 their packets, or their part of one

Both change annotations of layers and nothing else: digests and sizes stay, and what was
added and is removed again leaves the manifest as it was. A removed recipient who kept an
old copy of the manifest, or the layer keys, can read the layers as before; only new keys
(`imagers.encrypt.rekey`) end that, and for new copies only.

Who a packet is for stands in it: a key id in JWE, issuer and serial number in CMS, key ids
in OpenPGP, the key's name in a broker's packet. Where nothing does (PKCS11, JWE of other
tools), a packet is named by its number, as `imagers inspect` counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagers.core import Allowance, Limits, run_layers
from imagers.encrypt.annotations import (
    append_packets,
    filter_packets,
    read_annotations,
    read_wrapped_keys,
)
from imagers.encrypt.keys import unwrap_documents, unwrap_layer_keys
from imagers.encrypt.rewrite import (
    LayerAction,
    LayerReport,
    RewrittenImage,
    Run,
    build_manifest,
    write_config_and_manifest,
)
from imagers.encrypt.schemes.scheme import Target
from imagers.encrypt.sealing import LayerRun, bring_layer, left_out, wrap_options
from imagers.errors import UsageError
from imagers.model.manifest import MAX_MANIFEST_BYTES
from imagers.model.media import is_encrypted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imagers.core import Cancellation, Resources
    from imagers.model.descriptor import Descriptor
    from imagers.model.image import Image, ImageSink, Layer
    from imagers.model.keys import KeyUnwrapper, KeyWrapper, WrappedKey

__all__ = [
    "PacketTarget",
    "add_recipients",
    "remove_recipients",
]


@dataclass(frozen=True, slots=True)
class PacketTarget:
    """All recipients of one packet.

    Attributes:
        scheme: of the annotation.
        number: from 1, among the packets of the scheme.
    """

    scheme: str
    number: int

    @property
    def name(self) -> str:
        """As it is given."""
        return f"{self.scheme}#{self.number}"

    def drop_from(self, wrapped: WrappedKey, number: int) -> bytes | None:
        """None for the packet."""
        return None if (wrapped.scheme, number) == (self.scheme, self.number) else wrapped.packet


def add_recipients(
    image: Image,
    sink: ImageSink,
    wrappers: Sequence[KeyWrapper],
    unwrappers: Iterable[KeyUnwrapper],
    *,
    run: Run = Run(),  # noqa: B008  # frozen
) -> RewrittenImage:
    """Write `image` into `sink` with more recipients for all its encrypted layers.

    Layers in the clear stay so. The bytes of layers are copied and held against their
    digests; they are not opened.

    Raises:
        UsageError: no wrapper, or no layer is encrypted.
        NoMatchingKey, KeyUnavailable: a layer's key is not to be had, or not to be wrapped.
        FormatError, Unsupported, IntegrityError, Cancelled, LocalError, RemoteError: as of
            `imagers.encrypt.image.encrypt_image`.
    """
    if not wrappers:
        raise UsageError("expected at least one recipient to add")
    layers = list(image.layers())
    _require_encrypted(layers)
    descriptors = []
    with unwrap_documents(layers, unwrappers) as documents:
        for layer, document in zip(layers, documents, strict=True):
            descriptor = layer.descriptor
            if document is not None:
                wrapped = wrap_options(document, wrappers, layer.what)
                annotations = append_packets(descriptor.annotations, wrapped)
                descriptor = replace(descriptor, annotations=annotations)
            descriptors.append(descriptor)
    keys = tuple(one for wrapper in wrappers for one in wrapper.recipients)
    return _write(image, sink, descriptors, keys, run)


def remove_recipients(
    image: Image,
    sink: ImageSink,
    targets: Sequence[Target],
    unwrappers: Iterable[KeyUnwrapper] = (),
    *,
    run: Run = Run(),  # noqa: B008  # frozen
) -> RewrittenImage:
    """Write `image` into `sink` without some of its recipients.

    That takes nothing from whoever has an older copy of the manifest or the layer keys.

    Args:
        unwrappers: if there are any, each layer must still open with one of them.

    Raises:
        UsageError: a target is in no layer, or is the last recipient of one.
        NoMatchingKey: none of the unwrappers would open a layer any more.
        FormatError, Unsupported, IntegrityError, Cancelled, LocalError, RemoteError: as of
            `add_recipients`.
    """
    if not targets:
        raise UsageError("expected at least one recipient to remove")
    layers = list(image.layers())
    _require_encrypted(layers)
    hit: set[int] = set()
    descriptors = [
        _remove(layer, targets, hit)
        if is_encrypted(layer.descriptor.media_type)
        else layer.descriptor
        for layer in layers
    ]
    for index, target in enumerate(targets):
        if index not in hit:
            raise UsageError(
                f"no layer is encrypted for {target.name}",
                hint='"imagers inspect" shows for whom; a packet can be named as SCHEME#NUMBER',
            )
    unwrappers = tuple(unwrappers)
    if unwrappers:
        changed = [
            replace(layer, descriptor=descriptor)
            for layer, descriptor in zip(layers, descriptors, strict=True)
        ]
        unwrap_layer_keys(changed, unwrappers, manifest_digest=None).close()
    names = tuple(target.name for target in targets)
    return _write(image, sink, descriptors, names, run)


def _require_encrypted(layers: Sequence[Layer]) -> None:
    for layer in layers:
        if is_encrypted(layer.descriptor.media_type):
            read_annotations(layer.descriptor, what=layer.what)
    if not any(is_encrypted(layer.descriptor.media_type) for layer in layers):
        raise UsageError("no layer of the image is encrypted")


def _remove(layer: Layer, targets: Sequence[Target], hit: set[int]) -> Descriptor:
    old = layer.descriptor

    def change(wrapped: WrappedKey, number: int) -> bytes | None:
        packet: bytes | None = wrapped.packet
        for index, target in enumerate(targets):
            if packet is None:
                break
            before = packet
            packet = target.drop_from(replace(wrapped, packet=packet), number)
            if packet != before:
                hit.add(index)
        return packet

    annotations = filter_packets(old.annotations, change, what=layer.what)
    descriptor = replace(old, annotations=annotations)
    if not read_wrapped_keys(descriptor, what=layer.what):
        raise UsageError(
            f"{layer.what}: nobody would be left to open it",
            hint="add another recipient before",
        )
    return descriptor


def _write(
    image: Image,
    sink: ImageSink,
    descriptors: Sequence[Descriptor],
    keys: tuple[str, ...],
    run: Run,
) -> RewrittenImage:
    size = len(build_manifest(image, descriptors, was_docker=False))
    if size > MAX_MANIFEST_BYTES:
        raise UsageError(
            f"the manifest would have {size} bytes, and readers take at most {MAX_MANIFEST_BYTES}"
        )
    layers = list(image.layers())

    allowance = Allowance(Limits())

    def copy(index: int, resources: Resources, stop: Cancellation) -> LayerReport:
        layer, descriptor = layers[index], descriptors[index]
        with run.watch(layer) as watch:
            moved = bring_layer(layer, sink, LayerRun(resources, watch, stop, allowance))
        changed = descriptor != layer.descriptor
        encrypted = is_encrypted(descriptor.media_type)
        kept = LayerAction.KEPT if encrypted else LayerAction.COPIED
        return LayerReport(
            index=layer.index,
            action=LayerAction.REWRAPPED if changed else kept,
            media_type=descriptor.media_type,
            cipher="",
            keys=keys if changed else (),
            source_size=descriptor.size,
            size=descriptor.size,
            seconds=watch.seconds,
            left_out=left_out(layer.descriptor, descriptor),
            moved=moved,
        )

    sizes = [layer.descriptor.size for layer in layers]
    reports = run_layers(sizes, run.budget, copy, cancellation=run.cancellation)
    return RewrittenImage(
        *write_config_and_manifest(image, sink, descriptors, was_docker=False, by_name=run.by_name),
        tuple(reports),
        was_docker=False,
    )
