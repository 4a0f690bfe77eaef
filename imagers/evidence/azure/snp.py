# SPDX-License-Identifier: Apache-2.0
"""Whether evidence of a machine of Azure on AMD SEV-SNP is genuine, and what it says. No IO.

    verifier = AzureSNPVerifier()
    evidence = verifier.parse(body)

The steps are those of `vtpm`; step 5 is all of `imagers.evidence.snp.verify`: 5.1 product to 5.8
bound. The paravisor is at VMPL 0; a report that the guest itself could ask for is of another level.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import FormatError
from imagers.evidence.azure.vtpm import HCL_SNP, MAX_JSON, VTPMQuote, parse_parts
from imagers.evidence.snp.certificates import parse_leaf
from imagers.evidence.snp.report import parse_report
from imagers.evidence.snp.verify import SNPEvidence, SNPVerifier
from imagers.evidence.steps import steps_of
from imagers.evidence.tpm.quote import BOOT_CHAIN, parse_pcr_settings, values_by_name
from imagers.evidence.tpm.structures import PCRS
from imagers.model.base64 import encode_base64
from imagers.model.evidence import Bound, Claims
from imagers.model.strict_json import View, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Self

    from imagers.evidence.snp.report import Report
    from imagers.model.evidence import Verifier
    from imagers.model.strict_json import JSON

__all__ = ["AzureSNPEvidence", "AzureSNPVerifier", "parse", "parse_file"]

_WHAT = "Azure SNP evidence"
_MEASUREMENT, _PREFIX = "measurement", "snp_pcr"  # reference values of Trustee
# What Trustee names otherwise for machines of Azure.
_NAMES = {
    "snp_bootloader": "tcb_bootloader",
    "snp_microcode": "tcb_microcode",
    "snp_snp_svn": "tcb_snp",
    "snp_tee_svn": "tcb_tee",
    "snp_guest_abi_major": "abi_major",
    "snp_guest_abi_minor": "abi_minor",
}


@dataclass(frozen=True, slots=True)
class AzureSNPEvidence:
    """What a guest sent, read and not verified."""

    vtpm: VTPMQuote
    hardware: SNPEvidence

    @property
    def report(self) -> Report:
        """Of the hardware: what vendors of collateral ask by."""
        return self.hardware.report


def parse(body: JSON) -> AzureSNPEvidence:
    """The evidence in the JSON of the protocol: version 1 or 2, or the one without.

    Raises:
        FormatError: it is none.
    """
    vtpm, vcek = parse_parts(body, ("quote", "report", "vcek"), what=_WHAT)
    if vtpm.hcl.kind != HCL_SNP:
        raise FormatError("expected an HCL report of SNP, got one of TDX", what=_WHAT)
    hardware = SNPEvidence(parse_report(vtpm.hcl.hardware), parse_leaf(vcek, what="VCEK"))
    return AzureSNPEvidence(vtpm, hardware)


def parse_file(data: bytes) -> AzureSNPEvidence:
    """The evidence in a file: the protocol's JSON.

    Raises:
        FormatError: it is something else.
    """
    return parse(parse_json(data, what=_WHAT, max_bytes=MAX_JSON))


@dataclass(frozen=True, slots=True)
class AzureSNPVerifier:
    """Judges evidence of Azure's machines on AMD SEV-SNP.

    Attributes:
        hardware: who judges the report of the hardware.
        registers: that know a machine, beside the measurement of the paravisor.
    """

    hardware: SNPVerifier = field(default_factory=SNPVerifier)
    registers: tuple[int, ...] = BOOT_CHAIN
    tee: ClassVar[str] = "az-snp-vtpm"

    @property
    def references(self) -> tuple[tuple[str, ...], ...]:
        """See `Verifier`."""
        return ((_MEASUREMENT, *(f"{_PREFIX}{at:02}" for at in self.registers)),)

    @classmethod
    def make(cls, settings: View, roots: bytes | None) -> Self:
        """A verifier with the settings of an appraisal.

            {"pcrs": [4, 11], "snp": {"crl": "optional"}}

        Raises:
            FormatError: something else stands there.
        """
        settings.only("pcrs", "snp")
        hardware = (
            settings.object("snp") if "snp" in settings else View({}, what="settings for snp")
        )
        return cls(SNPVerifier.make(hardware, roots), parse_pcr_settings(settings))

    def parse(self, body: JSON) -> AzureSNPEvidence:
        """See `Verifier`."""
        return parse(body)

    def wanted(self, evidence: AzureSNPEvidence) -> tuple[str, ...]:
        """See `Verifier`: what the report of the hardware needs."""
        return self.hardware.wanted(evidence.hardware)

    def verify(
        self,
        evidence: AzureSNPEvidence,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """See `Verifier`.

        Raises:
            EvidenceRejected: a step says no.
            CouldNotVerify: a document is missing or out of date.
            FormatError: a document cannot be read.
        """
        vtpm = evidence.vtpm
        vtpm.check_quote(note)
        vtpm.check_variable_data(evidence.report.octets("report_data"), note=note)
        with steps_of(5, note) as told:
            claims = self.hardware.verify(
                evidence.hardware,
                bound=Bound(report_data=vtpm.hcl.bound),
                collateral=collateral,
                now=now,
                note=told,
            )
        vtpm.check_bound(bound, note)
        measurement = encode_base64(evidence.report.octets("measurement"))
        others = [at for at in range(PCRS) if at not in self.registers]
        return replace(
            claims,
            tee=self.tee,
            maker=f"{claims.maker}, with Azure's paravisor",
            measured=(
                {_MEASUREMENT: measurement} | values_by_name(vtpm.values, _PREFIX, self.registers),
            ),
            firmware=_renamed(claims.firmware),
            # First: what it calls its own stands in place of nothing of the hardware's.
            configured=vtpm.hcl.configuration
            | _renamed(claims.configured)
            | values_by_name(vtpm.values, _PREFIX, others),
            report_data=vtpm.report_data,
            init_data=vtpm.init_data,
            values={**claims.values, **vtpm.claims, "measurement": measurement},
        )


def _renamed(claims: Mapping[str, JSON]) -> dict[str, JSON]:
    return {_NAMES.get(name, name.removeprefix("snp_")): one for name, one in claims.items()}


if TYPE_CHECKING:
    _verifier: Verifier[AzureSNPEvidence] = AzureSNPVerifier()
