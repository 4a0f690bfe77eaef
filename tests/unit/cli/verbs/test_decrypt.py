# SPDX-License-Identifier: Apache-2.0
import json
import os
from pathlib import Path

import pytest
import zstandard

from imagers.model.digest import digest_of
from imagers.model.media import OCI_CONFIG, OCI_INDEX, OCI_LAYER_ZSTD, OCI_MANIFEST


def test_decrypt_gives_the_plain_layers(run, sealed, keys):
    words = ("--decryption-key", keys / "r2048.key")
    outcome = run("decrypt", sealed, "oci:d:v1", *words)
    assert outcome.code == 0
    assert "decrypted 3 of 3 layers" in outcome.out
    shown = run("inspect", "oci:d:v1", "--json").json()
    assert [layer["encrypted"] for layer in shown["layers"]] == [False] * 3


def test_decrypt_of_a_plain_image_keeps_it_unless_encryption_is_demanded(run, plain):
    outcome = run("decrypt", plain, "oci:d:v1", "--json")
    assert outcome.json()["decrypted"] == 0
    refused = run("decrypt", plain, "oci:e:v1", "--require-encrypted")
    assert refused.code == 21
    assert "layer 1 of 3" in refused.err


def test_decrypt_tries_each_key(run, sealed, keys):
    words = ("--decryption-key", keys / "r4096.key", "--decryption-key", keys / "r2048.key")
    assert run("decrypt", sealed, "oci:d:v1", *words, "--json").json()["decrypted"] == 3


def test_decrypt_with_a_password_in_the_argument_warns_once(run, keys):
    image = f"oci:{keys.parent}/encrypted/jwe-key-password-C/image:v1"
    words = ("--decryption-key", f"{keys}/rpw.key:correct horse") * 2
    outcome = run("decrypt", image, "oci:d:v1", *words)
    assert outcome.code == 0
    assert outcome.err.count("imagers: warning: ") == 1
    assert "horse" not in outcome.err


def test_decrypt_help_says_that_nothing_is_trusted(run):
    assert "no signature is looked at" in " ".join(run("decrypt", "--help").out.split())


def test_decrypt_without_diff_ids_says_so_each_time(run, sealed, keys):
    words = ("--decryption-key", keys / "r2048.key")
    outcome = run("decrypt", sealed, "oci:d:v1", *words, "--insecure-skip-diff-id", "--json")
    assert outcome.json()["decrypted"] == 3
    assert "imagers: warning: diff_ids are not checked" in outcome.err
    assert "diff_ids are not" not in run("decrypt", sealed, "oci:e:v1", *words).err


@pytest.fixture
def wide_windows():
    """A layout of two layers whose zstd frames ask for a window of 64 MiB each."""
    blobs = Path("wide/blobs/sha256")
    blobs.mkdir(parents=True)

    def put(data, media_type):
        digest = digest_of(data)
        (blobs / digest.hex).write_bytes(data)
        return {"mediaType": media_type, "digest": str(digest), "size": len(data)}

    settings = zstandard.ZstdCompressionParameters(window_log=26, write_content_size=0)
    tars = [bytes(10240), bytes(20480)]
    layers = []
    for tar in tars:
        frame = zstandard.ZstdCompressor(compression_params=settings).compressobj()
        layers.append(put(frame.compress(tar) + frame.flush(), OCI_LAYER_ZSTD))
    diff_ids = [str(digest_of(tar)) for tar in tars]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put(config, OCI_CONFIG),
        "layers": layers,
    }
    manifest = put(json.dumps(document).encode(), OCI_MANIFEST)
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [manifest]}
    Path("wide/index.json").write_text(json.dumps(index))
    Path("wide/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return "oci:wide:v1"


def test_decrypt_of_a_window_above_the_memory_says_how_to_have_more(run, wide_windows, keys):
    assert run("encrypt", wide_windows, "oci:e:v1", "--encryption-key", f"jwe:{keys}/r2048.pub")
    words = ("decrypt", "oci:e:v1", "oci:d:v1", "--decryption-key", keys / "r2048.key")
    refused = run(*words)
    assert refused.code == 12
    assert "needs a zstd window above the limit of 33554432 bytes" in refused.err
    assert "--memory 256MiB" in refused.err
    assert not os.path.exists("d")
    done = run(*words, "--memory", "256MiB", "--jobs", "2")
    assert "decrypted 2 of 2 layers" in done.out
    # There is room for one of them alone.
    done = run(*words[:2], "oci:f:v1", *words[3:], "--memory", "80MiB", "--jobs", "2")
    assert "decrypted 2 of 2 layers" in done.out


def test_decrypt_asks_for_no_signature_and_reads_no_place_of_them(
    run, home, sealed, keys, imagers_registry
):
    name = f"{imagers_registry.address}/team/app:v1"
    assert run("copy", sealed, name).code == 0
    directory = home / ".config" / "containers" / "registries.d"
    directory.mkdir(parents=True)
    (directory / "x.yaml").write_text("docker: [")
    assert run("decrypt", name, "oci:d:v1", "--decryption-key", keys / "r2048.key").code == 0
    assert run("inspect", name).code == 11


def test_decrypt_counts_no_layer_as_checked_that_it_did_not_read(
    run, plain, keys, imagers_registry
):
    """A plain layer that is mounted and not held to its diff_id passes nobody's eyes."""
    first, second = (f"{imagers_registry.address}/{name}/app:v1" for name in ("first", "second"))
    sealing = ("--encryption-key", f"jwe:{keys}/r2048.pub", "--skip-base", "2")
    assert run("encrypt", plain, first, *sealing).code == 0
    key = ("--decryption-key", f"{keys}/r2048.key", "--json")
    facts = run("decrypt", first, second, *key).json()
    assert facts["checked"] == {"digest": 3, "diff_id": 1}
    facts = run("decrypt", first, f"{second}2", *key, "--insecure-skip-diff-id").json()
    assert facts["checked"] == {"digest": 1, "diff_id": 0}
    assert [layer["moved"] for layer in facts["layers"]] == [False, False, True]
