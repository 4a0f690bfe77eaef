# SPDX-License-Identifier: Apache-2.0
"""All evidence of a TPM with one thing wrong is refused, at the step that has to."""

from datetime import UTC, datetime

import pytest

from imagers.testing.evidence import TPMWorld
from imagers.testing.evidence.wrongs.tpm import CLAIMS
from tests.unit.testing.evidence.wrongs.judging import judge, refuses

SEED = b"imagers.testing.evidence.tpm is.."[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
WORLDS = {kind: TPMWorld(SEED, kind, now=NOW) for kind in ("rsa", "p256", "p384")}


@pytest.mark.parametrize("kind", WORLDS)
def test_evidence_with_one_thing_wrong_is_refused_at_its_step(kind):
    world = WORLDS[kind]
    known = list(world.wrongs())
    assert len(known) == len({one.name for one in known}) > 70
    assert [told for one in known if (told := refuses(world, one))] == []


@pytest.mark.parametrize("kind", WORLDS)
def test_evidence_that_is_good_is_taken(kind):
    assert judge(WORLDS[kind]).measured[0]["trusted_aks"] == WORLDS[kind].trusted_ak


@pytest.mark.parametrize(("name", "value"), CLAIMS)
def test_field_that_is_a_claim_is_taken_as_it_is(name, value):
    judge(WORLDS["p256"], **{name: value})
