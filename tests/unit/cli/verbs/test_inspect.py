# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from imagers.model.descriptor import Descriptor, Platform
from imagers.model.digest import digest_of
from imagers.model.media import OCI_INDEX, OCI_MANIFEST
from imagers.testing import make_image, make_index, make_layer
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink


def test_inspect_plain_image(run, plain):
    facts = run("inspect", plain, "--json").json()
    assert facts["reference"] == plain
    assert facts["platform"] == "linux/amd64"
    assert [layer["encrypted"] for layer in facts["layers"]] == [False] * 3
    assert all("cipher" not in layer for layer in facts["layers"])
    text = run("inspect", plain).out
    assert text.count("not encrypted") == 3
    assert "tar+zstd" in text


def test_inspect_index_names_its_platforms_and_the_chosen_manifest(run, multi):
    text = run("inspect", multi, "--platform", "linux/arm64").out
    assert "platforms:   linux/amd64, linux/arm64" in text
    assert "manifest:    sha256:" in text
    assert "platform:    linux/arm64" in text


def test_inspect_encrypted_image_says_how_and_for_whom(run, keys):
    name = f"oci:{keys.parent}/encrypted/jwe-two-recipients-A/image:v1"
    facts = run("inspect", name, "--json").json()
    layer = facts["layers"][0]
    assert layer["cipher"] == "AES_256_CTR_HMAC_SHA256"
    assert len(layer["recipients"]) >= 1
    assert "AES_256_CTR_HMAC_SHA256" in run("inspect", name).out


def test_inspect_asks_for_no_key(run, sealed):
    outcome = run("inspect", sealed)
    assert outcome.code == 0
    assert outcome.err == ""


def test_inspect_counts_signatures_or_says_why_it_could_not(run, plain, imagers_registry):
    name = f"{imagers_registry.address}/team/app:v1"
    run("copy", plain, name)
    assert run("inspect", name, "--json").json()["signatures"] == 0
    imagers_registry.answer_with(403, path="/manifests/sha256-", times=20)
    outcome = run("inspect", name, "--json")
    assert outcome.code == 0
    assert "403" in str(outcome.json()["signatures"])


def test_inspect_lists_referrers(run, plain):
    with EmbeddedRegistry() as registry:
        name = f"{registry.address}/team/app:v1"
        run("copy", plain, name)
        assert "nothing refers to it" in run("inspect", "--referrers", name).out
        digest = registry.tags("team/app")["v1"]
        entry = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:" + "0" * 64,
            "size": 2048,
            "artifactType": "application/vnd.example.sbom",
        }
        index = {"schemaVersion": 2, "manifests": [entry]}
        body = json.dumps(index).encode()
        registry.answer_with(200, path=f"/referrers/{digest}", body=body, times=20)
        facts = run("inspect", "--referrers", name, "--json").json()
        assert facts["referrers"][0]["artifact_type"] == "application/vnd.example.sbom"
        out = run("inspect", "--referrers", name).out
        assert "application/vnd.example.sbom  linux/amd64  2.0 KiB" in out


@pytest.mark.parametrize("has_api", [True, False])
def test_inspect_lists_what_refers_to_an_index_and_to_its_image(run, multi, has_api):
    with EmbeddedRegistry(referrers_api=has_api) as registry:
        name = f"{registry.address}/team/app:v1"
        run("copy", "--all", multi, name)
        facts = run("inspect", name, "--platform", "linux/arm64", "--json").json()
        sink = open_sink(parse_image_name(f"docker://{name}"))
        for subject, kind in ((facts["digest"], OCI_INDEX), (facts["manifest"], OCI_MANIFEST)):
            entry = {"mediaType": kind, "digest": subject, "size": len(registry.read(subject))}
            raw = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": entry}
            sink.put_manifest(json.dumps(raw).encode(), OCI_INDEX, by_name=False)
        sink.close()
        words = ("inspect", "--referrers", name, "--platform", "linux/arm64")
        listed = run(*words, "--json").json()["referrers"]
        assert [one["subject"] for one in listed] == [facts["digest"], facts["manifest"]]
        assert {one["media_type"] for one in listed} == {OCI_INDEX}
        rows = [line.split() for line in run(*words).out.splitlines() if line.startswith(OCI_INDEX)]
        assert [row[1:-3] for row in rows] == [["the", "index"], ["linux/arm64"]]


CONFIG = {
    "created": "2026-11-01T00:00:00Z",
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "User": "1000",
        "Env": ["PATH=/bin"],
        "Entrypoint": ["/bin/app", "--name"],
        "Cmd": ["a b"],
        "WorkingDir": "/srv",
        "Labels": {"org.opencontainers.image.version": "1"},
        "ExposedPorts": {"80/tcp": {}},
        "Unknown": [1],
    },
}


def test_inspect_shows_what_people_look_for_in_a_config(run, write_image):
    name = write_image("app", config=CONFIG)
    facts = run("inspect", name, "--json").json()["config"]
    del facts["digest"], facts["size"]
    assert facts == {
        "created": "2026-11-01T00:00:00Z",
        "user": "1000",
        "working_dir": "/srv",
        "entrypoint": ["/bin/app", "--name"],
        "cmd": ["a b"],
        "env": ["PATH=/bin"],
        "labels": {"org.opencontainers.image.version": "1"},
        "exposed_ports": {"80/tcp": {}},
        "volumes": None,
    }
    text = run("inspect", name).out
    assert "created:     2026-11-01T00:00:00Z\n" in text
    assert "command:     /bin/app --name 'a b'\n" in text


def test_inspect_of_a_config_without_a_word_says_nothing_of_it(run, write_image):
    name = write_image("app", config={"config": {"Cmd": "no list", "Entrypoint": None}})
    text = run("inspect", name).out
    assert "command:" not in text
    assert run("inspect", name, "--json").json()["config"]["cmd"] == "no list"


def test_inspect_config_is_the_config_with_all_its_members(run, write_image):
    name = write_image("app", config=CONFIG)
    outcome = run("inspect", "--config", name)
    assert outcome.json()["config"] == CONFIG["config"]
    assert run("inspect", "--config", "--json", name).out == outcome.out


def test_inspect_raw_is_the_bytes_and_nothing_else(run, multi, imagers_registry):
    name = f"{imagers_registry.address}/team/raw:v1"
    run("copy", "--all", multi, name)
    facts = run("inspect", name, "--json").json()
    assert run("inspect", "--raw", name).out.encode() == imagers_registry.read(facts["digest"])
    arm = ("--platform", "linux/arm64")
    of_arm = run("inspect", name, *arm, "--json").json()
    raw = run("inspect", "--raw", name, *arm).out.encode()
    assert raw == imagers_registry.read(of_arm["manifest"])
    config = run("inspect", "--raw", "--config", name, *arm).out.encode()
    assert config == imagers_registry.read(of_arm["config"]["digest"])
    assert run("inspect", "--config", name, *arm).json()["architecture"] == "arm64"


def test_inspect_raw_of_a_name_with_a_digest_is_held_to_it(run, plain, imagers_registry):
    name = f"{imagers_registry.address}/team/raw:v2"
    run("copy", plain, name)
    digest = run("inspect", name, "--json").json()["digest"]
    pinned = name.replace(":v2", f":v2@{digest}")
    assert run("inspect", "--raw", pinned).code == 0
    imagers_registry.replace_blob(digest, b'{"schemaVersion":2}')
    outcome = run("inspect", "--raw", pinned)
    assert (outcome.code, outcome.out) == (20, "")


def test_inspect_config_that_is_not_the_one_of_the_manifest_refused(run, plain, imagers_registry):
    name = f"{imagers_registry.address}/team/config:v1"
    run("copy", plain, name)
    digest = run("inspect", name, "--json").json()["config"]["digest"]
    imagers_registry.corrupt_blob(digest)
    for words in (("--config",), ("--config", "--raw")):
        outcome = run("inspect", *words, name)
        assert (outcome.code, outcome.out) == (20, "")


def test_inspect_of_one_document_looks_for_no_signatures(run, plain, imagers_registry):
    name = f"{imagers_registry.address}/team/raw:v3"
    run("copy", plain, name)
    imagers_registry.requests.clear()
    run("inspect", "--raw", name)
    paths = [path for _, path in imagers_registry.asked()]
    assert paths == ["/v2/", "/v2/team/raw/manifests/v3"]


@pytest.mark.parametrize("words", [("--raw", "--referrers"), ("--config", "--referrers")])
def test_inspect_of_two_things_at_once_refused(run, plain, words):
    outcome = run("inspect", plain, *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert "show one document, and no --referrers" in outcome.err


def test_inspect_raw_is_no_json_document_of_ours(run, plain):
    outcome = run("inspect", plain, "--raw", "--json")
    assert outcome.code == 2
    assert outcome.json()["error"]["message"] == "--raw and --json exclude each other"


def test_inspect_tells_attestations_from_platforms(run):
    image = make_image(make_layer(b"x"))
    attestations = [
        Descriptor(
            OCI_MANIFEST,
            digest_of(bytes([number])),
            1,
            annotations={"vnd.docker.reference.type": "attestation-manifest"},
            platform=Platform("unknown", "unknown"),
        )
        for number in range(2)
    ]
    make_index(image, *attestations).save(Path("built"))
    facts = run("inspect", "oci:built", "--json").json()
    assert (facts["platforms"], facts["attestations"]) == (["linux/amd64"], 2)
    assert "platforms:   linux/amd64; and 2 attestations\n" in run("inspect", "oci:built").out
    refused = run("inspect", "oci:built", "--platform", "linux/arm64")
    assert "expected one of linux/amd64\n" in refused.err
