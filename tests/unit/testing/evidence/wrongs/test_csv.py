# SPDX-License-Identifier: Apache-2.0
"""All evidence of Hygon with one thing wrong is refused, at the step that has to."""

from datetime import UTC, datetime

import pytest

from imagers.testing.evidence import CSVWorld
from imagers.testing.evidence.csv import LAYOUTS
from imagers.testing.evidence.wrongs.csv import CLAIMS
from tests.unit.testing.evidence.wrongs.judging import judge, refuses

WORLD = CSVWorld(b"imagers.testing.evidence.csv is.."[:32], now=datetime(2026, 11, 30, tzinfo=UTC))


@pytest.mark.parametrize("version", [1, 2])
def test_evidence_with_one_thing_wrong_is_refused_at_its_step(version):
    wrongs = list(WORLD.wrongs(version=version))
    names = [one.name for one in wrongs]
    assert len(names) == len(set(names)) > 45
    assert [told for one in wrongs if (told := refuses(WORLD, one))] == []


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("name", "value"), CLAIMS, ids=[name for name, _ in CLAIMS])
def test_field_that_is_a_claim_is_taken_as_it_is(name, value, version):
    judge(WORLD, binds_init_data=False, version=version, **{name: value})


@pytest.mark.parametrize("version", LAYOUTS)
def test_every_field_of_a_report_is_wrong_once(version):
    told = " ".join(one.name for one in WORLD.wrongs(version=version))
    assert all(f"{name}, changed after signing" in told for name in LAYOUTS[version][0])
