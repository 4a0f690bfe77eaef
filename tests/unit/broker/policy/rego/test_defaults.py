# SPDX-License-Identifier: Apache-2.0
"""The attestation policy in Rego says what `appraise_claims` says of the same claims and values."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagers.broker.policy.inputs import attestation_input, reference_inputs
from imagers.broker.policy.rego.defaults import attestation_policy
from imagers.broker.policy.rego.engine import RegoEngine
from imagers.broker.policy.rego.scan import scan_policy
from imagers.evidence.appraise import appraise_claims, reference_names
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import TEES, load_verifier
from imagers.model.evidence import Bound
from imagers.model.references import ReferenceValue
from imagers.testing.evidence import (
    AzureSNPWorld,
    AzureTDXWorld,
    CCAWorld,
    CSVWorld,
    NitroWorld,
    NVIDIAWorld,
    SGXWorld,
    SNPWorld,
    TDXWorld,
    TPMWorld,
)

SEED = b"a policy in rego is compared ..."
NOW = datetime(2026, 11, 30, tzinfo=UTC)
KINDS = (
    AzureSNPWorld, AzureTDXWorld, CCAWorld, CSVWorld, NVIDIAWorld, NitroWorld, SGXWorld, SNPWorld,
    TDXWorld, TPMWorld,
)  # fmt: skip
WORLDS = {world.tee: world for world in (kind(SEED, now=NOW) for kind in KINDS)}


@cache
def claims_of(tee):
    world = WORLDS[tee]
    verifier = load_verifier(tee, roots=world.roots)
    return judge_evidence(
        verifier, world.evidence(), bound=Bound(), read=world.collateral().get, now=NOW
    )


@pytest.fixture(scope="module")
def appraise():
    with asyncio.Runner() as runner:
        engine = RegoEngine()

        def ask(claims, references):
            in_force, expired = reference_inputs(references.values(), now=NOW)
            seen = attestation_input(claims, {}, expired=expired, now=NOW)
            return runner.run(
                engine.appraise("a", attestation_policy(), input=seen, references=in_force)
            )

        yield ask
        runner.run(engine.close())


def values_of(claims):
    """What would do, by the names of reference values."""
    found = {}
    for way in (*claims.measured, claims.firmware, claims.configured):
        found |= way
    if claims.tcb_status:
        found[f"{claims.tee}_tcb_status"] = claims.tcb_status
    return found


def test_every_tee_that_has_a_verifier_has_a_world_and_is_in_the_text():
    assert WORLDS.keys() == TEES.keys()
    assert TEES.keys() <= scan_policy(attestation_policy()).strings


KINDS_OF_VALUE = ("none", "right", "wrong", "both", "expired", "other kind", "single", "unequal")


def reference(name, value, kind):
    expires = NOW - timedelta(days=1) if kind == "expired" else NOW + timedelta(days=1)
    return ReferenceValue(
        name,
        {
            "right": (value,),
            "single": (value,),
            "unequal": (not value if isinstance(value, bool) else "another",),
            "expired": (value,),
            "wrong": ("another",),
            "both": ("another", value),
            "other kind": (str(value) if not isinstance(value, str) else True,),
        }[kind],
        expires=expires,
        is_single=kind in ("single", "unequal"),
    )


def compare(appraise, claims, references):
    names = reference_names(claims)
    expected = appraise_claims(
        claims, {name: one for name, one in references.items() if name in names}, now=NOW
    )
    told = appraise(claims, references)
    assert told.fault == ""
    assert told.vector == expected.vector
    assert told.status == expected.status


@pytest.mark.parametrize("tee", TEES)
def test_ones_own_machine_is_affirmed_and_a_stranger_is_not(appraise, tee):
    claims = claims_of(tee)
    right = {name: reference(name, one, "right") for name, one in values_of(claims).items()}
    compare(appraise, claims, right)
    assert appraise(claims, right).status == "affirming"
    single = {name: replace(one, is_single=True) for name, one in right.items()}
    assert appraise(claims, single).status == "affirming"
    for references in ({}, {name: replace(one, expires=NOW) for name, one in right.items()}):
        compare(appraise, claims, references)
        assert appraise(claims, references).status in ("warning", "contraindicated")


@pytest.mark.parametrize("tee", TEES)
@settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_any_values_give_the_same_vector(appraise, tee, data):
    claims = claims_of(tee)
    changes = {
        "debug": data.draw(st.booleans()),
        "counts_if_measured": data.draw(st.booleans()),
        "tcb_status": data.draw(st.sampled_from(["", "UpToDate", "OutOfDate"])),
    }
    claims = replace(claims, **changes)
    common = data.draw(st.sampled_from(KINDS_OF_VALUE))
    references = {}
    for name, value in values_of(claims).items():
        kind = data.draw(st.sampled_from([common] * 12 + list(KINDS_OF_VALUE)))
        if kind != "none":
            references[name] = reference(name, value, kind)
    compare(appraise, claims, references)


def test_a_setting_that_has_to_be_false_is_compared(appraise):
    claims = claims_of("snp")
    name = next(name for name, value in claims.configured.items() if value is True)
    for is_single in (False, True):
        wanted = ReferenceValue(name, (False,), is_single=is_single)
        compare(appraise, claims, {name: wanted})
        assert appraise(claims, {name: wanted}).vector["configuration"] == 36


def test_a_tee_that_is_not_in_the_text_is_contraindicated(appraise):
    claims = replace(claims_of("snp"), tee="other")
    right = {name: reference(name, one, "right") for name, one in values_of(claims).items()}
    assert appraise(claims, right).status == "contraindicated"


def test_evidence_that_names_no_way_to_know_it_is_not_known(appraise):
    for measured in ((), ({},)):
        claims = replace(claims_of("snp"), measured=measured)
        compare(appraise, claims, {})
        assert appraise(claims, {}).vector["executables"] == 33
