# SPDX-License-Identifier: Apache-2.0
import base64
import json
import sys
from datetime import UTC, datetime

import pytest

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_attester, load_verifier
from imagers.model.evidence import Bound, ReportData
from imagers.model.references import ReferenceValue

NOW = datetime(2026, 11, 1, tzinfo=UTC)
DATA = ReportData(bytes(range(48)))


def verify(body, data=DATA):
    return judge_evidence(
        load_verifier("sample"),
        body,
        bound=Bound(data.digest),
        read=lambda _: None,
        now=NOW,
    )


def test_evidence_is_what_the_peers_send():
    evidence = load_attester("sample").collect(DATA)
    assert evidence.tee == "sample"
    assert evidence.report_data is DATA
    assert json.dumps(evidence.body) == json.dumps(
        {"svn": "1", "report_data": base64.b64encode(DATA.digest).decode()}
    )
    assert "report_data" not in repr(evidence)


def test_verify_own_evidence_gives_the_claims_of_trustee():
    claims = verify(load_attester("sample").collect(DATA).body)
    assert (claims.tee, claims.tee_class, claims.established_at) == ("sample", "cpu", NOW)
    assert claims.values == {
        "svn": "1",
        "launch_digest": "abcde",
        "platform_version": {"major": 1, "minor": 4},
        "debug": False,
    }


def test_sample_evidence_is_never_affirming_where_only_its_digest_is_known():
    claims = verify(load_attester("sample").collect(DATA).body)
    known = {"launch_digest": ReferenceValue("launch_digest", ("abcde",))}
    assert not appraise_claims(claims, known, now=NOW).is_affirming


@pytest.mark.parametrize(
    "digest",
    [b"", bytes(48), DATA.digest[:-1], DATA.digest + b"\0", bytes(10_000)],
    ids=len,
)
def test_verify_other_report_data_rejected(digest):
    with pytest.raises(EvidenceRejected, match="other report data") as caught:
        verify({"svn": "1", "report_data": base64.b64encode(digest).decode()})
    assert caught.value.exit_code == 40


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"svn": 1, "report_data": ""},
        {"svn": "1"},
        {"svn": "1", "report_data": "a"},
        {"svn": "1", "report_data": "\u00e9\u00e9\u00e9\u00e9"},
        {"svn": "1", "report_data": "AA-_"},
    ],
    ids=str,
)
def test_verify_something_else_is_format_error(body):
    with pytest.raises(FormatError, match="sample evidence"):
        verify(body)


def test_plugin_imports_only_what_plugins_may():
    load_attester("sample")
    module = sys.modules["imagers_sample_tee"]
    ours = {
        value.__module__.split(".")[1]
        for value in vars(module).values()
        if getattr(value, "__module__", "").startswith("imagers.")
    }
    assert ours <= {"model", "errors", "net"}
