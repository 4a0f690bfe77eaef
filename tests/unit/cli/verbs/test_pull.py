# SPDX-License-Identifier: Apache-2.0
import json
import os
from functools import partial
from pathlib import Path

import pytest

from imagers.evidence.tdx.collect import RTMR
from imagers.model.media import Compression
from imagers.testing import TarEntry, make_image, make_layer, make_tar
from tests.unit.evidence.tdx.test_collect import Registers


@pytest.fixture
def layout_of(tmp_path):
    """`layout_of(records, name, ...)`: an image of empty files with these PAX records."""

    def make(records, *names):
        tar = make_tar(*(TarEntry.file(name, pax_headers=records) for name in names))
        return make_image(make_layer(tar, Compression.NONE)).save(tmp_path / "labelled")

    return make


def test_pull_reports_what_was_checked(run, sealed, accept, keys):
    words = ("--policy", accept, "--decryption-key", keys / "r2048.key")
    outcome = run("pull", sealed, "bundle", *words, "--json")
    assert outcome.code == 0
    report = outcome.json()
    assert report["basis"] == "unsigned"
    assert report["bundle"] == "bundle"
    assert report["signers"] == []
    assert [layer["encrypted"] for layer in report["layers"]] == [True] * 3
    assert json.loads(Path("bundle/config.json").read_text())["ociVersion"] == "1.0.2"


def test_pull_of_an_unsigned_image_warns_in_text_form(run, plain, accept):
    outcome = run("pull", plain, "bundle", "--policy", accept)
    assert outcome.err.startswith("imagers: warning: the policy accepts this image unsigned")
    assert f"  basis: unsigned; policy: {accept} at $.default\n" in outcome.out
    assert "3 layers checked" in outcome.out


def test_pull_says_what_it_left_out(run, layout_of, accept):
    name = layout_of(
        {"SCHILY.xattr.security.selinux": "system_u:object_r:bin_t:s0\0"}, "bin/sh", "bin/\x1b[2Jls"
    )
    words = ("--policy", accept, "--platform", "linux/amd64")
    outcome = run("pull", name, "bundle", *words)
    assert outcome.code == 0
    assert (
        "imagers: warning: left out 2 security labels, the first 'security.selinux' of 'bin/sh': "
        "they belong to the policy of a machine"
    ) in outcome.err
    outcome = run("pull", name, "again", *words, "--json")
    assert [layer["left_out"] for layer in outcome.json()["layers"]] == [
        [{"kind": "label", "count": 2, "first": "bin/sh", "attribute": "security.selinux"}]
    ]
    assert outcome.err == ""


def test_pull_of_a_plain_layer_where_encryption_is_demanded_refused(run, plain, accept):
    outcome = run("pull", plain, "bundle", "--policy", accept, "--require-encrypted")
    assert outcome.code == 21
    assert os.listdir() == []


def test_pull_takes_the_platform_of_an_index(run, multi, accept):
    words = ("--policy", accept, "--platform", "linux/arm64")
    outcome = run("pull", multi, "bundle", *words, "--json")
    assert outcome.code == 0
    config = json.loads(Path("bundle/config.json").read_text())
    assert config["annotations"]["org.opencontainers.image.architecture"] == "arm64"


def test_pull_policy_is_that_for_the_path_of_the_layout(run, plain, tmp_path):
    path = plain.removeprefix("oci:").removesuffix(":v1")
    policy = {
        "default": [{"type": "reject"}],
        "transports": {"oci": {path: [{"type": "insecureAcceptAnything"}]}},
    }
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    assert run("pull", plain, "bundle", "--policy", tmp_path / "policy.json").code == 0
    # A link elsewhere is judged as what it leads to, and a copy elsewhere is another image.
    Path("link").symlink_to(path)
    assert run("pull", "oci:link:v1", "b2", "--policy", tmp_path / "policy.json").code == 0
    run("copy", plain, "oci:copy:v1")
    assert run("pull", "oci:copy:v1", "b3", "--policy", tmp_path / "policy.json").code == 21
    assert not Path("b3").exists()


def test_pull_tee_without_a_broker_refused(run, plain, accept):
    outcome = run("pull", plain, "bundle", "--policy", accept, "--tee", "sample")
    assert outcome.code == 2
    assert "--broker" in outcome.err


def test_pull_provider_that_hangs_is_given_up(run, plain, accept, tmp_path, monkeypatch):
    def configure(command):
        (tmp_path / "providers.json").write_text(
            json.dumps({"key-providers": {"slow": {"cmd": command}}})
        )

    monkeypatch.setenv("OCICRYPT_KEYPROVIDER_CONFIG", str(tmp_path / "providers.json"))
    answer = '{"keywrapresults": {"annotation": "eA=="}}'
    configure({"path": "echo", "args": [answer]})
    assert run("encrypt", plain, "oci:e:v1", "--encryption-key", "provider:slow").code == 0
    configure({"path": "sleep", "args": ["100"]})
    words = ("--decryption-key", "provider:slow", "--provider-timeout", "0.2")
    outcome = run("pull", "oci:e:v1", "bundle", "--policy", accept, *words)
    assert outcome.code == 30
    assert "key provider 'slow' ('sleep'): no answer within 0.2 s" in outcome.err
    assert not Path("bundle").exists()


def test_pull_of_no_name_says_so_before_it_opens_keys(run, accept):
    outcome = run("pull", "@@", "bundle", "--policy", accept, "--decryption-key", "missing.key")
    assert outcome.code == 11
    assert "missing.key" not in outcome.err
    assert not Path("bundle").exists()


def test_pull_under_a_policy_without_its_key_says_so_before_it_opens_keys(run, plain, tmp_path):
    policy = tmp_path / "policy.json"
    requirement = {"type": "sigstoreSigned", "keyPath": str(tmp_path / "none.pub")}
    policy.write_text(json.dumps({"default": [requirement]}))
    words = ("--policy", policy, "--decryption-key", "missing.key")
    outcome = run("pull", plain, "bundle", *words)
    assert outcome.code == 13
    assert "none.pub" in outcome.err
    assert "missing.key" not in outcome.err


@pytest.mark.parametrize("is_exchanged", [False, True])
def test_pull_uses_what_was_measured(run, plain, monkeypatch, is_exchanged):
    """Files are read a second time, and a host could exchange them in between."""
    policy = '{"default": [{"type": "insecureAcceptAnything"}]}'

    class Kernel(Registers):
        def write(self, path, data):
            super().write(path, data)
            Path("policy.json").write_text(f"{policy} " if is_exchanged else policy)

    Path("policy.json").write_text(policy)
    monkeypatch.setenv("AAEL_PATH", "eventlog")
    monkeypatch.setattr("imagers.evidence.tdx.collect.RTMR", partial(RTMR, kernel=Kernel()))
    outcome = run(
        "pull", plain, "bundle", "--policy", "policy.json", "--measure", "rtmr:3", "--json"
    )
    assert outcome.code == (21 if is_exchanged else 0)
    if is_exchanged:
        assert "settings: policy: not as it was measured" in outcome.err
    else:
        assert outcome.json()["measured"] == "rtmr:3"
    assert Path("bundle").exists() is not is_exchanged
    assert b"imagers Settings" in Path("eventlog").read_bytes()
    assert (b"imagers PullImage" in Path("eventlog").read_bytes()) is not is_exchanged


def test_pull_of_a_broker_that_is_no_url_measures_nothing(run, plain, accept, monkeypatch):
    monkeypatch.setenv("AAEL_PATH", "eventlog")
    words = ("--policy", accept, "--measure", "rtmr:3", "--broker", "h.example")
    assert run("pull", plain, "bundle", *words).code == 2
    assert not Path("eventlog").exists()


def test_pull_trace_is_a_page_and_in_the_document(run, sealed, accept, keys):
    words = ("--policy", accept, "--decryption-key", keys / "r2048.key", "--trace", "t.html")
    outcome = run("pull", sealed, "bundle", *words, "--json")
    assert outcome.code == 0
    spans = outcome.json()["trace"]
    assert spans[0]["name"] == "set-up"
    assert [one["layer"] for one in spans if one["name"] == "open"] == [0, 1, 2]
    assert all(0 <= one["start"] <= one["end"] for one in spans)
    page = Path("t.html").read_text()
    assert outcome.json()["digest"] in page
    assert "layer 3 of 3" in page
    assert "trace" not in run("pull", sealed, "again", *words[:4], "--json").json()


def test_pull_that_fails_leaves_a_trace_of_how_far_it_came(run, sealed, accept):
    outcome = run("pull", sealed, "bundle", "--policy", accept, "--trace", "t.html")
    assert outcome.code == 30
    page = Path("t.html").read_text()
    assert "is encrypted" in page
    assert "accepts anything" in page
    assert not Path("bundle").exists()


def test_pull_trace_of_a_name_that_is_taken_pulls_nothing(run, plain, accept):
    Path("t.html").write_text("old")
    outcome = run("pull", plain, "bundle", "--policy", accept, "--trace", "t.html")
    assert outcome.code == 13
    assert "nothing is written over a file" in outcome.err
    assert os.listdir() == ["t.html"]
