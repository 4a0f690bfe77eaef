# SPDX-License-Identifier: Apache-2.0
"""Getting collateral: each document from the first source that has a good one, into a directory.

    for fetched in fetch(names, evidence, sources=(), keep=keeper, client=client):
        print(fetched.name, fetched.state)

Sources are asked in their order, each with the retries of the client; what a source gives counts
only if the vendor signed it, and does not take the place of a younger one. A document that is
expired already is kept where there is no better one, and told.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagers.errors import EvidenceRejected, FormatError, RemoteError
from imagers.evidence.collateral.directory import load_vendor
from imagers.net.urls import parse_origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from imagers.errors import ImagersError
    from imagers.evidence.collateral.directory import CollateralDirectory, Document, Vendor
    from imagers.net.http import HTTPClient

__all__ = ["Fetched", "Keeper", "fetch"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one document.

    Attributes:
        state: `new`, `unchanged`, `kept` (what is there is younger), `missing`; `not taken` of a
            file; `there` of what was there before.
        document: that is there now; None: there is none.
        source: that gave what is there now; "" where none did.
        passed_over: why the other sources that were asked did not.
        error: of the last one of these that failed.
    """

    name: str
    state: str
    document: Document | None
    source: str = ""
    passed_over: tuple[str, ...] = ()
    error: ImagersError | None = None


class Keeper:
    """Puts documents into a directory: what the vendor signed, and nothing that is older.

    Args:
        now: aware; what says that it was issued later is not taken for a document.
        roots: certificates in PEM in place of the vendor's, for tests.
    """

    def __init__(
        self, directory: CollateralDirectory, now: datetime, roots: bytes | None = None
    ) -> None:
        self._directory = directory
        self._roots = roots
        self.now = now

    def names(self) -> Iterator[str]:
        """The names of what is there, without those that stand beside another.

        Raises:
            LocalError: the directory cannot be read.
        """
        names = list(self._directory.names())
        beside: set[str] = set()
        for name in names:
            with suppress(FormatError):
                beside.update(self.vendor(name).beside(name))
        yield from (name for name in names if name not in beside)

    def look(self, name: str) -> Document:
        """The document that is there.

        Raises:
            EvidenceRejected, FormatError: it is none, or another one is missing beside it.
        """
        documents = {}
        for one in (name, *self.vendor(name).beside(name)):
            data = self._directory.read(one)
            if data is None:
                raise FormatError(f"expected {one}, got none", what="collateral")
            documents[one] = data
        return self.describe(name, documents)

    def vendor(self, name: str) -> Vendor:
        """Who knows a document."""
        return load_vendor(name, self._roots)

    def describe(self, name: str, documents: Mapping[str, bytes]) -> Document:
        """What a document says, if it is good and of a time before now.

        Raises:
            EvidenceRejected: its vendor did not sign it, or it is of the future.
            FormatError: it is none.
        """
        document = self.vendor(name).describe(name, documents)
        if document.issued > self.now:
            raise EvidenceRejected(f"is of the future: {document.issued:%Y-%m-%dT%H:%M:%SZ}")
        return document

    def find(self, name: str) -> Document | None:
        """The document that is there; None: there is none, or none that is good."""
        if not self._directory.path.exists():
            return None
        try:
            return self.look(name)
        except (FormatError, EvidenceRejected):
            return None

    def put(self, name: str, documents: Mapping[str, bytes]) -> tuple[str, Document]:
        """Put a document and those beside it into their places; the state of `Fetched`.

        Raises:
            EvidenceRejected, FormatError: as `describe`.
            LocalError: they cannot be written.
        """
        document = self.describe(name, documents)
        there = self.find(name)
        if there is not None:
            if document.is_older_than(there):
                return "kept", there
            if all(self._directory.read(one) == data for one, data in documents.items()):
                return "unchanged", there
        for one, data in documents.items():
            self._directory.put(one, data)
        return "new", document


def fetch(
    names: Sequence[str],
    evidence: Any,
    *,
    sources: Sequence[str],
    keeper: Keeper,
    client: HTTPClient,
) -> Iterator[Fetched]:
    """Get documents, and tell of each as it is there.

    Args:
        names: as a verifier wants them.
        evidence: as that verifier read it.
        sources: URLs, asked in this order; none: the vendor's own.

    Raises:
        FormatError: a name is none.
        LocalError: the directory cannot be read or written.
        UsageError: a source is plain http at another machine.
    """
    came_along: set[str] = set()
    for name in names:
        if name in came_along:
            continue
        vendor = keeper.vendor(name)
        came_along.update(vendor.beside(name))
        yield _fetch_one(name, evidence, sources or vendor.sources, keeper, client)


def _fetch_one(
    name: str, evidence: Any, sources: Sequence[str], keeper: Keeper, client: HTTPClient
) -> Fetched:
    there = keeper.find(name)
    best: tuple[Document, dict[str, bytes], str] | None = None
    passed_over: list[str] = []
    error: ImagersError | None = None
    for source in sources:
        origin = str(parse_origin(source))
        try:
            documents = keeper.vendor(name).ask(client, source, name, evidence)
            if not documents:
                passed_over.append(f"{origin} has none of this kind")
                continue
            document = keeper.describe(name, documents)
        except RemoteError as refusal:  # which names the server
            passed_over.append(str(refusal))
            error = refusal
            continue
        except (FormatError, EvidenceRejected) as refusal:
            passed_over.append(f"{origin}: {refusal}")
            error = refusal
            continue
        if best is None or best[0].is_older_than(document):
            best = (document, documents, origin)
        if there is not None and document.is_older_than(there):
            passed_over.append(f"{origin}: what it has is older than what is there")
        elif document.is_expired(keeper.now):
            passed_over.append(f"{origin}: what it has is expired")
        else:
            break
    if best is None:
        state = "missing" if there is None else "kept"
        return Fetched(name, state, there, "", tuple(passed_over), error)
    state, document = keeper.put(name, best[1])
    source = "" if state == "kept" else best[2]
    return Fetched(name, state, document, source, tuple(passed_over), error)
