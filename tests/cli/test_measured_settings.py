# SPDX-License-Identifier: Apache-2.0
"""A guest that was started with init data, and a host that would have it ask somebody else."""

import json
from types import SimpleNamespace

import pytest


@pytest.fixture
def guest(imagers, imagers_tee, publish, tmp_path):
    """An image whose key a guest of a TEE gets, and the words of a pull there."""
    image = publish()
    image.broker.expect("snp_launch_measurement", imagers_tee.measurement.hex())
    imagers.environment["IMAGERS_TEST_TEE"] = str(tmp_path / "tee.json")
    words = (
        "pull", image.reference, "bundle", "--policy", image.policy, "--broker", image.broker.url,
        "--tee", "snp-test",
    )  # fmt: skip

    def started_with(*files):
        imagers.succeed("attest", "initdata", "make", *files, "--output", "init.toml")
        digest = imagers.succeed("attest", "initdata", "digest", "init.toml", "--tee", "snp")
        document = {"tee": "snp", "seed": "00" * 32, "init_data": digest.stdout.strip()}
        document["measurement"] = imagers_tee.measurement.hex()
        (tmp_path / "tee.json").write_text(json.dumps(document))

    return SimpleNamespace(
        broker=image.broker, policy=image.policy, words=words, started_with=started_with
    )


def printed(imagers, guest):
    """As an operator does it, on a machine that is no guest."""
    done = imagers.succeed(*guest.words[:-2], "--print-settings")
    (imagers.here / "settings.json").write_text(done.stdout)
    return done


def test_settings_are_printed_and_nothing_is_pulled(imagers, guest):
    done = printed(imagers, guest)
    document = json.loads(done.stdout)
    assert document["broker"]["url"] == guest.broker.url
    assert done.stderr.startswith("imagers: settings sha256:")
    assert not (imagers.here / "bundle").exists()
    assert guest.broker.handshakes == 0


def test_guest_with_the_settings_of_its_init_data_gets_its_key(imagers, guest):
    printed(imagers, guest)
    guest.started_with("imagers-settings.json=settings.json")
    imagers.succeed(*guest.words, "--init-data", "init.toml")
    assert (imagers.here / "bundle" / "config.json").exists()
    assert guest.broker.handshakes == 1


def test_other_settings_than_those_of_the_init_data_are_refused(imagers, guest):
    printed(imagers, guest)
    guest.started_with("imagers-settings.json=settings.json")
    other = imagers.here / "other.json"
    other.write_text(json.dumps(json.loads(guest.policy.read_text()), indent=1))
    words = [str(other) if one is guest.policy else one for one in guest.words]
    refused = imagers(*words, "--init-data", "init.toml")
    assert refused.code == 21, refused
    assert "the init data of this machine has other ones: policy: expected" in refused.stderr
    assert not (imagers.here / "bundle").exists()
    assert guest.broker.handshakes == 0


def test_init_data_that_the_machine_was_not_started_with_is_refused(imagers, guest):
    printed(imagers, guest)
    guest.started_with("imagers-settings.json=settings.json", "other=settings.json")
    (imagers.here / "init.toml").unlink()
    words = ("imagers-settings.json=settings.json", "--output", "init.toml")
    imagers.succeed("attest", "initdata", "make", *words)
    refused = imagers(*guest.words, "--init-data", "init.toml")
    assert refused.code == 40, refused
    assert "--init-data: init data: HOSTDATA of this machine: expected" in refused.stderr
    assert guest.broker.handshakes == 0


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (None, 21, "has no 'imagers-settings.json'"),
        ("{}", 11, "--init-data: settings document"),
    ],
)
def test_init_data_without_the_document_is_refused(imagers, guest, content, code, told):
    (imagers.here / "text").write_text(content or "text")
    guest.started_with(f"{'other' if content is None else 'imagers-settings.json'}=text")
    refused = imagers(*guest.words, "--init-data", "init.toml")
    assert refused.code == code, refused
    assert told in refused.stderr
    assert guest.broker.handshakes == 0


def of_the_kernel(imagers, guest):
    """The words of a pull where the kernel's command line names the broker."""
    (imagers.here / "cmdline").write_text(f"quiet agent.aa_kbc_params=cc_kbc::{guest.broker.url}\n")
    at = guest.words.index("--broker")
    return (*guest.words[:at], *guest.words[at + 2 :], "--kernel-command-line", "cmdline")


def test_broker_of_the_kernels_command_line_is_not_asked(imagers, guest):
    guest.started_with("other=/dev/null")
    words = of_the_kernel(imagers, guest)
    refused = imagers(*words)
    assert refused.code == 21, refused
    assert "the broker's address comes from the kernel's command line" in refused.stderr
    assert guest.broker.handshakes == 0
    taken = imagers.succeed(*words, "--insecure-unmeasured-settings")
    assert "imagers: warning: the broker's address comes from the kernel's" in taken.stderr
    assert guest.broker.handshakes == 1


def test_broker_of_the_kernels_command_line_is_asked_where_init_data_has_it(imagers, guest):
    printed(imagers, guest)
    guest.started_with("imagers-settings.json=settings.json")
    imagers.succeed(*of_the_kernel(imagers, guest), "--init-data", "init.toml")
    assert guest.broker.handshakes == 1


def test_policy_of_a_broker_is_in_the_settings_by_its_name(imagers, guest):
    place = "kbs:///default/policy/1"
    guest.broker.put(place, guest.policy.read_bytes())
    words = [place if one is guest.policy else one for one in guest.words]
    done = imagers.succeed(*words[:-2], "--print-settings")
    assert json.loads(done.stdout)["policy"] == place
    assert guest.broker.handshakes == 0
