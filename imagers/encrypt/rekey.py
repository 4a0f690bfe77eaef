# SPDX-License-Identifier: Apache-2.0
"""New layer keys for an encrypted image: each layer is opened, checked and sealed anew.

    rekey_image(image, sink, wrappers, unwrappers)

The old recipients are not carried over: who shall read the new image is among the wrappers.
The opened layer waits in a file of the sink that never gets a name, and is gone at the end;
so the disk of the machine that holds the decryption keys sees it in the clear.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagers.core import Allowance, Limits, Watch, run_layers
from imagers.encrypt.annotations import clear_annotations
from imagers.encrypt.keys import unwrap_layer_keys
from imagers.encrypt.options import AES_256_CTR_HMAC_SHA256, check_cipher
from imagers.encrypt.rewrite import RewrittenImage, Run, write_config_and_manifest
from imagers.encrypt.sealing import (
    LayerRun,
    check_manifest_size,
    draw_key,
    open_staged,
    plan_copied,
    plan_sealed,
    report_sealed,
    seal_into,
)
from imagers.errors import UsageError
from imagers.model.media import is_encrypted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imagers.core import Cancellation, Resources
    from imagers.encrypt.keys import LayerKey
    from imagers.encrypt.rewrite import LayerReport
    from imagers.encrypt.sealing import LayerPlan
    from imagers.model.descriptor import Descriptor
    from imagers.model.image import Image, ImageSink, Layer
    from imagers.model.keys import KeyUnwrapper, KeyWrapper
    from imagers.model.stream import ByteStream, RawStream

__all__ = ["rekey_image"]


def rekey_image(
    image: Image,
    sink: ImageSink,
    wrappers: Sequence[KeyWrapper],
    unwrappers: Iterable[KeyUnwrapper],
    *,
    cipher: str = AES_256_CTR_HMAC_SHA256,
    run: Run = Run(),  # noqa: B008  # frozen
) -> RewrittenImage:
    """Write `image` into `sink` with a new key for each of its encrypted layers.

    Layers in the clear stay so. Each layer is checked against its HMAC and diff_id.

    Args:
        wrappers: at least one: all recipients of the new image.
        cipher: of the new image.

    Raises:
        UsageError: no wrapper, or no layer is encrypted.
        Others: as for `imagers.encrypt.image.decrypt_image` and `encrypt_image`.
    """
    check_cipher(cipher, what="encryption")
    if not wrappers:
        raise UsageError("expected at least one recipient to encrypt for")
    layers = list(image.layers())
    if not any(is_encrypted(layer.descriptor.media_type) for layer in layers):
        raise UsageError("no layer of the image is encrypted", hint="leave --rekey away")
    with ExitStack() as stack:
        keys = stack.enter_context(unwrap_layer_keys(layers, unwrappers, manifest_digest=None))
        plans = []
        for layer, key in zip(layers, keys, strict=True):
            if key is None:
                plans.append(plan_copied(layer, was_docker=False))
            else:
                plans.append(draw_key(_plan_new(layer, key), cipher, wrappers, stack))
        check_manifest_size(image, plans, was_docker=False)

        # What is opened and what is sealed are two images, each with its own limits.
        opening, sealing = Allowance(Limits()), Allowance(Limits())

        def rekey(
            index: int, resources: Resources, stop: Cancellation
        ) -> tuple[Descriptor, LayerReport]:
            with run.watch(layers[index]) as watch:
                # Opening is what is shown: the bytes to do are those of the old layer.
                runs = [
                    LayerRun(resources, watch, stop, opening),
                    LayerRun(resources, Watch(None, "", 0), stop, sealing),
                ]
                descriptor, moved = _rekey(layers[index], keys[index], plans[index], sink, runs)
            report = report_sealed(plans[index], descriptor, wrappers, watch.seconds, moved=moved)
            return descriptor, report

        done = run_layers(
            [layer.descriptor.size for layer in layers],
            run.budget,
            rekey,
            cancellation=run.cancellation,
        )
    descriptors = [descriptor for descriptor, _ in done]
    return RewrittenImage(
        *write_config_and_manifest(image, sink, descriptors, was_docker=False, by_name=run.by_name),
        tuple(report for _, report in done),
        was_docker=False,
    )


def _in_the_clear(layer: Layer, key: LayerKey) -> Descriptor:
    """The layer's descriptor after decryption, but for digest and size."""
    old = layer.descriptor
    return replace(old, media_type=key.media_type, annotations=clear_annotations(old.annotations))


def _plan_new(layer: Layer, key: LayerKey) -> LayerPlan:
    clear = replace(layer, descriptor=_in_the_clear(layer, key))
    return plan_sealed(clear, None, cipher=key.cipher)


def _rekey(
    layer: Layer,
    key: LayerKey | None,
    plan: LayerPlan,
    sink: ImageSink,
    runs: Sequence[LayerRun],
) -> tuple[Descriptor, bool]:
    run, after = runs
    if key is None:
        return seal_into(plan, sink, run)
    with sink.stage_blob() as staged:
        digest, size, _ = open_staged(layer, key, staged, run)
        descriptor = replace(_in_the_clear(layer, key), digest=digest, size=size)
        opened = replace(layer, descriptor=descriptor, source=_Staged(staged.fileno()))
        return seal_into(replace(plan, layer=opened), sink, after)


@dataclass(frozen=True, slots=True)
class _Staged:
    """The opened layer as the source of the new one; what reads it checks its digest."""

    fd: int

    def open_blob(self, descriptor: Descriptor, *, what: str) -> ByteStream:
        """Not asked for: `imagers.core` reads raw blobs."""
        raise NotImplementedError

    def open_raw_blob(self, descriptor: Descriptor, *, what: str) -> RawStream:
        """The bytes from the start."""
        del descriptor, what
        os.lseek(self.fd, 0, os.SEEK_SET)
        return os.fdopen(os.dup(self.fd), "rb", buffering=0)
