# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from imagers.cli.machine import attester_of_machine, find_machine, measure_of_machine
from imagers.errors import LocalError, NoTEE, UsageError
from imagers.evidence.plugins import MachineSettings


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("AA_TPM_DEVICE", "AA_TPM_AK_HANDLE", "AAEL_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_tpm_is_where_nobody_says_otherwise():
    assert find_machine() == MachineSettings(None, None)
    assert attester_of_machine("tpm").tee == "tpm"
    assert attester_of_machine("sample").tee == "sample"


def test_environment_says_where_it_is_and_options_win(monkeypatch, tmp_path):
    monkeypatch.setenv("AA_TPM_DEVICE", str(tmp_path / "tpm"))
    monkeypatch.setenv("AA_TPM_AK_HANDLE", "0x81010005")
    assert find_machine() == MachineSettings(tmp_path / "tpm", 0x81010005)
    monkeypatch.setenv("AAEL_PATH", str(tmp_path / "log"))
    assert find_machine().agent_log == tmp_path / "log"
    monkeypatch.delenv("AAEL_PATH")
    assert find_machine("other", "0x81000003") == MachineSettings(Path("other"), 0x81000003)
    for tee in ("tpm", "az-snp-vtpm", "az-tdx-vtpm"):
        assert attester_of_machine(tee).missing() == f"there is no {tmp_path / 'tpm'}"


@pytest.mark.parametrize("handle", ["", "x", "0x80000000", "5"])
def test_handle_that_is_none_is_told_with_who_said_it(monkeypatch, handle):
    if handle:
        with pytest.raises(UsageError, match="for --handle"):
            find_machine(None, handle)
        monkeypatch.setenv("AA_TPM_AK_HANDLE", handle)
        with pytest.raises(UsageError, match="for AA_TPM_AK_HANDLE"):
            find_machine()
    monkeypatch.setenv("AA_TPM_AK_HANDLE", "")
    assert find_machine().handle is None


@pytest.mark.parametrize("register", ["tpm:14", "tpm:15", "rtmr:3"])
def test_machine_without_the_register_is_told(register, monkeypatch, tmp_path):
    monkeypatch.setenv("AAEL_PATH", str(tmp_path / "log"))
    monkeypatch.setenv("AA_TPM_DEVICE", str(tmp_path / "tpm"))
    with pytest.raises(NoTEE, match=r"there is no /.*(tpm|rtmr3:sha384)"):
        measure_of_machine(register).record("PullImage", {})
    assert (tmp_path / "log").read_bytes() == b""


def test_agent_measures_in_place_of_a_register(monkeypatch, tmp_path):
    monkeypatch.setenv("AAEL_PATH", str(tmp_path / "log"))
    with pytest.raises(LocalError, match=f"attestation agent at '{tmp_path}/socket': no such"):
        measure_of_machine(f"agent:{tmp_path}/socket").record("PullImage", {})
    with pytest.raises(LocalError, match="attestation agent at '/run/confidential-containers/"):
        measure_of_machine("agent").record("PullImage", {})


@pytest.mark.parametrize("register", ["", "tpm", "tpm:7", "tpm:10", "tpm:16", "rtmr:2", "agents"])
def test_register_that_is_not_for_measuring_is_refused(register):
    with pytest.raises(UsageError, match="--measure: expected one of tpm:14, tpm:15, rtmr:3"):
        measure_of_machine(register)
