# SPDX-License-Identifier: Apache-2.0
import os
import stat
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("kind", ["rsa", "ec", "admin"])
def test_generate_makes_a_pair_that_fits(run, kind):
    outcome = run("key", "generate", kind, "--output", "one")
    assert outcome.code == 0
    assert stat.S_IMODE(Path("one.key").stat().st_mode) == 0o600
    public = subprocess.run(
        ["openssl", "pkey", "-in", "one.key", "-pubout"], check=True, capture_output=True
    ).stdout
    assert public == Path("one.pub").read_bytes()
    shown = run("key", "show", "one.pub", "--json").json()
    assert shown["kind"] == {"rsa": "RSA 3072", "ec": "EC P-256", "admin": "Ed25519"}[kind]


def test_generate_cosign_makes_a_pair_that_its_passphrase_opens(run):
    from imagers.model.keys import SecretKey
    from imagers.sign.keyfiles import load_private_key
    from imagers.sign.public_key import parse_public_key

    Path("secret").write_text("horse\n")
    outcome = run("key", "generate", "cosign", "--output", "one", "--passphrase-file", "secret")
    assert outcome.code == 0
    key = load_private_key("one.key", SecretKey(b"horse"))
    public = parse_public_key(Path("one.pub").read_bytes(), what="key")
    assert key.public_key.fingerprint == public.fingerprint
    assert key.public_key.fingerprint in outcome.out
    assert b"ENCRYPTED" in Path("one.key").read_bytes()


def test_generate_kek_makes_32_bytes_that_differ(run):
    for name in ("one", "two"):
        assert run("key", "generate", "kek", "--output", name).code == 0
    assert Path("one.kek").stat().st_size == 32
    assert stat.S_IMODE(Path("one.kek").stat().st_mode) == 0o600
    assert Path("one.kek").read_bytes() != Path("two.kek").read_bytes()


def test_generate_leaves_no_half_of_a_pair(run):
    Path("one.pub").touch()
    for kind in ("rsa", "cosign"):
        outcome = run("key", "generate", kind, "--output", "one")
        assert outcome.code == 13
        assert "one.pub" in outcome.err
        assert os.listdir() == ["one.pub"]


def test_generate_follows_no_link(run):
    Path("one.kek").symlink_to("elsewhere")
    assert run("key", "generate", "kek", "--output", "one").code == 13
    assert not Path("elsewhere").exists()


def test_generate_with_a_wide_open_umask_keeps_the_secret_closed(run):
    before = os.umask(0)
    try:
        run("key", "generate", "ec", "--output", "one")
        run("key", "generate", "kek", "--output", "one")
        run("key", "generate", "cosign", "--output", "two")
    finally:
        os.umask(before)
    for name in ("one.key", "one.kek", "two.key"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600


@pytest.fixture
def pairs(run):
    """Names of pairs NAME.key and NAME.pub of all kinds, the signer's with a passphrase."""
    Path("secret").write_text("horse\n")
    for kind in ("rsa", "ec", "admin"):
        run("key", "generate", kind, "--output", kind)
    run("key", "generate", "cosign", "--output", "cosign", "--passphrase-file", "secret")
    return {"rsa": (), "ec": (), "admin": (), "cosign": ("--passphrase-file", "secret")}


def test_show_of_both_halves_is_the_same_but_for_the_word(run, pairs):
    for name, words in pairs.items():
        public = run("key", "show", f"{name}.pub", "--json").json()
        private = run("key", "show", f"{name}.key", *words, "--json").json()
        assert (public.pop("half"), private.pop("half")) == ("public", "private")
        assert (public.pop("file"), private.pop("file")) == (f"{name}.pub", f"{name}.key")
        assert public == private


def test_show_names_a_recipient_as_inspect_does(run, pairs, plain, accept):
    for name in ("rsa", "ec"):
        words = ("--encryption-key", f"jwe:{name}.pub", "--policy", accept)
        assert run("encrypt", plain, f"oci:{name}:v1", *words).code == 0
        (layer, *_) = run("inspect", f"oci:{name}:v1", "--json").json()["layers"]
        (recipient,) = layer["packets"][0]["recipients"]
        facts = run("key", "show", f"{name}.key", "--json").json()
        assert facts["key_id"] == recipient["key"]
        shown = run("key", "show", f"{name}.pub").out
        assert shown.endswith(f"\n  as a recipient, jwe: {recipient['key']}\n")
        assert pairs


def test_show_public_is_the_public_half_and_nothing_else(run, pairs):
    for name, words in pairs.items():
        for half in ("key", "pub"):
            outcome = run(
                "key", "show", "--public", f"{name}.{half}", *(words if half == "key" else ())
            )
            assert outcome.out == Path(f"{name}.pub").read_text()


def test_show_asks_for_no_passphrase_in_vain(run, pairs, monkeypatch):
    outcome = run("key", "show", "cosign.key")
    assert (outcome.code, outcome.out) == (30, "")
    assert "'cosign.key': the key has a passphrase, and none was given" in outcome.err
    monkeypatch.setenv("COSIGN_PASSWORD", "horse")
    assert run("key", "show", "cosign.key").code == 0
    assert run("key", "show", "rsa.key").code == 0  # the variable is for keys of cosign
    refused = run("key", "show", "rsa.key", *pairs["cosign"])
    assert refused.code == 2
    assert "rsa.key: a password was given, and the key has none" in refused.err


def test_show_of_a_key_encryption_key_refused(run):
    run("key", "generate", "kek", "--output", "one")
    outcome = run("key", "show", "one.kek")
    assert (outcome.code, outcome.out) == (11, "")
    assert "one.kek: expected a key" in outcome.err


def test_show_public_and_json_exclude_each_other(run):
    assert run("key", "show", "x", "--public", "--json").code == 2


def test_passphrase_of_a_key_without_one_refused(run):
    Path("secret").write_text("horse\n")
    outcome = run("key", "generate", "rsa", "--output", "one", "--passphrase-file", "secret")
    assert outcome.code == 2
    assert os.listdir() == ["secret"]
