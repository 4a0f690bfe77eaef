# SPDX-License-Identifier: Apache-2.0
"""The attestation report of AMD SEV-SNP, as the firmware signs it.

    0x000  version      4    0x004  guest_svn     4    0x008  policy          8
    0x010  family_id   16    0x020  image_id     16    0x030  vmpl            4
    0x034  sig_algo     4    0x038  current_tcb   8    0x040  plat_info       8
    0x048  key_info     4    0x050  report_data  64    0x090  measurement    48
    0x0C0  host_data   32    0x0E0  id_key_digest 48   0x110  author_key_digest 48
    0x140  report_id   32    0x160  report_id_ma 32    0x180  reported_tcb    8
    0x188  cpuid family, model, stepping, a byte each, from version 3 on
    0x1A0  chip_id     64    0x1E0  committed_tcb 8    0x1E8  current: build, minor, major
    0x1EC  committed: build, minor, major              0x1F0  launch_tcb      8
    0x1F8  launch_mit_vector 8, current_mit_vector 8, from version 5 on
    0x2A0  signature: r and s, 72 bytes each           0x4A0  end

Numbers are little-endian. The signature is over the first 0x2A0 bytes. The JSON of the protocol
has the fields and not the bytes, which are built again: what is reserved must be zero.

Spec: AMD SEV-SNP Firmware ABI Specification (56860) 1.58, table 23 and sections 4.3, 8.17.2; the
JSON: virtee/sev, `AttestationReport`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.strict_json import JSON

__all__ = [
    "MILAN",
    "PRODUCTS",
    "REPORT_BYTES",
    "SIGNED_BYTES",
    "TCB",
    "Product",
    "Report",
    "parse_report",
    "report_of_json",
    "report_to_json",
]

REPORT_BYTES = 0x4A0
SIGNED_BYTES = 0x2A0
_WHAT = "SNP report"
_VERSIONS = range(2, 6)
_COMPONENT_BYTES = 72  # of r and of s, of which 48 count
_P384_BYTES = 48

# Name in the JSON: offset and length. A length of at most 8 is a number.
_FIELDS = {
    "version": (0x000, 4),
    "guest_svn": (0x004, 4),
    "policy": (0x008, 8),
    "family_id": (0x010, 16),
    "image_id": (0x020, 16),
    "vmpl": (0x030, 4),
    "sig_algo": (0x034, 4),
    "plat_info": (0x040, 8),
    "key_info": (0x048, 4),
    "report_data": (0x050, 64),
    "measurement": (0x090, 48),
    "host_data": (0x0C0, 32),
    "id_key_digest": (0x0E0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "chip_id": (0x1A0, 64),
}
_CPUID = {"cpuid_fam_id": (0x188, 1), "cpuid_mod_id": (0x189, 1), "cpuid_step": (0x18A, 1)}
_MITIGATIONS = {"launch_mit_vector": (0x1F8, 8), "current_mit_vector": (0x200, 8)}
_TCBS = {
    "current_tcb": 0x038,
    "reported_tcb": 0x180,
    "committed_tcb": 0x1E0,
    "launch_tcb": 0x1F0,
}
_FIRMWARES = {"current": 0x1E8, "committed": 0x1EC}
_TCB_MEMBERS = ("fmc", "bootloader", "tee", "snp", "microcode")


@dataclass(frozen=True, slots=True)
class Product:
    """A generation of the processor.

    Attributes:
        name: as AMD's key distribution service writes it.
        tcb: place of each part in the eight bytes of a TCB version.
    """

    name: str
    tcb: Mapping[str, int]


_OLD_TCB = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_NEW_TCB = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
MILAN = Product("Milan", _OLD_TCB)
GENOA = Product("Genoa", _OLD_TCB)
TURIN = Product("Turin", _NEW_TCB)
PRODUCTS = {one.name: one for one in (MILAN, GENOA, TURIN)}


@dataclass(frozen=True, slots=True)
class TCB:
    """Versions of what the chip trusts, a byte each.

    Attributes:
        fmc: None where the product has none.
    """

    fmc: int | None
    bootloader: int
    tee: int
    snp: int
    microcode: int

    def is_below(self, other: TCB) -> str:
        """The first part in which this one is older than `other`; "" if none is."""
        for name in _TCB_MEMBERS:
            own, least = getattr(self, name), getattr(other, name)
            if least is not None and (own is None or own < least):
                return name
        return ""

    def __str__(self) -> str:
        parts = {name: getattr(self, name) for name in _TCB_MEMBERS}
        return ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)


@dataclass(frozen=True, slots=True)
class Report:
    """A report. Nothing of it is verified. It prints without its bytes, which have the chip's id.

    Attributes:
        raw: its `REPORT_BYTES` bytes.
    """

    raw: bytes = field(repr=False)

    def number(self, name: str) -> int:
        """A field that is a number."""
        offset, size = (_FIELDS | _CPUID | _MITIGATIONS)[name]
        return int.from_bytes(self.raw[offset : offset + size], "little")

    def octets(self, name: str) -> bytes:
        """A field that is bytes."""
        offset, size = _FIELDS[name]
        return self.raw[offset : offset + size]

    @property
    def signed(self) -> bytes:
        """What the signature is over."""
        return self.raw[:SIGNED_BYTES]

    @property
    def signature(self) -> tuple[int, int]:
        """The numbers r and s."""
        r, s = (
            int.from_bytes(self.raw[at : at + _COMPONENT_BYTES], "little")
            for at in (SIGNED_BYTES, SIGNED_BYTES + _COMPONENT_BYTES)
        )
        return r, s

    @property
    def product(self) -> Product | None:
        """What the chip is, from version 3 on; None: it does not say, or is unknown."""
        if self.number("version") < 3:
            return None
        return _product_of(self.number("cpuid_fam_id"), self.number("cpuid_mod_id"))

    def tcb(self, name: str, product: Product) -> TCB:
        """One of `current_tcb`, `reported_tcb`, `committed_tcb`, `launch_tcb`."""
        offset = _TCBS[name]
        parts = {part: self.raw[offset + at] for part, at in product.tcb.items()}
        return TCB(
            parts.get("fmc"), parts["bootloader"], parts["tee"], parts["snp"], parts["microcode"]
        )

    def firmware(self, name: str) -> tuple[int, int, int]:
        """Major, minor and build of `current` or `committed`."""
        build, minor, major = self.raw[_FIRMWARES[name] : _FIRMWARES[name] + 3]
        return major, minor, build


def _product_of(family: int, model: int) -> Product | None:
    if family == 0x19 and model <= 0x0F:
        return MILAN
    if family == 0x19 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return GENOA
    if family == 0x1A and model <= 0x11:
        return TURIN
    return None


def parse_report(raw: bytes) -> Report:
    """The report in the bytes that a guest's device gave.

    Raises:
        FormatError: another length, an unknown version, or something in what is reserved.
    """
    if len(raw) != REPORT_BYTES:
        raise FormatError(f"expected {REPORT_BYTES} bytes, got {len(raw)}", what=_WHAT)
    report = Report(bytes(raw))
    version = report.number("version")
    if version not in _VERSIONS:
        raise FormatError(
            f"expected a report of version {_VERSIONS.start} to {_VERSIONS.stop - 1}, "
            f"got version {version}",
            what=_WHAT,
        )
    spare = _spare(version)
    for start, end in zip(spare[::2], spare[1::2], strict=True):
        if any(raw[start:end]):
            raise FormatError(f"expected zeros in bytes {start:#x} to {end - 1:#x}", what=_WHAT)
    return report


def _spare(version: int) -> list[int]:
    """Where nothing may stand: begin and end of each part."""
    used = [*_FIELDS.values(), *((at, 8) for at in _TCBS.values())]
    used += [(at, 3) for at in _FIRMWARES.values()]
    used += [(SIGNED_BYTES, _P384_BYTES), (SIGNED_BYTES + _COMPONENT_BYTES, _P384_BYTES)]
    if version >= 3:
        used += _CPUID.values()
    if version >= 5:
        used += _MITIGATIONS.values()
    edges = [0]
    for offset, size in sorted(used):
        edges += [offset, offset + size]
    return [*edges, REPORT_BYTES]


def report_of_json(value: JSON, *, where: str = "$") -> Report:
    """The report in the JSON of the protocol, as its bytes were.

    Raises:
        FormatError: a member is missing, of another type, or says what no report has.
    """
    view = View(value, what=_WHAT, where=where)
    raw = bytearray(REPORT_BYTES)
    version = view.integer("version")
    for name, (offset, size) in _FIELDS.items():
        _put(raw, offset, _field(view, name, size))
    if version >= 3:
        for name, (offset, size) in _CPUID.items():
            _put(raw, offset, _field(view, name, size))
    if version >= 5:
        for name, (offset, size) in _MITIGATIONS.items():
            _put(raw, offset, _field(view, name, size))
    for name, offset in _FIRMWARES.items():
        part = view.object(name)
        for at, member in enumerate(("build", "minor", "major")):
            raw[offset + at] = part.integer(member, maximum=255)
    signature = view.object("signature")
    for at, member in enumerate(("r", "s")):
        _put(
            raw,
            SIGNED_BYTES + at * _COMPONENT_BYTES,
            signature.octets(member, size=_COMPONENT_BYTES),
        )
    for name, offset in _TCBS.items():
        part = view.object(name)
        # With a fmc it is a Turin's; others have it null.
        places = _OLD_TCB if part.value.get("fmc") is None else _NEW_TCB
        for member, at in places.items():
            raw[offset + at] = part.integer(member, maximum=255)
    report = parse_report(bytes(raw))
    product = report.product
    if product is not None and (view.object("reported_tcb").value.get("fmc") is None) != (
        "fmc" not in product.tcb
    ):
        raise view.error(f"expected the TCB of a {product.name}, got another", "reported_tcb")
    return report


def report_to_json(report: Report) -> dict[str, JSON]:
    """The report in the JSON of the protocol, which `report_of_json` reads."""
    # Where it does not say the product: others than a Turin have nothing in these bytes.
    is_new = any(any(report.raw[at + 2 : at + 4]) for at in _TCBS.values())
    product = report.product or (TURIN if is_new else GENOA)
    fields = _FIELDS | (_CPUID if report.number("version") >= 3 else {})
    fields |= _MITIGATIONS if report.number("version") >= 5 else {}
    document: dict[str, JSON] = {}
    for name, (offset, size) in fields.items():
        data = report.raw[offset : offset + size]
        document[name] = list(data) if size > 8 else int.from_bytes(data, "little")
    for name in _FIRMWARES:
        document[name] = dict(zip(("major", "minor", "build"), report.firmware(name), strict=True))
    for name in _TCBS:
        tcb = report.tcb(name, product)
        document[name] = {member: getattr(tcb, member) for member in _TCB_MEMBERS}
    document["signature"] = {
        member: list(report.raw[at : at + _COMPONENT_BYTES])
        for member, at in (("r", SIGNED_BYTES), ("s", SIGNED_BYTES + _COMPONENT_BYTES))
    }
    return document


def _put(raw: bytearray, offset: int, data: bytes) -> None:
    raw[offset : offset + len(data)] = data


def _field(view: View, name: str, size: int) -> bytes:
    if size > 8:
        return view.octets(name, size=size)
    return view.integer(name, maximum=256**size - 1).to_bytes(size, "little")
