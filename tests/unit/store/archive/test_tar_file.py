import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagers.errors import FormatError, ImagersError, Truncated, Unsupported
from imagers.store.archive.tar_file import TarFile


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


def test_tar_file_two_files_of_one_name_refused(opened):
    with pytest.raises(FormatError, match="one file 'a'"):
        opened(make_tar([("a", b"1"), ("./a", b"2")]))


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
        opened(data[:300])


def test_tar_file_huge_extended_header_refused_before_it_is_read(opened):
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 1 << 40
    with pytest.raises(FormatError, match="extended header"):
        opened(info.tobuf(tarfile.GNU_FORMAT))


def test_tar_file_other_compression_named(opened):
    with pytest.raises(Unsupported, match="zstd"):
        opened(b"\x28\xb5\x2f\xfd" + bytes(1000))


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
