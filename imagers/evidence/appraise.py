# SPDX-License-Identifier: Apache-2.0
"""Whether a machine that is genuine is one's own: claims x reference values -> trust vector.

    executables    3   all claims of one way to know the machine equal a reference value
                  33   else
    hardware       2   the vendor's word for the firmware is `UpToDate`, or one of the reference
                       values for it, and each version that has reference values equals one
                  97   else
    configuration  2   no debugging, and each setting that has reference values equals one
                   3   no debugging, and no setting has any
                  36   else

Of claims that count only with their measurement (`Claims.counts_if_measured`) hardware and
configuration are 97 and 36 where executables is not 3: nothing of them is known.

The numbers are Trustee's. A value that is missing or expired equals nothing, and a setting whose
reference values have all expired is one that is not met. The status is that of the worst member.

No IO and no clock here.

Spec: draft-ietf-rats-ar4si-09, section 3; Trustee's default attestation policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from imagers.errors import EvidenceRejected
from imagers.evidence.steps import step
from imagers.model.evidence import Claims
from imagers.model.references import ReferenceValue, as_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.model.strict_json import JSON

__all__ = ["AFFIRMING", "Appraisal", "Comparison", "appraise_claims", "reference_names", "tier_of"]

AFFIRMING = "affirming"
_APPROVED_BOOT, _UNRECOGNIZED = 3, 33
_GENUINE, _UNRECOGNIZED_HARDWARE = 2, 97
_APPROVED_SETTINGS, _SAFE_SETTINGS, _UNKNOWN_SETTINGS = 2, 3, 36
_NONE = 1
_TIERS = ((_NONE, "none"), (31, AFFIRMING), (95, "warning"), (127, "contraindicated"))
_UP_TO_DATE = "UpToDate"
_OF_ANOTHER = "a value is worth something if it is of a guest that you started, and not from here"
_SHOWN = 2  # reference values in a line; a list can have a thousand


@dataclass(frozen=True, slots=True)
class Comparison:
    """One claim and what it had to be.

    Attributes:
        member: of the trust vector.
        claim: its name, which is that of the reference value.
        wanted: the values that would do; empty: there are none.
        source: where they come from.
        why: "" if it holds, else in words.
        remedy: the smallest change of the operator's that would admit it, or "".
    """

    member: str
    claim: str
    found: JSON
    wanted: tuple[JSON, ...]
    source: str
    why: str = ""
    remedy: str = ""

    @property
    def holds(self) -> bool:
        """Whether the claim is what it had to be."""
        return not self.why

    def told(self, *, remedy: bool = True) -> str:
        """One line: claim, wanted, where that is from, found, why not.

        Args:
            remedy: and what would admit it.
        """
        wanted = " or ".join(map(as_word, self.wanted[:_SHOWN])) or "a reference value"
        if len(self.wanted) > _SHOWN:
            wanted += f" or one of {len(self.wanted) - _SHOWN} more"
        source = f" (from {self.source})" if self.source else ""
        line = f"{self.claim}: expected {wanted}{source}, got {as_word(self.found)}"
        for part in (self.why, self.remedy if remedy else ""):
            line += f"; {part}" if part else ""
        return line


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What evidence is worth to the operator.

    Attributes:
        vector: AR4SI trustworthiness vector, all eight members.
        comparisons: all that were made; of `executables`, of the way that came closest.
        has_references: whether there is a reference value for all names of one way to know a
            machine of this TEE, expired or not.
        counts: whether anything of the claims may be believed; False: they count only with their
            measurement, and no reference value equals it.
    """

    vector: Mapping[str, int]
    comparisons: tuple[Comparison, ...]
    has_references: bool
    counts: bool = True

    @property
    def status(self) -> str:
        """Of the worst member: `none`, `affirming`, `warning` or `contraindicated`."""
        return tier_of(max(self.vector.values()))  # none of ours is negative

    @property
    def is_affirming(self) -> bool:
        """Whether it is a machine of the operator's, as far as he said what those are."""
        return self.status == AFFIRMING

    @property
    def misses(self) -> tuple[Comparison, ...]:
        """What does not hold."""
        return tuple(one for one in self.comparisons if not one.holds)

    def check_counts(self) -> None:
        """Raise unless something of the claims may be believed.

        Raises:
            EvidenceRejected: they count only with a measurement that no reference value equals.
        """
        if not self.counts:
            miss = self.misses[0]
            with step("measure"):
                raise EvidenceRejected(
                    "this evidence counts only where its measurement equals a reference value: "
                    f"{miss.told(remedy=False)}",
                    claim=miss.claim,
                    found=as_word(miss.found),
                    hint=miss.remedy or None,
                )


def tier_of(value: int) -> str:
    """What a member of a trust vector means, from -128 to 127."""
    size = abs(value)
    if value < 0 and size > _NONE:
        size -= 1  # negative tiers are one wider: -2 to -32 is as 2 to 31
        size = max(size, _NONE + 1)
    return next(name for most, name in _TIERS if size <= most)


def appraise_claims(
    claims: Claims, references: Mapping[str, ReferenceValue], *, now: datetime
) -> Appraisal:
    """The worth of claims that a verifier established, by the operator's reference values.

    Args:
        references: by name.
        now: aware; decides which of them have expired.
    """
    book = _Book(references, now)
    ways = [book.compare("executables", way, must=True) for way in claims.measured]
    # The one that holds; else one that the operator gave values for; else the nearest.
    ways.sort(key=_distance)
    executables = ways[0] if ways else ()
    if claims.counts_if_measured:  # whoever changed it chose what it says its measurement is
        executables = tuple(
            replace(one, remedy=_OF_ANOTHER if one.remedy else "") for one in executables
        )
    hardware = (
        *_compare_status(claims, book),
        *book.compare("hardware", claims.firmware, must=False),
    )
    settings = book.compare("configuration", claims.configured, must=False)
    configuration = (*_compare_debug(claims), *settings)
    vector = {
        "instance-identity": 0,
        "configuration": _UNKNOWN_SETTINGS,
        "executables": _UNRECOGNIZED,
        "file-system": 0,
        "hardware": _UNRECOGNIZED_HARDWARE,
        "runtime-opaque": 0,
        "storage-opaque": 0,
        "sourced-data": 0,
    }
    is_known = bool(executables) and all(one.holds for one in executables)
    counts = is_known or not claims.counts_if_measured
    if is_known:
        vector["executables"] = _APPROVED_BOOT
    if counts and all(one.holds for one in hardware):
        vector["hardware"] = _GENUINE
    if counts and all(one.holds for one in configuration):
        vector["configuration"] = _APPROVED_SETTINGS if settings else _SAFE_SETTINGS
    return Appraisal(
        vector=vector,
        comparisons=(*executables, *hardware, *configuration),
        has_references=any(way and way.keys() <= references.keys() for way in claims.measured),
        counts=counts,
    )


def _distance(way: Sequence[Comparison]) -> tuple[int, int]:
    """How far claims are from being known."""
    return sum(not one.wanted for one in way), sum(not one.holds for one in way)


def reference_names(claims: Claims) -> frozenset[str]:
    """The names of all reference values that `appraise_claims` looks at."""
    ways = (*claims.measured, claims.firmware, claims.configured)
    return frozenset({_status_name(claims), *(name for way in ways for name in way)})


def _status_name(claims: Claims) -> str:
    return f"{claims.tee}_tcb_status"


def _compare_status(claims: Claims, book: _Book) -> tuple[Comparison, ...]:
    """Of the vendor's word for the firmware."""
    if not claims.tcb_status:
        return ()
    name = _status_name(claims)
    if book.has(name):
        return book.compare("hardware", {name: claims.tcb_status}, must=True)
    wanted = ReferenceValue(name, (_UP_TO_DATE,), source="the default")
    one = book.compare_one("hardware", name, claims.tcb_status, wanted)
    if not one.holds:  # a value takes the place of the default, which is to stay
        one = replace(one, remedy=_remedy(name, _UP_TO_DATE, claims.tcb_status))
    return (one,)


def _compare_debug(claims: Claims) -> tuple[Comparison, ...]:
    why = "others can look into this guest" if claims.debug else ""
    remedy = "start the guest without debugging" if claims.debug else ""
    found: JSON = claims.debug
    return (Comparison("configuration", "debug", found, (False,), "always", why, remedy),)


class _Book:
    """The operator's reference values at one time."""

    def __init__(self, references: Mapping[str, ReferenceValue], now: datetime) -> None:
        self._references = references
        self._now = now

    def has(self, name: str) -> bool:
        return name in self._references

    def compare(
        self, member: str, claims: Mapping[str, JSON], *, must: bool
    ) -> tuple[Comparison, ...]:
        """Each claim with its reference value.

        Args:
            must: a claim without one does not hold; else it is passed over.
        """
        return tuple(
            self.compare_one(member, name, found, self._references.get(name))
            for name, found in claims.items()
            if must or self.has(name)
        )

    def compare_one(
        self, member: str, name: str, found: JSON, wanted: ReferenceValue | None
    ) -> Comparison:
        add = _remedy(name, found)
        if wanted is None:
            return Comparison(member, name, found, (), "", "there is no reference value", add)
        why, remedy = "", ""
        if wanted.expires is not None and wanted.expires <= self._now:
            why = f"the reference value expired at {wanted.expires:%Y-%m-%dT%H:%M:%SZ}"
            remedy = add
        elif not _is_one_of(found, wanted.values):
            why = "no reference value equals it"
            remedy = _remedy(f"--add {name}", found)
        return Comparison(member, name, found, wanted.values, wanted.source, why, remedy)


def _is_one_of(found: JSON, values: Sequence[JSON]) -> bool:
    # In Python True equals 1 and 1.0; in JSON nothing equals what is of another type.
    return any(type(one) is type(found) and one == found for one in values)


def _remedy(name: str, *values: JSON) -> str:
    words = " ".join(map(as_word, values))
    return f"if this guest is yours: imagers broker reference-value set {name} {words}"
