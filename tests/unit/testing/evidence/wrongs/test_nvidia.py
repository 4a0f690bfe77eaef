# SPDX-License-Identifier: Apache-2.0
"""All evidence of NVIDIA with one thing wrong is refused, at the step that has to."""

from datetime import UTC, datetime

import pytest

from imagers.testing.evidence import NVIDIAWorld
from imagers.testing.evidence.wrongs.nvidia import CLAIMS
from tests.unit.testing.evidence.wrongs.judging import judge, refuses

WORLD = NVIDIAWorld(bytes(range(32)), now=datetime(2026, 11, 30, tzinfo=UTC))


def test_evidence_with_one_thing_wrong_is_refused_at_its_step():
    wrongs = list(WORLD.wrongs())
    names = [one.name for one in wrongs]
    assert len(names) == len(set(names)) > 70
    assert [told for one in wrongs if (told := refuses(WORLD, one))] == []


@pytest.mark.parametrize(("name", "fields"), CLAIMS, ids=[name for name, _ in CLAIMS])
def test_what_is_a_claim_is_taken_as_it_is(name, fields):
    del name
    judge(WORLD, binds_init_data=False, **fields)
