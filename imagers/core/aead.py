# SPDX-License-Identifier: Apache-2.0
"""AES256_GCM_HKDF_1MB: a layer in segments, each sealed and opened on its own.

    stored = header, segment 0, segment 1, ...
    header  = 28, salt (32 bytes), nonce prefix (7 bytes)              40 bytes
    segment = AES-256-GCM(plaintext, nonce = prefix, number (4), last (1)), tag (16)

The key of the segments is HKDF-SHA256 of the layer's key, with the salt and the associated
data. Stored bytes are cut every 2^20, the header counted into the first segment; only the
last may be shorter. So no byte is decompressed or written before its segment is
authenticated; order, number and end are in the nonces; and a part can be opened alone.

    open_range(read_at, size=..., cipher=..., offset=0, length=512, what="layer 1 of 7")

Spec: Tink, "Streaming AEAD: AES-GCM-HKDF" (AES256_GCM_HKDF_1MB: 32-byte key, 32-byte derived
key, segments of 1 MiB of ciphertext); RFC 5869.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from imagers.core.plain import _OF_DATA, _Blocks, _Clock, _File, _Opened, _Source, _Tar
from imagers.core.plain_codec import reader_of, writer_of
from imagers.core.values import OpenedLayer, SealedLayer
from imagers.errors import FormatError, TagMismatch, Truncated
from imagers.model.digest import Digest, new_hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagers.core.jobs import OpenJob, SealJob
    from imagers.core.values import CipherParameters

__all__ = ["HEADER_BYTES", "SEGMENT_BYTES", "open_", "open_range", "plaintext_size", "seal"]

SEGMENT_BYTES = 1 << 20
HEADER_BYTES = 40
_TAG_BYTES = 16
_SALT_BYTES = 32
_PREFIX_BYTES = 7
_MOST_SEGMENTS = 1 << 32  # the number has 4 bytes


class _Segments:
    """The AES-GCM of one layer's segments, under the key that its header makes."""

    def __init__(self, cipher: CipherParameters, header: bytes) -> None:
        with cipher.key.view() as key:
            # `bytes` for `cryptography`, as in imagers.core.plain.
            derived = HKDF(
                hashes.SHA256(), 32, header[1 : 1 + _SALT_BYTES], cipher.associated_data
            ).derive(bytes(key))
        self._aead = AESGCM(derived)
        self._prefix = header[1 + _SALT_BYTES :]

    def _nonce(self, number: int, *, last: bool) -> bytes:
        if number >= _MOST_SEGMENTS:
            raise FormatError("has more segments than the cipher can number")
        return self._prefix + number.to_bytes(4) + bytes((last,))

    def seal(self, number: int, data: bytes, *, last: bool) -> bytes:
        return self._aead.encrypt(self._nonce(number, last=last), data, None)

    def open(self, number: int, data: bytes, *, last: bool, what: str) -> bytes:
        """The plaintext of one segment, authenticated.

        Raises:
            TagMismatch: changed, moved, cut off before the end, or another key.
        """
        try:
            return self._aead.decrypt(self._nonce(number, last=last), data, None)
        except InvalidTag:
            raise TagMismatch(what=f"{what}: segment {number}") from None


class _Sealer:
    def __init__(self, cipher: CipherParameters) -> None:
        self._header = bytes((HEADER_BYTES,)) + os.urandom(_SALT_BYTES + _PREFIX_BYTES)
        self._segments = _Segments(cipher, self._header)
        self._held = bytearray()
        self._number = 0

    def begin(self) -> bytes:
        return self._header

    def _room(self) -> int:
        header = 0 if self._number else HEADER_BYTES
        return SEGMENT_BYTES - header - _TAG_BYTES

    def seal(self, data: bytes) -> Iterator[bytes]:
        self._held += data
        # One byte more than a segment: the last one, of any length, is for `finish`.
        while len(self._held) > self._room():
            room = self._room()
            yield self._segments.seal(self._number, bytes(self._held[:room]), last=False)
            del self._held[:room]
            self._number += 1

    def finish(self) -> bytes:
        return self._segments.seal(self._number, bytes(self._held), last=True)


class _Opener:
    def __init__(self, cipher: CipherParameters, what: str) -> None:
        self._cipher = cipher
        self._what = what
        self._segments: _Segments | None = None
        self._held = bytearray()
        self._number = 0

    def _room(self) -> int:
        return SEGMENT_BYTES - (0 if self._number else HEADER_BYTES)

    def open(self, data: bytes) -> Iterator[bytes]:
        """Plaintext of whole segments, each authenticated."""
        self._held += data
        if self._segments is None:
            if len(self._held) < HEADER_BYTES:
                return
            self._segments = _Segments(self._cipher, _check_header(self._held, self._what))
            del self._held[:HEADER_BYTES]
        while len(self._held) > self._room():
            room = self._room()
            yield self._segments.open(
                self._number, bytes(self._held[:room]), last=False, what=self._what
            )
            del self._held[:room]
            self._number += 1

    def finish(self) -> bytes:
        """Plaintext of the last segment."""
        if self._segments is None or len(self._held) < _TAG_BYTES:
            raise Truncated("ends before its last segment", what=self._what)
        return self._segments.open(self._number, bytes(self._held), last=True, what=self._what)


def _check_header(data: bytearray | bytes, what: str) -> bytes:
    header = bytes(data[:HEADER_BYTES])
    if len(header) < HEADER_BYTES:
        raise Truncated("ends inside its header", what=what)
    if header[0] != HEADER_BYTES:
        raise FormatError(
            f"expected a header of {HEADER_BYTES} bytes, got one of {header[0]}", what=what
        )
    return header


def seal(job: SealJob) -> SealedLayer:
    """See `imagers.core.layer.seal_layer`; job.cipher is there."""
    assert job.cipher is not None
    clock = _Clock(job)
    source = _Source(job, clock)
    cipher = _Sealer(job.cipher)
    # Where the bytes stay as they are, the tar is looked at on the side.
    aside = not job.sees_tar and job.diff_id is not None
    undo = job.source_compression if aside else job.decompress
    reader = reader_of(undo, what=job.what, window_bytes=job.resources.window_bytes)
    tar = _Tar(job.diff_id, job.tar_bytes, job.what)
    blocks = _Blocks()
    writer = writer_of(job.compress)
    hasher = new_hasher("sha256")
    sink = _File(job.sink, job.what)

    def put(stored: bytes) -> None:
        hasher.update(stored)
        sink.write(stored)
        clock.bytes_out += len(stored)

    def put_plain(data: bytes) -> None:
        for stored in cipher.seal(data):
            put(stored)

    def take(piece: bytes) -> None:
        if aside:
            put_plain(piece)
        for part in reader.step(piece):
            if job.sees_tar or aside:
                tar.passes(part)
            if not aside:
                for block in blocks.step(part):
                    put_plain(writer.step(block))
            clock.tick()

    fault: Exception | None = None
    put(cipher.begin())
    for piece in source.pieces():
        if fault is not None:
            continue
        try:
            take(piece)
        except _OF_DATA as error:
            fault = error
    source.check_digest()
    if fault is not None:
        raise fault
    reader.finish()
    if not aside:
        put_plain(writer.step(blocks.finish()))
        put_plain(writer.finish())
    put(cipher.finish())
    if job.sees_tar or aside:
        tar.check()
    clock.tick(end=True)
    return SealedLayer(
        digest=Digest("sha256", hasher.hexdigest()),
        size=clock.bytes_out,
        hmac=b"",
        source_size=source.size,
        diff_id=tar.diff_id if job.sees_tar or aside else None,
        tar_size=tar.size,
    )


def open_(job: OpenJob) -> OpenedLayer:
    """See `imagers.core.layer.open_layer`; job.cipher is there."""
    assert job.cipher is not None
    clock = _Clock(job)
    source = _Source(job, clock)
    cipher = _Opener(job.cipher, job.what)
    fault: Exception | None = None
    with closing(_Opened(job, clock)) as opened:
        for piece in source.pieces():
            if fault is not None:
                continue
            try:
                for plain in cipher.open(piece):
                    opened.take(plain)
            except _OF_DATA as error:
                fault = error
        if fault is None:
            try:
                opened.take(cipher.finish())
            except _OF_DATA as error:
                fault = error
        # Other stored bytes than promised are the cause of whatever else was wrong.
        source.check_digest()
        if fault is not None:
            raise fault
        opened.finish()
    clock.tick(end=True)
    return opened.result(source.size)


def plaintext_size(size: int, *, what: str) -> int:
    """Bytes of the compressed layer in `size` stored bytes.

    Raises:
        Truncated: so few that there is no layer.
    """
    last = (size - 1) % SEGMENT_BYTES + 1 if size > 0 else 0
    count = -(-size // SEGMENT_BYTES)
    if last < _TAG_BYTES + (HEADER_BYTES if count <= 1 else 0):
        raise Truncated("ends before its last segment", what=what)
    return size - HEADER_BYTES - count * _TAG_BYTES


def open_range(
    read_at: Callable[[int, int], bytes],
    *,
    size: int,
    cipher: CipherParameters,
    offset: int,
    length: int,
    what: str,
) -> bytes:
    """A part of a layer after decryption, still compressed, each byte authenticated.

    Only the segments that hold it are read, and the header. What is not read is not
    verified: neither the layer's digest nor its diff_id.

    Args:
        read_at: `(offset, count)` of the stored bytes; fewer only where they end.
        size: of the stored bytes, as the descriptor says.
        offset: of the part, in bytes after decryption.
        length: of the part; it ends with the layer where that ends earlier.

    Raises:
        TagMismatch, Truncated, FormatError: the stored bytes are other ones.
    """
    if offset < 0 or length < 0:
        raise ValueError("offset and length are from 0")
    total = plaintext_size(size, what=what)
    end = min(offset + length, total)
    segments = _Segments(cipher, _check_header(read_at(0, HEADER_BYTES), what))
    count = -(-size // SEGMENT_BYTES)
    full = SEGMENT_BYTES - _TAG_BYTES
    # As if segment 0 had the header's bytes as plaintext: then all segments are of one length.
    first, final = (offset + HEADER_BYTES) // full, (end - 1 + HEADER_BYTES) // full
    found = bytearray()
    for number in range(first, final + 1) if offset < end else ():
        start = number * SEGMENT_BYTES + (0 if number else HEADER_BYTES)
        stop = min((number + 1) * SEGMENT_BYTES, size)
        stored = read_at(start, stop - start)
        if len(stored) != stop - start:
            raise Truncated(expected=stop - start, actual=len(stored), what=what)
        plain = segments.open(number, stored, last=number == count - 1, what=what)
        begins = number * full - (HEADER_BYTES if number else 0)
        found += plain[max(0, offset - begins) : end - begins]
    return bytes(found)
