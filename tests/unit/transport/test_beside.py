"""Signatures and referrers go along, between registries, layouts and archives."""

import json

import pytest

from imagers.errors import Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_EMPTY, OCI_MANIFEST
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.beside import read_referrers_of
from imagers.transport.copy import copy_image

EMPTY = b"{}"


def artifact(subject=None, note="x"):
    empty = Descriptor(OCI_EMPTY, digest_of(EMPTY), len(EMPTY)).to_json()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.note",
        "config": empty,
        "layers": [empty],
        "annotations": {"note": note},
    }
    if subject is not None:
        document["subject"] = subject.to_json()
    return json.dumps(document).encode()


def descriptor_of(raw):
    return Descriptor(OCI_MANIFEST, digest_of(raw), len(raw))


@pytest.fixture(params=["with API", "without API"])
def start(request):
    with EmbeddedRegistry(referrers_api=request.param == "with API") as one:
        yield one


@pytest.fixture
def filled(start, places, image_of):
    """An image with a signature tag, a referrer, and a referrer of that."""
    image = image_of()
    name = f"docker://{start.address}/app:v1"
    sink = places.sink(name)
    image.write(sink)
    sink.put_blob(Descriptor(OCI_EMPTY, digest_of(EMPTY), 2), EMPTY, what="config")
    first = artifact(image.descriptor)
    second = artifact(descriptor_of(first), "on the first")
    for raw in (first, second):
        sink.put_manifest(raw, OCI_MANIFEST, by_name=False)
    sink.put_manifest_as(artifact(), OCI_MANIFEST, f"sha256-{image.descriptor.digest.hex}.sig")
    return name, image, first, second


@pytest.mark.parametrize("end", ["docker://", "oci:", "oci-archive:"])
def test_copy_with_referrers_takes_all_along(filled, places, registry, tmp_path, end):
    name, image, first, second = filled
    there = f"docker://{registry.address}/new:v2" if end == "docker://" else f"{end}{tmp_path}/x:v2"
    report = copy_image(places.source(name), places.sink(there), with_referrers=True, jobs=3)
    assert (report.beside, report.digest) == (3, image.descriptor.digest)
    copied = places.source(there)
    assert [one.digest for one in read_referrers_of(copied, image.descriptor.digest)] == [
        digest_of(first)
    ]
    (entry,) = read_referrers_of(copied, digest_of(first))
    assert copied.read_manifest(entry.digest).raw == second
    assert copied.read_tag(f"sha256-{image.descriptor.digest.hex}.sig").raw == artifact()
    # And back into a registry.
    back = f"docker://{registry.address}/back:v3"
    assert copy_image(copied, places.sink(back), with_referrers=True).beside == 3
    assert len(read_referrers_of(places.source(back), image.descriptor.digest)) == 1


def test_copy_without_asking_leaves_them(filled, places, registry):
    name, image, _, _ = filled
    report = copy_image(places.source(name), places.sink(f"{registry.address}/new:v2"))
    assert report.beside == 0
    copied = places.source(f"{registry.address}/new:v2")
    assert read_referrers_of(copied, image.descriptor.digest) == ()


@pytest.mark.parametrize("end", ["dir:", "docker-archive:"])
def test_copy_with_referrers_where_there_is_no_room_refused(filled, places, tmp_path, end):
    with pytest.raises(Unsupported, match="no room for signatures"):
        copy_image(places.source(filled[0]), places.sink(f"{end}{tmp_path}/x"), with_referrers=True)
    assert list(tmp_path.iterdir()) == []


def test_read_referrers_of_a_place_without_names_refused(places, tmp_path, image_of):
    image_of().write(places.sink(f"dir:{tmp_path}/d"))
    with pytest.raises(Unsupported, match="no referrers"):
        read_referrers_of(places.source(f"dir:{tmp_path}/d"), image_of().descriptor.digest)


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_copy_with_jobs_first_error_ends_it(places, registry, tmp_path, image_of, jobs):
    image = image_of(layers=tuple(bytes([number]) * 1000 for number in range(8)))
    name = f"docker://{registry.address}/app:v1"
    image.write(places.sink(name))
    copy_image(places.source(name), places.sink(f"oci:{tmp_path}/good:v1"), jobs=jobs)
    registry.corrupt_blob(list(image.blobs)[4].digest)
    with pytest.raises(Exception, match=r"layer 4 of 8: digest mismatch"):
        copy_image(places.source(name), places.sink(f"oci:{tmp_path}/bad:v1"), jobs=jobs)
