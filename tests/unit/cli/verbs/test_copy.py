# SPDX-License-Identifier: Apache-2.0
import json


def test_copy_of_an_index_takes_one_platform_or_all(run, multi):
    one = run("copy", multi, "oci:one:v1", "--platform", "linux/arm64", "--json")
    everything = run("copy", multi, "oci:all:v1", "--all", "--json")
    assert (one.code, everything.code) == (0, 0)
    assert one.json()["digest"] != everything.json()["digest"]
    assert everything.json()["blobs"] > one.json()["blobs"]
    shown = run("inspect", "oci:one:v1", "--json").json()
    assert shown["platform"] == "linux/arm64"
    assert "platforms" not in shown
    assert run("inspect", "oci:all:v1", "--json").json()["platforms"] == [
        "linux/amd64",
        "linux/arm64",
    ]


def test_copy_again_skips_what_is_there(run, plain):
    first = run("copy", plain, "oci:copy:v1", "--json").json()
    second = run("copy", plain, "oci:copy:v2", "--json").json()
    assert first["skipped"] == 0
    assert second["skipped"] == second["blobs"]
    assert second["size"] == 0
    assert "were there already" in run("copy", plain, "oci:copy:v3").out


def test_copy_says_digest_blobs_and_bytes(run, plain):
    shown = run("inspect", plain, "--json").json()
    text = run("copy", plain, "oci:copy:v1").out
    assert text.startswith(f"copied {shown['digest']}: 4 blobs, ")


def test_copy_all_and_platform_exclude_each_other(run, multi):
    outcome = run("copy", multi, "oci:copy:v1", "--all", "--platform", "linux/amd64")
    assert outcome.code == 2
    assert "--all and --platform exclude each other" in outcome.err


def test_copy_to_and_from_a_registry_with_a_login(run, plain):
    from imagers.testing.registry import EmbeddedRegistry

    with EmbeddedRegistry(username="user", password="horse:battery") as registry:
        name = f"{registry.address}/team/app:v1"
        assert run("copy", plain, name).code == 10
        assert run("copy", plain, name, "--dest-creds", "user:horse:battery").code == 0
        assert run("copy", name, "oci:copy:v1", "--src-creds", "user:horse:battery").code == 0
        back = run("copy", name, "oci:copy:v2", "--creds", "user:horse:battery", "--json")
        assert json.loads(registry.read(back.json()["digest"]))["schemaVersion"] == 2


def test_copy_writes_the_digest_file(run, plain, tmp_path):
    facts = run("copy", plain, f"dir:{tmp_path}/d", "--digestfile", tmp_path / "f", "--json").json()
    assert (tmp_path / "f").read_text() == facts["digest"]


def test_copy_through_an_archive_and_back(run, plain, tmp_path):
    archive = f"oci-archive:{tmp_path}/a.tar:v1"
    first = run("copy", plain, archive, "--json").json()["digest"]
    assert run("copy", archive, f"dir:{tmp_path}/d", "--json").json()["digest"] == first
