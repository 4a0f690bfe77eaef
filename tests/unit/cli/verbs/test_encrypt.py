# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest


def test_encrypt_for_a_key_file_says_what_it_did(run, plain, keys):
    outcome = run("encrypt", plain, "oci:e:v1", "--encryption-key", f"jwe:{keys}/r2048.pub")
    assert outcome.code == 0
    assert "encrypted 3 of 3 layers" in outcome.out
    assert "manifest sha256:" in outcome.out
    assert "AES_256_CTR_HMAC_SHA256" in outcome.out
    assert "stay readable" in outcome.err


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["0"], [True, False, False]),
        (["-1"], [False, False, True]),
        (["0", "2"], [True, False, True]),
        (["1", "1"], [False, True, False]),
    ],
)
def test_encrypt_layer_chooses(run, plain, keys, layers, expected):
    words = [word for layer in layers for word in ("--encrypt-layer", layer)]
    outcome = run(
        "encrypt", plain, "oci:e:v1", "--encryption-key", f"jwe:{keys}/r2048.pub", *words, "--json"
    )
    assert outcome.json()["encrypted"] == sum(expected)
    shown = run("inspect", "oci:e:v1", "--json").json()
    assert [layer["encrypted"] for layer in shown["layers"]] == expected


def test_encrypt_with_allow_nothing_keeps_the_image(run, sealed, keys):
    words = ("--encryption-key", f"jwe:{keys}/r2048.pub")
    refused = run("encrypt", sealed, "oci:e:v1", *words)
    assert refused.code == 2
    assert "--allow-nothing" in refused.err
    outcome = run("encrypt", sealed, "oci:e:v1", *words, "--allow-nothing", "--json")
    assert outcome.code == 0
    assert outcome.json()["encrypted"] == 0
    assert outcome.json()["digest"] == run("inspect", sealed, "--json").json()["digest"]


def test_encrypt_takes_one_platform_of_an_index(run, multi, keys):
    words = ("--encryption-key", f"jwe:{keys}/ec256.pub", "--platform", "linux/arm64")
    assert run("encrypt", multi, "oci:e:v1", *words).code == 0
    assert run("inspect", "oci:e:v1", "--json").json()["platform"] == "linux/arm64"


def test_encrypt_for_a_broker_binds_the_key_to_the_manifest(run, plain, admin, imagers_broker):
    words = ("--encryption-key", "broker:kbs:///default/app/", *admin)
    facts = run("encrypt", plain, "oci:e:v1", *words, "--json").json()
    found = imagers_broker.admin.metadata(facts["kek"])
    assert [str(digest) for digest in found.manifest_digests] == [facts["digest"]]
    text = run("encrypt", plain, "oci:f:v1", *words).out
    assert "key-encryption key kbs:///default/app/" in text


def test_encrypt_that_fails_after_the_key_was_stored_says_so(run, plain, admin, imagers_broker):
    words = ("--encryption-key", "broker:kbs:///default/app/key", *admin)
    outcome = run("encrypt", plain, "oci:/proc/e:v1", *words)
    assert outcome.code == 13
    assert "bound to no image: no guest gets it" in outcome.err
    assert imagers_broker.admin.metadata("kbs:///default/app/key").manifest_digests == ()


def sealed_layers(run, name):
    return run("inspect", name, "--json").json()["layers"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--encrypt-layer", "1.."], [False, True, True]),
        (["--encrypt-layer", "..-2"], [True, True, False]),
        (["--encrypt-layer", "-1..-1", "--encrypt-layer", "0"], [True, False, True]),
        (["--skip-base", "2"], [False, False, True]),
    ],
)
def test_encrypt_layers_by_ranges_and_without_the_base(run, plain, keys, words, expected):
    recipient = ("--encryption-key", f"jwe:{keys}/r2048.pub")
    assert run("encrypt", plain, "oci:e:v1", *recipient, *words).code == 0
    assert [one["encrypted"] for one in sealed_layers(run, "oci:e:v1")] == expected


def test_encrypt_a_whole_index_and_decrypt_it(run, multi, keys):
    recipient = ("--encryption-key", f"jwe:{keys}/r2048.pub")
    facts = run("encrypt", multi, "oci:e:v1", *recipient, "--all", "--json").json()
    assert [one["platform"] for one in facts["images"]] == ["linux/amd64", "linux/arm64"]
    assert facts["encrypted"] == sum(len(one["layers"]) for one in facts["images"])
    assert run("inspect", "oci:e:v1", "--json").json()["digest"] == facts["digest"]
    again = run("encrypt", "oci:e:v1", "oci:f:v1", *recipient, "--all")
    assert again.code == 2
    assert "every selected layer of every image is encrypted already" in again.err
    key = ("--decryption-key", f"{keys}/r2048.key", "--require-encrypted")
    back = run("decrypt", "oci:e:v1", "oci:back:v1", "--all", *key, "--json").json()
    assert len(back["images"]) == 2
    text = run("decrypt", "oci:e:v1", "oci:again:v1", "--all", *key).out
    assert "linux/arm64 sha256:" in text
    assert f"index {back['digest']}" in text


def test_encrypt_a_whole_index_for_a_broker_binds_the_key_to_each_image(
    run, multi, admin, imagers_broker
):
    words = ("--encryption-key", "broker:kbs:///default/app/", *admin, "--all")
    facts = run("encrypt", multi, "oci:e:v1", *words, "--json").json()
    found = imagers_broker.admin.metadata(facts["kek"])
    assert {str(digest) for digest in found.manifest_digests} == {
        one["digest"] for one in facts["images"]
    }


def test_encrypt_with_the_second_cipher_says_who_can_read_it(run, plain, keys, accept):
    recipient = ("--encryption-key", f"jwe:{keys}/ec256.pub")
    outcome = run("encrypt", plain, "oci:e:v1", *recipient, "--cipher", "AES256_GCM_HKDF_1MB")
    assert outcome.code == 0
    assert "is read by imagers, and by no other tool" in outcome.err
    assert {one["cipher"] for one in sealed_layers(run, "oci:e:v1")} == {"AES256_GCM_HKDF_1MB"}
    key = ("--decryption-key", f"{keys}/ec256.key")
    assert run("decrypt", "oci:e:v1", "oci:d:v1", *key).code == 0
    pulled = run("pull", "oci:e:v1", "bundle", "--policy", accept, *key, "--require-encrypted")
    assert pulled.code == 0, pulled.err
    unknown = run("encrypt", plain, "oci:f:v1", *recipient, "--cipher", "ROT13")
    assert unknown.code == 12
    assert "'ROT13' is not supported: expected AES256_GCM_HKDF_1MB, AES_256_CTR" in unknown.err


def test_recipients_are_added_and_removed_without_new_layers(run, plain, keys):
    first = ("--encryption-key", f"jwe:{keys}/r2048.pub")
    other = f"pkcs7:{keys}/cert1.crt"
    before = run("encrypt", plain, "oci:a:v1", *first, "--json").json()
    added = run(
        "encrypt",
        *("oci:a:v1", "oci:b:v1", "--add-recipient", other),
        *("--decryption-key", f"{keys}/r2048.key", "--json"),
    ).json()
    assert added["rewrapped"] == len(added["layers"])
    assert (added["added"], added["removed"], added["opens"]) == ([other], [], True)
    assert [one["digest"] for one in sealed_layers(run, "oci:b:v1")] == [
        one["digest"] for one in sealed_layers(run, "oci:a:v1")
    ]
    key = ("--decryption-key", f"{keys}/cert1.key:{keys}/cert1.crt")
    assert run("decrypt", "oci:b:v1", "oci:c:v1", *key).code == 0
    outcome = run("encrypt", "oci:b:v1", "oci:d:v1", "--remove-recipient", other, "--json")
    assert "still reads old copies" in outcome.err
    assert outcome.json()["digest"] == before["digest"]
    assert run("decrypt", "oci:d:v1", "oci:e:v1", *key).code == 30


def test_recipients_are_rotated_in_one_command(run, plain, keys):
    new, old, sealed = f"jwe:{keys}/ec256.pub", f"jwe:{keys}/r2048.pub", "oci:old:v1"
    assert run("encrypt", plain, sealed, "--encryption-key", old).code == 0
    words = ("--add-recipient", new, "--remove-recipient", old)
    words += ("--decryption-key", f"{keys}/r2048.key")
    outcome = run("encrypt", sealed, "oci:new:v1", *words)
    assert outcome.code == 0, outcome.err
    assert "the given --decryption-key does not open the new image" in outcome.err
    assert "what they kept the keys of" in outcome.err
    *_, summary, added, removed, manifest = outcome.out.splitlines()
    assert re.fullmatch(r"rewrapped 3 of 3 layer keys in [0-9.]+ s", summary)
    assert (added, removed) == (f"added {new}", f"removed {old}")
    assert manifest.startswith("manifest sha256:")
    facts = run("encrypt", sealed, "oci:again:v1", *words, "--json").json()
    assert (facts["added"], facts["removed"], facts["opens"]) == ([new], [old], False)
    assert facts["rewrapped"] == 3
    assert "encrypted" not in facts
    for name, code in (("ec256.key", 0), ("r2048.key", 30)):
        key = ("--decryption-key", f"{keys}/{name}")
        assert run("decrypt", "oci:new:v1", f"oci:{name}:v1", *key).code == code


def test_inspect_shows_the_names_that_removal_takes(run, plain, keys):
    words = [f"jwe:{keys}/ec256.pub", f"pkcs11:{keys}/r3072.pub"]
    words = [word for one in words for word in ("--encryption-key", one)]
    run("encrypt", plain, "oci:a:v1", *words)
    packets = sealed_layers(run, "oci:a:v1")[0]["packets"]
    assert [one["name"] for one in packets] == ["jwe#1", "pkcs11#1"]
    assert packets[0]["recipients"] == [
        {"algorithm": "ECDH-ES+A256KW", "key": "r-u7JferktzSHvzbQPhXBZf1o3wY2qKzrmb7xhrxQHM"}
    ]
    assert run("encrypt", "oci:a:v1", "oci:b:v1", "--remove-recipient", "pkcs11#1").code == 0
    assert [one["name"] for one in sealed_layers(run, "oci:b:v1")[0]["packets"]] == ["jwe#1"]
    assert "cannot be read without a key" in run("inspect", "oci:a:v1").out


def test_rekey_gives_the_image_to_other_recipients_only(run, sealed, keys):
    words = ("--encryption-key", f"jwe:{keys}/ec256.pub", "--rekey")
    words += ("--decryption-key", f"{keys}/r2048.key")
    assert run("encrypt", sealed, "oci:e:v1", *words).code == 0
    for name, code in (("ec256.key", 0), ("r2048.key", 30)):
        key = ("--decryption-key", f"{keys}/{name}")
        assert run("decrypt", "oci:e:v1", f"oci:{name}:v1", *key).code == code


OLD = ("--decryption-key", "r2048.key")
NEW = ("--encryption-key", "jwe:r2048.pub")
ADD = ("--add-recipient", "jwe:r2048.pub")
REMOVE = ("--remove-recipient", "jwe#1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "at least one --encryption-key"),
        ((*ADD, "--rekey", *OLD), "expected --rekey, or --add-recipient and --remove-recipient"),
        ((*ADD, *REMOVE), "expected a --decryption-key"),
        ((*NEW, *ADD, *OLD), "--encryption-key encrypts anew"),
        ((*ADD, *OLD, "--encrypt-layer", "0"), "with --encryption-key only"),
        ((*REMOVE, "--skip-base", "1"), "with --encryption-key only"),
        ((*ADD, *OLD, "--cipher", "x"), "--cipher encrypts anew"),
        (ADD, "expected a --decryption-key"),
        ((*NEW, "--rekey"), "expected a --decryption-key"),
        (("--rekey", *OLD), "at least one --encryption-key"),
        ((*NEW, *OLD), "--decryption-key is for --add-recipient"),
        ((*NEW, "--encrypt-layer", "1-2"), "--encrypt-layer: expected a number"),
        ((*NEW, "--all", "--platform", "linux/amd64"), "expected --all or --platform"),
    ],
)
def test_options_that_do_not_fit_together_are_refused_before_anything_is_read(run, words, message):
    outcome = run("encrypt", "oci:nowhere:v1", "oci:e:v1", *words)
    assert outcome.code == 2
    assert message in outcome.err


def test_provider_timeout_ends_a_provider_that_hangs(run, plain, tmp_path, monkeypatch):
    config = tmp_path / "providers.json"
    command = {"path": "sleep", "args": ["100"]}
    config.write_text(json.dumps({"key-providers": {"slow": {"cmd": command}}}))
    monkeypatch.setenv("OCICRYPT_KEYPROVIDER_CONFIG", str(config))
    words = ("--encryption-key", "provider:slow", "--provider-timeout", "0.2")
    outcome = run("encrypt", plain, "oci:e:v1", *words)
    assert outcome.code == 30
    assert "key provider 'slow' ('sleep'): no answer within 0.2 s" in outcome.err
    assert not (tmp_path / "here" / "e").exists()


def test_encrypt_an_index_that_would_show_a_layer_in_another_image_is_refused(
    run, multi, keys, vectors_index
):
    """The base of one image is the second layer of the other."""
    words = ("--encryption-key", f"jwe:{keys}/r2048.pub", "--all", "--encrypt-layer", "0")
    outcome = run("encrypt", vectors_index, "oci:e:v1", *words)
    assert outcome.code == 2
    assert "is encrypted in one image of the index and in the clear in another" in outcome.err
    whole = ("--encryption-key", f"jwe:{keys}/r2048.pub", "--all")
    assert run("encrypt", vectors_index, "oci:f:v1", *whole).code == 0
    assert run("inspect", multi).code == 0


@pytest.fixture
def vectors_index(keys, tmp_path):
    """An index of an image and of the same image with its first two layers swapped."""
    source = keys.parent / "plain" / "gzip"
    layout = tmp_path / "swapped"
    shutil.copytree(source, layout)
    blobs = layout / "blobs" / "sha256"

    def put(document):
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    index = json.loads((layout / "index.json").read_text())
    (entry,) = index["manifests"]
    manifest = json.loads((blobs / entry["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    config["architecture"] = "arm64"
    for names in (manifest["layers"], config["rootfs"]["diff_ids"]):
        names[0], names[1] = names[1], names[0]
    manifest["config"] |= put(config)
    first = {name: entry[name] for name in ("mediaType", "digest", "size")}
    second = {"mediaType": entry["mediaType"]} | put(manifest)
    first["platform"] = {"os": "linux", "architecture": "amd64"}
    second["platform"] = {"os": "linux", "architecture": "arm64"}
    media_type = "application/vnd.oci.image.index.v1+json"
    top = {"schemaVersion": 2, "mediaType": media_type, "manifests": [first, second]}
    named = {"mediaType": media_type, "annotations": entry["annotations"]} | put(top)
    index["manifests"] = [named]
    (layout / "index.json").write_text(json.dumps(index))
    return f"oci:{layout}:v1"


def test_encrypt_of_a_docker_image_says_that_it_becomes_an_oci_image(run, keys, tmp_path):
    layout = tmp_path / "docker"
    shutil.copytree(keys.parent / "plain" / "gzip", layout)
    blobs = layout / "blobs" / "sha256"
    index = json.loads((layout / "index.json").read_text())
    (entry,) = index["manifests"]
    manifest = json.loads((blobs / entry["digest"][7:]).read_text())
    manifest["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    for layer in manifest["layers"]:
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    entry |= {"digest": f"sha256:{digest}", "size": len(data), "mediaType": manifest["mediaType"]}
    (layout / "index.json").write_text(json.dumps(index))
    for words in ([], ["--cipher", "AES256_GCM_HKDF_1MB"]):
        recipient = ("--encryption-key", f"jwe:{keys}/r2048.pub", *words)
        name = f"oci:e{len(words)}:v1"
        outcome = run("encrypt", f"oci:{layout}:v1", name, *recipient)
        assert outcome.code == 0
        assert "the Docker manifest became an OCI manifest" in outcome.err
        facts = run("inspect", name, "--json").json()
        assert facts["media_type"] == "application/vnd.oci.image.manifest.v1+json"
        key = ("--decryption-key", f"{keys}/r2048.key")
        assert run("decrypt", name, f"oci:d{len(words)}:v1", *key).code == 0


@pytest.mark.parametrize("place", ["docker-archive:x.tar", "docker-daemon:app:v1"])
def test_encrypt_into_what_cannot_hold_it_refused_before_any_key(run, plain, place, tmp_path):
    outcome = run("encrypt", plain, place, "--encryption-key", f"jwe:{tmp_path}/none")
    assert outcome.code == 12
    assert "cannot hold an encrypted image" in outcome.err


def test_encrypt_says_once_what_annotations_did_not_survive(run, write_image, keys):
    toc = "io.github.containers.zstd-chunked.manifest-checksum"
    name = write_image("i", layers=(b"a", b"b"), layer={"annotations": {toc: "sha256:1"}})
    words = ("--encryption-key", f"jwe:{keys}/r2048.pub")
    outcome = run("encrypt", name, "oci:e:v1", *words)
    assert outcome.code == 0
    assert f"were left out: '{toc}' of layer 1 of 2, 2 of 2" in outcome.err
    assert outcome.err.count(toc) == 1
    facts = run("encrypt", name, "oci:f:v1", *words, "--encrypt-layer", "1", "--json").json()
    assert [one["left_out"] for one in facts["layers"]] == [[], [toc]]


@pytest.mark.parametrize(
    ("rootfs", "layers"),
    [
        ({"type": "layers"}, []),
        ({"type": "layers", "diff_ids": None}, None),
        (None, ...),
        (..., []),
    ],
)
def test_an_image_without_layers_goes_through_every_verb(
    run, write_image, keys, accept, rootfs, layers
):
    """FROM scratch and labels; what Go writes for an empty list may be null, or missing."""
    name = write_image(
        "i",
        layers=(),
        manifest={"layers": layers},
        config={"rootfs": rootfs, "history": None, "config": {"Labels": {"a": "b"}, "labels": {}}},
    )
    policy = ("--policy", accept)
    assert run("inspect", name, "--platform", "linux/amd64").code == 0
    copied = run("copy", name, "oci:c:v1", *policy)
    assert copied.code == 0
    words = ("--encryption-key", f"jwe:{keys}/r2048.pub", *policy)
    refused = run("encrypt", name, "oci:e:v1", *words)
    assert refused.code == 2
    assert "nothing to encrypt: no layer" in refused.err
    assert run("encrypt", name, "oci:e:v1", *words, "--allow-nothing").code == 0
    assert run("decrypt", name, "oci:d:v1", "--decryption-key", f"{keys}/r2048.key").code == 0
    digest = run("inspect", name, "--json").json()["digest"]
    for other in ("oci:c:v1", "oci:e:v1", "oci:d:v1"):
        assert run("inspect", other, "--json").json()["digest"] == digest
    pulled = run("pull", name, "b", *policy, "--platform", "linux/amd64")
    assert pulled.code == 0, pulled.err


def test_encrypt_keeps_what_go_wrote_byte_for_byte_but_for_the_layer(run, write_image, keys):
    members = {"schemaVersion": ..., "annotations": {"a": None}, "subject": None, "x": [None, 1.0]}
    name = write_image("i", manifest=members, layer={"annotations": None, "urls": None})
    words = ("--encryption-key", f"jwe:{keys}/r2048.pub", "--json")
    digest = run("encrypt", name, "oci:e:v1", *words).json()["digest"]
    document = json.loads(Path("e/blobs/sha256", digest[7:]).read_text())
    before = run("inspect", name, "--json").json()["digest"]
    was = json.loads(Path("i/blobs/sha256", before[7:]).read_text())
    assert {**document, "layers": None} == {**was, "layers": None}
