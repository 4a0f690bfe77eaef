# SPDX-License-Identifier: Apache-2.0
"""Whether evidence of a machine of Azure on Intel TDX is genuine, and what it says. No IO.

    verifier = AzureTDXVerifier()
    evidence = verifier.parse(body)

The steps are those of `vtpm`; step 5 is all of `imagers.evidence.tdx.verify`, with Intel's
documents: 5.1 chain to 5.12 bound. The report in the HCL report (TDREPORT) is for machines on the
same processor; of it only the report data is compared, and the quote that was made of it counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import FormatError
from imagers.evidence.azure.vtpm import HCL_TDX, MAX_JSON, VTPMQuote, parse_parts
from imagers.evidence.intel.quote import TDX, Quote, parse_quote
from imagers.evidence.steps import steps_of
from imagers.evidence.tdx.verify import TDXEvidence, TDXVerifier
from imagers.evidence.tpm.quote import BOOT_CHAIN, parse_pcr_settings, values_by_name
from imagers.evidence.tpm.structures import PCRS
from imagers.model.evidence import Bound, Claims
from imagers.model.strict_json import View, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Self

    from imagers.model.evidence import Verifier
    from imagers.model.strict_json import JSON

__all__ = ["REPORT_DATA", "AzureTDXEvidence", "AzureTDXVerifier", "parse", "parse_file"]

_WHAT = "Azure TDX evidence"
_MEASUREMENT, _PREFIX = "mr_td", "tdx_pcr"  # reference values of Trustee
REPORT_DATA = slice(128, 192)
"""Of the TDREPORT."""
_TDREPORT_BYTES = 1024


@dataclass(frozen=True, slots=True)
class AzureTDXEvidence:
    """What a guest sent, read and not verified."""

    vtpm: VTPMQuote
    hardware: TDXEvidence

    @property
    def quote(self) -> Quote:
        """Of the hardware: what vendors of collateral ask by."""
        return self.hardware.quote


def parse(body: JSON) -> AzureTDXEvidence:
    """The evidence in the JSON of the protocol: version 1 or 2, or the one without.

    Raises:
        FormatError: it is none.
    """
    names = ("tpm_quote", "hcl_report", "td_quote")
    vtpm, quote = parse_parts(body, names, what=_WHAT)
    if vtpm.hcl.kind != HCL_TDX:
        raise FormatError("expected an HCL report of TDX, got one of SNP", what=_WHAT)
    if any(vtpm.hcl.hardware[_TDREPORT_BYTES:]):
        raise FormatError("expected zeros behind the TDREPORT", what=_WHAT)
    return AzureTDXEvidence(vtpm, TDXEvidence(parse_quote(quote, tee=TDX)))


def parse_file(data: bytes) -> AzureTDXEvidence:
    """The evidence in a file: the protocol's JSON.

    Raises:
        FormatError: it is something else.
    """
    return parse(parse_json(data, what=_WHAT, max_bytes=MAX_JSON))


@dataclass(frozen=True, slots=True)
class AzureTDXVerifier:
    """Judges evidence of Azure's machines on Intel TDX.

    Attributes:
        hardware: who judges the quote of the hardware.
        registers: that know a machine, beside the measurement of the paravisor.
    """

    hardware: TDXVerifier = field(default_factory=TDXVerifier)
    registers: tuple[int, ...] = BOOT_CHAIN
    tee: ClassVar[str] = "az-tdx-vtpm"

    @property
    def references(self) -> tuple[tuple[str, ...], ...]:
        """See `Verifier`."""
        return ((_MEASUREMENT, *(f"{_PREFIX}{at:02}" for at in self.registers)),)

    @classmethod
    def make(cls, settings: View, roots: bytes | None) -> Self:
        """A verifier with the settings of an appraisal.

            {"pcrs": [4, 11], "tdx": {"crl": "optional"}}

        Raises:
            FormatError: something else stands there.
        """
        settings.only("pcrs", "tdx")
        hardware = (
            settings.object("tdx") if "tdx" in settings else View({}, what="settings for tdx")
        )
        return cls(TDXVerifier.make(hardware, roots), parse_pcr_settings(settings))

    def parse(self, body: JSON) -> AzureTDXEvidence:
        """See `Verifier`."""
        return parse(body)

    def wanted(self, evidence: AzureTDXEvidence) -> tuple[str, ...]:
        """See `Verifier`: what the quote of the hardware needs."""
        return self.hardware.wanted(evidence.hardware)

    def verify(
        self,
        evidence: AzureTDXEvidence,
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
        vtpm.check_variable_data(
            vtpm.hcl.hardware[REPORT_DATA], evidence.quote.octets("report_data"), note=note
        )
        with steps_of(5, note) as told:
            claims = self.hardware.verify(
                evidence.hardware,
                bound=Bound(report_data=vtpm.hcl.bound),
                collateral=collateral,
                now=now,
                note=told,
            )
        vtpm.check_bound(bound, note)
        (way,) = claims.measured
        others = [at for at in range(PCRS) if at not in self.registers]
        return replace(
            claims,
            tee=self.tee,
            maker=f"{claims.maker}, with Azure's paravisor",
            measured=(
                {_MEASUREMENT: way[_MEASUREMENT]}
                | values_by_name(vtpm.values, _PREFIX, self.registers),
            ),
            # First: what it calls its own stands in place of nothing of the hardware's.
            configured=vtpm.hcl.configuration
            | {name: one for name, one in way.items() if name != _MEASUREMENT}
            | dict(claims.configured)
            | values_by_name(vtpm.values, _PREFIX, others),
            report_data=vtpm.report_data,
            init_data=vtpm.init_data,
            values={**claims.values, **vtpm.claims},
        )


if TYPE_CHECKING:
    _verifier: Verifier[AzureTDXEvidence] = AzureTDXVerifier()
