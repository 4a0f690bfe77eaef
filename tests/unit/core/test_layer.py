# SPDX-License-Identifier: Apache-2.0
"""What callers of the door are promised, by both implementations."""

import contextlib
import dataclasses
import gzip
import hashlib
import os
import threading
import time

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagers.core import (
    AES256_GCM_HKDF_1MB,
    Cancellation,
    CipherParameters,
    DirectorySink,
    Limits,
    Ownership,
    layer,
)
from imagers.errors import (
    Cancelled,
    DigestMismatch,
    FormatError,
    IntegrityError,
    LocalError,
    RemoteError,
    TagMismatch,
    TrailingData,
    Truncated,
    Unsupported,
)
from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest, digest_of
from imagers.model.keys import SecretKey
from imagers.model.media import Compression

PIECE = 256 * 1024
KiB = 1024
EDGES = [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 511, 513, 16 * KiB - 1, 16 * KiB + 1]
BIG_EDGES = [PIECE - 1, PIECE, PIECE + 1, 4 * PIECE + 5]
IN_TESTS = {
    "deadline": None,
    "max_examples": 25,
    # The fixtures keep no state between examples but files with names of their own.
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


def noise(length, seed=7):
    """Bytes that do not compress, the same each time."""
    return hashlib.shake_128(bytes([seed])).digest(length)


# 8.2 of the notes on image-rs, computed from the formulas and not by any of this code.
VECTOR_PLAIN = b"imagers layer test vector\n" * 3
VECTOR_SEALED = bytes.fromhex(
    "fb6dacea46e4f3eb36089f3132121771b92b5b36944940ae1cad3c4c2b10e3fcea4c4d3a6d7d87b80ce05364b522"
    "97ec3d07b127bf9d86457669afd4900221c1c4240fbc0a08da949fee6bb6159c"
)
VECTOR_TAG = bytes.fromhex("867de7e6940b42e91352af1f0856335b4046db823c8b103ce3f1c3ab051b46de")
WRAPPED = bytes.fromhex(
    "e999e41d4ca770da5387117b5d8f57eef29000b62a499fd0a9f39a6add2e7780"
    "f05d76ae4ab99fe5a6f69b3148c2363d"
)


def test_seal_known_answer(core):
    result, stored = core.seal(VECTOR_PLAIN)
    assert stored == VECTOR_SEALED
    assert result.hmac == VECTOR_TAG
    assert result.digest == digest_of(VECTOR_SEALED)
    assert result.size == len(VECTOR_SEALED)
    assert result.diff_id == digest_of(VECTOR_PLAIN)
    assert result.source_size == result.tar_size == len(VECTOR_PLAIN)


def test_open_known_answer(core):
    result, tar = core.open(VECTOR_SEALED, cipher=core.cipher(), hmac=VECTOR_TAG)
    assert tar == VECTOR_PLAIN
    assert result.size == result.tar_size == len(VECTOR_PLAIN)
    assert result.diff_id == digest_of(VECTOR_PLAIN)
    assert result.entries == 0


def test_seal_counter_carries_through_all_128_bits(core):
    _, stored = core.seal(bytes(48), cipher=core.cipher(nonce=b"\xff" * 16))
    assert stored == WRAPPED


@pytest.mark.parametrize("ones", [4, 8, 12])
def test_seal_counter_carries_between_pieces_and_words(core, ones):
    """The carry happens in the last block of a piece: counter = 2**(8 * ones) - PIECE / 16."""
    counter = (1 << (8 * ones)) - PIECE // 16
    start = counter.to_bytes(16, "big")
    after = (counter + PIECE // 16).to_bytes(16, "big")
    _, whole = core.seal(bytes(PIECE + 64), cipher=core.cipher(nonce=start))
    _, tail = core.seal(bytes(64), cipher=core.cipher(nonce=after))
    assert whole[PIECE:] == tail


@pytest.mark.parametrize("length", EDGES + BIG_EDGES)
@pytest.mark.parametrize("piece", [None, 1 << 30], ids=["file", "stream"])
def test_seal_then_open_gives_the_same_bytes_at_edges(core, length, piece):
    data = noise(length)
    result, stored = core.seal(data, piece=piece)
    assert len(stored) == result.size == length
    opened, tar = core.open(
        stored, piece=piece, cipher=core.cipher(), hmac=result.hmac, diff_id=digest_of(data)
    )
    assert tar == data
    assert opened.tar_size == length


@pytest.mark.parametrize("length", EDGES + BIG_EDGES)
@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_seal_compressing_then_open_gives_the_same_bytes_at_edges(core, length, compression):
    data = (noise(1000) + bytes(3000)) * (length // 4000 + 1)
    data = data[:length]
    result, stored = core.seal(data, compress=compression, diff_id=digest_of(data))
    assert result.diff_id == digest_of(data)
    assert result.tar_size == length
    _, tar = core.open(
        stored,
        cipher=core.cipher(),
        hmac=result.hmac,
        compression=compression,
        diff_id=digest_of(data),
    )
    assert tar == data


@given(
    data=st.binary(max_size=5000),
    repeat=st.integers(1, 200),
    piece=st.integers(1, 70_000),
    compression=st.sampled_from(Compression),
)
@settings(**IN_TESTS)
def test_seal_then_open_is_identity_for_any_bytes_and_pieces(
    core, data, repeat, piece, compression
):
    data *= repeat
    result, stored = core.seal(data, piece=max(piece, len(data) // 500), compress=compression)
    _, tar = core.open(
        stored,
        piece=max(piece, len(stored) // 500),
        cipher=core.cipher(),
        hmac=result.hmac,
        compression=compression,
        diff_id=digest_of(data),
    )
    assert tar == data


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_seal_gives_the_same_bytes_for_any_pieces(core, compression):
    data = b"".join(noise(700, seed) + bytes(700) for seed in range(256)) * 3
    _, from_file = core.seal(data, compress=compression)
    for piece in (977, 4096, 300_001):
        _, from_stream = core.seal(data, piece=piece, compress=compression)
        assert from_stream == from_file


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_seal_writes_independent_frames(core, compression):
    """Each 4 MiB of tar stand alone, so that they are worked on side by side."""
    data = (noise(3000) + bytes(5000)) * 1100
    assert 2 * 4 * 1024 * KiB < len(data) < 3 * 4 * 1024 * KiB
    _, stored = core.seal(data, cipher=None, compress=compression)
    magic = b"\x1f\x8b\x08" if compression is Compression.GZIP else b"\x28\xb5\x2f\xfd"
    starts = [at for at in range(len(stored)) if stored.startswith(magic, at)]
    whole = b"".join(
        gzip.decompress(stored[a:b])
        if compression is Compression.GZIP
        else zstandard.ZstdDecompressor().decompressobj().decompress(stored[a:b])
        for a, b in zip(starts, [*starts[1:], None], strict=True)
    )
    assert len(starts) == 3
    assert whole == data


def test_seal_recompresses_from_gzip_to_zstd(core):
    data = noise(400_000) + bytes(400_000)
    source = gzip.compress(data)
    result, stored = core.seal(
        source,
        source_compression=Compression.GZIP,
        compress=Compression.ZSTD,
        diff_id=digest_of(data),
    )
    assert result.diff_id == digest_of(data)
    assert result.tar_size == len(data)
    _, tar = core.open(stored, cipher=core.cipher(), hmac=result.hmac, compression=Compression.ZSTD)
    assert tar == data


def test_seal_decompresses_to_a_plain_tar(core):
    data = noise(100_000)
    result, stored = core.seal(
        gzip.compress(data),
        cipher=None,
        source_compression=Compression.GZIP,
        compress=Compression.NONE,
    )
    assert stored == data
    assert result.hmac == b""
    assert result.diff_id == digest_of(data)


@pytest.mark.parametrize("compress", [None, Compression.GZIP])
def test_seal_keeps_compressed_bytes_and_then_sees_no_tar(core, compress):
    source = gzip.compress(noise(1000))
    result, stored = core.seal(
        source,
        cipher=None,
        source_compression=Compression.GZIP,
        compress=compress,
        diff_id=digest_of(b"not looked at"),
    )
    assert stored == source
    assert result.diff_id is None
    assert result.tar_size == 0


def test_open_can_give_compressed_bytes_and_check_the_tar_aside(core):
    tar = noise(600_000)
    stored = gzip.compress(tar)
    result, out = core.open(
        stored, compression=Compression.GZIP, decompress=False, diff_id=digest_of(tar)
    )
    assert out == stored
    assert result.tar_size == len(tar)
    with pytest.raises(DigestMismatch, match="diff_id mismatch"):
        core.open(stored, compression=Compression.GZIP, decompress=False, diff_id=digest_of(stored))


def test_open_compressed_without_diff_id_looks_at_no_tar(core):
    result, out = core.open(b"not gzip at all", compression=Compression.GZIP, decompress=False)
    assert out == b"not gzip at all"
    assert result.tar_size == 0
    assert result.diff_id is None


def test_open_without_sink_checks_everything(core):
    tar = noise(300_000)
    stored = gzip.compress(tar)
    result, out = core.open(stored, sink=None, compression=Compression.GZIP, diff_id=digest_of(tar))
    assert out == b""
    assert result.tar_size == len(tar)


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_other_digest_algorithms_are_kept(core, algorithm):
    data = noise(70_000)
    expected = core.descriptor(data, algorithm)
    result, stored = core.seal(data, expected=expected, diff_id=digest_of(data))
    assert result.digest == digest_of(stored)
    assert result.diff_id == digest_of(data)
    opened, _ = core.open(data, expected=expected, diff_id=digest_of(data, algorithm))
    assert opened.diff_id == digest_of(data, algorithm)
    wrong = Descriptor("x", digest_of(b"", algorithm), len(data))
    with pytest.raises(DigestMismatch) as caught:
        core.open(data, expected=wrong)
    assert caught.value.actual == expected.digest


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("piece", [None, 1000], ids=["file", "stream"])
def test_open_stored_bytes_that_changed_raise_digest_mismatch(core, piece):
    data = noise(5000)
    with pytest.raises(DigestMismatch) as caught:
        core.open(flipped(data, 4999), piece=piece, expected=core.descriptor(data))
    assert caught.value.expected == digest_of(data)
    assert caught.value.actual == digest_of(flipped(data, 4999))
    assert caught.value.noun == "digest"
    assert caught.value.what == "layer"


@pytest.mark.parametrize("cut", [1, 100, 5000, PIECE, PIECE + 1])
@pytest.mark.parametrize("piece", [None, 999], ids=["file", "stream"])
def test_open_source_that_ends_early_raises_truncated(core, cut, piece):
    data = noise(PIECE + 1)
    with pytest.raises(Truncated) as caught:
        core.open(data[:-cut], piece=piece, expected=core.descriptor(data))
    assert caught.value.expected == len(data)
    assert caught.value.actual == len(data) - cut


@pytest.mark.parametrize("length", [0, 1, PIECE])
@pytest.mark.parametrize("piece", [None, 999], ids=["file", "stream"])
def test_open_source_that_goes_on_raises_trailing_data(core, length, piece):
    data = noise(length + 1)
    with pytest.raises(TrailingData) as caught:
        core.open(data, piece=piece, expected=core.descriptor(data[:-1]))
    assert caught.value.expected == length


@pytest.mark.parametrize(
    "changes",
    [
        {"cipher": {"key": bytes(32)}},
        {"hmac": bytes(32)},
        {"hmac": flipped(VECTOR_TAG, 31)},
    ],
    ids=["wrong key", "wrong tag", "last bit of the tag"],
)
def test_open_with_a_wrong_key_or_tag_raises_tag_mismatch(core, changes):
    arguments = {"cipher": core.cipher(), "hmac": VECTOR_TAG}
    if "cipher" in changes:
        arguments["cipher"] = core.cipher(**changes["cipher"])
    else:
        arguments |= changes
    with pytest.raises(TagMismatch) as caught:
        core.open(VECTOR_SEALED, **arguments, diff_id=digest_of(VECTOR_PLAIN))
    assert caught.value.what == "layer"
    assert VECTOR_TAG.hex() not in str(caught.value)


def test_open_with_a_wrong_nonce_is_caught_by_the_diff_id_alone(core):
    """The HMAC of the format does not cover the nonce."""
    arguments = {"cipher": core.cipher(nonce=bytes(16)), "hmac": VECTOR_TAG}
    with pytest.raises(DigestMismatch) as caught:
        core.open(VECTOR_SEALED, **arguments, diff_id=digest_of(VECTOR_PLAIN))
    assert caught.value.noun == "diff_id"
    assert caught.value.expected == digest_of(VECTOR_PLAIN)


def test_open_reports_the_digest_before_the_tag_and_the_tag_before_the_codec(core):
    """What comes first in the chain is the cause of what comes after it."""
    result, stored = core.seal(noise(400_000), compress=Compression.GZIP)
    expected = core.descriptor(stored)
    arguments = {"cipher": core.cipher(key=bytes(32)), "compression": Compression.GZIP}
    with pytest.raises(DigestMismatch):
        core.open(flipped(stored, 3), expected=expected, hmac=result.hmac, **arguments)
    with pytest.raises(TagMismatch):
        core.open(stored, hmac=result.hmac, **arguments)
    with pytest.raises(TagMismatch):
        core.open(flipped(stored, 3), hmac=result.hmac, **arguments)


def test_seal_reports_the_source_digest_before_the_codec(core):
    source = gzip.compress(noise(400_000))
    with pytest.raises(DigestMismatch):
        core.seal(
            flipped(source, 0),
            expected=core.descriptor(source),
            source_compression=Compression.GZIP,
            compress=Compression.ZSTD,
        )


@pytest.mark.parametrize("compress", [None, Compression.ZSTD])
def test_seal_checks_source_and_diff_id(core, compress):
    data = noise(100_000)
    with pytest.raises(DigestMismatch, match="digest mismatch"):
        core.seal(flipped(data, 5), expected=core.descriptor(data), compress=compress)
    with pytest.raises(DigestMismatch, match="diff_id mismatch"):
        core.seal(data, diff_id=digest_of(b""), compress=compress)
    with pytest.raises(Truncated):
        core.seal(data[:-1], expected=core.descriptor(data), compress=compress)


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_seal_tar_above_a_limit_is_refused(core, compression):
    data = bytes(3_000_000)
    _, source = core.seal(data, cipher=None, compress=compression)
    with pytest.raises(Unsupported, match="tar above the limit of 2999999 bytes"):
        core.seal(
            source,
            source_compression=compression,
            compress=Compression.NONE,
            limits=Limits(max_tar_bytes=2_999_999),
        )


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (Limits(max_tar_bytes=999_999), 999_999),
        (Limits(free_tar_bytes=0, max_ratio=10), None),
    ],
    ids=["absolute", "ratio"],
)
@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_open_tar_above_a_limit_is_refused(core, compression, limits, limit):
    _, stored = core.seal(bytes(1_000_000), cipher=None, compress=compression)
    with pytest.raises(Unsupported) as caught:
        core.open(stored, sink=None, compression=compression, limits=limits)
    assert f"tar above the limit of {limit or 10 * len(stored)} bytes" in str(caught.value)
    assert "exhaust" in caught.value.hint
    assert core.open(
        stored, sink=None, compression=compression, limits=Limits(max_tar_bytes=1_000_000)
    )


def test_seal_unchanged_above_the_tar_limit_reports_the_digest_first(core):
    limits = Limits(max_tar_bytes=100_000)
    data = noise(600_000)
    with pytest.raises(Unsupported, match="tar above the limit"):
        core.seal(data, limits=limits)
    with pytest.raises(DigestMismatch):
        core.seal(flipped(data, 5), expected=core.descriptor(data), limits=limits)


def test_seal_result_that_readers_would_take_for_a_bomb_is_refused(core):
    limits = Limits(free_tar_bytes=1000)
    with pytest.raises(Unsupported, match="takes it for a bomb") as caught:
        core.seal(bytes(4_000_000), compress=Compression.ZSTD, limits=limits)
    assert "gzip" in caught.value.hint
    core.seal(bytes(4_000_000), compress=Compression.GZIP, limits=limits)


def test_cipher_with_another_name_is_unsupported(core):
    with pytest.raises(Unsupported, match="'AES_512' is not supported, expected 'AES_256_CTR"):
        core.seal(b"", cipher=CipherParameters("AES_512", SecretKey(bytes(32)), bytes(16)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": bytes(16)}, "expected a key of 32 bytes, got 16"),
        ({"nonce": bytes(12)}, "expected a nonce of 16 bytes, got 12"),
    ],
)
def test_cipher_parameters_of_wrong_length_are_refused(core, arguments, message):
    with pytest.raises(FormatError, match=message) as caught:
        core.seal(b"", cipher=core.cipher(**arguments))
    assert caught.value.what == "layer"


def test_hmac_of_wrong_length_is_refused(core):
    with pytest.raises(FormatError, match="expected a hmac of 32 bytes, got 31"):
        core.open(b"", cipher=core.cipher(), hmac=bytes(31))


def test_hmac_and_cipher_go_together(core):
    with pytest.raises(ValueError, match="cipher without an HMAC"):
        core.open(b"", cipher=core.cipher())
    with pytest.raises(ValueError, match="HMAC without a cipher"):
        core.open(b"", hmac=bytes(32))


def test_closed_key_is_the_callers_bug(core):
    cipher = core.cipher()
    cipher.key.close()
    with pytest.raises(ValueError, match="closed"):
        core.seal(b"", cipher=cipher)


def test_full_disk_is_a_local_error(core):
    with open("/dev/full", "wb", buffering=0) as full:
        source = core.Memory(bytes(1000))
        with pytest.raises(LocalError, match="cannot write layer: no space left on device"):
            layer.seal_layer(
                source,
                full.fileno(),
                expected=core.descriptor(bytes(1000)),
                cipher=core.cipher(),
                source_compression=Compression.NONE,
                what="layer",
            )


def test_unreadable_source_is_a_local_error(core, tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(LocalError, match="cannot read layer: is a directory"):
            layer.open_layer(
                fd,
                None,
                expected=core.descriptor(b"x"),
                cipher=None,
                hmac=None,
                compression=Compression.NONE,
                diff_id=None,
                what="layer",
            )
    finally:
        os.close(fd)


def test_pipe_to_pipe(core):
    """Neither end is a file: short reads and writes that block."""
    data = noise(1_000_000)
    read_source, write_source = os.pipe()
    read_sink, write_sink = os.pipe()
    got = []

    def fill():
        with os.fdopen(write_source, "wb") as file:
            file.write(data)

    def drain():
        with os.fdopen(read_sink, "rb") as file:
            got.append(file.read())

    threads = [threading.Thread(target=one) for one in (fill, drain)]
    for thread in threads:
        thread.start()
    result = layer.seal_layer(
        read_source,
        write_sink,
        expected=core.descriptor(data),
        cipher=None,
        source_compression=Compression.NONE,
        what="layer",
    )
    os.close(write_sink)
    os.close(read_source)
    for thread in threads:
        thread.join(10)
    assert got == [data]
    assert result.digest == digest_of(data)


def test_error_of_the_source_passes(core):
    class Breaks:
        def readinto(self, _):
            raise RemoteError("gone away", temporary=True)

        def close(self):
            pass

    with pytest.raises(RemoteError, match="gone away") as caught:
        layer.open_layer(
            Breaks(),
            None,
            expected=core.descriptor(b"x"),
            cipher=None,
            hmac=None,
            compression=Compression.NONE,
            diff_id=None,
            what="layer",
        )
    assert caught.value.temporary


class Endless:
    """A source that gives zeros slowly and tells how often it was asked."""

    def __init__(self, seconds=0.0):
        self._seconds = seconds
        self.asked = threading.Event()

    def readinto(self, buffer):
        self.asked.set()
        time.sleep(self._seconds)
        return len(buffer)

    def close(self):
        pass


def endless(source, **settings):
    return layer.open_layer(
        source,
        None,
        expected=Descriptor("x", Digest("sha256", "0" * 64), 1 << 50),
        cipher=None,
        hmac=None,
        compression=Compression.NONE,
        diff_id=None,
        limits=Limits(max_tar_bytes=1 << 60),
        what="layer 3 of 7",
        **settings,
    )


@pytest.mark.usefixtures("core")
def test_cancel_from_another_thread_ends_the_job():
    source = Endless()
    cancellation = Cancellation()
    assert not cancellation.is_cancelled

    def cancel():
        source.asked.wait(10)
        cancellation.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled, match="layer 3 of 7: cancelled"):
        endless(source, cancellation=cancellation)
    thread.join(10)


@pytest.mark.usefixtures("core")
def test_cancel_of_a_file_is_quick():
    with open("/dev/zero", "rb", buffering=0) as zeros:
        cancellation = Cancellation()
        timer = threading.Timer(0.1, cancellation.cancel)
        timer.start()
        start = time.monotonic()
        with pytest.raises(Cancelled):
            endless(zeros.fileno(), cancellation=cancellation)
        assert time.monotonic() - start < 30
        timer.join(10)


def test_cancelled_beforehand_does_nothing(core):
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        core.seal(noise(100), cancellation=cancellation)


def test_progress_grows_and_ends_at_the_end(core):
    data = noise(3_000_000)
    seen = []

    class Slow(core.Memory):
        def readinto(self, buffer):
            time.sleep(0.03)
            return super().readinto(buffer)

    begin = time.monotonic()
    result = layer.open_layer(
        Slow(data, 200_000),
        None,
        expected=core.descriptor(data),
        cipher=None,
        hmac=None,
        compression=Compression.NONE,
        diff_id=None,
        what="layer",
        on_progress=seen.append,
    )
    tenths = (time.monotonic() - begin) * 10
    assert [one.bytes_in for one in seen] == sorted(one.bytes_in for one in seen)
    assert 2 <= len(seen) <= tenths + 1  # the last one is told in any case
    assert seen[-1].bytes_in == seen[-1].bytes_out == result.size == len(data)


@pytest.mark.usefixtures("core")
def test_progress_callback_that_raises_ends_the_job():
    def report(_):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        endless(Endless(0.005), on_progress=report)


def test_stream_with_a_file_is_read_through_its_descriptor(core, tmp_path):
    data = noise(1000)
    (tmp_path / "x").write_bytes(data)

    class Blob:
        def __init__(self, file):
            self._file = file

        def fileno(self):
            return self._file.fileno()

        def readinto(self, _):
            raise AssertionError("the descriptor is to be read")

        def close(self):
            self._file.close()

    with (tmp_path / "x").open("rb", buffering=0) as file:
        result = layer.open_layer(
            Blob(file),
            None,
            expected=core.descriptor(data),
            cipher=None,
            hmac=None,
            compression=Compression.NONE,
            diff_id=digest_of(data),
            what="layer",
        )
    assert result.size == 1000


@pytest.mark.parametrize("count", [-1, 11, 10**6])
def test_source_that_lies_about_its_count_is_refused(core, count):
    class Liar:
        def readinto(self, _):
            return count

        def close(self):
            pass

    with pytest.raises(ValueError, match=rf"readinto\(\) gave {count} for \d+ bytes"):
        layer.open_layer(
            Liar(),
            None,
            expected=core.descriptor(bytes(10)),
            cipher=None,
            hmac=None,
            compression=Compression.NONE,
            diff_id=None,
            what="layer",
        )


@pytest.mark.parametrize("compression", list(Compression), ids=lambda one: one.value)
@pytest.mark.parametrize("algorithm", [None, "sha256", "sha512"])
def test_open_without_decompression_tells_the_digest_of_what_it_wrote(core, compression, algorithm):
    tar = bytes(range(256)) * 3000
    data = core.seal(tar, cipher=None, compress=compression)[1]
    sealed, stored = core.seal(data, source_compression=compression)
    opened, written = core.open(
        stored,
        cipher=core.cipher(),
        hmac=sealed.hmac,
        compression=compression,
        decompress=False,
        diff_id=None if algorithm is None else digest_of(tar, algorithm),
    )
    assert written == data
    assert (opened.digest, opened.size) == (digest_of(data), len(data))


def test_split_job_with_damage_in_each_stage_tells_what_came_first(both):
    """Tar damage before gzip damage; and a wrong digest or HMAC before either."""
    tar = bytes(512 * 6000)  # ends at once, then only zeros may follow
    bad_tar = b"\x01" * 512 + tar
    packed = gzip.compress(bad_tar, 1)
    broken = packed[:-9] + bytes([packed[-9] ^ 0xFF]) + packed[-8:]

    def unpacked(driver, data, **settings):
        sealed, stored = driver.seal(data, source_compression=Compression.GZIP)
        root = driver.path()
        root.mkdir()
        with contextlib.ExitStack() as stack:
            fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, fd)
            arguments = {
                "cipher": driver.cipher(),
                "hmac": sealed.hmac,
                "compression": Compression.GZIP,
                "sink": DirectorySink(fd, Ownership.MINE),
            }
            return driver.open(stored, **(arguments | settings))

    kind, _, _ = both(lambda driver: unpacked(driver, packed))
    assert kind is FormatError
    kind, message, _ = both(lambda driver: unpacked(driver, broken))
    assert kind is FormatError
    assert "tar" in message
    kind, _, _ = both(lambda driver: unpacked(driver, broken, hmac=bytes(32)))
    assert kind is TagMismatch
    kind, _, _ = both(
        lambda driver: unpacked(driver, broken, hmac=bytes(32), expected=driver.descriptor(b"x"))
    )
    assert issubclass(kind, IntegrityError)
    assert kind is not TagMismatch


# ---- checked first, opened then -----------------------------------------------------------------


def checked_layer(core, data, **settings):
    """(CheckedLayer, stored bytes, what `core.open` needs)."""
    sealed, stored = core.seal(data)
    cipher = core.cipher()
    checked, _ = core.check(stored, cipher=cipher, hmac=sealed.hmac, **settings)
    opening = {
        "cipher": cipher,
        "hmac": sealed.hmac,
        "expected": core.descriptor(stored),
        "checked": checked,
    }
    return checked, stored, opening


@pytest.mark.parametrize("length", EDGES + BIG_EDGES)
@pytest.mark.parametrize("piece", [None, 1 << 30, 1000], ids=["file", "stream", "small pieces"])
def test_check_then_open_gives_the_same_bytes_at_edges(core, length, piece):
    data = noise(length)
    sealed, stored = core.seal(data)
    cipher = core.cipher()
    checked, kept = core.check(stored, piece=piece, cipher=cipher, hmac=sealed.hmac)
    assert kept == stored
    opened, tar = core.open(
        kept, cipher=cipher, hmac=sealed.hmac, checked=checked, diff_id=digest_of(data)
    )
    assert tar == data
    assert opened.size == opened.tar_size == length


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_check_then_open_of_a_plain_layer_gives_the_same_bytes(core, algorithm):
    data = noise(PIECE + 5)
    expected = core.descriptor(data, algorithm)
    checked, kept = core.check(data, expected=expected)
    _, tar = core.open(kept, expected=expected, checked=checked, diff_id=digest_of(data))
    assert tar == data


@pytest.mark.parametrize("length", [0, 1, PIECE - 1, PIECE, 3 * PIECE + 5, 65 * PIECE])
def test_check_makes_the_codes_that_another_library_makes(core, length):
    data = noise(length)
    checked, _ = core.check(data)
    with checked.key.view() as key:
        gcm = AESGCM(bytes(key))
    pieces = [data[at : at + PIECE] for at in range(0, length, PIECE)]
    assert checked.codes == b"".join(
        gcm.encrypt(number.to_bytes(12), b"", piece) for number, piece in enumerate(pieces)
    )
    assert checked.beginning == data[:512]


def test_check_draws_a_key_of_its_own_each_time(core):
    one, _ = core.check(b"data")
    other, _ = core.check(b"data")
    assert one.key != other.key
    assert one.codes != other.codes


def test_check_without_a_sink_only_checks(core):
    data = noise(PIECE + 1)
    checked, kept = core.check(data, sink=None)
    assert kept == b""
    assert len(checked.codes) == 32


def test_checked_layer_shows_no_secret_and_forgets_its_key(core):
    checked, _ = core.check(b"data")
    with checked.key.view() as key:
        assert bytes(key) != bytes(32)
    assert str(checked.codes) not in repr(checked)
    checked.close()
    with pytest.raises(ValueError, match="closed"), checked.key.view():
        pass


@pytest.mark.parametrize("piece", [None, 1 << 30], ids=["file", "stream"])
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda data: b"x" + data[1:], DigestMismatch, "expected 'sha256:"),
        (lambda data: data[:-1] + b"x", DigestMismatch, "expected 'sha256:"),
        (lambda data: data[:-1], Truncated, "layer"),
        (lambda data: data[:PIECE], Truncated, "layer"),
        (lambda _: b"", Truncated, "layer"),
        (lambda data: data + b"x", TrailingData, "layer"),
    ],
)
def test_check_of_other_bytes_is_refused(core, piece, change, error, text):
    sealed, stored = core.seal(noise(PIECE + 100))
    with pytest.raises(error, match=text):
        core.check(
            change(stored),
            piece=piece,
            expected=core.descriptor(stored),
            cipher=core.cipher(),
            hmac=sealed.hmac,
        )


@pytest.mark.parametrize("length", [0, 100, PIECE + 100])
def test_check_with_another_key_or_hmac_is_refused(core, length):
    sealed, stored = core.seal(noise(length))
    other = bytes([sealed.hmac[0] ^ 1]) + sealed.hmac[1:]
    with pytest.raises(TagMismatch, match="layer: authentication tag does not match"):
        core.check(stored, cipher=core.cipher(), hmac=other)
    with pytest.raises(TagMismatch, match="layer: authentication tag does not match"):
        core.check(stored, cipher=core.cipher(key=bytes(32)), hmac=sealed.hmac)


def test_check_reports_the_digest_before_the_hmac(core):
    _, stored = core.seal(noise(100))
    with pytest.raises(DigestMismatch):
        core.check(b"x" + stored[1:], expected=core.descriptor(stored), cipher=core.cipher(),
                   hmac=bytes(32))  # fmt: skip


def test_check_that_fails_forgets_its_key(core):
    with pytest.raises(DigestMismatch) as told:
        core.check(b"x", expected=core.descriptor(b"y"))
    (frame,) = [one.frame for one in told.traceback if one.name == "check_layer"]
    with pytest.raises(ValueError, match="closed"), frame.f_locals["key"].view():
        pass


def test_check_with_a_full_disk_says_what_helps(core):
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(LocalError, match="cannot keep layer until it is checked: no space") as told,
    ):
        core.check(noise(PIECE + 1), sink=full.fileno())
    assert "--stream" in told.value.hint


def test_check_is_cancelled(core):
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        core.check(noise(3 * PIECE), cancellation=cancellation)


def test_check_tells_progress_to_its_end(core):
    seen = []
    core.check(noise(PIECE + 5), on_progress=seen.append)
    assert seen[-1].bytes_in == PIECE + 5


def changes_of(stored):
    """{what: (the stored bytes after it, the first byte of the piece where it is seen)}."""
    found = {}
    for start in range(0, len(stored), PIECE):
        end = min(start + PIECE, len(stored))
        for at in (start, (start + end) // 2, end - 1):
            flipped = bytes([stored[at] ^ 1])
            found[f"byte {at}"] = stored[:at] + flipped + stored[at + 1 :], start
    first, second, third = (stored[at : at + PIECE] for at in (0, PIECE, 2 * PIECE))
    rest = stored[3 * PIECE :]
    assert rest
    return found | {
        "first two swapped": (second + first + third + rest, 0),
        "next two swapped": (first + third + second + rest, PIECE),
        "a piece twice": (first + first + third + rest, PIECE),
        "a piece left out": (first + third + rest, PIECE),
        "a byte put in": (first + b"x" + second + third + rest, PIECE),
        "cut at a piece": (first + second + third, 3 * PIECE),
        "cut inside the last": (stored[:-1], 3 * PIECE),
        "cut inside the first": (first[:-1], 0),
        "empty": (b"", 0),
        "longer": (stored + b"x", len(stored)),
        "zeros": (bytes(len(stored)), 0),
    }


CHANGED_LAYER = noise(3 * PIECE + 1000)
CHANGES = list(changes_of(CHANGED_LAYER))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("piece", [None, 1 << 30], ids=["file", "stream"])
def test_open_checked_layer_that_changed_meanwhile_gives_nothing_from_there_on(
    core, tmp_path, change, piece
):
    data = CHANGED_LAYER
    _, stored, opening = checked_layer(core, data)
    other, start = changes_of(stored)[change]
    source, close = core.source(other, piece)
    opening |= {"compression": Compression.NONE, "diff_id": None, "what": "layer"}
    with (tmp_path / "sink").open("w+b", buffering=0) as sink:
        with pytest.raises(
            IntegrityError, match=f"^layer: expected .*, got others from byte {start} on$"
        ) as told:
            layer.open_layer(source, sink.fileno(), **opening)
        sink.seek(0)
        got = sink.read()
    close()
    assert "do not trust it" in told.value.hint
    assert len(got) <= start
    assert data.startswith(got)


def test_open_checked_layer_with_the_codes_of_another_of_the_same_bytes_is_refused(core):
    """Codes are worth something only under their key: they cannot be carried over."""
    checked, stored, opening = checked_layer(core, noise(100))
    other, _, _ = checked_layer(core, noise(100))
    mixed = dataclasses.replace(checked, key=other.key)
    with pytest.raises(IntegrityError, match="from byte 0 on"):
        core.open(stored, **(opening | {"checked": mixed}))


@pytest.mark.parametrize("name", ["expected", "cipher", "hmac"])
def test_open_with_the_check_of_another_layer_is_the_callers_bug(core, name):
    """Else an HMAC that nobody compared would count as compared."""
    _, stored, opening = checked_layer(core, noise(100))
    other = {
        "expected": core.descriptor(b"other"),
        "cipher": core.cipher(key=bytes(32)),
        "hmac": bytes(32),
    }
    with pytest.raises(ValueError, match="another layer was checked"):
        core.open(stored, **(opening | {name: other[name]}))


def test_open_encrypted_layer_whose_check_compared_no_hmac_is_the_callers_bug(core):
    _, stored, opening = checked_layer(core, noise(100))
    unkeyed, _ = core.check(stored)
    with pytest.raises(ValueError, match="another layer was checked"):
        core.open(stored, **(opening | {"checked": unkeyed}))


def test_check_with_a_cipher_that_has_tags_of_its_own_is_the_callers_bug(core):
    cipher = CipherParameters(AES256_GCM_HKDF_1MB, SecretKey(bytes(32)), b"")
    with pytest.raises(ValueError, match="without an HMAC"):
        core.check(b"data", cipher=cipher)
    with pytest.raises(ValueError, match="without an HMAC"):
        core.check(b"data", cipher=core.cipher())


def test_check_and_open_of_a_checked_layer_report_the_same_in_c_and_python(both):
    def change(name):
        def call(core):
            _, stored, opening = checked_layer(core, noise(3 * PIECE + 1000))
            return core.open(changes_of(stored)[name][0], **opening)

        return call

    for name in CHANGES:
        assert both(change(name))[0] is IntegrityError
    assert both(lambda core: core.check(b"x", expected=core.descriptor(b"y")))[0] is DigestMismatch


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_open_checked_layer_is_decompressed_and_held_to_its_diff_id(core, compression):
    data = (noise(1000) + bytes(3000)) * 500
    sealed, stored = core.seal(data, compress=compression)
    cipher = core.cipher()
    checked, _ = core.check(stored, cipher=cipher, hmac=sealed.hmac)
    opening = {"cipher": cipher, "hmac": sealed.hmac, "checked": checked}
    opening |= {"compression": compression}
    assert core.open(stored, diff_id=digest_of(data), **opening)[1] == data
    with pytest.raises(DigestMismatch, match="diff_id"):
        core.open(stored, diff_id=digest_of(b"other"), **opening)
    kept, compressed = core.open(stored, decompress=False, **opening)
    assert kept.digest == digest_of(compressed)
