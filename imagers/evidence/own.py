# SPDX-License-Identifier: Apache-2.0
"""Whether this very machine was started with an init data document. No IO.

    check_own_init_data(attester.collect(ReportData(bytes(64))), document.digest)

A guest asks that of its own hardware before it believes a document that its host handed over. The
evidence comes from the machine's own device and needs no signature here; what others are to believe
is for a verifier.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from imagers.errors import Unsupported
from imagers.evidence.init_data import FIELDS, digest_for
from imagers.evidence.plugins import load_verifier
from imagers.evidence.steps import mismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.evidence import Evidence

__all__ = ["check_own_init_data"]

_PCR = 8
_OF: dict[str, Callable[[Any], bytes]] = {
    "snp": lambda found: found.report.octets("host_data"),
    "tdx": lambda found: found.quote.octets("mr_config_id"),
    "tpm": lambda found: found.values[_PCR],
}
"""Where parsed evidence of a TEE has it."""


def check_own_init_data(evidence: Evidence, digest: bytes) -> None:
    """Raise unless the machine that gave the evidence was started with this document.

    Args:
        digest: of the document, as `InitData` has it.

    Raises:
        Unsupported: it cannot be told for this TEE.
        EvidenceRejected: it was started with another one, or with none.
    """
    if evidence.tee not in _OF:
        raise Unsupported(
            f"whether the init data is that of this machine cannot be told for the TEE "
            f"{evidence.tee!r}: expected one of {', '.join(_OF)}"
        )
    found = _OF[evidence.tee](load_verifier(evidence.tee).parse(evidence.body))
    expected = digest_for(evidence.tee, digest)
    if not compare_digest(expected, found):
        field, _ = FIELDS[evidence.tee]
        raise mismatch(
            f"init data: {field} of this machine",
            expected.hex(),
            found.hex(),
            hint="the document is not the one that this machine was started with",
        )
