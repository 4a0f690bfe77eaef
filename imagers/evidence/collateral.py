# SPDX-License-Identifier: Apache-2.0
"""A directory of the documents that verifiers need beside evidence: collateral.

    directory = CollateralDirectory(Path("/var/lib/collateral"))
    crl = directory.read("snp/Genoa/vcek.crl")        # bytes, or None: it is not there

A document stands at its name below the directory, byte for byte as its maker signed it, so that
the directory can be copied, mounted or carried to where there is no network. It is trusted for
nothing: verifiers verify each document at each use.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from imagers.errors import FormatError, LocalError
from imagers.files import local_errors, open_regular

__all__ = ["MAX_DOCUMENT", "CollateralDirectory", "check_name"]

MAX_DOCUMENT = 4 * 1024 * 1024
"""Bytes of a document, at most."""
_MAX_NAME = 200
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")  # neither `..` nor a hidden file


def check_name(name: str) -> None:
    """Raise unless it is the name of a document: a relative path of plain parts.

    Raises:
        FormatError: it is not.
    """
    if len(name) > _MAX_NAME or not all(_PART.match(part) for part in name.split("/")):
        raise FormatError(
            f"expected a name such as 'snp/Genoa/vcek.crl', got {name[:_MAX_NAME]!r}",
            what="collateral",
        )


class CollateralDirectory:
    """Documents by name.

    Args:
        path: of the directory. It is looked at when a document is read.

    Threads: safe.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """As given."""
        return self._path

    def read(self, name: str) -> bytes | None:
        """The document of that name, not verified; None: there is none.

        A link is followed while it stays inside the directory, as mounts of Kubernetes have them.

        Raises:
            FormatError: the name is none, or no regular file has it.
            LocalError: the directory is not there, the document cannot be read, lies outside, or
                is longer than `MAX_DOCUMENT`.
        """
        check_name(name)
        with local_errors(self._path, "collateral cannot be read"):
            root = os.path.realpath(self._path, strict=True)
        path = Path(root, name)
        with local_errors(path, "collateral cannot be read"):
            try:
                found = Path(os.path.realpath(path, strict=True))
                if not found.is_relative_to(root):
                    raise LocalError("leads out of the directory of collateral", path=str(path))
                fd = open_regular(found)
            except (FileNotFoundError, NotADirectoryError):
                return None
            with open(fd, "rb") as file:
                data = file.read(MAX_DOCUMENT + 1)
        if len(data) > MAX_DOCUMENT:
            raise LocalError(f"expected at most {MAX_DOCUMENT} bytes, got more", path=str(path))
        return data
