# SPDX-License-Identifier: Apache-2.0
"""gzip and zstd as they come from elsewhere: the same verdict from every implementation."""

import gzip
import hashlib
import random
import struct
import zlib

import pytest
import zstandard

from imagers.core import Resources
from imagers.core.plain_codec import PIECE, reader_of
from imagers.errors import FormatError, TrailingData, Truncated, WindowTooLarge
from imagers.model.media import Compression

GZIP, ZSTD = Compression.GZIP, Compression.ZSTD
TEXT = b"".join(hashlib.sha256(bytes([n])).digest() + bytes(40) for n in range(200))


def member(data=b"data", *, flags=0, fields=b"", method=8, crc=None, size=None):
    """A gzip member, by hand."""
    compressor = zlib.compressobj(wbits=-15)
    body = compressor.compress(data) + compressor.flush()
    crc = zlib.crc32(data) if crc is None else crc
    size = len(data) if size is None else size
    header = b"\x1f\x8b" + bytes([method, flags]) + b"\1\2\3\4\2\3"
    return header + fields + body + struct.pack("<II", crc, size)


def header_crc(fields, flags):
    header = b"\x1f\x8b\x08" + bytes([flags]) + b"\1\2\3\4\2\3" + fields
    return struct.pack("<H", zlib.crc32(header) & 0xFFFF)


ALL_FIELDS = struct.pack("<H", 5) + b"extra" + b"name\0" + b"comment\0"


def frame(data=b"data", **settings):
    return zstandard.ZstdCompressor(**settings).compress(data)


def skippable(data=b"skip", number=0):
    return struct.pack("<II", 0x184D2A50 + number, len(data)) + data


GOOD = {
    "gzip: one member": (GZIP, gzip.compress(TEXT), TEXT),
    "gzip: several members": (GZIP, member(b"a") + member(b"") + member(b"b"), b"ab"),
    "gzip: zeros after the end": (GZIP, member(b"a") + bytes(700), b"a"),
    "gzip: every header field": (
        GZIP,
        member(b"a", flags=30, fields=ALL_FIELDS + header_crc(ALL_FIELDS, 30)),
        b"a",
    ),
    "gzip: an empty extra field": (GZIP, member(b"a", flags=4, fields=b"\0\0"), b"a"),
    "gzip: text flag": (GZIP, member(b"a", flags=1), b"a"),
    "gzip: a long name": (GZIP, member(b"a", flags=8, fields=b"n" * 300_000 + b"\0"), b"a"),
    "gzip: thousands of members": (GZIP, member(b"") * 30_000 + member(b"a"), b"a"),
    "gzip: nothing in it": (GZIP, gzip.compress(b""), b""),
    "gzip: stored blocks": (GZIP, gzip.compress(TEXT, 0), TEXT),
    "zstd: one frame": (ZSTD, frame(TEXT), TEXT),
    "zstd: several frames": (ZSTD, frame(b"a") + frame(b"") + frame(b"b"), b"ab"),
    "zstd: skippable frames around": (
        ZSTD,
        skippable() + frame(b"a") + skippable(b"", 15) + frame(b"b") + skippable(b"x" * 300_000),
        b"ab",
    ),
    "zstd: only a skippable frame": (ZSTD, skippable(), b""),
    "zstd: checksum, no size": (
        ZSTD,
        frame(TEXT, write_checksum=True, write_content_size=False),
        TEXT,
    ),
    "zstd: fast level": (ZSTD, frame(TEXT, level=-5), TEXT),
    "zstd: run-length blocks": (ZSTD, frame(bytes(1_000_000)), bytes(1_000_000)),
    "plain: nothing": (Compression.NONE, b"", b""),
}

BAD = {
    "gzip: nothing at all": (GZIP, b"", Truncated, "gzip data ends too early"),
    "gzip: something else": (GZIP, frame(TEXT), FormatError, "expected gzip data"),
    "gzip: half a magic number": (GZIP, b"\x1f", Truncated, "ends too early"),
    "gzip: wrong second byte": (GZIP, b"\x1f\x8c" + bytes(50), FormatError, "expected gzip"),
    "gzip: only zeros": (GZIP, bytes(100), FormatError, "expected gzip data"),
    "gzip: another method": (GZIP, member(method=7), FormatError, "damaged"),
    "gzip: a reserved flag": (GZIP, member(flags=0x20), FormatError, "damaged"),
    "gzip: wrong header checksum": (
        GZIP,
        member(flags=2, fields=b"\0\0"),
        FormatError,
        "gzip data is damaged",
    ),
    "gzip: wrong checksum": (GZIP, member(crc=1), FormatError, "damaged"),
    "gzip: wrong length": (GZIP, member(size=1), FormatError, "damaged"),
    "gzip: invalid block": (GZIP, member()[:10] + b"\xff" * 20, FormatError, "damaged"),
    "gzip: garbage behind": (GZIP, member() + b"x", TrailingData, "end of its gzip data"),
    "gzip: garbage behind zeros": (GZIP, member() + b"\0\0x", TrailingData, "after the end"),
    "gzip: member behind zeros": (GZIP, member() + b"\0" + member(), TrailingData, "after"),
    "gzip: half a magic number behind": (GZIP, member() + b"\x1f", Truncated, "too early"),
    "gzip: zstd behind": (GZIP, member() + frame(), TrailingData, "after the end"),
    "gzip: second member damaged": (GZIP, member() + member(crc=0), FormatError, "damaged"),
    "zstd: nothing at all": (ZSTD, b"", Truncated, "zstd data ends too early"),
    "zstd: something else": (ZSTD, member(), FormatError, "expected zstd data"),
    "zstd: garbage behind": (ZSTD, frame() + b"x", TrailingData, "end of its zstd data"),
    "zstd: zeros behind": (ZSTD, frame() + bytes(8), TrailingData, "after the end"),
    "zstd: half a magic number behind": (ZSTD, frame() + b"\x28\xb5", Truncated, "early"),
    "zstd: wrong magic number": (ZSTD, b"\x28\xb5\x2f\xfe", FormatError, "expected zstd"),
    "zstd: wrong checksum": (
        ZSTD,
        frame(TEXT, write_checksum=True)[:-1] + b"\0",
        FormatError,
        "zstd data is damaged",
    ),
    "zstd: a reserved bit": (ZSTD, frame()[:4] + b"\x28" + frame()[5:], FormatError, "damaged"),
    "zstd: reserved block type": (
        ZSTD,
        b"\x28\xb5\x2f\xfd\x00\x58" + struct.pack("<I", 4 << 3 | 3 << 1 | 1)[:3] + b"data",
        FormatError,
        "damaged",
    ),
    "zstd: a block above 128 KiB": (
        ZSTD,
        b"\x28\xb5\x2f\xfd\x00\x58" + struct.pack("<I", 131_073 << 3 | 1)[:3] + bytes(131_073),
        FormatError,
        "damaged",
    ),
    "zstd: a dictionary is needed": (
        ZSTD,
        b"\x28\xb5\x2f\xfd\x21\x07\x04\x21\x00\x00data",
        FormatError,
        "damaged",
    ),
    # libzstd 1.5.4 takes it for the skippable frame if it gets the first four bytes alone.
    "zstd: a skippable frame behind the magic number": (
        ZSTD,
        b"\x28\xb5\x2f\xfd" + skippable(b"\xff\xff\xff"),
        FormatError,
        "damaged",
    ),
    "zstd: skippable frame cut": (ZSTD, skippable()[:-1], Truncated, "too early"),
    "zstd: skippable length cut": (ZSTD, skippable()[:6], Truncated, "too early"),
}


@pytest.mark.parametrize("piece", [None, 1, 7, 4096], ids=lambda p: f"pieces of {p}")
@pytest.mark.parametrize("name", GOOD)
def test_reader_takes_what_is_good(core, name, piece):
    compression, data, expected = GOOD[name]
    if piece is not None and len(data) > 20_000 * piece:
        piece = 4096
    result, out = core.open(data, piece=piece, compression=compression)
    assert out == expected
    assert result.tar_size == len(expected)


@pytest.mark.parametrize("name", BAD)
def test_reader_refuses_what_is_bad(core, name):
    compression, data, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        core.open(data, compression=compression)
    assert type(caught.value) is kind
    assert caught.value.what == "layer"


@pytest.mark.parametrize("name", BAD)
def test_readers_agree_on_what_is_bad(both, name):
    compression, data, *_ = BAD[name]
    both(lambda core: core.open(data, compression=compression))


@pytest.mark.parametrize(
    "data",
    [GOOD["gzip: every header field"][1] + member(TEXT[:300]), gzip.compress(TEXT[:400])],
    ids=["fields", "plain"],
)
def test_gzip_cut_at_any_byte_raises_truncated(core, data):
    whole = len(GOOD["gzip: every header field"][1])
    for cut in range(len(data)):
        if cut == whole and data.startswith(GOOD["gzip: every header field"][1]):
            continue
        with pytest.raises(Truncated, match="gzip data ends too early"):
            core.open(data[:cut], sink=None, compression=GZIP)


def test_zstd_cut_at_any_byte_raises_truncated(core):
    data = skippable() + frame(TEXT[:300], write_checksum=True)
    for cut in range(len(data)):
        if cut == len(skippable()):
            continue
        with pytest.raises(Truncated, match="zstd data ends too early"):
            core.open(data[:cut], sink=None, compression=ZSTD)


@pytest.mark.parametrize("compression", [GZIP, ZSTD])
def test_readers_agree_on_flipped_bits(both, compression):
    data = (
        gzip.compress(TEXT[:2000])
        if compression is GZIP
        else frame(TEXT[:2000], write_checksum=True)
    )
    seed = 20261123
    chosen = random.Random(seed)  # noqa: S311
    for bit in [*range(80), *sorted(chosen.sample(range(80, 8 * len(data)), 150))]:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        both(lambda core, changed=bytes(changed): core.open(changed, compression=compression))


@pytest.mark.parametrize("log", [20, 21])
def test_zstd_window_above_the_limit_is_unsupported(core, log):
    parameters = zstandard.ZstdCompressionParameters(window_log=log, write_content_size=0)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stored = data.compress(bytes(3 << 20)) + data.flush()
    resources = Resources(window_bytes=1 << 20)
    if log == 20:
        assert (
            core.open(stored, sink=None, compression=ZSTD, resources=resources)[0].tar_size
            == 3 << 20
        )
        return
    with pytest.raises(WindowTooLarge, match="zstd window above the limit of 1048576 bytes"):
        core.open(stored, sink=None, compression=ZSTD, resources=resources)


@pytest.mark.parametrize("bytes_", [1000, 1 << 9, 1 << 32, 3 << 20])
def test_window_limit_that_is_no_power_of_two_is_the_callers_bug(core, bytes_):
    with pytest.raises(ValueError, match="power of two"):
        core.open(b"", resources=Resources(window_bytes=bytes_))


@pytest.mark.parametrize(
    ("compression", "data"),
    [
        (GZIP, gzip.compress(bytes(50_000_000))),
        (ZSTD, frame(bytes(50_000_000))),
        (ZSTD, frame(bytes(50_000_000), write_content_size=False)),
    ],
    ids=["gzip", "zstd", "zstd without size"],
)
def test_plain_reader_never_gives_more_than_a_piece(compression, data):
    """A bomb costs time, which the limit of the tar ends, and never memory."""
    reader = reader_of(compression, what="layer", window_bytes=1 << 25)
    sizes = [len(part) for part in reader.step(data)]
    assert max(sizes) <= PIECE
    assert sum(sizes) == 50_000_000


@pytest.mark.parametrize("compression", [GZIP, ZSTD])
def test_each_reads_what_the_other_wrote(both, compression):
    data = TEXT * 60
    sealed = []
    # Their bytes differ where the libraries do; the results must not.
    both(
        lambda core: (
            sealed.append(core.seal(data, cipher=None, compress=compression)[1]),
            len(data),
        )[1]
    )
    for stored in sealed:
        assert both(lambda core, s=stored: core.open(s, compression=compression))[1] == data
    reference = (
        gzip.decompress(sealed[0])
        if compression is GZIP
        else b"".join(zstandard.ZstdDecompressor().read_to_iter(sealed[0]))
    )
    assert reference == data
