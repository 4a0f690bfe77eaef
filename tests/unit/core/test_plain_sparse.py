# SPDX-License-Identifier: Apache-2.0
"""Sparse files: the same content and holes, or the same refusal, from every implementation."""

import os
import shutil
import subprocess
import tarfile

import pytest

from imagers.core import Limits
from imagers.core.plain_sparse import MAX_REGIONS, BadMap, SparseMap
from imagers.errors import FormatError, Truncated, Unsupported


def block(name=b"f", *, kind=b"0", size=0):
    info = tarfile.TarInfo(name.decode())
    info.type, info.size, info.uid, info.gid = kind, size, os.getuid(), os.getgid()
    return info.tobuf(tarfile.USTAR_FORMAT)


def padded(data):
    return data + bytes(-len(data) % 512)


def pax(*records):
    body = b""
    for name, value in records:
        rest = b" " + name + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(b"%d" % length) + len(rest) != length:
            length += 1
        body += b"%d" % length + rest
    return block(b"pax", kind=b"x", size=len(body)) + padded(body)


def old(regions, size, *blocks, data=b"", kind=b"S", magic=b"ustar  \0"):
    """An old GNU header with 4 regions, and blocks of 21 behind it."""

    def field(number):
        return number if isinstance(number, bytes) else b"%011o\0" % number

    def put(header, at, pairs):
        for offset, length in pairs:
            header[at : at + 24] = field(offset) + field(length)
            at += 24

    header = bytearray(block(kind=kind, size=len(data)))
    header[257:265] = magic
    header[345:500] = bytes(155)
    put(header, 386, regions)
    header[482] = bool(blocks)
    header[483:495] = field(size)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    more = b""
    for number, pairs in enumerate(blocks):
        one = bytearray(512)
        put(one, 0, pairs)
        one[504] = number + 1 < len(blocks)
        more += one
    return bytes(header) + more + padded(data)


def records_0_0(regions, size, **changes):
    pairs = [
        (name, b"%d" % number)
        for region in regions
        for name, number in zip((b"GNU.sparse.offset", b"GNU.sparse.numbytes"), region, strict=True)
    ]
    blocks = changes.get("blocks", b"%d" % len(regions))
    return [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", blocks), *pairs]


def records_0_1(text, size, blocks=None):
    blocks = b"%d" % ((text.count(b",") + 1) // 2) if blocks is None else blocks
    return [
        (b"GNU.sparse.size", b"%d" % size),
        (b"GNU.sparse.numblocks", blocks),
        (b"GNU.sparse.name", b"real"),
        (b"GNU.sparse.map", text),
    ]


def records_1_0(size, name=b"real"):
    return [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", name),
        (b"GNU.sparse.realsize", b"%d" % size),
    ]


def with_data(records, data, name=b"GNUSparseFile.0/real", kind=b"0"):
    return pax(*records) + block(name, kind=kind, size=len(data)) + padded(data)


def lines(*numbers):
    return padded(b"".join(b"%d\n" % number for number in numbers))


WANTED = bytes(1000) + b"abc" + bytes(997) + b"de" + bytes(98)  # 2100 bytes
REGIONS = [(1000, 3), (2000, 2), (2100, 0)]
LONG = [(number * 10, 1) for number in range(60)]
LONG_WANTED = b"".join(b"x" + bytes(9) for _ in LONG)

GOOD = {
    "old": (old(REGIONS, 2100, data=b"abcde"), "f", WANTED),
    "old, continued": (
        old(LONG[:4], 600, LONG[4:25], LONG[25:46], LONG[46:], data=b"x" * 60),
        "f",
        LONG_WANTED,
    ),
    "old, all hole": (old([(5000, 0)], 5000), "f", bytes(5000)),
    "old, empty": (old([], 0), "f", b""),
    "old, all data": (old([(0, 3)], 3, data=b"abc"), "f", b"abc"),
    "old, base-256": (
        old([(b"\x80" + (1000).to_bytes(11, "big"), 1)], 1001, data=b"x"),
        "f",
        bytes(1000) + b"x",
    ),
    "PAX 0.0": (with_data(records_0_0(REGIONS, 2100), b"abcde", b"f"), "f", WANTED),
    "PAX 0.0 with a version": (
        with_data(
            [(b"GNU.sparse.major", b"0"), (b"GNU.sparse.minor", b"0"), *records_0_0(REGIONS, 2100)],
            b"abcde",
            b"f",
        ),
        "f",
        WANTED,
    ),
    "PAX 0.1": (
        with_data(records_0_1(b"1000,3,2000,2,2100,0", 2100), b"abcde"),
        "real",
        WANTED,
    ),
    "PAX 1.0": (
        with_data(records_1_0(2100), lines(3, 1000, 3, 2000, 2, 2100, 0) + b"abcde"),
        "real",
        WANTED,
    ),
    "PAX 1.0, a long map": (
        with_data(
            records_1_0(600), lines(60, *[number for one in LONG for number in one]) + b"x" * 60
        ),
        "real",
        LONG_WANTED,
    ),
    "PAX 0.1 with the size twice": (
        with_data([(b"GNU.sparse.realsize", b"3"), *records_0_1(b"1,1,2,1", 3)], b"ab"),
        "real",
        b"\0ab",
    ),
    "PAX 1.0, no region": (with_data(records_1_0(700), lines(0)), "real", bytes(700)),
    "PAX 1.0, as the last of a tar": (
        with_data(records_1_0(3), lines(1, 0, 3) + b"abc")[:-509],
        "real",
        b"abc",
    ),
    "regions that touch": (with_data(records_0_1(b"1,1,2,1", 3), b"ab"), "real", b"\0ab"),
}

BAD_MAP = "is a sparse file whose map does not fit its data"
BAD = {
    "more data than the map has": (old([(0, 2)], 9, data=b"abc"), FormatError, BAD_MAP),
    "less data than the map has": (old([(0, 4)], 9, data=b"abc"), FormatError, BAD_MAP),
    "regions out of order": (old([(5, 1), (1, 1)], 9, data=b"ab"), FormatError, BAD_MAP),
    "regions that overlap": (old([(1, 2), (2, 1)], 9, data=b"abc"), FormatError, BAD_MAP),
    "a region behind the end": (old([(9, 1)], 9, data=b"a"), FormatError, BAD_MAP),
    "an empty region behind the end": (old([(10, 0)], 9), FormatError, BAD_MAP),
    "a region that overflows": (
        old([(b"\x80\0\0\0\x7f" + b"\xff" * 7, 1)], 9, data=b"a"),
        FormatError,
        BAD_MAP,
    ),
    "a negative offset": (old([(b"\xff" * 12, 1)], 9, data=b"a"), FormatError, BAD_MAP),
    "a negative length": (old([(0, b"\xff" * 12)], 9), FormatError, BAD_MAP),
    "a negative size": (old([], b"\xff" * 12), FormatError, BAD_MAP),
    "an offset of letters": (old([(b"x" * 12, 1)], 9, data=b"a"), FormatError, "field 'offset'"),
    "a length of letters": (old([(0, b"x" * 12)], 9), FormatError, "field 'numbytes'"),
    "a size of letters": (old([], b"x" * 12), FormatError, "field 'realsize'"),
    "an old one that is not GNU's": (
        old([(0, 1)], 1, data=b"a", magic=b"ustar\x0000"),
        Unsupported,
        "sparse file of a form that is not supported",
    ),
    "old and new at once": (
        pax(*records_0_1(b"0,1", 1)) + old([(0, 1)], 1, data=b"a"),
        FormatError,
        BAD_MAP,
    ),
    "no data behind the map": (old([], 9, [(0, 1)])[:700], Truncated, "ends inside an entry"),
    "a size behind which nobody reads": (
        old([], 2**33 - 1),
        Unsupported,
        "tar above the limit of",
    ),
    "no map": (with_data([(b"GNU.sparse.size", b"1")], b""), Unsupported, "of a form that is not"),
    "another version": (
        with_data([(b"GNU.sparse.major", b"2"), *records_0_1(b"0,1", 1)], b"a"),
        Unsupported,
        "of a form that is not supported",
    ),
    "star's": (with_data([(b"SCHILY.realsize", b"1")], b"a"), Unsupported, "of a form"),
    "no size": (with_data(records_0_1(b"0,1", 1)[1:], b"a"), FormatError, BAD_MAP),
    "two sizes": (
        with_data([(b"GNU.sparse.realsize", b"2"), *records_0_1(b"0,1", 1)], b"a"),
        FormatError,
        BAD_MAP,
    ),
    "two names": (
        block(b"././@LongLink", kind=b"L", size=2) + padded(b"x\0") + GOOD["PAX 0.1"][0],
        FormatError,
        "two extended headers or long names of one kind",
    ),
    "no count": (with_data(records_0_1(b"0,1", 1, b""), b"a"), FormatError, BAD_MAP),
    "a wrong count": (with_data(records_0_1(b"0,1", 1, b"2"), b"a"), FormatError, BAD_MAP),
    "half a pair": (with_data(records_0_1(b"0,1,1", 1), b"a"), FormatError, BAD_MAP),
    "an empty number": (with_data(records_0_1(b"0,1,", 1), b"a"), FormatError, BAD_MAP),
    "a number of 20 digits": (
        with_data(records_0_1(b"0" * 20 + b",1", 1), b"a"),
        FormatError,
        BAD_MAP,
    ),
    "a number above 63 bits": (
        with_data(records_0_1(b"9999999999999999999,0", 1), b""),
        FormatError,
        BAD_MAP,
    ),
    "pairs out of turn": (
        with_data(records_0_0([(0, 1)], 1)[:2] + records_0_0([(0, 1)], 1)[:1:-1], b"a"),
        FormatError,
        BAD_MAP,
    ),
    "half of the pairs": (with_data(records_0_0([(0, 1)], 1)[:-1], b""), FormatError, BAD_MAP),
    "two maps": (
        with_data(records_0_1(b"0,1", 1) + records_0_0([(0, 1)], 1), b"a"),
        FormatError,
        BAD_MAP,
    ),
    "1.0 and another map": (
        with_data(records_1_0(1) + records_0_1(b"0,1", 1), b"a"),
        FormatError,
        BAD_MAP,
    ),
    "a directory": (with_data(records_0_1(b"0,0", 0), b"", kind=b"5"), FormatError, BAD_MAP),
    "lines that are not in the data": (with_data(records_1_0(9), b""), FormatError, BAD_MAP),
    "lines that end too early": (with_data(records_1_0(9), lines(9)[:100]), FormatError, BAD_MAP),
    "a line of letters": (with_data(records_1_0(9), padded(b"x\n")), FormatError, BAD_MAP),
    "an empty line": (with_data(records_1_0(9), padded(b"\n")), FormatError, BAD_MAP),
    "a signed line": (with_data(records_1_0(9), padded(b"+0\n")), FormatError, BAD_MAP),
    "a line without end": (with_data(records_1_0(9), b"1" * 512), FormatError, BAD_MAP),
    "too many lines": (with_data(records_1_0(9), lines(MAX_REGIONS + 1)), FormatError, BAD_MAP),
    "too many regions": (
        with_data(records_0_1(b",".join([b"0"] * 2 * (MAX_REGIONS + 1)), 9), b""),
        FormatError,
        BAD_MAP,
    ),
}


@pytest.mark.parametrize("piece", [None, 511, 1], ids=lambda p: f"pieces of {p}")
@pytest.mark.parametrize("name", GOOD)
def test_sparse_file_has_its_content(core, tree, name, piece):
    data, path, expected = GOOD[name]
    root = core.unpack(data + (b"" if "last of" in name else block(b"g")), piece=piece)
    names = set(tree(root)) - {"g"}
    assert names == {path}
    assert (root / path).read_bytes() == expected


@pytest.mark.parametrize("name", BAD)
def test_sparse_file_that_is_bad_is_refused(both, name):
    data, kind, message = BAD[name]

    def attempt(core):
        with pytest.raises(kind, match=message) as caught:
            core.unpack(data if kind is Truncated else data + bytes(1024))
        assert type(caught.value) is kind
        return str(caught.value)

    both(attempt)


def test_sparse_file_that_replaces_another_and_has_links(core, tree, make, tar):
    root = core.unpack(
        tar(make.directory("f"), make.file("f/x"), end=False)
        + old([(1, 1)], 3, data=b"a")
        + tar(make.link("h", "f"))
    )
    assert tree(root) == {"f": "\0a\0", "h": "\0a\0"}


def test_holes_are_bounded_by_what_a_tar_may_have(core):
    """Some bytes say exbibytes; whoever copies the tree writes them."""
    data = old([(0, 1)], 10_000, data=b"a") + old([(0, 1)], 10_000, data=b"a")
    core.unpack(data, limits=Limits(max_tar_bytes=20_000))
    with pytest.raises(Unsupported, match="tar above the limit of 19997 bytes"):
        core.unpack(data, limits=Limits(max_tar_bytes=19_997))


def test_holes_take_no_room(core):
    size = 1 << 28
    root = core.unpack(old([(0, 1), (size - 1, 1)], size, data=b"ab"))
    status = (root / "f").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < 1 << 20


def test_map_knows_the_bytes_that_it_needs():
    sparse = SparseMap(10)
    sparse.add(1, 2)
    sparse.add(3, 0)
    sparse.add(5, 5)
    assert (sparse.stored, sparse.regions) == (7, [(1, 2), (5, 5)])
    with pytest.raises(BadMap):
        sparse.add(10, 1)


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize(
    "words",
    ["--format=gnu", "--format=oldgnu"]
    + [f"--format=posix --sparse-version={version}" for version in ("0.0", "0.1", "1.0")],
)
def test_what_gnu_tar_writes_is_read(core, tmp_path, words):
    place = tmp_path / "in"
    place.mkdir()
    with (place / "s").open("wb") as file:
        for number in range(30):
            file.seek(number * 65536 + 8192)
            file.write(b"%d" % number * 2000)
        file.truncate(2_000_000)
    (place / "dense").write_bytes(b"dense")
    done = subprocess.run(
        ["tar", "-C", place, "-S", *words.split(), "-cf", tmp_path / "tar", "."],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        pytest.skip("no GNU tar")
    data = (tmp_path / "tar").read_bytes()
    if len(data) > 2_000_000:
        pytest.skip("this file system has no holes")
    root = core.unpack(data)
    assert (root / "s").read_bytes() == (place / "s").read_bytes()
    assert (root / "dense").read_bytes() == b"dense"
