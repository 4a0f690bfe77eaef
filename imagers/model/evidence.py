# SPDX-License-Identifier: Apache-2.0
"""Evidence of what a machine is, and the Protocols of those who give and judge it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from imagers.model.strict_json import JSON

__all__ = [
    "Attester",
    "Bound",
    "Claims",
    "DeviceVerifier",
    "Evidence",
    "Measure",
    "RemoteVerifier",
    "ReportData",
    "Verifier",
]


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
class Bound:
    """What evidence has to bind; each TEE pads or cuts it to its own field.

    Attributes:
        report_data: the digest, as `ReportData` has it; None: whatever is there.
        init_data: digest of the init data; None: whatever is there.
    """

    report_data: bytes | None = None
    init_data: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a verifier established of one piece of evidence, and when: one schema for all TEEs.

    Claims that are compared with reference values have the names of those.

    Attributes:
        tee: as in the evidence.
        tee_class: `cpu` or `gpu`: the submodule of the token that they go to.
        maker: who vouches for it, such as `AMD, VCEK of a Genoa`.
        measured: what the machine runs. Each mapping is one way to know it as one's own: all of
            its claims must have reference values and equal one.
        firmware: versions below the guest; those that have reference values must equal one.
        configured: how the guest was started; those that have reference values must equal one.
        tcb_status: the vendor's word for the firmware, as Intel writes it; "" where there is none.
        advisories: of the vendor, that its status rests on.
        debug: whether others can look into the guest.
        report_data: hex, as it stands in the evidence.
        init_data: hex, as it stands in the evidence; "" where the TEE has none.
        values: what else it says, by the names that Trustee gives them; JSON values.
        collateral: number or time of each document that was believed, by its name: no older
            one is believed afterwards.
        established_at: aware time.
        instance: which machine the evidence is of, in a form that it cannot choose, such as
            the id of its chip; "" where the TEE tells none. A broker bounds sessions by it.
        counts_if_measured: others can make such evidence, or change all that it says at once:
            nothing of it may be believed, report data and debugging included, unless its
            `measured` equals reference values of the operator's.
        test_root: roots for tests stood in place of the vendor's: it proves nothing.
    """

    tee: str
    tee_class: str
    maker: str
    measured: tuple[Mapping[str, JSON], ...]
    firmware: Mapping[str, JSON] = field(default_factory=dict)
    configured: Mapping[str, JSON] = field(default_factory=dict)
    tcb_status: str = ""
    advisories: tuple[str, ...] = ()
    debug: bool
    report_data: str
    init_data: str = ""
    values: Mapping[str, JSON]
    collateral: Mapping[str, int] = field(default_factory=dict)
    established_at: datetime
    instance: str = field(default="", repr=False)
    counts_if_measured: bool = False
    test_root: bool = False


class Measure(Protocol):
    """Puts what happens in a guest into a register that its evidence has."""

    def record(self, operation: str, content: JSON) -> None:
        """Measure one event, unless the register has it already.

        Args:
            operation: what happened, in one word.
            content: with what; no secrets, and of one form for one meaning: it is hashed.

        Raises:
            ImagersError: it is not measured; whatever it is about must not happen.
        """


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


Parsed = TypeVar("Parsed")


@runtime_checkable
class Verifier(Protocol[Parsed]):
    """Judges evidence of one kind of TEE. It does no IO and reads no clock.

    Which roots it trusts and what it lets pass is said where it is made.
    """

    @property
    def tee(self) -> str:
        """The name on the wire."""

    @property
    def references(self) -> tuple[tuple[str, ...], ...]:
        """The names of `Claims.measured`.

        Without reference values for all names of one of the tuples, no guest of this TEE is known
        as one's own.
        """

    def parse(self, body: JSON) -> Parsed:
        """The evidence, read and not verified.

        Raises:
            FormatError: it is not evidence of this kind.
        """

    def wanted(self, evidence: Parsed) -> tuple[str, ...]:
        """The names of the documents that `verify` needs beside the evidence.

        A name is a path without `..`, such as `snp/Genoa/vcek.crl`.

        Raises:
            EvidenceRejected, FormatError: the evidence does not say which.
        """

    def verify(
        self,
        evidence: Parsed,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """What the evidence says, if every step holds.

        Args:
            collateral: by the names of `wanted`; what could not be read is not in it.
            now: aware.
            note: is told each step that holds.

        Raises:
            EvidenceRejected: a step says no.
            CouldNotVerify: a document is missing, or not valid now.
            FormatError: a document is none.
        """


@runtime_checkable
class DeviceVerifier(Verifier[Parsed], Protocol[Parsed]):
    """Judges evidence of a device of a machine, such as a GPU.

    It comes beside that of the machine's TEE, which binds it, and is never taken alone.
    """

    def split(self, body: JSON) -> tuple[JSON, ...]:
        """The evidence of each device in `body`, in the form that `parse` takes.

        Raises:
            FormatError: there is none, or too many, or one twice.
        """


@runtime_checkable
class RemoteVerifier(Verifier[Parsed], Protocol[Parsed]):
    """Judges by what a service says of the evidence: collateral that has to be asked for.

    `verify` believes nothing of it that is not signed, and does no IO.
    """

    def ask(self, evidence: Parsed, bound: Bound) -> Mapping[str, bytes]:
        """What the service says, by names, for `verify`. This alone does IO.

        Raises:
            CouldNotVerify: it said nothing.
        """
