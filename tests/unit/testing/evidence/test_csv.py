# SPDX-License-Identifier: Apache-2.0
"""Hygon for tests is the same each time, and its bytes are of the form of the real ones."""

import pytest

from imagers.evidence.csv.report import parse_report
from imagers.evidence.csv.verify import parse_file
from imagers.testing.evidence import CSVWorld
from imagers.testing.evidence.csv import remask

SEED = bytes(range(32))


def test_same_seed_gives_the_same_bytes():
    one, other = CSVWorld(SEED), CSVWorld(SEED)
    assert one.evidence() == other.evidence()
    assert one.roots == other.roots
    assert one.collateral() == other.collateral()
    assert CSVWorld(bytes(32)).roots != one.roots


@pytest.mark.parametrize("version", [1, 2])
def test_raw_file_is_the_report_of_the_evidence(version):
    world = CSVWorld(SEED)
    body = world.evidence(version=version, report_data=b"x")
    files = world.raw_files(body)
    assert len(files["report.bin"]) == 4096
    report = parse_file(files["report.bin"]).report
    assert (report.version, report.octets("report_data")[:1]) == (version, b"x")


def test_remasking_changes_all_values_by_the_pattern():
    raw = CSVWorld(SEED).report(version=1, vm_id=bytes(16))
    other = parse_report(remask(raw, b"abcd"))
    assert other.octets("vm_id") == b"abcd" * 4
    assert other.pek == parse_report(raw).pek
    assert remask(remask(raw, b"abcd"), b"abcd") == raw


def test_init_data_is_bound_by_nothing():
    with pytest.raises(ValueError, match="binds no init data"):
        CSVWorld(SEED).evidence(init_data=b"x")


def test_field_that_is_too_long_is_the_callers_bug():
    with pytest.raises(ValueError, match="expected at most 16 bytes, got 17"):
        CSVWorld(SEED).report(vm_id=bytes(17))
