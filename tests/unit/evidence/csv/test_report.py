# SPDX-License-Identifier: Apache-2.0
"""Reports of both versions are read strictly, from the device and from JSON."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.csv.certificates import parse_certificate
from imagers.evidence.csv.report import (
    mac_of,
    masked,
    parse_report,
    report_of_json,
    report_to_json,
)
from imagers.model.strict_json import View
from tests.real_evidence import real_file

LENGTHS = {1: 2548, 2: 3380}


def test_mask_goes_on_and_off():
    assert masked(b"\x01\x02\x03\x04\x05\x06", b"\xff\x00\x0f\x00") == b"\xfe\x02\x0c\x04\xfa\x06"
    assert masked(masked(b"anything", b"abcd"), b"abcd") == b"anything"
    with pytest.raises(ValueError, match="expected 4 bytes"):
        masked(b"", b"abc")


@pytest.mark.parametrize("version", LENGTHS)
@pytest.mark.parametrize("filled", [False, True])
def test_report_of_the_device_is_read(world, version, filled):
    raw = world.report(version=version, report_data=b"hello", policy=7)
    assert len(raw) == LENGTHS[version]
    report = parse_report(raw.ljust(4096, b"\0") if filled else raw)
    assert (report.version, report.is_whole) == (version, True)
    assert report.octets("report_data") == b"hello".ljust(64, b"\0")
    assert report.octets("measure") == world.measurement
    assert report.number("policy") == 7
    assert (report.serial, report.pek.role.name) == (world.serial, "PEK")
    assert report.mac == mac_of(report.octets("mnonce"), report.signer)


@pytest.mark.parametrize("version", LENGTHS)
@pytest.mark.parametrize("is_whole", [False, True])
def test_report_of_json_is_that_of_the_device(world, version, is_whole):
    raw = world.report(version=version)
    pek = parse_certificate(world.certificate("PEK"), "PEK")
    document = report_to_json(parse_report(raw))
    if is_whole:  # of who does not take the mask off
        document["data"] = list(raw.ljust(4096, b"\0"))
    found = report_of_json(View(document, what="x"), pek=pek)
    device = parse_report(raw)
    assert (found.raw, found.signer[:2148]) == (device.raw, device.signer[:2148])
    # Of version 2, which has no mask, nothing tells whether csv-rs was there.
    assert found.is_whole == (is_whole and version == 1)
    kept = device.signer[2148:] if is_whole else bytes(32) + device.mac
    assert found.signer[2148:] == kept


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"magic": [1] * 16}, "expected zeros, or 'ATTESTATION_EXT'"),
        ({"flags": 2, "magic": [*b"ATTESTATION_EXT\0"]}, "expected 0 or 1, got 2"),
        ({"data": [0] * 4095}, "expected a list of 4096 bytes"),
        ({"flags": 1, "magic": [0] * 16}, "expected a report of version 1 and zeros"),
    ],
)
def test_json_that_is_no_report_is_told_so(world, change, piece):
    pek = parse_certificate(world.certificate("PEK"), "PEK")
    document = report_to_json(parse_report(world.report(version=2))) | change
    with pytest.raises(FormatError, match=piece):
        report_of_json(View(document, what="x"), pek=pek)


def test_pek_beside_a_report_is_the_one_in_it(world):
    other = parse_certificate(world.certificate("PEK", key="nobody"), "PEK")
    document = report_to_json(parse_report(world.report(version=1)))
    with pytest.raises(FormatError, match="expected the PEK that stands beside it"):
        report_of_json(View(document, what="x"), pek=other)


@pytest.mark.parametrize("length", [0, 2547, 4097])
def test_report_of_another_length_is_none(length):
    with pytest.raises(FormatError, match="expected 2548 bytes"):
        parse_report(bytes(length))


@pytest.mark.parametrize("at", [224, 263, 296, 335])
def test_bytes_behind_the_numbers_of_the_signature_are_zeros(world, at):
    raw = bytearray(world.report(version=1))
    raw[at] = 1
    with pytest.raises(FormatError, match="numbers of 32 bytes"):
        parse_report(bytes(raw))


@pytest.mark.parametrize("serial", [b"", b"a/../b", b"a b", b"\xff\xff"])
def test_serial_number_has_letters_and_digits(world, serial):
    raw = bytearray(world.report(version=2))
    at = 1168 + 2084
    raw[at : at + 64] = serial.ljust(64, b"\0")
    with pytest.raises(FormatError, match="letters and digits"):
        parse_report(bytes(raw)).serial  # noqa: B018


def test_report_prints_without_what_identifies_the_machine(world):
    report = parse_report(world.report())
    assert repr(report) == "Report(version=2, is_whole=True)"


def test_real_report_says_what_it_says():
    report = parse_report(real_file("csv/csv-rs/report.cert").read_bytes())
    assert report.octets("report_data") == b"user data".ljust(64, b"\0")
    assert report.number("policy") == 0x40000001
    assert report.anonce.hex() == "9b429112"
    assert report.mac == mac_of(report.octets("mnonce"), report.signer)


@given(st.binary(min_size=3400, max_size=4096), st.sampled_from([2548, 3380, 4096]))
def test_any_bytes_give_a_report_or_an_error_of_ours(raw, length):
    with suppress(FormatError):
        report = parse_report(raw[:length].ljust(length, b"\0"))
        assert report.number("policy") >= 0
        assert report.serial.isalnum()
