# SPDX-License-Identifier: Apache-2.0
"""Whole images: encrypt one, decrypt one.

    encrypt    plan every layer ─▶ wrap all keys ─▶ seal all layers ─▶ config ─▶ manifest
    decrypt    read annotations ─▶ unwrap all keys ─▶ open all layers ─▶ config ─▶ manifest

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

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from imagers.core import Allowance, Cancellation, Limits, run_layers
from imagers.encrypt.keys import LayerKey, LayerKeys, unwrap_layer_keys
from imagers.encrypt.options import AES_256_CTR_HMAC_SHA256, check_cipher
from imagers.encrypt.rewrite import (
    LayerAction,
    LayerReport,
    RewrittenImage,
    Run,
    write_config_and_manifest,
)
from imagers.encrypt.sealing import (
    LayerRun,
    SharedLayers,
    check_manifest_size,
    draw_key,
    open_into,
    plan_copied,
    plan_sealed,
    report_sealed,
    seal_into,
)
from imagers.encrypt.selection import LayerSelection, select_layers
from imagers.errors import PolicyDenied, UsageError
from imagers.model.image import Image, ImageSink
from imagers.model.keys import KeyUnwrapper, KeyWrapper
from imagers.model.media import DOCKER_MANIFEST, Compression, compression_of, is_encrypted

if TYPE_CHECKING:
    from imagers.core import Resources
    from imagers.model.descriptor import Descriptor

    DoneLayer = tuple[Descriptor, LayerReport]

__all__ = [
    "LayerAction",
    "LayerKey",
    "LayerKeys",
    "LayerReport",
    "decrypt_image",
    "encrypt_image",
    "select_layers",
    "unwrap_layer_keys",
]


def encrypt_image(
    image: Image,
    sink: ImageSink,
    wrappers: Sequence[KeyWrapper],
    *,
    layers: Sequence[LayerSelection] | None = None,
    skip_base: int = 0,
    cipher: str = AES_256_CTR_HMAC_SHA256,
    compress: Compression | None = Compression.GZIP,
    allow_nothing: bool = False,
    shared: SharedLayers | None = None,
    run: Run = Run(),  # noqa: B008  # frozen
) -> RewrittenImage:
    """Write `image` into `sink` with its layers encrypted, each under a fresh key of its own.

    The image is not verified: whoever wants to encrypt only what they trust verifies before. What
    is read is held against its descriptors, and where a tar passes by, against its diff_id.

    Args:
        wrappers: at least one; each wraps the keys of all selected layers.
        layers: which, as `select_layers` takes them. Layers that are encrypted already stay as they
            are, for whom they are.
        skip_base: so many of the lowest layers stay in the clear; not with `layers`.
        cipher: one of `CIPHERS`; readers other than imagers have only the default.
        compress: what becomes of selected layers that are plain tars, but for those whose
            first MiBs hardly shrink; None keeps them so.
        allow_nothing: whether an image may come out as it went in.
        shared: layers of other images of the same index, which are encrypted only once.

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
        for index in select_layers(len(all_layers), layers, skip_base=skip_base)
        if not is_encrypted(all_layers[index].descriptor.media_type)
    }
    if not chosen and not allow_nothing:
        raise UsageError(
            "there is nothing to encrypt: "
            + ("no layer" if not all_layers else "every selected layer is encrypted already"),
            hint="to let others read it: --add-recipient; to have it as it is: --allow-nothing",
        )
    was_docker = bool(chosen) and image.manifest.descriptor.media_type == DOCKER_MANIFEST
    with ExitStack() as stack:
        plans = []
        for layer in all_layers:
            if layer.index in chosen:
                plan = plan_sealed(layer, compress)
                if shared is not None and (known := shared.find(layer)) is not None:
                    plan = replace(plan, done=known)
                else:
                    plan = draw_key(plan, cipher, wrappers, stack)
            else:
                plan = plan_copied(layer, was_docker=was_docker)
            plans.append(plan)
        check_manifest_size(image, plans, was_docker=was_docker)
        allowance = Allowance(Limits())

        def seal(index: int, resources: Resources, stop: Cancellation) -> DoneLayer:
            plan = plans[index]
            with run.watch(plan.layer) as watch:
                one = LayerRun(resources, watch, stop, allowance)
                descriptor, moved = seal_into(plan, sink, one)
            report = report_sealed(plan, descriptor, wrappers, watch.seconds, moved=moved)
            return descriptor, report

        done = run_layers(
            [plan.layer.descriptor.size for plan in plans],
            run.budget,
            seal,
            cancellation=run.cancellation,
        )
    if shared is not None:
        for plan, (descriptor, _) in zip(plans, done, strict=True):
            if plan.cipher is not None:
                shared.remember(plan.layer, descriptor)
    descriptors = [descriptor for descriptor, _ in done]
    return RewrittenImage(
        *write_config_and_manifest(
            image, sink, descriptors, was_docker=was_docker, by_name=run.by_name
        ),
        tuple(report for _, report in done),
        was_docker,
    )


def decrypt_image(
    image: Image,
    sink: ImageSink,
    unwrappers: Iterable[KeyUnwrapper],
    *,
    require_encrypted: bool = False,
    skip_diff_id: bool = False,
    shared: SharedLayers | None = None,
    run: Run = Run(),  # noqa: B008  # frozen
) -> RewrittenImage:
    """Write `image` into `sink` with all its layers in the clear, each held to its diff_id.

    The image is *not* trusted: anybody who knows a recipient's public key can make one that
    decrypts. Whoever wants to know who made it verifies a signature before. Keys that a broker
    binds to an image are refused here, because no digest of a trusted manifest is told.

    Args:
        require_encrypted: whether a layer that came in the clear is refused.
        skip_diff_id: leaves out the one check for which layers are decompressed. What was
            encrypted is still what comes out, but perhaps not what the config names: only
            for what is encrypted anew and checked by whoever pulls it.
        shared: layers of other images of the same index, which are decrypted only once.

    Raises:
        PolicyDenied: a layer came in the clear, or there is none, against `require_encrypted`.
        NoMatchingKey, KeyUnavailable: a layer's key is not to be had.
        TagMismatch, DigestMismatch, SizeMismatch, Truncated, TrailingData: the bytes are
            other ones than were encrypted, or than manifest and config say.
        FormatError, Unsupported: something is not, or not here, a layer of an image.
        Cancelled, LocalError, RemoteError: the work could not be finished.
    """
    layers = list(image.layers())
    if require_encrypted and not layers:
        raise PolicyDenied("every layer has to be encrypted, and the image has none")
    for layer in layers:
        if is_encrypted(layer.descriptor.media_type):
            continue
        if require_encrypted:
            raise PolicyDenied(
                f"{layer.what}: is not encrypted, and every layer has to be",
                hint="somebody may have put a layer of their own in its place",
            )
        compression_of(layer.descriptor.media_type, what=layer.what)
    allowance = Allowance(Limits())
    with unwrap_layer_keys(layers, unwrappers, manifest_digest=None) as keys:

        def open_(index: int, resources: Resources, stop: Cancellation) -> DoneLayer:
            layer, key = layers[index], keys[index]
            known = None if shared is None or key is None else shared.find(layer)
            with run.watch(layer) as watch:
                if known is not None:
                    # Encrypted layers that are the same have the same packets, and open alike.
                    descriptor, moved, action = known, False, LayerAction.SHARED
                else:
                    one = LayerRun(resources, watch, stop, allowance)
                    descriptor, moved = open_into(layer, key, sink, one, skip_diff_id=skip_diff_id)
                    action = LayerAction.COPIED if key is None else LayerAction.DECRYPTED
            return descriptor, LayerReport(
                index=layer.index,
                action=action,
                digest=descriptor.digest,
                media_type=descriptor.media_type,
                cipher="" if key is None else key.cipher.name,
                keys=() if key is None else (key.opened_by,),
                source_size=layer.descriptor.size,
                size=descriptor.size,
                seconds=watch.seconds,
                moved=moved,
            )

        done = run_layers(
            [layer.descriptor.size for layer in layers],
            run.budget,
            open_,
            cancellation=run.cancellation,
        )
        if shared is not None:
            for layer, key, (descriptor, _) in zip(layers, keys, done, strict=True):
                if key is not None:
                    shared.remember(layer, descriptor)
    descriptors = [descriptor for descriptor, _ in done]
    return RewrittenImage(
        *write_config_and_manifest(image, sink, descriptors, was_docker=False, by_name=run.by_name),
        tuple(report for _, report in done),
        was_docker=False,
    )
