# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from imagers.settings import read_settings


def test_check_config_says_what_a_broker_would_do_and_makes_nothing(run):
    Path("etc").mkdir()
    Path("etc/broker.toml").write_text(
        'listen = "127.0.0.1:8443"\ntee = ["snp", "tdx"]\nstate = "state"\n'
    )
    outcome = run("broker", "check-config", "etc/broker.toml")
    assert outcome.out == (
        "etc/broker.toml is good: listens on 127.0.0.1 port 8443; TEEs: snp, tdx\n"
    )
    facts = run("broker", "check-config", "etc/broker.toml", "--json").json()
    assert facts["state"] == "etc/state"
    assert [str(path) for path in Path().rglob("*")] == ["etc", "etc/broker.toml"]
    assert not read_settings().collateral.exists()


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ('listn = "127.0.0.1:1"', 11, "got 'listn'\nimagers: hint: write 'listen'\n"),
        ('zzz = "1"', 11, "got 'zzz'\nimagers: hint: there are state, "),
        ('config = "other.toml"', 11, "got 'config'"),
        ("debug = true", 11, "got 'debug'"),
        ("listen = 8080", 11, "at listen: expected a string, got a number"),
        ('tee = "snp"', 11, "at tee: expected a list, got a string"),
        ("tee = [1]", 11, "at tee[0]: expected a string, got a number"),
        ('allow-sample-tee = "no"', 11, "at allow-sample-tee: expected true or false"),
        ('log-format = "xml"', 11, "at log-format: expected 'text' or 'json', got 'xml'"),
        ("listen =", 11, "broker.toml: is no TOML: invalid value"),
        ('listen = "8080"', 2, "--listen: expected HOST:PORT"),
        ('listen = ""', 2, "expected a value for --listen, got an empty one"),
        ('listen = "0.0.0.0:0"', 2, "expected a certificate"),
        ('trusted-proxy = ["x"]', 2, "expected the address or network of a proxy"),
        ('certificate = "none"\ncertificate-key = "none"', 13, "cannot be used"),
        ('appraisal-policy = "none"', 13, "the appraisal policy cannot be read"),
        ('tee = ["nosuch"]', 50, "nosuch"),
        ('tee = ["sample"]', 2, "the sample TEE proves nothing"),
    ],
)
def test_check_config_of_a_file_with_a_fault_says_which(run, text, code, told):
    Path("broker.toml").write_text(text + "\n")
    outcome = run("broker", "check-config", "broker.toml")
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err
    assert outcome.err == run("broker", "serve", "--config", "broker.toml").err


def test_config_file_that_is_not_there_is_local_error(run):
    outcome = run("broker", "check-config", "none.toml")
    assert outcome.code == 13
    assert "none.toml" in outcome.err
