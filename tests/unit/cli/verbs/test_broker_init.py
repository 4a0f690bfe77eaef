# SPDX-License-Identifier: Apache-2.0
from pathlib import Path


def test_init_says_how_to_start_and_whom_to_trust(run):
    outcome = run("broker", "init", "broker", "--name", "broker.example.org")
    assert outcome.code == 0, outcome.err
    first, start, trust = outcome.out.splitlines()
    assert first.startswith("made a certificate for broker.example.org, localhost, 127.0.0.1, ::1;")
    assert start == "start the broker: imagers broker serve --config broker/broker.toml"
    assert "--broker-ca broker/ca.pem" in trust


def test_init_makes_a_configuration_that_is_good(run):
    assert run("broker", "init", "here").code == 0
    assert run("broker", "init", "there", "--name", "broker.example.org").code == 0
    here = run("broker", "check-config", "here/broker.toml")
    assert "here/broker.toml is good: listens on 127.0.0.1 port 8443" in here.out
    there = run("broker", "check-config", "there/broker.toml")
    assert "there/broker.toml is good: listens on 0.0.0.0 port 8443" in there.out


def test_init_over_something_is_refused_with_a_hint(run):
    Path("broker").mkdir()
    Path("broker/notes").write_text("mine")
    outcome = run("broker", "init", "broker")
    assert outcome.code == 13
    assert outcome.err == (
        "imagers: error: broker: expected a directory that is not there yet, or is empty\n"
        "imagers: hint: certificates are replaced one by one: docs/broker.md says how\n"
    )
