# SPDX-License-Identifier: Apache-2.0
"""A guest of any world is an attester."""

from datetime import UTC, datetime

import pytest

from imagers.model.evidence import Attester, ReportData
from imagers.testing.evidence import SGXWorld, SNPWorld, TDXWorld
from imagers.testing.evidence.guests import Guest

NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.mark.parametrize("kind", [SNPWorld, TDXWorld, SGXWorld])
def test_guest_makes_evidence_that_binds_what_it_is_handed(kind):
    world = kind(bytes(32), now=NOW)
    digest, measurement, init = b"n" * 48, b"m" * len(world.measurement), b"i" * 32
    guest = world.attester(measurement=measurement, init_data=init)
    assert isinstance(guest, Attester)
    assert guest == Guest(world, measurement, init)
    evidence = guest.collect(ReportData(digest))
    assert (evidence.tee, evidence.report_data) == (world.tee, ReportData(digest))
    device = next(iter(world.raw_files(evidence.body).values()))
    assert all(device.count(one) == 1 for one in (digest, measurement, init))
