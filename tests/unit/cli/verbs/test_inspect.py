import json

from imagers.testing.registry import EmbeddedRegistry


def test_inspect_plain_image(run, plain):
    facts = run("inspect", plain, "--json").json()
    assert facts["name"] == plain
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
        assert "application/vnd.example.sbom  2.0 KiB" in run("inspect", "--referrers", name).out
