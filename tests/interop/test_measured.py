# SPDX-License-Identifier: Apache-2.0
"""A pull that is measured into a TPM in software, and what its evidence says to a verifier."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagers.evidence.ccel import digest_by, join_logs, make_header, make_record, parse_records
from imagers.evidence.tpm.collect import PCR
from imagers.model.base64 import encode_base64
from imagers.model.digest import digest_of
from imagers.model.references import ReferenceValue
from imagers.testing import EmbeddedBroker, EmbeddedRegistry, make_image, make_tar
from tests.swtpm import Device, start

REPORT_DATA = "c0ffee"


class Guest:
    """A machine with a TPM, whose log and images are in a directory."""

    def __init__(self, here, device):
        self.here, self.device = here, device
        (here / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        for name in ("one", "two"):
            make_image(make_tar((name, b"1")), config={"config": {"Cmd": ["/x"]}}).save(here / name)

    @property
    def log(self):
        return self.here / "log"

    def run(self, *words, code=0):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.here),
            "IMAGERS_STORE": str(self.here / "store"),
            "XDG_RUNTIME_DIR": str(self.here),
            "AA_TPM_DEVICE": str(self.device),
            "AAEL_PATH": str(self.log),
        }
        command = [sys.executable, "-m", "imagers", *map(str, words)]
        done = subprocess.run(
            command, cwd=self.here, env=environment, capture_output=True, text=True, check=False,
            timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done

    def pull(self, name, bundle, *, register="tpm:14", code=0):
        shutil.rmtree(self.here / bundle, ignore_errors=True)
        words = ("--policy", "policy.json", "--platform", "linux/amd64", "--measure", register)
        done = self.run("pull", f"oci:{name}", bundle, *words, "--json", code=code)
        return json.loads(done.stdout) if code == 0 else done.stderr

    def evidence(self, **changes):
        words = ("attest", "evidence", "--tee", "tpm", "--report-data", REPORT_DATA)
        body = json.loads(self.run(*words).stdout) | changes
        (self.here / "evidence.json").write_text(json.dumps(body))

    def verify(self, code=0):
        """The events of PCR 14 and 15 that a verifier finds; where it says no, its words."""
        if not (self.here / "ours.json").exists():
            words = ("attest", "verify", "evidence.json", "--tee", "tpm", "--json")
            looked = json.loads(self.run(*words, code=22).stdout)
            (way, *_) = looked["claims"]["measured"]
            values = [{"name": name, "values": [one]} for name, one in way.items()]
            (self.here / "ours.json").write_text(json.dumps({"reference_values": values}))
        words = ("evidence.json", "--report-data", REPORT_DATA, "--reference", "ours.json")
        done = self.run("attest", "verify", *words, "--json", code=code)
        if code:
            return done.stderr
        claims = json.loads(done.stdout)["values"]
        return [
            (one["index"], one["details"]["data"])
            for one in claims.get("uefi_event_logs", [])
            if one["digest_matches_event"]
        ]


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    for tpm in start(tmp_path_factory.mktemp("tpm")):
        device = Device(tpm)
        try:
            yield device.path
        finally:
            device.close()


@pytest.fixture(scope="module")
def guest(device, tmp_path_factory):
    guest = Guest(tmp_path_factory.mktemp("guest"), device)
    guest.run("attest", "ak", "request", "--output", "request.json")
    guest.first = guest.pull("one", "first")
    guest.evidence()
    guest.verify()  # which writes what is right, whichever test comes first here
    return guest


def test_image_that_was_pulled_is_in_the_claims(guest):
    guest.evidence()
    ((_, settings), (register, event), *_) = guest.verify()
    assert register == 14
    assert (event["domain"], event["operation"]) == ("imagers", "PullImage")
    assert event["content"]["image"] == guest.first["digest"]
    told = guest.run("pull", "oci:one", "bundle", "--policy", "policy.json", "--print-settings")
    assert settings["operation"] == "Settings"
    assert settings["content"] == {"digest": str(digest_of(told.stdout.strip().encode()))}
    assert settings["content"]["digest"] in told.stderr
    assert guest.first["measured"] == "tpm:14"
    assert (guest.here / "first" / "config.json").exists()


def test_image_that_is_pulled_again_is_measured_once_and_another_one_too(guest):
    guest.pull("one", "again")
    guest.evidence()
    before = guest.verify()
    assert [one["operation"] for _, one in before].count("Settings") == 1
    assert [one["content"].get("image") for _, one in before].count(guest.first["digest"]) == 1
    other = guest.pull("two", "other")
    guest.pull("two", "other")
    guest.evidence()
    assert [one["content"]["image"] for _, one in guest.verify()[len(before) :]] == [
        other["digest"]
    ]


def test_log_that_somebody_changed_is_refused(guest):
    guest.pull("two", "other")
    guest.evidence()
    agent = guest.log.read_bytes()
    events, (end, *_) = parse_records(agent)
    data = events[0].data.replace(b"sha256:", b"sha256;", 1)
    forged = make_record(14, {name: digest_by(name, data) for name in events[0].digests}, data)
    header = make_header(("SHA-1", "SHA-256", "SHA-384", "SHA-512", "SM3"))
    changes = {
        "missing": agent[end:],
        "changed": forged + agent[end:],
        "not extended": agent + forged,
    }
    for name, changed in changes.items():
        guest.evidence(event_log=encode_base64(join_logs(header, changed)))
        told = guest.verify(code=40)
        assert "step 4, event log: PCR 14 by the event log" in told, name


def test_register_that_somebody_else_extends_ends_the_next_pull(guest, device):
    del device
    guest.pull("one", "fine", register="tpm:15")

    PCR(15, guest.device).extend(
        {name: digest_by(name, b"x") for name in PCR(15, guest.device).banks()}
    )
    told = guest.pull("one", "bundle", register="tpm:15", code=40)
    assert "PCR 15 by the event log" in told
    assert "imagers: hint: something else extended the register" in told
    assert not (guest.here / "bundle").exists()


def test_machine_without_a_tpm_pulls_nothing_that_is_to_be_measured(tmp_path):
    guest = Guest(tmp_path, Path("/nonexistent/tpm"))
    told = guest.pull("one", "bundle", code=40)
    assert "there is no /nonexistent/tpm" in told
    assert not (tmp_path / "bundle").exists()


POLICY = """package policy

default allow := false

evidence := input.submods.cpu0["ear.veraison.annotated-evidence"]

measured contains one.details.data.content.digest if {
  some one in evidence.tpm.uefi_event_logs
  one.digest_matches_event
  one.index == 14
  one.details.data.domain == "imagers"
  one.details.data.operation == "Settings"
}

allow if {
  input.submods.cpu0["ear.status"] == "affirming"
  input.imagers.image == input.imagers.bindings[_].digest
  measured == {"DIGEST"}
}
"""


def test_broker_reads_the_settings_in_the_evidence_before_it_gives_a_key(tmp_path):
    """A guest that measured other settings than its operator computed gets none."""
    for tpm in start(tmp_path / "tpm"):
        device = Device(tpm)
        try:
            check_broker(Guest(tmp_path, device.path))
        finally:
            device.close()


def check_broker(guest):
    guest.run("attest", "ak", "request", "--output", "request.json")
    guest.evidence()
    guest.verify()
    with EmbeddedRegistry() as registry, EmbeddedBroker(tees=("tpm",)) as broker:
        values = json.loads((guest.here / "ours.json").read_text())["reference_values"]
        broker.admin.set_reference_values(
            [ReferenceValue(one["name"], tuple(one["values"]), source="test") for one in values]
        )
        name = f"{registry.address}/team/app"
        admin = ("--broker", broker.url, "--broker-admin-key", broker.admin_key_file)
        words = ("--encryption-key", "broker:kbs:///default/app/", "--policy", "policy.json")
        done = guest.run("encrypt", "oci:one", f"docker://{name}:v1", *words, *admin, "--json")
        name += f"@{json.loads(done.stdout)['digest']}"
        words = (
            "--policy", "policy.json", "--platform", "linux/amd64", "--broker", broker.url,
            "--tee", "tpm",
        )  # fmt: skip
        told = guest.run("pull", name, "bundle", *words, "--print-settings")
        expected = str(digest_of(told.stdout.strip().encode()))
        broker.admin.set_policy(POLICY.replace("DIGEST", expected))
        refused = guest.run("pull", name, "bundle", *words, code=31)
        assert "no rule allows it" in refused.stderr
        guest.run("pull", name, "bundle", *words, "--measure", "tpm:14")
        assert (guest.here / "bundle" / "config.json").exists()
        (guest.here / "other.json").write_text((guest.here / "policy.json").read_text() + " ")
        words = ("--policy", "other.json", *words[2:], "--measure", "tpm:14")
        refused = guest.run("pull", name, "other", *words, code=31)
        assert "no rule allows it" in refused.stderr
        assert not (guest.here / "other").exists()
