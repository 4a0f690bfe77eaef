# SPDX-License-Identifier: Apache-2.0
"""Evidence that is good but for one thing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.model.evidence import Bound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.errors import ImagersError
    from imagers.model.strict_json import JSON

__all__ = [
    "BOUND",
    "BOUND_ALONE",
    "COULD_NOT_LOOK",
    "INIT_DATA",
    "MALFORMED",
    "NO",
    "REPORT_DATA",
    "Wrong",
]

REPORT_DATA, INIT_DATA = b"n" * 48, b"i" * 32
BOUND = Bound(REPORT_DATA, INIT_DATA)
"""What the good evidence binds."""
BOUND_ALONE = Bound(REPORT_DATA)
"""The same of a TEE that has no field for init data."""
NO, COULD_NOT_LOOK, MALFORMED = EvidenceRejected, CouldNotVerify, FormatError


@dataclass(frozen=True, slots=True)
class Wrong:
    """Evidence with one thing wrong, to be judged at the world's `now`.

    Attributes:
        name: of what is wrong.
        step: that has to refuse it, number and name as its verifier has them; "" where it cannot
            even be read, or a document cannot.
        body: the evidence.
        collateral: by names.
        roots: in place of the vendor's; None: it has none.
        error: of the refusal.
        bound: what it has to bind.
    """

    name: str
    step: str
    body: JSON = field(repr=False)
    collateral: Mapping[str, bytes] = field(repr=False)
    roots: bytes | None = field(repr=False)
    error: type[ImagersError] = NO
    bound: Bound = BOUND
