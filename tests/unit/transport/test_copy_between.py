# SPDX-License-Identifier: Apache-2.0
"""Every transport to every other: bytes and digests stay."""

import dataclasses
import json

import pytest

from imagers.errors import DigestMismatch, LocalError, NotFound, Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from imagers.model.stream import read_all
from imagers.transport.copy import copy_image

KINDS = ["docker://", "oci:", "oci-archive:", "docker-archive:", "dir:"]
HOLD_INDEXES = [kind for kind in KINDS if kind != "docker-archive:"]


@pytest.fixture
def name_of(registry, tmp_path):
    def name(kind, label):
        if kind == "docker://":
            return f"docker://{registry.address}/{label}:v1"
        if kind == "dir:":
            return f"dir:{tmp_path}/{label}-dir"
        ref = "example.org/app:v1" if kind == "docker-archive:" else "v1"
        return f"{kind}{tmp_path}/{label}-{kind[:-1]}:{ref}"

    return name


@pytest.mark.parametrize("start", KINDS)
@pytest.mark.parametrize("end", KINDS)
def test_copy_between_any_two_keeps_every_byte(start, end, name_of, places, image_of, tmp_path):
    image = image_of()
    image.write(places.sink(name_of(start, "start")))
    copy_image(places.source(name_of(start, "start")), places.sink(name_of(end, "end")), jobs=3)
    copied = places.source(name_of(end, "end"))
    answer = copied.read_manifest()
    assert (answer.raw, answer.digest) == (image.raw, image.descriptor.digest)
    assert copied.read_manifest(answer.digest).raw == image.raw
    for descriptor, data in image.blobs.items():
        with copied.open_blob(descriptor, what="blob") as stream:
            assert read_all(stream, size=descriptor.size) == data
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


@pytest.mark.parametrize("start", HOLD_INDEXES)
@pytest.mark.parametrize("end", HOLD_INDEXES)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_copy_between_any_two_keeps_an_index(
    start, end, algorithm, name_of, places, image_of, index_of
):
    images = [image_of("amd64"), image_of("arm64")]
    sink = places.sink(name_of(start, "start"))
    entries = []
    for one in images:
        for descriptor, data in one.blobs.items():
            sink.put_blob(descriptor, data, what="blob")
        digest = digest_of(one.raw, algorithm)
        sink.put_manifest(one.raw, OCI_MANIFEST, by_name=False, digest=digest)
        entries.append(Descriptor(OCI_MANIFEST, digest, len(one.raw), platform=one.platform))
    raw = index_of(*entries)
    sink.put_manifest(raw, OCI_INDEX, by_name=True)
    source = places.source(name_of(start, "start"))
    copy_image(source, places.sink(name_of(end, "end")), all_platforms=True)
    copied = places.source(name_of(end, "end"))
    assert copied.read_manifest().raw == raw
    for one, entry in zip(images, entries, strict=True):
        answer = copied.read_manifest(entry.digest)
        assert (answer.raw, answer.digest) == (one.raw, entry.digest)


@pytest.mark.parametrize("end", KINDS)
def test_copy_of_one_platform_from_a_sha512_entry(end, name_of, places, image_of, index_of):
    image = image_of("arm64")
    sink = places.sink(name_of("docker://", "start"))
    for descriptor, data in image.blobs.items():
        sink.put_blob(descriptor, data, what="blob")
    digest = digest_of(image.raw, "sha512")
    sink.put_manifest(image.raw, OCI_MANIFEST, by_name=False, digest=digest)
    entry = Descriptor(OCI_MANIFEST, digest, len(image.raw), platform=image.platform)
    sink.put_manifest(index_of(entry), OCI_INDEX, by_name=True)
    source = places.source(name_of("docker://", "start"))
    copy_image(source, places.sink(name_of(end, "end")), platform=image.platform)
    assert places.source(name_of(end, "end")).read_manifest().raw == image.raw


def test_copy_by_a_sha512_reference(name_of, places, image_of, registry):
    image = image_of()
    name = f"docker://{registry.address}/app@{digest_of(image.raw, 'sha512')}"
    image.write(places.sink(name))
    copy_image(places.source(name), places.sink(name_of("oci:", "end")))
    assert places.source(name_of("oci:", "end")).read_manifest().raw == image.raw
    other = name[:-1] + ("0" if name[-1] != "0" else "1")
    with pytest.raises(DigestMismatch):
        copy_image(places.source(name), places.sink(other))


def encrypted(image_of):
    image = image_of()
    document = json.loads(image.raw)
    document["layers"][1]["mediaType"] = OCI_LAYER_GZIP + "+encrypted"
    return dataclasses.replace(image, raw=json.dumps(document).encode())


def test_copy_to_docker_archive_refuses_an_encrypted_image(name_of, places, image_of, tmp_path):
    encrypted(image_of).write(places.sink(name_of("oci:", "start")))
    sink = places.sink(name_of("docker-archive:", "end"))
    with pytest.raises(Unsupported, match="layer 2 of 2 is encrypted") as caught:
        copy_image(places.source(name_of("oci:", "start")), sink)
    assert "docker://" in caught.value.hint
    with pytest.raises(Unsupported, match="encrypted"):  # and whoever does not ask before
        encrypted(image_of).write(sink)
    sink.close()
    assert [one.name for one in tmp_path.iterdir()] == ["start-oci"]


def test_copy_to_docker_archive_refuses_an_index(name_of, places, image_of, index_of):
    image = image_of()
    sink = places.sink(name_of("oci:", "start"))
    image.write(sink, by_name=False)
    sink.put_manifest(index_of(image.descriptor), OCI_INDEX, by_name=True)
    with pytest.raises(Unsupported, match="one platform"):
        copy_image(
            places.source(name_of("oci:", "start")),
            places.sink(name_of("docker-archive:", "end")),
            all_platforms=True,
        )


def test_copy_to_docker_archive_that_is_there_refused(name_of, places, image_of):
    image_of().write(places.sink(name_of("oci:", "start")))
    source = places.source(name_of("oci:", "start"))
    copy_image(source, places.sink(name_of("docker-archive:", "end")))
    with pytest.raises(LocalError, match="is there already"):
        copy_image(source, places.sink(name_of("docker-archive:", "end")))


def test_copy_to_directory_with_something_in_it_refused(places, image_of, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_text("keep")
    with pytest.raises(LocalError, match="empty directory or nothing"):
        image_of().write(places.sink(f"dir:{tmp_path}/d"))
    assert (tmp_path / "d" / "mine").read_text() == "keep"


def test_copy_to_oci_archive_replaces_it_at_once(places, image_of, tmp_path):
    name = f"oci-archive:{tmp_path}/a.tar:v1"
    one, two = image_of(), image_of("arm64")
    one.write(places.sink(name))
    half = places.sink(name)
    for descriptor, data in two.blobs.items():
        half.put_blob(descriptor, data, what="blob")
    assert places.source(name).read_manifest().raw == one.raw
    half.close()
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar"]
    two.write(places.sink(name))
    assert places.source(name).read_manifest().raw == two.raw


@pytest.mark.parametrize("kind", ["oci-archive:", "dir:"])
def test_copy_changed_byte_on_disk_found_out(kind, name_of, places, image_of, tmp_path):
    image = image_of(layers=(b"a layer that is changed",))
    image.write(places.sink(name_of(kind, "start")))
    for path in (one for one in tmp_path.rglob("*") if one.is_file()):
        data = path.read_bytes()
        if b"that is changed" in data:
            path.write_bytes(data.replace(b"that is changed", b"that is chanGed"))
    with pytest.raises(DigestMismatch, match="layer 1 of 1"):
        copy_image(places.source(name_of(kind, "start")), places.sink(name_of("oci:", "end")))


@pytest.mark.parametrize("kind", ["oci-archive:", "dir:", "docker-archive:"])
def test_copy_from_nothing_says_what_is_missing(kind, name_of, places):
    with pytest.raises((LocalError, NotFound)) as caught:
        places.source(name_of(kind, "missing")).read_manifest()
    assert "missing" in str(caught.value)


def test_copy_directory_is_published_only_whole(places, image_of, tmp_path):
    image = image_of()
    sink = places.sink(f"dir:{tmp_path}/d")
    for descriptor, data in image.blobs.items():
        sink.put_blob(descriptor, data, what="blob")
    assert not (tmp_path / "d").exists()
    sink.close()
    assert list(tmp_path.iterdir()) == []
    image.write(places.sink(f"dir:{tmp_path}/d"))
    names = sorted(one.name for one in (tmp_path / "d").iterdir())
    assert names == sorted(["manifest.json", "version", *(one.digest.hex for one in image.blobs)])
    assert (tmp_path / "d/version").read_text() == "Directory Transport Version: 1.1\n"


def test_copy_archive_without_a_blob_of_its_manifest_refused(places, image_of, tmp_path):
    sink = places.sink(f"oci-archive:{tmp_path}/a.tar:v1")
    with pytest.raises(NotFound, match="which the manifest names"):
        sink.put_manifest(image_of().raw, OCI_MANIFEST, by_name=True)
    sink.close()
    assert list(tmp_path.iterdir()) == []
