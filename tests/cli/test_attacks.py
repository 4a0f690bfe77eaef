# SPDX-License-Identifier: Apache-2.0
"""Whoever owns the registry, a directory on the way, or the spelling of a name plays with it."""

import hashlib
import json
import os
import threading

import pytest

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DENIED = 21
REJECT = [{"type": "reject"}]
ACCEPT = [{"type": "insecureAcceptAnything"}]


def write_policy(path, default, **transports):
    path.write_text(json.dumps({"default": default, "transports": transports}))
    return path


# ---- an image for another platform ---------------------------------------------------------


@pytest.fixture
def two_platforms(images):
    """A function: a layout whose index says of two images what it is told to say."""

    def make(*entries):
        layout = images.build()
        manifests = []
        for said, real in entries:

            def change(config, real=real):
                config["architecture"] = real

            one = images.build(change_config=change)
            for blob in (one / "blobs/sha256").iterdir():
                (layout / "blobs/sha256" / blob.name).write_bytes(blob.read_bytes())
            (entry,) = json.loads((one / "index.json").read_text())["manifests"]
            del entry["annotations"]
            manifests.append(entry | {"platform": {"os": "linux", "architecture": said}})
        raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
        name = hashlib.sha256(raw).hexdigest()
        (layout / "blobs/sha256" / name).write_bytes(raw)
        images.write_index(layout, f"sha256:{name}", len(raw), INDEX)
        return f"oci:{layout}:v1"

    return make


def test_image_signed_for_another_platform_is_refused_by_every_verb(
    imagers, two_platforms, imagers_registry, keys
):
    name = f"docker://{imagers_registry.address}/team/app:v1"
    imagers.succeed("key", "generate", "cosign", "--output", "signer")
    good = two_platforms(("amd64", "amd64"), ("arm64", "arm64"))
    imagers.succeed("copy", "--all", good, name)
    imagers.succeed("sign", name, "--sign-by-sigstore-private-key", "signer.key")
    policy = write_policy(
        imagers.here / "policy.json", [{"type": "sigstoreSigned", "keyPath": "signer.pub"}]
    )
    imagers.succeed("verify", name, "--policy", policy, "--platform", "linux/arm64")
    # The owner of the registry shows the same two signed images under each other's name.
    swapped = two_platforms(("arm64", "amd64"), ("amd64", "arm64"))
    imagers.succeed("copy", "--all", swapped, name)
    for platform in ("linux/amd64", "linux/arm64"):
        asked = ("--platform", platform)
        for words in (
            ("verify", name, "--policy", policy),
            ("pull", name, "bundle", "--policy", policy),
            ("decrypt", name, "oci:out:v1", "--decryption-key", keys / "r2048.key"),
            ("encrypt", name, "oci:out:v1", "--encryption-key", f"jwe:{keys}/r2048.pub"),
        ):
            result = imagers(*words, *asked)
            assert result.code == DENIED, result
            assert f"expected an image for '{platform}'" in result.error
    signing = imagers("sign", name, "--sign-by-sigstore-private-key", "signer.key")
    assert signing.code == DENIED
    assert "got one for" in signing.error
    assert not (imagers.here / "bundle").exists()
    assert not (imagers.here / "out").exists()


def test_sign_refuses_an_image_that_an_index_calls_by_two_platforms(
    imagers, two_platforms, imagers_registry
):
    name = f"docker://{imagers_registry.address}/team/app:v1"
    imagers.succeed("key", "generate", "cosign", "--output", "signer")
    imagers.succeed("copy", "--all", two_platforms(("amd64", "amd64"), ("arm64", "amd64")), name)
    signing = imagers("sign", name, "--sign-by-sigstore-private-key", "signer.key")
    assert signing.code == DENIED
    assert "expected an image for 'linux/arm64', got one for 'linux/amd64'" in signing.error
    assert list(imagers_registry.tags("team/app")) == ["v1"]


def test_image_in_no_index_is_held_to_the_platform_too(imagers, images, accept):
    def change(config):
        config["architecture"] = "s390x"

    name = f"oci:{images.build(change_config=change)}:v1"
    for verb in (("pull", name, "bundle"), ("verify", name)):
        result = imagers(*verb, "--policy", accept, "--platform", "linux/amd64")
        assert result.code == DENIED
        assert "for 'linux/amd64', got one for 'linux/s390x'" in result.error
    imagers.succeed("pull", name, "bundle", "--policy", accept, "--platform", "linux/s390x")


# ---- one name is judged, another one is read -----------------------------------------------


@pytest.mark.parametrize("verb", ["pull", "verify", "copy"])
def test_link_that_changes_after_the_policy_was_chosen_changes_nothing(imagers, images, verb):
    trusted, evil = images.build(), images.build(images.tar(("evil", b"evil")))
    link = imagers.here / "link"
    link.symlink_to(trusted)
    # The policy is chosen by the path before its keys are read, and they come slowly.
    slow = imagers.here / "key.pub"
    os.mkfifo(slow)
    imagers.succeed("key", "generate", "cosign", "--output", "signer")
    key = (imagers.here / "signer.pub").read_bytes()
    either = {
        "type": "anyOf",
        "requirements": [{"type": "sigstoreSigned", "keyPath": str(slow)}, *ACCEPT],
    }
    policy = write_policy(imagers.here / "policy.json", REJECT, oci={str(trusted): [either]})

    def swap():
        with open(slow, "wb") as file:  # until somebody reads it
            link.unlink()
            link.symlink_to(evil)
            file.write(key)

    swapping = threading.Thread(target=swap)
    swapping.start()
    words = {
        "pull": ("pull", f"oci:{link}:v1", "bundle"),
        "verify": ("verify", f"oci:{link}:v1"),
        "copy": ("copy", f"oci:{link}:v1", "oci:out:v1"),
    }[verb]
    result = imagers.succeed(*words, "--policy", policy)
    swapping.join()
    if verb == "pull":
        assert (imagers.here / "bundle/rootfs/etc/hostname").read_text() == "guest\n"
    else:
        assert images.manifest_digest(trusted) in result.stdout
    # Asked anew, the policy is about what the link leads to now.
    again = imagers("copy", f"oci:{link}:v1", "oci:other:v1", "--policy", policy)
    assert again.code == DENIED


# ---- copy and encrypt ask the policy ---------------------------------------------------------


@pytest.fixture
def change(images, keys):
    """A function: the words of a verb that reads an image and writes another."""
    name = f"oci:{images.build()}:v1"

    def words(verb):
        more = () if verb == "copy" else ("--encryption-key", f"jwe:{keys}/r2048.pub")
        return (verb, name, "oci:out:v1", *more)

    return words


@pytest.mark.parametrize("verb", ["copy", "encrypt"])
def test_policy_that_is_named_decides(imagers, change, verb):
    reject = write_policy(imagers.here / "reject.json", REJECT)
    refused = imagers(*change(verb), "--policy", reject)
    assert refused.code == DENIED
    assert "rejected by the policy" in refused.error
    assert not (imagers.here / "out").exists()
    accepting = write_policy(imagers.here / "accept.json", ACCEPT)
    assert "policy" not in imagers.succeed(*change(verb), "--policy", accepting).stderr


@pytest.mark.parametrize("verb", ["copy", "encrypt"])
def test_policy_of_the_user_decides_where_none_is_named(imagers, change, verb):
    own = imagers.home / "config" / "containers"
    own.mkdir(parents=True)
    write_policy(own / "policy.json", REJECT)
    assert imagers(*change(verb)).code == DENIED
    # One that is there and cannot be read is not passed over.
    (own / "policy.json").write_text("{")
    assert imagers(*change(verb)).code not in (0, DENIED)
    assert not (imagers.here / "out").exists()
