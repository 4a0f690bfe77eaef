# SPDX-License-Identifier: Apache-2.0
"""usage: imagers attest verify --tee snp FILE [OPTION]...
       imagers attest collateral WORD, with a help of its own

Says whether evidence of a machine is genuine, step by step, without any network
and without a broker. A genuine machine is anybody's who rents one: compare the
measurement with that of your own guest. The exit code is 0 for yes, 40 for no,
22 if it could not be looked up, 11 for what is no evidence.

  FILE                        of AMD SEV-SNP: the report, as the guest's device
                              gives it (1184 bytes), or the JSON of the protocol
                              of key brokers
  --tee NAME                  snp
  --certificate FILE          VCEK or VLEK of the key that signed, DER or PEM,
                              if FILE has none
  --crl FILE                  list of revoked certificates of the product, DER:
                              https://kdsintf.amd.com/vcek/v1/PRODUCT/crl for
                              a VCEK, with vlek in place of vcek for a VLEK
  --without-crl               do not ask for one; the claims say so
  --report-data HEX           what the report must bind, padded with zeros
  --init-data HEX             digest that host_data must have, padded with zeros
  --allow-debug, --allow-migration-agent
                              do not refuse guests whose policy allows these
  --at TIME                   RFC 3339; default: now
  --insecure-test-root FILE   certificates ASK, ARK and ASVK in PEM in place of
                              AMD's: for tests only
  --json                      the steps and the claims as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers attest verify --tee snp report.bin --certificate vcek.der \\
    --crl crl.der
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, VerbGroup, blamed_on, json_option
from imagers.cli.output import error_facts, print_json, print_line, print_table, say, telling
from imagers.cli.words import attest_collateral
from imagers.errors import CouldNotVerify, ImagersError, UsageError

if TYPE_CHECKING:
    from imagers.model.strict_json import JSON

__all__ = ["command"]

_MAX_BYTES = 1024 * 1024  # of one file


@click.group("attest", cls=VerbGroup, help=__doc__)
def command() -> None:
    """See the module."""


command.add_command(attest_collateral.command)


@command.command("verify", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--tee", type=click.Choice(["snp"]), required=True)
@click.option("--certificate", metavar="FILE")
@click.option("--crl", metavar="FILE")
@click.option("--without-crl", is_flag=True)
@click.option("--report-data", metavar="HEX")
@click.option("--init-data", metavar="HEX")
@click.option("--allow-debug", is_flag=True)
@click.option("--allow-migration-agent", is_flag=True)
@click.option("--at", metavar="TIME")
@click.option("--insecure-test-root", "test_root", metavar="FILE")
@json_option
def verify(
    *,
    file: str,
    tee: str,
    certificate: str | None,
    crl: str | None,
    without_crl: bool,
    report_data: str | None,
    init_data: str | None,
    allow_debug: bool,
    allow_migration_agent: bool,
    at: str | None,
    test_root: str | None,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.evidence.judge import judge_parsed
    from imagers.evidence.snp.verify import Allowed, SNPVerifier, parse_file
    from imagers.model.evidence import Bound

    bound = Bound(_hex("--report-data", report_data, 64), _hex("--init-data", init_data, 32))
    now = _time(at)
    evidence = parse_file(_read(file), None if certificate is None else _read(certificate))
    if test_root is not None:
        say("warning", "certificates for tests stand for AMD's: this proves nothing")
    steps: list[str] = []
    values: dict[str, JSON] = {}
    error: ImagersError | None = None
    try:
        verifier = SNPVerifier(
            Allowed(
                debug=allow_debug, migration_agent=allow_migration_agent, without_crl=without_crl
            ),
            None if test_root is None else _read(test_root),
        )
        claims = judge_parsed(
            verifier,
            evidence,
            bound=bound,
            read=lambda name: None if crl is None or not name.endswith(".crl") else _read(crl),
            now=now,
            note=steps.append,
        )
        values = dict(claims.values)
    except ImagersError as refusal:
        error = refusal
    with telling(error):
        if as_json:
            answer = "yes" if error is None else "no"
            if isinstance(error, CouldNotVerify):
                answer = "could not look"
            facts: dict[str, object] = {"tee": tee, "answer": answer, "steps": steps}
            print_json(
                facts | ({"claims": values} if error is None else {"error": error_facts(error)})
            )
        else:
            for step in steps:
                print_line(f"yes: {step}")
            if error is None:
                print_table(
                    ["claim", "value"], [[name, str(value)] for name, value in values.items()]
                )


def _read(path: str) -> bytes:
    from imagers.files import read_bounded

    return read_bounded(path, max_bytes=_MAX_BYTES)


def _hex(option: str, text: str | None, most: int) -> bytes | None:
    if text is None:
        return None
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{option}: expected hex, got {text[:80]!r}") from None
    if len(data) > most:
        raise UsageError(f"{option}: expected at most {most} bytes, got {len(data)}")
    return data


def _time(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    with blamed_on("--at"):
        try:
            when = datetime.fromisoformat(text)
            if when.tzinfo is not None:
                return when.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        raise UsageError(f"--at: expected a time as 2026-11-29T12:00:00Z, got {text[:80]!r}")
