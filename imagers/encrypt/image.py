"""Whole images: encrypt one, decrypt one.

    encrypt    plan every layer ─▶ wrap all keys ─▶ seal layer by layer ─▶ config ─▶ manifest
    decrypt    read annotations ─▶ unwrap all keys ─▶ open layer by layer ─▶ config ─▶ manifest

Nothing that can fail early fails late: recipients, key files, brokers, media types and the
size of the new manifest are tried before the first byte of a layer moves. Each blob gets its
name in the sink after its own checks, and the manifest, which makes an image of them, comes
last; so a failure leaves no image.

Config and manifest stay readable to everybody: environment, labels, history, sizes.

A Docker manifest cannot say that a layer is encrypted; it becomes an OCI manifest, and the
result says so. Unknown members and other annotations are kept.

Spec: containers/ocicrypt v1.3.2, encryption.go; containers/image, copy/encryption.go.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagers.core import CipherParameters, open_layer, seal_layer
from imagers.encrypt.annotations import clear_annotations, write_annotations
from imagers.encrypt.keys import LayerKey, LayerKeys, unwrap_layer_keys
from imagers.encrypt.options import (
    AES_256_CTR_HMAC_SHA256,
    PublicOptions,
    build_private_options,
    check_cipher,
)
from imagers.encrypt.rewrite import (
    LayerAction,
    LayerReport,
    RewrittenImage,
    build_manifest,
    write_config_and_manifest,
)
from imagers.errors import PolicyDenied, ProviderFailed, UsageError
from imagers.model.digest import Digest
from imagers.model.keys import WrapContext, WrappedKey, random_secret
from imagers.model.manifest import MAX_MANIFEST_BYTES
from imagers.model.media import (
    DOCKER_MANIFEST,
    Compression,
    compressed_media_type,
    compression_of,
    encrypted_media_type,
    is_encrypted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from imagers.core import Cancellation, Progress
    from imagers.model.descriptor import Descriptor
    from imagers.model.image import Image, ImageSink, Layer, StagedBlob
    from imagers.model.keys import KeyUnwrapper, KeyWrapper

__all__ = [
    "DecryptedImage",
    "EncryptedImage",
    "LayerAction",
    "LayerKey",
    "LayerKeys",
    "LayerReport",
    "decrypt_image",
    "encrypt_image",
    "select_layers",
    "unwrap_layer_keys",
]

_NONCE_BYTES = 16
_KEY_BYTES = 32
_HASH_PIECE = 1024 * 1024
# Longest digest and size that a layer can get: for the size of a manifest that is not yet.
_NO_DIGEST = Digest("sha256", "0" * 64)
_LONGEST_SIZE = 2**63 - 1


class EncryptedImage(RewrittenImage):
    """An image that `encrypt_image` has written."""

    __slots__ = ()


class DecryptedImage(RewrittenImage):
    """An image that `decrypt_image` has written."""

    __slots__ = ()


def select_layers(count: int, layers: Sequence[int] | None) -> frozenset[int]:
    """The indexes that a selection names: 0 is the base, -1 the last; None names all.

    Raises:
        UsageError: an index that the image has not.
    """
    if layers is None:
        return frozenset(range(count))
    for index in layers:
        if not -count <= index < count:
            raise UsageError(
                f"the image has no layer {index}: expected a number from {-count} to {count - 1}"
                if count
                else f"the image has no layer {index}: it has none at all"
            )
    return frozenset(index % count for index in layers)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one layer becomes; `cipher` is None for a layer that is copied."""

    layer: Layer
    media_type: str
    source_compression: Compression
    compress: Compression | None = None
    cipher: CipherParameters | None = None
    wrapped: tuple[WrappedKey, ...] = ()

    def describe(self, digest: Digest, size: int, hmac: bytes) -> Descriptor:
        """The descriptor of the sealed layer."""
        old = self.layer.descriptor
        if self.cipher is None:
            return replace(old, media_type=self.media_type, digest=digest, size=size)
        return replace(
            old,
            media_type=self.media_type,
            digest=digest,
            size=size,
            annotations=write_annotations(
                old.annotations, PublicOptions(self.cipher.name, hmac), self.wrapped
            ),
        )


def encrypt_image(
    image: Image,
    sink: ImageSink,
    wrappers: Sequence[KeyWrapper],
    *,
    layers: Sequence[int] | None = None,
    cipher: str = AES_256_CTR_HMAC_SHA256,
    compress: Compression | None = Compression.GZIP,
    allow_nothing: bool = False,
    by_name: bool = True,
    on_layer: Callable[[LayerReport], None] | None = None,
    on_progress: Callable[[Layer, Progress], None] | None = None,
    cancellation: Cancellation | None = None,
) -> EncryptedImage:
    """Write `image` into `sink` with its layers encrypted, each under a fresh key of its own.

    The image is not verified: who wants to encrypt only what they trust verifies before. What
    is read is held against its descriptors, and where a tar passes by, against its diff_id.

    Args:
        wrappers: at least one; each wraps the keys of all selected layers.
        layers: which, as of `select_layers`. Layers that are encrypted already stay as they
            are, for whom they are.
        compress: what becomes of selected layers that are plain tars; None keeps them so.
        allow_nothing: whether an image may come out as it went in.
        by_name: whether the manifest gets the name of the sink; else it is stored under its
            digest only, for an index to point to.
        on_layer: is called when a layer is done.
        on_progress: is called while one is being done.

    Raises:
        UsageError: no wrapper, no such layer, or nothing to encrypt.
        Unsupported: a cipher or a selected layer's media type.
        KeyUnavailable: a wrapper failed.
        IntegrityError, FormatError: a blob is not what its descriptor says.
        Cancelled, LocalError, RemoteError: the work could not be finished.
    """
    check_cipher(cipher, what="encryption")
    if not wrappers:
        raise UsageError("expected at least one recipient to encrypt for")
    all_layers = list(image.layers())
    chosen = {
        index
        for index in select_layers(len(all_layers), layers)
        if not is_encrypted(all_layers[index].descriptor.media_type)
    }
    if not chosen and not allow_nothing:
        raise UsageError(
            "there is nothing to encrypt: "
            + ("no layer" if not all_layers else "every selected layer is encrypted already"),
            hint="choose other layers, or say --allow-nothing: the image then stays as it is",
        )
    was_docker = bool(chosen) and image.manifest.descriptor.media_type == DOCKER_MANIFEST
    with ExitStack() as stack:
        plans = []
        for layer in all_layers:
            if layer.index in chosen:
                plan = _draw_key(_plan_sealed(layer, compress), cipher, wrappers, stack)
            else:
                plan = _plan_copied(layer, was_docker=was_docker)
            plans.append(plan)
        _check_manifest_size(image, plans, was_docker=was_docker)
        reports: list[LayerReport] = []
        descriptors: list[Descriptor] = []
        for plan in plans:
            start = time.monotonic()
            descriptor = _seal(plan, sink, on_progress, cancellation)
            descriptors.append(descriptor)
            report = _report_sealed(plan, descriptor, wrappers, time.monotonic() - start)
            reports.append(report)
            if on_layer is not None:
                on_layer(report)
    return EncryptedImage(
        *write_config_and_manifest(
            image, sink, descriptors, was_docker=was_docker, by_name=by_name
        ),
        tuple(reports),
        was_docker,
    )


def _plan_copied(layer: Layer, *, was_docker: bool) -> _Plan:
    media_type = layer.descriptor.media_type
    if was_docker and not is_encrypted(media_type):
        # To the OCI name of the same thing.
        media_type = compressed_media_type(media_type, compression_of(media_type))
    return _Plan(layer, media_type, Compression.NONE)


def _plan_sealed(layer: Layer, compress: Compression | None) -> _Plan:
    media_type = layer.descriptor.media_type
    compression = compression_of(media_type)
    if compression is Compression.NONE and compress is not None:
        media_type = compressed_media_type(media_type, compress)
    else:
        compress = None
    return _Plan(layer, encrypted_media_type(media_type), compression, compress)


def _draw_key(plan: _Plan, cipher: str, wrappers: Sequence[KeyWrapper], stack: ExitStack) -> _Plan:
    """`plan` with a fresh key, wrapped for everybody."""
    what = plan.layer.what
    key = stack.enter_context(random_secret(_KEY_BYTES))
    nonce = os.urandom(_NONCE_BYTES)
    # The digest is of the blob that we are handed, as skopeo writes it; nobody compares it.
    digest = plan.layer.descriptor.digest
    wrapped = []
    with build_private_options(key, nonce, digest=digest) as document:
        for wrapper in wrappers:
            packet = wrapper.wrap(document, WrapContext(what))
            if not packet:
                raise ProviderFailed(f"{what}: the scheme {wrapper.scheme} gave no packet")
            wrapped.append(WrappedKey(wrapper.scheme, packet))
    return replace(plan, cipher=CipherParameters(cipher, key, nonce), wrapped=tuple(wrapped))


def _check_manifest_size(image: Image, plans: Sequence[_Plan], *, was_docker: bool) -> None:
    """Nothing, if the manifest to come is one that readers take."""
    draft = [plan.describe(_NO_DIGEST, _LONGEST_SIZE, bytes(32)) for plan in plans]
    size = len(build_manifest(image, draft, was_docker=was_docker))
    if size > MAX_MANIFEST_BYTES:
        raise UsageError(
            f"the manifest would have {size} bytes, and readers take at most {MAX_MANIFEST_BYTES}",
            hint="encrypt for fewer recipients",
        )


def _seal(
    plan: _Plan,
    sink: ImageSink,
    on_progress: Callable[[Layer, Progress], None] | None,
    cancellation: Cancellation | None,
) -> Descriptor:
    """The layer in the sink, sealed or copied."""
    layer = plan.layer
    if plan.cipher is None and sink.has_blob(layer.descriptor):
        return plan.describe(layer.descriptor.digest, layer.descriptor.size, b"")
    source = layer.open_raw()
    try:
        with sink.stage_blob() as blob:
            sealed = seal_layer(
                source,
                blob.fileno(),
                expected=layer.descriptor,
                cipher=plan.cipher,
                source_compression=plan.source_compression,
                compress=plan.compress,
                # Only a tar that passes by can be held against its diff_id.
                diff_id=layer.diff_id
                if plan.cipher is not None and plan.source_compression is Compression.NONE
                else None,
                what=layer.what,
                max_bytes=None,
                on_progress=_for_layer(on_progress, layer),
                cancellation=cancellation,
            )
            digest = layer.descriptor.digest if plan.cipher is None else sealed.digest
            descriptor = plan.describe(digest, sealed.size, sealed.hmac)
            blob.commit(descriptor, what=layer.what)
            return descriptor
    finally:
        source.close()


def _for_layer(
    on_progress: Callable[[Layer, Progress], None] | None, layer: Layer
) -> Callable[[Progress], None] | None:
    return None if on_progress is None else lambda progress: on_progress(layer, progress)


def _report_sealed(
    plan: _Plan, descriptor: Descriptor, wrappers: Sequence[KeyWrapper], seconds: float
) -> LayerReport:
    if plan.cipher is not None:
        action = LayerAction.ENCRYPTED
    elif is_encrypted(plan.media_type):
        action = LayerAction.KEPT
    else:
        action = LayerAction.COPIED
    return LayerReport(
        index=plan.layer.index,
        action=action,
        media_type=descriptor.media_type,
        cipher="" if plan.cipher is None else plan.cipher.name,
        schemes=tuple(wrapped.scheme for wrapped in plan.wrapped),
        keys=tuple(one for wrapper in wrappers for one in wrapper.recipients)
        if plan.wrapped
        else (),
        source_size=plan.layer.descriptor.size,
        size=descriptor.size,
        seconds=seconds,
    )


def decrypt_image(
    image: Image,
    sink: ImageSink,
    unwrappers: Iterable[KeyUnwrapper],
    *,
    require_encrypted: bool = False,
    by_name: bool = True,
    on_layer: Callable[[LayerReport], None] | None = None,
    on_progress: Callable[[Layer, Progress], None] | None = None,
    cancellation: Cancellation | None = None,
) -> DecryptedImage:
    """Write `image` into `sink` with all its layers in the clear, each held to its diff_id.

    The image is *not* trusted: anybody who knows a recipient's public key can make one that
    decrypts. Who wants to know who made it verifies a signature before. Keys that a broker
    binds to an image are refused here, because no digest of a trusted manifest is told.

    Args:
        require_encrypted: whether a layer that came in the clear is refused.
        by_name, on_layer, on_progress: as of `encrypt_image`.

    Raises:
        PolicyDenied: a layer came in the clear, against `require_encrypted`.
        NoMatchingKey, KeyUnavailable: a layer's key is not to be had.
        TagMismatch, DigestMismatch, SizeMismatch, Truncated, TrailingData: the bytes are
            other ones than were encrypted, or than manifest and config say.
        FormatError, Unsupported: something is not, or not here, a layer of an image.
        Cancelled, LocalError, RemoteError: the work could not be finished.
    """
    layers = list(image.layers())
    for layer in layers:
        if is_encrypted(layer.descriptor.media_type):
            continue
        if require_encrypted:
            raise PolicyDenied(
                f"{layer.what}: is not encrypted, and every layer has to be",
                hint="somebody may have put a layer of their own in its place",
            )
        compression_of(layer.descriptor.media_type)
    reports: list[LayerReport] = []
    descriptors: list[Descriptor] = []
    with unwrap_layer_keys(layers, unwrappers, manifest_digest=None) as keys:
        for layer, key in zip(layers, keys, strict=True):
            start = time.monotonic()
            descriptor = _open(layer, key, sink, on_progress, cancellation)
            descriptors.append(descriptor)
            report = LayerReport(
                index=layer.index,
                action=LayerAction.COPIED if key is None else LayerAction.DECRYPTED,
                media_type=descriptor.media_type,
                cipher="" if key is None else key.cipher.name,
                schemes=() if key is None else (key.scheme,),
                keys=() if key is None else (key.opened_by,),
                source_size=layer.descriptor.size,
                size=descriptor.size,
                seconds=time.monotonic() - start,
            )
            reports.append(report)
            if on_layer is not None:
                on_layer(report)
    return DecryptedImage(
        *write_config_and_manifest(image, sink, descriptors, was_docker=False, by_name=by_name),
        tuple(reports),
        was_docker=False,
    )


def _open(
    layer: Layer,
    key: LayerKey | None,
    sink: ImageSink,
    on_progress: Callable[[Layer, Progress], None] | None,
    cancellation: Cancellation | None,
) -> Descriptor:
    """The layer in the sink in the clear, after all its checks."""
    old = layer.descriptor
    source = layer.open_raw()
    try:
        with sink.stage_blob() as blob:
            open_layer(
                source,
                blob.fileno(),
                expected=old,
                cipher=None if key is None else key.cipher,
                hmac=None if key is None else key.hmac,
                compression=compression_of(old.media_type) if key is None else key.compression,
                diff_id=layer.diff_id,
                decompress=False,
                what=layer.what,
                on_progress=_for_layer(on_progress, layer),
                cancellation=cancellation,
            )
            if key is None:
                descriptor = old
            else:
                digest, size = _digest_of_staged(blob)
                descriptor = replace(
                    old,
                    media_type=key.media_type,
                    digest=digest,
                    size=size,
                    annotations=clear_annotations(old.annotations),
                )
            blob.commit(descriptor, what=layer.what)
            return descriptor
    finally:
        source.close()


def _digest_of_staged(blob: StagedBlob) -> tuple[Digest, int]:
    """Digest and size of what was written: the core tells those of what it read."""
    hasher = hashlib.sha256()
    size = 0
    while piece := os.pread(blob.fileno(), _HASH_PIECE, size):
        hasher.update(piece)
        size += len(piece)
    return Digest("sha256", hasher.hexdigest()), size
