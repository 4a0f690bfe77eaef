# SPDX-License-Identifier: Apache-2.0
"""All evidence of Intel with one thing wrong is refused, at the step that has to."""

from datetime import UTC, datetime

import pytest

from imagers.testing.evidence import SGXWorld, TDXWorld
from imagers.testing.evidence.intel import SGX_BODY
from imagers.testing.evidence.wrongs.intel import CLAIMS
from tests.unit.testing.evidence.wrongs.judging import judge, refuses

SEED = b"imagers.testing.evidence.intel is"[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
WORLDS = {
    f"{kind.tee} {ca}": kind(SEED, ca=ca, now=NOW)
    for kind in (TDXWorld, SGXWorld)
    for ca in ("platform", "processor")
}


@pytest.mark.parametrize("name", WORLDS)
def test_evidence_with_one_thing_wrong_is_refused_at_its_step(name):
    world = WORLDS[name]
    for wrongs in (world.wrongs(), *([world.wrongs(version=4)] if world.tee == "tdx" else ())):
        known = list(wrongs)
        assert len(known) == len({one.name for one in known}) > 130
        assert [told for one in known if (told := refuses(world, one))] == []


@pytest.mark.parametrize(
    ("tee", "name", "value"),
    [(tee, *claim) for tee, claims in CLAIMS.items() for claim in claims],
    ids=[f"{tee} {name}" for tee, claims in CLAIMS.items() for name, _ in claims],
)
def test_field_that_is_a_claim_is_taken_as_it_is(tee, name, value):
    form = {"version": 5, "kind": 3} if tee == "tdx" else {}
    judge(WORLDS[f"{tee} platform"], **form, **{name: value})


def test_every_field_of_a_quote_is_wrong_once():
    for world in WORLDS.values():
        told = {one.name for one in world.wrongs()}
        layout = world.layout(3)[0] if world.tee == "tdx" else SGX_BODY
        assert {f"{name}, changed after signing" for name in layout} <= told
