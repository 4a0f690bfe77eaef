# SPDX-License-Identifier: Apache-2.0
"""All evidence of Arm CCA with one thing wrong is refused, at the step that has to."""

from datetime import UTC, datetime

import pytest

from imagers.testing.evidence import CCAWorld
from imagers.testing.evidence.wrongs.cca import CLAIMS
from tests.unit.testing.evidence.wrongs.judging import judge, refuses

SEED = b"imagers.testing.evidence.cca is.."[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
WORLDS = {
    "legacy": CCAWorld(SEED, is_legacy=True, now=NOW),
    "2023": CCAWorld(SEED, now=NOW),
}
everywhere = pytest.mark.parametrize("profile", WORLDS)


@everywhere
def test_evidence_with_one_thing_wrong_is_refused_at_its_step(profile):
    world = WORLDS[profile]
    known = list(world.wrongs())
    assert len(known) == len({one.name for one in known}) > 130
    assert [told for one in known if (told := refuses(world, one))] == []


@everywhere
@pytest.mark.parametrize(
    ("half", "label", "value"), CLAIMS, ids=[f"{half} {label}" for half, label, _ in CLAIMS]
)
def test_claim_is_taken_as_it_is(profile, half, label, value):
    realm = {10: b"n" * 48 + bytes(16), 44235: b"i" * 32 + bytes(32)}
    told = {"realm": realm} | {half: {**(realm if half == "realm" else {}), label: value}}
    judge(WORLDS[profile], **told)


@everywhere
def test_every_claim_is_wrong_once(profile):
    world = WORLDS[profile]
    told = {one.name for one in world.wrongs()}
    for half, claims in (("platform", world.platform_claims()), ("realm", world.realm_claims())):
        assert {f"{half} {label}, unreadable 0" for label in claims} <= told
