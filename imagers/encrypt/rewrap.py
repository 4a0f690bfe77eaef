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

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagers.core import Allowance, Budget, Limits, run_layers
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
    build_manifest,
    write_config_and_manifest,
)
from imagers.encrypt.schemes.broker import parse_packet
from imagers.encrypt.sealing import LayerRun, left_out, plan_copied, seal_into, wrap_options
from imagers.errors import FormatError, Unsupported, UsageError
from imagers.model.manifest import MAX_MANIFEST_BYTES
from imagers.model.media import is_encrypted
from imagers.model.strict_json import View, dump_json
from imagers.pki.der import encode, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from imagers.core import Cancellation, Means, Progress
    from imagers.model.descriptor import Descriptor
    from imagers.model.image import Image, ImageSink, Layer
    from imagers.model.keys import KeyUnwrapper, KeyWrapper, WrappedKey

__all__ = [
    "CertificateTarget",
    "JWETarget",
    "NameTarget",
    "PGPTarget",
    "PacketTarget",
    "Target",
    "add_recipients",
    "remove_recipients",
]

_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class JWETarget:
    """Whoever has the key with this id.

    Attributes:
        kid: as the header of the JWE has it.
        name: in messages.
    """

    kid: str
    name: str

    def drop_from(self, wrapped: WrappedKey, number: int) -> bytes | None:
        """The packet without them; None if nobody is left in it."""
        del number
        if wrapped.scheme != "jwe":
            return wrapped.packet
        from imagers.encrypt.schemes.jwe import parse_jwe

        try:
            headers = parse_jwe(wrapped.packet).headers
        except FormatError:
            return wrapped.packet
        stay = [header.get("kid") != self.kid for header in headers]
        if all(stay):
            return wrapped.packet
        if not any(stay):
            return None
        document = View.parse(wrapped.packet, what="JWE", max_bytes=_MAX_BYTES).value
        recipients = document["recipients"]
        assert isinstance(recipients, list)  # parsed before, and more than one
        left = [one for one, keep in zip(recipients, stay, strict=True) if keep]
        document["recipients"] = left
        if "encrypted_key" in document:  # go-jose repeats the first one's at the top
            assert isinstance(left[0], dict)
            document["encrypted_key"] = left[0].get("encrypted_key")
        return dump_json(document)


@dataclass(frozen=True, slots=True)
class CertificateTarget:
    """Whoever has the key of this certificate.

    Attributes:
        issuer: DER of its name.
        serial: number of the certificate.
        name: in messages.
    """

    issuer: bytes
    serial: int
    name: str

    def drop_from(self, wrapped: WrappedKey, number: int) -> bytes | None:
        """The packet without them; None if nobody is left in it."""
        del number
        if wrapped.scheme != "pkcs7":
            return wrapped.packet
        from imagers.encrypt.schemes.pkcs7 import parse_recipients_of

        try:
            recipients = parse_recipients_of(wrapped.packet)
        except FormatError:
            return wrapped.packet
        stay = [(one.issuer, one.serial) != (self.issuer, self.serial) for one in recipients]
        if all(stay):
            return wrapped.packet
        return self._cut(wrapped.packet, stay) if any(stay) else None

    @staticmethod
    def _cut(packet: bytes, stay: list[bool]) -> bytes:
        """The message without some of its recipients; it was parsed before."""
        what = "PKCS7"
        kind, content = split(split(packet, what=what)[0].content, what=what)
        parts = split(split(content.content, what=what)[0].content, what=what)
        keep = iter(stay)
        rebuilt = [
            encode(
                0x31,
                *(
                    one.raw
                    for one in split(part.content, what=what)
                    if one.tag != 0x30 or next(keep)
                ),
            )
            if part.tag == 0x31
            else part.raw
            for part in parts
        ]
        return encode(0x30, kind.raw, encode(0xA0, encode(0x30, *rebuilt)))


@dataclass(frozen=True, slots=True)
class PGPTarget:
    """Whoever has the OpenPGP key with one of these ids.

    Attributes:
        key_ids: of 8 bytes each, of the key's subkeys.
        name: in messages.
    """

    key_ids: frozenset[bytes]
    name: str

    def drop_from(self, wrapped: WrappedKey, number: int) -> bytes | None:
        """The packet without them; None if nobody is left in it."""
        del number
        if wrapped.scheme != "pgp":
            return wrapped.packet
        from imagers.encrypt.schemes.pgp_packets import split_session_keys

        try:
            session_keys, rest = split_session_keys(wrapped.packet)
        except FormatError:
            return wrapped.packet
        left = [one.raw for one in session_keys if one.key_id not in self.key_ids]
        if len(left) == len(session_keys):
            return wrapped.packet
        return b"".join(left) + rest if left else None


@dataclass(frozen=True, slots=True)
class NameTarget:
    """A key at a broker, or all that a provider wrapped.

    Attributes:
        scheme: `provider.NAME`; "" for any.
        kid: of the key at a broker, whatever address a packet names beside it; "" for all
            packets of the scheme.
        name: in messages.
    """

    scheme: str
    kid: str
    name: str

    def drop_from(self, wrapped: WrappedKey, number: int) -> bytes | None:
        """None for a packet of theirs: it is for nobody else."""
        del number
        if not wrapped.scheme.startswith("provider.") or self.scheme not in ("", wrapped.scheme):
            return wrapped.packet
        if self.kid:
            try:
                packet = parse_packet(wrapped.packet, what="")
            except (FormatError, Unsupported):
                return wrapped.packet
            return None if self.kid in (packet.kid, packet.resource) else wrapped.packet
        return None


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


Target = JWETarget | CertificateTarget | PGPTarget | NameTarget | PacketTarget
"""Who is to be removed."""


def add_recipients(
    image: Image,
    sink: ImageSink,
    wrappers: Sequence[KeyWrapper],
    unwrappers: Iterable[KeyUnwrapper],
    *,
    by_name: bool = True,
    budget: Budget = Budget(),  # noqa: B008  # frozen
    on_progress: Callable[[Layer, Progress], None] | None = None,
    cancellation: Cancellation | None = None,
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
    return _write(
        image,
        sink,
        descriptors,
        keys,
        by_name=by_name,
        budget=budget,
        on_progress=on_progress,
        cancellation=cancellation,
    )


def remove_recipients(
    image: Image,
    sink: ImageSink,
    targets: Sequence[Target],
    unwrappers: Iterable[KeyUnwrapper] = (),
    *,
    by_name: bool = True,
    budget: Budget = Budget(),  # noqa: B008  # frozen
    on_progress: Callable[[Layer, Progress], None] | None = None,
    cancellation: Cancellation | None = None,
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
    return _write(
        image,
        sink,
        descriptors,
        names,
        by_name=by_name,
        budget=budget,
        on_progress=on_progress,
        cancellation=cancellation,
    )


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
    *,
    by_name: bool,
    budget: Budget,
    on_progress: Callable[[Layer, Progress], None] | None,
    cancellation: Cancellation | None,
) -> RewrittenImage:
    size = len(build_manifest(image, descriptors, was_docker=False))
    if size > MAX_MANIFEST_BYTES:
        raise UsageError(
            f"the manifest would have {size} bytes, and readers take at most {MAX_MANIFEST_BYTES}"
        )
    layers = list(image.layers())

    allowance = Allowance(Limits())

    def copy(index: int, means: Means, stop: Cancellation) -> LayerReport:
        layer, descriptor = layers[index], descriptors[index]
        start = time.monotonic()
        run = LayerRun(means, on_progress, stop, allowance)
        seal_into(plan_copied(layer, was_docker=False), sink, run)
        changed = descriptor != layer.descriptor
        encrypted = is_encrypted(descriptor.media_type)
        kept = LayerAction.KEPT if encrypted else LayerAction.COPIED
        packets = read_wrapped_keys(descriptor, what=layer.what)
        return LayerReport(
            index=layer.index,
            action=LayerAction.REWRAPPED if changed else kept,
            media_type=descriptor.media_type,
            cipher="",
            schemes=tuple(dict.fromkeys(wrapped.scheme for wrapped in packets)),
            keys=keys if changed else (),
            source_size=descriptor.size,
            size=descriptor.size,
            seconds=time.monotonic() - start,
            left_out=left_out(layer.descriptor, descriptor),
        )

    sizes = [layer.descriptor.size for layer in layers]
    reports = run_layers(sizes, budget, copy, cancellation=cancellation)
    return RewrittenImage(
        *write_config_and_manifest(image, sink, descriptors, was_docker=False, by_name=by_name),
        tuple(reports),
        was_docker=False,
    )
