# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import threading
from pathlib import Path

import pytest


@pytest.fixture
def key(run):
    run("key", "generate", "cosign", "--output", "release")
    return "release.pub"


def test_policy_init_writes_one_that_is_strict_and_good(run, key):
    outcome = run("policy", "init", "--scope", "r.example/team", "--key", key)
    document = json.loads(outcome.out)
    assert document["default"] == [{"type": "reject"}]
    (requirement,) = document["transports"]["docker"]["r.example/team"]
    assert requirement["type"] == "sigstoreSigned"
    assert requirement["keyPath"].endswith("/here/release.pub")
    assert requirement["signedIdentity"] == {"type": "matchRepoDigestOrExact"}


def test_policy_init_writes_a_file_and_never_over_one(run, key):
    words = ("policy", "init", "--scope", "r.example", "--key", key, "--output", "p.json")
    assert run(*words).code == 0
    checked = run("policy", "check", "p.json").out
    assert checked.endswith(": good: 1 scope and the default, 1 note\n")
    again = run(*words)
    assert again.code == 13
    assert "exists" in again.err


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, ("--scope", "r.example")),
        (13, ("--scope", "r.example", "--key", "none.pub")),
        (11, ("--scope", "https://r.example", "--key", "release.pub")),
        (2, ("--scope", "r.example", "--key", "release.pub", "--signed-identity", "any")),
    ],
)
@pytest.mark.usefixtures("key")
def test_policy_init_refused(run, code, words):
    assert run("policy", "init", *words).code == code


def test_policy_init_with_what_is_no_key_refused(run, tmp_path):
    for content in (b"x", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"):
        (tmp_path / "k").write_bytes(content)
        outcome = run("policy", "init", "--scope", "r.example", "--key", tmp_path / "k")
        assert outcome.code == 11


def test_policy_check_of_the_one_in_force(run, home):
    assert run("policy", "check", "none.json").code == 13
    folder = home / ".config" / "containers"
    folder.mkdir(parents=True)
    (folder / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    outcome = run("policy", "check")
    assert "warning: $.default: accepts every image" in outcome.out
    facts = run("policy", "check", "--json").json()
    assert [one["level"] for one in facts["notes"]] == ["note", "warning", "note"]
    assert "count it as none" in facts["notes"][2]["text"]
    named = run("policy", "check", folder / "policy.json", "--json").json()
    assert named["notes"] == facts["notes"][:2]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (11, "{}"),
        (11, '{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}'),
        (13, '{"default":[{"type":"sigstoreSigned","keyPath":"/none"}]}'),
        (11, '{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"AAAA"}]}'),
    ],
)
def test_policy_check_of_one_that_cannot_be_used_fails(run, tmp_path, code, text):
    (tmp_path / "p.json").write_text(text)
    assert run("policy", "check", tmp_path / "p.json").code == code


def test_policy_init_with_a_key_of_gpg(run, keys):
    outcome = run("policy", "init", "--scope", "r.example", "--key", keys / "alice.pub.gpg")
    (requirement,) = json.loads(outcome.out)["transports"]["docker"]["r.example"]
    assert (requirement["type"], requirement["keyType"]) == ("signedBy", "GPGKeys")
    armored = subprocess.run(
        ["gpg", "--batch", "--enarmor"],
        input=(keys / "alice.pub.gpg").read_bytes(),
        check=True,
        capture_output=True,
    ).stdout.replace(b"ARMORED FILE", b"PUBLIC KEY BLOCK")
    Path("alice.asc").write_bytes(armored)
    assert run("policy", "init", "--scope", "r.example", "--key", "alice.asc").code == 0


def test_policy_init_keeps_every_key(run, key, keys):
    other = run("key", "generate", "cosign", "--output", "other")
    assert other.code == 0
    words = ("policy", "init", "--scope", "r.example", "--key", key, "--key", "other.pub")
    (requirement,) = json.loads(run(*words).out)["transports"]["docker"]["r.example"]
    assert "keyPath" not in requirement
    assert [path.rpartition("/")[2] for path in requirement["keyPaths"]] == [
        str(key).rpartition("/")[2],
        "other.pub",
    ]
    mixed = run(*words, "--key", keys / "alice.pub.gpg")
    assert mixed.code == 2
    assert "keys of one kind" in mixed.err


def test_policy_init_reads_a_key_once(run, key, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = Path(key).read_bytes()
    writing = threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    writing.start()
    assert run("policy", "init", "--scope", "r.example", "--key", pipe).code == 0
