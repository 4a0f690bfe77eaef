# SPDX-License-Identifier: Apache-2.0
"""The command writes what a verifier and a guest need, and never over anything."""

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from imagers.errors import FormatError, NoTEE
from imagers.evidence.collateral.directory import CollateralDirectory
from imagers.evidence.judge import judge_evidence, judge_parsed
from imagers.evidence.plugins import load_attester, load_verifier
from imagers.evidence.snp.verify import parse_file
from imagers.model.evidence import Bound, ReportData
from imagers.testing.evidence.make import main

NONCE = b"n" * 48
MEASUREMENT = "61" * 48


@pytest.fixture
def seed(tmp_path):
    path = tmp_path / "seed"
    path.write_bytes(bytes(range(32)))
    return str(path)


def make(seed, out, *more):
    return main(["make", "--tee", "snp", "--seed", seed, "--out", str(out), *more])


@pytest.fixture
def made(tmp_path, seed):
    out = tmp_path / "made"
    assert make(seed, out, "--measurement", MEASUREMENT, "--report-data", NONCE.hex()) == 0
    return out


def test_files_are_all_that_a_verifier_needs(made):
    verifier = load_verifier("snp", roots=(made / "root.pem").read_bytes())
    read = CollateralDirectory(made / "collateral").read
    now = datetime.now(UTC)
    body = json.loads((made / "evidence.json").read_bytes())
    claims = judge_evidence(verifier, body, bound=Bound(NONCE), read=read, now=now)
    assert claims.values["measurement"] == MEASUREMENT
    evidence = parse_file((made / "report.bin").read_bytes(), (made / "vcek.der").read_bytes())
    judge_parsed(verifier, evidence, bound=Bound(NONCE), read=read, now=now)
    raw = parse_file((made / "report.bin").read_bytes())
    judge_parsed(verifier, raw, bound=Bound(NONCE), read=read, now=now)


def test_file_with_the_seed_is_for_its_owner_alone(made):
    holders = [
        path.name
        for path in made.rglob("*")
        if path.is_file() and bytes(range(32)).hex().encode() in path.read_bytes()
    ]
    assert holders == ["tee.json"]
    assert stat.S_IMODE((made / "tee.json").stat().st_mode) == 0o600


def test_guest_of_the_file_is_the_machine(made, monkeypatch):
    monkeypatch.setenv("IMAGERS_TEST_TEE", str(made / "tee.json"))
    with pytest.warns(UserWarning, match="it proves nothing"):
        attester = load_attester("snp-test")
    evidence = attester.collect(ReportData(b"x" * 48))
    assert evidence.tee == "snp"
    verifier = load_verifier("snp", roots=(made / "root.pem").read_bytes())
    read = CollateralDirectory(made / "collateral").read
    claims = judge_evidence(
        verifier, evidence.body, bound=Bound(b"x" * 48), read=read, now=datetime.now(UTC)
    )
    assert claims.values["measurement"] == MEASUREMENT


def test_machine_with_a_device_has_two_files(made, seed, tmp_path, monkeypatch):
    gpu = tmp_path / "gpu"
    assert make(seed, gpu, "--tee", "nvidia") == 0
    monkeypatch.setenv("IMAGERS_TEST_TEE", f"{made / 'tee.json'}{os.pathsep}{gpu / 'tee.json'}")
    with pytest.warns(UserWarning, match="it proves nothing"):
        assert [load_attester(f"{one}-test").tee for one in ("nvidia", "snp")] == ["nvidia", "snp"]
    with pytest.raises(NoTEE, match="expected a machine of the TEE 'tdx', got 'snp', 'nvidia'"):
        load_attester("tdx-test")


def test_nothing_is_written_over(made, seed, capsys):
    before = (made / "tee.json").read_bytes()
    assert make(seed, made) == 13
    assert "file exists" in capsys.readouterr().err
    assert (made / "tee.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "code", "piece"),
    [
        (["--measurement", "61"], 11, "measurement: expected 48 bytes in hex"),
        (["--init-data", "x"], 11, "init_data: expected at most 32 bytes in hex"),
        (["--seed", "/nowhere"], 13, "no such file"),
        (["--seed", os.devnull], 13, "expected a seed of 32 bytes, got 0"),
    ],
)
def test_what_is_wrong_is_said_and_leaves_nothing(tmp_path, seed, capsys, more, code, piece):
    assert make(seed, tmp_path / "out", *more) == code
    assert piece in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_report_data_that_is_no_hex_is_a_usage_error(tmp_path, seed, capsys):
    with pytest.raises(SystemExit, match="2"):
        make(seed, tmp_path / "out", "--report-data", "x")
    assert "--report-data: expected hex" in capsys.readouterr().err


def test_command_runs_as_a_program(tmp_path, seed):
    command = [sys.executable, "-m", "imagers.testing.evidence"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "make" in helped.stdout
    out = tmp_path / "program"
    arguments = ["make", "--tee", "snp", "--seed", seed, "--out", str(out)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
    assert (out / "collateral" / "snp" / "Genoa" / "vcek.crl").is_file()
    assert os.listdir(out / "collateral") == ["snp"]


@pytest.mark.parametrize(
    ("document", "error", "piece"),
    [
        (None, NoTEE, "no such file"),
        (b"{}", FormatError, "tee"),
        (b'{"tee": "snp", "seed": "07"}', FormatError, "expected 32 bytes in hex"),
    ],
)
def test_plugin_without_a_machine_says_what_is_missing(
    tmp_path, monkeypatch, document, error, piece
):
    path = tmp_path / "tee.json"
    if document is not None:
        path.write_bytes(document)
    monkeypatch.setenv("IMAGERS_TEST_TEE", str(path))
    with pytest.raises(error, match=piece):
        load_attester("snp-test")
    monkeypatch.delenv("IMAGERS_TEST_TEE")
    with pytest.raises(NoTEE, match="IMAGERS_TEST_TEE is not set") as caught:
        load_attester("snp-test")
    assert "make --tee snp" in caught.value.hint
