# SPDX-License-Identifier: Apache-2.0
"""The whole way by commands: what they print, what they leave, how they end."""

import json
import os
import stat

import pytest


@pytest.fixture
def layout(images):
    """Two layers: the second removes a file of the first and changes another."""
    base = images.tar(
        images.directory("etc"),
        ("etc/hostname", b"guest\n"),
        ("etc/passwd", b"root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"),
        ("old", b"gone soon"),
        images.file("bin/tool", mode=0o755),
        images.link("sh", "bin/tool"),
    )
    top = images.tar((".wh.old", b""), ("etc/hostname", b"confidential\n"))

    def set_config(config):
        config["config"] = {"Cmd": ["/bin/tool", "x"], "User": "app", "Env": ["A=b"]}

    return images.build(base, top, change_config=set_config)


def check_bundle(bundle):
    """The tree of `layout`, its modes, and its config.json."""
    root = bundle / "rootfs"
    assert sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*")) == [
        "config.json",
        "rootfs",
        "rootfs/bin",
        "rootfs/bin/tool",
        "rootfs/etc",
        "rootfs/etc/hostname",
        "rootfs/etc/passwd",
        "rootfs/sh",
    ]
    assert (root / "etc/hostname").read_text() == "confidential\n"
    assert os.readlink(root / "sh") == "bin/tool"
    assert stat.S_IMODE((root / "bin/tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "etc/hostname").stat().st_mode) == 0o644
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o700
    config = json.loads((bundle / "config.json").read_text())
    assert config["process"]["args"] == ["/bin/tool", "x"]
    assert config["process"]["user"] == {"uid": 1000, "gid": 1000}
    assert config["process"]["env"] == ["A=b", "HOME=/"]
    assert config["root"] == {"path": "rootfs", "readonly": True}


def test_flow_with_key_files_ends_in_the_right_bundle(imagers, layout, imagers_registry):
    imagers.succeed("key", "generate", "rsa", "--output", "recipient")
    (imagers.here / "passphrase").write_text("correct horse\n")
    made = imagers.succeed(
        "key", "generate", "cosign", "--output", "signer", "--passphrase-file", "passphrase"
    )
    assert made.stderr == ""
    for secret in ("recipient.key", "signer.key"):
        assert stat.S_IMODE((imagers.here / secret).stat().st_mode) == 0o600
    reference = f"{imagers_registry.address}/team/app:v1"
    recipient = ("--encryption-key", "jwe:recipient.pub")

    encrypted = imagers.succeed("encrypt", f"oci:{layout}:v1", reference, *recipient, "--json")
    facts = encrypted.json()
    assert facts["encrypted"] == 2
    assert [layer["action"] for layer in facts["layers"]] == ["encrypted", "encrypted"]
    assert {layer["cipher"] for layer in facts["layers"]} == {"AES_256_CTR_HMAC_SHA256"}

    words = ("--sign-by-sigstore-private-key", "signer.key", "--passphrase-file", "passphrase")
    signed = imagers.succeed("sign", reference, *words, "--json").json()
    assert [one["digest"] for one in signed["signed"]] == [facts["digest"]]

    seen = imagers.succeed("inspect", reference, "--json").json()
    assert seen["digest"] == facts["digest"]
    assert seen["signatures"] == 1
    assert [layer["encrypted"] for layer in seen["layers"]] == [True, True]
    assert seen["layers"][0]["recipients"]
    text = imagers.succeed("inspect", reference)
    for word in (facts["digest"], "AES_256_CTR_HMAC_SHA256", "jwe", "signatures:  1"):
        assert word in text.stdout

    policy = {
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {
                f"{imagers_registry.address}/team": [
                    {"type": "sigstoreSigned", "keyPath": str(imagers.here / "signer.pub")}
                ]
            }
        },
    }
    (imagers.here / "policy.json").write_text(json.dumps(policy))
    words = ("--policy", "policy.json", "--decryption-key", "recipient.key", "--require-encrypted")
    pulled = imagers.succeed("pull", reference, "bundle", *words, "--json")
    report = pulled.json()
    assert report["basis"] == "signature"
    assert report["digest"] == facts["digest"]
    assert report["signers"][0]["key"] == signed["key"]
    assert [layer["encrypted"] for layer in report["layers"]] == [True, True]
    assert pulled.stderr == ""
    check_bundle(imagers.here / "bundle")
    assert not list(imagers.tmp.iterdir())

    key = ("--decryption-key", "recipient.key")
    plain = imagers.succeed("decrypt", reference, "oci:plain:v1", *key, "--json").json()
    assert plain["decrypted"] == 2
    again = imagers.succeed("inspect", "oci:plain:v1", "--json").json()
    assert [layer["encrypted"] for layer in again["layers"]] == [False, False]
    assert [layer["diff_id"] for layer in again["layers"]] == [
        layer["diff_id"] for layer in seen["layers"]
    ]


def test_flow_with_a_broker_ends_in_the_right_bundle_after_one_handshake(imagers, layout, publish):
    image = publish(layout)
    pulled = imagers.succeed(*image.pull("--json"))
    assert pulled.json()["basis"] == "signature"
    assert pulled.stderr == ""
    check_bundle(imagers.here / "bundle")
    assert image.broker.handshakes == 1
    assert image.broker.releases == 1

    listed = imagers.succeed("broker", "list", *image.admin, "--json").json()["uris"]
    assert len(listed) == 1
    known = imagers.succeed("broker", "get", listed[0], *image.admin, "--json").json()
    assert known["manifest_digests"] == [image.digest]
    assert known["size"] == 32
    audit = imagers.succeed("broker", "audit", *image.admin, "--json").json()["entries"]
    assert ["release", "ok"] in [[entry["event"], entry["outcome"]] for entry in audit]
    assert "bound to" in imagers.succeed("broker", "get", listed[0], *image.admin).stdout
    assert imagers.succeed("broker", "list", *image.admin).stdout.splitlines() == listed
    assert "release" in imagers.succeed("broker", "audit", *image.admin).stdout
    imagers.succeed("broker", "delete", listed[0], *image.admin)
    assert imagers.succeed("broker", "list", *image.admin, "--json").json() == {"uris": []}


def test_guest_of_a_tee_gets_keys_by_its_measurement_only(
    imagers, imagers_tee, layout, publish, tmp_path
):
    image = publish(layout)
    image.broker.expect("snp_launch_measurement", imagers_tee.measurement.hex())
    guest = ("--broker", image.broker.url, "--tee", "snp-test")
    words = ("pull", image.reference, "bundle", "--policy", image.policy, *guest)
    document = {"tee": "snp", "seed": "00" * 32, "measurement": "07" * 48}
    (tmp_path / "tee.json").write_text(json.dumps(document))
    imagers.environment["IMAGERS_TEST_TEE"] = str(tmp_path / "tee.json")
    refused = imagers(*words)
    assert refused.code == 31, refused
    assert not (imagers.here / "bundle").exists()
    document["measurement"] = imagers_tee.measurement.hex()
    (tmp_path / "tee.json").write_text(json.dumps(document))
    pulled = imagers.succeed(*words)
    assert "it proves nothing" in pulled.stderr
    check_bundle(imagers.here / "bundle")


def test_pull_text_says_who_signed_and_what_was_checked(imagers, layout, publish):
    image = publish(layout)
    pulled = imagers.succeed(*image.pull())
    assert pulled.stderr == ""
    assert pulled.stdout.startswith(f"trusted {image.digest}\n")
    assert "signed as 127.0.0.1" in pulled.stdout
    assert "basis: signature" in pulled.stdout
    assert "bundle bundle, 2 layers checked" in pulled.stdout


def test_pull_by_digest_gets_keys_from_the_broker_without_a_signature(
    imagers, layout, publish, accept
):
    image = publish(layout, sign=False)
    pinned = image.reference.removesuffix(":v1") + "@" + image.digest
    words = ("--policy", accept, *image.guest, "--json")
    assert imagers.succeed("pull", pinned, "bundle", *words).json()["basis"] == "pinned_digest"
    check_bundle(imagers.here / "bundle")


def test_pull_of_an_unsigned_image_that_the_policy_accepts_warns(imagers, layout, accept):
    pulled = imagers.succeed("pull", f"oci:{layout}:v1", "bundle", "--policy", accept)
    assert pulled.stderr.startswith("imagers: warning: the policy accepts this image unsigned")
    check_bundle(imagers.here / "bundle")


def test_copy_there_and_back_keeps_every_byte(imagers, layout, imagers_registry, images):
    reference = f"{imagers_registry.address}/team/app:v1"
    before = images.manifest_digest(layout)
    there = imagers.succeed("copy", f"oci:{layout}:v1", reference, "--json").json()
    back = imagers.succeed("copy", reference, "oci:back:v1", "--json").json()
    assert there["digest"] == back["digest"] == before
    assert there["size"] > 0

    def blobs(directory):
        folder = directory / "blobs" / "sha256"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    assert blobs(imagers.here / "back") == blobs(layout)
    text = imagers.succeed("copy", f"oci:{layout}:v1", reference)
    assert text.stdout.startswith(f"copied {before}: ")
    assert "were there already" in text.stdout
    assert not list(imagers.tmp.iterdir())


def test_encrypt_in_place_of_a_layout_leaves_a_good_image(imagers, layout, keys, accept):
    name = f"oci:{layout}:v1"
    imagers.succeed("encrypt", name, name, "--encryption-key", f"jwe:{keys}/r2048.pub")
    words = ("--policy", accept, "--decryption-key", keys / "r2048.key")
    imagers.succeed("pull", name, "bundle", *words)
    check_bundle(imagers.here / "bundle")


def test_encrypt_for_two_recipients_opens_with_either_key(imagers, layout, keys, accept):
    recipients = (
        "--encryption-key",
        f"jwe:{keys}/r2048.pub",
        "--encryption-key",
        f"jwe:{keys}/ec256.pub",
    )
    imagers.succeed("encrypt", f"oci:{layout}:v1", "oci:e:v1", *recipients)
    for key in ("r2048", "ec256"):
        words = ("--policy", accept, "--decryption-key", keys / f"{key}.key")
        imagers.succeed("pull", "oci:e:v1", key, *words)
        check_bundle(imagers.here / key)


@pytest.mark.parametrize(
    "bundle", ["bundle", "bundle/", "./bundle", "sub/../bundle", "link/../bundle", "in/../bundle/."]
)
def test_pull_bundle_path_in_any_form_appears_where_it_says(imagers, layout, accept, bundle):
    (imagers.here / "sub").mkdir()
    (imagers.here / "in").mkdir()
    (imagers.here / "link").symlink_to("sub")
    imagers.succeed("pull", f"oci:{layout}:v1", bundle, "--policy", accept)
    check_bundle(imagers.here / "bundle")


def test_pull_into_the_empty_working_directory_fills_it(imagers, layout, accept):
    imagers.succeed("pull", f"oci:{layout}:v1", ".", "--policy", accept)
    check_bundle(imagers.here)


def test_pull_through_a_link_in_the_path_lands_behind_it(imagers, layout, accept):
    (imagers.here / "real").mkdir()
    (imagers.here / "link").symlink_to("real")
    imagers.succeed("pull", f"oci:{layout}:v1", "link/bundle", "--policy", accept)
    check_bundle(imagers.here / "real" / "bundle")


def test_pull_finds_the_users_policy(imagers, layout, accept):
    folder = imagers.home / "config" / "containers"
    folder.mkdir(parents=True)
    scopes = {"oci": {str(layout): json.loads(accept.read_bytes())["default"]}}
    document = {"default": [{"type": "reject"}], "transports": scopes}
    (folder / "policy.json").write_text(json.dumps(document))
    imagers.succeed("pull", f"oci:{layout}:v1", "bundle")
    check_bundle(imagers.here / "bundle")


def test_pull_takes_no_permission_from_a_policy_that_accepts_everything_by_default(
    imagers, layout, accept, imagers_registry
):
    """The tools of containers install one: nobody has looked at this image."""
    folder = imagers.home / "config" / "containers"
    folder.mkdir(parents=True)
    (folder / "policy.json").write_bytes(accept.read_bytes())
    name = f"{imagers_registry.address}/team/app"
    copied = imagers.succeed("copy", f"oci:{layout}:v1", f"{name}:v1", "--json")
    for words in (("pull", f"{name}:v1", "bundle"), ("verify", f"{name}:v1")):
        refused = imagers(*words)
        assert refused.code == 22
        assert "nobody has looked at" in refused.stderr
        assert f"--policy {folder}/policy.json" in refused.stderr
    assert not (imagers.here / "bundle").exists()
    imagers.succeed("pull", f"{name}:v1", "named", "--policy", folder / "policy.json")
    check_bundle(imagers.here / "named")
    pinned = f"{name}@{json.loads(copied.stdout)['digest']}"
    imagers.succeed("pull", pinned, "pinned")
    check_bundle(imagers.here / "pinned")
    assert "basis: pinned_digest" in imagers.succeed("verify", pinned).stdout


def test_key_password_of_a_file_and_of_a_descriptor_opens_the_key_without_a_warning(
    imagers, vectors, keys, accept
):
    image = f"oci:{vectors}/encrypted/jwe-key-password-C/image:v1"
    (imagers.here / "password").write_text("correct horse\n")
    for name, form in (("a", "file=password"), ("b", "fd=0")):
        with (imagers.here / "password").open() as stdin:
            key = f"{keys}/rpw.key:{form}"
            words = ("--policy", accept, "--decryption-key", key, "--json")
            pulled = imagers.succeed("pull", image, name, *words, stdin=stdin)
        assert "password" not in pulled.stderr


def test_key_show_says_kind_and_fingerprint(imagers, keys):
    facts = imagers.succeed("key", "show", keys / "r2048.pub", "--json").json()
    assert facts["kind"] == "RSA 2048"
    assert facts["fingerprint"] in (
        "sha256:" + word
        for word in imagers.succeed("key", "show", keys / "r2048.pub").stdout.split()
    )
