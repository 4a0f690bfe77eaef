# SPDX-License-Identifier: Apache-2.0
import os
import stat
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_generate_recipient_makes_a_pair_that_fits(run, kind):
    outcome = run("key", "generate", kind, "--output", "one")
    assert outcome.code == 0
    assert stat.S_IMODE(Path("one.key").stat().st_mode) == 0o600
    public = subprocess.run(
        ["openssl", "pkey", "-in", "one.key", "-pubout"], check=True, capture_output=True
    ).stdout
    assert public == Path("one.pub").read_bytes()
    shown = run("key", "show", "one.pub", "--json").json()
    assert shown["kind"] == {"rsa": "RSA 3072", "ec": "EC secp256r1"}[kind]


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


def test_passphrase_of_a_key_without_one_refused(run):
    Path("secret").write_text("horse\n")
    outcome = run("key", "generate", "rsa", "--output", "one", "--passphrase-file", "secret")
    assert outcome.code == 2
    assert os.listdir() == ["secret"]
