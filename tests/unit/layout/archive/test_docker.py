# SPDX-License-Identifier: Apache-2.0
"""The shapes that engines write, made here; real ones are in tests/interop."""

import gzip
import json

import pytest

from imagers.errors import DigestMismatch, FormatError, NotFound, SizeMismatch
from imagers.layout.archive.docker import DockerArchiveSource
from imagers.layout.archive.tar_file import TarFile
from imagers.model.descriptor import Descriptor, Platform
from imagers.model.digest import digest_of
from imagers.model.manifest import parse_manifest
from imagers.model.media import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP, OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.model.stream import read_all
from imagers.testing import make_tar

LAYERS = (b"first tar", b"second tar")


def config_of(layers):
    return json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [str(digest_of(one)) for one in layers]},
        }
    ).encode()


def write_tar(path, members):
    pairs = ((name, one if isinstance(one, bytes) else one[0]) for name, one in members.items())
    path.write_bytes(make_tar(*pairs))


def saved(layers, config, tags=("app:v1",)):
    return {"Config": config, "RepoTags": list(tags) or None, "Layers": list(layers)}


@pytest.fixture
def source_of(tmp_path):
    def make(members, ref=None, position=None):
        path = tmp_path / "x.tar"
        write_tar(path, members)
        ref = None if ref is None else parse_reference(ref)
        return DockerArchiveSource(path, ref, name="docker-archive:x.tar", position=position)

    return make


def legacy(layers=LAYERS):
    config = config_of(layers)
    name = f"{digest_of(config).hex}.json"
    members = {name: config}
    paths = []
    for number, layer in enumerate(layers):
        paths.append(f"{number:064}/layer.tar")
        members[paths[-1]] = layer
    members["manifest.json"] = json.dumps([saved(paths, name)]).encode()
    return members


def test_docker_archive_index_that_many_paths_lead_to_is_read_once(source_of, monkeypatch):
    """Three indexes of a thousand entries make a thousand million paths to the last manifest."""
    members = legacy()
    entry = {"mediaType": OCI_MANIFEST, "digest": str(digest_of(b"{}")), "size": 2}
    members[f"blobs/sha256/{digest_of(b'{}').hex}"] = b'{"schemaVersion":2,"config":{},"layers":[]}'
    for _ in range(3):
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] * 300}
        members["index.json"] = index = json.dumps(document).encode()
        members[f"blobs/sha256/{digest_of(index).hex}"] = index
        entry = {"mediaType": OCI_INDEX, "digest": str(digest_of(index)), "size": len(index)}
    read = []
    real = TarFile.read
    monkeypatch.setattr(
        TarFile, "read", lambda self, *rest: read.append(rest[0]) or real(self, *rest)
    )
    source = source_of(members)
    assert parse_manifest(source.read_manifest().raw).layers
    assert len(read) < 20


def all_layers(source):
    manifest = parse_manifest(source.read_manifest().raw)
    found = []
    for layer in manifest.layers:
        with source.open_blob(layer, what="layer") as stream:
            found.append(read_all(stream, size=layer.size))
    with source.open_blob(manifest.config, what="config") as stream:
        read_all(stream, size=manifest.config.size)
    return manifest, tuple(found)


def test_source_legacy_shape(source_of):
    manifest, layers = all_layers(source_of(legacy()))
    assert layers == LAYERS
    assert {one.media_type for one in manifest.layers} == {OCI_LAYER}
    again = source_of(legacy()).read_manifest()
    assert again.digest == manifest.descriptor.digest


def test_source_layer_that_is_a_link_to_an_equal_one(source_of):
    members = legacy((b"same", b"same"))
    members[f"{1:064}/layer.tar"] = (f"../{0:064}/layer.tar",)
    _, layers = all_layers(source_of(members))
    assert layers == (b"same", b"same")


def test_source_podman_shape(source_of):
    config = config_of(LAYERS)
    members = {f"{digest_of(one).hex}.tar": one for one in LAYERS}
    name = f"{digest_of(config).hex}.json"
    members[name] = config
    members["manifest.json"] = json.dumps([saved(members, name)]).encode()
    document = json.loads(members["manifest.json"])
    document[0]["Layers"].remove(name)
    members["manifest.json"] = json.dumps(document).encode()
    assert all_layers(source_of(members))[1] == LAYERS


def test_source_compressed_layer_has_its_own_digest(source_of):
    members = legacy()
    packed = gzip.compress(LAYERS[1])
    members[f"{1:064}/layer.tar"] = packed
    manifest, layers = all_layers(source_of(members))
    assert layers == (LAYERS[0], packed)
    assert manifest.layers[1].media_type == OCI_LAYER_GZIP


def blob(data, kind, **more):
    path = f"blobs/sha256/{digest_of(data).hex}"
    return path, Descriptor(kind, digest_of(data), len(data), **more).to_json()


def index_of(*entries):
    value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    return json.dumps(value).encode()


def docker_28(layers, kinds, *, in_index=False, others=()):
    """What `docker save` of Docker 28 writes, with its own member names.

    Args:
        in_index: of the containerd store: an index, of which the archive has one platform.
        others: entries of that index whose manifests are not in the archive.
    """
    config = config_of(LAYERS)
    config_path, config_entry = blob(config, OCI_CONFIG)
    parts = [blob(data, kind) for data, kind in zip(layers, kinds, strict=True)]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config_entry,
            "layers": [entry for _, entry in parts],
        }
    ).encode()
    path, entry = blob(manifest, OCI_MANIFEST)
    members = {config_path: config, path: manifest}
    members |= {name: data for (name, _), data in zip(parts, layers, strict=True)}
    if in_index:
        platform = {"platform": {"os": "linux", "architecture": "amd64"}}
        index = index_of(*others, {**entry, **platform})
        path, entry = blob(index, OCI_INDEX)
        members[path] = index
    name = "registry.example.org/app:v1"
    entry["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": "v1",
    }
    one = saved([name for name, _ in parts], config_path, [name])
    if not in_index:
        one["LayerSources"] = {entry["digest"]: entry for _, entry in parts}
        members["repositories"] = b'{"registry.example.org/app":{"v1":"x"}}'
    members["index.json"] = index_of(entry)
    members["manifest.json"] = json.dumps([one]).encode()
    members["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return members, manifest


def test_source_docker_28_shape_keeps_the_manifest(source_of):
    members, raw = docker_28(LAYERS, [OCI_LAYER, OCI_LAYER])
    for ref in (None, "registry.example.org/app:v1"):
        manifest, layers = all_layers(source_of(members, ref))
        assert (manifest.raw, layers) == (raw, LAYERS)


@pytest.mark.parametrize("in_index", [False, True])
def test_source_docker_28_shape_of_the_containerd_store_keeps_the_manifest(source_of, in_index):
    """Compressed layers, below an index with platforms and attestations that are not there."""
    packed = gzip.compress(LAYERS[1])
    others = [
        blob(b"of arm64", OCI_MANIFEST, platform=Platform("linux", "arm64"))[1],
        blob(b"attestation", OCI_MANIFEST, platform=Platform("unknown", "unknown"))[1],
    ]
    members, raw = docker_28(
        (LAYERS[0], packed), [OCI_LAYER, OCI_LAYER_GZIP], in_index=in_index, others=others
    )
    manifest, layers = all_layers(source_of(members))
    assert (manifest.raw, layers) == (raw, (LAYERS[0], packed))


def test_source_docker_28_shape_whose_manifest_is_another_images_is_not_taken(source_of):
    members, raw = docker_28(LAYERS, [OCI_LAYER, OCI_LAYER])
    document = json.loads(raw)
    document["layers"].reverse()
    other = json.dumps(document).encode()
    path, entry = blob(other, OCI_MANIFEST)
    members |= {path: other, "index.json": index_of(entry)}
    manifest, layers = all_layers(source_of(members))
    assert manifest.raw != other
    assert layers == LAYERS


def test_source_passes_over_what_is_no_manifest_in_the_index(source_of):
    path, other = blob(b"no JSON", "application/vnd.oci.artifact.manifest.v1+json")
    members, raw = docker_28(LAYERS, [OCI_LAYER, OCI_LAYER])
    (entry,) = json.loads(members["index.json"])["manifests"]
    members |= {path: b"no JSON", "index.json": index_of(other, entry)}
    manifest, layers = all_layers(source_of(members))
    assert (manifest.raw, layers) == (raw, LAYERS)


def test_source_chooses_by_name_and_position(source_of):
    members = legacy()
    one = json.loads(members["manifest.json"])[0]
    two = {**one, "RepoTags": ["registry.example.org/b:v2", "localhost/b:v3"]}
    members["manifest.json"] = json.dumps([one, two]).encode()
    for ref in ("app:v1", "docker.io/library/app:v1", "localhost/b:v3"):
        source_of(members, ref).read_manifest()
    source_of(members, position=1).read_manifest()
    with pytest.raises(NotFound, match="of this name") as caught:
        source_of(members, "app:v2").read_manifest()
    assert "'app:v1'" in caught.value.hint
    with pytest.raises(NotFound, match="an image 2"):
        source_of(members, position=2).read_manifest()
    with pytest.raises(FormatError, match="exactly one image, got 2"):
        source_of(members).read_manifest()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: m.pop("manifest.json"), FormatError, "manifest.json"),
        (lambda m: m.pop(f"{0:064}/layer.tar"), NotFound, "no layer"),
        (lambda m: m.update({"manifest.json": b"[]"}), FormatError, "list of images"),
        (lambda m: m.update({"manifest.json": b"{}"}), FormatError, "list of images"),
        (
            lambda m: m.update({"manifest.json": b'[{"Config": "c", "Layers": [1]}]'}),
            FormatError,
            r"Layers\[0\]: expected a string",
        ),
        (
            lambda m: m.update({"manifest.json": b'[{"Config": "c", "Layers": []}]'}),
            NotFound,
            "no config",
        ),
    ],
)
def test_source_broken_archive_refused(source_of, change, error, message):
    members = legacy()
    change(members)
    with pytest.raises(error, match=message):
        source_of(members).read_manifest()


def test_source_more_layers_than_the_config_refused(source_of):
    members = legacy()
    document = json.loads(members["manifest.json"])
    document[0]["Layers"].pop()
    members["manifest.json"] = json.dumps(document).encode()
    with pytest.raises(SizeMismatch, match="number of layers"):
        source_of(members).read_manifest()


def test_source_changed_layer_found_out(source_of):
    members = legacy()
    members[f"{0:064}/layer.tar"] = b"First tar"
    with pytest.raises(DigestMismatch):
        all_layers(source_of(members))
