# SPDX-License-Identifier: Apache-2.0
"""A machine for tests is what its file says."""

import json

import pytest

from imagers.errors import FormatError
from imagers.model.evidence import ReportData
from imagers.model.strict_json import View
from imagers.testing.evidence import Machine
from imagers.testing.evidence.machine import TEES

GOOD = {"tee": "snp", "seed": "07" * 32}


def parse(document):
    return Machine.parse(View.parse(json.dumps(document).encode(), what="tee.json", max_bytes=9999))


@pytest.mark.parametrize(
    "more", [{}, {"product": "Turin", "measurement": "61" * 48, "init_data": "62" * 32}]
)
def test_machine_is_read_as_it_was_written(more):
    machine = parse(GOOD | more)
    assert parse(machine.to_json()) == machine
    body = machine.attester().collect(ReportData(b"n" * 48)).body
    report = body["attestation_report"]
    expected = machine.measurement or machine.world().measurement
    assert bytes(report["measurement"]) == expected
    assert bytes(report["host_data"]) == machine.init_data.ljust(32, b"\0")
    assert machine.world().product.name == more.get("product", "Genoa")


def test_machine_prints_without_its_seed():
    assert "07" not in repr(parse(GOOD))
    assert "\\x07" not in repr(parse(GOOD))


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"tee": "toy"}, f"expected one of {', '.join(TEES)}"),
        ({"tee": "sgx", "measurement": "07" * 48}, "expected 32 bytes in hex"),
        ({"seed": "07" * 31}, "expected 32 bytes in hex"),
        ({"seed": "zz" * 32}, "expected 32 bytes in hex"),
        ({"measurement": "07" * 32}, "expected 48 bytes in hex"),
        ({"init_data": "07" * 33}, "expected at most 32 bytes in hex"),
        ({"tee": "csv", "init_data": "07"}, "expected none: csv binds none"),
        ({"product": "Rome"}, "expected one of Milan, Genoa, Turin"),
        ({"policy": 1}, "policy"),
    ],
)
def test_file_that_says_no_machine_is_refused(change, piece):
    with pytest.raises(FormatError) as caught:
        parse(GOOD | change)
    assert piece in str(caught.value)
    assert "0707" not in str(caught.value)
