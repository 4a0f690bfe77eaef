# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from imagers.broker.policy.rego.defaults import attestation_policy
from imagers.broker.rules import CLASSES
from imagers.cli.verbs.broker_policy import _CLASSES

REGO = 'package policy\n\ndefault allow := false\n\nallow if data.plugin == "resource"\n'


def test_policy_show_set_reset(run, admin):
    before = run("broker", "policy", "show", *admin).out
    assert json.loads(before)["rules"]
    Path("rules.json").write_text('{"rules": []}')
    assert run("broker", "policy", "set", "rules.json", *admin).code == 0
    assert json.loads(run("broker", "policy", "show", *admin).out)["rules"] == []
    assert run("broker", "policy", "reset", *admin).code == 0
    assert run("broker", "policy", "show", *admin).out == before


def test_policy_with_a_fault_leaves_the_old_one_in_force(run, admin):
    before = run("broker", "policy", "show", *admin).out
    Path("rules.json").write_text('{"rules": [{"effect": "perhaps"}]}')
    outcome = run("broker", "policy", "set", "rules.json", *admin)
    assert outcome.code == 11
    assert outcome.err.startswith("imagers: error: rules.json: resource policy at $.rules[0]")
    assert run("broker", "policy", "show", *admin).out == before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe", "rules.json: is not UTF-8"),
        (b"{" * 300_000, "rules.json: expected at most "),
        (b"", "rules.json: resource policy: is not JSON"),
    ],
)
def test_policy_file_that_is_none_is_a_fault_of_the_file(run, admin, content, told):
    Path("rules.json").write_bytes(content)
    outcome = run("broker", "policy", "set", "rules.json", *admin)
    assert outcome.code == 11
    assert outcome.err.startswith(f"imagers: error: {told}")


def test_policy_in_rego_is_set_shown_and_reset(run, admin):
    before = run("broker", "policy", "show", *admin).out
    Path("ours.rego").write_text(REGO)
    outcome = run("broker", "policy", "set", "ours.rego", *admin)
    assert (outcome.code, outcome.out) == (0, "policy ours.rego is in force\n")
    assert run("broker", "policy", "show", *admin).out == REGO
    assert run("broker", "policy", "show", *admin, "--json").json() == {"text": REGO}
    assert run("broker", "policy", "reset", *admin).code == 0
    assert run("broker", "policy", "show", *admin).out == before


@pytest.mark.parametrize("more", [(), ("--attestation", "cpu")], ids=["resource", "attestation"])
def test_policy_in_rego_with_a_fault_is_told_its_file_and_line(run, admin, more):
    Path("bad.rego").write_text("package policy\n\nallow if cout(input.submods) > 0\n")
    outcome = run("broker", "policy", "set", "bad.rego", *admin, *more)
    assert outcome.code == 11
    assert outcome.err.startswith("imagers: error: bad.rego")
    assert "line 3: there is no function 'cout'" in outcome.err
    assert "the policy that was in force before still is" in outcome.err


def test_attestation_policy_is_set_shown_and_reset(run, admin):
    which = ("--attestation", "cpu", *admin)
    none = run("broker", "policy", "show", *which)
    assert none.code == 10
    assert "has no attestation policy for 'cpu': reference values alone" in none.err
    Path("ours.rego").write_text(attestation_policy())
    outcome = run("broker", "policy", "set", "ours.rego", *which)
    assert outcome.code == 0, outcome.err
    assert outcome.out == (
        "policy ours.rego is in force: it says what evidence of a cpu is worth\n"
    )
    assert run("broker", "policy", "show", *which).out == attestation_policy()
    # It is one of its own beside the resource policy, and that of the other class.
    assert json.loads(run("broker", "policy", "show", *admin).out)["rules"]
    assert run("broker", "policy", "show", "--attestation", "gpu", *admin).code == 10
    assert run("broker", "policy", "reset", *which, "--json").json() == {"policy": None}
    assert run("broker", "policy", "show", *which).code == 10


def test_classes_of_evidence_are_those_of_the_broker():
    assert tuple(_CLASSES) == CLASSES


def test_attestation_of_another_class_is_a_usage_error(run, admin):
    outcome = run("broker", "policy", "show", "--attestation", "npu", *admin)
    assert outcome.code == 2
    assert "cpu" in outcome.err
