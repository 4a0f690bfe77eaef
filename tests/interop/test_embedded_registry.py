# SPDX-License-Identifier: Apache-2.0
"""The embedded registry as others' clients see it: podman, skopeo, oras and cosign.

cosign is taken from IMAGERS_COSIGN3, IMAGERS_COSIGN or PATH; of its versions 2 and 3 both do.
"""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from imagers.model.digest import digest_of
from imagers.model.manifest import parse_manifest
from imagers.registry.credentials import Credentials
from imagers.registry.referrers import referrers_tag
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import TransportOptions, open_sink, open_source
from imagers.transport.referrers import read_referrers_of

PLAIN = Path(__file__).resolve().parent.parent / "vectors" / "ocicrypt" / "plain"
GZIP = f"oci:{PLAIN}/gzip:v1"
COSIGN = (
    os.environ.get("IMAGERS_COSIGN3") or os.environ.get("IMAGERS_COSIGN") or shutil.which("cosign")
)
LOGIN = TransportOptions(credentials=Credentials("me", "pw"))


def copy(source, sink, options=None):
    source = open_source(parse_image_name(source), options)
    sink = open_sink(parse_image_name(sink), options)
    try:
        return copy_image(source, sink)
    finally:
        source.close()
        sink.close()


def run(*words, fails=False, **more):
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        **more,
    )
    assert (done.returncode != 0) is fails, done.stderr or done.stdout
    return done.stdout


@pytest.fixture(params=["", "basic", "token"], ids=["open", "basic", "token"])
def registry(request):
    """One that everybody may use, or only the user `me`."""
    login = {"username": "me", "password": "pw"} if request.param else {}
    with EmbeddedRegistry(**login, token_auth=request.param == "token") as one:
        yield one


# podman.


@pytest.fixture(scope="module")
def podman_environment(tmp_path_factory):
    """For a podman with a storage of its own; skips where it cannot load its own image."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    if os.geteuid() != 0:
        pytest.skip("podman is run as root only")
    home = tmp_path_factory.mktemp("podman")
    (home / "storage.conf").write_text(
        f'[storage]\ndriver="vfs"\nrunroot="{home}/run"\ngraphroot="{home}/graph"\n'
    )
    (home / "containers.conf").write_text('[engine]\ncgroup_manager="cgroupfs"\n')
    (home / "registries.conf").write_text("")
    (home / "auth.json").write_text("{}")
    policy = home / "config" / "containers"
    policy.mkdir(parents=True)
    (policy / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    environment = {
        **os.environ,
        "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
        "CONTAINERS_CONF": str(home / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(home / "registries.conf"),
        "REGISTRY_AUTH_FILE": str(home / "auth.json"),
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_RUNTIME_DIR": str(home),
    }
    with tarfile.open(home / "own.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("own"))
    for words in (
        ("import", home / "own.tar", "own:v1"),
        ("save", "-o", home / "saved.tar", "own:v1"),
        ("rmi", "-f", "own:v1"),
        ("load", "-i", home / "saved.tar"),
    ):
        done = subprocess.run(
            ["podman", *map(str, words)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        if done.returncode:
            reason = done.stderr.strip()[-300:]
            pytest.skip(f"podman cannot {words[0]} an image of its own here: {reason}")
    return environment


@pytest.fixture
def podman(podman_environment):
    """A function: run podman; it has no images and no logins."""
    run("podman", "rmi", "-a", "-f", env=podman_environment)
    Path(podman_environment["REGISTRY_AUTH_FILE"]).write_text("{}")
    return lambda *words, **more: run("podman", *words, env=podman_environment, **more)


def test_podman_pulls_and_pushes(registry, podman, tmp_path):
    options = LOGIN if registry.username else None
    name = f"{registry.address}/team/app"
    copied = copy(GZIP, f"docker://{name}:v1", options)
    plain = "--tls-verify=false"
    if registry.username:
        podman("pull", plain, f"{name}:v1", fails=True)
        podman("login", plain, "-u", "me", "-p", "pw", registry.address)
    podman("pull", "-q", plain, f"{name}:v1")
    (facts,) = json.loads(podman("inspect", "--type", "image", f"{name}:v1"))
    assert facts["Digest"] == str(copied.digest)
    podman("tag", f"{name}:v1", f"{name}-2:v2")
    podman("push", "-q", plain, "--digestfile", tmp_path / "digest", f"{name}-2:v2")
    pushed = registry.tags("team/app-2")["v2"]
    assert (tmp_path / "digest").read_text().strip() == str(pushed)
    config = parse_manifest(registry.read(copied.digest)).config
    assert parse_manifest(registry.read(pushed)).config.digest == config.digest
    back = copy(f"docker://{name}-2:v2", f"oci:{tmp_path}/back:v1", options)
    assert back.digest == pushed


# skopeo.


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_skopeo_inspects_lists_and_deletes(registry):
    options = LOGIN if registry.username else None
    name = f"docker://{registry.address}/team/app"
    copied = copy(GZIP, f"{name}:v1", options)
    copy(GZIP, f"{name}:v2", options)
    words = ["--tls-verify=false", *(["--creds=me:pw"] if registry.username else [])]
    if registry.username:
        run("skopeo", "inspect", "--tls-verify=false", "--no-creds", f"{name}:v1", fails=True)
    facts = json.loads(run("skopeo", "inspect", *words, f"{name}:v1"))
    assert (facts["Digest"], facts["RepoTags"]) == (str(copied.digest), ["v1", "v2"])
    assert json.loads(run("skopeo", "list-tags", *words, name))["Tags"] == ["v1", "v2"]
    run("skopeo", "delete", *words, f"{name}:v1")
    assert registry.tags("team/app") == {}
    run("skopeo", "inspect", *words, f"{name}:v2", fails=True)


# oras.


# Not with tokens: it keeps the first one, which is for reading.
@pytest.mark.parametrize("registry", ["", "basic"], indirect=True, ids=["open", "basic"])
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_oras_pushes_pulls_and_lists(registry, tmp_path, monkeypatch, chunked):
    module = pytest.importorskip("oras.client")
    monkeypatch.chdir(tmp_path)
    data = os.urandom(300_000)
    Path("note.bin").write_bytes(data)
    client = module.OrasClient(hostname=registry.address, insecure=True, auth_backend="basic")
    if registry.username:
        client.auth.set_basic_auth("me", "pw")
    target = f"{registry.address}/team/note:v1"
    client.push(
        files=["note.bin:application/x.note"], target=target, do_chunked=chunked, chunk_size=70_000
    )
    assert registry.read(digest_of(data)) == data
    client.pull(target=target, outdir="out")
    assert Path("out/note.bin").read_bytes() == data
    assert client.get_tags(f"{registry.address}/team/note") == ["v1"]


@pytest.mark.parametrize("registry", ["token"], indirect=True)
def test_oras_reads_with_a_token(registry):
    module = pytest.importorskip("oras.client")
    copied = copy(GZIP, f"docker://{registry.address}/team/app:v1", LOGIN)
    client = module.OrasClient(hostname=registry.address, insecure=True, auth_backend="token")
    client.auth.set_basic_auth("me", "pw")
    document = client.get_manifest(f"{registry.address}/team/app:v1")
    assert document == json.loads(registry.read(copied.digest))


# cosign.


@pytest.fixture
def cosign(tmp_path):
    """A function: run cosign with a home and keys of its own."""
    if COSIGN is None:
        pytest.skip("no cosign: make peers")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "COSIGN_PASSWORD": "pw"}

    def cosign(*words, **more):
        return run(COSIGN, *words, cwd=tmp_path, env=environment, **more)

    def known(verb, *flags):
        """Those of the flags that this version has."""
        done = [
            subprocess.run(
                [COSIGN, verb, flag, "--help"], capture_output=True, check=False, timeout=60
            ).returncode
            for flag in flags
        ]
        return [flag for flag, code in zip(flags, done, strict=True) if code == 0]

    cosign.known = known
    cosign("generate-key-pair")
    return cosign


@pytest.mark.parametrize("form", ["tag", "bundle"])
@pytest.mark.parametrize("has_api", [True, False], ids=["API", "no API"])
def test_cosign_signs_and_verifies(cosign, form, has_api):
    sign_flags = ["--tlog-upload=false", "--use-signing-config=false"]
    new = f"--new-bundle-format={str(form == 'bundle').lower()}"
    if form == "bundle" and not cosign.known("sign", new):
        pytest.skip("this cosign writes no bundles as referrers")
    with EmbeddedRegistry(referrers_api=has_api) as registry:
        name = f"{registry.address}/team/app"
        copied = copy(GZIP, f"docker://{name}:v1")
        pinned = f"{name}@{copied.digest}"
        common = ["--allow-http-registry", "--allow-insecure-registry"]
        flags = [*cosign.known("sign", new, *sign_flags), *common]
        cosign("sign", "--yes", "--key", "cosign.key", *flags, pinned)
        flags = [*cosign.known("verify", new), *common, "--insecure-ignore-tlog=true"]
        cosign("verify", "--key", "cosign.pub", *flags, pinned)
        tags = set(registry.tags("team/app")) - {"v1"}
        source = open_source(parse_image_name(f"docker://{name}:v1"))
        try:
            entries = read_referrers_of(source, copied.digest)
        finally:
            source.close()
        if form == "tag":
            assert (tags, entries) == ({f"sha256-{copied.digest.hex}.sig"}, ())
        else:
            assert tags == (set() if has_api else {referrers_tag(copied.digest)})
            (entry,) = entries
            assert parse_manifest(registry.read(entry.digest)).subject.digest == copied.digest
