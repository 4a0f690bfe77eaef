# SPDX-License-Identifier: Apache-2.0
"""MRTD: what the measurement of a guest of TDX is that starts with this firmware (TDVF).

    mrtd = measure_firmware(data)

The image says where its parts lie, at its end:

    end - 48     GUID 96b582de-1fb2-45f7-baea-a366c55a082d of a table, before it its length (u16);
                 entries go upwards: data, length u16 of the whole entry, GUID
    the entry    e47a6535-984a-4798-865e-4685a7bf8ec2, and a u32: how far the descriptor is from the
                 end of the image
    descriptor   'TDVF', length u32, version u32 (1), number of sections u32, then of each
                 offset u32, size u32 in the file, address u64, size u64 in memory, type u32,
                 attributes u32: 1 its bytes are measured, 2 it is added by the guest

Each page of 4 KiB of each section is added, in the order of the sections (`MEM.PAGE.ADD`), and of
a section that is measured each page then in 16 pieces (`MR.EXTEND`). That is what KVM does since
Linux 6.16, with QEMU; a host that adds and measures in another order gets another value.

Spec: Intel TDX Virtual Firmware Design Guide, sections 11.2 and 12.2.5; Intel TDX Module ABI,
TDH.MEM.PAGE.ADD, TDH.MR.EXTEND.
"""

from __future__ import annotations

import struct
from hashlib import sha384
from typing import NamedTuple
from uuid import UUID

from imagers.errors import FormatError

__all__ = ["MAX_FIRMWARE", "measure_firmware"]

MAX_FIRMWARE = 64 * 1024 * 1024
_MAX_MEMORY = 512 * 1024 * 1024  # of all sections: each page costs time
_MAX_SECTIONS = 64
_TABLE = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_OFFSET = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
_TABLE_END = 32  # bytes behind the table
_ENTRY_TAIL = struct.Struct("<H16s")
_HEAD = struct.Struct("<4sIII")
_SECTION = struct.Struct("<IIQQII")
_EXTEND, _AUGMENT = 1, 2
_PAGE, _CHUNK = 4096, 256
_WHAT = "TDX firmware"


class _Section(NamedTuple):
    offset: int
    size: int
    address: int
    memory: int
    kind: int
    attributes: int


def measure_firmware(data: bytes) -> bytes:
    """The MRTD, 48 bytes.

    Raises:
        FormatError: it is no firmware for TDX, or its sections are not what they may be.
    """
    if len(data) > MAX_FIRMWARE:
        raise FormatError(f"expected at most {MAX_FIRMWARE} bytes, got {len(data)}", what=_WHAT)
    sections = _read_sections(data)
    state = sha384()
    for section in sections:
        if section.attributes & _AUGMENT:
            continue
        content = data[section.offset : section.offset + section.size]
        for at in range(0, section.memory, _PAGE):
            state.update(_block(b"MEM.PAGE.ADD", section.address + at))
            if not section.attributes & _EXTEND:
                continue
            page = content[at : at + _PAGE].ljust(_PAGE, b"\0")
            for piece in range(0, _PAGE, _CHUNK):
                state.update(_block(b"MR.EXTEND", section.address + at + piece))
                state.update(page[piece : piece + _CHUNK])
    return state.digest()


def _block(operation: bytes, address: int) -> bytes:
    """What the TDX module hashes for an operation: its name, the address at 16, zeros to 128."""
    return (operation.ljust(16, b"\0") + address.to_bytes(8, "little")).ljust(128, b"\0")


def _read_sections(data: bytes) -> list[_Section]:
    at = len(data) - _find_distance(data)
    if at < 0 or at + _HEAD.size > len(data):
        raise FormatError("its descriptor lies outside", what=_WHAT)
    signature, length, version, count = _HEAD.unpack_from(data, at)
    if signature != b"TDVF" or version != 1 or not 1 <= count <= _MAX_SECTIONS:
        raise FormatError(
            f"expected a descriptor 'TDVF' of version 1 with at most {_MAX_SECTIONS} sections",
            what=_WHAT,
        )
    if length < _HEAD.size + count * _SECTION.size or at + length > len(data):
        raise FormatError("its descriptor is cut off", what=_WHAT)
    sections = [
        _Section(*_SECTION.unpack_from(data, at + _HEAD.size + number * _SECTION.size))
        for number in range(count)
    ]
    if sum(one.memory for one in sections if not one.attributes & _AUGMENT) > _MAX_MEMORY:
        raise FormatError(f"expected at most {_MAX_MEMORY} bytes of sections", what=_WHAT)
    for number, one in enumerate(sections):
        if (
            one.offset + one.size > len(data)
            or one.size > one.memory
            or one.address % _PAGE
            or one.memory % _PAGE
            or one.address + one.memory > 2**52
            or one.attributes & ~(_EXTEND | _AUGMENT)
            or one.attributes == _EXTEND | _AUGMENT
        ):
            raise FormatError(f"section {number} is not what one may be", what=_WHAT)
    return sections


def _find_distance(data: bytes) -> int:
    """Of the descriptor to the end, by the table of GUIDs."""
    end = len(data) - _TABLE_END
    if end < _ENTRY_TAIL.size or data[end - 16 : end] != _TABLE:
        raise FormatError("expected a table of GUIDs at its end", what=_WHAT)
    start = end - int.from_bytes(data[end - 18 : end - 16], "little")
    at = end - _ENTRY_TAIL.size
    while at - _ENTRY_TAIL.size >= max(start, 0):
        length, guid = _ENTRY_TAIL.unpack_from(data, at - _ENTRY_TAIL.size)
        if length < _ENTRY_TAIL.size or at - length < start:
            break
        if guid == _OFFSET and length == _ENTRY_TAIL.size + 4:
            return int.from_bytes(data[at - length : at - length + 4], "little")
        at -= length
    raise FormatError("it has no descriptor for TDX", what=_WHAT)
