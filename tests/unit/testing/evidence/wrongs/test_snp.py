# SPDX-License-Identifier: Apache-2.0
"""All evidence of AMD with one thing wrong is refused, at the step that has to."""

from datetime import UTC, datetime

import pytest

from imagers.testing.evidence import SNPWorld
from imagers.testing.evidence.wrongs.snp import CLAIMS
from tests.unit.testing.evidence.wrongs.judging import judge, refuses

SEED = b"imagers.testing.evidence.snp is.."[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
WORLDS = {name: SNPWorld(SEED, name, now=NOW) for name in ("Milan", "Genoa", "Turin")}


@pytest.mark.parametrize("product", WORLDS)
def test_evidence_with_one_thing_wrong_is_refused_at_its_step(product):
    world = WORLDS[product]
    names = [one.name for one in world.wrongs()]
    assert len(names) == len(set(names)) > 90
    assert [told for one in world.wrongs() if (told := refuses(world, one))] == []


@pytest.mark.parametrize(("name", "value"), CLAIMS, ids=[name for name, _ in CLAIMS])
def test_field_that_is_a_claim_is_taken_as_it_is(name, value):
    judge(WORLDS["Genoa"], **{name: value})


def test_every_field_of_a_report_is_wrong_once_or_a_claim():
    world = WORLDS["Genoa"]
    told = " ".join(one.name for one in world.wrongs())
    assert all(f"{name}, changed after signing" in told for name in world.layout)
