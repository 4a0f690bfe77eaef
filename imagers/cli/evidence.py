# SPDX-License-Identifier: Apache-2.0
"""Evidence that a user names, looked at: who made it, whose it is, and why not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagers.cli.command import blamed_on
from imagers.cli.output import error_facts, print_json, print_line, print_table
from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError, ImagersError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from imagers.evidence.appraise import Appraisal, Comparison
    from imagers.evidence.policy import AppraisalPolicy
    from imagers.model.evidence import Bound, Claims
    from imagers.model.references import ReferenceValue

__all__ = [
    "MAX_EVIDENCE",
    "MAX_ROOTS",
    "EvidenceQuestion",
    "Outcome",
    "find_collateral",
    "parse_evidence",
    "parse_hex",
    "parse_time",
]

MAX_EVIDENCE = 6 * 1024 * 1024
"""Bytes of a file: evidence with an event log."""
MAX_ROOTS = 256 * 1024
"""Bytes of a file: certificates for tests."""
_AHEAD = re.compile(r"([0-9]{1,6})([hd])\Z")
_SECONDS = {"h": 3600, "d": 86400}
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceQuestion:
    """How evidence is to be looked at.

    Attributes:
        tee: None: its content tells.
        certificate: of the key that signed, where the evidence lacks it.
        collateral: a directory; None: the user's.
        test_root: a file with certificates in place of the vendor's.
    """

    tee: str | None
    certificate: str | None
    collateral: str | None
    bound: Bound
    now: datetime
    test_root: str | None

    def ask(self, file: str, *, reference: str | None, policy: str | None) -> Outcome:
        """Look at the evidence in a file, and compare it.

        Args:
            reference, policy: files; None: nobody said what is wanted.

        Raises:
            ImagersError: a file cannot be read, or is not what it has to be. What the evidence
                itself says is in the outcome.
        """
        from imagers.evidence.appraise import appraise_claims
        from imagers.evidence.judge import judge_parsed
        from imagers.evidence.plugins import load_verifier

        tee, evidence, bound = self._read_evidence(file)
        demands = _read_policy(policy)
        roots = None if self.test_root is None else _read(self.test_root)
        verifier = load_verifier(tee, settings=demands.settings.get(tee), roots=roots)
        outcome = Outcome(tee)
        try:
            outcome.claims = judge_parsed(
                verifier,
                evidence,
                bound=bound,
                read=self._reader(),
                now=self.now,
                note=outcome.steps.append,
            )
        except ImagersError as error:
            outcome.error = error
            return outcome
        if reference is None and policy is None and outcome.claims.counts_if_measured:
            outcome.error = CouldNotVerify(
                "what this evidence says counts only where its measurement equals a reference "
                "value, and none was given",
                hint="--reference FILE, of values that are not from this evidence",
            )
        if reference is not None or policy is not None:
            wanted = (*demands.references, *_read_references(reference))
            references = {one.name: one for one in wanted}
            outcome.appraisal = appraise_claims(outcome.claims, references, now=self.now)
            if not outcome.appraisal.is_affirming:
                outcome.error = EvidenceRejected(
                    f"the evidence is genuine, and the guest is not yours: "
                    f"{outcome.appraisal.status}",
                    hint=_first_remedy(outcome.appraisal.misses),
                )
        return outcome

    def _read_evidence(self, file: str) -> tuple[str, Any, Bound]:
        """The TEE, the evidence as its verifier takes it, and what it has to bind."""
        data = _read(file)
        if self.certificate is not None:
            return self._read_snp(data)
        tee, evidence, bound = parse_evidence(data, tee=self.tee, what=file, at=self.now)
        if bound is None:
            return tee, evidence, self.bound
        if self.bound.report_data is not None:
            raise UsageError(
                "--report-data is for evidence that is in no certificate: this one binds its key"
            )
        return tee, evidence, replace(self.bound, report_data=bound)

    def _read_snp(self, data: bytes) -> tuple[str, Any, Bound]:
        """A report and its certificate, which are in two files."""
        if self.tee not in (None, "snp"):
            raise UsageError("--certificate is for evidence of the TEE snp")
        from imagers.evidence.snp.verify import parse_file

        with blamed_on("--certificate"):
            return "snp", parse_file(data, _read(self.certificate or "")), self.bound

    def _reader(self) -> Callable[[str], bytes | None]:
        from imagers.evidence.collateral.directory import CollateralDirectory

        directory = find_collateral(self.collateral)
        return (lambda _: None) if directory is None else CollateralDirectory(directory).read


def _read_policy(path: str | None) -> AppraisalPolicy:
    from imagers.evidence.policy import AppraisalPolicy, parse_appraisal_policy

    if path is None:
        return AppraisalPolicy({}, ())
    return parse_appraisal_policy(_read(path), what=path)


def _read_references(path: str | None) -> tuple[ReferenceValue, ...]:
    from imagers.model.references import parse_references

    return () if path is None else parse_references(_read(path), what=path)


@dataclass(slots=True)
class Outcome:
    """What there is to say of evidence.

    Attributes:
        steps: that hold.
        claims: None: a step did not hold.
        appraisal: None: a step did not hold, or nobody said what is wanted.
        error: why the answer is not yes.
    """

    tee: str
    steps: list[str] = field(default_factory=list)
    claims: Claims | None = None
    appraisal: Appraisal | None = None
    error: ImagersError | None = None

    @property
    def answer(self) -> str:
        """In the words of `verify --explain`."""
        if self.error is None:
            return "yes"
        return "no" if isinstance(self.error, EvidenceRejected) else "could not look"

    def facts(self) -> dict[str, object]:
        """For programs."""
        from imagers.evidence.claims import claims_to_json

        facts: dict[str, object] = {"tee": self.tee, "answer": self.answer, "steps": self.steps}
        if self.claims is not None:
            facts |= {"claims": claims_to_json(self.claims), "values": dict(self.claims.values)}
        if self.appraisal is not None:
            facts["appraisal"] = {
                "status": self.appraisal.status,
                "vector": dict(self.appraisal.vector),
                "comparisons": [_comparison_facts(one) for one in self.appraisal.comparisons],
            }
        if self.error is not None:
            facts["error"] = error_facts(self.error)
            if isinstance(self.error, EvidenceRejected | CouldNotVerify) and self.error.step:
                facts["refused"] = self._refused_facts(self.error)
        return facts

    def print(self, *, as_json: bool, whole: bool = True) -> None:
        """On standard output.

        Args:
            whole: else only what does not hold.
        """
        if as_json:
            print_json(self.facts())
            return
        for answer, depth, text in self._lines():
            if whole or answer != "yes":
                print_line(f"{'  ' * depth}{answer:<3}  {text}")
        if whole and self.claims is not None:
            from imagers.model.references import as_word

            rows = [[name, as_word(value)] for name, value in _shown_claims(self.claims).items()]
            print_table(["claim", "value"], rows)

    def _lines(self) -> Iterator[tuple[str, int, str]]:
        from imagers.model.references import as_word

        genuine = "yes" if self.claims is not None else self.answer
        maker = "" if self.claims is None else f": {self.claims.maker}"
        yield genuine, 0, f"genuine evidence of the TEE {self.tee}{maker}"
        for step in self.steps:
            yield "yes", 1, step
        if self.claims is None:
            yield self.answer, 1, str(self.error)
            if self.error is not None and self.error.hint:
                yield "", 2, self.error.hint
        if self.appraisal is None:
            if self.claims is not None and self.error is not None:
                yield self.answer, 0, str(self.error)
            return
        yield self.answer, 0, f"a guest of yours: {self.appraisal.status}"
        for one in self.appraisal.comparisons:
            if one.holds:
                source = f" (from {one.source})" if one.source else ""
                yield "yes", 1, f"{one.member}: {one.claim} is {as_word(one.found)}{source}"
            else:
                yield "no", 1, f"{one.member}: {one.told(remedy=False)}"
                yield "", 2, one.remedy

    @staticmethod
    def _refused_facts(error: EvidenceRejected | CouldNotVerify) -> dict[str, object]:
        facts: dict[str, object] = {"step": error.step}
        if isinstance(error, EvidenceRejected):
            facts |= {
                "claim": error.claim or None,
                "expected": error.expected or None,
                "found": error.found or None,
            }
        return facts


def _comparison_facts(one: Comparison) -> dict[str, object]:
    return {
        "member": one.member,
        "claim": one.claim,
        "holds": one.holds,
        "found": one.found,
        "wanted": list(one.wanted),
        "source": one.source or None,
        "why": one.why or None,
        "remedy": one.remedy or None,
    }


def _shown_claims(claims: Claims) -> Mapping[str, object]:
    """What people look for first, and then the rest."""
    shown: dict[str, object] = {}
    for way in claims.measured:
        shown |= way
    if claims.tcb_status:
        shown["tcb_status"] = claims.tcb_status
    if claims.advisories:
        shown["advisories"] = ", ".join(claims.advisories)
    return shown | {
        name: value
        for name, value in claims.values.items()
        if value is not None and not isinstance(value, list | dict)
    }


def parse_evidence(
    data: bytes, *, tee: str | None, what: str, at: datetime | None = None
) -> tuple[str, Any, bytes | None]:
    """The content of a file: the TEE, the evidence as its verifier takes it, and what it must bind.

    The latter is None but for evidence in a certificate, which has to be for its key.

    Args:
        tee: None: the content tells.
        what: the file, for messages.
        at: when a certificate has to be valid; None: whenever.

    Raises:
        FormatError: it is evidence of no TEE of the house, or not of this one.
        EvidenceRejected: it is a certificate, and not valid, or has no evidence for its key.
        UsageError: there is no such TEE, or the evidence is of another one.
    """
    from imagers.evidence.plugins import read_evidence

    if not data.isascii() or data.lstrip()[:1] == b"{" or _CERTIFICATE not in data:
        return *read_evidence(data, tee=tee, what=what), None
    from asn1crypto.pem import unarmor

    from imagers.evidence.ratls import read_ratls

    try:
        _, _, der = unarmor(data)
    except ValueError:
        raise FormatError("expected a certificate in PEM", what=what) from None
    found = read_ratls(der)
    if at is not None:
        found.check_time(at)
    if tee not in (None, found.tee):
        raise UsageError(f"expected evidence of the TEE {tee!r}, got {found.tee!r}")
    return found.tee, found.evidence, found.report_data


def find_collateral(given: str | None) -> Path | None:
    """The directory of collateral: the one that was given, else the user's, if there is one."""
    from imagers.settings import read_settings

    if given is not None:
        return Path(given)
    own = read_settings().collateral
    return own if own.is_dir() else None


def _first_remedy(misses: Sequence[Comparison]) -> str | None:
    """What would admit the guest; that it takes more than one is said."""
    first, *others = [one.remedy for one in misses if one.remedy] or [""]
    more = f", and {len(others)} more above" if others else ""
    return f"{first}{more}" or None


def read_test_roots(words: tuple[str, ...]) -> dict[str, bytes]:
    """Certificates by the name of a TEE, from words TEE=FILE of an option.

    Raises:
        UsageError: a word is none, or there are two of one TEE.
        LocalError: a file cannot be read.
    """
    from imagers.files import read_bounded

    roots = {}
    for word in words:
        tee, equals, path = word.partition("=")
        if not equals or not path or tee in roots:
            raise UsageError(f"--insecure-test-root: expected TEE=FILE once a TEE, got {word!r}")
        roots[tee] = read_bounded(path, max_bytes=MAX_ROOTS)
    return roots


def _read(path: str) -> bytes:
    from imagers.files import read_bounded

    return read_bounded(path, max_bytes=MAX_EVIDENCE)


def parse_hex(option: str, text: str | None, most: int) -> bytes | None:
    """The bytes of an option.

    Raises:
        UsageError: it is not hex, or too long.
    """
    if text is None:
        return None
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{option}: expected hex, got {text[:80]!r}") from None
    if len(data) > most:
        raise UsageError(f"{option}: expected at most {most} bytes, got {len(data)}")
    return data


def parse_time(option: str, text: str | None) -> datetime:
    """The time of an option; None: now.

    Raises:
        UsageError: it is none, or has no zone.
    """
    if text is None:
        return datetime.now(UTC)
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is not None:
            return when.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"{option}: expected a time as 2026-11-29T12:00:00Z, got {text[:80]!r}")


def parse_time_ahead(option: str, text: str) -> datetime:
    """The time of an option, or how far ahead it is, in whole seconds.

    Raises:
        UsageError: it is neither.
    """
    ahead = _AHEAD.match(text)
    if ahead is None:
        return parse_time(option, text).replace(microsecond=0)
    seconds = int(ahead[1]) * _SECONDS[ahead[2]]
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
