# SPDX-License-Identifier: Apache-2.0
"""Registries, clients and layouts of others: docker-registry, skopeo, oras; both directions."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trustme

from imagers.build.change import Change, Kind, decrypt, encrypt
from imagers.encrypt.keyfiles import load_private_key, load_public_key
from imagers.encrypt.rewrite import LayerAction
from imagers.encrypt.schemes.jwe import JWEUnwrapper, JWEWrapper
from imagers.errors import DigestMismatch, NotFound, RemoteError, Unauthorized
from imagers.model.digest import digest_of, parse_digest
from imagers.model.manifest import Index, parse_manifest, parse_manifest_or_index
from imagers.registry.credentials import Credentials
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.copy import copy_image
from imagers.transport.names import locate, parse_image_name
from imagers.transport.open import TransportOptions, open_sink, open_source

VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "ocicrypt" / "plain"
IMAGES = sorted(one.name for one in VECTORS.iterdir()) if VECTORS.is_dir() else []
# The password is "pw": bcrypt, as `htpasswd -Bbn me pw` writes it.
HTPASSWD = "me:$2b$04$gN5F9j3txFSjXeB6FZKnTOYXh0GL7otLFBqxgD9qioX20pFVGD2LC\n"

# Else skopeo compresses the layers that are plain.
ALL = ("--all", "--preserve-digests")
# Which images of an index have zstd layers, newer skopeos want to see there: they write the
# index anew where it is not said, or refuse it where digests have to stay.
ZSTD = {"annotations": {"io.github.containers.compression.zstd": "true"}}

needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")


def copy(source, sink, options=None, *, all_platforms=True):
    source = open_source(parse_image_name(source), options)
    sink = open_sink(parse_image_name(sink), options)
    try:
        return copy_image(source, sink, all_platforms=all_platforms)
    finally:
        source.close()
        sink.close()


def skopeo(*words):
    command = ["skopeo", "--insecure-policy", *words]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def all_bytes(name, options=None):
    """Every document and blob of an image or index, by digest: what "unchanged" means."""
    source = open_source(parse_image_name(name), options)
    found = {}

    def visit(answer):
        found[str(answer.digest)] = answer.raw
        document = parse_manifest_or_index(answer.raw, media_type=answer.media_type)
        if isinstance(document, Index):
            for entry in document.manifests:
                visit(source.read_manifest(entry.digest))
            return
        for descriptor in (document.config, *document.layers):
            data = bytearray()
            buffer = memoryview(bytearray(65536))
            with source.open_blob(descriptor, what="blob") as stream:
                while count := stream.readinto(buffer):
                    data += buffer[:count]
            found[str(descriptor.digest)] = bytes(data)

    try:
        visit(source.read_manifest())
    finally:
        source.close()
    return found


@pytest.fixture(params=["docker-registry", "embedded", "embedded on disk"])
def address(request, tmp_path):
    """A registry, theirs or ours."""
    if request.param == "docker-registry":
        yield request.getfixturevalue("docker_registry").address
        return
    directory = tmp_path / "registry" if "disk" in request.param else None
    with EmbeddedRegistry(directory) as registry:
        yield registry.address


@pytest.fixture
def repository(request):
    """A repository of its own for each test."""
    return "test/" + digest_of(request.node.nodeid.encode()).hex[:16]


@pytest.mark.parametrize("image", IMAGES)
def test_copy_through_a_registry_leaves_every_byte(address, repository, image, tmp_path):
    start = f"oci:{VECTORS / image}:v1"
    there, back = f"docker://{address}/{repository}:v1", f"oci:{tmp_path}/back:v1"
    copy(start, there)
    copy(there, back)
    expected = all_bytes(start)
    assert all_bytes(there) == expected
    assert all_bytes(back) == expected


@pytest.fixture(params=IMAGES)
def for_skopeo(request, tmp_path):
    """An image of the vectors, by name; an index says which of its images have zstd layers."""
    start = f"oci:{VECTORS / request.param}:v1"
    source = open_source(parse_image_name(start))
    answer = source.read_manifest()
    index = json.loads(answer.raw)
    for entry in index.get("manifests", ()):
        layers = parse_manifest(source.read_manifest(parse_digest(entry["digest"])).raw).layers
        if any(one.media_type.endswith("+zstd") for one in layers):
            entry.update(ZSTD)
    source.close()
    if "manifests" not in index:
        return start
    copy(start, f"oci:{tmp_path}/said:v1")
    said = json.dumps(index).encode()
    digest = digest_of(said)
    (tmp_path / "said" / "blobs" / "sha256" / digest.hex).write_bytes(said)
    listed = {"mediaType": answer.media_type, "digest": str(digest), "size": len(said)}
    listed["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (tmp_path / "said" / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": [listed]})
    )
    return f"oci:{tmp_path}/said:v1"


@needs_skopeo
def test_skopeo_pushes_and_we_read(address, repository, for_skopeo):
    start = for_skopeo
    skopeo("copy", *ALL, "--dest-tls-verify=false", start, f"docker://{address}/{repository}:v1")
    assert all_bytes(f"docker://{address}/{repository}:v1") == all_bytes(start)


@needs_skopeo
def test_we_push_and_skopeo_reads(address, repository, for_skopeo, tmp_path):
    start, there = for_skopeo, f"docker://{address}/{repository}:v1"
    copy(start, there)
    skopeo("copy", *ALL, "--src-tls-verify=false", there, f"oci:{tmp_path}/back:v1")
    assert all_bytes(f"oci:{tmp_path}/back:v1") == all_bytes(start)


@needs_skopeo
def test_skopeo_reads_a_layout_of_ours(tmp_path):
    start = f"oci:{VECTORS / 'tiny'}:v1"
    for tag in ("v1", "v2"):
        copy(start, f"oci:{tmp_path}/ours:{tag}")
    skopeo("copy", *ALL, f"oci:{tmp_path}/ours:v2", f"oci:{tmp_path}/theirs:v1")
    assert all_bytes(f"oci:{tmp_path}/theirs:v1") == all_bytes(start)


@needs_skopeo
def test_skopeo_and_we_write_into_one_layout(tmp_path):
    for tag in ("a", "c"):
        skopeo("copy", *ALL, f"oci:{VECTORS / 'tiny'}:v1", f"oci:{tmp_path}/both:{tag}")
        copy(f"oci:{VECTORS / 'multi'}:v1", f"oci:{tmp_path}/both:{tag}-ours")
    for tag, image in (("a", "tiny"), ("a-ours", "multi"), ("c", "tiny"), ("c-ours", "multi")):
        assert all_bytes(f"oci:{tmp_path}/both:{tag}") == all_bytes(f"oci:{VECTORS / image}:v1")


@needs_skopeo
def test_skopeo_lists_deletes_and_copies_within_our_registry(repository):
    with EmbeddedRegistry() as registry:
        name = f"docker://{registry.address}/{repository}"
        copy(f"oci:{VECTORS / 'tiny'}:v1", f"{name}:v1")
        plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
        skopeo("copy", *ALL, *plain, f"{name}:v1", f"{name}-2:v2")
        tags = json.loads(skopeo("list-tags", "--tls-verify=false", f"{name}-2"))["Tags"]
        assert tags == ["v2"]
        skopeo("delete", "--tls-verify=false", f"{name}-2:v2")
        assert registry.tags(f"{repository}-2") == {}
        assert all_bytes(f"{name}:v1") == all_bytes(f"oci:{VECTORS / 'tiny'}:v1")


@needs_skopeo
@pytest.mark.parametrize("token_auth", [False, True], ids=["basic", "token"])
def test_skopeo_logs_in_to_our_registry(repository, token_auth):
    with EmbeddedRegistry(username="me", password="pw", token_auth=token_auth) as registry:
        name = f"docker://{registry.address}/{repository}:v1"
        start = f"oci:{VECTORS / 'tiny'}:v1"
        skopeo("copy", *ALL, "--dest-tls-verify=false", "--dest-creds=me:pw", start, name)
        options = TransportOptions(credentials=Credentials("me", "pw"))
        assert all_bytes(name, options) == all_bytes(start)


@needs_skopeo
def test_skopeo_refuses_what_our_registry_corrupts(repository, tmp_path):
    with EmbeddedRegistry() as registry:
        name = f"docker://{registry.address}/{repository}:v1"
        copy(f"oci:{VECTORS / 'tiny'}:v1", name)
        source = open_source(parse_image_name(name))
        layer = parse_manifest_or_index(source.read_manifest().raw).layers[0]
        source.close()
        registry.corrupt_blob(layer.digest, layer.size - 1)
        with pytest.raises(AssertionError, match="igest"):
            skopeo("copy", "--src-tls-verify=false", name, f"oci:{tmp_path}/x:v1")


def test_docker_registry_with_a_changed_byte_on_its_disk_is_found_out(
    start_docker_registry, tmp_path
):
    registry = start_docker_registry()
    name = f"docker://{registry.address}/app:v1"
    copy(f"oci:{VECTORS / 'gzip'}:v1", name)
    source = open_source(parse_image_name(name))
    layer = parse_manifest_or_index(source.read_manifest().raw).layers[-1]
    source.close()
    (path,) = registry.data.rglob(f"{layer.digest.hex}/data")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestMismatch) as caught:
        copy(name, f"oci:{tmp_path}/x:v1")
    assert caught.value.expected == layer.digest
    assert not (tmp_path / "x").exists()


def test_docker_registry_says_what_it_lacks(docker_registry):
    for name, kind in (("none:v1", NotFound), ("none@sha256:" + "0" * 64, NotFound)):
        with pytest.raises(kind, match="no such image"):
            all_bytes(f"docker://{docker_registry.address}/{name}")


def test_docker_registry_large_blob_both_ways(docker_registry, tmp_path):
    config, layer = b'{"os":"linux","architecture":"amd64"}', os.urandom(40_000_000)
    digests = [(one, str(digest_of(one))) for one in (config, layer)]
    kinds = ("config.v1+json", "layer.v1.tar")
    parts = [
        {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(data)}
        for kind, (data, digest) in zip(kinds, digests, strict=True)
    ]
    kind = "application/vnd.oci.image.manifest.v1+json"
    raw = json.dumps(
        {"schemaVersion": 2, "mediaType": kind, "config": parts[0], "layers": parts[1:]}
    ).encode()
    blobs = tmp_path / "l" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for data in (config, layer, raw):
        (blobs / digest_of(data).hex).write_bytes(data)
    (tmp_path / "l" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {"mediaType": kind, "digest": str(digest_of(raw)), "size": len(raw)}
    (tmp_path / "l" / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": [entry]})
    )
    name = f"docker://{docker_registry.address}/large:v1"
    copy(f"oci:{tmp_path}/l", name)
    copy(name, f"oci:{tmp_path}/back")
    assert (tmp_path / "back" / "blobs" / "sha256" / digest_of(layer).hex).read_bytes() == layer


def test_docker_registry_mounts_the_layers_that_another_recipient_gets(docker_registry):
    """No byte of a layer moves: the registry takes them from its other repository."""
    keys = VECTORS.parent / "keys"
    old, new = (JWEWrapper([load_public_key(str(keys / f"{k}.pub"))]) for k in ("r2048", "ec256"))
    opens_old, opens_new = (
        JWEUnwrapper(load_private_key(str(keys / f"{k}.key"))) for k in ("r2048", "ec256")
    )
    first, second, back = (
        parse_image_name(f"{docker_registry.address}/rotation/{name}:v1")
        for name in ("first", "second", "back")
    )
    plain = locate(parse_image_name(f"oci:{VECTORS}/mixed:v1"))
    with open_source(plain) as source, open_sink(first) as sink:
        encrypt(source, sink, [old])
    with open_source(first) as source, open_sink(second) as sink:
        done = encrypt(source, sink, [new], Change(Kind.REWRAP), unwrappers=[opens_old])
    assert [layer.moved for layer in done.images[0][1].layers] == [False] * 3
    with open_source(second) as source, open_sink(back) as sink:
        assert decrypt(source, sink, [opens_new]).count(LayerAction.DECRYPTED) == 3


def test_docker_registry_over_tls_with_a_pinned_ca(start_docker_registry, tmp_path):
    authority = trustme.CA()
    certificate = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    registry = start_docker_registry(certificate=certificate)
    start, name = f"oci:{VECTORS / 'tiny'}:v1", f"docker://{registry.address}/app:v1"
    with pytest.raises(RemoteError, match="certificate was not accepted"):
        copy(start, name)
    pinned = TransportOptions(ca_file=tmp_path / "ca.pem")
    copy(start, name, pinned)
    assert all_bytes(name, pinned) == all_bytes(start)
    assert all_bytes(name, TransportOptions(tls_verify=False)) == all_bytes(start)


def test_docker_registry_with_passwords(start_docker_registry):
    registry = start_docker_registry(htpasswd=HTPASSWD)
    start, name = f"oci:{VECTORS / 'tiny'}:v1", f"docker://{registry.address}/app:v1"
    for credentials in (None, Credentials("me", "wrong")):
        with pytest.raises(Unauthorized):
            copy(start, name, TransportOptions(credentials=credentials))
    options = TransportOptions(credentials=Credentials("me", "pw"))
    copy(start, name, options)
    assert all_bytes(name, options) == all_bytes(start)


def test_oras_pushes_and_pulls_an_artifact(address, repository, tmp_path, monkeypatch):
    client_module = pytest.importorskip("oras.client")
    monkeypatch.chdir(tmp_path)
    Path("note.txt").write_text("hello")
    client = client_module.OrasClient(hostname=address, insecure=True)
    target = f"{address}/{repository}:v1"
    client.push(files=["note.txt:text/plain"], target=target)
    client.pull(target=target, outdir="out")
    assert Path("out/note.txt").read_text() == "hello"
    assert b"hello" in all_bytes(f"docker://{target}").values()
