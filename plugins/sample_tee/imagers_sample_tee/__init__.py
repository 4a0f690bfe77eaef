# SPDX-License-Identifier: Apache-2.0
"""The sample TEE and the sample device: evidence that anybody can make, for demonstrations.

    {"svn": "1", "report_data": base64 of the report data}

It shows that the messages of a handshake fit together, and nothing about the machine: a
broker must be told to take it.

Spec: Trustee key broker protocol 0.4.0, TEEs `sample` and `sampledevice`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagers.errors import EvidenceRejected
from imagers.model.base64 import encode_base64
from imagers.model.evidence import (
    Attester,
    Bound,
    Claims,
    DeviceVerifier,
    Evidence,
    ReportData,
    Verifier,
)
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from imagers.model.strict_json import JSON, JSONObject

__all__ = ["SampleAttester", "SampleDeviceAttester", "SampleDeviceVerifier", "SampleVerifier"]

_WHAT = "sample evidence"


class SampleAttester:
    """Makes evidence without hardware."""

    tee = "sample"

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`; never raises `NoTEE`, because it needs none."""
        body: JSONObject = {"svn": "1", "report_data": encode_base64(report_data.digest)}
        return Evidence(tee=self.tee, body=body, report_data=report_data)


class SampleDeviceAttester(SampleAttester):
    """The same of a device."""

    tee = "sampledevice"


@dataclass(frozen=True, slots=True)
class SampleEvidence:
    """What a guest sent."""

    svn: str
    report_data: bytes


class SampleVerifier:
    """Checks that the evidence binds the report data; there is nothing else to check."""

    tee = "sample"
    references: tuple[tuple[str, ...], ...] = (("launch_digest",),)

    def parse(self, body: JSON) -> SampleEvidence:
        """See `Verifier`."""
        view = View(body, what=_WHAT)
        return SampleEvidence(view.text("svn"), view.bytes64("report_data"))

    def wanted(self, evidence: SampleEvidence) -> tuple[str, ...]:  # noqa: ARG002  # the Protocol's
        """See `Verifier`: nothing."""
        return ()

    def verify(
        self,
        evidence: SampleEvidence,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],  # noqa: ARG002  # the Protocol's
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """See `Verifier`."""
        expected = bound.report_data
        if expected is not None and not hmac.compare_digest(evidence.report_data, expected):
            raise EvidenceRejected(
                f"{_WHAT}: is bound to other report data than this handshake's",
                hint="evidence cannot be used twice, nor with another key",
            )
        note("report data: as expected; nothing else was looked at")
        return self._claims(evidence, now)

    def _claims(self, evidence: SampleEvidence, now: datetime) -> Claims:
        # The same claims as Trustee's verifier, so that policies for it read alike.
        return Claims(
            tee=self.tee,
            tee_class="cpu",
            maker="nobody",
            measured=({"launch_digest": "abcde"},),
            tcb_status="Unproven",  # so that no token says better of it
            debug=False,
            report_data=evidence.report_data.hex(),
            values={
                "svn": evidence.svn[:80],
                "launch_digest": "abcde",
                "platform_version": {"major": 1, "minor": 4},
                "debug": False,
            },
            established_at=now,
        )


class SampleDeviceVerifier(SampleVerifier):
    """The same of a device."""

    tee = "sampledevice"
    references = ()

    def split(self, body: JSON) -> tuple[JSON, ...]:
        """See `DeviceVerifier`: it is one."""
        return (body,)

    def _claims(self, evidence: SampleEvidence, now: datetime) -> Claims:
        return replace(
            super()._claims(evidence, now),
            tee_class="gpu",
            measured=(),
            values={"svn": evidence.svn[:80]},
        )


if TYPE_CHECKING:
    _attester: Attester = SampleAttester()
    _verifier: Verifier[SampleEvidence] = SampleVerifier()
    _device: DeviceVerifier[SampleEvidence] = SampleDeviceVerifier()
