# SPDX-License-Identifier: Apache-2.0
"""The bytes of a report, and the JSON that has the same fields."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.snp.report import (
    PRODUCTS,
    REPORT_BYTES,
    SIGNED_BYTES,
    TCB,
    parse_report,
    report_of_json,
)

ARRAYS = {
    "family_id": (0x010, 16),
    "image_id": (0x020, 16),
    "report_data": (0x050, 64),
    "measurement": (0x090, 48),
    "host_data": (0x0C0, 32),
    "id_key_digest": (0x0E0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "chip_id": (0x1A0, 64),
}
NUMBERS = {
    "version": (0x000, 4),
    "guest_svn": (0x004, 4),
    "policy": (0x008, 8),
    "vmpl": (0x030, 4),
    "sig_algo": (0x034, 4),
    "plat_info": (0x040, 8),
    "key_info": (0x048, 4),
    "cpuid_fam_id": (0x188, 1),
    "cpuid_mod_id": (0x189, 1),
    "cpuid_step": (0x18A, 1),
    "launch_mit_vector": (0x1F8, 8),
    "current_mit_vector": (0x200, 8),
}
TCBS = {"current_tcb": 0x038, "reported_tcb": 0x180, "committed_tcb": 0x1E0, "launch_tcb": 0x1F0}


def as_json(raw, product):
    """What virtee's library writes of a report."""
    places = PRODUCTS[product].tcb
    document = {name: list(raw[at : at + size]) for name, (at, size) in ARRAYS.items()}
    for name, (at, size) in NUMBERS.items():
        document[name] = int.from_bytes(raw[at : at + size], "little")
    for name, at in TCBS.items():
        document[name] = {"fmc": None} | {part: raw[at + place] for part, place in places.items()}
    for name, at in (("current", 0x1E8), ("committed", 0x1EC)):
        document[name] = {"build": raw[at], "minor": raw[at + 1], "major": raw[at + 2]}
    document["signature"] = {
        "r": list(raw[SIGNED_BYTES : SIGNED_BYTES + 72]),
        "s": list(raw[SIGNED_BYTES + 72 : SIGNED_BYTES + 144]),
    }
    return document


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_json_of_a_report_gives_its_bytes(world, version):
    numbers = {0x1F8: 7} if version == 5 else {}
    raw = world.raw_report(version=version, numbers=numbers)
    document = json.loads(json.dumps(as_json(raw, world.product.name)))
    assert report_of_json(document).raw == raw
    assert report_of_json(document).product == (world.product if version > 2 else None)


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"measurement": [0] * 47}, "measurement: expected a list of 48 bytes"),
        ({"measurement": [256] * 48}, "measurement: expected a list of 48 bytes"),
        ({"measurement": "00"}, "measurement: expected a list of 48 bytes"),
        ({"policy": -1}, "policy"),
        ({"policy": 2**64}, "policy"),
        ({"cpuid_fam_id": 256}, "cpuid_fam_id"),
        ({"current": None}, "current"),
        ({"reported_tcb": {"bootloader": 1}}, "reported_tcb"),
        ({"version": 1}, "expected a report of version 2 to 5"),
        ({"version": 6}, "expected a report of version 2 to 5"),
        ({"signature": {"r": [0] * 72, "s": [0] * 71}}, "s: expected a list of 72 bytes"),
        ({"signature": {"r": [0] * 48 + [1] * 24, "s": [0] * 72}}, "expected zeros"),
    ],
)
def test_json_with_a_fault_says_where(genoa, change, piece):
    document = as_json(genoa.raw_report(), "Genoa") | change
    with pytest.raises(FormatError) as caught:
        report_of_json(document)
    assert piece in str(caught.value)


def test_json_with_the_parts_of_another_product_is_refused(genoa):
    document = as_json(genoa.raw_report(), "Genoa")
    document["reported_tcb"]["fmc"] = 0
    with pytest.raises(FormatError, match="expected the TCB of a Genoa"):
        report_of_json(document)


@pytest.mark.parametrize("missing", ["policy", "chip_id", "signature", "launch_tcb", "committed"])
def test_json_without_a_member_is_refused(genoa, missing):
    document = as_json(genoa.raw_report(), "Genoa")
    del document[missing]
    with pytest.raises(FormatError, match=missing):
        report_of_json(document)


@pytest.mark.parametrize("size", [0, REPORT_BYTES - 1, REPORT_BYTES + 1])
def test_report_of_another_length_is_refused(size):
    with pytest.raises(FormatError, match=f"expected {REPORT_BYTES} bytes"):
        parse_report(bytes(size))


@pytest.mark.parametrize(
    ("version", "at"),
    [
        (2, 0x188),
        (2, 0x1F8),
        (4, 0x200),
        (5, 0x208),
        (5, 0x04C),
        (5, 0x18B),
        (5, 0x1EB),
        (5, 0x49F),
    ],
)
def test_report_with_something_in_what_is_reserved_is_refused(genoa, version, at):
    raw = bytearray(genoa.raw_report(version=version))
    raw[at] = 1
    with pytest.raises(FormatError, match="expected zeros in bytes"):
        parse_report(bytes(raw))


@pytest.mark.parametrize(
    ("family", "model", "name"),
    [
        (0x19, 0x00, "Milan"),
        (0x19, 0x0F, "Milan"),
        (0x19, 0x10, "Genoa"),
        (0x19, 0x1F, "Genoa"),
        (0x19, 0x20, None),
        (0x19, 0x9F, None),
        (0x19, 0xA0, "Genoa"),
        (0x19, 0xAF, "Genoa"),
        (0x19, 0xB0, None),
        (0x1A, 0x00, "Turin"),
        (0x1A, 0x11, "Turin"),
        (0x1A, 0x12, None),
        (0x17, 0x01, None),
    ],
)
def test_product_is_that_of_the_processor(genoa, family, model, name):
    report = parse_report(genoa.raw_report(bytes_at={0x188: bytes((family, model))}))
    assert (report.product and report.product.name) == name


def test_version_is_below_another_by_any_part():
    newest = TCB(None, 3, 2, 8, 115)
    assert newest.is_below(newest) == ""
    for part in ("bootloader", "tee", "snp", "microcode"):
        values = {"fmc": None, "bootloader": 9, "tee": 9, "snp": 9, "microcode": 200}
        older = TCB(**values | {part: getattr(newest, part) - 1})
        assert older.is_below(newest) == part
        assert newest.is_below(older) != ""
    assert newest.is_below(TCB(0, 0, 0, 0, 0)) == "fmc"
    assert str(TCB(1, 2, 3, 4, 5)) == "fmc 1, bootloader 2, tee 3, snp 4, microcode 5"


@given(st.binary(min_size=REPORT_BYTES, max_size=REPORT_BYTES))
def test_any_bytes_give_a_report_or_an_error_of_ours(raw):
    for candidate in (raw, b"\x03\0\0\0" + raw[4:]):
        with suppress(FormatError):
            parse_report(candidate)
