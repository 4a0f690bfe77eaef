# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from imagers.cli.machine import attester_of_machine, find_tpm
from imagers.errors import UsageError
from imagers.evidence.plugins import TPMSettings


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("AA_TPM_DEVICE", "AA_TPM_AK_HANDLE"):
        monkeypatch.delenv(name, raising=False)


def test_tpm_is_where_nobody_says_otherwise():
    assert find_tpm() == TPMSettings(None, None)
    assert attester_of_machine("tpm").tee == "tpm"
    assert attester_of_machine("sample").tee == "sample"


def test_environment_says_where_it_is_and_options_win(monkeypatch, tmp_path):
    monkeypatch.setenv("AA_TPM_DEVICE", str(tmp_path / "tpm"))
    monkeypatch.setenv("AA_TPM_AK_HANDLE", "0x81010005")
    assert find_tpm() == TPMSettings(tmp_path / "tpm", 0x81010005)
    assert find_tpm("other", "0x81000003") == TPMSettings(Path("other"), 0x81000003)
    for tee in ("tpm", "az-snp-vtpm", "az-tdx-vtpm"):
        assert attester_of_machine(tee).missing() == f"there is no {tmp_path / 'tpm'}"


@pytest.mark.parametrize("handle", ["", "x", "0x80000000", "5"])
def test_handle_that_is_none_is_told_with_who_said_it(monkeypatch, handle):
    if handle:
        with pytest.raises(UsageError, match="for --handle"):
            find_tpm(None, handle)
        monkeypatch.setenv("AA_TPM_AK_HANDLE", handle)
        with pytest.raises(UsageError, match="for AA_TPM_AK_HANDLE"):
            find_tpm()
    monkeypatch.setenv("AA_TPM_AK_HANDLE", "")
    assert find_tpm().handle is None
