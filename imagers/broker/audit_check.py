# SPDX-License-Identifier: Apache-2.0
"""Whether the rows of an audit log are those that were written.

Nothing of the store is believed: who can write it can drop its constraints, change any row, and
make every hash after it anew. What he cannot make is a signed head that says so.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagers.broker.keeping.database import StoreFailed
from imagers.broker.keeping.transaction import FIRST_HASH, Transaction, chain_hash
from imagers.errors import FormatError, SignatureInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from imagers.broker.audit_heads import Head, Heads
    from imagers.broker.keeping.database import Database

__all__ = ["Report", "check_chains", "check_store"]

_NUMBERS = ("number", "place")
_MAX_PROBLEMS = 100  # that are told one by one


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong with chains.

    Attributes:
        rows: how many there are, of all chains.
        signed: how many of them come before a head that fits, or are its row.
        problems: a line each; empty if nothing is wrong.
    """

    rows: int
    signed: int
    problems: Sequence[str]


def check_chains(
    rows: Iterable[tuple[Mapping[str, str | int], bytes]], heads: Iterable[Head]
) -> Report:
    """Whether the rows are those that were written, as far as heads tell.

    Without heads it can only be said that the chains are whole: who changes a row can make all
    hashes after it anew.

    Args:
        rows: with their hashes, chain by chain, in the order of their numbers; `place` says where
            the log shows one.
        heads: signed ones, of any of the chains.
    """
    waiting: dict[str, dict[int, list[Head]]] = {}
    for head in dict.fromkeys(heads):
        waiting.setdefault(head.link.broker, {}).setdefault(head.link.number, []).append(head)
    problems: list[str] = []
    chain: _Chain | None = None
    count = signed = 0
    for row, hashed in rows:
        count += 1
        name = str(row["broker"])
        if chain is None or chain.name != name:
            if chain is not None:
                signed += chain.end(problems)
            chain = _Chain(name, waiting.pop(name, {}))
        chain.add(row, hashed, problems)
    if chain is not None:
        signed += chain.end(problems)
    for name, lost in sorted(waiting.items()):
        _Chain(name, lost).end(problems)
    if len(problems) > _MAX_PROBLEMS:
        more = f"and {len(problems) - _MAX_PROBLEMS} more"
        problems = [*problems[:_MAX_PROBLEMS], more]
    return Report(count, signed, problems)


def check_store(database: Database, exported: Sequence[Heads]) -> Report:
    """The same for a store, which is only read; brokers may use it meanwhile.

    Args:
        exported: heads that were kept elsewhere. Those in the store that their keys signed count
            as well: they say more nearly where something was changed.

    Raises:
        StoreFailed: it cannot be read, or is no store of this version.
    """
    heads = [head for one in exported for head in one.heads]
    problems = []
    try:
        with closing(database.connect(writes=False)) as connection:
            for statement in database.begin_reading():
                connection.execute(statement)
            store = Transaction(connection, database.words, "", alone=False)
            if exported:
                for signed in store.all_audit_heads():
                    if not isinstance(signed, str):
                        problems.append("a head in the store: is no text")
                        continue
                    try:
                        heads.append(_verify(signed, exported))
                    except (FormatError, SignatureInvalid) as error:
                        problems.append(f"a head in the store: {error}")
            report = check_chains(store.audit_chains(), heads)
            if lost := store.count_audit() - report.rows:
                told = "1 row is" if lost == 1 else f"{lost} rows are"
                problems.append(f"{told} of no chain, and shown: put in, or changed")
    except database.errors as error:
        told = str(error).partition("\n")[0]
        raise StoreFailed(f"the store cannot be read: {told}", path=database.name) from None
    return replace(report, problems=[*problems, *report.problems][: _MAX_PROBLEMS + 1])


def _verify(signed: str, exported: Sequence[Heads]) -> Head:
    """The head, by whichever keys signed it."""
    for one in exported[:-1]:
        with suppress(SignatureInvalid):
            return one.verify(signed)
    return exported[-1].verify(signed)


class _Chain:
    """One chain, row by row."""

    def __init__(self, name: str, heads: dict[int, list[Head]]) -> None:
        self.name = name
        self._heads = heads
        self._number = 0
        self._hash = FIRST_HASH
        self._signed = 0
        self._place: int | None = None

    def add(self, row: Mapping[str, str | int], hashed: bytes, problems: list[str]) -> None:
        number = row["number"]
        if not (_is_row(row) and isinstance(number, int) and isinstance(hashed, bytes)):
            problems.append(f"{self.name}: a row after row {self._number} is damaged")
            return
        if number <= self._number:
            problems.append(f"{self.name}: row {number} is there twice: one was put in")
            return
        if number > self._number + 1:
            problems.append(f"{self.name}: {_span(self._number + 1, number - 1)} missing")
        elif chain_hash(self._hash, row) != hashed:
            problems.append(
                f"{self.name}: row {number} does not follow from the one before: "
                "one of the two was changed, or put in, or what was between them taken out"
            )
        self._check_place(row["place"], number, problems)
        self._number, self._hash = number, hashed
        for head in self._heads.pop(number, ()):
            if head.link.hash == hashed:
                self._signed = number
                continue
            problems.append(
                f"{self.name}: {_span(self._signed + 1, number)} not all what they were when the "
                f"head of row {number} was signed, {head.at}: one was changed, dropped or put in, "
                "and the chain made anew"
            )

    def _check_place(self, place: object, number: int, problems: list[str]) -> None:
        if not isinstance(place, int) or (self._place is not None and place <= self._place):
            problems.append(f"{self.name}: row {number} is shown before row {self._number}: moved")
            return
        self._place = place

    def end(self, problems: list[str]) -> int:
        """How many rows are signed; tells of heads whose rows are not there."""
        for number, heads in sorted(self._heads.items()):
            if number > self._number:
                problems.append(
                    f"{self.name}: {_span(self._number + 1, number)} missing at the end; the head "
                    f"of row {number} was signed {heads[0].at}"
                )
        return self._signed


def _is_row(row: Mapping[str, str | int]) -> bool:
    return all(isinstance(one, str) for name, one in row.items() if name not in _NUMBERS)


def _span(first: int, last: int) -> str:
    return f"row {first} is" if first >= last else f"rows {first} to {last} are"
