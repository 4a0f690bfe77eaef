# SPDX-License-Identifier: Apache-2.0
"""The command on a machine that is no TEE; those who collect are tested with their TEEs."""

import pytest

from imagers.evidence import plugins
from imagers.evidence.sgx.collect import SGXAttester


def test_machine_without_a_tee_says_which_were_looked_for_and_where(run):
    outcome = run("attest", "evidence")
    assert outcome.code == 40
    for piece in ("snp: /sys/kernel/config/tsm/report", "/dev/sev-guest", "sgx: /dev/attestation"):
        assert piece in outcome.err


def test_tee_that_is_named_and_not_there_says_where_it_was_looked_for(run):
    outcome = run("attest", "evidence", "--tee", "snp")
    assert outcome.code == 40
    assert "there is no /dev/sev-guest" in outcome.err


def test_evidence_is_printed_as_the_protocol_has_it(run):
    outcome = run("attest", "evidence", "--tee", "sample", "--report-data", "c0ffee")
    assert outcome.code == 0, outcome.err
    facts = run("attest", "evidence", "--tee", "sample", "--report-data", "c0ffee", "--json").json()
    assert (facts["tee"], facts["report_data"]) == ("sample", "c0ffee")
    assert facts["evidence"].keys() == outcome.json().keys()


def test_tee_that_this_machine_is_is_found(run, tmp_path, monkeypatch):
    (tmp_path / "attestation_type").write_text("dcap")
    (tmp_path / "quote").write_bytes(b"quote")
    monkeypatch.setattr(plugins, "_house_attester", lambda *_: SGXAttester(tmp_path))
    assert run("attest", "evidence").json() == {"quote": "cXVvdGU="}
    assert (tmp_path / "user_report_data").read_bytes() == bytes(64)


@pytest.mark.parametrize(
    ("text", "piece"), [("0g", "expected hex"), ("00" * 65, "expected at most 64 bytes")]
)
def test_report_data_that_is_none_is_refused(run, text, piece):
    outcome = run("attest", "evidence", "--report-data", text)
    assert outcome.code == 2
    assert piece in outcome.err
