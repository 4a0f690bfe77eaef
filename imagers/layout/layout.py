# SPDX-License-Identifier: Apache-2.0
"""The files of one OCI layout: where they are, and reading them with bounds.

Spec: OCI image-spec v1.1, image-layout.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.files import local_errors, open_regular
from imagers.layout.layout_index import check_layout_file
from imagers.layout.local_blob import LocalBlob
from imagers.model.manifest import MAX_MANIFEST_BYTES

if TYPE_CHECKING:
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.stream import RawStream

__all__ = ["MAX_LAYOUT_FILE", "Layout"]

MAX_LAYOUT_FILE = 4096  # bytes


class Layout:
    """Paths of one layout, and reading of its files.

    Args:
        name: of the image as the user wrote it, for messages.

    Attributes:
        path: as given.
    """

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        self.path = Path(path)
        self.name = name
        self.layout_file = self.path / "oci-layout"
        self.index_file = self.path / "index.json"

    def blob_path(self, digest: Digest) -> Path:
        """Where the blob of a parsed digest is, or goes."""
        # Both halves of a parsed digest are from closed sets: no way out of the layout.
        return self.path / "blobs" / digest.algorithm / digest.hex

    def read_small(self, path: Path, max_bytes: int) -> bytes | None:
        """The bytes of a file, or None where there is none.

        Raises:
            FormatError: it is longer, or no regular file.
        """
        with local_errors(path):
            try:
                fd = open_regular(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            with os.fdopen(fd, "rb") as file:
                data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise FormatError(f"expected at most {max_bytes} bytes, got more", what=str(path))
        return data

    def read_index(self) -> bytes | None:
        """The bytes of index.json, or None where there is none."""
        return self.read_small(self.index_file, MAX_MANIFEST_BYTES)

    def check_version(self) -> bool:
        """Whether there is a layout file, which then is one that we read."""
        raw = self.read_small(self.layout_file, MAX_LAYOUT_FILE)
        if raw is not None:
            check_layout_file(raw, what=str(self.layout_file))
        return raw is not None

    def open_blob(self, descriptor: Descriptor, *, what: str) -> RawStream:
        """The file of a blob, unchecked but for its size.

        Raises:
            NotFound: there is none.
            SizeMismatch: it has another size.
        """
        path = self.blob_path(descriptor.digest)
        return LocalBlob.open(path, descriptor, name=self.name, what=what, place="layout")

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether there is a file of that name and size."""
        path = self.blob_path(descriptor.digest)
        return path.is_file() and path.stat().st_size == descriptor.size
