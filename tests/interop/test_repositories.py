# SPDX-License-Identifier: Apache-2.0
"""Tags, deletion and single documents, beside skopeo and at docker-registry."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagers.errors import NotFound, RemoteError, UsageError
from imagers.model.digest import digest_of
from imagers.testing import EmbeddedRegistry
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink, open_source
from imagers.transport.repository import (
    delete_image,
    list_tags,
    parse_one_image,
    parse_repository,
)

VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "ocicrypt" / "plain"
needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")


@pytest.fixture(params=["docker-registry", "embedded"])
def address(request):
    """A registry, theirs or ours."""
    if request.param == "docker-registry":
        yield request.getfixturevalue("docker_registry").address
        return
    with EmbeddedRegistry() as registry:
        yield registry.address


@pytest.fixture
def repository(request, address):
    """A repository of its own for each test."""
    return f"{address}/test/{digest_of(request.node.nodeid.encode()).hex[:16]}"


def push(image, name, *, all_platforms=False):
    with (
        open_source(parse_image_name(f"oci:{VECTORS}/{image}:v1")) as source,
        open_sink(parse_image_name(name)) as sink,
    ):
        return copy_image(source, sink, all_platforms=all_platforms).digest


def read(name):
    with open_source(parse_image_name(name)) as source:
        return source.read_manifest().raw


def skopeo(*words):
    command = ["skopeo", "--insecure-policy", *words]
    return subprocess.run(command, capture_output=True, check=False, timeout=60)


def imagers(*words):
    command = [sys.executable, "-m", "imagers", *words]
    answer = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@needs_skopeo
def test_tags_are_those_that_skopeo_lists(repository):
    for tag in ("v2", "v10", "latest", "v1"):
        push("tiny", f"{repository}:{tag}")
    theirs = skopeo("list-tags", "--tls-verify=false", f"docker://{repository}")
    shown = json.loads(theirs.stdout)
    assert shown["Tags"] == list(list_tags(parse_repository(repository)))
    ours = json.loads(imagers("list-tags", "--json", repository))
    assert ours == {"repository": shown["Repository"], "tags": shown["Tags"]}
    assert sorted(ours["tags"]) == ["latest", "v1", "v10", "v2"]


@needs_skopeo
def test_tags_of_an_archive_are_those_that_skopeo_lists(tmp_path):
    name = f"docker-archive:{tmp_path}/a.tar"
    push("tiny", f"{name}:r.example/app:v1")
    theirs = json.loads(skopeo("list-tags", name).stdout)["Tags"]
    assert theirs == list(list_tags(parse_repository(name))) == ["r.example/app:v1"]


@needs_skopeo
@pytest.mark.parametrize("image", ["tiny", "multi"])
def test_documents_are_those_that_skopeo_shows(repository, image):
    push(image, f"{repository}:v1", all_platforms=True)
    name = f"docker://{repository}:v1"
    for words in (["--raw"], ["--raw", "--config"]):
        theirs = skopeo("inspect", "--tls-verify=false", *words, name)
        assert theirs.returncode == 0
        assert imagers("inspect", *words, name) == theirs.stdout
    config = json.loads(skopeo("inspect", "--tls-verify=false", "--config", name).stdout)
    ours = json.loads(imagers("inspect", "--config", name))
    assert {key: ours[key] for key in config} == config


@needs_skopeo
def test_image_that_we_deleted_is_gone_for_skopeo(repository):
    push("tiny", f"{repository}:v1")
    kept = push("mixed", f"{repository}:v2")
    assert delete_image(parse_one_image(f"{repository}:v1")).tags == ("v1",)
    gone = skopeo("inspect", "--tls-verify=false", f"docker://{repository}:v1")
    assert gone.returncode != 0
    assert b"manifest unknown" in gone.stderr.lower() or b"not known" in gone.stderr
    stays = skopeo("inspect", "--tls-verify=false", f"docker://{repository}:v2")
    assert json.loads(stays.stdout)["Digest"] == str(kept)
    assert json.loads(stays.stdout)["RepoTags"] == ["v2"]


def test_image_is_not_deleted_by_one_of_its_tags(repository):
    """docker-registry would take the other tag away too."""
    digest = push("tiny", f"{repository}:v1")
    push("tiny", f"{repository}:v2")
    with pytest.raises(UsageError, match="tagged 'v2'"):
        delete_image(parse_one_image(f"{repository}:v1"))
    assert digest_of(read(f"{repository}:v1")) == digest_of(read(f"{repository}:v2")) == digest
    assert delete_image(parse_one_image(f"{repository}@{digest}")).tags == ("v1", "v2")
    for tag in ("v1", "v2"):
        with pytest.raises(NotFound):
            read(f"{repository}:{tag}")


def test_image_of_an_index_is_not_deleted_by_its_own_tag(repository):
    push("multi", f"{repository}:all", all_platforms=True)
    one = push("multi", f"{repository}:amd64")
    with pytest.raises(UsageError, match="it is in the index 'all'"):
        delete_image(parse_one_image(f"{repository}:amd64"))
    index = delete_image(parse_one_image(f"{repository}:all"))
    assert one in index.entries
    assert delete_image(parse_one_image(f"{repository}:amd64")).tags == ("amd64",)


def test_registry_with_deletion_turned_off_says_so(start_docker_registry, tmp_path):
    storage = {"filesystem": {"rootdirectory": str(tmp_path)}, "delete": {"enabled": False}}
    name = f"{start_docker_registry(storage=storage).address}/app:v1"
    push("tiny", name)
    with pytest.raises(RemoteError, match="405") as caught:
        delete_image(parse_one_image(name))
    assert (caught.value.status, caught.value.code) == (405, "UNSUPPORTED")
    assert "REGISTRY_STORAGE_DELETE_ENABLED=true" in caught.value.hint
    assert read(name)


def test_repository_whose_images_are_all_deleted_has_no_tags(repository):
    push("tiny", f"{repository}:v1")
    delete_image(parse_one_image(f"{repository}:v1"))
    assert list_tags(parse_repository(repository)) == ()


def test_signature_that_stays_is_deleted_by_its_own_tag(repository):
    digest = push("tiny", f"{repository}:v1")
    push("mixed", f"{repository}:sha256-{digest.hex}.sig")
    deletion = delete_image(parse_one_image(f"{repository}:v1"))
    (tag,) = deletion.referrers
    delete_image(parse_one_image(f"{repository}:{tag}"))
    assert list_tags(parse_repository(repository)) == ()
