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
    from collections.abc import Callable, Iterator

    from imagers.model.evidence import Bound
    from imagers.model.strict_json import View

__all__ = ["FETCH_NEWEST", "check_bound", "is_crl_optional", "mismatch", "step", "steps_of"]

FETCH_NEWEST = "'imagers attest collateral fetch' gets the newest"
"""The hint for a document that is out of date."""


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


@contextmanager
def steps_of(number: int, note: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """A block with steps of another verifier, which are parts of step `number`; who notes them.

    Its step 2 is told as 5.2, if the number is 5.
    """
    try:
        yield lambda line: note(line.replace("step ", f"step {number}.", 1))
    except (EvidenceRejected, CouldNotVerify) as error:
        error.is_part_of(number)
        raise


def check_bound(
    bound: Bound, *, report_data: bytes, init_data: bytes | None = None, field: str = ""
) -> str:
    """Raise unless report data and init data in the evidence are the expected ones.

    Each holds the digest, with zeros behind it or cut to its length.

    Args:
        init_data: None: this TEE binds none, and evidence that has to is refused.
        field: of the TEE, that holds the init data.

    Returns:
        What was compared, for a note.

    Spec: Trustee key broker protocol 0.4.0, report data and init data.
    """
    compared = [_compare("report data", bound.report_data, report_data)]
    if init_data is not None:
        compared.append(_compare(f"init data in {field}", bound.init_data, init_data))
    elif bound.init_data is not None:
        raise mismatch("init data", bound.init_data.hex(), "none: this TEE binds none")
    return ", ".join(compared)


def _compare(claim: str, digest: bytes | None, found: bytes) -> str:
    if digest is None:
        return f"{claim} not compared"
    if digest and not found:  # of no length nothing would be compared
        raise mismatch(claim, digest.hex(), "no field for it")
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
