# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker policy test FILE --claims FILE [OPTION]...
       imagers broker policy test FILE --evidence FILE [OPTION]...

Says what a policy would decide, by which rule and why, and what it saw of the
guest; no broker is asked. The exit code is 0 for yes, 21 for no, 11 for what is
no policy. FILE is a table, or a text in Rego that begins with "package policy":
a resource policy, with a rule "allow", or an attestation policy, with a rule
"trust_claims", which says yes where all evidence is affirming.

  --claims FILE               of a guest: the claims of its token, decoded, or
                              what "imagers attest verify --json" prints
  --evidence FILE             of a guest, as for "imagers attest verify"
  --reference FILE            reference values, as "imagers broker
                              reference-value list --json" prints them; a token
                              has its worth in itself, else it is by these

  of a resource policy:
  --resource URI              that is asked for
  --image DIGEST              that the guest names
  --bound DIGEST              that the resource is bound to (repeat it)
  --approvals N               that each of these has

  --at TIME                   RFC 3339; default: now
  --tee NAME, --certificate FILE, --collateral DIR, --insecure-test-root FILE
                              of the evidence, as for "imagers attest verify"
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker policy test policy.rego --claims token.json \\
    --resource kbs:///default/app/key
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, blamed_on, json_option
from imagers.cli.output import print_json, print_line, print_table, telling
from imagers.errors import FormatError, PolicyDenied, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from imagers.broker.policy.trial import Trial, TriedGuest, TriedRequest
    from imagers.cli.evidence import EvidenceQuestion
    from imagers.model.evidence import Claims
    from imagers.model.references import ReferenceValue
    from imagers.model.strict_json import JSON

__all__ = ["command"]

_MAX_CLAIMS = 6 * 1024 * 1024
_MAX_APPROVALS = 16  # that of `imagers.broker.policy.table`, which needs the extra
_MAX_SHOWN = 60  # characters of a value


@click.command("test", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--claims", metavar="FILE")
@click.option("--evidence", metavar="FILE")
@click.option("--reference", metavar="FILE")
@click.option("--resource", metavar="URI")
@click.option("--image", metavar="DIGEST")
@click.option("--bound", multiple=True, metavar="DIGEST")
@click.option("--approvals", type=click.IntRange(0, _MAX_APPROVALS), default=0)
@click.option("--at", metavar="TIME")
@click.option("--tee", metavar="NAME")
@click.option("--certificate", metavar="FILE")
@click.option("--collateral", metavar="DIR")
@click.option("--insecure-test-root", "test_root", metavar="FILE")
@json_option
def command(
    *,
    file: str,
    claims: str | None,
    evidence: str | None,
    reference: str | None,
    resource: str | None,
    image: str | None,
    bound: tuple[str, ...],
    approvals: int,
    at: str | None,
    tee: str | None,
    certificate: str | None,
    collateral: str | None,
    test_root: str | None,
    as_json: bool,
) -> None:
    """Say what a policy would decide."""
    from imagers.broker.policy.trial import guest_of_evidence, try_policy
    from imagers.cli.evidence import EvidenceQuestion, parse_time
    from imagers.model.evidence import Bound

    if (claims is None) == (evidence is None):
        raise UsageError("expected one of --claims and --evidence")
    now = parse_time("--at", at)
    text = _read_text(file)
    references = _read_references(reference)
    if claims is not None:
        guest = _read_claims(claims, references, now)
    else:
        assert evidence is not None  # of the two one is there
        question = EvidenceQuestion(
            tee=tee,
            certificate=certificate,
            collateral=collateral,
            bound=Bound(),
            now=now,
            test_root=test_root,
        )
        guest = guest_of_evidence(_judge(question, evidence), references, now=now)
    request = _request(resource, image, bound, approvals)
    trial = asyncio.run(try_policy(text, guest, request, what=file))
    denied = None if trial.allow else PolicyDenied(_why(trial))
    with telling(denied):
        if as_json:
            print_json(_facts(trial))
        else:
            _print(trial)


def _read_text(file: str) -> str:
    from imagers.broker.policy.table import MAX_POLICY_BYTES
    from imagers.files import read_bounded

    try:
        return read_bounded(file, max_bytes=MAX_POLICY_BYTES).decode()
    except UnicodeDecodeError:
        raise FormatError("is not UTF-8", what=file) from None


def _read_references(file: str | None) -> tuple[ReferenceValue, ...]:
    from imagers.files import read_bounded
    from imagers.model.references import MAX_REFERENCES_BYTES, parse_references

    if file is None:
        return ()
    return parse_references(read_bounded(file, max_bytes=MAX_REFERENCES_BYTES), what=file)


def _read_claims(file: str, references: Sequence[ReferenceValue], now: datetime) -> TriedGuest:
    from imagers.broker.policy.trial import guest_of_evidence, guest_of_token
    from imagers.evidence.claims import claims_from_json
    from imagers.files import read_bounded
    from imagers.model.strict_json import View

    view = View.parse(read_bounded(file, max_bytes=_MAX_CLAIMS), what=file, max_bytes=_MAX_CLAIMS)
    if "submods" in view:
        return guest_of_token(view, references, now=now)
    if "claims" not in view:
        raise view.error(
            "expected the claims of a token, or what 'imagers attest verify --json' prints"
        )
    claims = claims_from_json(view.object("claims"), view.object("values").value)
    return guest_of_evidence(claims, references, now=now)


def _judge(question: EvidenceQuestion, file: str) -> Claims:
    outcome = question.ask(file, reference=None, policy=None)
    if outcome.claims is None:
        assert outcome.error is not None  # a step did not hold
        raise outcome.error
    return outcome.claims


def _request(
    resource: str | None,
    image: str | None,
    bound: tuple[str, ...],
    approvals: int,
) -> TriedRequest | None:
    from imagers.broker.policy.trial import TriedRequest
    from imagers.kbs.resources import parse_resource_path
    from imagers.model.digest import parse_digest

    if resource is None:
        return None
    with blamed_on("--resource"):
        path = parse_resource_path(resource.removeprefix("kbs:///"))
    with blamed_on("--image"):
        named = None if image is None else parse_digest(image, what="digest")
    with blamed_on("--bound"):
        bindings = tuple(parse_digest(one, what="digest") for one in bound)
    query = {} if image is None else {"image-digest": image}
    return TriedRequest(path, image=named, bindings=bindings, approvals=approvals, query=query)


def _why(trial: Trial) -> str:
    if trial.kind == "attestation":
        worth = ", ".join(f"{name} {one.status}" for name, one in trial.worth.items())
        return trial.reason or f"the evidence is not affirming: {worth or 'there is none'}"
    rule = f"rule '{trial.rule}': " if trial.rule and trial.kind == "resource" else ""
    return rule + (trial.reason or "the policy does not allow it, and gives no reason")


def _print(trial: Trial) -> None:
    if trial.kind == "attestation":
        for name, one in trial.worth.items():
            print_line(f"{name} is {one.status}")
            for member, value in one.vector.items():
                print_line(f"  {member} {value}")
    elif trial.allow:
        rule = f"rule '{trial.rule}'" if trial.rule else "the policy"
        print_line(f"yes, {rule} allows it" + (f": {trial.reason}" if trial.reason else ""))
    rows = [[path, value] for path, value in _leaves("", trial.seen)]
    rows += [[path, "(not there)"] for path in trial.absent]
    if rows:
        print_table(["seen", "value"], rows)
    elif trial.kind != "table":
        print_line("the policy looks at nothing of the guest")


def _leaves(path: str, value: JSON) -> Iterator[tuple[str, str]]:
    """All that is in a value, by path."""
    if isinstance(value, dict) and value:
        for name, one in value.items():
            yield from _leaves(f"{path}.{name}" if path else name, one)
    elif isinstance(value, list) and value:
        for index, one in enumerate(value):
            yield from _leaves(f"{path}[{index}]", one)
    else:
        from imagers.model.strict_json import dump_json

        shown = value if isinstance(value, str) else dump_json(value).decode()
        yield path, shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."


def _facts(trial: Trial) -> dict[str, object]:
    return {
        "answer": "yes" if trial.allow else "no",
        "kind": trial.kind,
        "rule": trial.rule or None,
        "reason": trial.reason or None,
        "fault": trial.fault or None,
        "worth": [
            {"submod": name, "status": one.status, "vector": dict(one.vector)}
            for name, one in trial.worth.items()
        ],
        "seen": trial.seen,
        "absent": list(trial.absent),
    }
