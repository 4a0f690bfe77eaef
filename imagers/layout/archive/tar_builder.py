# SPDX-License-Identifier: Apache-2.0
"""Writing a tar of blobs: each whole before it gets its header, equal input gives equal bytes.

builder = TarBuilder(file.fileno())
builder.add_file("blobs/sha256/…", fd, size)
builder.finish()
"""

from __future__ import annotations

import os
import tarfile
import threading

__all__ = ["TarBuilder"]

_BLOCK = 512
_MODE = 0o644
_PIECE = 1024 * 1024
_MAX_COPY = 1 << 30  # bytes of one call


class TarBuilder:
    """Appends members to a tar.

    Args:
        fd: of an empty file, open for writing; stays the caller's.

    Threads: safe. A member that could not be written leaves no trace in what follows.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0
        self._lock = threading.Lock()

    def add_file(self, name: str, fd: int, size: int) -> None:
        """A member with the first `size` bytes of `fd`, whose position is not used.

        Raises:
            OSError: as the system says.
        """
        with self._lock:
            at = self._put_header(name, size)
            done = 0
            while done < size:
                done += self._copy(fd, done, at + done, size - done)
            self._end_member(at + size)

    def add_bytes(self, name: str, data: bytes) -> None:
        """A member with `data`. Raises as `add_file`."""
        with self._lock:
            at = self._put_header(name, len(data))
            self._write(data, at)
            self._end_member(at + len(data))

    def finish(self) -> None:
        """Two empty blocks: the end of a tar."""
        with self._lock:
            self._write(bytes(2 * _BLOCK), self._at)
            os.ftruncate(self._fd, self._at + 2 * _BLOCK)

    def _put_header(self, name: str, size: int) -> int:
        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = _MODE
        header = info.tobuf(tarfile.PAX_FORMAT)
        self._write(header, self._at)
        return self._at + len(header)

    def _end_member(self, end: int) -> None:
        padding = -end % _BLOCK
        self._write(bytes(padding), end)
        self._at = end + padding

    def _copy(self, source: int, offset: int, target: int, count: int) -> int:
        """Some bytes from `source`: in the kernel where the file systems can."""
        try:
            copied = os.copy_file_range(
                source, self._fd, min(count, _MAX_COPY), offset_src=offset, offset_dst=target
            )
        except OSError:
            data = os.pread(source, min(count, _PIECE), offset)
            self._write(data, target)
            copied = len(data)
        if copied == 0:
            raise OSError(0, "the file became shorter while it was read")
        return copied

    def _write(self, data: bytes, at: int) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fd, view, at)
            view = view[count:]
            at += count
