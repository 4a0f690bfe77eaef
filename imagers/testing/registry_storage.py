# SPDX-License-Identifier: Apache-2.0
"""What the embedded registry keeps: blobs, manifests and tags, in memory or in a directory.

    directory/blobs/sha256/HEX       blobs and manifests
    directory/repositories.json      which repository has which, and the tags

Blobs belong to the repositories that they were pushed to, as in real registries: a blob of
one is not there for another until it is mounted.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from imagers.model.closing import Closing
from imagers.model.digest import Digest, new_hasher, parse_digest

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Repository", "Storage", "Upload"]

_PIECE = 1024 * 1024
_UNFINISHED = ".upload-"


@dataclass
class Repository:
    """Content of one repository.

    Attributes:
        manifests: media type of each, as it was pushed.
    """

    blobs: set[Digest] = field(default_factory=set)
    manifests: dict[Digest, str] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)


class Upload(Closing):
    """Bytes of a blob that arrive.

    Args:
        path: of `file`, if it has one.

    Attributes:
        size: bytes so far.
    """

    def __init__(self, repository: str, file: IO[bytes], path: Path | None) -> None:
        self.repository = repository
        self.size = 0
        self.file = file
        self.path = path
        self._sha256 = new_hasher("sha256")

    def write(self, piece: Buffer) -> None:
        """Take more bytes."""
        self.file.write(piece)
        self._sha256.update(piece)
        self.size += memoryview(piece).nbytes

    def digest(self, algorithm: str) -> Digest:
        """Of all bytes so far."""
        if algorithm == "sha256":
            return Digest(algorithm, self._sha256.hexdigest())
        hasher = new_hasher(algorithm)
        self.file.seek(0)
        while piece := self.file.read(_PIECE):
            hasher.update(piece)
        return Digest(algorithm, hasher.hexdigest())

    def close(self) -> None:
        """Drop what was not kept. Safe to call twice."""
        self.file.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Storage:
    """All repositories.

    Args:
        directory: keeps the content; what an earlier registry left there is found again.

    Threads: safe; who reads `repositories` holds `lock`.
    """

    def __init__(self, directory: Path | None) -> None:
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self._directory = directory
        self._memory: dict[Digest, bytes] = {}
        if directory is not None:
            (directory / "blobs").mkdir(parents=True, exist_ok=True)
            for leftover in directory.glob(f"{_UNFINISHED}*"):
                leftover.unlink()
            self._load(directory / "repositories.json")

    def repository(self, name: str) -> Repository:
        """The repository, made at its first mention by a push."""
        with self.lock:
            return self.repositories.setdefault(name, Repository())

    def find(self, name: str) -> Repository:
        """The repository, or an empty one that is not kept."""
        with self.lock:
            return self.repositories.get(name) or Repository()

    def start_upload(self, repository: str) -> Upload:
        """Room for a blob."""
        if self._directory is None:
            return Upload(repository, io.BytesIO(), None)
        handle, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self._directory)
        return Upload(repository, os.fdopen(handle, "w+b"), Path(name))

    def keep(self, upload: Upload, digest: Digest) -> None:
        """Keep the bytes of an upload under a digest, which who calls has compared."""
        if upload.path is None:
            upload.file.seek(0)
            self._memory[digest] = upload.file.read()
            return
        upload.file.flush()
        target = self._path(digest)
        target.parent.mkdir(exist_ok=True)
        os.replace(upload.path, target)

    def put(self, digest: Digest, data: bytes) -> None:
        """Keep bytes under a digest, whatever they are."""
        with self.start_upload("") as upload:
            upload.file.write(data)
            self.keep(upload, digest)

    def open(self, digest: Digest) -> tuple[IO[bytes], int] | None:
        """The bytes under a digest and their count, or None."""
        if self._directory is None:
            data = self._memory.get(digest)
            return None if data is None else (io.BytesIO(data), len(data))
        try:
            file = self._path(digest).open("rb")
        except FileNotFoundError:
            return None
        return file, os.fstat(file.fileno()).st_size

    def read(self, digest: Digest) -> bytes | None:
        """All bytes under a digest, or None."""
        found = self.open(digest)
        if found is None:
            return None
        with found[0] as file:
            return file.read()

    def drop(self, digest: Digest) -> None:
        """Forget the bytes, though repositories still list them."""
        self._memory.pop(digest, None)
        if self._directory is not None:
            self._path(digest).unlink(missing_ok=True)

    def save(self) -> None:
        """Keep the repositories for the next registry in the same directory."""
        if self._directory is None:
            return
        with self.lock:
            document = {
                name: {
                    "blobs": sorted(map(str, one.blobs)),
                    "manifests": {str(digest): kind for digest, kind in one.manifests.items()},
                    "tags": {tag: str(digest) for tag, digest in one.tags.items()},
                }
                for name, one in self.repositories.items()
            }
            path = self._directory / "repositories.json"
            new = path.with_suffix(".new")
            new.write_text(json.dumps(document, indent=1))
            os.replace(new, path)

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        for name, one in json.loads(path.read_text()).items():
            self.repositories[name] = Repository(
                blobs={parse_digest(text) for text in one["blobs"]},
                manifests={parse_digest(text): kind for text, kind in one["manifests"].items()},
                tags={tag: parse_digest(text) for tag, text in one["tags"].items()},
            )

    def _path(self, digest: Digest) -> Path:
        assert self._directory is not None  # only called with one
        return self._directory / "blobs" / digest.algorithm / digest.hex
