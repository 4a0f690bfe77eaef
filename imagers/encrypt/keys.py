# SPDX-License-Identifier: Apache-2.0
"""The keys of an image's layers: which of the unwrappers opens which of the packets.

    layers = list(image.layers())
    with unwrap_layer_keys(layers, unwrappers, manifest_digest=None) as keys:
        for layer, key in zip(layers, keys, strict=True):
            ...                              # None for a layer that is not encrypted

All layers are looked at before the first key is asked for, and all keys are there before
the first byte of a layer is needed. What is got here is *not* verified against the image:
whoever knows a recipient's public key can make a packet. HMAC, digest and diff_id of the
layer's bytes are for `imagers.core`, the trust in all of them for a signature.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.core import CipherParameters
from imagers.encrypt.annotations import EncryptedLayerInfo, annotation_of, read_annotations
from imagers.encrypt.describe import describe_recipients, describe_wrapped_key, find_fault
from imagers.encrypt.options import associated_data, parse_private_options
from imagers.errors import (
    DigestMismatch,
    FormatError,
    KeyUnavailable,
    NoMatchingKey,
    Unsupported,
)
from imagers.model.closing import Closing
from imagers.model.keys import NotMine, UnwrapContext
from imagers.model.media import Compression, compression_of, is_encrypted, plaintext_media_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from imagers.model.digest import Digest
    from imagers.model.image import Layer
    from imagers.model.keys import KeyUnwrapper, SecretKey, WrappedKey

__all__ = ["LayerKey", "LayerKeys", "packets_of", "unwrap_documents", "unwrap_layer_keys"]

_MAX_TRIED = 100  # lines that an error keeps
_MAX_NAMED = 4  # keys or packets that a message names


@dataclass(frozen=True, slots=True)
class LayerKey:
    """All that opening one encrypted layer takes.

    Attributes:
        cipher: name, key and nonce, for `imagers.core.open_layer`.
        hmac: of the stored bytes, for the same; None for a cipher without one.
        media_type: of the layer after decryption.
        compression: of the layer after decryption.
        scheme: of the packet that was opened.
        names: of the keys that open that packet, as it says; its scheme where it says none.
        opened_by: description of the unwrapper that opened it.
    """

    cipher: CipherParameters
    hmac: bytes | None
    media_type: str
    compression: Compression
    scheme: str
    names: tuple[str, ...]
    opened_by: str

    def close(self) -> None:
        """Wipe the key. Safe to call twice."""
        self.cipher.key.close()


class LayerKeys(list[LayerKey | None], Closing):
    """One entry a layer, in order: its key, or None where it is not encrypted.

    A context manager: the keys are wiped when its block ends.
    """

    def close(self) -> None:
        """Wipe all keys. Safe to call twice."""
        for key in self:
            if key is not None:
                key.close()


def packets_of(layers: Iterable[Layer]) -> list[WrappedKey]:
    """The key packets of all encrypted layers.

    Raises:
        FormatError: the annotations of a layer are not right.
    """
    return [
        packet
        for layer in layers
        if is_encrypted(layer.descriptor.media_type)
        for packet in read_annotations(layer.descriptor, what=layer.what).wrapped
    ]


def unwrap_layer_keys(
    layers: Sequence[Layer],
    unwrappers: Iterable[KeyUnwrapper],
    *,
    manifest_digest: Digest | None,
) -> LayerKeys:
    """The keys of all encrypted layers, one entry a layer; the caller closes them.

    Each packet of a layer is offered to each unwrapper until one opens it, packets that
    need no network first. `NotMine` and a key that is not to be had go on to the next.

    Args:
        manifest_digest: of the image, if it is trusted; told to brokers. None where no
            image is trusted.

    Raises:
        FormatError, Unsupported: a layer's type, annotations or options are not right; for
            annotations before any unwrapper is asked.
        NoMatchingKey: no packet of a layer is for any of the unwrappers.
        DigestMismatch: a key is bound to another diff_id than the config has.
        KeyUnavailable, IntegrityError, AttestationError, RemoteError: from an unwrapper.
    """
    unwrappers = tuple(unwrappers)
    opened: list[tuple[EncryptedLayerInfo, str] | None] = [
        (
            read_annotations(layer.descriptor, what=layer.what),
            plaintext_media_type(layer.descriptor.media_type),
        )
        if is_encrypted(layer.descriptor.media_type)
        else None
        for layer in layers
    ]
    keys = LayerKeys()
    try:
        for layer, found in zip(layers, opened, strict=True):
            keys.append(
                found
                and _unwrap_layer_key(layer, *found, unwrappers, manifest_digest=manifest_digest)
            )
    except BaseException:
        keys.close()
        raise
    return keys


@contextmanager
def unwrap_documents(
    layers: Sequence[Layer], unwrappers: Iterable[KeyUnwrapper]
) -> Iterator[list[SecretKey | None]]:
    """The private options of all encrypted layers as they were wrapped; wiped at the end.

    For wrapping them again: they are read, so that what is no key is not passed on, and
    left as they are. Errors as for `unwrap_layer_keys`.
    """
    unwrappers = tuple(unwrappers)
    infos = [
        read_annotations(layer.descriptor, what=layer.what)
        if is_encrypted(layer.descriptor.media_type)
        else None
        for layer in layers
    ]
    documents: list[SecretKey | None] = []
    try:
        for layer, info in zip(layers, infos, strict=True):
            if info is None:
                documents.append(None)
                continue
            context = UnwrapContext(layer.what, None)
            document, _, _ = _unwrap_any(info.wrapped, unwrappers, context)
            documents.append(document)
            parse_private_options(document, what=layer.what, cipher=info.public.cipher).close()
        yield documents
    finally:
        for one in documents:
            if one is not None:
                one.close()


def _unwrap_layer_key(
    layer: Layer,
    info: EncryptedLayerInfo,
    media_type: str,
    unwrappers: tuple[KeyUnwrapper, ...],
    *,
    manifest_digest: Digest | None,
) -> LayerKey:
    context = UnwrapContext(layer.what, manifest_digest)
    document, wrapped, unwrapper = _unwrap_any(info.wrapped, unwrappers, context)
    with document:
        private = parse_private_options(document, what=layer.what, cipher=info.public.cipher)
    if private.diff_id is not None and private.diff_id != layer.diff_id:
        private.close()
        raise DigestMismatch(
            expected=private.diff_id,
            actual=layer.diff_id,
            what=layer.what,
            noun="diff_id",
            hint="the key was made for another layer than the image's config names here",
        )
    cipher = info.public.cipher
    return LayerKey(
        cipher=CipherParameters(
            cipher, private.key, private.nonce, associated_data(cipher, media_type)
        ),
        hmac=info.public.hmac or None,
        media_type=media_type,
        compression=compression_of(media_type),
        scheme=wrapped.scheme,
        names=tuple(one["key"] for one in describe_recipients(wrapped) if one["key"])
        or (wrapped.scheme,),
        opened_by=unwrapper.description,
    )


def _unwrap_any(
    packets: tuple[WrappedKey, ...],
    unwrappers: tuple[KeyUnwrapper, ...],
    context: UnwrapContext,
) -> tuple[SecretKey, WrappedKey, KeyUnwrapper]:
    """The first private options that can be had, the packet they were in, and who opened it."""
    if not packets:
        raise NoMatchingKey(f"{context.what}: is encrypted, and holds no key for anybody")
    if not unwrappers:
        raise NoMatchingKey(
            f"{context.what}: is encrypted, and no key was given",
            hint=f"it is encrypted for: {_recipients(packets)}; give the private key as "
            "--decryption-key FILE, or the broker that has it to 'imagers pull'",
        )
    tried: list[str] = []
    refused: KeyUnavailable | None = None
    unsupported: Unsupported | None = None
    for wrapped in packets:
        for unwrapper in unwrappers:
            try:
                return unwrapper.unwrap(wrapped, context), wrapped, unwrapper
            except NotMine as reason:
                tried.append(f"{unwrapper.description}: {_shown(wrapped)}: {reason}")
            # These two are an answer only if no other packet opens: an image may be for two
            # brokers, of which this machine may ask one.
            except KeyUnavailable as error:
                refused = refused or error
            except Unsupported as error:
                unsupported = unsupported or error
    if refused is not None:
        raise refused
    if unsupported is not None:
        raise unsupported
    faults = _faults(packets, context)
    if len(faults) == len(packets):
        raise faults[0]
    raise NoMatchingKey(
        f"{context.what}: none of the given keys opens it: {_names(unwrappers)}"
        + (f"; one packet cannot be read: {faults[0]}" if faults else ""),
        tried=tuple(tried[:_MAX_TRIED]),
        hint=f"it is encrypted for: {_recipients(packets)}; is it the right --decryption-key?"
        + (
            " a key for pkcs7 needs its certificate, as FILE:CERT"
            if any(packet.scheme == "pkcs7" for packet in packets)
            else ""
        ),
    )


def _faults(
    packets: tuple[WrappedKey, ...], context: UnwrapContext
) -> list[FormatError | Unsupported]:
    """What is wrong with the packets that nobody could open, with their places."""
    found: list[FormatError | Unsupported] = []
    numbers: Counter[str] = Counter()
    for packet in packets:
        numbers[packet.scheme] += 1
        fault = find_fault(packet)
        if fault is None:
            continue
        place = f"annotation {annotation_of(packet.scheme)}, packet {numbers[packet.scheme]}"
        kind = type(fault)
        what = "malformed" if kind is FormatError else "not supported"
        found.append(kind(f"{context.what}: {place}: the key packet is {what}: {fault}"))
    return found


def _names(unwrappers: tuple[KeyUnwrapper, ...]) -> str:
    """The keys that were given, with the ids that packets call them by where they have one."""
    # One key file may be several unwrappers, of which only that for JWE knows an id.
    ids = {one.description: getattr(one, "key_id", "") for one in reversed(unwrappers)}
    names = [
        f"{name} (key id {ids[name]})" if ids[name] else name
        for name in dict.fromkeys(one.description for one in unwrappers)
    ]
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def _recipients(packets: tuple[WrappedKey, ...]) -> str:
    names = [describe_wrapped_key(packet) for packet in packets]
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def _shown(wrapped: WrappedKey) -> str:
    """The scheme, bounded and without control characters: it comes from an annotation."""
    scheme = wrapped.scheme[:80]
    return scheme if scheme.isprintable() else repr(scheme)
