"""Spool files: blobs on their way to a registry, kept so that an upload can be repeated.

A key and nonce seal exactly one stream, so a second attempt must send the bytes of the
first: they wait here. The files have no name and go with the process.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from imagers.errors import LocalError

__all__ = ["SpoolFile"]

# As containers/image: /tmp is often kept in memory, and layers are large.
_DEFAULT_DIRECTORY = Path("/var/tmp")  # the files there have no name


class SpoolFile:
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
        try:
            # O_TMPFILE where there is one, else a name that is removed at once.
            self._file = tempfile.TemporaryFile(  # noqa: SIM115  # closed by `close`
                buffering=0, dir=place
            )
        except OSError as error:
            raise LocalError(
                f"no spool file could be made: {(error.strerror or 'failed').lower()}",
                path=str(place or tempfile.gettempdir()),
                hint="name a directory with room for the largest layer",
            ) from error

    def fileno(self) -> int:
        """The descriptor; this object keeps it."""
        return self._file.fileno()

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Drop the file. Safe to call twice."""
        self._file.close()
