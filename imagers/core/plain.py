# SPDX-License-Identifier: Apache-2.0
"""The core in plain Python: the definition that the C code is tested against.

Used as it is where the extension is missing: the same results, several times slower, and
with the interpreter's lock held between the calls into `cryptography` and `zlib`.

`cryptography` takes a key only as `bytes`: that copy lives as long as a job here, and
cannot be wiped (docs/threats.md).
"""

from __future__ import annotations

import hmac as hmac_module
import os
import time
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from imagers.core.failures import Fault, failure_of
from imagers.core.plain_codec import PIECE, reader_of, writer_of
from imagers.core.plain_tar import TarReader
from imagers.core.plain_unpack import Unpacker
from imagers.core.values import (
    BEGINNING_BYTES,
    CODE_BYTES,
    DirectorySink,
    OpenedLayer,
    Progress,
    SealedLayer,
)
from imagers.errors import FormatError, IntegrityError, Unsupported
from imagers.model.digest import Digest, Hasher, new_hasher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.core.jobs import CheckJob, OpenJob, SealJob
    from imagers.core.values import CheckedLayer, CipherParameters
    from imagers.model.keys import SecretKey

__all__ = ["check", "open_", "seal"]

_PROGRESS_S = 0.1
# Faults of the data behind the cipher: they wait until the stored bytes have been checked.
_OF_DATA = (FormatError, IntegrityError, Unsupported)


class _Sink(Protocol):
    """The last stage."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...


class _Null:
    def write(self, data: bytes) -> None:
        """Only checks are wanted."""

    def finish(self) -> None:
        """Nothing is open."""


class _File:
    def __init__(self, fd: int, what: str, fault: Fault = Fault.WRITE) -> None:
        self._fd = fd
        self._what = what
        self._fault = fault

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                raise _errno_failure(self._fault, error, self._what) from error

    def finish(self) -> None:
        """The descriptor is the caller's."""


def _errno_failure(fault: Fault, error: OSError, what: str) -> Exception:
    return failure_of(fault, what=what, number=error.errno or 0)


class _Clock:
    """Progress and cancellation, looked at between pieces."""

    def __init__(self, job: SealJob | OpenJob | CheckJob) -> None:
        self._job = job
        self._next = time.monotonic() + _PROGRESS_S
        self.bytes_in = self.bytes_out = self.entries = 0

    def tick(self, *, end: bool = False) -> None:
        """Raise if cancelled; report now and then, and at the end."""
        cancellation, report = self._job.cancellation, self._job.on_progress
        if cancellation is not None and cancellation.is_cancelled:
            raise failure_of(Fault.CANCELLED, what=self._job.what)
        if report is not None and (end or time.monotonic() >= self._next):
            self._next = time.monotonic() + _PROGRESS_S
            report(Progress(self.bytes_in, self.bytes_out, self.entries))


class _Source:
    """The stored bytes: counted, held to `expected.size`, hashed."""

    def __init__(self, job: SealJob | OpenJob | CheckJob, clock: _Clock) -> None:
        self._source = job.source
        self._expected = job.expected
        self._what = job.what
        self._clock = clock
        self._hasher = new_hasher(job.expected.digest.algorithm)
        self.size = 0

    def pieces(self) -> Iterator[bytes]:
        """Each of `PIECE` bytes but the last, then checks that the stream ends here."""
        while self.size < self._expected.size:
            piece = self._read(min(PIECE, self._expected.size - self.size))
            if not piece:
                raise self._size_failure(Fault.STORED_SHORT)
            self._see(piece)
            self.size += len(piece)
            self._clock.bytes_in = self.size
            self._clock.tick()
            yield piece
        if self._read(1):
            raise self._size_failure(Fault.STORED_LONG)

    def _size_failure(self, fault: Fault) -> Exception:
        return failure_of(fault, what=self._what, number=self._expected.size, other=self.size)

    def _see(self, piece: bytes) -> None:
        self._hasher.update(piece)

    def _read(self, count: int) -> bytes:
        """`count` bytes; fewer only at the end of the stream."""
        buffer = bytearray(count)
        with memoryview(buffer) as view:
            at = 0
            while at < count:
                got = self._read_some(view[at:])
                if not 0 <= got <= count - at:
                    raise ValueError(f"readinto() gave {got} for {count - at} bytes")
                if not got:
                    break
                at += got
                self._clock.tick()  # a peer may give one byte at a time
        return bytes(buffer[:at])

    def _read_some(self, view: memoryview) -> int:
        if not isinstance(self._source, int):
            return self._source.readinto(view)
        try:
            return os.readv(self._source, [view])
        except OSError as error:
            raise _errno_failure(Fault.READ, error, self._what) from error

    def check_digest(self) -> None:
        actual = Digest(self._expected.digest.algorithm, self._hasher.hexdigest())
        _check_digest(Fault.STORED_DIGEST, self._expected.digest, actual, self._what)


class _Codes:
    """The codes of pieces: GMAC, under a nonce that is the number of the piece.

    Spec: NIST SP 800-38D; see `src/pieces.c`.
    """

    def __init__(self, key: SecretKey) -> None:
        with key.view() as data:
            self._gcm = AESGCM(bytes(data))
        self.count = 0

    def of_next(self, piece: bytes) -> bytes:
        nonce = self.count.to_bytes(12)
        self.count += 1
        return self._gcm.encrypt(nonce, b"", piece)


class _Known(_Source):
    """Stored bytes that were checked before: a piece that is another one is not given out."""

    def __init__(self, job: OpenJob, clock: _Clock, checked: CheckedLayer) -> None:
        super().__init__(job, clock)
        self._codes = _Codes(checked.key)
        self._expected_codes = checked.codes

    def _see(self, piece: bytes) -> None:
        start = self._codes.count * CODE_BYTES
        expected = self._expected_codes[start : start + CODE_BYTES]
        if not hmac_module.compare_digest(self._codes.of_next(piece), expected):
            raise self._size_failure(Fault.CHANGED)

    def _size_failure(self, fault: Fault) -> Exception:  # noqa: ARG002  # too few are others too
        return failure_of(Fault.CHANGED, what=self._what, number=self.size)

    def check_digest(self) -> None:
        """It was, with the HMAC."""


def _check_digest(fault: Fault, expected: Digest, actual: Digest, what: str) -> None:
    if not hmac_module.compare_digest(actual.hex, expected.hex):
        raise failure_of(fault, what=what, text=str(expected).encode(), more=str(actual).encode())


def _check_tag(actual: bytes, expected: bytes, what: str) -> None:
    if not hmac_module.compare_digest(actual, expected):
        raise failure_of(Fault.TAG, what=what)


class _Cipher:
    """AES-256-CTR, the same in both directions, and HMAC-SHA256 over the ciphertext.

    Spec: containers/ocicrypt v1.3.2, blockcipher/blockcipher_aes_ctr.go. The key of the
    cipher is the key of the HMAC; the nonce is the whole first counter block.
    """

    def __init__(self, cipher: CipherParameters) -> None:
        with cipher.key.view() as key:
            self._mac = hmac_module.new(bytes(key), digestmod="sha256")
            self._stream = Cipher(
                algorithms.AES256(bytes(key)), modes.CTR(bytes(cipher.nonce))
            ).encryptor()

    def seal(self, data: bytes) -> bytes:
        out = self._stream.update(data)
        self._mac.update(out)
        return out

    def open(self, data: bytes) -> bytes:
        self._mac.update(data)
        return self._stream.update(data)

    def tag(self) -> bytes:
        return self._mac.digest()


class _Tar:
    """The tar passing by: counted, bounded, hashed."""

    def __init__(self, diff_id: Digest | None, limit: int, what: str) -> None:
        self._expected = diff_id
        self._limit = limit
        self._what = what
        self._algorithm = "sha256" if diff_id is None else diff_id.algorithm
        self._hasher: Hasher = new_hasher(self._algorithm)
        self.size = 0

    def passes(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._limit:
            raise failure_of(Fault.TAR_BYTES, what=self._what, number=self._limit)
        self._hasher.update(data)

    @property
    def diff_id(self) -> Digest:
        return Digest(self._algorithm, self._hasher.hexdigest())

    def check(self) -> None:
        if self._expected is not None:
            _check_digest(Fault.DIFF_ID, self._expected, self.diff_id, self._what)


class _Blocks:
    """Cuts what passes into blocks of `PIECE`, on which a writer's bytes depend."""

    def __init__(self) -> None:
        self._held = bytearray()

    def step(self, data: bytes) -> Iterator[bytes]:
        self._held += data
        while len(self._held) >= PIECE:
            yield bytes(self._held[:PIECE])
            del self._held[:PIECE]

    def finish(self) -> bytes:
        return bytes(self._held)


def seal(job: SealJob) -> SealedLayer:
    """See `imagers.core.layer.seal_layer`."""
    clock = _Clock(job)
    source = _Source(job, clock)
    cipher = None if job.cipher is None else _Cipher(job.cipher)
    reader = reader_of(job.decompress, what=job.what, window_bytes=job.resources.window_bytes)
    tar = _Tar(job.diff_id, job.tar_bytes, job.what)
    blocks = _Blocks()
    writer = writer_of(job.compress)
    hasher = new_hasher("sha256")
    sink = _File(job.sink, job.what)

    def put(data: bytes) -> None:
        stored = data if cipher is None else cipher.seal(data)
        hasher.update(stored)
        sink.write(stored)
        clock.bytes_out += len(stored)

    fault: Exception | None = None
    for piece in source.pieces():
        if fault is not None:
            continue
        try:
            for part in reader.step(piece):
                if job.sees_tar:
                    tar.passes(part)
                for block in blocks.step(part):
                    put(writer.step(block))
                clock.tick()
        except _OF_DATA as error:
            fault = error
    source.check_digest()
    if fault is not None:
        raise fault
    reader.finish()
    put(writer.step(blocks.finish()))
    put(writer.finish())
    if job.sees_tar:
        tar.check()
    clock.tick(end=True)
    return SealedLayer(
        digest=Digest("sha256", hasher.hexdigest()),
        size=clock.bytes_out,
        hmac=b"" if cipher is None else cipher.tag(),
        source_size=source.size,
        diff_id=tar.diff_id if job.sees_tar else None,
        tar_size=tar.size,
    )


def check(job: CheckJob) -> tuple[bytes, bytes]:
    """The codes of the pieces, and the first bytes; see `imagers.core.layer.check_layer`."""
    clock = _Clock(job)
    source = _Source(job, clock)
    sink: _Sink = _Null() if job.sink is None else _File(job.sink, job.what, Fault.KEEP)
    codes = _Codes(job.key)
    mac = None
    if job.cipher is not None:
        with job.cipher.key.view() as key:
            mac = hmac_module.new(bytes(key), digestmod="sha256")
    found = bytearray()
    beginning = b""
    for piece in source.pieces():
        found += codes.of_next(piece)
        beginning = beginning or piece[:BEGINNING_BYTES]
        if mac is not None:
            mac.update(piece)
        sink.write(piece)
        clock.bytes_out += len(piece)
    source.check_digest()
    if mac is not None:
        _check_tag(mac.digest(), job.hmac, job.what)
    clock.tick(end=True)
    return bytes(found), beginning


class _Opened:
    """What becomes of a layer's bytes behind the cipher."""

    def __init__(self, job: OpenJob, clock: _Clock) -> None:
        self._job = job
        self._clock = clock
        self._reader = reader_of(
            job.compression, what=job.what, window_bytes=job.resources.window_bytes
        )
        self._tar = _Tar(job.diff_id, job.tar_bytes, job.what)
        self._unpacker: Unpacker | None = None
        self._tar_reader: TarReader | None = None
        self._sink: _Sink = _Null()
        if isinstance(job.sink, DirectorySink):
            self._unpacker = Unpacker(job.sink, job.limits, job.what)
            self._tar_reader = TarReader(
                self._unpacker, job.limits, job.what, tar_bytes=job.tar_bytes
            )
            self._sink = self._tar_reader
        elif job.sink is not None:
            self._sink = _File(job.sink, job.what)
        is_kept = isinstance(job.sink, int) and not job.gives_tar
        self._hasher = new_hasher("sha256") if is_kept else None

    def take(self, data: bytes) -> None:
        """The next of them.

        Raises:
            One of `_OF_DATA`: nothing that follows is wanted.
        """
        if self._hasher is not None:
            self._hasher.update(data)
        if not self._job.gives_tar:
            self._put(data)
        if self._job.sees_tar:
            for part in self._reader.step(data):
                self._tar.passes(part)
                if self._job.gives_tar:
                    self._put(part)
                self._clock.tick()

    def _put(self, data: bytes) -> None:
        self._sink.write(data)
        self._clock.bytes_out += len(data)
        self._count_entries()

    def _count_entries(self) -> None:
        self._clock.entries = 0 if self._unpacker is None else self._unpacker.entries

    def finish(self) -> None:
        """That was all: the end of the compressed data, of the tar, and its diff_id."""
        if self._job.sees_tar:
            self._reader.finish()
        self._sink.finish()
        if self._job.sees_tar:
            self._tar.check()

    def close(self) -> None:
        """Also after a failure."""
        if self._unpacker is not None:
            self._unpacker.close()
        self._count_entries()

    def result(self, size: int) -> OpenedLayer:
        """Of a layer of `size` stored bytes."""
        return OpenedLayer(
            size=size,
            tar_size=self._tar.size,
            diff_id=self._tar.diff_id if self._job.sees_tar else None,
            entries=self._clock.entries,
            hole_bytes=0 if self._tar_reader is None else self._tar_reader.hole_bytes,
            left_out=() if self._unpacker is None else self._unpacker.left_out,
            digest=None if self._hasher is None else Digest("sha256", self._hasher.hexdigest()),
            bytes_out=self._clock.bytes_out,
        )


def open_(job: OpenJob) -> OpenedLayer:
    """See `imagers.core.layer.open_layer`."""
    clock = _Clock(job)
    known = job.checked
    source = _Source(job, clock) if known is None else _Known(job, clock, known)
    cipher = None if job.cipher is None else _Cipher(job.cipher)
    fault: Exception | None = None
    with closing(_Opened(job, clock)) as opened:
        for piece in source.pieces():
            plain = piece if cipher is None else cipher.open(piece)
            if fault is None:
                try:
                    opened.take(plain)
                except _OF_DATA as error:
                    fault = error
        source.check_digest()
        if cipher is not None and known is None:
            _check_tag(cipher.tag(), job.hmac, job.what)
        if fault is not None:
            raise fault
        opened.finish()
    clock.tick(end=True)
    return opened.result(source.size)
