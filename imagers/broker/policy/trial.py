# SPDX-License-Identifier: Apache-2.0
"""A policy tried on a guest, without a broker: what it says, and what it saw.

    guest = guest_of_evidence(claims, references, now=now)
    trial = await try_policy(text, guest, question, what="policy.rego")

It is what a broker would say: a table decides by `table`, a text in Rego is checked as an upload
and judged in a process of its own. An attestation policy says what each piece of evidence is worth,
and the worst counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from imagers.broker.policy.inputs import (
    Binding,
    ResourceFacts,
    Worth,
    attestation_input,
    reference_inputs,
    request_data,
    resource_input,
    with_request,
)
from imagers.broker.policy.rego.engine import RegoEngine
from imagers.broker.policy.rego.scan import ScannedPolicy, is_rego, scan_policy
from imagers.broker.policy.table import ReleaseFacts, RuleDenied, parse_policy
from imagers.errors import PolicyDenied, UsageError
from imagers.evidence.appraise import AFFIRMING, appraise_claims
from imagers.evidence.claims import claims_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from imagers.kbs.resources import ResourcePath
    from imagers.model.digest import Digest
    from imagers.model.evidence import Claims
    from imagers.model.references import ReferenceValue
    from imagers.model.strict_json import JSONObject, View

__all__ = [
    "Trial",
    "TriedGuest",
    "TriedRequest",
    "guest_of_evidence",
    "guest_of_token",
    "try_policy",
]

_EVIDENCE = "ear.veraison.annotated-evidence"
_CLAIMS = "imagers.claims"
_GUEST = "cpu0"


@dataclass(frozen=True, slots=True)
class _Told:
    """A worth as a token says it."""

    status: str
    vector: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Part:
    """One piece of evidence.

    Attributes:
        evidence: claims as Trustee names them.
        claims: None: of another's token, which has none of ours.
    """

    tee: str
    evidence: JSONObject
    claims: Claims | None
    worth: Worth


@dataclass(frozen=True, slots=True)
class TriedGuest:
    """Whom a policy is asked about.

    Attributes:
        token: claims of its token.
        parts: by names of submods.
        references: that attestation policies ask for.
    """

    token: JSONObject
    parts: Mapping[str, _Part]
    references: Mapping[str, ReferenceValue]
    now: datetime

    @property
    def is_affirming(self) -> bool:
        """Whether all its evidence is that of a machine of the operator's."""
        worth = [one.worth.status for one in self.parts.values()]
        return bool(worth) and all(status == AFFIRMING for status in worth)


@dataclass(frozen=True, slots=True)
class TriedRequest:
    """What a resource policy is asked for.

    Attributes:
        image: that the guest names; it counts only if the guest is known.
        bindings: the images that the resource belongs to, all of them active.
        approvals: of each of these.
    """

    path: ResourcePath
    image: Digest | None = None
    bindings: tuple[Digest, ...] = ()
    approvals: int = 0
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a policy said.

    Attributes:
        kind: of policy.
        rule: that decided, or "".
        reason: in words, or "".
        fault: of the engine, or "".
        worth: by submods, of an attestation policy.
        seen: what the text names of what there is.
        absent: what it names besides, of parts that are there.
    """

    kind: Literal["table", "resource", "attestation"]
    allow: bool
    rule: str = ""
    reason: str = ""
    fault: str = ""
    worth: Mapping[str, Worth] = field(default_factory=dict)
    seen: JSONObject = field(default_factory=dict)
    absent: tuple[str, ...] = ()


def guest_of_evidence(
    claims: Claims, references: Sequence[ReferenceValue], *, now: datetime
) -> TriedGuest:
    """A guest that showed one piece of evidence; its worth is that of the house's own appraisal."""
    by_name = {one.name: one for one in references}
    evidence: JSONObject = {
        claims.tee: dict(claims.values),
        "report_data": claims.report_data,
        "init_data": claims.init_data,
    }
    name = f"{claims.tee_class}0"
    part = _Part(claims.tee, evidence, claims, appraise_claims(claims, by_name, now=now))
    token: JSONObject = {"submods": {name: {_EVIDENCE: evidence}}, "imagers.tee": claims.tee}
    return TriedGuest(token, {name: part}, by_name, now)


def guest_of_token(
    token: View, references: Sequence[ReferenceValue], *, now: datetime
) -> TriedGuest:
    """The guest of a decoded token, of this broker or of Trustee; its worth is what that says.

    Raises:
        FormatError: it is no such token.
    """
    submods = token.object("submods")
    parts = {name: _part(submods.object(name)) for name in submods.value}
    return TriedGuest(token.value, parts, {one.name: one for one in references}, now)


def _part(submod: View) -> _Part:
    evidence = submod.object(_EVIDENCE, null_is_empty=True)
    vector = submod.object("ear.trustworthiness-vector", null_is_empty=True)
    told = _Told(
        submod.optional_text("ear.status") or "none",
        {name: vector.integer(name, minimum=-128, maximum=127) for name in vector.value},
    )
    if _CLAIMS in submod:
        kept = submod.object(_CLAIMS)
        tee = kept.text("tee")
        values = evidence.object(tee, null_is_empty=True).value
        return _Part(tee, evidence.value, claims_from_json(kept, values), told)
    # Trustee's has the claims below the name of their TEE, and some beside it.
    tee = next((name for name, one in evidence.value.items() if _is_tee(name, one)), "")
    return _Part(tee, evidence.value, None, told)


def _is_tee(name: str, value: object) -> bool:
    return isinstance(value, dict) and not name.endswith(("_data", "_claims"))


async def try_policy(
    text: str, guest: TriedGuest, request: TriedRequest | None, *, what: str
) -> Trial:
    """What a policy says.

    Args:
        request: None: there is none; only an attestation policy can be tried then.
        what: the file, for messages.

    Raises:
        FormatError: it is no policy that could be put in force.
        UsageError: it decides over resources, and none is named.
    """
    if not is_rego(text):
        return _try_table(text, guest, _named(request))
    scanned = scan_policy(text, what=what)
    engine = RegoEngine()
    try:
        await engine.check(text, what=what)
        if "allow" in scanned.rules:
            return await _try_resource(engine, text, scanned, guest, _named(request))
        return await _try_attestation(engine, text, scanned, guest)
    finally:
        await engine.close()


def _named(request: TriedRequest | None) -> TriedRequest:
    if request is None:
        raise UsageError(
            "the policy decides over resources, and none is named",
            hint="say which: --resource kbs:///repository/type/tag",
        )
    return request


def _try_table(text: str, guest: TriedGuest, request: TriedRequest) -> Trial:
    first = guest.parts.get(_GUEST)
    if first is None:
        return Trial("table", allow=False, reason="the guest has shown no evidence of a TEE")
    facts = ReleaseFacts(
        path=request.path,
        tee=first.tee,
        image=request.image,
        bindings=frozenset(request.bindings),
        is_affirming=guest.is_affirming,
        devices=frozenset(one.tee for name, one in guest.parts.items() if name != _GUEST),
        approvals=request.approvals,
    )
    seen: JSONObject = {
        "resource": str(facts.path),
        "tee": facts.tee,
        "devices": [*sorted(facts.devices)],
        "image": None if facts.image is None else str(facts.image),
        "bindings": [*sorted(map(str, facts.bindings))],
        "approvals": facts.approvals,
        "affirming": facts.is_affirming,
    }
    policy = parse_policy(text)
    try:
        rule = policy.decide(facts)
    except PolicyDenied as denied:
        rule = denied.rule if isinstance(denied, RuleDenied) else ""
        return Trial("table", allow=False, rule=rule, reason=str(denied), seen=seen)
    return Trial("table", allow=True, rule=rule, seen=seen)


async def _try_resource(
    engine: RegoEngine,
    text: str,
    scanned: ScannedPolicy,
    guest: TriedGuest,
    request: TriedRequest,
) -> Trial:
    facts = ResourceFacts(
        guest.now,
        image=request.image if guest.is_affirming else None,
        init_data=_init_data_of(guest),
        bindings=[Binding(one, approvals=request.approvals) for one in request.bindings],
    )
    worth = {name: one.worth for name, one in guest.parts.items()}
    asked = resource_input(guest.token, worth, facts)
    data = request_data(request.path, request.query)
    told = await engine.decide("trial", text, input=asked, data=data)
    whole = with_request(asked, data)
    return Trial(
        "resource",
        allow=told.allow,
        rule=told.rule,
        reason=told.reason,
        fault=told.fault,
        seen=scanned.seen_of(whole),
        absent=tuple(map(".".join, scanned.absent_of(whole))),
    )


def _init_data_of(guest: TriedGuest) -> JSONObject | None:
    """What its token says of the init data that the evidence of its TEE binds."""
    part = guest.parts.get(_GUEST)
    claims = None if part is None else part.evidence.get("init_data_claims")
    return claims if isinstance(claims, dict) else None


async def _try_attestation(
    engine: RegoEngine, text: str, scanned: ScannedPolicy, guest: TriedGuest
) -> Trial:
    in_force, expired = reference_inputs(guest.references.values(), now=guest.now)
    worth: dict[str, Worth] = {}
    seen: JSONObject = {}
    absent: list[str] = []
    fault = ""
    for name, part in guest.parts.items():
        asked = part.evidence
        if part.claims is not None:
            asked = attestation_input(part.claims, asked, expired=expired, now=guest.now)
        told = await engine.appraise("trial", text, input=asked, references=in_force)
        worth[name] = told
        fault = fault or told.fault
        seen[name] = scanned.seen_of(asked)
        absent += [".".join((name, *path)) for path in scanned.absent_of(asked)]
    allow = bool(worth) and all(one.status == AFFIRMING for one in worth.values())
    return Trial(
        "attestation", allow=allow, fault=fault, worth=worth, seen=seen, absent=tuple(absent)
    )
