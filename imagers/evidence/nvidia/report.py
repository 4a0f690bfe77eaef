# SPDX-License-Identifier: Apache-2.0
"""The attestation report of an NVIDIA GPU: a request for measurements, and the answer to it.

    request   0x11 (SPDM 1.1), 0xE0, attributes, 0xFF (all), nonce 32, slot          37 bytes
    answer    0x11, 0x60, 1, 1, number of blocks 1, length of the record 3
              record: for each block  number 1, 1 (DMTF), size 2, type 1, size 2, digest 48
              nonce 32, length 2, opaque data: for each field  type 2, size 2, value
              r 48, s 48

Numbers are little-endian but for r and s. The signature is over all before it, by ECDSA on P-384
with SHA-384. Some drivers put a zero behind it.

Spec: DMTF DSP0274 1.1.0, sections 10.11; NVIDIA's verifier (nvtrust) for the opaque data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BLOCKS", "FIELDS", "MAX_REPORT", "Report", "parse_report"]

MAX_REPORT = 0x2000  # of NVML
BLOCKS = 64
"""How many measurements a Hopper has, numbered from 1."""
_REQUEST, _NONCE, _SIGNATURE, _DIGEST = 37, 32, 96, 48
_VERSION, _GET_MEASUREMENTS, _MEASUREMENTS = 0x11, 0xE0, 0x60
_SIGNED, _ALL = 0x01, 0xFF
_DMTF, _FIRMWARE = 1, 1
_WHAT = "GPU report"
FIELDS = {
    "driver_version": 3,
    "gpu_info": 4,
    "vbios_version": 6,
    "nvdec0_status": 11,
    "measurement_count": 12,
    "cpr_info": 13,
    "board_id": 14,
    "chip_sku": 15,
    "chip_sku_mod": 16,
    "project": 17,
    "project_sku": 18,
    "project_sku_mod": 19,
    "fwid": 20,
    "protected_pcie_status": 21,
}
"""Fields of the opaque data."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report. Nothing of it is verified.

    Attributes:
        nonce: of the request.
        measurements: by number; zeros where there is none.
        opaque: fields by their type.
        signed: what the signature is over.
        signature: r and s.
    """

    nonce: bytes
    measurements: Mapping[int, bytes] = field(repr=False)
    opaque: Mapping[int, bytes] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: tuple[int, int] = field(repr=False)

    def octets(self, name: str) -> bytes:
        """A field of the opaque data.

        Raises:
            FormatError: there is none.
        """
        found = self.opaque.get(FIELDS[name])
        if found is None:
            raise FormatError(f"has no {name}", what=_WHAT)
        return found

    def text(self, name: str) -> str:
        """A field that is text.

        Raises:
            FormatError: there is none, or it has something else in it.
        """
        text = self.octets(name).rstrip(b"\0").decode("ascii", "replace")
        if not text.isascii() or not text.isprintable() or len(text) > 100:
            raise FormatError(f"expected text in {name}", what=_WHAT)
        return text

    @property
    def vbios_version(self) -> str:
        """As NVIDIA writes it, such as `96.00.9f.00.01`.

        Raises:
            FormatError: there is none.
        """
        found = self.octets("vbios_version")
        if len(found) != 8:
            raise FormatError("expected 8 bytes in vbios_version", what=_WHAT)
        return ".".join(f"{one:02x}" for one in (*found[3::-1], found[4]))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise FormatError(f"is cut off at {len(self.data)} bytes", what=_WHAT)
        self.at += size
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")


def parse_report(data: bytes) -> Report:
    """The report in the bytes that NVML gives.

    Raises:
        FormatError: it is none, or has something else in it.
    """
    if len(data) > MAX_REPORT:
        raise FormatError(f"expected at most {MAX_REPORT} bytes, got {len(data)}", what=_WHAT)
    reader = _Reader(bytes(data))
    head = reader.take(4)
    nonce = reader.take(_NONCE)
    reader.take(1)  # the slot of the certificate
    if head != bytes((_VERSION, _GET_MEASUREMENTS, _SIGNED, _ALL)):
        raise FormatError("expected a signed request for all measurements", what=_WHAT)
    version, code = reader.number(1), reader.number(1)
    reader.take(2)
    if (version, code) != (_VERSION, _MEASUREMENTS):
        raise FormatError(
            f"expected measurements of SPDM 1.1, got {version:#x} {code:#x}", what=_WHAT
        )
    count = reader.number(1)
    measurements = _measurements(reader.take(reader.number(3)), count)
    reader.take(_NONCE)
    opaque = _opaque(reader.take(reader.number(2)))
    signed = reader.data[: reader.at]
    signature = reader.take(_SIGNATURE)
    if reader.data[reader.at :] not in (b"", b"\0"):
        raise FormatError("has something behind its signature", what=_WHAT)
    return Report(
        nonce,
        measurements,
        opaque,
        signed,
        (int.from_bytes(signature[:_DIGEST]), int.from_bytes(signature[_DIGEST:])),
    )


def _measurements(record: bytes, count: int) -> dict[int, bytes]:
    reader = _Reader(record)
    found: dict[int, bytes] = {}
    for _ in range(count):
        number, spec, size = reader.number(1), reader.number(1), reader.number(2)
        kind, length = reader.number(1), reader.number(2)
        if (spec, size, kind, length) != (_DMTF, 3 + _DIGEST, _FIRMWARE, _DIGEST):
            raise FormatError(f"expected a digest of 48 bytes in block {number}", what=_WHAT)
        if number in found:
            raise FormatError(f"has the block {number} twice", what=_WHAT)
        found[number] = reader.take(length)
    if reader.at != len(record) or sorted(found) != list(range(1, BLOCKS + 1)):
        raise FormatError(f"expected the blocks 1 to {BLOCKS}", what=_WHAT)
    return found


def _opaque(data: bytes) -> dict[int, bytes]:
    reader = _Reader(data)
    found: dict[int, bytes] = {}
    while reader.at < len(data):
        kind = reader.number(2)
        if kind in found:
            raise FormatError(f"has the field {kind} twice", what=_WHAT)
        found[kind] = reader.take(reader.number(2))
    return found
