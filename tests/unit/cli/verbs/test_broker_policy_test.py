# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from imagers.broker.policy.rego.defaults import attestation_policy
from imagers.broker.policy.table import DEFAULT_POLICY
from imagers.model.strict_json import dump_json
from imagers.testing.evidence import SNPWorld

TEST = ("broker", "policy", "test")
DIGEST = "sha256:" + "ab" * 32
SUBMOD = {
    "ear.status": "affirming",
    "ear.trustworthiness-vector": {"hardware": 2},
    "ear.veraison.annotated-evidence": {"snp": {"measurement": "aa"}},
}
REGO = """package policy

default allow := false

allow if input.imagers.image == input.imagers.bindings[_].digest

rule := "of the image" if allow

reason := "it names another image" if not allow
"""
ASKED = ("--claims", "token.json", "--resource", "kbs:///a/b/c")
BOUND = ("--image", DIGEST, "--bound", DIGEST)


@pytest.fixture(autouse=True)
def files(home):  # noqa: ARG001 - the place of all that is written
    Path("token.json").write_bytes(dump_json({"submods": {"cpu0": SUBMOD}}))
    Path("table.json").write_text(DEFAULT_POLICY)
    Path("image.rego").write_text(REGO)
    Path("ours.rego").write_text(attestation_policy())


def test_a_table_says_its_rule_and_what_it_saw(run):
    outcome = run(*TEST, "table.json", *ASKED, *BOUND)
    assert outcome.code == 0
    assert outcome.out.startswith("yes, rule 'bound-image' allows it\n")
    assert outcome.out.splitlines()[3].split() == ["tee", "snp"]


def test_a_table_that_denies_says_why(run):
    outcome = run(*TEST, "table.json", *ASKED, "--image", DIGEST)
    assert outcome.code == 21
    assert "rule 'bound-image' does not apply: the resource is not bound" in outcome.err
    warned = {"submods": {"cpu0": SUBMOD | {"ear.status": "warning"}}}
    Path("token.json").write_bytes(dump_json(warned))
    outcome = run(*TEST, "table.json", *ASKED, *BOUND)
    assert outcome.code == 21
    assert "this guest is not known as one of the operator's" in outcome.err


def test_a_policy_in_rego_says_its_rule_and_what_it_saw(run):
    outcome = run(*TEST, "image.rego", *ASKED, *BOUND)
    assert outcome.code == 0
    assert outcome.out.startswith("yes, rule 'of the image' allows it\n")
    assert ["imagers.image", f"{DIGEST[:60]}..."] in [
        row.split() for row in outcome.out.splitlines()
    ]


def test_a_policy_in_rego_that_denies_says_why_and_what_was_not_there(run):
    outcome = run(*TEST, "image.rego", *ASKED)
    assert outcome.code == 21
    assert outcome.err == "imagers: error: it names another image\n"
    assert "imagers.image     (not there)" in outcome.out
    facts = run(*TEST, "image.rego", *ASKED, "--json").json()
    assert facts["answer"] == "no"
    assert facts["absent"] == ["imagers.image"]
    assert facts["seen"] == {"imagers": {"bindings": []}}


def test_evidence_is_judged_and_compared_with_reference_values(run):
    world = SNPWorld(b"a policy is tried on evidence...")
    Path("evidence.json").write_bytes(dump_json(world.evidence()))
    Path("roots.pem").write_bytes(world.roots)
    for name, data in world.collateral().items():
        path = Path("collateral", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    words = ["--tee", "snp", "--collateral", "collateral", "--insecure-test-root", "roots.pem"]
    words += ["--at", world.now.isoformat()]
    value = {"name": "snp_launch_measurement", "values": [world.measurement.hex()]}
    Path("values.json").write_text(json.dumps({"reference_values": [value]}))
    known = ("--reference", "values.json")
    evidence = ("--evidence", "evidence.json", *words)
    outcome = run(*TEST, "ours.rego", *evidence)
    assert outcome.code == 21
    assert "the evidence is not affirming: cpu0 warning" in outcome.err
    outcome = run(*TEST, "ours.rego", *evidence, *known)
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, "cpu0 is affirming")
    claims = run("attest", "verify", "evidence.json", *words, "--json").out
    Path("claims.json").write_text(claims)
    for file in ("ours.rego", "table.json"):
        asked = ("--claims", "claims.json", *known, "--resource", "kbs:///a/b/c", *BOUND)
        assert run(*TEST, file, *asked).code == 0
    Path("evidence.json").write_text("{}")
    assert run(*TEST, "ours.rego", *evidence).code == 11


@pytest.mark.parametrize(
    ("words", "code", "piece"),
    [
        (("table.json",), 2, "expected one of --claims and --evidence"),
        (("table.json", *ASKED, "--evidence", "x"), 2, "expected one of --claims"),
        (("image.rego", "--claims", "token.json"), 2, "and none is named"),
        (("table.json", "--claims", "token.json"), 2, "and none is named"),
        (("none", *ASKED), 13, "none: no such file"),
        (("image.rego", "--claims", "table.json"), 11, "expected the claims of a token"),
        (("image.rego", *ASKED, "--image", "x"), 11, "--image"),
        (("image.rego", *ASKED, "--bound", "x"), 11, "--bound"),
        (("image.rego", "--claims", "token.json", "--resource", "x"), 11, "--resource"),
        (("bad.rego", *ASKED), 11, "bad.rego at line 2: there is no function 'nope'"),
        (("latin.rego", *ASKED), 11, "latin.rego: is not UTF-8"),
    ],
)
def test_what_cannot_be_tried_is_said(run, words, code, piece):
    Path("bad.rego").write_text("package policy\nallow if nope(1)\n")
    Path("latin.rego").write_bytes(b"# \xe9")
    outcome = run(*TEST, *words)
    assert outcome.code == code
    assert piece in outcome.err
    assert outcome.err.count("imagers: error: ") == 1
