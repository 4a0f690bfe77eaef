# SPDX-License-Identifier: Apache-2.0
import bz2
import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from imagers.core import Limits
from imagers.errors import FormatError, ImagersError, Truncated, Unsupported
from imagers.layout.archive import tar_file
from imagers.layout.archive.tar_file import TarFile


def make_tar(members, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, value in members:
            info = tarfile.TarInfo(name)
            if isinstance(value, bytes):
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
            else:
                info.type, info.linkname = value
                tar.addfile(info)
    return out.getvalue()


@pytest.fixture
def opened(tmp_path):
    def open_bytes(data):
        path = tmp_path / "x.tar"
        path.write_bytes(data)
        return TarFile.open(path)

    return open_bytes


LONG = "d/" + "long" * 60


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tar_file_reads_names_links_and_long_names(opened, form):
    data = make_tar(
        [
            ("./a", b"A" * 1000),
            (LONG, b"long"),
            ("ab/layer.tar", (tarfile.SYMTYPE, "../cd/layer.tar")),
            ("cd/layer.tar", b"layer"),
            ("hard", (tarfile.LNKTYPE, "cd/layer.tar")),
            ("dir", (tarfile.DIRTYPE, "")),
            ("empty", b""),
        ],
        form,
    )
    with opened(data) as tar:
        assert tar.read("a", 1000) == b"A" * 1000
        assert tar.read(LONG, 10) == b"long"
        assert tar.read("ab/layer.tar", 10) == tar.read("hard", 10) == b"layer"
        assert tar.read("empty", 0) == b""
        assert tar.read("dir", 10) is tar.read("b", 10) is None
        with pytest.raises(FormatError, match="at most 999"):
            tar.read("a", 999)


def test_tar_file_with_gzip_of_several_members(opened):
    data = make_tar([("a", b"A" * 100_000)])
    packed = gzip.compress(data[:700]) + gzip.compress(data[700:])
    with opened(packed) as tar:
        assert tar.read("a", 100_000) == b"A" * 100_000
    with pytest.raises(Truncated):
        opened(packed[:-20])


BIG = b"1" * ((1 << 20) + 1)
LINK = (tarfile.SYMTYPE, "b")


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([("a", b"1"), ("./a", b"2")], id="other bytes"),
        pytest.param([("a", b"1"), ("a", b"11")], id="other size"),
        pytest.param([("a", BIG), ("a", BIG[:-1] + b"2")], id="other last byte"),
        pytest.param([("a", b""), ("a", LINK), ("b", b"")], id="file and link"),
        pytest.param([("a", LINK), ("a", (tarfile.SYMTYPE, "c"))], id="two links"),
    ],
)
def test_tar_file_two_of_one_name_that_differ_refused(opened, members):
    """Some readers take the first one, some the last."""
    with pytest.raises(FormatError, match="one file 'a', got two that differ"):
        opened(make_tar(members))


def test_tar_file_the_same_file_or_link_again_is_one(opened):
    """As docker save has it of images that share a layer."""
    members = [("a", BIG), ("b", b""), ("l", LINK)]
    with opened(make_tar([*members, ("c", b"c"), *members, ("./a", BIG)])) as tar:
        assert sorted(tar.members) == ["a", "b", "c", "l"]
        assert tar.read("a", len(BIG)) == BIG
        assert tar.read("l", 10) == b""


def test_tar_file_links_in_a_circle_refused(opened):
    tar = opened(make_tar([("a", (tarfile.SYMTYPE, "b")), ("b", (tarfile.SYMTYPE, "a"))]))
    with pytest.raises(FormatError, match="fewer links"):
        tar.find("a")
    tar.close()
    tar.close()


def test_tar_file_link_out_of_the_archive_finds_nothing(opened):
    with opened(make_tar([("a", (tarfile.SYMTYPE, "../../etc/passwd"))])) as tar:
        assert tar.find("a") is None


def test_tar_file_cut_refused(opened):
    data = make_tar([("a", b"A" * 5000)])
    with pytest.raises(Truncated):
        opened(data[:3000])
    with pytest.raises(Truncated):
        opened(data[: 512 + 5120 + 300])


@pytest.mark.parametrize("count", [1, 99])
@pytest.mark.parametrize("data", [b"FROM scratch\n", b"PK\3\4 a zip ", b"\x7fELF\0\0\0\0\0\0"])
def test_tar_file_of_something_else_is_no_tar(opened, data, count):
    with pytest.raises(FormatError, match="expected a tar header") as caught:
        opened(data * count)
    assert "archive of an image" in caught.value.hint


def test_tar_file_huge_extended_header_refused_before_it_is_read(opened):
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 1 << 40
    with pytest.raises(FormatError, match="extended header"):
        opened(info.tobuf(tarfile.GNU_FORMAT))


PACK = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("kind", PACK)
def test_tar_file_compressed_is_read(opened, tmp_path, kind):
    data = make_tar([("a", b"A" * 70_000), ("b", os.urandom(3_000_000))])
    packed = PACK[kind](data)
    with opened(packed) as tar:
        assert tar.read("a", 70_000) == b"A" * 70_000
        assert len(tar.read("b", 3_000_000)) == 3_000_000
    with opened(PACK[kind](data[:5000]) + PACK[kind](data[5000:])) as tar:
        assert tar.read("a", 70_000) == b"A" * 70_000
    assert [one.name for one in tmp_path.iterdir()] == ["x.tar"]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("at", [0.0, 0.01, 0.5, 1.0])
def test_tar_file_compressed_that_breaks_off_refused(opened, kind, at):
    packed = PACK[kind](make_tar([("b", os.urandom(40_000))]))
    with pytest.raises((Truncated, FormatError)):
        opened(packed[: max(6, min(int(at * len(packed)), len(packed) - 1))])


@pytest.mark.parametrize("kind", PACK)
def test_tar_file_compressed_that_is_damaged_refused(opened, kind):
    packed = bytearray(PACK[kind](make_tar([("b", os.urandom(40_000))])))
    packed[6:40] = b"\xff" * 34
    with pytest.raises((FormatError, Truncated)) as caught:
        opened(bytes(packed))
    assert "x.tar" in str(caught.value)


@pytest.mark.parametrize("kind", PACK)
def test_tar_file_compressed_with_junk_behind_refused(opened, kind):
    with pytest.raises(ImagersError):
        opened(PACK[kind](make_tar([("a", b"A")])) + b"junk")


def test_tar_file_xz_with_padding_is_read(opened):
    """xz file format 1.2.1, section 2.2: zeros in fours, between streams and behind them."""
    data = make_tar([("a", b"A" * 3000)])
    packed = lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:]) + bytes(1024)
    with opened(packed) as tar:
        assert tar.read("a", 3000) == b"A" * 3000


def test_tar_file_xz_that_wants_more_memory_refused(opened):
    """A dictionary of 1.5 GiB costs whoever writes it nothing."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 128 << 20}]
    data = make_tar([("a", b"A")])
    packed = lzma.compress(data, filters=filters)
    with pytest.raises(Unsupported, match="memory to unpack") as caught:
        opened(packed)
    assert "unxz" in caught.value.hint
    opened(lzma.compress(data, preset=9)).close()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 3000), st.binary(min_size=1, max_size=12))
def test_tar_file_any_change_is_read_or_refused(tmp_path_factory, at, junk):
    data = bytearray(make_tar([(LONG, b"long"), ("a", b"A" * 600)]))
    data[at : at + len(junk)] = junk
    path = Path(tmp_path_factory.getbasetemp()) / "fuzz.tar"
    path.write_bytes(data)
    try:
        with TarFile.open(path) as tar:
            for name in tar.members:
                tar.read(name, 10_000)
    except ImagersError:
        pass


def pax(records, *, name="x"):
    info = tarfile.TarInfo(name)
    info.type, info.size = tarfile.XHDTYPE, len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)


def test_tar_file_header_of_nothing_but_records_is_read_in_proportion(opened):
    """A copy of the rest for each of 260,000 records took 9 s for one header."""
    header = pax(b"4 =\n" * 262_100 + b"10 path=y\n")
    with opened(header + make_tar([("x", b"data")])) as tar:
        assert tar.read("y", 10) == b"data"


def test_tar_file_extended_headers_have_a_bound_together(opened):
    data = pax(b"4 =\n" * 262_000) * 17 + make_tar([])
    with pytest.raises(FormatError, match="at most 16777216 bytes of extended headers"):
        opened(data)


@pytest.mark.parametrize(
    "records",
    [
        *(b"0 a=b\n", b"6 a=b", b"7 a=b\n", b"3 a=b\n", b"6  a=b\n", b" a=b\n", b"-6 a=b\n"),
        *(b"4 ab\n", b"00000006 a=b\n", b"5 a=\n\n", b"99999999999 a=b\n", b"6\n", b"\xb2 a=b\n"),
    ],
)
def test_tar_file_records_that_are_none_refused(opened, records):
    with pytest.raises(FormatError, match="expected a record"):
        opened(pax(records) + make_tar([("x", b"")]))


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_tar_file_that_unpacks_to_too_much_is_refused_on_the_way(
    opened, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(tar_file, "_UNPACKED", Limits(max_ratio=100, free_tar_bytes=1 << 20))
    written = []
    real = tar_file.write_all
    monkeypatch.setattr(
        tar_file, "write_all", lambda fd, data: written.append(len(data)) or real(fd, data)
    )
    packed = PACK[kind](bytes(16 << 20))
    with pytest.raises(Unsupported, match="unpacks to more than") as caught:
        opened(packed)
    assert f"{kind} -d" in caught.value.hint
    assert max(written) <= 1 << 20
    assert sum(written) <= (1 << 20) + 100 * len(packed)
    assert [one.name for one in tmp_path.iterdir()] == ["x.tar"]
    opened(gzip.compress(make_tar([("a", bytes(1 << 20))]))).close()


def test_tar_file_zstd_that_unpacks_to_too_much_is_refused(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(tar_file, "_UNPACKED", Limits(max_ratio=100, free_tar_bytes=1 << 20))
    with pytest.raises(Unsupported):
        opened(PACK["zstd"](bytes(16 << 20)))
    assert [one.name for one in tmp_path.iterdir()] == ["x.tar"]


def test_tar_file_bound_of_a_gzip_holds_for_a_file_of_four_megabytes():
    """4 MB became 4 GiB on the disk, for nothing but to be looked at."""
    assert tar_file._UNPACKED.tar_bytes_of(4 << 20) < 1 << 30
    assert tar_file._UNPACKED.tar_bytes_of(100) <= (1 << 28) + 10_000


def test_tar_file_gzip_of_many_members_is_read(opened):
    data = make_tar([("a", bytes(5000))])
    packed = b"".join(gzip.compress(data[at : at + 10]) for at in range(0, len(data), 10))
    packed += gzip.compress(b"") * 20_000
    with opened(packed) as tar:
        assert tar.read("a", 5000) == bytes(5000)
    with pytest.raises(Truncated):
        opened(packed[:-1])
