# SPDX-License-Identifier: Apache-2.0
"""The tar format: the same entries, or the same refusal, from every implementation."""

import io
import os
import stat
import struct
import tarfile
from pathlib import Path
from random import Random

import pytest

from imagers.core import Limits, Ownership
from imagers.errors import FormatError, Truncated, Unsupported


def block(name=b"f", *, kind=b"0", size=b"", magic=b"ustar\x0000", **fields):
    """A header, by hand. Fields that are not given are zero."""
    header = bytearray(512)

    def put(at, value):
        header[at : at + len(value)] = value

    put(0, name)
    put(100, fields.get("mode", b"0000644\0"))
    put(108, fields.get("uid", b"%07o\0" % os.getuid()))
    put(116, fields.get("gid", b"%07o\0" % os.getgid()))
    put(124, size)
    put(136, fields.get("mtime", b"14524666400\0"))
    put(156, kind)
    put(157, fields.get("linkname", b""))
    put(257, magic)
    put(345, fields.get("prefix", b""))
    put(148, b" " * 8)
    total = sum(header) if not fields.get("signed") else sum(b - 256 * (b > 127) for b in header)
    put(148, fields.get("chksum", b"%06o\0 " % total))
    return bytes(header)


def padded(data):
    return data + bytes(-len(data) % 512)


def pax(*records, kind=b"x"):
    """An extended header of (name, value) records."""
    body = b""
    for name, value in records:
        rest = b" " + name + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(b"%d" % length) + len(rest) != length:
            length += 1
        body += b"%d" % length + rest
    return raw_pax(body, kind)


def raw_pax(body, kind=b"x"):
    return block(b"pax", kind=kind, size=b"%011o\0" % len(body)) + padded(body)


def long_name(name, kind=b"L"):
    body = name + b"\0"
    size = b"%011o\0" % len(body)
    return block(b"././@LongLink", kind=kind, size=size, magic=b"ustar  \0") + padded(body)


def device(major, minor, kind=b"3"):
    header = bytearray(block(kind=kind))
    header[329 : 329 + len(major)] = major
    header[337 : 337 + len(minor)] = minor
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


END = bytes(1024)
HUGE = b"%d" % 2**64


GOOD = {
    "nothing": (b"", {}),
    "nothing but its end": (END, {}),
    "no end": (block(), {"f": ""}),
    "one zero block at the end": (block() + bytes(512), {"f": ""}),
    "garbage behind the end": (block() + END + b"\xff" * 700, {"f": ""}),
    "an entry behind the end": (block() + END + block(b"g"), {"f": ""}),
    "a file": (block(size=b"4\0") + padded(b"data"), {"f": "data"}),
    "a contiguous file": (block(kind=b"7", size=b"4\0") + padded(b"data"), {"f": "data"}),
    "a file of a whole block": (block(size=b"1000 ") + b"x" * 512, {"f": "x" * 512}),
    "old directory by its slash": (block(b"d/", kind=b"\0"), {"d": "/"}),
    "old file": (block(kind=b"\0", magic=b""), {"f": ""}),
    "directory with a size": (block(b"d", kind=b"5", size=b"7777\0"), {"d": "/"}),
    "signed checksum": (block("é".encode(), signed=True), {"é": ""}),
    "prefix": (
        block(b"f", prefix=b"some/where"),
        {"some": "/", "some/where": "/", "some/where/f": ""},
    ),
    "no prefix in GNU's": (block(b"f", magic=b"ustar  \0", prefix=b"14524666400"), {"f": ""}),
    "long name of GNU": (long_name(b"n" * 150) + block(b"cut"), {"n" * 150: ""}),
    "long target of GNU": (
        long_name(b"t" * 150, b"K") + block(b"s", kind=b"2", linkname=b"cut"),
        {"s": "-> " + "t" * 150},
    ),
    "both long": (
        long_name(b"t" * 150, b"K") + long_name(b"s" * 150) + block(kind=b"2", linkname=b"c"),
        {"s" * 150: "-> " + "t" * 150},
    ),
    "path": (pax((b"path", b"p" * 200)) + block(), {"p" * 200: ""}),
    "linkpath": (
        pax((b"linkpath", b"t" * 200)) + block(kind=b"2", linkname=b"c"),
        {"f": "-> " + "t" * 200},
    ),
    "the last record wins": (pax((b"path", b"a"), (b"path", b"b")) + block(), {"b": ""}),
    "an empty record takes back": (pax((b"path", b"a"), (b"path", b"")) + block(), {"f": ""}),
    "a record is for one entry": (pax((b"path", b"a")) + block() + block(b"g"), {"a": "", "g": ""}),
    "size in a record": (
        pax((b"size", b"512")) + block(size=b"0\0") + block(b"inner"),
        {"f": block(b"inner").decode("latin-1")},
    ),
    "records that do not matter": (
        pax((b"atime", b"1.5"), (b"comment", b"x"), (b"LIBARCHIVE.creationtime", b"1")) + block(),
        {"f": ""},
    ),
    "an empty extended header": (raw_pax(b"") + block(), {"f": ""}),
    "a global comment": (pax((b"comment", b"commit"), kind=b"g") + block(), {"f": ""}),
    "a name of 100 bytes": (block(b"n" * 100), {"n" * 100: ""}),
    "base-256 size": (
        block(size=b"\x80" + (4).to_bytes(11, "big")) + padded(b"data"),
        {"f": "data"},
    ),
    "no padding behind the last file": (block(size=b"4\0") + b"data", {"f": "data"}),
    "a FIFO": (block(kind=b"6", size=b"7777\0") + block(b"g"), {"f": "|", "g": ""}),
    "a device, which is left out": (device(b"1", b"3") + block(b"g"), {"g": ""}),
    "global records that engines pass over": (
        pax((b"mtime", b"1"), (b"hdrcharset", b"BINARY"), (b"vendor.x", b"y"), kind=b"g") + block(),
        {"f": ""},
    ),
    "names in no character set": (
        pax((b"hdrcharset", b"BINARY"), (b"path", b"\xff")) + block(),
        {"\udcff": ""},
    ),
    "an unknown record": (pax((b"vendor.x", b"\0\n=")) + block(), {"f": ""}),
    "a hard link with a size": (
        block() + block(b"g", kind=b"1", linkname=b"f", size=b"7777\0") + block(b"h"),
        {"f": "", "g": "", "h": ""},
    ),
    "spaces before a number": (block(size=b"          4\0") + padded(b"data"), {"f": "data"}),
}

BAD = {
    "a wrong checksum": (block(chksum=b"000001\0 "), FormatError, "wrong checksum"),
    "no checksum": (block(chksum=bytes(8)), FormatError, "wrong checksum"),
    "a checksum of letters": (block(chksum=b"abcdefg\0"), FormatError, "wrong checksum"),
    "half a header": (block()[:300], Truncated, "tar ends inside an entry"),
    "half the data": (block(size=b"1000 ") + b"x" * 511, Truncated, "ends inside an entry"),
    "records for no entry": (pax((b"path", b"a")), Truncated, "ends inside an entry"),
    "records before the end": (pax((b"path", b"a")) + END, Truncated, "ends inside an entry"),
    "empty records before the end": (raw_pax(b"") + END, Truncated, "ends inside"),
    "long name for no entry": (long_name(b"n") + END, Truncated, "ends inside an entry"),
    "empty long name": (long_name(b"") + END, Truncated, "ends inside an entry"),
    "a lone zero block": (bytes(512) + block(), FormatError, "single block of zeros"),
    "letters for a size": (block(size=b"4x\0"), FormatError, "field 'size' is not a number"),
    "an eight in octal": (block(mode=b"0000684\0"), FormatError, "field 'mode'"),
    "something behind a number": (block(size=b"4\0junk"), FormatError, "field 'size'"),
    "a negative size": (block(size=b"\xff" * 12), FormatError, "field 'size'"),
    "a size above 63 bits": (
        block(size=b"\x80" + (2**63).to_bytes(11, "big")),
        FormatError,
        "field 'size'",
    ),
    "a time above 63 bits": (
        block(mtime=b"\x80\1" + bytes(10)),
        FormatError,
        "field 'mtime'",
    ),
    "a negative owner": (block(uid=b"\xff" * 8), FormatError, "an owner that is not a 32-bit"),
    "the owner that chown ignores": (
        block(gid=b"\x80" + (2**32 - 1).to_bytes(7, "big")),
        FormatError,
        "an owner that is not",
    ),
    "an owner above 32 bits": (pax((b"uid", b"4294967296")) + block(), FormatError, "owner"),
    "an owner of 19 digits": (pax((b"uid", b"9" * 19)) + block(), FormatError, "owner"),
    "record size of letters": (pax((b"size", b"4x")) + block(), FormatError, "record 'size'"),
    "record size negative": (pax((b"size", b"-1")) + block(), FormatError, "record 'size'"),
    "record size too long": (pax((b"size", HUGE)) + block(), FormatError, "record 'size'"),
    "record size above 63 bits": (
        pax((b"size", b"9999999999999999999")) + block(),
        FormatError,
        "field 'size'",
    ),
    "record time of letters": (pax((b"mtime", b"now")) + block(), FormatError, "record 'mtime'"),
    "record time without digits": (pax((b"mtime", b".5")) + block(), FormatError, "'mtime'"),
    "record time with two points": (pax((b"mtime", b"1.5.5")) + block(), FormatError, "'mtime'"),
    "record time too long": (pax((b"mtime", b"9" * 19)) + block(), FormatError, "'mtime'"),
    "a record too long": (raw_pax(b"30 path=a\n") + block(), FormatError, "record of the ext"),
    "a record too short": (raw_pax(b"5 path=a\n") + block(), FormatError, "record of the ext"),
    "a record without length": (raw_pax(b"path=a\n") + block(), FormatError, "malformed"),
    "a record without equals": (raw_pax(b"8 pathy\n") + block(), FormatError, "malformed"),
    "a record without name": (raw_pax(b"6 =ab\n") + block(), FormatError, "malformed"),
    "a record without end": (raw_pax(b"9 path=ab") + block(), FormatError, "malformed"),
    "a record with a NUL name": (raw_pax(b"9 p\0th=a\n") + block(), FormatError, "malformed"),
    "a record of length 0": (raw_pax(b"0 path=a\n") + block(), FormatError, "malformed"),
    "zeros behind the records": (raw_pax(b"10 path=a\n\0\0") + block(), FormatError, "malformed"),
    "a global path": (
        pax((b"path", b"a"), kind=b"g") + block(),
        FormatError,
        "'path' in a global extended header",
    ),
    "malformed global records": (raw_pax(b"junk", b"g") + block(), FormatError, "malformed"),
    "two extended headers": (raw_pax(b"") + raw_pax(b"") + block(), FormatError, "two extended"),
    "two long names": (long_name(b"a") + long_name(b"b") + block(), FormatError, "two ext"),
    "two long targets": (
        long_name(b"a", b"K") + long_name(b"b", b"K") + block(),
        FormatError,
        "two extended headers or long names",
    ),
    "path and long name": (
        pax((b"path", b"a")) + long_name(b"b") + block(),
        FormatError,
        "two extended headers or long names",
    ),
    "an extended header above 1 MiB": (
        block(kind=b"x", size=b"4000001\0"),
        FormatError,
        "longer than 1048576 bytes",
    ),
    "a NUL in a path": (pax((b"path", b"a\0b")) + block(), FormatError, "NUL byte"),
    "an unknown type": (block(kind=b"Z"), Unsupported, "entry 'f' is of the unknown type 'Z'"),
    "an unprintable type": (block(kind=b"\x80"), Unsupported, r"unknown type '\\x80'"),
    "a volume label": (block(kind=b"V"), Unsupported, "entry 'f' is a volume label"),
    "a continued file": (block(kind=b"M"), Unsupported, "entry 'f' is a continued file"),
    "an old long name": (block(kind=b"N"), Unsupported, "is of the unknown type 'N'"),
    "a directory dump": (block(kind=b"D"), Unsupported, "is a GNU directory dump"),
    "a device number of letters": (device(b"x", b"1"), FormatError, "field 'devmajor'"),
    "a minor number of letters": (device(b"1", b"x"), FormatError, "field 'devminor'"),
    "a major number above 12 bits": (device(b"10000", b"1"), FormatError, "whose number Linux"),
    "a minor number above 20 bits": (
        device(b"1", b"\x80" + (1 << 20).to_bytes(7, "big"), kind=b"4"),
        FormatError,
        "entry 'f'.* is a device whose number Linux does not have",
    ),
    "a negative device number": (device(b"\xff" * 8, b"1"), FormatError, "whose number Linux"),
    "an extended attribute without name": (
        pax((b"SCHILY.xattr.", b"x")) + block(),
        FormatError,
        "has the extended attribute '', whose name or value no file can have",
    ),
    "an extended attribute with a long name": (
        pax((b"SCHILY.xattr.user." + b"n" * 251, b"")) + block(),
        FormatError,
        "has the extended attribute 'user.n",
    ),
    "an extended attribute with a long value": (
        pax((b"SCHILY.xattr.user.a", b"v" * 65537)) + block(),
        FormatError,
        "'user.a', whose name or value",
    ),
    "too many extended attributes": (
        pax(*[(b"SCHILY.xattr.user.%d" % number, b"") for number in range(257)]) + block(),
        Unsupported,
        "entry 'f' has more than 256 extended attributes",
    ),
    "too many attributes of others": (
        pax(*[(b"LIBARCHIVE.xattr.user.%d" % number, b"") for number in range(257)]) + block(),
        Unsupported,
        "more than 256",
    ),
    "global extended attribute": (
        pax((b"SCHILY.xattr.user.a", b"1"), kind=b"g") + block(),
        FormatError,
        "'SCHILY.xattr.user.a' in a global extended header",
    ),
    "a global owner": (pax((b"uid", b"0"), kind=b"g") + block(), FormatError, "'uid' in a global"),
    "a global size": (pax((b"size", b"0"), kind=b"g") + block(), FormatError, "'size' in a glob"),
}


@pytest.mark.parametrize("piece", [None, 511, 1], ids=lambda p: f"pieces of {p}")
@pytest.mark.parametrize("name", GOOD)
def test_tar_that_is_good_is_unpacked(core, tree, name, piece):
    data, expected = GOOD[name]
    assert tree(core.unpack(data, piece=piece)) == expected


@pytest.mark.parametrize("name", BAD)
def test_tar_that_is_bad_is_refused(core, name):
    data, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        core.unpack(data + bytes(2048) if kind is not Truncated else data)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("layer")
    if kind is FormatError:
        assert caught.value.where


@pytest.mark.parametrize("name", BAD)
def test_implementations_agree_on_what_is_bad(both, name):
    both(lambda core: core.unpack(BAD[name][0]))


def test_fault_names_its_place(core):
    with pytest.raises(FormatError) as caught:
        core.unpack(block() + block(b"g", size=b"4\0") + padded(b"data") + b"x" * 512)
    assert caught.value.what == "layer"
    assert caught.value.where == "byte 1536 of the tar"


def test_tar_cut_at_any_block_raises_truncated(core):
    data = pax((b"path", b"a")) + block(size=b"1000 ") + b"x" * 512 + block(b"g")
    for cut in [*range(0, len(data), 128), *range(1, len(data), 509)]:
        if cut in (0, 2048, len(data)):  # between entries a tar may end
            continue
        with pytest.raises(Truncated, match="ends inside an entry"):
            core.unpack(data[:cut])


def test_flipped_bits_of_headers_are_judged_alike(both):
    """The checksum is made good again, so that the field itself is judged."""
    data = bytearray(pax((b"path", b"abc"), (b"mtime", b"1.5")) + block(size=b"4\0") + padded(b"x"))
    for at in [*range(512, 545), *range(1024 + 95, 1024 + 160), 1024 + 257, 1024 + 345]:
        changed = bytearray(data)
        changed[at] ^= 0x11
        start = at // 512 * 512
        if start != 512:
            head = bytearray(changed[start : start + 512])
            head[148:156] = b" " * 8
            changed[start + 148 : start + 156] = b"%06o\0 " % sum(head)

        def attempt(core, changed=bytes(changed)):
            root = core.unpack(changed)
            return sorted(os.listdir(root))

        both(attempt)


SEEDS = sorted((Path(__file__).resolve().parents[2] / "fuzz" / "corpus" / "tar").iterdir())


def mutated(random, seed):
    """A tar with some bytes or blocks changed, and checksums that are good."""
    data = bytearray(seed)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data))
        blocks = len(data) // 512
        match random.randrange(4):
            case 0:
                data[at] = random.choice(b"0123456789/.\0\n ,=SABxgLK\xff\x80")
            case 1:
                data[at] ^= 1 << random.randrange(8)
            case 2:
                data[at : at + 1] = data[at : at + 1] * 2
            case 3 if blocks:
                start = 512 * random.randrange(blocks)
                data[at // 512 * 512 : at // 512 * 512] = data[start : start + 512]
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.name)
def test_mutated_tars_come_to_the_same(both, tree, path):
    """The seeds of the fuzz target, which holds the C code against itself only."""
    random = Random(path.name)  # noqa: S311  # the same each time

    def attempt(core):
        root = core.unpack(data, ownership=Ownership.MINE)
        status = {name: os.lstat(root / name) for name in tree(root)}
        return (
            core.left_out,
            tree(root),
            {
                name: (one.st_mode, one.st_mtime_ns, one.st_nlink, os.listxattr(root / name))
                for name, one in status.items()
                if not stat.S_ISLNK(one.st_mode)
            },
        )

    for _ in range(12):
        data = mutated(random, path.read_bytes()[1:])
        both(attempt)


def test_names_above_the_limit_are_unsupported(core):
    name = "/".join("n" * 50 for _ in range(90))
    data = pax((b"path", name.encode())) + block()
    with pytest.raises(Unsupported, match="is above the limit of 4095 bytes"):
        core.unpack(data)
    with pytest.raises(Unsupported, match="name 'long' is above the limit of 3 bytes"):
        core.unpack(block(b"long"), limits=Limits(max_name_bytes=3))
    with pytest.raises(Unsupported, match="name 'target' is above the limit of 3 bytes"):
        core.unpack(block(b"s", kind=b"2", linkname=b"target"), limits=Limits(max_name_bytes=3))


def test_entries_above_the_limit_are_unsupported(core):
    data = b"".join(block(b"f%d" % number) for number in range(5))
    with pytest.raises(Unsupported, match="tar above the limit of 4 entries"):
        core.unpack(data, limits=Limits(max_entries=4))
    core.unpack(data, limits=Limits(max_entries=5))
    with pytest.raises(Unsupported, match="limit of 4 entries"):
        core.unpack(block(b"a/b/c/d/e"), limits=Limits(max_entries=4))


def test_times_are_kept_to_the_nanosecond(core):
    cases = {
        b"1700000000.987654321999": 1700000000_987654321,
        b"-1.5": -1_500_000_000,
        b"-1": -1_000_000_000,
        b"0.000000001": 1,
        b"12.": 12_000_000_000,
        b"4102444800": 4102444800_000000000,
    }
    data = b"".join(
        pax((b"mtime", text)) + block(b"f%d" % number) for number, text in enumerate(cases)
    )
    data += block(b"base256", mtime=b"\xff" * 11 + b"\xfe") + block(b"header")
    root = core.unpack(data)
    times = [(root / f"f{number}").stat().st_mtime_ns for number in range(len(cases))]
    assert times == list(cases.values())
    assert (root / "base256").stat().st_mtime_ns == -2_000_000_000
    assert (root / "header").stat().st_mtime_ns == 0o14524666400 * 10**9


def test_what_python_writes_is_read_in_all_its_formats(core, tree):
    names = ["short", "d" * 80 + "/" + "f" * 60, "ü" * 70, "x" * 200]
    for format_ in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=format_) as archive:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 3
                info.uid, info.gid = 3_000_000, 2_999_999
                info.mtime = 1.25
                archive.addfile(info, io.BytesIO(b"abc"))
        got = tree(core.unpack(out.getvalue()))
        assert {name: what for name, what in got.items() if what != "/"} == dict.fromkeys(
            names, "abc"
        )


def test_header_layout_of_this_file_is_that_of_python():
    """The tests' own header builder, against another's reader."""
    info = tarfile.TarInfo.frombuf(block(b"f", size=b"4\0", uid=b"0000007\0"), "utf-8", "strict")
    assert (info.name, info.size, info.uid, info.mtime) == ("f", 4, 7, 0o14524666400)
    assert struct.calcsize("512s") == len(block())
