# SPDX-License-Identifier: Apache-2.0
"""Firmware made here, measured by the steps of the specification written out."""

import struct
from hashlib import sha384
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.tdx.firmware import MAX_FIRMWARE, measure_firmware

TABLE = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
TDX = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
OTHER = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le
SIZE = 5 * 4096
# offset, size, address, memory, type, attributes: code that is measured, variables, a HOB, more
SECTIONS = [
    (4096, 8192, 0xFFC84000, 8192, 0, 1),
    (0, 4096, 0xFFC80000, 4096, 1, 0),
    (0, 0, 0x809000, 8192, 2, 0),
    (0, 0, 0x80B000, 4096, 3, 2),
]


def entry(guid, data):
    return data + struct.pack("<H", len(data) + 18) + guid


def make_firmware(sections=SECTIONS, *, head=None, entries=None, distance=None, tail=TABLE):
    data = bytearray(bytes(range(256)) * (SIZE // 256))
    described = b"".join(struct.pack("<IIQQII", *one) for one in sections)
    signature, version, count = head or (b"TDVF", 1, len(sections))
    described = struct.pack("<4sIII", signature, 16 + len(described), version, count) + described
    at = SIZE - 1024
    data[at : at + len(described)] = described
    offset = struct.pack("<I", SIZE - at if distance is None else distance)
    if entries is None:
        entries = entry(TDX, offset) + entry(OTHER, bytes(4))
    table = entries + struct.pack("<H", len(entries) + 18) + tail
    data[SIZE - 32 - len(table) : SIZE - 32] = table
    return bytes(data)


def measured(data, sections=SECTIONS):
    """The same by hand: a page is added, then its sixteen pieces are measured."""
    state = sha384()
    for offset, size, address, memory, _, attributes in sections:
        if attributes == 2:
            continue
        for page in range(memory // 4096):
            gpa = address + page * 4096
            state.update(b"MEM.PAGE.ADD" + bytes(4) + struct.pack("<Q", gpa) + bytes(104))
            if attributes == 1:
                content = data[offset : offset + size][page * 4096 : (page + 1) * 4096]
                content += bytes(4096 - len(content))
                for piece in range(16):
                    state.update(b"MR.EXTEND" + bytes(7) + struct.pack("<Q", gpa + piece * 256))
                    state.update(bytes(104) + content[piece * 256 : piece * 256 + 256])
    return state.digest()


def test_measurement_is_that_of_the_pages_in_their_order():
    data = make_firmware()
    assert measure_firmware(data) == measured(data)


def test_memory_behind_the_bytes_of_a_section_is_zero():
    sections = [(0, 5000, 0x1000, 8192, 0, 1)]
    data = make_firmware(sections)
    assert measure_firmware(data) == measured(data, sections)


def test_what_is_measured_changes_it_and_nothing_else_does():
    data = bytearray(make_firmware())
    before = measure_firmware(bytes(data))
    data[100] ^= 1  # of the variables, which are added and not measured
    assert measure_firmware(bytes(data)) == before
    data[4096] ^= 1
    assert measure_firmware(bytes(data)) != before


@pytest.mark.parametrize(
    ("changes", "piece"),
    [
        ({"tail": OTHER}, "expected a table of GUIDs"),
        ({"entries": entry(OTHER, bytes(4))}, "no descriptor for TDX"),
        ({"entries": b"\0" * 18}, "no descriptor for TDX"),
        ({"distance": 1}, "descriptor lies outside"),
        ({"distance": 2**32 - 1}, "descriptor lies outside"),
        ({"distance": SIZE}, "expected a descriptor 'TDVF'"),
        ({"head": (b"TDVX", 1, 4)}, "expected a descriptor 'TDVF'"),
        ({"head": (b"TDVF", 2, 4)}, "expected a descriptor 'TDVF'"),
        ({"head": (b"TDVF", 1, 0)}, "expected a descriptor 'TDVF'"),
        ({"head": (b"TDVF", 1, 65)}, "expected a descriptor 'TDVF'"),
        ({"head": (b"TDVF", 1, 5)}, "descriptor is cut off"),
        ({"sections": [(SIZE, 1, 0, 4096, 0, 1)]}, "section 0 is not"),
        ({"sections": [(0, 4097, 0, 4096, 0, 1)]}, "section 0 is not"),
        ({"sections": [(0, 1, 1, 4096, 0, 1)]}, "section 0 is not"),
        ({"sections": [(0, 1, 0, 4095, 0, 1)]}, "section 0 is not"),
        ({"sections": [(0, 1, 2**52, 4096, 0, 1)]}, "section 0 is not"),
        ({"sections": [(0, 1, 0, 4096, 0, 3)]}, "section 0 is not"),
        ({"sections": [(0, 1, 0, 4096, 0, 4)]}, "section 0 is not"),
        ({"sections": [(0, 1, 0, 2**40, 0, 0)]}, "expected at most 536870912 bytes"),
    ],
    ids=range(19),
)
def test_firmware_that_is_none_is_refused(changes, piece):
    with pytest.raises(FormatError) as caught:
        measure_firmware(make_firmware(**changes))
    assert piece in str(caught.value)


def test_firmware_that_is_too_long_is_refused():
    with pytest.raises(FormatError, match="at most"):
        measure_firmware(bytes(MAX_FIRMWARE + 1))


@given(st.integers(0, SIZE), st.binary(min_size=1, max_size=8))
def test_any_bytes_are_a_measurement_or_a_format_error(at, change):
    data = bytearray(make_firmware())
    data[at : at + len(change)] = change
    try:
        assert len(measure_firmware(bytes(data))) == 48
    except FormatError as error:
        assert "TDX firmware" in str(error)  # noqa: PT017  # either is right
