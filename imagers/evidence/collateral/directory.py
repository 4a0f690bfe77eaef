# SPDX-License-Identifier: Apache-2.0
"""A directory of the documents that verifiers need beside evidence: collateral.

    directory = CollateralDirectory(Path("/var/lib/collateral"))
    crl = directory.read("snp/Genoa/vcek.crl")        # bytes, or None: it is not there

A document stands at its name below the directory, byte for byte as its maker signed it, so that
the directory can be copied, mounted or carried to where there is no network. It is trusted for
nothing: verifiers verify each document at each use.

Who knows what a document says, and where to get it, is a `Vendor`, one line in a table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from imagers.errors import FormatError, LocalError
from imagers.files import StagedFile, local_errors, open_regular, write_all

if TYPE_CHECKING:
    from imagers.net.http import HTTPClient

__all__ = [
    "MAX_DOCUMENT",
    "MAX_DOCUMENTS",
    "VENDORS",
    "CollateralDirectory",
    "Document",
    "Vendor",
    "check_name",
    "load_vendor",
]

MAX_DOCUMENT = 4 * 1024 * 1024
"""Bytes of a document, at most."""
MAX_DOCUMENTS = 10_000
"""Files of a directory, at most."""
VENDORS = {
    "snp": "imagers.evidence.snp.collateral:AMD",
    "intel": "imagers.evidence.intel.vendor:Intel",
    "csv": "imagers.evidence.csv.collateral:Hygon",
}
"""Who knows the documents whose names begin so."""
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


@dataclass(frozen=True, slots=True)
class Document:
    """What a document says of itself; its signature is good, and nothing else is verified.

    Attributes:
        kind: in words.
        issued, valid_until: aware times.
        number: counts those of its kind; None: it does not say.
    """

    kind: str
    issued: datetime
    valid_until: datetime
    number: int | None = None

    def is_older_than(self, other: Document) -> bool:
        """Whether the vendor made it before the other one."""
        return (self.number or 0, self.issued) < (other.number or 0, other.issued)

    def is_expired(self, now: datetime) -> bool:
        """Whether it is not valid any more."""
        return now > self.valid_until


class Vendor(Protocol):
    """Knows the documents of one vendor: what they say, who gives them, how others keep them."""

    @property
    def sources(self) -> tuple[str, ...]:
        """URLs of the vendor's own services."""

    def beside(self, name: str) -> tuple[str, ...]:
        """The names of the documents that say who signed it, which come and go with it."""

    def describe(self, name: str, documents: Mapping[str, bytes]) -> Document:
        """What a document says.

        Args:
            documents: it and those that say who signed it, by name.

        Raises:
            EvidenceRejected: it is not signed by the vendor.
            FormatError: it is none of that name.
        """

    def ask(self, client: HTTPClient, source: str, name: str, evidence: Any) -> dict[str, bytes]:
        """The document of a source as it came, and those that came with it; {}: it has none such.

        Args:
            source: URL.
            evidence: as the verifier read it, which says of which machine.

        Raises:
            RemoteError: the source does not give it.
            FormatError: it gives something else.
        """

    def find(self, data: bytes) -> dict[str, bytes]:
        """The documents in a file of the vendor's or of another tool's, by name.

        Raises:
            FormatError: it is none of those that are known, or does not tell its name.
        """


def load_vendor(name: str, roots: bytes | None = None) -> Vendor:
    """Who knows the document of that name.

    Args:
        roots: certificates in PEM in place of the vendor's, for tests.

    Raises:
        FormatError: nobody.
    """
    found = VENDORS.get(name.partition("/")[0])
    if found is None:
        raise FormatError(f"there is no document {name[:_MAX_NAME]!r}", what="collateral")
    module, _, kind = found.partition(":")
    made: Vendor = getattr(import_module(module), kind)(roots)
    return made


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
        root = self._root()
        path = Path(root, name)
        with local_errors(path, "collateral cannot be read"):
            try:
                fd = open_regular(_inside(root, name))
            except (FileNotFoundError, NotADirectoryError):
                return None
            with open(fd, "rb") as file:
                data = file.read(MAX_DOCUMENT + 1)
        if len(data) > MAX_DOCUMENT:
            raise LocalError(f"expected at most {MAX_DOCUMENT} bytes, got more", path=str(path))
        return data

    def put(self, name: str, data: bytes) -> None:
        """Write a document, in place of what has its name, at once or not at all.

        The directory is made if it is not there.

        Raises:
            FormatError: the name is none.
            LocalError: it cannot be written, or its place lies outside.
        """
        check_name(name)
        with local_errors(Path(self._path, name), "collateral cannot be written"):
            self._path.mkdir(parents=True, exist_ok=True)
            place = _inside(self._root(), str(Path(name).parent), must_exist=False)
            place.mkdir(parents=True, exist_ok=True)
            staged = StagedFile(place)
            try:
                write_all(staged.fileno(), data)
                staged.publish(place / Path(name).name)
            finally:
                staged.close()

    def names(self) -> Iterator[str]:
        """The names of all documents, in order.

        Raises:
            LocalError: the directory is not there, cannot be read, or has too many files.
        """
        root = self._root()
        found: list[str] = []
        with local_errors(root, "collateral cannot be read"):
            for above, _, files in os.walk(root, followlinks=False):
                inside = Path(above).relative_to(root)
                found += [(inside / name).as_posix() for name in files if _PART.match(name)]
                if len(found) > MAX_DOCUMENTS:
                    raise LocalError(
                        f"expected at most {MAX_DOCUMENTS} documents, got more", path=root
                    )
        yield from sorted(found)

    def _root(self) -> str:
        hint = "'imagers attest collateral fetch' makes it"
        with local_errors(self._path, "collateral cannot be read", hint=hint):
            return os.path.realpath(self._path, strict=True)


def _inside(root: str, name: str, *, must_exist: bool = True) -> Path:
    """Where a name leads, which is below the root."""
    found = Path(os.path.realpath(Path(root, name), strict=must_exist))
    if not found.is_relative_to(root):
        raise LocalError("leads out of the directory of collateral", path=str(Path(root, name)))
    return found
