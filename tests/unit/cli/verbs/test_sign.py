# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest


@pytest.fixture
def signer(run):
    run("key", "generate", "cosign", "--output", "signer")
    return ("--sign-by-sigstore-private-key", "signer.key")


@pytest.fixture
def pushed(run, plain, imagers_registry):
    name = f"{imagers_registry.address}/team/app:v1"
    assert run("copy", plain, name).code == 0
    return name


def test_sign_puts_a_signature_beside_the_image(run, pushed, signer, imagers_registry):
    digest = run("inspect", pushed, "--json").json()["digest"]
    facts = run("sign", pushed, *signer, "--json").json()
    (signed,) = facts["signed"]
    assert signed["digest"] == digest
    assert signed["place"] == digest.replace(":", "-") + ".sig"
    assert signed["place"] in imagers_registry.tags("team/app")
    assert facts["key"].startswith("sha256:")
    assert run("inspect", pushed, "--json").json()["signatures"] == 1


def test_sign_key_and_the_name_that_podman_has_for_it_are_one_option(run, pushed, signer):
    first = run("sign", pushed, "--key", "signer.key", "--json").json()
    again = run("sign", pushed, *signer, "--json").json()
    assert first["key"] == again["key"]
    assert [one["added"] for one in (*first["signed"], *again["signed"])] == [True, False]


def test_sign_by_two_keys_keeps_both(run, pushed, signer):
    run("sign", pushed, *signer)
    run("key", "generate", "cosign", "--output", "second")
    words = ("--sign-by-sigstore-private-key", "second.key")
    assert run("sign", pushed, *words, "--json").json()["signed"][0]["signatures"] == 2
    assert run("inspect", pushed, "--json").json()["signatures"] == 2


def test_sign_again_adds_nothing(run, pushed, signer):
    assert run("sign", pushed, *signer).out.startswith("signed sha256:")
    assert run("sign", pushed, *signer).out.startswith("was signed already: sha256:")
    assert run("inspect", pushed, "--json").json()["signatures"] == 1


def test_sign_of_an_index_signs_every_image_in_it(run, multi, signer, imagers_registry):
    name = f"{imagers_registry.address}/team/multi:v1"
    run("copy", multi, name, "--all")
    assert len(run("sign", name, *signer, "--json").json()["signed"]) == 3


def test_sign_with_an_identity_signs_that_name(run, pushed, signer):
    words = (*signer, "--identity", "registry.example.org/app:v1")
    signed = run("sign", pushed, *words, "--json").json()["signed"][0]
    assert signed["identity"] == "registry.example.org/app:v1"


def test_sign_of_a_layout_refused(run, plain, signer):
    outcome = run("sign", plain, *signer)
    assert outcome.code == 12
    assert "expected an image in a registry" in outcome.err


def test_sign_without_a_key_refused(run, pushed):
    outcome = run("sign", pushed)
    assert outcome.code == 2
    assert "imagers key generate cosign" in outcome.err


def test_sign_with_the_passphrase_of_another_key_refused(run, pushed, signer):
    Path("wrong").write_text("horse\n")
    outcome = run("sign", pushed, *signer, "--passphrase-file", "wrong")
    assert outcome.code == 30
    assert "signer.key" in outcome.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["--sign-by-sigstore-private-key", "a.key", "--passphrase-file", "nofile"],
            13,
            "error: --passphrase-file: nofile: cannot be read: no such file or directory",
        ),
        (
            ["--sign-by-sigstore-private-key", "awskms:///alias/release"],
            13,
            "hint: expected a file: keys of a KMS (awskms://), a cluster (k8s://), a token ",
        ),
        (["--key", "env://KEY"], 13, "error: --key: env://KEY: no such file"),
        (["--key", "pkcs11:token=t;object=o"], 13, "hint: expected a file: keys of a KMS"),
        (
            ["--key", "a.key", "--sign-by-sigstore-private-key", "b.key"],
            2,
            "error: expected --key or --sign-by-sigstore-private-key once, got it 2 times",
        ),
        (
            ["--notation-key", "a.key", "--notation-chain", "a.pub"],
            11,
            "certificate chain 'a.pub': expected 1 to 32 PEM blocks 'CERTIFICATE'",
        ),
    ],
)
def test_sign_with_a_wrong_file_names_it_and_its_option(run, words, code, said):
    assert run("key", "generate", "cosign", "--output", "a").code == 0
    outcome = run("sign", "localhost:1/app:v1", *words)
    assert outcome.code == code
    assert said in outcome.err


def test_signing_key_as_a_recipient_points_to_its_public_half(run, plain):
    assert run("key", "generate", "cosign", "--output", "a").code == 0
    outcome = run("encrypt", plain, "oci:x:v1", "--encryption-key", "jwe:a.key")
    assert outcome.code == 11
    assert "hint: give the public half: the file NAME.pub beside it\n" in outcome.err


@pytest.mark.parametrize("verb", ["verify", "pull", "copy"])
def test_policy_that_is_none_is_named_with_its_option(run, plain, verb):
    names = [plain] if verb == "verify" else [plain, "oci:out:v1" if verb == "copy" else "out"]
    outcome = run(verb, *names, "--policy", "nofile")
    assert outcome.code == 13
    assert outcome.err.startswith("imagers: error: --policy: nofile: no such file or directory\n")


@pytest.fixture
def wrong_registries_d(home):
    directory = home / ".config" / "containers" / "registries.d"
    directory.mkdir(parents=True)
    (directory / "x.yaml").write_text("docker: [")


def test_sign_outside_of_a_registry_asks_for_no_passphrase(run, plain):
    words = ("--sign-by-sigstore-private-key", "missing.key", "--passphrase-file", "missing")
    outcome = run("sign", plain, *words)
    assert outcome.code == 12
    assert "expected an image in a registry" in outcome.err
    assert "docker://REGISTRY/NAME:TAG" in outcome.err


@pytest.mark.usefixtures("wrong_registries_d")
def test_sign_in_a_form_without_lookasides_reads_none(run, pushed, signer):
    assert run("sign", pushed, *signer).code == 0
    refused = run("sign", pushed, "--sign-by", "A" * 40)
    assert refused.code == 11
    assert "is not YAML" in refused.err
