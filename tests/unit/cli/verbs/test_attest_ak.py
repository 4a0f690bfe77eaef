# SPDX-License-Identifier: Apache-2.0
"""The way of an attestation key from a machine to an operator and back, by files."""

from pathlib import Path
from stat import S_IMODE

import pytest

from tests.swtpm import Device, start

LATER = ("--at", "2030-01-01T00:00:00Z")


@pytest.fixture(scope="module")
def swtpm(tmp_path_factory):
    yield from start(tmp_path_factory.mktemp("tpm"))


@pytest.fixture
def device(swtpm):
    Path("vendor.pem").write_bytes(swtpm.authorities)
    device = Device(swtpm)
    yield str(device.path)
    device.close()


def ak(run, *words):
    return run("attest", "ak", *words)


def challenged(run, device):
    assert ak(run, "request", "--device", device, "--output", "request.json").code == 0
    words = ("--ek-root", "vendor.pem", "--secret", "secret.json", "--output", "challenge.json")
    return ak(run, "challenge", "request.json", *words, *LATER)


def test_key_goes_the_whole_way(run, device):
    assert challenged(run, device).code == 0
    assert S_IMODE(Path("secret.json").stat().st_mode) == 0o600
    words = ("answer", "challenge.json", "--device", device, "--output", "answer.json")
    assert ak(run, *words).code == 0
    outcome = ak(run, "accept", "answer.json", "--secret", "secret.json")
    assert outcome.out.startswith("imagers broker reference-value set --add trusted_aks MIIB")
    facts = ak(run, "accept", "answer.json", "--secret", "secret.json", "--json").json()
    assert facts == {"trusted_aks": outcome.out.split()[-1]}
    # What was written is not written over, the secret of a challenge above all.
    words = ("--ek-root", "vendor.pem", "--secret", "secret.json", "--output", "other.json")
    assert ak(run, "challenge", "request.json", *words, *LATER).code == 13


def test_answer_to_another_challenge_is_refused(run, device):
    assert challenged(run, device).code == 0
    Path("answer.json").write_text('{"secret": "AAAA"}')
    outcome = ak(run, "accept", "answer.json", "--secret", "secret.json")
    assert outcome.code == 40
    assert "answer.json: step 3, secret: it is not the one of this challenge" in outcome.err


def test_machine_of_another_vendor_is_refused(run, device):
    words = ("request", "--device", device, "--ek-certificate", "vendor.pem", "--output", "r")
    assert ak(run, *words).code == 0
    outcome = ak(
        run, "challenge", "r", "--ek-root", "vendor.pem", "--secret", "s", "--output", "c", *LATER
    )
    assert outcome.code == 11
    assert "certificate of the endorsement key" in outcome.err
    assert not Path("s").exists()


@pytest.mark.parametrize("handle", ["x", "5", "0x80000000", "0x82000000"])
def test_handle_that_is_none_is_refused(run, handle):
    outcome = ak(run, "request", "--output", "r", "--handle", handle)
    assert outcome.code == 2
    assert "--handle" in outcome.err


def test_machine_without_a_tpm_says_so(run):
    outcome = ak(run, "request", "--output", "r", "--device", "none")
    assert outcome.code == 40
    assert "there is no none" in outcome.err
    assert not Path("r").exists()


def test_environment_says_where_tpm_and_key_are(run, device, monkeypatch):
    monkeypatch.setenv("AA_TPM_DEVICE", device)
    monkeypatch.setenv("AA_TPM_AK_HANDLE", "0x81010042")
    outcome = run("attest", "evidence", "--tee", "tpm")
    assert outcome.code == 40
    assert "the TPM has no key at 0x81010042" in outcome.err
    assert ak(run, "request", "--output", "request.json").code == 0
    evidence = run("attest", "evidence", "--tee", "tpm", "--report-data", "c0ffee")
    assert evidence.code == 0
    Path("evidence.json").write_text(evidence.out)
    verified = run("attest", "verify", "evidence.json", "--report-data", "c0ffee")
    assert verified.code == 22  # nothing of it counts for who does not know the key
    assert "yes  step 5, bound: report data as expected" in verified.out
    monkeypatch.setenv("AA_TPM_AK_HANDLE", "5")
    outcome = run("attest", "evidence", "--tee", "tpm")
    assert outcome.code == 2
    assert "for AA_TPM_AK_HANDLE, got '5'" in outcome.err
