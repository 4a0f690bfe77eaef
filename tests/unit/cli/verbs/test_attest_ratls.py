# SPDX-License-Identifier: Apache-2.0
"""A broker in an enclave, as its guests and administrators see it."""

import json
import stat
from pathlib import Path

import pytest

from imagers.broker.config import BrokerConfig
from imagers.broker.server import running
from imagers.model.strict_json import dump_json
from imagers.testing.evidence.machine import Machine
from imagers.testing.evidence.make import write_collateral

REFERENCES = "reference_values"

pytestmark = pytest.mark.filterwarnings("ignore:evidence of the TEE .* is made up")


@pytest.fixture(params=["sgx", "tdx"])
def machine(request, home, monkeypatch):
    """A machine for tests, which `--tee NAME-test` is; its root and its documents are there."""
    one = Machine(tee=request.param, seed=b"t" * 32)
    world = one.world()
    (home / "tee.json").write_bytes(dump_json(one.to_json()))
    (home / "root.pem").write_bytes(world.roots)
    write_collateral(world.collateral(), home / ".local/state/imagers/collateral")
    monkeypatch.setenv("IMAGERS_TEST_TEE", str(home / "tee.json"))
    return one


@pytest.fixture
def made(run, machine):
    outcome = run("attest", "ratls", "broker.pem", "broker.key", "--tee", f"{machine.tee}-test")
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture
def reference(run, made, home):
    """A file with what the broker runs."""
    assert made.code == 0
    root = ("--insecure-test-root", home / "root.pem")
    told = json.loads(run("attest", "verify", "broker.pem", *root, "--json").out)
    values = [
        {"name": name, "values": [one]} for name, one in told["claims"]["measured"][0].items()
    ]
    path = home / "ours.json"
    path.write_text(json.dumps({REFERENCES: values}))
    return path


@pytest.fixture
def broker(made, tmp_path):
    """A broker with the certificate, and the words that name it for its administrator."""
    assert made.code == 0
    here = tmp_path / "here"
    config = BrokerConfig(
        state_directory=tmp_path / "state",
        port=0,
        allow_sample_tee=True,
        certificate_file=here / "broker.pem",
        certificate_key_file=here / "broker.key",
    )
    with running(config) as one:
        yield "--broker", one.url, "--broker-admin-key", one.admin_key_file


@pytest.fixture
def root(machine, home):
    return "--insecure-test-root", f"{machine.tee}={home / 'root.pem'}"


def test_certificate_and_key_are_made_once_and_the_key_for_its_owner_only(
    run, made, machine, tmp_path
):
    key = tmp_path / "here/broker.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert f"evidence of the TEE {machine.tee}, for the key broker.key, valid to" in made.out
    before = key.read_bytes()
    again = run("attest", "ratls", "broker.pem", "broker.key", "--tee", f"{machine.tee}-test")
    assert (again.code, key.read_bytes()) == (13, before)


def test_no_key_is_left_where_there_is_no_place_for_its_certificate(run, machine):
    words = ("--tee", f"{machine.tee}-test")
    Path("broker.pem").write_bytes(b"another")
    assert run("attest", "ratls", "broker.pem", "broker.key", *words).code == 13
    assert not Path("broker.key").exists()
    assert Path("broker.pem").read_bytes() == b"another"


def test_one_file_is_not_both_certificate_and_key(run, machine):
    outcome = run("attest", "ratls", "one.pem", "./one.pem", "--tee", f"{machine.tee}-test")
    assert outcome.code == 2
    assert "a file for each of CERTIFICATE and KEY, got './one.pem' twice" in outcome.err
    assert not Path("one.pem").exists()


def test_broker_in_an_enclave_is_spoken_to_by_what_it_runs(run, broker, reference, root):
    outcome = run("broker", "list", *broker, "--broker-reference", reference, *root, "--json")
    assert (outcome.code, json.loads(outcome.out)) == (0, {"uris": []})


def test_broker_may_be_described_by_a_variable(run, broker, reference, root, monkeypatch):
    monkeypatch.setenv("IMAGERS_BROKER_REFERENCE", str(reference))
    assert run("broker", "list", *broker, *root).code == 0


def test_broker_that_runs_something_else_gets_not_a_byte(run, broker, reference, root, machine):
    document = json.loads(reference.read_text())
    document[REFERENCES][0]["values"] = ["00" * 48]
    reference.write_text(json.dumps(document))
    outcome = run("broker", "list", *broker, "--broker-reference", reference, *root)
    assert outcome.code == 40
    assert f"step 5, ours: the peer is a genuine machine of the TEE '{machine.tee}'" in outcome.err


def test_broker_under_a_root_for_tests_is_refused_where_nobody_said_so(run, broker, reference):
    outcome = run("broker", "list", *broker, "--broker-reference", reference)
    assert outcome.code in (22, 40)
    assert "step 1, chain" in outcome.err


def test_broker_with_ra_tls_is_nobodys_without_a_reference(run, broker, home, root):
    """Any machine of a TEE would be a broker."""
    outcome = run("broker", "list", *broker)
    assert outcome.code == 10
    assert "--broker-reference FILE" in outcome.err
    (home / "none.json").write_text("{}")
    outcome = run("broker", "list", *broker, "--broker-reference", home / "none.json", *root)
    assert outcome.code == 11
    assert "any machine of a TEE would be a broker" in outcome.err


def test_reference_and_ca_exclude_each_other(run, broker, reference):
    words = ("--broker-reference", reference, "--broker-ca", "broker.pem")
    outcome = run("broker", "list", *broker, *words)
    assert outcome.code == 2
    assert "--broker-reference and --broker-ca exclude each other" in outcome.err


def test_reference_is_for_a_broker_with_https(run, reference):
    words = ("--broker", "http://127.0.0.1:1", "--broker-reference", reference)
    outcome = run("broker", "list", *words)
    assert outcome.code == 2
    assert "expected a broker with https" in outcome.err


def test_verify_of_a_certificate_looks_at_its_key(run, machine, home, reference):
    root = ("--insecure-test-root", home / "root.pem")
    outcome = run("attest", "verify", "broker.pem", *root, "--reference", reference)
    assert outcome.code == 0, outcome.err
    other = "sgx" if machine.tee == "tdx" else "tdx"
    assert run("attest", "verify", "broker.pem", "--tee", other).code == 2
    over = run("attest", "verify", "broker.pem", *root, "--at", "2126-01-01T00:00:00Z")
    assert (over.code, "step 1, certificate: validity" in over.err) == (40, True)
    assert run("attest", "verify", "broker.pem", "--report-data", "00").code == 2
    (home / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
    assert run("attest", "verify", home / "bad.pem").code == 11


def test_json_tells_what_was_made(run, machine):
    words = ("attest", "ratls", "a.pem", "a.key", "--tee", f"{machine.tee}-test", "--days", "7")
    told = json.loads(run(*words, "--json").out)
    assert told.keys() == {"certificate", "key", "tee", "not_after"}
    assert told["tee"] == machine.tee
