# SPDX-License-Identifier: Apache-2.0
"""Numbered steps of a verification, and refusals that say which one it was.

    with step("6, signature"):
        if algorithm != wanted:
            raise mismatch("algorithm", wanted, algorithm)

ends as `step 6, signature: algorithm: expected 1, got 2`. The numbers are those of the module that
verifies; they are stable, and tables of tests and programs rest on them.
"""

from __future__ import annotations

from contextlib import contextmanager
from hmac import compare_digest
from typing import TYPE_CHECKING

from imagers.errors import CouldNotVerify, EvidenceRejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.model.strict_json import View

__all__ = ["check_bound", "is_crl_optional", "mismatch", "step"]


def mismatch(
    claim: str, expected: object, found: object, *, hint: str | None = None
) -> EvidenceRejected:
    """The refusal of a claim that is not what it has to be.

    Args:
        hint: the smallest change that would admit it.
    """
    return EvidenceRejected(
        f"{claim}: expected {expected}, got {found}",
        claim=claim,
        expected=str(expected),
        found=str(found),
        hint=hint,
    )


@contextmanager
def step(name: str) -> Iterator[None]:
    """A block whose refusals say that it was this step.

    Args:
        name: number and name, such as `6, signature`.
    """
    try:
        yield
    except (EvidenceRejected, CouldNotVerify) as error:
        error.enter_step(name)
        raise


def check_bound(claim: str, digest: bytes | None, found: bytes) -> str:
    """Raise unless a field holds the digest, with zeros behind it or cut to its length.

    Args:
        digest: None: whatever is there.

    Returns:
        What was compared, for a note.

    Spec: Trustee key broker protocol 0.4.0, report data and init data.
    """
    if digest is None:
        return f"{claim} not compared"
    expected = digest[: len(found)].ljust(len(found), b"\0")
    if not compare_digest(found, expected):
        raise mismatch(claim, expected.hex(), found.hex())
    return f"{claim} as expected"


def is_crl_optional(settings: View) -> bool:
    """Whether the settings of an appraisal do without lists of revoked certificates.

    Raises:
        FormatError: `crl` is neither `required` nor `optional`.
    """
    word = settings.optional_text("crl") or "required"
    if word not in ("required", "optional"):
        raise settings.error(f"expected 'required' or 'optional', got {word[:40]!r}", "crl")
    return word == "optional"
