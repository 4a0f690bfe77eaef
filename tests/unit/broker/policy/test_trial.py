# SPDX-License-Identifier: Apache-2.0
"""What cannot be reached from tests/unit/cli/verbs/test_broker_policy_test.py."""

import asyncio
from datetime import UTC, datetime

import pytest

from imagers.broker.policy.trial import TriedRequest, guest_of_token, try_policy
from imagers.errors import FormatError
from imagers.kbs.resources import parse_resource_path
from imagers.model.strict_json import View

NOW = datetime(2026, 11, 30, tzinfo=UTC)
REQUEST = TriedRequest(parse_resource_path("a/b/c"))
GPU = {
    "ear.status": "affirming",
    "ear.veraison.annotated-evidence": {"nvidia": {"arch": "x"}, "runtime_data_claims": {}},
}


def guest(**submods):
    return guest_of_token(View({"submods": submods}, what="token"), (), now=NOW)


def attempt(text, one):
    return asyncio.run(try_policy(text, one, REQUEST, what="text"))


def test_a_table_sees_devices():
    rule = '"name": "r", "effect": "allow", "resource": "*/*/*", "image": "any"'
    table = '{"rules": [{' + rule + ', "devices": ["nvidia"], "trust": "affirming"}]}'
    cpu = {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"tdx": {}}}
    told = attempt(table, guest(cpu0=cpu, gpu0=GPU))
    assert (told.allow, told.rule, told.seen["tee"]) == (True, "r", "tdx")
    assert not attempt(table, guest(cpu0=cpu)).allow
    assert not attempt(table, guest(gpu0=GPU)).allow
    assert not attempt(table, guest()).allow


def test_the_worst_evidence_counts_and_none_is_no_yes():
    text = (
        "package policy\ndefault hardware := 97\nhardware := 2 if input.nvidia\n"
        'trust_claims := {"hardware": hardware}\n'
    )
    assert attempt(text, guest(gpu0=GPU)).allow
    assert not attempt(text, guest(gpu0=GPU, cpu0={})).allow
    assert not attempt(text, guest()).allow


def test_a_fault_of_the_engine_is_told():
    text = (
        "package policy\nallow if { input.submods; "
        "count(numbers.range(1, count(input.submods) * 1000000000)) > 0 }\n"
    )
    told = attempt(text, guest(gpu0=GPU))
    assert not told.allow
    assert told.fault in ("crash", "processor")  # which is first is the machine's


@pytest.mark.parametrize("token", [{}, {"submods": 1}, {"submods": {"cpu0": 1}}])
def test_what_is_no_token_is_refused(token):
    with pytest.raises(FormatError, match="submods"):
        guest_of_token(View(token, what="token"), (), now=NOW)


def test_a_resource_policy_sees_the_init_data_of_the_tee_as_a_broker_shows_it():
    text = 'package policy\nallow if input.imagers.init_data.algorithm == "sha384"\n'
    evidence = {"tdx": {}, "init_data_claims": {"algorithm": "sha384"}}
    one = {"ear.status": "affirming", "ear.veraison.annotated-evidence": evidence}
    assert attempt(text, guest(cpu0=one)).allow
    assert not attempt(text, guest(gpu0=one)).allow
