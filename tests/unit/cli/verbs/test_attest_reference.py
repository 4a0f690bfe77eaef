# SPDX-License-Identifier: Apache-2.0
"""The command as people ask it; what it computes is tested with each TEE."""

import hashlib
import json
from pathlib import Path

import pytest

from imagers.model.references import parse_references
from imagers.testing.evidence.eventlog import BOOT, event_log, replay
from tests.unit.evidence.sgx.test_sigstruct import make_sigstruct
from tests.unit.evidence.snp.test_launch import make_firmware
from tests.unit.evidence.tdx.test_firmware import make_firmware as make_tdvf

SNP = ("fd", "--tee", "snp", "--vcpus", "2", "--vcpu-type", "EPYC-v4")


@pytest.fixture
def files(home):
    assert home
    Path("fd").write_bytes(make_firmware())
    Path("tdvf").write_bytes(make_tdvf())
    Path("ccel").write_bytes(event_log(BOOT))
    Path("x.sig").write_bytes(make_sigstruct())
    Path("debug.sig").write_bytes(make_sigstruct(mask=0))
    Path("two").write_bytes(make_sigstruct() + make_sigstruct(svn=4))


def values(outcome):
    assert outcome.code == 0, outcome.err
    return {one.name: one.values for one in parse_references(outcome.out.encode())}


@pytest.mark.usefixtures("files")
def test_each_tee_gets_the_names_that_its_verifier_compares(run):
    make = ("attest", "reference", "make")
    assert list(values(run(*make, *SNP))) == ["snp_launch_measurement"]
    tdx = values(run(*make, "tdvf", "--tee", "tdx", "--event-log", "ccel"))
    assert list(tdx) == ["mr_td", "rtmr_1", "rtmr_2"]
    registers = replay(BOOT)
    assert [tdx[f"rtmr_{at}"][0] for at in (1, 2)] == [registers[at].hex() for at in (1, 2)]
    assert values(run(*make, "x.sig", "--tee", "sgx")) == {"sgx_mr_enclave": ("65" * 32,)}
    signer = values(run(*make, "x.sig", "--tee", "sgx", "--by-signer"))
    assert list(signer) == ["sgx_mr_signer", "sgx_isv_prod_id", "sgx_isv_svn"]
    assert (signer["sgx_isv_prod_id"], signer["sgx_isv_svn"]) == ((7,), (3,))


@pytest.mark.usefixtures("files")
def test_digest_of_sev_is_of_what_is_measured_there(run):
    make = ("attest", "reference", "make", "fd", "--tee")
    (sev,) = values(run(*make, "sev"))["sev_launch_digest"]
    assert sev == hashlib.sha256(make_firmware()).hexdigest()
    processors = ("--vcpus", "2", "--vcpu-type", "EPYC-v4")
    (es,) = values(run(*make, "sev-es", *processors))["sev_launch_digest"]
    assert (len(es), es != sev) == (64, True)
    assert "sev-es: expected --vcpus" in run(*make, "sev-es").err
    assert "--vcpus is not for sev" in run(*make, "sev", *processors).err
    features = ("--guest-features", "1")
    assert "--guest-features is not for sev-es" in run(*make, "sev-es", *processors, *features).err


@pytest.mark.usefixtures("files")
def test_what_leaves_something_open_is_said(run):
    assert "which kernel runs" in run("attest", "reference", "make", *SNP).err
    assert "RTMR 1 and 2 are open" in run("attest", "reference", "make", "tdvf", "--tee", "tdx").err
    outcome = run("attest", "reference", "make", "debug.sig", "--tee", "sgx")
    assert "debugging of this enclave is allowed: its host can look into it" in outcome.err


@pytest.mark.usefixtures("files")
def test_file_that_is_made_is_shown_and_says_where_it_is_from(run):
    options = ("--expires", "2020-01-01T00:00:00Z", "--output", "ours.json")
    outcome = run("attest", "reference", "make", *SNP, "--source", "OVMF of ours", *options)
    assert (outcome.code, outcome.out) == (0, "")
    shown = run("attest", "reference", "show", "ours.json").out
    assert "2020-01-01, expired" in shown
    assert "OVMF of ours" in shown
    assert run("attest", "reference", "make", *SNP, "--output", "ours.json").code == 13


def test_values_of_trustee_are_taken(run):
    Path("rvps").write_text(json.dumps({"mr_td": ["00"]}))
    assert values(run("attest", "reference", "import", "rvps")) == {"mr_td": ("00",)}


@pytest.mark.parametrize(
    ("words", "code", "piece"),
    [
        (("fd", "--tee", "snp"), 2, "expected --vcpus and --vcpu-type"),
        ((*SNP, "--guest-features", "x"), 2, "--guest-features: expected a number"),
        ((*SNP, "--expires", "soon"), 2, "--expires: expected a time"),
        ((*SNP, "--by-signer"), 2, "--by-signer is not for snp"),
        (("tdvf", "--tee", "tdx", "--vcpus", "1"), 2, "--vcpus is not for tdx"),
        (("x.sig", "--tee", "sgx", "--event-log", "x"), 2, "--event-log is not for sgx"),
        (("two", "--tee", "sgx"), 2, "expected one enclave, got 2"),
        (("x.sig", "--tee", "tdx"), 11, "x.sig: TDX firmware: expected a table"),
        (("none", "--tee", "sgx"), 13, "none: no such file"),
    ],
)
@pytest.mark.usefixtures("files")
def test_what_does_not_fit_is_refused(run, words, code, piece):
    outcome = run("attest", "reference", "make", *words)
    assert outcome.code == code
    assert piece in outcome.err
