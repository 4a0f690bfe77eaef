# SPDX-License-Identifier: Apache-2.0
"""Reference values of tenants, kept by their admins: what claims have to equal.

The caller has checked the admin, and his role for it.

Each change is in the audit log, and in force for the next request, also for guests that have
attested before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imagers.broker.admins import by_admin
from imagers.broker.audit import append
from imagers.broker.refusals import Refusal
from imagers.model.references import (
    MAX_SOURCE,
    MAX_VALUES,
    is_reference_name,
    parse_references,
    references_to_json,
)
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from imagers.broker.keeping.rows import Admin
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.state import BrokerState
    from imagers.model.references import ReferenceValue
    from imagers.model.strict_json import JSON

__all__ = ["References"]

_MAX_NAMES = 1000


class References:
    """The reference values of one broker.

    Threads: safe.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    async def list(self, by: Admin) -> bytes:
        """The JSON of all of them, sorted by name."""
        values = await self._state.store.read(lambda t: t.reference_values(by.tenant))
        return dump_json(references_to_json(values.values()))

    async def value(self, by: Admin, name: str) -> JSON:
        """What counts now of a name: a list, or the one value that was registered without one.

        Raises:
            Refusal: `ResourceNotFound`: there are none.
        """

        def look(transaction: Transaction) -> ReferenceValue | None:
            found = transaction.reference_values(by.tenant).get(name)
            now = self._state.session_now(transaction.store_row())
            is_over = found is not None and found.expires is not None and found.expires <= now
            return None if is_over else found

        found = await self._state.store.read(look)
        if found is None:
            raise _missing(name)
        return found.as_policies_see_it()

    async def set(self, by: Admin, body: bytes, *, add: bool) -> None:
        """Set those of the message, all or none.

        Args:
            add: their values join those that are there, which keep their expiry; sources join too.

        Raises:
            FormatError: the message is none.
            Refusal: there would be too many, or values of one name would expire at two times.
        """
        references = parse_references(body)

        def keep(transaction: Transaction) -> None:
            there = transaction.reference_values(by.tenant)
            for one in references:
                earlier = there.get(one.name)
                wanted = one if earlier is None or not add else _joined(earlier, one)
                transaction.set_reference_value(by.tenant, wanted)
                self._log(transaction, by, f"set {one.name}: {len(wanted.values)} values")
            if len(there.keys() | {one.name for one in references}) > _MAX_NAMES:
                raise Refusal("SerdeError", f"expected at most {_MAX_NAMES} reference values")

        await self._state.change(by, keep)

    async def delete(self, by: Admin, name: str) -> None:
        """Remove one.

        Raises:
            Refusal: `ResourceNotFound`.
        """

        def remove(transaction: Transaction) -> None:
            if not (
                is_reference_name(name) and transaction.delete_reference_value(by.tenant, name)
            ):
                raise _missing(name)
            self._log(transaction, by, f"delete {name}")

        await self._state.change(by, remove)

    def _log(self, transaction: Transaction, by: Admin, detail: str) -> None:
        append(transaction, by_admin(by, event="reference", detail=detail), now=self._state.now())


def _missing(name: str) -> Refusal:
    return Refusal("ResourceNotFound", f"there is no reference value {name[:128]!r}")


def _joined(earlier: ReferenceValue, one: ReferenceValue) -> ReferenceValue:
    # True equals 1 here, and not in JSON.
    values = tuple({(type(one), one): one for one in (*earlier.values, *one.values)}.values())
    if len(values) > MAX_VALUES:
        raise Refusal("SerdeError", f"expected at most {MAX_VALUES} values of {one.name!r}")
    # All values of a name expire at one time: nobody may think that those that join do earlier.
    if one.expires not in (None, earlier.expires):
        raise Refusal(
            "SerdeError",
            f"values of {one.name!r} join those that {_end(earlier)}: expected no other "
            f"time, got {one.expires.isoformat()}; set all of them, or delete those that are there",
        )
    source = _joined_source(earlier, one)
    return replace(earlier, values=values, source=source, is_single=False)


def _joined_source(earlier: ReferenceValue, one: ReferenceValue) -> str:
    sources = dict.fromkeys(part for part in (*earlier.source.split("; "), one.source) if part)
    joined = "; ".join(sources)
    return joined if len(joined) <= MAX_SOURCE else earlier.source


def _end(one: ReferenceValue) -> str:
    return "never expire" if one.expires is None else f"expire at {one.expires.isoformat()}"
