# SPDX-License-Identifier: Apache-2.0
"""One layer, sealed or opened, in one call that owns its loop.

    seal   source ─▶ check digest ─▶ [decompress] ─▶ [diff_id] ─▶ [compress] ─▶ cipher + mac ─▶ sink
    open   source ─▶ check digest + mac ─▶ cipher ─▶ [decompress] ─▶ [diff_id] ─▶ sink or unpack

The latter in two calls where nothing may be looked at before the stored bytes are known to be right
(docs/adr/0081):

    check  source ─▶ codes of its pieces ─▶ check digest + mac ─▶ [copy]
    open   the same again ─▶ the same codes? ─▶ cipher ─▶ [decompress] ─▶ [diff_id] ─▶ unpack

Nothing is verified before the call returns: what a sink got until then is provisional, so
a caller writes to a place that nobody looks at and publishes it afterwards. What may be
wrong is reported in this order, because a fault early in the chain causes those after it:

1. the source's own error, a file that cannot be written, cancellation: at once;
2. the stored bytes are too few, too many, or have another digest;
3. their HMAC is another one;
4. the compressed data or the tar in it is damaged, or above a limit;
5. the tar has another diff_id.

For that the stored bytes are read to their end (never past `expected.size`) even where
what is in them has turned out to be nonsense.

    with open("blob", "rb", buffering=0) as blob:
        opened = open_layer(blob.fileno(), None, expected=descriptor, ...)   # verify only
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from imagers.core.jobs import (
    CheckJob,
    OpenJob,
    SealJob,
    check_cipher,
    check_descriptors,
    check_limits,
    check_means,
    source_of,
)
from imagers.core.values import (
    AES256_GCM_HKDF_1MB,
    KEY_BYTES,
    CheckedLayer,
    DirectorySink,
    Limits,
    Resources,
)
from imagers.errors import Unsupported
from imagers.model.keys import random_secret
from imagers.model.media import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.core.values import (
        CipherParameters,
        OpenedLayer,
        Progress,
        SealedLayer,
    )
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.stream import RawStream
    from imagers.waiting import Cancellation

__all__ = ["BACKEND", "check_layer", "open_layer", "open_range", "seal_layer"]

BACKEND: str
try:
    from imagers.core import native as _backend

    BACKEND = "c"
except ImportError as _missing:
    from imagers.core import plain as _backend  # type: ignore[no-redef]

    BACKEND = "plain"
    warnings.warn(
        f"the compiled core is missing ({_missing}): the plain one is several times slower",
        RuntimeWarning,
        stacklevel=2,
    )


def _seal_of(cipher: CipherParameters | None) -> Callable[[SealJob], SealedLayer]:
    if cipher is not None and cipher.name == AES256_GCM_HKDF_1MB:
        from imagers.core.aead import seal

        return seal
    return _backend.seal


def _open_of(cipher: CipherParameters | None) -> Callable[[OpenJob], OpenedLayer]:
    if cipher is not None and cipher.name == AES256_GCM_HKDF_1MB:
        from imagers.core.aead import open_

        return open_
    return _backend.open_


def seal_layer(
    source: int | RawStream,
    sink: int,
    *,
    expected: Descriptor,
    cipher: CipherParameters | None,
    source_compression: Compression,
    compress: Compression | None = None,
    diff_id: Digest | None = None,
    what: str,
    limits: Limits = Limits(),  # noqa: B008  # frozen
    resources: Resources = Resources(),  # noqa: B008  # frozen
    on_progress: Callable[[Progress], None] | None = None,
    cancellation: Cancellation | None = None,
) -> SealedLayer:
    """Read a layer, check it, compress it anew if asked, encrypt it if asked, and write it.

    Same bytes and same settings give the same bytes on the same machine with the same
    libraries. What was written is nothing to publish if this raises.

    Args:
        source: a descriptor, read from its position to its end, or a stream; stays the
            caller's. A stream with `fileno()` of a regular file is read through that.
        sink: a descriptor, written from its position; stays the caller's.
        expected: what the source must turn out to be, in size and digest.
        cipher: None copies without encrypting.
        source_compression: of the source.
        compress: what the result shall have. None, or what the source has already, keeps
            the bytes as they are.
        diff_id: compared where the tar passes by: the source is one, or is decompressed.
            With the cipher `AES256_GCM_HKDF_1MB` it always does.
        what: name in messages, such as `layer 3 of 7`.
        limits: what the layer may cost whoever opens it.
        resources: threads and memory; the result does not depend on them.
        on_progress: called at most ten times a second and at the end, in this thread.
        cancellation: ends the job within about 0.1 s.

    Raises:
        Truncated, TrailingData, DigestMismatch: the source is not `expected`, or the
            tar is not `diff_id`.
        FormatError, Unsupported: the compressed data is damaged, or above a limit;
            `WindowTooLarge` if that is the window of `resources`.
        LocalError: a read or write failed; full disk.
        Cancelled: by `cancellation`. Whatever `source` or `on_progress` raises passes.

    Threads: any number of calls at once, each with its own arguments.
    """
    check_descriptors(source, sink)
    check_cipher(cipher, None, what=what)
    check_means(resources)
    check_limits(limits)
    changes = compress is not None and compress is not source_compression
    sealed = _seal_of(cipher)(
        SealJob(
            source=source_of(source),
            sink=sink,
            expected=expected,
            cipher=cipher,
            decompress=source_compression if changes else Compression.NONE,
            compress=compress if changes and compress is not None else Compression.NONE,
            sees_tar=changes or source_compression is Compression.NONE,
            diff_id=diff_id,
            what=what,
            tar_bytes=limits.tar_bytes_of(expected.size),
            resources=resources,
            on_progress=on_progress,
            cancellation=cancellation,
            source_compression=source_compression,
        )
    )
    if sealed.tar_size > limits.tar_bytes_of(sealed.size):
        raise Unsupported(
            f"{what}: compresses so well that whoever opens it takes it for a bomb",
            hint="compress it with gzip, or not at all",
        )
    return sealed


def check_layer(
    source: int | RawStream,
    sink: int | None,
    *,
    expected: Descriptor,
    cipher: CipherParameters | None,
    hmac: bytes | None,
    what: str,
    resources: Resources = Resources(),  # noqa: B008  # frozen
    on_progress: Callable[[Progress], None] | None = None,
    cancellation: Cancellation | None = None,
) -> CheckedLayer:
    """Check stored bytes as they are: digest and HMAC; nothing is decrypted or looked into.

    What the result knows is each piece of them, so that `open_layer` can read them again from a
    file that others might have written to meanwhile. The caller closes it.

    Args:
        source: as for `seal_layer`.
        sink: a descriptor gets the stored bytes; None: nothing does.
        expected, cipher, hmac: as for `open_layer`. A layer with the cipher
            `AES256_GCM_HKDF_1MB` needs no check beforehand, and gets none.
        what, resources, on_progress, cancellation: as for `seal_layer`.

    Raises:
        Truncated, TrailingData, DigestMismatch: the stored bytes are not `expected`.
        TagMismatch: the HMAC is another one: wrong key, or changed bytes.
        LocalError: a read or write failed; full disk.
        Cancelled: by `cancellation`. Whatever `source` or `on_progress` raises passes.

    Threads: any number of calls at once, each with its own arguments.
    """
    if cipher is not None and (hmac is None or cipher.name == AES256_GCM_HKDF_1MB):
        raise ValueError("a cipher without an HMAC")
    check_descriptors(source, sink)
    check_cipher(cipher, hmac, what=what)
    check_means(resources)
    key = random_secret(KEY_BYTES)
    try:
        codes, beginning = _backend.check(
            CheckJob(
                source=source_of(source),
                sink=sink,
                expected=expected,
                cipher=cipher,
                hmac=hmac or b"",
                key=key,
                what=what,
                resources=resources,
                on_progress=on_progress,
                cancellation=cancellation,
            )
        )
    except BaseException:
        key.close()
        raise
    return CheckedLayer(expected, cipher, hmac, beginning, codes, key)


def open_layer(
    source: int | RawStream,
    sink: int | DirectorySink | None,
    *,
    expected: Descriptor,
    cipher: CipherParameters | None,
    hmac: bytes | None,
    compression: Compression,
    diff_id: Digest | None,
    checked: CheckedLayer | None = None,
    decompress: bool = True,
    what: str,
    limits: Limits = Limits(),  # noqa: B008  # frozen
    resources: Resources = Resources(),  # noqa: B008  # frozen
    on_progress: Callable[[Progress], None] | None = None,
    cancellation: Cancellation | None = None,
) -> OpenedLayer:
    """Read a stored layer, check it, decrypt it if it is encrypted, and give on what is in it.

    Args:
        source: as for `seal_layer`.
        sink: a descriptor gets the tar, or with `decompress=False` the compressed bytes;
            a `DirectorySink` gets the files; None only checks.
        expected: what the stored bytes must turn out to be, in size and digest.
        cipher: None for a layer that is not encrypted.
        hmac: 32 bytes, needed with the cipher that has one.
        compression: of the tar in the layer.
        diff_id: what the tar must turn out to be; None checks no tar. With
            `decompress=False` the tar is looked at only if it is given.
        checked: what `check_layer` found with the same `expected`, `cipher` and `hmac`. Each
            piece of the source is compared with that in memory, before anything else is done
            with it; digest and HMAC are not computed again.
        limits: what the layer may cost.
        what, means, on_progress, cancellation: as for `seal_layer`.

    Raises:
        Truncated, TrailingData, DigestMismatch: the stored bytes are not `expected`,
            the compressed data ends early or goes on, or the tar is not `diff_id`.
        TagMismatch: the HMAC, or the tag of a segment, is another one: wrong key, or
            changed bytes.
        IntegrityError: the source is not what was checked; nothing from the piece on that is
            another one has been decrypted.
        FormatError: compressed data or tar are damaged, or an entry would leave the root.
        Unsupported: a kind of entry that is not unpacked here; a limit, which is
            `WindowTooLarge` for the window of `resources`.
        LocalError: a read or write failed; full disk.
        Cancelled: by `cancellation`. Whatever `source` or `on_progress` raises passes.

    Threads: any number of calls at once, each with its own arguments.
    """
    if cipher is not None and hmac is None and cipher.name != AES256_GCM_HKDF_1MB:
        raise ValueError("a cipher without an HMAC")
    if checked is not None and (
        (checked.expected, checked.cipher, checked.hmac) != (expected, cipher, hmac)
    ):
        raise ValueError("another layer was checked")
    check_descriptors(source, sink)
    check_cipher(cipher, hmac, what=what)
    check_limits(limits)
    check_means(resources)
    gives_tar = decompress or isinstance(sink, DirectorySink)
    return _open_of(cipher)(
        OpenJob(
            source=source_of(source),
            sink=sink,
            expected=expected,
            cipher=cipher,
            hmac=hmac or b"",
            compression=compression,
            sees_tar=gives_tar or diff_id is not None,
            gives_tar=gives_tar,
            diff_id=diff_id,
            what=what,
            tar_bytes=limits.tar_bytes_of(expected.size),
            limits=limits,
            resources=resources,
            on_progress=on_progress,
            cancellation=cancellation,
            checked=checked,
        )
    )


def open_range(
    read_at: Callable[[int, int], bytes],
    *,
    size: int,
    cipher: CipherParameters,
    offset: int,
    length: int,
    what: str,
) -> bytes:
    """A part of a layer with the cipher `AES256_GCM_HKDF_1MB`, every byte authenticated.

    It is what is left after decryption: still compressed, if the layer is. The layer's own
    digest and diff_id say nothing about a part, and are not looked at.

    Args:
        read_at: `(offset, count)` gives stored bytes; fewer only where they end.
        size: of the stored bytes, as the descriptor says.
        offset: in bytes after decryption.
        length: in bytes; less is given where the layer ends before.
        what: name in messages.

    Raises:
        Unsupported: another cipher, whose one tag is over the whole layer.
        TagMismatch, Truncated, FormatError: the stored bytes are other ones.
    """
    check_cipher(cipher, None, what=what)
    if cipher.name != AES256_GCM_HKDF_1MB:
        raise Unsupported(
            f"{what}: only layers with cipher {AES256_GCM_HKDF_1MB!r} can be opened in part"
        )
    from imagers.core.aead import open_range as open_

    return open_(read_at, size=size, cipher=cipher, offset=offset, length=length, what=what)
