# SPDX-License-Identifier: Apache-2.0
"""gzip and zstd in plain Python: the definition of what the C stages accept.

A reader takes compressed pieces and yields pieces of the tar, none longer than `PIECE`,
whatever the data claims. A writer gives the same bytes for the same tar, however it is
cut into pieces, if all but the last have `PIECE` bytes.

    gzip   member*  zero*             members as RFC 1952; only zeros may follow
    zstd   (frame | skippable)*       RFC 8878; nothing may follow

Headers and ends are parsed here and not by a library, so that every implementation draws
the line between damage, truncation and trailing data at the same byte.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

import zstandard

from imagers.core.failures import Fault, failure_of
from imagers.model.media import Compression

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["FRAME_BYTES", "PIECE", "Reader", "Writer", "reader_of", "writer_of"]

PIECE = 256 * 1024
FRAME_BYTES = 4 * 1024 * 1024  # of tar in one gzip member or zstd frame that we write
_GZIP_LEVEL = 1
_ZSTD_LEVEL = 3


class Reader(Protocol):
    """Decompression of one layer."""

    def step(self, data: bytes) -> Iterator[bytes]:
        """Take compressed bytes; yield what they hold, which may be nothing."""

    def finish(self) -> None:
        """Be told that there is no more."""


class Writer(Protocol):
    """Compression of one layer."""

    def step(self, data: bytes) -> bytes:
        """Take bytes of the tar; give compressed bytes, perhaps none."""

    def finish(self) -> bytes:
        """Give the rest."""


def reader_of(compression: Compression, *, what: str, window_bytes: int) -> Reader:
    """A reader for `compression`."""
    if compression is Compression.GZIP:
        return _GzipReader(what)
    if compression is Compression.ZSTD:
        return _ZstdReader(what, window_bytes)
    return _PassReader()


def writer_of(compression: Compression) -> Writer:
    """A writer for `compression`."""
    if compression is Compression.GZIP:
        return _FramedWriter(lambda: zlib.compressobj(_GZIP_LEVEL, wbits=31))
    if compression is Compression.ZSTD:
        # A content size would have to be known before the frame; a checksum costs nothing.
        compressor = zstandard.ZstdCompressor(
            level=_ZSTD_LEVEL, write_checksum=True, write_content_size=False
        )
        return _FramedWriter(compressor.compressobj)
    return _PassWriter()


class _PassReader:
    def step(self, data: bytes) -> Iterator[bytes]:
        if data:
            yield data

    def finish(self) -> None:
        """Nothing can be missing."""


class _PassWriter:
    def step(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _FramedWriter:
    """Independent frames of `FRAME_BYTES`, so that they can be worked on side by side."""

    def __init__(self, make: object) -> None:
        self._make = make
        self._frame: _Compressor | None = None
        self._filled = 0
        self._frames = 0

    def step(self, data: bytes) -> bytes:
        out = bytearray()
        while data:
            if self._frame is None:
                self._frame = self._make()  # type: ignore[operator]  # one of two above
                self._frames += 1
                self._filled = 0
            part, data = data[: FRAME_BYTES - self._filled], data[FRAME_BYTES - self._filled :]
            out += self._frame.compress(part)
            self._filled += len(part)
            if self._filled == FRAME_BYTES:
                out += self._frame.flush()
                self._frame = None
        return bytes(out)

    def finish(self) -> bytes:
        if self._frame is None:
            if self._frames:
                return b""
            self._frame = self._make()  # type: ignore[operator]  # an empty tar has one frame
        return self._frame.flush()


class _Parser:
    """A reader written as one generator, which runs as far as the input goes.

    `_parse` yields output, or None for its wish for more input. `_may_end` tells whether
    the input may end where the generator waits.
    """

    _short: Fault

    def __init__(self, what: str) -> None:
        self._what = what
        self._data = b""
        self._at = 0
        self._may_end = False
        self._run = self._parse()

    def _parse(self) -> Generator[bytes | None, None, None]:
        raise NotImplementedError

    def step(self, data: bytes) -> Iterator[bytes]:
        self._data, self._at = data, 0
        for out in self._run:
            if out is None:
                return
            yield out

    def finish(self) -> None:
        if not self._may_end:
            raise self._fault(self._short)

    def _fault(self, fault: Fault, number: int = 0) -> Exception:
        return failure_of(fault, what=self._what, number=number)

    def _more(self) -> Generator[None, None, None]:
        """Wait until there is a byte."""
        while self._at == len(self._data):
            yield None

    def _take(self, count: int) -> Generator[None, None, bytes]:
        """The next `count` bytes, which the caller knows to be few."""
        taken = b""
        while len(taken) < count:
            yield from self._more()
            part = self._data[self._at : self._at + count - len(taken)]
            self._at += len(part)
            taken += part
        return taken

    def _skip(self, count: int) -> Generator[None, None, None]:
        while count:
            yield from self._more()
            step = min(count, len(self._data) - self._at)
            self._at += step
            count -= step


# Bytes of a member that zlib is given first, then twice as many each time: what follows a member
# comes back as a copy, and a layer may be of nothing but members of 20 bytes.
_FIRST_GIVEN = 128
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT = 2, 4, 8, 16
_RESERVED_FLAGS = 0xE0  # RFC 1952 section 2.3.1.2: must give an error
_DEFLATE = 8


class _GzipReader(_Parser):
    _short = Fault.SHORT_GZIP

    def _parse(self) -> Generator[bytes | None, None, None]:
        wrong = Fault.NOT_GZIP
        while True:
            first = (yield from self._take(1))[0]
            if first == 0 and wrong is Fault.GZIP_TRAILER:
                yield from self._padding()
            if first != 0x1F:
                raise self._fault(wrong)
            self._may_end = False
            if (yield from self._take(1))[0] != 0x8B:
                raise self._fault(wrong)
            yield from self._header()
            yield from self._member()
            self._may_end = True
            wrong = Fault.GZIP_TRAILER

    def _padding(self) -> Generator[None, None, None]:
        """Zeros to the end, as tape blocks leave them; GNU gzip ignores them too."""
        while True:
            if self._data[self._at :].strip(b"\0"):
                raise self._fault(Fault.GZIP_TRAILER)
            self._at = len(self._data)
            yield None

    def _header(self) -> Generator[None, None, None]:
        """RFC 1952 section 2.3, after the two magic bytes."""
        fixed = yield from self._take(8)
        method, flags = fixed[0], fixed[1]
        if method != _DEFLATE or flags & _RESERVED_FLAGS:
            raise self._fault(Fault.BAD_GZIP)
        crc = zlib.crc32(b"\x1f\x8b" + fixed)
        if flags & _FEXTRA:
            length = yield from self._take(2)
            crc = zlib.crc32(length, crc)
            crc = zlib.crc32((yield from self._take(int.from_bytes(length, "little"))), crc)
        for flag in (_FNAME, _FCOMMENT):
            if not flags & flag:
                continue
            end = -1
            while end < 0:
                yield from self._more()
                end = self._data.find(b"\0", self._at)
                stop = len(self._data) if end < 0 else end + 1
                crc = zlib.crc32(self._data[self._at : stop], crc)
                self._at = stop
        if flags & _FHCRC:
            check = yield from self._take(2)
            if int.from_bytes(check, "little") != crc & 0xFFFF:
                raise self._fault(Fault.BAD_GZIP)

    def _member(self) -> Generator[bytes | None, None, None]:
        inflate = zlib.decompressobj(wbits=-15)
        crc = size = 0
        given = _FIRST_GIVEN
        rest = out = b""
        while not inflate.eof:
            # A full piece may have more behind it, in the state of zlib.
            if not rest and len(out) < PIECE:
                yield from self._more()
                rest = self._data[self._at : self._at + given]
                self._at += len(rest)
                given = min(2 * given, PIECE)
            try:
                out = inflate.decompress(rest, PIECE)
            except zlib.error:
                raise self._fault(Fault.BAD_GZIP) from None
            rest = inflate.unconsumed_tail
            if out:
                crc = zlib.crc32(out, crc)
                size += len(out)
                yield out
        self._at -= len(inflate.unused_data)
        trailer = yield from self._take(8)
        if trailer != crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"):
            raise self._fault(Fault.BAD_GZIP)


_FRAME = b"\x28\xb5\x2f\xfd"  # RFC 8878 section 3.1.1
_SKIPPABLE = b"\x2a\x4d\x18"  # section 3.1.2, after a first byte of 0x50 to 0x5f
_BLOCK_BYTES = 128 * 1024  # section 3.1.1.2.4
_DICTIONARY_ID_BYTES = (0, 1, 2, 4)
_RAW, _RLE, _COMPRESSED, _RESERVED = range(4)


class _ZstdReader(_Parser):
    """Gives its library one block at a time: no more than 128 KiB can come of it."""

    _short = Fault.SHORT_ZSTD

    def __init__(self, what: str, window_bytes: int) -> None:
        super().__init__(what)
        self._window_bytes = window_bytes
        self._library = zstandard.ZstdDecompressor(max_window_size=window_bytes)

    def _parse(self) -> Generator[bytes | None, None, None]:
        wrong = Fault.NOT_ZSTD
        while True:
            magic = b""
            while len(magic) < len(_FRAME):
                magic += yield from self._take(1)
                self._may_end = False
                skippable = 0x50 <= magic[0] <= 0x5F and _SKIPPABLE.startswith(magic[1:])
                if not skippable and not _FRAME.startswith(magic):
                    raise self._fault(wrong)
            if magic == _FRAME:
                yield from self._frame()
            else:
                size = yield from self._take(4)
                yield from self._skip(int.from_bytes(size, "little"))
            self._may_end = True
            wrong = Fault.ZSTD_TRAILER

    def _frame(self) -> Generator[bytes | None, None, None]:
        header = yield from self._take(1)
        flags = header[0]
        single, has_checksum = flags & 0x20, flags & 0x04
        if flags & 0x08:
            raise self._fault(Fault.BAD_ZSTD)
        window = 0
        if not single:
            part = yield from self._take(1)
            header += part
            base = 1 << (10 + (part[0] >> 3))
            window = base + base // 8 * (part[0] & 7)
        header += yield from self._take(_DICTIONARY_ID_BYTES[flags & 3])
        size_bytes = (1 if single else 0, 2, 4, 8)[flags >> 6]
        part = yield from self._take(size_bytes)
        header += part
        if single:
            window = int.from_bytes(part, "little") + (256 if size_bytes == 2 else 0)
        if window > self._window_bytes:
            raise self._fault(Fault.ZSTD_WINDOW, self._window_bytes)
        frame = self._library.decompressobj()
        self._give(frame, _FRAME + header)
        last = 0
        while not last:
            head = yield from self._take(3)
            number = int.from_bytes(head, "little")
            last, kind, size = number & 1, number >> 1 & 3, number >> 3
            if kind == _RESERVED or size > min(window, _BLOCK_BYTES):
                raise self._fault(Fault.BAD_ZSTD)
            block = yield from self._take(1 if kind == _RLE else size)
            out = self._give(frame, head + block)
            if out:
                yield out
        if has_checksum:
            self._give(frame, (yield from self._take(4)))
        if not frame.eof:
            raise self._fault(Fault.BAD_ZSTD)

    def _give(self, frame: zstandard.ZstdDecompressionObj, data: bytes) -> bytes:
        try:
            return frame.decompress(data)
        except zstandard.ZstdError:
            raise self._fault(Fault.BAD_ZSTD) from None
