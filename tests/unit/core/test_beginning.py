# SPDX-License-Identifier: Apache-2.0
"""What a layer's first bytes say, and that looking at them takes none of them away."""

import gzip
import io
import os
import tarfile
import threading

import pytest
import zstandard

from imagers.core import AES_256_CTR_HMAC_SHA256, CipherParameters, look_at
from imagers.core.layer import open_layer, seal_layer
from imagers.core.values import AES256_GCM_HKDF_1MB
from imagers.errors import DigestMismatch, Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.model.media import Compression, compression_of_bytes

NONE, GZIP, ZSTD = Compression.NONE, Compression.GZIP, Compression.ZSTD


class Slow:
    """A stream that gives a byte or two at a time."""

    def __init__(self, data):
        self._file = io.BytesIO(data)
        self._calls = 0

    def readinto(self, buffer):
        self._calls += 1
        return self._file.readinto(buffer[: 1 + self._calls % 2])

    def close(self):
        self._file.close()


def tar_of(name="a", data=b"data"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


TAR = tar_of()
SKIPPABLE = b"\x50\x2a\x4d\x18" + bytes(4)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", NONE),
        (TAR, NONE),
        (gzip.compress(TAR, mtime=0), GZIP),
        (zstandard.compress(TAR), ZSTD),
        (SKIPPABLE + zstandard.compress(TAR), ZSTD),
        (bytes(1024), NONE),
        (b"no tar", NONE),
        (b"\x1f", NONE),
        (tar_of("\x1f\x8b\x08"), NONE),
        (tar_of("(\xb5/\xfd"), NONE),
        (tar_of("P*M\x18"), NONE),
        (tar_of("BZh"), NONE),
        (tar_of("\xfd7zXZ"), NONE),
    ],
)
def test_compression_of_bytes_is_what_they_are(data, expected):
    assert compression_of_bytes(data[:512], what="layer") is expected


@pytest.mark.parametrize(("start", "name"), [(b"BZh9", "bzip2"), (b"\xfd7zXZ\x00", "xz")])
def test_compression_of_bytes_that_nothing_undoes_is_named(start, name):
    with pytest.raises(Unsupported, match=f"layer 1 of 1: is compressed with {name}"):
        compression_of_bytes(start + bytes(600), what="layer 1 of 1")


def sealed(data, cipher, tmp_path):
    path = tmp_path / "sealed"
    with open(path, "wb", buffering=0) as sink:
        done = seal_layer(
            io.BytesIO(data),
            sink.fileno(),
            expected=Descriptor("a/b", digest_of(data), len(data)),
            cipher=cipher,
            source_compression=GZIP,
            what="layer",
        )
    return path.read_bytes(), done.hmac


def _write_all(fd, data):
    with os.fdopen(fd, "wb") as file:
        file.write(data)


@pytest.mark.parametrize("of", [io.BytesIO, Slow, "file", "pipe"])
@pytest.mark.parametrize("name", [None, AES_256_CTR_HMAC_SHA256, AES256_GCM_HKDF_1MB])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 3_000_000])
def test_look_at_tells_what_is_in_it_and_takes_nothing_away(tmp_path, of, name, size):
    data = gzip.compress(os.urandom(size))[: max(size, 40)] if size else gzip.compress(b"")
    cipher = hmac = None
    stored = data
    if name is not None:
        nonce = bytes(16) if name == AES_256_CTR_HMAC_SHA256 else b""
        cipher = CipherParameters(name, SecretKey(bytes(32)), nonce)
        stored, hmac = sealed(data, cipher, tmp_path)
    if of == "file":
        (tmp_path / "x").write_bytes(b"before" + stored)
        source = io.FileIO(tmp_path / "x")
        source.seek(6)
    elif of == "pipe":
        reading, writing = os.pipe()
        threading.Thread(target=_write_all, args=(writing, stored), daemon=True).start()
        source = io.FileIO(reading)
    else:
        source = of(stored)
    again, found = look_at(source, cipher=cipher, size=len(stored), told=NONE, what="layer")
    assert found is GZIP
    with open(tmp_path / "out", "wb", buffering=0) as sink:
        open_layer(
            again,
            sink.fileno(),
            expected=Descriptor("a/b", digest_of(stored), len(stored)),
            cipher=cipher,
            hmac=hmac or None,
            compression=found,
            diff_id=None,
            decompress=False,
            what="layer",
        )
    assert (tmp_path / "out").read_bytes() == data
    source.close()


def test_look_at_leaves_what_is_wrong_to_the_job(tmp_path):
    """Which reports it in the order of causes."""
    cipher = CipherParameters(AES256_GCM_HKDF_1MB, SecretKey(bytes(32)), b"")
    stored, _ = sealed(gzip.compress(TAR), cipher, tmp_path)
    spoiled = stored[:-1] + bytes([stored[-1] ^ 1])
    again, found = look_at(
        io.BytesIO(spoiled), cipher=cipher, size=len(spoiled), told=ZSTD, what="layer"
    )
    assert found is ZSTD
    with pytest.raises(DigestMismatch):
        open_layer(
            again,
            None,
            expected=Descriptor("a/b", digest_of(stored), len(stored)),
            cipher=cipher,
            hmac=None,
            compression=found,
            diff_id=None,
            what="layer",
        )
