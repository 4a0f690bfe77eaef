# SPDX-License-Identifier: Apache-2.0
"""What policies in Rego see: Trustee's shapes, and below `imagers` what only we know.

A resource policy:

    data    plugin "resource", resource-path ["default", "app", "key"], query {"a": "b"}
    input   the claims of the guest's token: submods.cpu0["ear.status"] and so on, but as the
            tenant's own policy and reference values appraise them now
    input.imagers   {"image": "sha256:...", "init_data": {...},
                     "bindings": [{"digest": "sha256:...", "state": "active", "approvals": 2}],
                     "now_ns": 17...}

An attestation policy, of each piece of evidence:

    input   {"snp": {...}, "report_data": "...", "init_data": "...", "runtime_data_claims": {...}}
    input.imagers   {"tee": "snp", "measured": [{...}], "firmware": {...}, "configured": {...},
                     "tcb_status": {"tdx_tcb_status": "UpToDate"}, "advisories": [], "debug": false,
                     "counts_if_measured": false, "test_root": false,
                     "expired": ["snp_tee_svn"], "now_ns": 17...}

What is not known is not there. A guest can write none of `imagers`, but for the image that it names
and what its init data says.

No IO and no clock here.

Spec: Trustee, resource policy and attestation policy; draft-ietf-rats-ear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from imagers.evidence.claims import claims_to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from imagers.kbs.resources import ResourcePath
    from imagers.model.digest import Digest
    from imagers.model.evidence import Claims
    from imagers.model.references import ReferenceValue
    from imagers.model.strict_json import JSON, JSONObject

__all__ = [
    "NAMES",
    "Binding",
    "ResourceFacts",
    "Worth",
    "attestation_input",
    "reference_inputs",
    "request_data",
    "resource_input",
    "with_request",
]

_OURS = "imagers"
_STATUS = "ear.status"
_VECTOR = "ear.trustworthiness-vector"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN = (
    "tee", "maker", "measured", "firmware", "configured", "advisories", "debug",
    "counts_if_measured", "test_root",
)  # fmt: skip
NAMES = frozenset(
    {*_SHOWN, "bindings", "expired", "image", "init_data", "now_ns", "request", "tcb_status"}
)
"""All members of `input.imagers`."""


class Worth(Protocol):
    """How a piece of evidence is appraised now."""

    @property
    def status(self) -> str:
        """`none`, `affirming`, `warning` or `contraindicated`."""

    @property
    def vector(self) -> Mapping[str, int]:
        """Trust vector."""


@dataclass(frozen=True, slots=True)
class Binding:
    """An image that a resource belongs to.

    Attributes:
        state: `active`, `superseded` or `revoked`.
        approvals: how many admins have approved it.
    """

    digest: Digest
    state: str = "active"
    approvals: int = 0

    def to_json(self) -> JSONObject:
        """As policies see it."""
        return {"digest": str(self.digest), "state": self.state, "approvals": self.approvals}


@dataclass(frozen=True, slots=True)
class ResourceFacts:
    """What is known beside the token of a guest.

    Attributes:
        image: digest that the guest names, if its word counts.
        init_data: claims of the init data that its evidence binds.
    """

    now: datetime
    image: Digest | None = None
    init_data: JSONObject | None = None
    bindings: Sequence[Binding] = field(default=())


def request_data(
    path: ResourcePath, query: Mapping[str, str], *, plugin: str = "resource"
) -> JSONObject:
    """The `data` of a resource policy."""
    return {
        "plugin": plugin,
        "resource-path": [path.repository, path.type, path.tag],
        "query": dict(query),
    }


def resource_input(
    token: JSONObject, worth: Mapping[str, Worth], facts: ResourceFacts
) -> JSONObject:
    """The `input` of a resource policy.

    Args:
        token: claims of the guest's token.
        worth: of each submod; one that has none counts as one of which nothing is known.
    """
    submods = token.get("submods")
    appraised: JSONObject = {
        name: _appraised(submod, worth.get(name))
        for name, submod in (submods if isinstance(submods, dict) else {}).items()
    }
    ours: JSONObject = {
        "now_ns": _nanoseconds(facts.now),
        "bindings": [one.to_json() for one in facts.bindings],
    }
    if facts.image is not None:
        ours["image"] = str(facts.image)
    if facts.init_data is not None:
        ours["init_data"] = facts.init_data
    return {**token, "submods": appraised, _OURS: ours}


def with_request(value: JSONObject, data: JSONObject) -> JSONObject:
    """The input as the engine is given it: `data` of a request is in it, where no guest writes."""
    ours = value.get(_OURS)
    return {**value, _OURS: {**(ours if isinstance(ours, dict) else {}), "request": data}}


def _appraised(submod: JSON, worth: Worth | None) -> JSON:
    kept = dict(submod) if isinstance(submod, dict) else {}
    kept.pop(_VECTOR, None)
    kept[_STATUS] = "none"
    if worth is not None:
        kept |= {_STATUS: worth.status, _VECTOR: dict(worth.vector)}
    return kept


def attestation_input(
    claims: Claims, evidence: JSONObject, *, expired: Sequence[str], now: datetime
) -> JSONObject:
    """The `input` of an attestation policy.

    Args:
        evidence: the claims as Trustee names them: of the TEE below its name, `report_data`,
            `init_data`, `runtime_data_claims`, and `init_data_claims` where there are any.
        expired: names of reference values that are over.
    """
    told = claims_to_json(claims)
    ours: JSONObject = {name: told[name] for name in _SHOWN}
    ours["tcb_status"] = (
        {f"{claims.tee}_tcb_status": claims.tcb_status} if claims.tcb_status else {}
    )
    ours["expired"] = list(expired)
    ours["now_ns"] = _nanoseconds(now)
    return {**evidence, _OURS: ours}


def reference_inputs(
    references: Iterable[ReferenceValue], *, now: datetime
) -> tuple[dict[str, JSON], tuple[str, ...]]:
    """What `query_reference_value` gives, by name, as it is registered; the names that are over."""
    in_force: dict[str, JSON] = {}
    expired = []
    for one in references:
        if one.expires is not None and one.expires <= now:
            expired.append(one.name)
        else:
            in_force[one.name] = one.as_policies_see_it()
    return in_force, tuple(sorted(expired))


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
