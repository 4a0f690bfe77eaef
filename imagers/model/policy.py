"""Policies: facts in, nothing or `PolicyDenied` out.

An empty `AllOf` denies, as an empty `AnyOf` does: a policy that says nothing allows nothing.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from imagers.errors import PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AllOf", "AnyOf", "Policy", "UnsafeAllowAll"]

Facts = TypeVar("Facts")
FactsIn_contra = TypeVar("FactsIn_contra", contravariant=True)


class Policy(Protocol[FactsIn_contra]):
    """Looks at facts, without IO and without a clock."""

    def check(self, facts: FactsIn_contra, /) -> None:
        """Nothing, if the policy allows it.

        Raises:
            PolicyDenied: it does not; the message says which rule.
        """


class AllOf(Generic[Facts]):
    """Every part must allow."""

    def __init__(self, parts: Sequence[Policy[Facts]]) -> None:
        self._parts = tuple(parts)

    def check(self, facts: Facts, /) -> None:
        """See `Policy`."""
        if not self._parts:
            raise PolicyDenied("the policy has no rule, and so allows nothing")
        for part in self._parts:
            part.check(facts)


class AnyOf(Generic[Facts]):
    """One part must allow; the refusal lists what each said."""

    def __init__(self, parts: Sequence[Policy[Facts]]) -> None:
        self._parts = tuple(parts)

    def check(self, facts: Facts, /) -> None:
        """See `Policy`."""
        reasons = []
        for part in self._parts:
            try:
                part.check(facts)
            except PolicyDenied as denied:
                reasons.append(str(denied))
            else:
                return
        raise PolicyDenied("; ".join(reasons) or "the policy has no rule, and so allows nothing")


class UnsafeAllowAll:
    """Allows everything, and warns each time that one is made."""

    def __init__(self) -> None:
        warnings.warn("a policy that allows everything is in force", stacklevel=2)

    def check(self, facts: object, /) -> None:
        """Nothing, always."""
