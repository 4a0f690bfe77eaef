# SPDX-License-Identifier: Apache-2.0
"""Evidence of what a machine is, and the Protocols of those who give and judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from imagers.model.strict_json import JSON

__all__ = ["Attester", "Claims", "Evidence", "ReportData", "Verifier"]


@dataclass(frozen=True, slots=True)
class ReportData:
    """The digest that evidence binds: of the nonce and of the guest's public key.

    Attributes:
        digest: raw hash value, 48 bytes with the protocol's default SHA-384; each TEE
            pads or cuts it to its own field.
    """

    digest: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a TEE says of itself. It prints as its kind: the body can be large and identifying.

    Attributes:
        tee: the name on the wire, such as `snp` or `sample`.
        body: the JSON value that the protocol carries as `primary_evidence`.
        report_data: what it claims to bind.
    """

    tee: str
    body: JSON
    report_data: ReportData

    def __repr__(self) -> str:
        return f"Evidence(tee={self.tee!r})"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verifier established of one piece of evidence, and when.

    Attributes:
        tee: as in the evidence.
        tee_class: `cpu` or `gpu`: the submodule of the token that they go to.
        values: claims of that TEE, JSON values.
        established_at: aware time.
        instance: which machine the evidence is of, in a form that it cannot choose, such as
            the id of its chip; "" where the TEE tells none. A broker bounds sessions by it.
    """

    tee: str
    tee_class: str
    values: Mapping[str, JSON]
    established_at: datetime
    instance: str = ""


@runtime_checkable
class Attester(Protocol):
    """Collects evidence of this machine."""

    @property
    def tee(self) -> str:
        """The name on the wire."""

    def collect(self, report_data: ReportData) -> Evidence:
        """Fresh evidence that binds `report_data`.

        Raises:
            NoTEE: this machine is none of that kind.
        """


@runtime_checkable
class Verifier(Protocol):
    """Judges evidence of one kind of TEE."""

    @property
    def tee(self) -> str:
        """The name on the wire."""

    def verify(self, body: JSON, *, report_data: ReportData, now: datetime) -> Claims:
        """The claims, if the evidence is genuine and binds `report_data`.

        Raises:
            EvidenceRejected: it is not.
            FormatError: it is not evidence of this kind.
        """
