# SPDX-License-Identifier: Apache-2.0
import os
import tarfile

import pytest

from imagers.layout.archive.tar_builder import TarBuilder


def test_tar_builder_makes_what_tarfile_reads(tmp_path):
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(2_500_000))
    out = os.open(tmp_path / "x.tar", os.O_RDWR | os.O_CREAT)
    source = os.open(blob, os.O_RDONLY)
    builder = TarBuilder(out)
    long = "blobs/sha512/" + "a" * 128
    builder.add_bytes("small", b"abc")
    builder.add_file(long, source, 2_500_000)
    builder.add_bytes("empty", b"")
    builder.finish()
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames() == ["small", long, "empty"]
        assert tar.extractfile(long).read() == blob.read_bytes()
        assert {one.mtime for one in tar} == {0}
    os.close(source)
    os.close(out)


def test_tar_builder_a_member_that_failed_leaves_no_trace(tmp_path):
    out = os.open(tmp_path / "x.tar", os.O_RDWR | os.O_CREAT)
    short = os.open(tmp_path / "short", os.O_RDWR | os.O_CREAT)
    builder = TarBuilder(out)
    with pytest.raises(OSError, match="shorter"):
        builder.add_file("broken", short, 5000)
    builder.add_bytes("good", b"abc")
    builder.finish()
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames() == ["good"]
    os.close(short)
    os.close(out)
