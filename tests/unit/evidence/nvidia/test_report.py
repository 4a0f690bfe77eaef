# SPDX-License-Identifier: Apache-2.0
"""Reports of a GPU are read strictly; what is refused is in the tests of `wrongs`."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.nvidia.report import MAX_REPORT, parse_report
from imagers.testing.evidence import NVIDIAWorld
from tests.real_evidence import real_file

WORLD = NVIDIAWorld(bytes(32))


def test_report_says_what_was_put_into_it():
    raw = WORLD.report(nonce=b"n" * 48, blocks={7: b"x" * 48}, opaque={3: b"1.2.3\0\0"})
    report = parse_report(raw)
    assert report.nonce == b"n" * 32
    assert (report.measurements[7], report.measurements[1]) == (b"x" * 48, bytes(48))
    assert report.text("driver_version") == "1.2.3"
    assert report.vbios_version == "96.00.9f.00.01"
    assert report.signed + b"".join(one.to_bytes(48) for one in report.signature) == raw
    assert parse_report(raw + b"\0") == report
    assert repr(report).count("=") == 1


@pytest.mark.parametrize(
    ("opaque", "read", "piece"),
    [
        ({3: b"x" * 101}, lambda one: one.text("driver_version"), "expected text"),
        ({3: b"a\nb"}, lambda one: one.text("driver_version"), "expected text"),
        ({6: bytes(7)}, lambda one: one.vbios_version, "expected 8 bytes"),
        ({20: None}, lambda one: one.octets("fwid"), "has no fwid"),
    ],
)
def test_field_that_is_none_is_told_so(opaque, read, piece):
    report = parse_report(WORLD.report(opaque=opaque))
    with pytest.raises(FormatError, match=piece):
        read(report)


def test_report_is_cut_off_anywhere_without_a_crash():
    raw = WORLD.report()
    for length in [*range(60), *range(60, len(raw), 97)]:
        with pytest.raises(FormatError):
            parse_report(raw[:length])
    with pytest.raises(FormatError, match="expected at most"):
        parse_report(bytes(MAX_REPORT + 1))


def test_blocks_and_fields_are_there_once():
    raw = bytearray(WORLD.report())
    raw[45 + 55] = 1  # the number of the second block
    with pytest.raises(FormatError, match="the block 1 twice"):
        parse_report(bytes(raw))
    at = 45 + 64 * 55 + 34  # the type of the first field
    raw = bytearray(WORLD.report())
    raw[at] = 14
    with pytest.raises(FormatError, match="the field 14 twice"):
        parse_report(bytes(raw))


def test_real_report_is_read():
    report = parse_report(
        bytes.fromhex(real_file("nvidia/trustee/hopperAttestationReport.txt").read_text().strip())
    )
    assert report.nonce.hex().startswith("931d8dd0")
    assert report.text("driver_version") == "550.90.07"


GOOD = WORLD.report()


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_any_bytes_give_a_report_or_an_error_of_ours(at, change):
    raw = GOOD[:at] + change + GOOD[at + len(change) :]
    with suppress(FormatError):
        report = parse_report(raw)
        assert raw.startswith(report.signed)
    with suppress(FormatError):
        parse_report(change * 200)
