# SPDX-License-Identifier: Apache-2.0
"""What all worlds have and do, and the attester of a guest in one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from imagers.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from imagers.model.evidence import Attester, ReportData
    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.wrongs.wrong import Wrong

__all__ = ["Guest", "Vendor", "World"]


class World(Protocol):
    """A vendor, and one machine of it."""

    @property
    def tee(self) -> str:
        """The name on the wire."""

    @property
    def now(self) -> datetime:
        """A time at which all is valid."""

    @property
    def measurement(self) -> bytes:
        """Of the guest whose evidence names no other."""

    @property
    def roots(self) -> bytes | None:
        """PEM: what a verifier takes in place of the vendor's certificates; None: it has none."""

    def collateral(self) -> Mapping[str, bytes]:
        """All documents that a verifier may want, by their names."""

    def evidence(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes = b"",
        init_data: bytes = b"",
        **fields: Any,
    ) -> dict[str, JSON]:
        """Good evidence in the JSON of the protocol, made anew.

        Args:
            measurement: None: the world's.
            init_data: digest of the init data.
            fields: of what the hardware signs, and others, as the world has them.
        """

    def wrongs(self) -> Iterator[Wrong]:
        """Evidence with one thing wrong, for each thing that can be: all has to be refused."""

    def raw_files(self, evidence: JSON) -> Mapping[str, bytes]:
        """Evidence as the guest's device gives it, by names of files."""


@dataclass(frozen=True, slots=True)
class Guest:
    """Makes evidence of a guest in a world, fresh for each report data: an `Attester`.

    Attributes:
        measurement, init_data, fields: as in `World.evidence`.
    """

    world: World
    measurement: bytes | None = None
    init_data: bytes = b""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tee(self) -> str:
        """See `Attester`."""
        return self.world.tee

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`."""
        body = self.world.evidence(
            measurement=self.measurement,
            report_data=report_data.digest,
            init_data=self.init_data,
            **self.fields,
        )
        return Evidence(tee=self.tee, body=body, report_data=report_data)


class Vendor:
    """What all worlds do alike."""

    def attester(
        self: World, *, measurement: bytes | None = None, init_data: bytes = b"", **fields: Any
    ) -> Guest:
        """A guest on the machine; the arguments are those of `World.evidence`."""
        return Guest(self, measurement, init_data, fields)


if TYPE_CHECKING:

    def _attester(guest: Guest) -> Attester:
        return guest
