# SPDX-License-Identifier: Apache-2.0
"""A machine for tests as a JSON file says it, so that a command can be one.

    {"tee": "snp", "seed": hex, "product": "Genoa", "measurement": hex, "init_data": hex}

The TEE is one of `TEES`; the product is one of AMD's. The seed has 32 bytes, and all keys come from
it. What else may be left out: the product is `Genoa` then, the measurement the world's, and the
init data zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from imagers.testing.evidence.azure import AzureSNPWorld, AzureTDXWorld
from imagers.testing.evidence.cca import CCAWorld
from imagers.testing.evidence.csv import CSVWorld
from imagers.testing.evidence.guests import Guest, World
from imagers.testing.evidence.keys import SEED_BYTES
from imagers.testing.evidence.nitro import NitroWorld
from imagers.testing.evidence.nvidia import NVIDIAWorld
from imagers.testing.evidence.sgx import SGXWorld
from imagers.testing.evidence.snp import SNPWorld
from imagers.testing.evidence.tdx import TDXWorld
from imagers.testing.evidence.tpm import TPMWorld

if TYPE_CHECKING:
    from datetime import datetime

    from imagers.model.evidence import Attester
    from imagers.model.strict_json import JSON, View

__all__ = ["PRODUCTS", "TEES", "Machine"]

TEES = {
    "az-snp-vtpm": (32, 64),
    "az-tdx-vtpm": (32, 64),
    "cca": (32, 64),
    "csv": (32, 0),
    "nitro": (48, 0),
    "nvidia": (48, 0),
    "sgx": (32, 64),
    "snp": (48, 32),
    "tdx": (48, 48),
    "tpm": (32, 64),
}
"""The TEEs that there are: length of a measurement, and of init data at most; 0: none."""
_WORLDS: dict[str, Callable[..., World]] = {
    "az-snp-vtpm": AzureSNPWorld,
    "az-tdx-vtpm": AzureTDXWorld,
    "cca": CCAWorld,
    "csv": CSVWorld,
    "nitro": NitroWorld,
    "nvidia": NVIDIAWorld,
    "sgx": SGXWorld,
    "tdx": TDXWorld,
    "tpm": TPMWorld,
}
PRODUCTS = ("Milan", "Genoa", "Turin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A guest of a world, and what it runs. It prints without its seed.

    Attributes:
        measurement: None: the world's.
        init_data: digest of the init data.
    """

    tee: str
    seed: bytes = field(repr=False)
    product: str = "Genoa"
    measurement: bytes | None = None
    init_data: bytes = b""

    @classmethod
    def parse(cls, view: View) -> Self:
        """What a file says.

        Raises:
            FormatError: it does not say which machine, or something that is not known.
        """
        view.only("tee", "seed", "product", "measurement", "init_data")
        tee = view.text("tee")
        if tee not in TEES:
            raise view.error(f"expected one of {', '.join(TEES)}, got {tee[:40]!r}", "tee")
        measurement, init = TEES[tee]
        product = view.optional_text("product") or "Genoa"
        if product not in PRODUCTS:
            raise view.error(f"expected one of {', '.join(PRODUCTS)}", "product")
        given: dict[str, bytes] = {}
        if "measurement" in view:
            given["measurement"] = _octets(view, "measurement", measurement)
        if "init_data" in view and not init:
            raise view.error(f"expected none: {tee} binds none", "init_data")
        if "init_data" in view:
            given["init_data"] = _octets(view, "init_data", *range(1, init + 1))
        seed = _octets(view, "seed", SEED_BYTES)
        return cls(tee=tee, seed=seed, product=product, **given)

    def to_json(self) -> dict[str, JSON]:
        """What `parse` reads. The seed is in it."""
        document: dict[str, JSON] = {
            "tee": self.tee,
            "seed": self.seed.hex(),
            "product": self.product,
        }
        if self.measurement is not None:
            document["measurement"] = self.measurement.hex()
        if self.init_data:
            document["init_data"] = self.init_data.hex()
        return document

    def world(self, now: datetime | None = None) -> World:
        """The vendor of the machine.

        Args:
            now: as in the world; None: the current time.
        """
        if self.tee == "snp":
            return SNPWorld(self.seed, self.product, now=now)
        return _WORLDS[self.tee](self.seed, now=now)

    def attester(self, now: datetime | None = None) -> Attester:
        """What makes its evidence."""
        return Guest(self.world(now), self.measurement, self.init_data)


def _octets(view: View, name: str, *sizes: int) -> bytes:
    try:
        value = bytes.fromhex(view.text(name))
    except ValueError:
        value = b""
    if len(value) not in sizes:
        most = "at most " if len(sizes) > 1 else ""
        raise view.error(f"expected {most}{sizes[-1]} bytes in hex", name)
    return value
