# SPDX-License-Identifier: Apache-2.0
"""AES256_GCM_HKDF_1MB, against Tink where its package is installed, and against attacks."""

import io
import os
import tempfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagers.core import (
    AES256_GCM_HKDF_1MB,
    CipherParameters,
    DirectorySink,
    Ownership,
    open_layer,
    open_range,
    seal_layer,
)
from imagers.core.aead import HEADER_BYTES, SEGMENT_BYTES, plaintext_size
from imagers.errors import DigestMismatch, FormatError, TagMismatch, Truncated, Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.model.media import OCI_LAYER, Compression
from imagers.testing import make_tar

KEY = bytes(range(32))
DATA = b"imagers-layer-v1\0" + OCI_LAYER.encode()
FIRST = SEGMENT_BYTES - HEADER_BYTES - 16
NEXT = SEGMENT_BYTES - 16
# Plaintext sizes at the edges of segments.
SIZES = [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + NEXT, FIRST + NEXT + 1, 3 * SEGMENT_BYTES]


def parameters(key=KEY, data=DATA):
    return CipherParameters(AES256_GCM_HKDF_1MB, SecretKey(key), b"", data)


def file_of(data=b""):
    file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by its user
    file.write(data)
    file.flush()
    file.seek(0)
    return file


def seal(data, *, compression=Compression.NONE, diff_id=None, cipher=None, compress=None):
    with file_of(data) as source, file_of() as sink:
        sealed = seal_layer(
            source.fileno(),
            sink.fileno(),
            expected=Descriptor(OCI_LAYER, digest_of(data), len(data)),
            cipher=cipher or parameters(),
            source_compression=compression,
            compress=compress,
            diff_id=diff_id,
            what="layer 1 of 1",
        )
        sink.seek(0)
        stored = sink.read()
    assert (sealed.digest, sealed.size, sealed.hmac) == (digest_of(stored), len(stored), b"")
    return stored


def open_(stored, *, compression=Compression.NONE, diff_id=None, cipher=None, sink=None, **more):
    with file_of(stored) as source, file_of() as target:
        open_layer(
            source.fileno(),
            target.fileno() if sink is None else sink,
            expected=Descriptor("x", digest_of(stored), len(stored)),
            cipher=cipher or parameters(),
            hmac=None,
            compression=compression,
            diff_id=diff_id,
            what="layer 1 of 1",
            **more,
        )
        target.seek(0)
        return target.read()


@pytest.mark.parametrize("size", SIZES)
def test_open_gives_what_was_sealed_at_the_edges_of_segments(size):
    data = os.urandom(size)
    stored = seal(data, diff_id=digest_of(data))
    assert stored[0] == HEADER_BYTES
    assert plaintext_size(len(stored), what="x") == size
    assert open_(stored, diff_id=digest_of(data)) == data


def test_seal_of_the_same_bytes_gives_others_each_time():
    assert seal(b"x")[1:] != seal(b"x")[1:]


def gzip_of(data):
    compressor = zlib.compressobj(wbits=31)
    return compressor.compress(data) + compressor.flush()


def test_seal_of_a_compressed_layer_checks_its_diff_id_and_keeps_its_bytes():
    tar = bytes(3 * SEGMENT_BYTES)
    stored = seal(gzip_of(tar), compression=Compression.GZIP, diff_id=digest_of(tar))
    kept = open_(stored, compression=Compression.GZIP, diff_id=digest_of(tar), decompress=False)
    assert kept == gzip_of(tar)
    assert open_(stored, compression=Compression.GZIP, diff_id=digest_of(tar)) == tar
    with pytest.raises(DigestMismatch, match="diff_id"):
        seal(gzip_of(tar), compression=Compression.GZIP, diff_id=digest_of(b""))


def test_seal_that_compresses_checks_the_tar_too():
    tar = bytes(100_000)
    stored = seal(tar, compress=Compression.GZIP, diff_id=digest_of(tar))
    assert len(stored) < len(tar)
    assert open_(stored, compression=Compression.GZIP, diff_id=digest_of(tar)) == tar
    with pytest.raises(DigestMismatch, match="diff_id"):
        seal(tar, compress=Compression.GZIP, diff_id=digest_of(b""))


@pytest.fixture
def directory(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield DirectorySink(fd, Ownership.MINE)
    os.close(fd)


def test_open_unpacks(tmp_path, directory):
    tar = make_tar(("file", b"content"))
    open_(seal(tar), diff_id=digest_of(tar), sink=directory)
    assert (tmp_path / "file").read_bytes() == b"content"


def check_refused(changed):
    """A changed layer is refused, and whatever came out of it before is what was sealed."""
    with file_of(changed) as source, file_of() as target:
        with pytest.raises((TagMismatch, Truncated, FormatError)):
            open_layer(
                source.fileno(),
                target.fileno(),
                expected=Descriptor("x", digest_of(changed), len(changed)),
                cipher=parameters(),
                hmac=None,
                compression=Compression.NONE,
                diff_id=None,
                what="layer 1 of 1",
            )
        target.seek(0)
        out = target.read()
    assert PLAIN.startswith(out)


PLAIN = os.urandom(2 * SEGMENT_BYTES + 5)
STORED = seal(PLAIN)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(STORED) * 8 - 1))
def test_open_with_any_bit_changed_raises_and_lets_out_nothing_of_it(bit):
    changed = bytearray(STORED)
    changed[bit // 8] ^= 1 << bit % 8
    check_refused(bytes(changed))


SEGMENTS = [STORED[at : at + SEGMENT_BYTES] for at in range(0, len(STORED), SEGMENT_BYTES)]
ATTACKS = {
    "last segment dropped": b"".join(SEGMENTS[:-1]),
    "all but the first dropped": SEGMENTS[0],
    "header alone": STORED[:HEADER_BYTES],
    "part of the header": STORED[:20],
    "nothing": b"",
    "one byte dropped": STORED[:-1],
    "one byte more": STORED + b"\0",
    "last segment twice": STORED + SEGMENTS[-1],
    "middle segment twice": b"".join((SEGMENTS[0], SEGMENTS[1], SEGMENTS[1], SEGMENTS[2])),
    "middle segment dropped": SEGMENTS[0] + SEGMENTS[2],
    "header of another layer": seal(PLAIN)[:HEADER_BYTES] + STORED[HEADER_BYTES:],
}


@pytest.mark.parametrize("changed", ATTACKS.values(), ids=ATTACKS)
def test_open_of_segments_that_were_moved_or_cut_raises(changed):
    check_refused(changed)


def test_open_with_another_key_or_other_associated_data_raises():
    for cipher in (parameters(bytes(32)), parameters(data=DATA + b"+gzip"), parameters(data=b"")):
        with pytest.raises(TagMismatch, match="segment 0"):
            open_(STORED, cipher=cipher)


def test_open_of_other_stored_bytes_than_promised_tells_the_digest_first():
    with file_of(STORED[:-1] + b"x") as source, pytest.raises(DigestMismatch):
        open_layer(
            source.fileno(),
            None,
            expected=Descriptor("x", digest_of(STORED), len(STORED)),
            cipher=parameters(),
            hmac=None,
            compression=Compression.NONE,
            diff_id=None,
            what="layer 1 of 1",
        )


def range_of(stored, offset, length, size=None):
    return open_range(
        lambda at, count: stored[at : at + count],
        size=len(stored) if size is None else size,
        cipher=parameters(),
        offset=offset,
        length=length,
        what="layer 1 of 1",
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(PLAIN) + 10), st.integers(0, len(PLAIN)))
def test_open_range_gives_that_part(offset, length):
    assert range_of(STORED, offset, length) == PLAIN[offset : offset + length]


@pytest.mark.parametrize("offset", [0, FIRST - 1, FIRST, FIRST + NEXT - 1, FIRST + NEXT])
def test_open_range_at_the_edges_of_segments(offset):
    assert range_of(STORED, offset, 2) == PLAIN[offset : offset + 2]


def test_open_range_reads_only_what_it_needs():
    asked = []

    def read_at(at, count):
        asked.append((at, count))
        return STORED[at : at + count]

    open_range(
        read_at,
        size=len(STORED),
        cipher=parameters(),
        offset=FIRST + 10,
        length=100,
        what="layer 1 of 1",
    )
    assert asked == [(0, HEADER_BYTES), (SEGMENT_BYTES, SEGMENT_BYTES)]


def test_open_range_of_a_layer_that_was_cut_raises():
    with pytest.raises(TagMismatch):
        range_of(STORED, FIRST, 10, size=2 * SEGMENT_BYTES)
    with pytest.raises(Truncated):
        range_of(STORED[:-1], len(PLAIN) - 1, 1, size=len(STORED))
    for size in (0, 20, HEADER_BYTES + 15, SEGMENT_BYTES + 15):
        with pytest.raises(Truncated):
            plaintext_size(size, what="x")


def test_open_range_of_the_other_cipher_is_not_possible():
    cipher = CipherParameters("AES_256_CTR_HMAC_SHA256", SecretKey(KEY), bytes(16))
    with pytest.raises(Unsupported, match="can be opened in part"):
        open_range(lambda *_: b"", size=1, cipher=cipher, offset=0, length=1, what="x")


def test_parameters_that_do_not_fit_the_cipher_raise():
    with pytest.raises(FormatError, match="expected a nonce of 0 bytes, got 16"):
        open_(STORED, cipher=CipherParameters(AES256_GCM_HKDF_1MB, SecretKey(KEY), bytes(16)))
    with pytest.raises(FormatError, match="expected a key of 32 bytes, got 16"):
        open_(STORED, cipher=parameters(bytes(16)))
    other = CipherParameters("AES_256_CTR_HMAC_SHA256", SecretKey(KEY), bytes(16), DATA)
    with pytest.raises(ValueError, match="no place for it"):
        seal(b"", cipher=other)


# --- Tink


@pytest.fixture(scope="module")
def tink_streams():
    """Streams of Tink's own AES256_GCM_HKDF_1MB under `KEY`: to encrypt, and to decrypt."""
    tink = pytest.importorskip("tink", reason="Tink is not installed")
    from tink import secret_key_access, streaming_aead  # may be missing
    from tink.proto import (
        aes_gcm_hkdf_streaming_pb2,
        common_pb2,
        tink_pb2,
    )

    streaming_aead.register()
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    wanted = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKeyFormat.FromString(template.value)
    assert wanted.key_size == 32
    assert wanted.params == aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=SEGMENT_BYTES,
        derived_key_size=32,
        hkdf_hash_type=common_pb2.SHA256,
    )
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(key_value=KEY, params=wanted.params)
    keyset = tink_pb2.Keyset(primary_key_id=1)
    one = keyset.key.add(key_id=1, status=tink_pb2.ENABLED, output_prefix_type=tink_pb2.RAW)
    one.key_data.type_url = template.type_url
    one.key_data.value = key.SerializeToString()
    one.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


class Kept(io.BytesIO):
    """Tink closes what it writes to."""

    def close(self):
        pass


@pytest.mark.parametrize("size", SIZES)
def test_tink_opens_what_is_sealed_here_and_the_other_way_round(tink_streams, size):
    data = os.urandom(size)
    with tink_streams.new_decrypting_stream(io.BytesIO(seal(data)), DATA) as stream:
        assert stream.read() == data
    kept = Kept()
    with tink_streams.new_encrypting_stream(kept, DATA) as stream:
        stream.write(data)
    assert open_(kept.getvalue(), diff_id=digest_of(data)) == data
