# SPDX-License-Identifier: Apache-2.0
"""All evidence of AWS Nitro with one thing wrong is refused, at the step that has to."""

from datetime import UTC, datetime

import pytest

from imagers.testing.evidence import NitroWorld
from imagers.testing.evidence.wrongs.nitro import CLAIMS
from tests.unit.testing.evidence.wrongs.judging import judge, refuses

SEED = b"imagers.testing.evidence.nitro is"[:32]
WORLD = NitroWorld(SEED, now=datetime(2026, 11, 29, tzinfo=UTC))


def test_evidence_with_one_thing_wrong_is_refused_at_its_step():
    known = list(WORLD.wrongs())
    assert len(known) == len({one.name for one in known}) > 120
    assert [told for one in known if (told := refuses(WORLD, one))] == []


@pytest.mark.parametrize(("name", "fields"), CLAIMS, ids=[name for name, _ in CLAIMS])
def test_member_is_taken_as_it_is(name, fields):
    assert name
    judge(WORLD, binds_init_data=False, **fields)


def test_every_member_is_wrong_once():
    told = {one.name for one in WORLD.wrongs()}
    assert {f"{name}, unreadable 0" for name in WORLD.payload()} <= told
