# SPDX-License-Identifier: Apache-2.0
"""An appraisal policy: what to let pass of each TEE, and the reference values, in one file.

    {"tees": {"snp": {"crl": "optional"}},
     "reference_values": [{"name": "snp_launch_measurement", "values": ["c4a6..."]}]}

Both members may be absent; what a TEE can be told is on its page in docs/tee.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.evidence.plugins import TEES
from imagers.model.references import MAX_REFERENCES_BYTES, parse_reference_members
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.references import ReferenceValue

__all__ = ["MAX_POLICY_BYTES", "AppraisalPolicy", "parse_appraisal_policy"]

MAX_POLICY_BYTES = MAX_REFERENCES_BYTES


@dataclass(frozen=True, slots=True)
class AppraisalPolicy:
    """What a file says.

    Attributes:
        settings: of verifiers, by the name of their TEE.
    """

    settings: Mapping[str, View]
    references: tuple[ReferenceValue, ...]


def parse_appraisal_policy(data: bytes, *, what: str) -> AppraisalPolicy:
    """The policy in a file.

    Raises:
        FormatError: it is none, or speaks of a TEE that has no settings. What a TEE is told is
            read when its verifier is made.
    """
    policy = View.parse(data, what=what, max_bytes=MAX_POLICY_BYTES)
    policy.only("tees", "reference_values")
    tees = policy.object("tees", null_is_empty=True)
    tees.only(*TEES)
    return AppraisalPolicy(
        {name: tees.object(name) for name in tees.value}, parse_reference_members(policy)
    )
