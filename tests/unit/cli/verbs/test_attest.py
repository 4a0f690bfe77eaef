# SPDX-License-Identifier: Apache-2.0
"""The command as people ask it; each step is tested in tests/unit/evidence."""

import json
from pathlib import Path

import pytest

from imagers.testing.evidence import CSVWorld
from imagers.testing.evidence.make import write_collateral

NONCE = b"n" * 48  # in the report of `snp_words`
NAME = "snp_launch_measurement"


def without(words, option):
    at = words.index(option)
    return words[:at] + words[at + 2 :]


def in_place_of(words, old, new):
    return tuple(new if word == old else word for word in words)


def policy(**members):
    Path("policy.json").write_text(json.dumps(members))
    return ("--policy", "policy.json")


def test_attest_verify_tells_each_step_and_the_claims(run, snp_words, snp_world):
    outcome = run(*snp_words, "--report-data", NONCE.hex())
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "yes  genuine evidence of the TEE snp: AMD, VCEK of a Genoa"
    assert [line[:13] for line in lines[1:9]] == [f"  yes  step {n}" for n in range(1, 9)]
    assert any(line.startswith(NAME) and snp_world.measurement.hex() in line for line in lines)
    assert "certificates for tests stand for the vendor's" in outcome.err
    facts = run(*snp_words, "--json").json()
    assert (facts["answer"], facts["values"]["crl"]) == ("yes", "checked")
    assert facts["claims"]["test_root"]
    assert "appraisal" not in facts


@pytest.mark.parametrize("more", [(), ("--tee", "snp")])
def test_attest_verify_takes_the_evidence_of_the_protocol(run, snp_words, more):
    outcome = run(*in_place_of(snp_words, "report.bin", "evidence.json"), *more, "--json")
    assert outcome.json()["answer"] == "yes"


def test_attest_verify_takes_a_certificate_where_the_evidence_has_none(run, snp_words):
    for path in Path("collateral").rglob("*.vcek"):
        path.unlink()
    assert run(*snp_words).code == 22
    assert run(*snp_words, "--certificate", "vcek.der").code == 0


def test_attest_verify_says_whose_guest_it_is(run, snp_words, snp_world):
    outcome = run(*snp_words, "--reference", "ours.json")
    assert outcome.code == 0, outcome.err
    assert "yes  a guest of yours: affirming" in outcome.out
    assert f"  yes  executables: {NAME} is {snp_world.measurement.hex()}" in outcome.out
    appraisal = run(*snp_words, "--reference", "ours.json", "--json").json()["appraisal"]
    assert (appraisal["status"], appraisal["vector"]["executables"]) == ("affirming", 3)


def test_attest_verify_of_anothers_guest_is_no_and_says_what_would_admit_it(
    run, snp_words, snp_world
):
    value = {"name": NAME, "values": ["ab" * 48], "source": "the build of May"}
    words = (*snp_words, *policy(reference_values=[value]))
    outcome = run(*words)
    assert outcome.code == 40
    assert "yes  genuine evidence" in outcome.out
    assert "no   a guest of yours: warning" in outcome.out
    found = snp_world.measurement.hex()
    line = f"executables: {NAME}: expected {'ab' * 48} (from the build of May), got {found}"
    assert f"  no   {line}" in outcome.out
    assert f"imagers broker reference-value set --add {NAME} {found}" in outcome.out
    assert "the evidence is genuine, and the guest is not yours" in outcome.err
    facts = run(*words, "--json").json()
    (comparison, debug) = facts["appraisal"]["comparisons"]
    assert (comparison["holds"], comparison["source"]) == (False, "the build of May")
    assert debug["holds"]


def test_attest_verify_with_an_empty_policy_knows_nobody(run, snp_words):
    outcome = run(*snp_words, *policy())
    assert outcome.code == 40
    assert "there is no reference value" in outcome.out


def test_attest_diff_shows_only_what_is_not_as_wanted(run, snp_words, snp_world):
    ours = {"name": NAME, "values": [snp_world.measurement.hex()]}
    words = ("attest", "diff", "report.bin", "policy.json", *snp_words[3:])
    policy(reference_values=[ours, {"name": "snp_snp_svn", "values": [9]}])
    outcome = run(*words)
    assert outcome.code == 40
    assert outcome.out.splitlines() == [
        "no   a guest of yours: contraindicated",
        "  no   hardware: snp_snp_svn: expected 9, got 8; no reference value equals it",
        "         if this guest is yours: imagers broker reference-value set --add snp_snp_svn 8",
    ]
    assert outcome.err.endswith("reference-value set --add snp_snp_svn 8\n")
    values = [{"name": f"snp_{one}_svn", "values": [9]} for one in ("snp", "tee")]
    policy(reference_values=[ours, *values])
    outcome = run(*words)
    assert outcome.out.count("if this guest is yours: ") == len(values)
    assert outcome.err.endswith("set --add snp_snp_svn 8, and 1 more above\n")
    policy(reference_values=[ours])
    outcome = run(*words)
    assert (outcome.code, outcome.out) == (0, "")


def test_attest_diff_of_what_is_not_genuine_ends_at_the_step(run, snp_words):
    policy()
    words = ("attest", "diff", "report.bin", "policy.json", *snp_words[3:])
    outcome = run(*words, "--report-data", "00")
    assert outcome.code == 40
    assert outcome.out.startswith("no   genuine evidence of the TEE snp\n  no   step 8, bound: ")
    assert "yours" not in outcome.out


def test_attest_verify_of_genuine_hardware_only_believes_amd(run, snp_words):
    outcome = run(*without(snp_words, "--insecure-test-root"))
    assert outcome.code == 40
    assert "step 2, chain" in outcome.err
    assert "not signed by AMD for Genoa" in outcome.err


@pytest.mark.parametrize(
    ("change", "code", "piece"),
    [
        (lambda w: without(w, "--collateral"), 22, "step 2, chain: there is no certificate"),
        (lambda w: (*w, "--report-data", "00"), 40, "step 8, bound: report data: expected 0000"),
        (lambda w: (*w, "--init-data", "01"), 40, "step 8, bound: init data"),
        (lambda w: (*w, "--report-data", "0g"), 2, "--report-data: expected hex"),
        (lambda w: (*w, "--init-data", "00" * 65), 2, "--init-data: expected at most 64 bytes"),
        (lambda w: (*without(w, "--at"), "--at", "yesterday"), 2, "--at: expected a time"),
        (lambda w: (*without(w, "--at"), "--at", "2026-11-29"), 2, "--at: expected a time"),
        (lambda w: (*without(w, "--at"), "--at", "0001-01-01T00:00+01:00"), 2, "--at: expected a"),
        (
            lambda w: (*without(w, "--at"), "--at", "2099-01-01T00:30+01:00"),
            40,
            "not valid at 2098-12-31T23:30:00Z",
        ),
        (lambda w: in_place_of(w, "report.bin", "vcek.der"), 11, "vcek.der: is evidence of none"),
        (
            lambda w: (*in_place_of(w, "report.bin", "vcek.der"), "--tee", "snp"),
            11,
            "SNP evidence: expected a report of 1184 bytes",
        ),
        (lambda w: in_place_of(w, "report.bin", "none.bin"), 13, "none.bin: no such file"),
        (lambda w: (*w, "--reference", "evidence.json"), 11, "evidence.json"),
        (lambda w: (*w, "--policy", "ours.json", "--tee", "toy"), 2, "expected a TEE among"),
    ],
)
def test_attest_verify_refuses(run, snp_words, change, code, piece):
    outcome = run(*change(snp_words))
    assert outcome.code == code
    assert piece in outcome.err


@pytest.mark.parametrize(
    ("members", "piece"),
    [
        ({"tees": {"snp": {"crl": "no"}}}, "expected 'required' or 'optional'"),
        ({"tees": {"snp": {"vmpl": 1}}}, "unknown member 'vmpl'"),
        ({"tees": {"toy": {}}}, "unknown member 'toy'"),
        ({"tee": {}}, "unknown member 'tee'"),
        ({"tees": {"snp": {"minimum_tcb": {"snp": 1}}}}, "$.tees.snp.minimum_tcb"),
    ],
    ids=str,
)
def test_attest_verify_with_what_is_no_policy_is_a_format_error(run, snp_words, members, piece):
    outcome = run(*snp_words, *policy(**members))
    assert outcome.code == 11
    assert "policy.json" in outcome.err
    assert piece in outcome.err


def test_attest_verify_without_a_list_says_so_in_the_claims(run, snp_words, snp_world):
    for path in Path("collateral").rglob("*.crl"):
        path.unlink()
    assert run(*snp_words).code == 22
    ours = {"name": NAME, "values": [snp_world.measurement.hex()]}
    words = policy(tees={"snp": {"crl": "optional"}}, reference_values=[ours])
    facts = run(*snp_words, *words, "--json").json()
    assert (facts["answer"], facts["values"]["crl"]) == ("yes", "not checked")


def test_attest_verify_that_says_no_is_a_document_too(run, snp_words):
    outcome = run(*snp_words, "--report-data", "00", "--json")
    facts = outcome.json()
    assert (outcome.code, facts["answer"], len(facts["steps"])) == (40, "no", 7)
    assert facts["error"]["type"] == "EvidenceRejected"
    assert facts["refused"] == {
        "step": "8, bound",
        "claim": "report data",
        "expected": "00" * 64,
        "found": NONCE.hex() + "00" * 16,
    }


def test_attest_verify_that_says_no_at_once_is_a_document_too(run, snp_words):
    raw = bytearray(Path("report.bin").read_bytes())
    raw[0x189] = 1  # a Milan
    Path("report.bin").write_bytes(raw)
    outcome = run(*snp_words, "--certificate", "vcek.der", "--json")
    facts = outcome.json()
    assert (outcome.code, facts["answer"], facts["steps"]) == (40, "no", [])
    assert facts["refused"]["step"] == "1, product"


@pytest.fixture
def csv_words(home):
    """Looking at a report of CSV of version 1, whose values are signed only together."""
    world = CSVWorld(b"c" * 32)
    assert home
    write_collateral(world.collateral(), Path("collateral"))
    Path("root.pem").write_bytes(world.roots)
    Path("report.bin").write_bytes(world.report(version=1))
    value = {"name": "csv_v1_measure", "values": [world.measurement.hex()]}
    Path("ours.json").write_text(json.dumps({"reference_values": [value]}))
    options = ("--collateral", "collateral", "--insecure-test-root", "root.pem")
    return ("attest", "verify", "report.bin", *options)


def test_attest_verify_believes_nothing_that_counts_with_its_measurement_alone(run, csv_words):
    outcome = run(*csv_words)
    assert outcome.code == 22
    assert "counts only where its measurement equals a reference value" in outcome.err
    assert "could not look  what this evidence says counts only" in outcome.out
    assert run(*csv_words, "--json").json()["answer"] == "could not look"
    assert run(*csv_words, "--reference", "ours.json").code == 0
    other = {"reference_values": [{"name": "csv_v1_measure", "values": ["00" * 32]}]}
    Path("other.json").write_text(json.dumps(other))
    refused = run(*csv_words, "--reference", "other.json")
    assert refused.code == 40
    assert "the guest is not yours: contraindicated" in refused.err
    assert "reference-value set" not in refused.out + refused.err
