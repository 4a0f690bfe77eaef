# SPDX-License-Identifier: Apache-2.0
"""The one way from evidence to claims: parse, wanted, collateral, verify.

    claims = judge_evidence(verifier, body, bound=bound, read=directory.read, now=now)

Reading collateral is the one step with IO; `read` does it, and a `RemoteVerifier` that asks a
service for its part. What it gives is trusted for nothing:
each document is verified each time, and one that is older than one that was believed before is
refused, so that nobody brings back a list in which his certificate is not yet revoked.

That evidence is genuine says nothing of whose machine it is: `appraise_claims` does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from imagers.errors import CouldNotVerify
from imagers.evidence.steps import FETCH_NEWEST
from imagers.model.evidence import Bound, Claims, Verifier
from imagers.model.strict_json import JSON

__all__ = ["judge_evidence", "judge_parsed"]

Parsed = TypeVar("Parsed")


def judge_evidence(
    verifier: Verifier[Parsed],
    body: JSON,
    *,
    bound: Bound,
    read: Callable[[str], bytes | None],
    now: datetime,
    seen: Callable[[str], int | None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> Claims:
    """What evidence of the protocol says, if it is genuine.

    Args:
        body: `primary_evidence`.
        read: the document of a name, or None: there is none.
        now: aware.
        seen: the highest number or time of a name in `Claims.collateral` so far, or None.
        note: is told each step that holds.

    Raises:
        EvidenceRejected: a step says no.
        CouldNotVerify: a document is missing, not valid now, or older than one before.
        FormatError: evidence or a document cannot be read.
    """
    return judge_parsed(
        verifier, verifier.parse(body), bound=bound, read=read, now=now, seen=seen, note=note
    )


def judge_parsed(
    verifier: Verifier[Parsed],
    evidence: Parsed,
    *,
    bound: Bound,
    read: Callable[[str], bytes | None],
    now: datetime,
    seen: Callable[[str], int | None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> Claims:
    """As `judge_evidence`, of evidence that was read before, from a file for one."""
    found = {name: read(name) for name in verifier.wanted(evidence)}
    collateral = {name: data for name, data in found.items() if data is not None}
    if hasattr(verifier, "ask"):  # `RemoteVerifier`: isinstance would take longer than to judge
        collateral |= verifier.ask(evidence, bound)
    claims = verifier.verify(evidence, bound=bound, collateral=collateral, now=now, note=note)
    for name, number in claims.collateral.items():
        least = seen(name)
        if least is not None and number < least:
            raise CouldNotVerify(
                f"collateral {name}: expected at least {least}, as was seen before, got {number}",
                hint=FETCH_NEWEST,
            )
    return claims
