# SPDX-License-Identifier: Apache-2.0
"""The command as people ask it; each step is tested in tests/unit/evidence/snp."""

import pytest

NONCE = b"n" * 48  # in the report of `snp_words`


def test_attest_verify_tells_each_step_and_the_claims(run, snp_words):
    outcome = run(*snp_words, "--report-data", NONCE.hex())
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert [line[:11] for line in lines[:8]] == [f"yes: step {number}" for number in range(1, 9)]
    assert any(line.startswith("measurement") and "6d6d6d" in line for line in lines)
    assert "certificates for tests stand for AMD's" in outcome.err
    facts = run(*snp_words, "--json").json()
    assert (facts["answer"], facts["claims"]["crl"]) == ("yes", "checked")


def test_attest_verify_takes_the_evidence_of_the_protocol(run, snp_words):
    rest = snp_words[snp_words.index("--crl") :]
    outcome = run(*snp_words[:4], "evidence.json", *rest, "--json")
    assert outcome.json()["answer"] == "yes"


def without(words, option):
    at = words.index(option)
    return words[:at] + words[at + 2 :]


def test_attest_verify_of_genuine_hardware_only_believes_amd(run, snp_words):
    outcome = run(*without(snp_words, "--insecure-test-root"))
    assert outcome.code == 40
    assert "step 2, chain" in outcome.err
    assert "not signed by AMD for Genoa" in outcome.err


@pytest.mark.parametrize(
    ("change", "code", "piece"),
    [
        (lambda w: without(w, "--crl"), 22, "step 3, revocation: there is no list"),
        (lambda w: without(w, "--certificate"), 22, "step 2, chain: there is no certificate"),
        (lambda w: (*w, "--report-data", "00"), 40, "step 8, bound: report data: expected 0000"),
        (lambda w: (*w, "--init-data", "01"), 40, "step 8, bound: init data"),
        (lambda w: (*w, "--report-data", "0g"), 2, "--report-data: expected hex"),
        (lambda w: (*w, "--init-data", "00" * 33), 2, "--init-data: expected at most 32 bytes"),
        (lambda w: (*without(w, "--at"), "--at", "yesterday"), 2, "--at: expected a time"),
        (lambda w: (*without(w, "--at"), "--at", "2026-11-29"), 2, "--at: expected a time"),
        (lambda w: (*w[:4], "vcek.der", *w[5:]), 11, "SNP evidence: is not"),
        (lambda w: (*w[:4], "none.bin", *w[5:]), 13, "none.bin: no such file"),
    ],
)
def test_attest_verify_refuses(run, snp_words, change, code, piece):
    outcome = run(*change(snp_words))
    assert outcome.code == code
    assert piece in outcome.err


def test_attest_verify_without_a_list_says_so_in_the_claims(run, snp_words):
    outcome = run(*without(snp_words, "--crl"), "--without-crl", "--json")
    assert outcome.json()["claims"]["crl"] == "not checked"


def test_attest_verify_that_says_no_is_a_document_too(run, snp_words):
    outcome = run(*snp_words, "--report-data", "00", "--json")
    facts = outcome.json()
    assert (outcome.code, facts["answer"], len(facts["steps"])) == (40, "no", 7)
    assert facts["error"]["type"] == "EvidenceRejected"
