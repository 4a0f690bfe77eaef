# SPDX-License-Identifier: Apache-2.0
"""Images with a layer that its maker forbids to distribute: it is a reference to somewhere else."""

import json
from pathlib import Path

import pytest

URL = "https://example.org/base.tar.gz"
KINDS = [
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
]
IS_STORED = pytest.mark.parametrize("stored", [True, False])


@pytest.fixture(params=KINDS, ids=["docker", "oci"])
def foreign(request, write_image):
    """A function: an image whose base is foreign, and there or not; name and digest of the base."""

    def make(*, stored):
        name = write_image("i", layers=(b"base", b"own"))
        (entry,) = json.loads(Path("i/index.json").read_text())["manifests"]
        manifest = json.loads(Path("i/blobs/sha256", entry["digest"][7:]).read_text())
        members = {"mediaType": request.param, "urls": [URL]}
        layers = [manifest["layers"][0] | members, manifest["layers"][1]]
        name = write_image("j", layers=(b"base", b"own"), manifest={"layers": layers})
        if not stored:
            blob(name, layers[0]["digest"]).unlink()
        return name, layers[0]["digest"]

    return make


def blob(name, digest):
    return Path(name.split(":")[1], "blobs/sha256", digest[7:])


@IS_STORED
def test_copy_leaves_a_foreign_layer_where_it_is(run, foreign, imagers_registry, stored):
    name, base = foreign(stored=stored)
    digest = run("inspect", name, "--json").json()["digest"]
    there = f"docker://{imagers_registry.address}/app:v1"
    for source, sink in ((name, there), (there, "oci:c:v1"), (name, "oci-archive:a.tar:v1")):
        done = run("copy", source, sink, "--json")
        assert done.code == 0, done.err
        assert (done.json()["foreign"], done.json()["digest"]) == (1, digest)
    assert not blob("oci:c", base).exists()
    assert "1 foreign layers stay where they are" in run("copy", name, "oci:d:v1").out


@pytest.mark.parametrize("sink", ["dir:c", "docker-archive:c.tar"])
def test_copy_to_where_references_do_not_go_needs_the_bytes(run, foreign, sink):
    name, base = foreign(stored=False)
    refused = run("copy", name, sink)
    assert refused.code == 10
    assert "layer 1 of 2: is a foreign layer, and not where its image is: it is said to be at " in (
        refused.err
    )
    assert URL in refused.err
    assert not Path(sink.split(":")[1]).exists()
    blob(name, base).write_bytes(blob("oci:i", base).read_bytes())
    assert run("copy", name, sink).code == 0


def test_encrypt_of_a_foreign_layer_that_is_not_there_says_how_to_leave_it(run, foreign, keys):
    name, _ = foreign(stored=False)
    words = ("--encryption-key", f"jwe:{keys}/r2048.pub")
    refused = run("encrypt", name, "oci:e:v1", *words)
    assert refused.code == 10
    assert "--skip-base" in refused.err
    assert not Path("e").exists()
    done = run("encrypt", name, "oci:e:v1", *words, "--skip-base", "1")
    assert done.code == 0, done.err
    back = run("decrypt", "oci:e:v1", "oci:d:v1", "--decryption-key", f"{keys}/r2048.key")
    assert back.code == 0, back.err
    for layout in ("e", "d"):
        layers = run("inspect", f"oci:{layout}:v1", "--json").json()["layers"]
        assert [layer["encrypted"] for layer in layers] == [False, layout == "e"]
        digest = run("inspect", f"oci:{layout}:v1", "--json").json()["digest"]
        assert json.loads(blob(f"oci:{layout}", digest).read_text())["layers"][0]["urls"] == [URL]


def test_encrypt_of_a_foreign_layer_that_is_there_tells_nobody_where_it_was(run, foreign, keys):
    name, _ = foreign(stored=True)
    words = ("--encryption-key", f"jwe:{keys}/r2048.pub", "--json")
    digest = run("encrypt", name, "oci:e:v1", *words).json()["digest"]
    layer = json.loads(blob("oci:e", digest).read_text())["layers"][0]
    assert layer["mediaType"] == KINDS[1] + "+encrypted"
    assert "urls" not in layer


def test_pull_of_a_foreign_layer_that_is_not_there_is_refused(run, foreign, accept):
    name, _ = foreign(stored=False)
    refused = run("pull", name, "b", "--policy", accept)
    assert refused.code == 10
    assert "is a foreign layer" in refused.err
    assert not Path("b").exists()


def test_layer_of_a_usual_type_that_only_urls_have_is_no_reference(run, write_image):
    name = write_image("i", layers=(b"base",), layer={"urls": [URL]})
    digest = run("inspect", name, "--json").json()["layers"][0]["digest"]
    blob(name, digest).unlink()
    refused = run("copy", name, "oci:c:v1")
    assert refused.code == 10
    assert f"layer 1 of 1: is not where its image is: it is said to be at '{URL}'" in refused.err
