# SPDX-License-Identifier: Apache-2.0
"""A blob of a layout, an archive or a directory: a regular file of the size that it should have."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from imagers.errors import NotFound, SizeMismatch
from imagers.files import local_errors, open_regular
from imagers.model.closing import Closing

if TYPE_CHECKING:
    from pathlib import Path

    from imagers.model.descriptor import Descriptor

__all__ = ["LocalBlob"]


class LocalBlob(Closing):
    """A `RawStream` over a local file, with `fileno()` for those who read it themselves.

    Args:
        fd: is owned by this object afterwards.
    """

    def __init__(self, fd: int, path: Path) -> None:
        self._file = io.FileIO(fd, "r")
        self._path = path

    @classmethod
    def open(
        cls, path: Path, descriptor: Descriptor, *, name: str, what: str, place: str
    ) -> LocalBlob:
        """The file of a blob, unchecked but for its size.

        Args:
            name: of the image, and `what` of the blob, in messages.
            place: what the file lies in, such as `layout`.

        Raises:
            NotFound: there is none.
            SizeMismatch: it has another size.
            FormatError, LocalError: it is no regular file, or cannot be opened.
        """
        with local_errors(path):
            try:
                fd = open_regular(path)
            except FileNotFoundError:
                raise NotFound(
                    f"{name}: {what}: the {place} has no blob {descriptor.digest}",
                    hint=f"the {place} is incomplete; copy the image into it again",
                ) from None
        blob = cls(fd, path)
        size = os.fstat(fd).st_size
        if size != descriptor.size:
            blob.close()
            raise SizeMismatch(expected=descriptor.size, actual=size, what=what)
        return blob

    def fileno(self) -> int:
        """The descriptor, at the position up to which was read; this object keeps it."""
        return self._file.fileno()

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of `buffer`; 0 only at the end of the file."""
        with local_errors(self._path):
            count = self._file.readinto(buffer)
        assert count is not None  # a regular file never blocks
        return count

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._file.close()
