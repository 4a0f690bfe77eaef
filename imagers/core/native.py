# SPDX-License-Identifier: Apache-2.0
"""The core in C, as the rest of the package sees it: jobs in, results out.

    LayerJob.seal(...).run(read, tick)
    LayerJob.open(...).run(read, tick)

are one call for one layer each. The C code has threads of its own for it and drops the
interpreter's lock; this thread feeds it, or waits and looks around twenty times a second.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING

from imagers.core._core import LayerJob
from imagers.core._core import memory_of as _memory_of
from imagers.core.cores import usable_cores
from imagers.core.failures import Fault, failure_of
from imagers.core.jobs import SealJob
from imagers.core.left_out import Left, LeftOut
from imagers.core.values import DirectorySink, OpenedLayer, Ownership, Progress, SealedLayer
from imagers.model.digest import Digest
from imagers.model.media import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.core.jobs import CheckJob, OpenJob
    from imagers.core.values import CipherParameters
    from imagers.model.stream import RawStream

__all__ = ["check", "memory_of", "open_", "seal"]

# enum imc_compression of src/imagers_core.h
_NUMBER = {Compression.NONE: 0, Compression.GZIP: 1, Compression.ZSTD: 2}

# For tests: "layer=NAME" forces an entry of `_core.LAYER_FUNCTIONS`, "walk" does without openat2,
# "split" has several threads also for what is small.
_force: str | None = None


def _tick_of(job: SealJob | OpenJob | CheckJob) -> Callable[[int, int, int], bool] | None:
    cancellation, report = job.cancellation, job.on_progress
    if cancellation is None and report is None:
        return None

    turns = itertools.cycle((True, False))  # the core comes twenty times a second

    def tick(bytes_in: int, bytes_out: int, entries: int) -> bool:
        if report is not None and bytes_in and next(turns):
            report(Progress(bytes_in, bytes_out, entries))
        return cancellation is not None and cancellation.is_cancelled

    return tick


def _finish(job: SealJob | OpenJob | CheckJob, progress: Progress) -> None:
    if job.cancellation is not None and job.cancellation.is_cancelled:
        raise failure_of(Fault.CANCELLED, what=job.what)
    if job.on_progress is not None:
        job.on_progress(progress)


def _source(
    source: int | RawStream,
) -> tuple[int, None] | tuple[None, Callable[[memoryview], int]]:
    return (source, None) if isinstance(source, int) else (None, source.readinto)


def _key(stack: ExitStack, cipher: CipherParameters | None) -> memoryview | None:
    return None if cipher is None else stack.enter_context(cipher.key.view())


def _threads(job: SealJob | OpenJob | CheckJob) -> int:
    threads = usable_cores() if job.resources.threads is None else job.resources.threads
    if isinstance(job, SealJob) and job.compress is not Compression.NONE:
        threads = min(threads, job.resources.compressors)
    return threads


def _digest(text: str) -> Digest:
    algorithm, _, hexadecimal = text.partition(":")
    return Digest(algorithm, hexadecimal)


def memory_of(
    *,
    sealing: bool,
    threads: int,
    size: int,
    decompress: Compression = Compression.NONE,
    compress: Compression = Compression.NONE,
    window_bytes: int = 0,
    fed: bool = True,
    unpacks: bool = False,
) -> int:
    """The most bytes that a job has in memory at once, held against its allocations by a test.

    Stacks of threads are not counted, nor what unpacking remembers of the entries: up to 32
    bytes each. It does not grow with the layer, but that a small one is done in one thread.

    Args:
        threads: as for `Resources`.
        size: of the source.
        decompress: what is undone, also only to look at the tar.
        window_bytes: of `Resources`; all of it counts where zstd is undone.
        fed: the source is no descriptor.
        unpacks: the sink is a directory.
    """
    return _memory_of(
        sealing=sealing,
        decode=_NUMBER[decompress],
        encode=_NUMBER[compress],
        fed=fed,
        unpacks=unpacks,
        size=size,
        window_bytes=window_bytes,
        threads=threads,
    )


def seal(job: SealJob) -> SealedLayer:
    """See `imagers.core.layer.seal_layer`."""
    source, read = _source(job.source)
    with ExitStack() as stack:
        native = LayerJob.seal(
            source=source,
            sink=job.sink,
            size=job.expected.size,
            digest=str(job.expected.digest),
            diff_id=None if job.diff_id is None else str(job.diff_id),
            key=_key(stack, job.cipher),
            nonce=None if job.cipher is None else job.cipher.nonce,
            decode=_NUMBER[job.decompress],
            encode=_NUMBER[job.compress],
            sees_tar=job.sees_tar,
            tar_bytes=job.tar_bytes,
            window_bytes=job.resources.window_bytes,
            threads=_threads(job),
            what=job.what,
            force=_force,
        )
    result = native.run(read, _tick_of(job))
    digest, size, tar_size, _, tar_digest, hmac, _, _, _, _, _ = result
    _finish(job, Progress(job.expected.size, size, 0))
    return SealedLayer(
        digest=_digest(digest),
        size=size,
        hmac=hmac,
        source_size=job.expected.size,
        diff_id=_digest(tar_digest) if tar_digest else None,
        tar_size=tar_size,
    )


def open_(job: OpenJob) -> OpenedLayer:
    """See `imagers.core.layer.open_layer`."""
    source, read = _source(job.source)
    directory = job.sink if isinstance(job.sink, DirectorySink) else None
    known = job.checked
    with ExitStack() as stack:
        native = LayerJob.open(
            source=source,
            sink=job.sink if isinstance(job.sink, int) else None,
            root=None if directory is None else directory.fd,
            keep_owner=directory is not None and directory.ownership is Ownership.KEEP,
            size=job.expected.size,
            digest=str(job.expected.digest),
            diff_id=None if job.diff_id is None else str(job.diff_id),
            key=_key(stack, job.cipher),
            nonce=None if job.cipher is None else job.cipher.nonce,
            hmac=job.hmac,
            decode=_NUMBER[job.compression],
            sees_tar=job.sees_tar,
            gives_tar=job.gives_tar,
            tar_bytes=job.tar_bytes,
            window_bytes=job.resources.window_bytes,
            max_entries=job.limits.max_entries,
            max_name_bytes=job.limits.max_name_bytes,
            threads=_threads(job),
            what=job.what,
            force=_force,
            piece_key=None if known is None else stack.enter_context(known.key.view()),
            codes=None if known is None else known.codes,
        )
    result = native.run(read, _tick_of(job))
    _, size, tar_size, entries, tar_digest, _, digest, hole_bytes, left_out, _, _ = result
    bytes_out = tar_size if job.gives_tar else size
    _finish(job, Progress(size, bytes_out, entries))
    return OpenedLayer(
        size=size,
        tar_size=tar_size,
        diff_id=_digest(tar_digest) if tar_digest else None,
        entries=entries,
        digest=_digest(digest) if digest else None,
        bytes_out=bytes_out,
        hole_bytes=hole_bytes,
        left_out=tuple(
            LeftOut(Left(kind), count, first, attribute)
            for kind, count, first, attribute in left_out
        ),
    )


def check(job: CheckJob) -> tuple[bytes, bytes]:
    """The codes of the pieces, and the first bytes; see `imagers.core.layer.check_layer`."""
    source, read = _source(job.source)
    with ExitStack() as stack:
        native = LayerJob.open(
            source=source,
            sink=job.sink,
            root=None,
            keep_owner=False,
            size=job.expected.size,
            digest=str(job.expected.digest),
            diff_id=None,
            key=_key(stack, job.cipher),
            nonce=None if job.cipher is None else job.cipher.nonce,
            hmac=job.hmac,
            decode=_NUMBER[Compression.NONE],
            sees_tar=False,
            gives_tar=False,
            tar_bytes=0,
            window_bytes=job.resources.window_bytes,
            max_entries=0,
            max_name_bytes=1,
            threads=_threads(job),
            what=job.what,
            force=_force,
            piece_key=stack.enter_context(job.key.view()),
            codes=None,
        )
    *_, codes, beginning = native.run(read, _tick_of(job))
    size = job.expected.size
    _finish(job, Progress(size, size, 0))
    return codes or b"", beginning or b""
