# SPDX-License-Identifier: Apache-2.0
"""The bytes of a report, and the JSON that has the same fields."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.snp.report import (
    REPORT_BYTES,
    TCB,
    parse_report,
    report_of_json,
)
from tests.unit.evidence.snp.conftest import report_of


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_json_of_a_report_gives_its_bytes(world, version):
    fields = {"launch_mit_vector": 7} if version == 5 else {}
    raw = world.report(version=version, **fields)
    document = json.loads(json.dumps(world.report_json(raw)))
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
    document = genoa.report_json(genoa.report()) | change
    with pytest.raises(FormatError) as caught:
        report_of_json(document)
    assert piece in str(caught.value)


def test_json_with_the_parts_of_another_product_is_refused(genoa):
    document = genoa.report_json(genoa.report())
    document["reported_tcb"]["fmc"] = 0
    with pytest.raises(FormatError, match="expected the TCB of a Genoa"):
        report_of_json(document)


@pytest.mark.parametrize("missing", ["policy", "chip_id", "signature", "launch_tcb", "committed"])
def test_json_without_a_member_is_refused(genoa, missing):
    document = genoa.report_json(genoa.report())
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
    raw = bytearray(genoa.report(version=version))
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
    report = report_of(genoa, cpuid_fam_id=family, cpuid_mod_id=model)
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
