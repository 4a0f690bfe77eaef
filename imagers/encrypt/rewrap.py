# SPDX-License-Identifier: Apache-2.0
"""Other recipients for an encrypted image, its layers' bytes untouched.

    rewrap_image(image, sink, added=wrappers, removed=targets, unwrappers=unwrappers)

Who is added gets one packet more a layer and scheme; who is removed loses theirs, or their part of
one. Both at once is a rotation: there is one new manifest, and none that is for both or for nobody.

Annotations of layers change and nothing else: digests and sizes stay, and what was added and is
removed again leaves the manifest as it was. A removed recipient who kept an old copy of the
manifest, or the layer keys, can read the layers as before; only new keys (`imagers.encrypt.rekey`)
end that, and for new copies only.

Who a packet is for stands in it: a key id in JWE, issuer and serial number in CMS, key ids
in OpenPGP, the key's name in a broker's packet. Where nothing does (PKCS11, JWE of other
tools), a packet is named by its number, as `imagers inspect` counts.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

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
from imagers.errors import KeyUnavailable, UsageError
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
    "rewrap_image",
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


def rewrap_image(
    image: Image,
    sink: ImageSink,
    *,
    added: Sequence[KeyWrapper] = (),
    removed: Sequence[Target] = (),
    unwrappers: Iterable[KeyUnwrapper] = (),
    run: Run = Run(),  # noqa: B008  # frozen
) -> RewrittenImage:
    """Write `image` into `sink` with other recipients of all its encrypted layers.

    Layers in the clear stay so. The bytes of layers are copied and held against their
    digests; they are not opened. Whoever is removed keeps what they have of older copies.

    Args:
        added: wrap each layer's key, too.
        removed: are taken out of the packets that the image has now.
        unwrappers: open each layer's key, for who is added. Where nobody is added they may be
            missing; those given must still open each layer afterwards. Else they may be who is
            removed, and the result says whether they still open it.

    Raises:
        UsageError: nobody is added or removed; no layer is encrypted; somebody to remove is in no
            layer, or is added too; nobody would be left.
        NoMatchingKey, KeyUnavailable: a layer's key is not to be had, or not to be wrapped.
        FormatError, Unsupported, IntegrityError, Cancelled, LocalError, RemoteError: as of
            `imagers.encrypt.image.encrypt_image`.
    """
    if not (added or removed):
        raise UsageError("expected at least one recipient to add or to remove")
    layers, unwrappers = list(image.layers()), tuple(unwrappers)
    _require_encrypted(layers)
    hit: set[int] = set()
    missed: list[tuple[Layer, int]] = []
    descriptors = []
    with unwrap_documents(layers, unwrappers) if added else nullcontext() as documents:
        for layer in layers:
            descriptor = layer.descriptor
            if is_encrypted(descriptor.media_type):
                if removed:
                    here: set[int] = set()
                    descriptor = _remove(layer, removed, here)
                    hit |= here
                    missed += [(layer, index) for index in range(len(removed)) if index not in here]
                if documents is not None:
                    document = documents[layer.index]
                    assert document is not None  # it is encrypted
                    wrapped = wrap_options(document, added, layer.what)
                    _check_stay(wrapped, removed)
                    annotations = append_packets(descriptor.annotations, wrapped)
                    descriptor = replace(descriptor, annotations=annotations)
                if not read_wrapped_keys(descriptor, what=layer.what):
                    raise UsageError(
                        f"{layer.what}: nobody would be left to open it",
                        hint="add another recipient in the same command: --add-recipient",
                    )
            descriptors.append(descriptor)
    for index, target in enumerate(removed):
        if index not in hit:
            raise UsageError(
                f"no layer is encrypted for {target.name}",
                hint='"imagers inspect" shows for whom; a packet can be named as SCHEME#NUMBER',
            )
    _check_removed(missed, removed)
    opens = not removed or _still_open(layers, descriptors, unwrappers, must=not added)
    names = tuple(one for wrapper in added for one in wrapper.recipients)
    return replace(_write(image, sink, descriptors, names, run), opens=opens)


@runtime_checkable
class _Named(Protocol):
    """A target whose packets of some tools do not say that they are for it."""

    def may_have(self, wrapped: WrappedKey) -> bool:
        """Whether the packet may be for the target, and does not say so."""


def _check_removed(missed: Sequence[tuple[Layer, int]], removed: Sequence[Target]) -> None:
    """Raise if somebody was found in some layers, and perhaps only not recognised in another."""
    for layer, index in missed:
        target = removed[index]
        packets = read_wrapped_keys(layer.descriptor, what=layer.what)
        if isinstance(target, _Named) and any(target.may_have(one) for one in packets):
            raise UsageError(
                f"{layer.what}: a packet does not say for whom it is: {target.name} may still open "
                "it",
                hint="name the packet as SCHEME#N, by its number; or give the layers new keys, for "
                "new recipients only: --rekey",
            )


def _check_stay(wrapped: Sequence[WrappedKey], removed: Sequence[Target]) -> None:
    """Raise if somebody who is added is among who is removed."""
    for target in removed:
        # A number is one of the packets that were there: none of the new ones has any.
        if any(target.drop_from(packet, 0) != packet.packet for packet in wrapped):
            raise UsageError(
                f"expected other recipients to add than to remove, got {target.name} as both",
                hint="nobody's access would change; --rekey makes new layer keys",
            )


def _still_open(
    layers: Sequence[Layer],
    descriptors: Sequence[Descriptor],
    unwrappers: Sequence[KeyUnwrapper],
    *,
    must: bool,
) -> bool:
    """Whether the keys open the layers with their new packets; true if there are no keys.

    Raises:
        KeyUnavailable: they do not, and must.
    """
    if not unwrappers:
        return True
    changed = [
        replace(layer, descriptor=descriptor)
        for layer, descriptor in zip(layers, descriptors, strict=True)
    ]
    try:
        unwrap_layer_keys(changed, unwrappers, manifest_digest=None).close()
    except KeyUnavailable:
        if must:
            raise
        return False
    return True


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
    return replace(old, annotations=annotations)


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
            digest=descriptor.digest,
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
