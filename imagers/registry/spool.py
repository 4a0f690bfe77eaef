# SPDX-License-Identifier: Apache-2.0
"""Blobs on their way to a registry, kept or read again so that an upload can be repeated.

A key and nonce seal exactly one stream, so a second attempt must send the bytes of the
first: they wait in a spool file, which has no name and goes with the process. What has a
digest already, and a file of its own, is read again; its digest says whether it is the same.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.files import local_errors, write_all
from imagers.model.closing import Closing
from imagers.model.pieces import checked_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from imagers.model.descriptor import Descriptor
    from imagers.model.stream import RawStream

__all__ = ["Reread", "SpoolFile"]

# As containers/image: /tmp is often kept in memory, and layers are large.
_HINT = "name a directory with room for the largest layer"
_DEFAULT_DIRECTORY = Path("/var/tmp")  # the files there have no name


class SpoolFile(Closing):
    """A nameless file of our own, mode 0600, open for reading and writing.

    Args:
        directory: on whose file system it is; None: /var/tmp, else that of `tempfile`.

    Raises:
        LocalError: it could not be made.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        place = directory
        if place is None and _DEFAULT_DIRECTORY.is_dir() and os.access(_DEFAULT_DIRECTORY, os.W_OK):
            place = _DEFAULT_DIRECTORY
        self._place = str(place or tempfile.gettempdir())
        with local_errors(self._place, "no spool file could be made", hint=_HINT):
            # O_TMPFILE where there is one, else a name that is removed at once.
            self._file = tempfile.TemporaryFile(  # noqa: SIM115  # closed by `close`
                buffering=0, dir=place
            )

    def fileno(self) -> int:
        """The descriptor; this object keeps it."""
        return self._file.fileno()

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, pieces: Iterable[memoryview]) -> None:
        """Append all `pieces`.

        Raises:
            LocalError: the disk is full, or failed. What makes the pieces may raise its own.
        """
        for piece in pieces:
            with local_errors(self._place, "the spool file could not be written", hint=_HINT):
                write_all(self._file.fileno(), piece)

    def close(self) -> None:
        """Drop the file. Safe to call twice."""
        self._file.close()


class Reread:
    """A blob that is read anew for each attempt of an upload, and checked each time.

    Args:
        open_raw: opens it at its first byte.
        what: name in messages.

    Attributes:
        complete: whether all of it was given, checked, since it was last begun.
    """

    def __init__(
        self, descriptor: Descriptor, open_raw: Callable[[], RawStream], *, what: str
    ) -> None:
        self.complete = False
        self._descriptor = descriptor
        self._open_raw = open_raw
        self._what = what

    def pieces(self) -> Generator[memoryview, None, None]:
        """See `checked_pieces`: the last piece only after the digest was compared."""
        self.complete = False
        with (
            closing(self._open_raw()) as raw,
            closing(checked_pieces(raw, self._descriptor, what=self._what)) as pieces,
        ):
            yield from pieces
        self.complete = True
