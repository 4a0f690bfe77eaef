# SPDX-License-Identifier: Apache-2.0
"""One layer's way into a sink: planned, its key drawn and wrapped, sealed, copied or opened.

`image`, `index` and `rekey` decide what becomes of which layer; here it is done. A plan has
all that can fail early: media types, recipients, the size of the manifest to come.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagers.core import CipherParameters, look_at, open_layer, seal_layer
from imagers.encrypt.annotations import (
    annotations_of_the_clear,
    clear_annotations,
    write_annotations,
)
from imagers.encrypt.options import (
    AES256_GCM_HKDF_1MB,
    PublicOptions,
    associated_data,
    build_private_options,
)
from imagers.encrypt.rewrite import LayerAction, LayerReport, build_manifest
from imagers.errors import ProviderFailed, UsageError
from imagers.model.digest import Digest
from imagers.model.image import stays_behind
from imagers.model.keys import WrapContext, WrappedKey, random_secret
from imagers.model.manifest import MAX_MANIFEST_BYTES
from imagers.model.media import (
    Compression,
    compressed_media_type,
    compression_of,
    encrypted_media_type,
    is_encrypted,
    plaintext_media_type,
)
from imagers.transport.blobs import Way, bring_blob, find_blob

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from imagers.core import Allowance, Cancellation, Progress, Resources, Watch
    from imagers.encrypt.keys import LayerKey
    from imagers.model.descriptor import Descriptor
    from imagers.model.image import Image, ImageSink, Layer, StagedBlob
    from imagers.model.keys import KeyWrapper, SecretKey
    from imagers.model.stream import RawStream

__all__ = [
    "LayerPlan",
    "LayerRun",
    "SharedLayers",
    "bring_layer",
    "check_manifest_size",
    "draw_key",
    "left_out",
    "open_into",
    "open_staged",
    "plan_copied",
    "plan_sealed",
    "report_sealed",
    "seal_into",
    "wrap_options",
]

_LEAST_PROBED = 1024 * 1024  # bytes; smaller layers cost nothing either way
_PROBE = 4 * 1024 * 1024
_NONCE_BYTES = 16
_KEY_BYTES = 32
# Longest digest and size that a layer can get: for the size of a manifest that is not yet.
_NO_DIGEST = Digest("sha256", "0" * 64)
_LONGEST_SIZE = 2**63 - 1


class SharedLayers:
    """What became of layers, for the other images of an index that have them too.

    A layer is the same if its descriptor's type, digest and size and its diff_id are, and
    for one that was encrypted its packets.
    """

    def __init__(self) -> None:
        self._done: dict[object, Descriptor] = {}

    def find(self, layer: Layer) -> Descriptor | None:
        """What this layer became, with the annotations of this one; None if it is new."""
        done = self._done.get(self._key(layer))
        if done is None:
            return None
        own = clear_annotations(layer.descriptor.annotations)
        if is_encrypted(done.media_type):
            for name in annotations_of_the_clear(own):
                del own[name]
        of_encryption = {
            name: value
            for name, value in done.annotations.items()
            if name not in clear_annotations(done.annotations)
        }
        return replace(done, annotations=own | of_encryption)

    def remember(self, layer: Layer, descriptor: Descriptor) -> None:
        """It became this."""
        self._done[self._key(layer)] = descriptor

    @staticmethod
    def _key(layer: Layer) -> object:
        old = layer.descriptor
        kept = clear_annotations(old.annotations)
        packets = frozenset(item for item in old.annotations.items() if item[0] not in kept)
        return (old.media_type, old.digest, old.size, layer.diff_id, packets)


@dataclass(frozen=True, slots=True)
class LayerRun:
    """How the work on a layer is done, whatever it is.

    Attributes:
        watch: is told how far it is.
        allowance: of the whole image.
    """

    resources: Resources
    watch: Watch
    cancellation: Cancellation
    allowance: Allowance

    def show(self, progress: Progress) -> None:
        """Tell how far the core is."""
        self.watch.show(progress.bytes_in)


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What one layer becomes.

    Attributes:
        cipher: None for a layer that is copied.
        done: what it became already, as a layer of another image; else None.
    """

    layer: Layer
    media_type: str
    source_compression: Compression
    compress: Compression | None = None
    cipher: CipherParameters | None = None
    wrapped: tuple[WrappedKey, ...] = ()
    done: Descriptor | None = None

    def describe(self, digest: Digest, size: int, hmac: bytes) -> Descriptor:
        """The descriptor of the sealed layer."""
        old = self.layer.descriptor
        if self.done is not None:
            return self.done
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


def plan_copied(layer: Layer, *, was_docker: bool) -> LayerPlan:
    """A layer that stays as it is; in an image that was Docker's it gets its OCI name."""
    media_type = layer.descriptor.media_type
    if was_docker and not is_encrypted(media_type):
        # To the OCI name of the same thing.
        compression = compression_of(media_type, what=layer.what)
        media_type = compressed_media_type(media_type, compression)
    return LayerPlan(layer, media_type, Compression.NONE)


def plan_sealed(
    layer: Layer, compress: Compression | None, *, cipher: CipherParameters | None = None
) -> LayerPlan:
    """A layer that is to be encrypted, and compressed before if it is a plain tar.

    Its new type says what its bytes are: of an encrypted layer nobody can see that the type
    of the plain one was wrong.

    A tar whose first MiBs hardly shrink, such as the weights of a model, stays plain: gzip
    would save a fifth of it, and make each pull several times longer.

    Args:
        cipher: with which it is encrypted now; None if it is not.

    Raises:
        Unsupported: its media type, or its compression.
    """
    media_type = layer.descriptor.media_type
    told = compression_of(media_type, what=layer.what)
    size = layer.descriptor.size
    source = layer.open_raw()
    try:
        again, compression = look_at(source, cipher=cipher, size=size, told=told, what=layer.what)
        if compression is not told:
            media_type = compressed_media_type(media_type, compression)
        is_plain = compression is Compression.NONE
        if is_plain and compress is not None and not _hardly_shrinks(again, size):
            media_type = compressed_media_type(media_type, compress)
        else:
            compress = None
    finally:
        source.close()
    return LayerPlan(layer, encrypted_media_type(media_type), compression, compress)


def _hardly_shrinks(source: RawStream, size: int) -> bool:
    """Whether compression of the layer's beginning saves less than a quarter.

    What is read here is not verified, and decides about nothing but speed.
    """
    if size < _LEAST_PROBED:
        return False
    beginning = bytearray(min(_PROBE, size))
    filled = 0
    with memoryview(beginning) as view:
        while filled < len(view) and (count := source.readinto(view[filled:])):
            filled += count
    return len(zlib.compress(beginning[:filled], 1)) * 4 > filled * 3


def draw_key(
    plan: LayerPlan, cipher: str, wrappers: Sequence[KeyWrapper], stack: ExitStack
) -> LayerPlan:
    """`plan` with a fresh key, wrapped for everybody; `stack` wipes the key."""
    layer = plan.layer
    key = stack.enter_context(random_secret(_KEY_BYTES))
    is_aead = cipher == AES256_GCM_HKDF_1MB
    nonce = b"" if is_aead else os.urandom(_NONCE_BYTES)
    # The digest is of the blob that we are handed, as skopeo writes it; nobody compares it.
    with build_private_options(
        key,
        nonce,
        digest=layer.descriptor.digest,
        diff_id=layer.diff_id if is_aead else None,
    ) as document:
        wrapped = wrap_options(document, wrappers, layer.what)
    bound = associated_data(cipher, plaintext_media_type(plan.media_type))
    return replace(plan, cipher=CipherParameters(cipher, key, nonce, bound), wrapped=wrapped)


def wrap_options(
    document: SecretKey, wrappers: Sequence[KeyWrapper], what: str
) -> tuple[WrappedKey, ...]:
    """Private options for all recipients, a packet each scheme.

    Raises:
        KeyUnavailable: a wrapper failed.
    """
    wrapped = []
    for wrapper in wrappers:
        packet = wrapper.wrap(document, WrapContext(what))
        if not packet:
            raise ProviderFailed(f"{what}: the scheme {wrapper.scheme} gave no packet")
        wrapped.append(WrappedKey(wrapper.scheme, packet))
    return tuple(wrapped)


def check_manifest_size(image: Image, plans: Sequence[LayerPlan], *, was_docker: bool) -> None:
    """Raise unless the manifest to come is one that readers take."""
    draft = [plan.describe(_NO_DIGEST, _LONGEST_SIZE, bytes(32)) for plan in plans]
    size = len(build_manifest(image, draft, was_docker=was_docker))
    if size > MAX_MANIFEST_BYTES:
        raise UsageError(
            f"the manifest would have {size} bytes, and readers take at most {MAX_MANIFEST_BYTES}",
            hint="encrypt for fewer recipients",
        )


def seal_into(
    plan: LayerPlan,
    sink: ImageSink,
    run: LayerRun,
) -> tuple[Descriptor, bool]:
    """The layer in the sink, sealed or as it was, and whether its bytes passed here."""
    layer = plan.layer
    if plan.done is not None:
        return plan.done, False
    if plan.cipher is None:
        moved = bring_layer(layer, sink, run)
        return plan.describe(layer.descriptor.digest, layer.descriptor.size, b""), moved
    source = layer.open_raw()
    try:
        run.watch.show(0)
        run.cancellation.check()  # the sink may be closed: nothing may come into it any more
        with sink.stage_blob() as blob:
            sealed = seal_layer(
                source,
                blob.fileno(),
                expected=layer.descriptor,
                cipher=plan.cipher,
                source_compression=plan.source_compression,
                compress=plan.compress,
                diff_id=layer.diff_id if _sees_tar(plan) else None,
                what=layer.what,
                limits=run.allowance.limits,
                resources=run.resources,
                on_progress=run.show,
                cancellation=run.cancellation,
            )
            run.allowance.spend(stored_size=sealed.size, tar_size=sealed.tar_size, what=layer.what)
            descriptor = plan.describe(sealed.digest, sealed.size, sealed.hmac)
            blob.commit(descriptor, what=layer.what)
            return descriptor, True
    finally:
        source.close()


def bring_layer(layer: Layer, sink: ImageSink, run: LayerRun) -> bool:
    """Let the sink have the layer as it is; whether its bytes passed here."""
    way = bring_blob(
        layer.descriptor,
        layer.source,
        sink,
        what=layer.what,
        stop=run.cancellation,
        watch=run.watch,
    )
    return way is Way.MOVED


def _sees_tar(plan: LayerPlan) -> bool:
    """Whether the tar passes by, so that it can be held against its diff_id."""
    assert plan.cipher is not None  # what stays as it is does not come here
    # A diff_id that is bound is computed, whatever that costs.
    return plan.source_compression is Compression.NONE or plan.cipher.name == AES256_GCM_HKDF_1MB


def report_sealed(
    plan: LayerPlan,
    descriptor: Descriptor,
    wrappers: Sequence[KeyWrapper],
    seconds: float,
    *,
    moved: bool,
) -> LayerReport:
    """What was done to the layer."""
    if plan.done is not None:
        action = LayerAction.SHARED
    elif plan.cipher is not None:
        action = LayerAction.ENCRYPTED
    elif is_encrypted(plan.media_type):
        action = LayerAction.KEPT
    else:
        action = LayerAction.COPIED
    return LayerReport(
        index=plan.layer.index,
        action=action,
        digest=descriptor.digest,
        media_type=descriptor.media_type,
        cipher="" if plan.cipher is None else plan.cipher.name,
        keys=tuple(one for wrapper in wrappers for one in wrapper.recipients)
        if plan.wrapped
        else (),
        source_size=plan.layer.descriptor.size,
        size=descriptor.size,
        seconds=seconds,
        left_out=left_out(plan.layer.descriptor, descriptor),
        moved=moved,
    )


def left_out(before: Descriptor, after: Descriptor) -> tuple[str, ...]:
    """Annotations that speak of the layer in the clear, and did not survive."""
    names = annotations_of_the_clear(before.annotations)
    return tuple(name for name in names if name not in after.annotations)


def open_into(
    layer: Layer,
    key: LayerKey | None,
    sink: ImageSink,
    run: LayerRun,
    *,
    skip_diff_id: bool = False,
) -> tuple[Descriptor, bool]:
    """The layer in the sink in the clear, after all its checks, and whether its bytes passed here.

    Args:
        skip_diff_id: leaves out one of the checks.
    """
    old = layer.descriptor
    if key is None and (skip_diff_id or stays_behind(old, sink)):
        return old, bring_layer(layer, sink, run)
    with sink.stage_blob() as blob:
        digest, size, compression = open_staged(layer, key, blob, run, skip_diff_id=skip_diff_id)
        if key is None:
            # Read to be held against its diff_id; that need not be sent again.
            if find_blob(old, layer.source, sink) is None:
                blob.commit(old, what=layer.what)
            return old, True
        media_type = key.media_type
        if compression is not key.compression:
            media_type = compressed_media_type(media_type, compression)
        descriptor = replace(
            old,
            media_type=media_type,
            digest=digest,
            size=size,
            annotations=clear_annotations(old.annotations),
        )
        blob.commit(descriptor, what=layer.what)
        return descriptor, True


def open_staged(
    layer: Layer,
    key: LayerKey | None,
    blob: StagedBlob,
    run: LayerRun,
    *,
    skip_diff_id: bool = False,
) -> tuple[Digest, int, Compression]:
    """Digest, size and compression of the layer in a staged blob in the clear, all checked."""
    old = layer.descriptor
    cipher = None if key is None else key.cipher
    told = compression_of(old.media_type) if key is None else key.compression
    source = layer.open_raw()
    try:
        run.watch.show(0)
        again, compression = look_at(
            source, cipher=cipher, size=old.size, told=told, what=layer.what
        )
        opened = open_layer(
            again,
            blob.fileno(),
            expected=old,
            cipher=cipher,
            hmac=None if key is None else key.hmac,
            compression=compression,
            diff_id=None if skip_diff_id else layer.diff_id,
            decompress=False,
            what=layer.what,
            limits=run.allowance.limits,
            resources=run.resources,
            on_progress=run.show,
            cancellation=run.cancellation,
        )
    finally:
        source.close()
    run.allowance.spend(stored_size=opened.size, tar_size=opened.tar_size, what=layer.what)
    assert opened.digest is not None  # a descriptor got the bytes as they are
    return opened.digest, opened.bytes_out, compression
