# SPDX-License-Identifier: Apache-2.0
"""docker-registry as a pull-through cache before another registry.

What is pulled through it is checked as everywhere, and the policy is asked about the name that
the user gave, whichever machine the bytes come from.
"""

import json
import shutil
import time
from pathlib import Path

import pytest

from imagers.cli.main import run as run_program
from imagers.errors import DigestMismatch, RemoteError
from imagers.model.manifest import parse_manifest
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink, open_source

TINY = f"oci:{Path(__file__).resolve().parent.parent}/vectors/ocicrypt/plain/tiny:v1"
REPOSITORY = "team/app"


def copy(source, sink):
    source, sink = open_source(parse_image_name(source)), open_sink(parse_image_name(sink))
    try:
        return copy_image(source, sink)
    finally:
        source.close()
        sink.close()


def descriptors_of(name):
    source = open_source(parse_image_name(name))
    try:
        manifest = parse_manifest(source.read_manifest().raw)
        return {one.digest: one for one in (manifest.config, *manifest.layers)}.values()
    finally:
        source.close()


def wait_until_kept(cache, digests):
    """The cache keeps a blob after it has given it out."""
    deadline = time.monotonic() + 60
    root = cache.data / "docker" / "registry" / "v2"
    for digest in digests:
        link = root / "repositories" / REPOSITORY / "_layers" / "sha256" / digest.hex / "link"
        data = root / "blobs" / "sha256" / digest.hex[:2] / digest.hex / "data"
        while not (link.exists() and data.exists()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def upstream():
    with EmbeddedRegistry() as registry:
        yield registry


@pytest.fixture
def cache(upstream, start_docker_registry):
    return start_docker_registry(proxy={"remoteurl": upstream.url})


def test_image_comes_through_the_cache_and_later_out_of_it(upstream, cache, tmp_path):
    copied = copy(TINY, f"docker://{upstream.address}/{REPOSITORY}:v1")
    through = f"docker://{cache.address}/{REPOSITORY}:v1"
    assert copy(through, f"oci:{tmp_path}/first:v1").digest == copied.digest
    digests = [one.digest for one in descriptors_of(TINY)]
    wait_until_kept(cache, digests)
    for digest in digests:
        upstream.drop_blob(digest)
    again = copy(through, f"oci:{tmp_path}/second:v1")
    assert (again.digest, again.blobs) == (copied.digest, copied.blobs)


def test_image_comes_through_a_cache_of_docker_registry(
    docker_registry, start_docker_registry, tmp_path
):
    cache = start_docker_registry(proxy={"remoteurl": docker_registry.url})
    copied = copy(TINY, f"docker://{docker_registry.address}/{REPOSITORY}:v1")
    through = f"docker://{cache.address}/{REPOSITORY}:v1"
    assert copy(through, f"oci:{tmp_path}/first:v1").digest == copied.digest


def test_byte_that_changed_upstream_is_found_out_through_the_cache(upstream, cache, tmp_path):
    copy(TINY, f"docker://{upstream.address}/{REPOSITORY}:v1")
    layer = list(descriptors_of(TINY))[-1]
    upstream.corrupt_blob(layer.digest, layer.size - 1)
    with pytest.raises((DigestMismatch, RemoteError)):
        copy(f"docker://{cache.address}/{REPOSITORY}:v1", f"oci:{tmp_path}/x:v1")
    assert not (tmp_path / "x").exists()


def test_cache_takes_no_push_and_says_so(cache):
    with pytest.raises(RemoteError, match="405") as caught:
        copy(TINY, f"docker://{cache.address}/{REPOSITORY}:v1")
    assert (caught.value.status, caught.value.code) == (405, "UNSUPPORTED")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function: run the command with a home of its own; exit code and what it printed."""
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    (tmp_path / "registries.conf").write_text("")
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capsys.readouterr()
        code = run_program([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.mark.parametrize("as_mirror", [False, True], ids=["location", "mirror"])
def test_policy_is_asked_about_the_name_of_the_user(upstream, cache, run, tmp_path, as_mirror):
    there = f"{upstream.address}/{REPOSITORY}:v1"
    named = f"registry.example.org/{REPOSITORY}:v1"
    copied = copy(TINY, f"docker://{there}")
    assert run("key", "generate", "cosign", "--output", "k")[0] == 0
    key = ("--sign-by-sigstore-private-key", "k.key")
    code, told = run("sign", there, *key, "--identity", named)
    assert code == 0, told
    location = f"{cache.address}/team"
    place = f'location = "{location}"\ninsecure = true\n'
    if as_mirror:
        # The place itself is nowhere; the mirror alone answers.
        place = f'location = "127.0.0.1:1/team"\n[[registry.mirror]]\n{place}'
    (tmp_path / "registries.conf").write_text(
        f'[[registry]]\nprefix = "registry.example.org/team"\n{place}'
    )
    signed = {"type": "sigstoreSigned", "keyPath": str(tmp_path / "k.pub")}
    scopes = {"registry.example.org/team": [signed]}
    policy = {"default": [{"type": "reject"}], "transports": {"docker": scopes}}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    code, told = run("verify", named, "--policy", "policy.json", "--json")
    assert code == 0, told
    assert str(copied.digest) in told
    code, told = run("copy", named, f"oci:{tmp_path}/here:v1")
    assert code == 0, told
    # The same bytes by the name of the machine are another image to the policy.
    for other in (f"{cache.address}/{REPOSITORY}:v1", there):
        code, told = run("verify", other, "--policy", "policy.json")
        assert code == 21, told
    # And what is signed for another name is not this image.
    scopes[f"{cache.address}/team"] = [signed]
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    code, told = run("verify", f"{cache.address}/{REPOSITORY}:v1", "--policy", "policy.json")
    assert code == 21, told
    shutil.rmtree(tmp_path / "here")
