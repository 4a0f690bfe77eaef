# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.model.media import OCI_INDEX, OCI_MANIFEST
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
