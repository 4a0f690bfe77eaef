# SPDX-License-Identifier: Apache-2.0
from dataclasses import fields, replace

import pytest

from imagers.errors import FormatError
from imagers.evidence.claims import claims_from_json, claims_to_json
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.model.evidence import Bound
from imagers.model.strict_json import View, dump_json
from imagers.testing.evidence import SNPWorld


@pytest.fixture(scope="module")
def claims():
    world = SNPWorld(b"c" * 32)
    verifier = load_verifier("snp", roots=world.roots)
    read = world.collateral().get
    return judge_evidence(verifier, world.evidence(), bound=Bound(), read=read, now=world.now)


def test_claims_come_back_from_json_but_for_what_identifies_and_what_is_elsewhere(claims):
    text = dump_json(claims_to_json(claims))
    again = claims_from_json(View.parse(text, what="claims", max_bytes=10_000))
    assert again == replace(claims, values={}, collateral={}, instance="")
    assert claims.instance != ""
    assert claims.instance not in text.decode()
    assert claims_from_json(View(claims_to_json(claims), what="claims"), {"a": 1}).values == {
        "a": 1
    }


def test_that_claims_count_only_together_is_not_lost_on_the_way(claims):
    together = replace(claims, counts_if_measured=True)
    text = dump_json(claims_to_json(together))
    again = claims_from_json(View.parse(text, what="claims", max_bytes=10_000))
    assert again.counts_if_measured
    assert not claims_from_json(View(claims_to_json(claims), what="claims")).counts_if_measured


def test_claims_print_without_the_machine(claims):
    assert claims.instance not in repr(claims)


@pytest.mark.parametrize("name", ["tee", "measured", "firmware", "tcb_status", "established_at"])
def test_json_that_lacks_a_member_is_no_claims(claims, name):
    document = claims_to_json(claims)
    del document[name]
    with pytest.raises(FormatError, match=f"claims.*{name}"):
        claims_from_json(View(document, what="claims"))


def test_json_has_a_member_for_each_claim(claims):
    left = {"values", "collateral", "instance"}
    names = {"tee_class": "class"}
    assert {names.get(one.name, one.name) for one in fields(claims)} - left == set(
        claims_to_json(claims)
    )
