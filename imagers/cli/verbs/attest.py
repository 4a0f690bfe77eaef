# SPDX-License-Identifier: Apache-2.0
"""usage: imagers attest verify FILE [OPTION]...
       imagers attest diff FILE POLICY [OPTION]...
       imagers attest evidence [OPTION]...
       imagers attest ratls CERTIFICATE KEY [OPTION]...
       imagers attest token FILE [OPTION]...
       imagers attest ak | collateral | reference | initdata WORD [OPTION]...

Says whether evidence of a machine is genuine, step by step, without any network
and without a broker; and, where you say what your guests are, whether it is of
one of them. A genuine machine is anybody's who rents one. The exit code is 0
for yes, 40 for no, 22 if it could not be looked up, 11 for what is no evidence.

diff shows only what is not as the policy wants it, where that value is from,
and the smallest change that would admit the guest.

  FILE                        evidence as the guest's device gives it, in the
                              JSON of the protocol of key brokers, or in a
                              certificate of RA-TLS in PEM
  POLICY                      as --policy of "verify"

  --reference FILE            of "verify": reference values, as "imagers broker
                              reference-value list --json" prints them
  --policy FILE               of "verify": reference values, and what to let
                              pass of each TEE, see docs/tee
  --tee NAME                  default: the content tells
  --certificate FILE          VCEK or VLEK of AMD, DER or PEM, if FILE has none
  --collateral DIR            what the verifier needs beside FILE; default:
                              ~/.local/state/imagers/collateral
  --report-data HEX           what it must bind, padded as its TEE does it
  --init-data HEX             digest of the init data that it must bind
  --at TIME                   RFC 3339; default: now
  --insecure-test-root FILE   certificates in PEM in place of the vendor's: for
                              tests only
  --json                      steps, claims and comparisons as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers attest verify report.bin --certificate vcek.der --reference ours.json
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, VerbGroup, json_option, option_group
from imagers.cli.output import say, telling
from imagers.cli.verbs import (
    attest_ak,
    attest_collateral,
    attest_evidence,
    attest_initdata,
    attest_ratls,
    attest_reference,
    attest_token,
)

if TYPE_CHECKING:
    from imagers.cli.evidence import EvidenceQuestion

__all__ = ["command"]

_REPORT_DATA = 64  # bytes, of the longest field of any TEE
_INIT_DATA = 64


@click.group("attest", cls=VerbGroup, help=__doc__)
def command() -> None:
    """See the module."""


for word in (
    attest_ak,
    attest_collateral,
    attest_evidence,
    attest_initdata,
    attest_ratls,
    attest_reference,
    attest_token,
):
    command.add_command(word.command)


def _question(
    *,
    tee: str | None,
    certificate: str | None,
    collateral: str | None,
    report_data: str | None,
    init_data: str | None,
    at: str | None,
    test_root: str | None,
) -> EvidenceQuestion:
    from imagers.cli.evidence import EvidenceQuestion, parse_hex, parse_time
    from imagers.model.evidence import Bound

    if test_root is not None:
        say("warning", "certificates for tests stand for the vendor's: this proves nothing")
    return EvidenceQuestion(
        tee=tee,
        certificate=certificate,
        collateral=collateral,
        bound=Bound(
            parse_hex("--report-data", report_data, _REPORT_DATA),
            parse_hex("--init-data", init_data, _INIT_DATA),
        ),
        now=parse_time("--at", at),
        test_root=test_root,
    )


_question_options = option_group(
    "question",
    _question,
    {
        "tee": click.option("--tee", metavar="NAME"),
        "certificate": click.option("--certificate", metavar="FILE"),
        "collateral": click.option("--collateral", metavar="DIR"),
        "report_data": click.option("--report-data", metavar="HEX"),
        "init_data": click.option("--init-data", metavar="HEX"),
        "at": click.option("--at", metavar="TIME"),
        "test_root": click.option("--insecure-test-root", "test_root", metavar="FILE"),
    },
)


@command.command("verify", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--reference", metavar="FILE")
@click.option("--policy", metavar="FILE")
@_question_options
@json_option
def verify(
    *,
    file: str,
    reference: str | None,
    policy: str | None,
    question: EvidenceQuestion,
    as_json: bool,
) -> None:
    """Say whether evidence is genuine, and whose."""
    outcome = question.ask(file, reference=reference, policy=policy)
    with telling(outcome.error):
        outcome.print(as_json=as_json)


@command.command("diff", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.argument("policy")
@_question_options
@json_option
def diff(*, file: str, policy: str, question: EvidenceQuestion, as_json: bool) -> None:
    """Show what is not as a policy wants it."""
    outcome = question.ask(file, reference=None, policy=policy)
    with telling(outcome.error):
        outcome.print(as_json=as_json, whole=False)
