# SPDX-License-Identifier: Apache-2.0
"""usage: imagers attest evidence [OPTION]...

Prints evidence of this machine, as the protocol of key brokers carries it, for
"imagers attest verify" and for whoever has to know what this machine is. It is
fresh, and proves nothing to anybody who did not choose the report data. The
exit code is 40 where this machine is no TEE; then it is said which were looked
for, and where.

AMD SEV-SNP is asked through configfs-tsm or /dev/sev-guest; Intel TDX through
configfs-tsm, with the event log of firmware and agent; Arm CCA through
configfs-tsm; Intel SGX through /dev/attestation of Gramine; Hygon CSV through
/dev/csv-guest; AWS Nitro through /dev/nsm; machines of Azure (az-snp-vtpm,
az-tdx-vtpm) through their vTPM; a TPM 2.0 through /dev/tpmrm0 where it has a
key ("imagers attest ak"). Reading them is for root.

  --tee NAME                  of this machine, such as snp, or a plugin's;
                              default: the one that it is
  --report-data HEX           what the evidence is to bind, at most 64 bytes;
                              default: zeros
  --json                      with the name of the TEE and the report data
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers attest evidence --report-data c0ffee
"""

from __future__ import annotations

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.output import print_json

__all__ = ["command"]

_REPORT_DATA = 64


@click.command("evidence", cls=VerbCommand, help=__doc__)
@click.option("--tee", metavar="NAME")
@click.option("--report-data", metavar="HEX", default="00")
@json_option
def command(*, tee: str | None, report_data: str, as_json: bool) -> None:
    """Print evidence of this machine."""
    from imagers.cli.evidence import parse_hex
    from imagers.cli.machine import attester_of_machine
    from imagers.model.evidence import ReportData

    digest = parse_hex("--report-data", report_data, _REPORT_DATA) or b""
    evidence = attester_of_machine(tee).collect(ReportData(digest))
    if as_json:
        facts = {"tee": evidence.tee, "report_data": digest.hex(), "evidence": evidence.body}
        print_json(facts)
    else:
        print_json(evidence.body)
