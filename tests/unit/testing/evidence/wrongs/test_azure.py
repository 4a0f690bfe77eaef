# SPDX-License-Identifier: Apache-2.0
"""All evidence of Azure's machines with one thing wrong is refused, at the step that has to."""

from datetime import UTC, datetime

import pytest

from imagers.testing.evidence import AzureSNPWorld, AzureTDXWorld
from tests.unit.testing.evidence.wrongs.judging import judge, refuses

SEED = b"imagers.testing.evidence.azure..."[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
WORLDS = {one.tee: one(SEED, now=NOW) for one in (AzureSNPWorld, AzureTDXWorld)}


@pytest.mark.parametrize("tee", WORLDS)
def test_evidence_with_one_thing_wrong_is_refused_at_its_step(tee):
    world = WORLDS[tee]
    known = list(world.wrongs())
    assert len(known) == len({one.name for one in known}) > 80
    assert [told for one in known if (told := refuses(world, one))] == []


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("tee", WORLDS)
def test_evidence_that_is_good_is_taken(tee, version):
    claims = judge(WORLDS[tee], version=version)
    assert claims.tee == tee
    assert claims.test_root
