# SPDX-License-Identifier: Apache-2.0
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from imagers.broker.policy.inputs import (
    NAMES,
    Binding,
    ResourceFacts,
    attestation_input,
    reference_inputs,
    request_data,
    resource_input,
    with_request,
)
from imagers.evidence.reference import import_references
from imagers.kbs.resources import parse_resource_path
from imagers.model.digest import parse_digest
from imagers.model.evidence import Claims
from imagers.model.references import ReferenceValue

NOW = datetime(2026, 11, 30, 12, 0, 0, 5, tzinfo=UTC)
NOW_NS = 1796040000000005000
DIGEST = parse_digest("sha256:" + "ab" * 32)
TOKEN = {
    "iss": "x",
    "submods": {
        "cpu0": {
            "ear.status": "affirming",
            "ear.trustworthiness-vector": {"hardware": 2},
            "ear.veraison.annotated-evidence": {"snp": {}},
        }
    },
    "imagers": {"request": {"plugin": "other"}, "image": "sha256:00"},
}
WARNING = SimpleNamespace(status="warning", vector={"hardware": 40})
CLAIMS = Claims(
    tee="tdx",
    tee_class="cpu",
    maker="Intel",
    measured=({"mr_td": "aa"},),
    firmware={"mr_seam": "bb"},
    configured={"xfam": "cc"},
    tcb_status="UpToDate",
    debug=False,
    report_data="00",
    values={"quote": 1},
    established_at=NOW,
)


def test_a_resource_policy_sees_the_request_as_trustees_does():
    path = parse_resource_path("default/app/key")
    assert request_data(path, {"a": "b"}) == {
        "plugin": "resource",
        "resource-path": ["default", "app", "key"],
        "query": {"a": "b"},
    }


def test_a_resource_policy_sees_the_token_as_it_is_appraised_now():
    seen = resource_input(TOKEN, {"cpu0": WARNING}, ResourceFacts(NOW))
    assert seen["iss"] == "x"
    assert seen["submods"] == {
        "cpu0": {
            "ear.status": "warning",
            "ear.trustworthiness-vector": {"hardware": 40},
            "ear.veraison.annotated-evidence": {"snp": {}},
        }
    }
    assert TOKEN["submods"]["cpu0"]["ear.status"] == "affirming"


def test_a_submod_that_nobody_appraised_counts_as_unknown():
    seen = resource_input(TOKEN, {}, ResourceFacts(NOW))
    assert seen["submods"]["cpu0"] == {
        "ear.status": "none",
        "ear.veraison.annotated-evidence": {"snp": {}},
    }
    broken = resource_input({"submods": {"cpu0": 1}}, {}, ResourceFacts(NOW))
    assert broken["submods"] == {"cpu0": {"ear.status": "none"}}
    assert resource_input({}, {}, ResourceFacts(NOW))["submods"] == {}


def test_what_only_we_know_is_below_imagers_and_what_a_token_has_there_is_not():
    facts = ResourceFacts(NOW, image=DIGEST, init_data={"a": 1}, bindings=(Binding(DIGEST),))
    assert resource_input(TOKEN, {}, facts)["imagers"] == {
        "now_ns": NOW_NS,
        "image": str(DIGEST),
        "init_data": {"a": 1},
        "bindings": [{"digest": str(DIGEST), "state": "active", "approvals": 0}],
    }


def test_what_is_not_known_is_not_there():
    assert resource_input(TOKEN, {}, ResourceFacts(NOW))["imagers"] == {
        "now_ns": NOW_NS,
        "bindings": [],
    }


def test_an_attestation_policy_sees_trustees_claims_and_ours():
    evidence = {"tdx": {"quote": 1}, "report_data": "AA==", "imagers": {"debug": True}}
    assert attestation_input(CLAIMS, evidence, expired=("xfam",), now=NOW) == {
        "tdx": {"quote": 1},
        "report_data": "AA==",
        "imagers": {
            "tee": "tdx",
            "maker": "Intel",
            "measured": [{"mr_td": "aa"}],
            "firmware": {"mr_seam": "bb"},
            "configured": {"xfam": "cc"},
            "tcb_status": {"tdx_tcb_status": "UpToDate"},
            "advisories": [],
            "debug": False,
            "counts_if_measured": False,
            "test_root": False,
            "expired": ["xfam"],
            "now_ns": NOW_NS,
        },
    }


def test_reference_values_that_are_over_are_named_and_not_given():
    values = [
        ReferenceValue("c", (1, 2)),
        ReferenceValue("b", ("x",), expires=NOW),
        ReferenceValue("a", ("x",), expires=NOW - timedelta(days=1)),
        ReferenceValue("d", (True,), expires=NOW + timedelta(seconds=1)),
    ]
    assert reference_inputs(values, now=NOW) == ({"c": [1, 2], "d": [True]}, ("a", "b"))


def test_all_members_that_are_ours_are_known_by_name():
    facts = ResourceFacts(NOW, image=DIGEST, init_data={"a": 1}, bindings=(Binding(DIGEST),))
    asked = with_request(resource_input(TOKEN, {}, facts), {})
    judged = attestation_input(CLAIMS, {}, expired=(), now=NOW)
    assert asked["imagers"].keys() | judged["imagers"].keys() == NAMES


def test_reference_values_are_given_as_trustee_registers_them():
    payload = {"major_version": 1, "debug": False, "svn": ["1"], "snp_bootloader": [3, 4]}
    found = import_references(json.dumps(payload).encode()).references
    assert reference_inputs(found, now=NOW) == (payload, ())
