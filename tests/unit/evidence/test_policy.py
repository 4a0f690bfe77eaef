# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.errors import FormatError
from imagers.evidence.plugins import load_verifier
from imagers.evidence.policy import MAX_POLICY_BYTES, parse_appraisal_policy


def parse(**members):
    return parse_appraisal_policy(json.dumps(members).encode(), what="policy.json")


def test_policy_has_settings_by_tee_and_reference_values():
    policy = parse(
        tees={
            "snp": {
                "crl": "optional",
                "minimum_tcb": {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115},
            }
        },
        reference_values=[{"name": "a", "values": ["x"]}],
    )
    assert [one.name for one in policy.references] == ["a"]
    verifier = load_verifier("snp", settings=policy.settings["snp"])
    assert verifier.allowed.without_crl
    assert not verifier.allowed.debug
    assert str(verifier.allowed.minimum) == "bootloader 3, tee 0, snp 8, microcode 115"


def test_empty_policy_wants_nothing_and_lets_nothing_pass():
    policy = parse()
    assert (dict(policy.settings), policy.references) == ({}, ())
    allowed = load_verifier("snp").allowed
    assert [allowed.debug, allowed.migration_agent, allowed.without_crl] == [False] * 3


@pytest.mark.parametrize(
    ("members", "piece"),
    [
        ({"tees": []}, "$.tees"),
        ({"tees": {"sample": {}}}, "unknown member 'sample'"),
        ({"tees": {"snp": []}}, "$.tees.snp"),
        ({"reference_values": {}}, "$.reference_values"),
        ({"rules": []}, "unknown member 'rules'"),
    ],
    ids=str,
)
def test_what_is_no_policy_is_refused_with_its_place(members, piece):
    with pytest.raises(FormatError, match=r"policy\.json") as caught:
        parse(**members)
    assert piece in str(caught.value)


def test_policy_is_bounded():
    with pytest.raises(FormatError):
        parse_appraisal_policy(b" " * (MAX_POLICY_BYTES + 1), what="x")
