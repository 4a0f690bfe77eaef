# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime

import pytest

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.evidence.snp.revocation import crl_name
from imagers.model.evidence import Bound
from imagers.testing.evidence import (
    AzureSNPWorld,
    AzureTDXWorld,
    CCAWorld,
    CSVWorld,
    NitroWorld,
    NVIDIAWorld,
    SGXWorld,
    SNPWorld,
    TDXWorld,
    TPMWorld,
)
from imagers.testing.evidence.wrongs.wrong import BOUND

NOW = datetime(2026, 11, 29, tzinfo=UTC)
WORLDS = [
    AzureSNPWorld,
    AzureTDXWorld,
    CCAWorld,
    CSVWorld,
    NitroWorld,
    NVIDIAWorld,
    SGXWorld,
    SNPWorld,
    TDXWorld,
    TPMWorld,
]


@pytest.fixture(scope="module")
def world():
    return SNPWorld(b"j" * 32, now=NOW)


@pytest.fixture
def judge(world):
    def call(body=None, *, bound=None, **more):
        asked = []
        documents = world.collateral()

        def read(name):
            asked.append(name)
            return documents.get(name)

        more.setdefault("read", read)
        claims = judge_evidence(
            load_verifier("snp", roots=world.roots),
            body or world.evidence(),
            bound=bound or Bound(),
            now=NOW,
            **more,
        )
        return claims, asked

    return call


def test_only_what_is_wanted_is_read(judge, world):
    claims, asked = judge()
    assert asked == [crl_name(world.product, is_vlek=False)]
    assert claims.tee == "snp"
    _, asked = judge(world.evidence(is_certificate_sent=False))
    assert len(asked) == 2


def test_what_is_no_evidence_reads_nothing(judge):
    asked = []
    with pytest.raises(FormatError):
        judge({"attestation_report": {}}, read=asked.append)
    assert asked == []


def test_document_that_is_not_there_is_could_not_look(judge):
    with pytest.raises(CouldNotVerify) as caught:
        judge(read=lambda _: None)
    assert caught.value.step == "3, revocation"
    assert str(caught.value).startswith("step 3, revocation: there is no list")


def test_refusal_has_step_claim_expected_and_found(judge):
    with pytest.raises(EvidenceRejected) as caught:
        judge(bound=Bound(report_data=b"x" * 48))
    error = caught.value
    assert (error.step, error.claim) == ("8, bound", "report data")
    assert error.expected == (b"x" * 48 + bytes(16)).hex()
    assert error.found == bytes(64).hex()


@pytest.mark.parametrize(("least", "holds"), [(None, True), (0, True), (1, True), (2, False)])
def test_document_that_is_older_than_one_that_was_believed_is_refused(judge, least, holds):
    def seen(name):
        return least if name.endswith(" number") else None

    if holds:
        judge(seen=seen)
        return
    with pytest.raises(CouldNotVerify, match=r"vcek\.crl number: expected at least 2, as was seen"):
        judge(seen=seen)


def test_steps_are_told_in_order(judge):
    told = []
    judge(note=told.append)
    assert [one.split(",")[0] for one in told] == [f"step {number}" for number in range(1, 9)]


@pytest.mark.parametrize("kind", WORLDS, ids=lambda one: one.tee)
def test_what_a_guest_sent_and_nobody_can_read_is_told_before_documents_are_looked_at(kind):
    """Else a broker would say that it could not look, and its owner would look for a document."""
    world = kind(b"unreadable evidence of all TEEs."[:32])
    verifier = load_verifier(world.tee, roots=world.roots)
    read, count = world.collateral().get, 0
    for wrong in world.wrongs():
        try:
            judge_evidence(verifier, wrong.body, bound=BOUND, read=read, now=world.now)
        except FormatError:  # with good documents: by the guest's fault
            count += 1
            with pytest.raises(FormatError):
                verifier.wanted(verifier.parse(wrong.body))
        except (CouldNotVerify, EvidenceRejected):
            pass
    assert count > 5
