# SPDX-License-Identifier: Apache-2.0
"""A tar of system files that compresses as layers do, whatever this machine has installed.

Files come in an order that a seed decides, so that every part of the tar is like every other.
While gzip -6 makes less of it than RATIO, only files that compress well are taken.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import tarfile
import zlib
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RATIO = 3.25  # of the layers that the table of the issue is about: 3.2 to 3.3
SAMPLE_BYTES = 32 * 1024
MARGIN_BYTES = 1024 * 1024  # of gzip's output, before its ratio says anything
LARGEST = 8 * 1024 * 1024
FOLDERS = ["/usr/lib", "/usr/bin", "/usr/share", f"{sys.base_prefix}/lib"]


class _Both:
    """Writes to the tar and to gzip."""

    def __init__(self, *sinks: IO[bytes]) -> None:
        self._sinks = sinks
        self.count = 0

    def write(self, data: bytes) -> int:
        for sink in self._sinks:
            sink.write(data)
        self.count += len(data)
        return len(data)


def system_files(seed: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents, without end: where there are too few, they come again."""
    paths = [
        os.path.join(folder, name)
        for top in FOLDERS
        for folder, _, names in sorted(os.walk(top))
        for name in sorted(names)
    ]
    random.Random(seed).shuffle(paths)  # noqa: S311  # the same each time
    while True:
        for path in paths:
            try:
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        yield path, file.read(LARGEST)
            except OSError:
                continue


def _compresses_well(data: bytes) -> bool:
    sample = data[:SAMPLE_BYTES]
    return len(sample) > RATIO * len(zlib.compress(sample, 1))


def write_tar(path: Path, packed: Path, size: int, *, seed: int = 1) -> None:
    """`path`, and `packed` by gzip -6 with at least `size` bytes."""
    with path.open("wb") as plain, packed.open("wb") as sink:
        gzip = subprocess.Popen(["gzip", "-6", "-n"], stdin=subprocess.PIPE, stdout=sink)
        assert gzip.stdin is not None
        both = _Both(plain, gzip.stdin)
        with tarfile.open(fileobj=both, mode="w|") as tar:  # type: ignore[call-overload]  # writes
            for name, data in system_files(seed):
                done = packed.stat().st_size
                if done >= size:
                    break
                poor = done > MARGIN_BYTES and both.count < RATIO * done
                if poor and not _compresses_well(data):
                    continue
                info = tarfile.TarInfo(name.lstrip("/"))
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
        gzip.stdin.close()
        if gzip.wait() != 0:
            raise SystemExit("failed: gzip")
