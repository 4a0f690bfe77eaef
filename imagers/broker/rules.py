# SPDX-License-Identifier: Apache-2.0
"""What releases are judged by: policies and reference values of a tenant, as the store has them.

    policy               the resource policy: a table, or a text in Rego
    attestation policy   a text in Rego for each class of evidence (`cpu`, `gpu`), which says what
                         evidence is worth; without one, `imagers.evidence.appraise` does

Spec: Trustee, resource policy and attestation policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from imagers.broker.policy.rego.scan import is_rego
from imagers.broker.policy.table import parse_policy
from imagers.errors import FormatError
from imagers.evidence.appraise import appraise_claims, reference_names

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from datetime import datetime

    from imagers.broker.keeping.rows import Admin
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.policy.table import ResourcePolicy
    from imagers.evidence.appraise import Appraisal
    from imagers.model.evidence import Claims
    from imagers.model.references import ReferenceValue

__all__ = ["ATTESTATION", "CLASSES", "POLICY", "LastRules", "RegoPolicy", "Rules", "parse_either"]

POLICY = "policy"
"""The name of the resource policy among those of a tenant."""
ATTESTATION = "attestation-policy/"
"""The beginning of the names of attestation policies; a class of evidence ends them."""
CLASSES = ("cpu", "gpu")
_MAX_OWNERS = 1000
_MAX_SMALL = 1000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RegoPolicy:
    """A resource policy in Rego; `imagers.broker.policy.rego` judges by it."""

    text: str


def parse_either(text: str) -> ResourcePolicy | RegoPolicy:
    """The table, or else a text in Rego, of which only the engine can say if it is one.

    Raises:
        FormatError: a table that is none.
    """
    return RegoPolicy(text) if is_rego(text) else parse_policy(text)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is in force for a tenant, as it was after so many changes of the store.

    Attributes:
        policy: None: the stored one is damaged, and nothing is released.
        fault: why, in that case.
        attestation: by class of evidence.
        floors: by repository, the number of the oldest image that is served.
    """

    changes: int
    policy: ResourcePolicy | RegoPolicy | None
    fault: str
    references: Mapping[str, ReferenceValue]
    attestation: Mapping[str, str]
    floors: Mapping[str, int]

    @classmethod
    def read(cls, transaction: Transaction, tenant: str) -> Rules:
        """Those in force in the state that a transaction sees."""
        policy, fault = None, ""
        try:
            policy = parse_either((transaction.get_policy(tenant, POLICY) or b"").decode())
        except FormatError as error:
            fault = str(error)
        except UnicodeDecodeError:
            fault = "it is not UTF-8"
        texts = {name: transaction.get_policy(tenant, ATTESTATION + name) for name in CLASSES}
        return cls(
            transaction.store_row().changes,
            policy,
            fault,
            transaction.reference_values(tenant),
            {name: text.decode() for name, text in texts.items() if text is not None},
            transaction.floors(),
        )

    @property
    def asks_for_approvals(self) -> bool:
        """Whether the policy looks at the approvals of images.

        A text in Rego that does so without the word sees none, which is never more than there are.
        """
        if isinstance(self.policy, RegoPolicy):
            return "approvals" in self.policy.text
        return self.policy is not None and self.policy.demands_approvals

    def appraise(self, claims: Claims, *, now: datetime) -> Appraisal:
        """The worth of claims by the reference values.

        Args:
            now: by `BrokerState.session_now`: what has expired once is not in force again where
                the clock goes back.
        """
        names = reference_names(claims)
        values = {name: one for name, one in self.references.items() if name in names}
        return appraise_claims(claims, values, now=now)


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of one state of the store.

    Attributes:
        state: how many changes it had seen, and its head, which names all rows that are judged by:
            who writes the database besides the brokers has no head for other ones.
        small: what was read and takes little memory, by names of who read it.
    """

    state: tuple[int, bytes | None]
    rules: dict[str, Rules] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    admins: dict[str, Sequence[Admin]] = field(default_factory=dict)
    small: dict[Hashable, object] = field(default_factory=dict)


class LastRules:
    """What was read last, rules and owners: to parse a thousand values takes more than the rest.

    Threads: safe; one reference is replaced.
    """

    def __init__(self) -> None:
        self._last = _Read((-1, None))

    def of(self, transaction: Transaction, tenant: str) -> Rules:
        """The rules of a tenant in the state that a transaction sees."""
        found = self._of(transaction).rules
        if tenant not in found:
            found[tenant] = Rules.read(transaction, tenant)
        return found[tenant]

    def owner_of(self, transaction: Transaction, repository: str) -> str:
        """The tenant of a repository in that state."""
        found = self._of(transaction).owners
        owner = found.get(repository)
        if owner is None:
            owner = transaction.owner_of(repository)
            if len(found) < _MAX_OWNERS:  # anybody may ask for any name
                found[repository] = owner
        return owner

    def admins_of(self, transaction: Transaction, tenant: str) -> Sequence[Admin]:
        """The admins of a tenant in that state."""
        found = self._of(transaction).admins
        if tenant not in found:
            found[tenant] = transaction.admins(tenant)
        return found[tenant]

    def recall(
        self,
        transaction: Transaction,
        name: Hashable,
        read: Callable[[], _T],
        *,
        is_small: Callable[[_T], bool],
    ) -> _T:
        """What `read` gives in that state, for who names it so each time."""
        found = self._of(transaction).small
        if name in found:
            return found[name]  # type: ignore[return-value]  # it is of this name
        value = read()
        if len(found) < _MAX_SMALL and is_small(value):
            found[name] = value
        return value

    def _of(self, transaction: Transaction) -> _Read:
        row = transaction.store_row()
        state = (row.changes, row.head)
        if transaction.is_alone:  # what it sees may be changed again, or undone
            return _Read(state)
        last = self._last
        if last.state != state:
            last = self._last = _Read(state)
        return last
