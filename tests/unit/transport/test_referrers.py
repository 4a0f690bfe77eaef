# SPDX-License-Identifier: Apache-2.0
"""Signatures and referrers go along, between registries, layouts and archives."""

import json

import pytest

from imagers.errors import FormatError, NotFound, SizeMismatch, Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of, parse_digest
from imagers.model.media import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.copy import copy_image
from imagers.transport.referrers import read_referrers_of

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
    assert (report.referrers, report.digest) == (3, image.descriptor.digest)
    copied = places.source(there)
    assert [one.digest for one in read_referrers_of(copied, image.descriptor.digest)] == [
        digest_of(first)
    ]
    (entry,) = read_referrers_of(copied, digest_of(first))
    assert copied.read_manifest(entry.digest).raw == second
    assert copied.read_tag(f"sha256-{image.descriptor.digest.hex}.sig").raw == artifact()
    # And back into a registry.
    back = f"docker://{registry.address}/back:v3"
    assert copy_image(copied, places.sink(back), with_referrers=True).referrers == 3
    assert len(read_referrers_of(places.source(back), image.descriptor.digest)) == 1


def test_copy_without_asking_leaves_them(filled, places, registry):
    name, image, _, _ = filled
    report = copy_image(places.source(name), places.sink(f"{registry.address}/new:v2"))
    assert report.referrers == 0
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


# Referrers that are indexes, lists that lie, and bounds.


def index_artifact(subject, *children, **more):
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor_of(one).to_json() for one in children],
        "subject": subject.to_json(),
        **more,
    }
    return json.dumps(document).encode()


@pytest.mark.parametrize("end", ["docker://", "oci:", "oci-archive:"])
def test_copy_with_referrers_that_are_indexes(start, places, registry, tmp_path, image_of, end):
    image = image_of()
    name = f"docker://{start.address}/app:v1"
    sink = places.sink(name)
    image.write(sink)
    sink.put_blob(Descriptor(OCI_EMPTY, digest_of(EMPTY), len(EMPTY)), EMPTY, what="config")
    child = artifact(note="in the index")
    kind = "application/vnd.example.set"
    index = index_artifact(image.descriptor, child, artifactType=kind)
    on_index = artifact(Descriptor(OCI_INDEX, digest_of(index), len(index)), "on the index")
    for raw, media_type in ((child, OCI_MANIFEST), (index, OCI_INDEX), (on_index, OCI_MANIFEST)):
        sink.put_manifest(raw, media_type, by_name=False)
    there = f"docker://{registry.address}/new:v2" if end == "docker://" else f"{end}{tmp_path}/x:v2"
    assert copy_image(places.source(name), places.sink(there), with_referrers=True).referrers == 2
    copied = places.source(there)
    (entry,) = read_referrers_of(copied, image.descriptor.digest)
    assert (entry.media_type, entry.artifact_type) == (OCI_INDEX, kind)
    assert copied.read_manifest(entry.digest).raw == index
    assert copied.read_manifest(digest_of(child)).raw == child
    assert [one.digest for one in read_referrers_of(copied, entry.digest)] == [digest_of(on_index)]


def listing(*entries):
    value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    return json.dumps(value).encode()


@pytest.fixture
def plain(registry, places, image_of):
    """An image, and artifacts that refer to it, to something else and to nothing."""
    image = image_of()
    name = f"docker://{registry.address}/app:v1"
    sink = places.sink(name)
    image.write(sink)
    sink.put_blob(Descriptor(OCI_EMPTY, digest_of(EMPTY), len(EMPTY)), EMPTY, what="config")
    raws = [
        artifact(image.descriptor),
        artifact(Descriptor(OCI_MANIFEST, digest_of(b"other"), 5)),
        artifact(),
    ]
    for raw in raws:
        sink.put_manifest(raw, OCI_MANIFEST, by_name=False)
    return name, image, [descriptor_of(raw).to_json() for raw in raws]


@pytest.mark.parametrize("end", ["docker://", "oci:"])
def test_copy_leaves_what_only_the_list_calls_a_referrer(plain, registry, places, tmp_path, end):
    name, image, entries = plain
    lies = [{**one, "artifactType": "a/lie", "annotations": {"a": "lie"}} for one in entries]
    path = f"/app/referrers/{image.descriptor.digest}"
    registry.answer_with(200, path=path, body=listing(*lies, lies[0]))
    there = f"docker://{registry.address}/new:v2" if end == "docker://" else f"oci:{tmp_path}/x:v2"
    report = copy_image(places.source(name), places.sink(there), with_referrers=True)
    assert report.referrers == 1
    copied = places.source(there)
    (entry,) = read_referrers_of(copied, image.descriptor.digest)
    assert str(entry.digest) == entries[0]["digest"]
    assert entry.artifact_type == "application/vnd.example.note"
    assert entry.annotations == {"note": "x"}
    for one in entries[1:]:
        with pytest.raises(NotFound):
            copied.read_manifest(parse_digest(one["digest"]))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"digest": "sha256:" + "0" * 64}, NotFound, "is listed, but not there"),
        ({"size": 1}, SizeMismatch, "size"),
        ({"mediaType": OCI_INDEX}, FormatError, "mediaType"),
    ],
    ids=["missing", "size", "type"],
)
def test_copy_of_a_listed_referrer_that_is_not_so_refused(
    plain, registry, places, tmp_path, change, error, text
):
    name, image, entries = plain
    path = f"/app/referrers/{image.descriptor.digest}"
    registry.answer_with(200, path=path, body=listing({**entries[0], **change}))
    sink = places.sink(f"oci:{tmp_path}/x:v2")
    with pytest.raises(error, match=text):
        copy_image(places.source(name), sink, with_referrers=True)
    sink.close()
    assert not (tmp_path / "x").exists()


def test_copy_with_a_chain_of_referrers_is_bounded(plain, places, tmp_path):
    name, image, _ = plain
    sink = places.sink(name)
    raw = artifact(image.descriptor)
    for number in range(2):
        raw = artifact(descriptor_of(raw), f"{number}")
        sink.put_manifest(raw, OCI_MANIFEST, by_name=False)
    target = places.sink(f"oci:{tmp_path}/x:v2")
    assert copy_image(places.source(name), target, with_referrers=True).referrers == 3
    sink.put_manifest(artifact(descriptor_of(raw), "more"), OCI_MANIFEST, by_name=False)
    with pytest.raises(FormatError, match="at most 3 deep") as caught:
        copy_image(places.source(name), places.sink(f"oci:{tmp_path}/y:v2"), with_referrers=True)
    assert "--with-referrers" in caught.value.hint


def test_copy_of_more_referrers_than_allowed_refused(plain, registry, places, tmp_path):
    name, image, entries = plain
    path = f"/app/referrers/{image.descriptor.digest}"
    many = [{**entries[0], "digest": str(digest_of(b"%d" % n))} for n in range(600)]
    link = {"Link": f'</v2{path}?more>; rel="next"'}
    registry.answer_with(200, path=path, headers=link, body=listing(*many))
    more = [{**entries[0], "digest": str(digest_of(b"%d" % n))} for n in range(600, 1200)]
    registry.answer_with(200, path=path, body=listing(*more))
    sink = places.sink(f"oci:{tmp_path}/x:v2")
    with pytest.raises(FormatError, match="at most 1024"):
        copy_image(places.source(name), sink, with_referrers=True)


def test_copy_into_a_layout_keeps_the_referrers_that_are_there(plain, registry, places, tmp_path):
    name, image, _ = plain
    there = f"oci:{tmp_path}/x"
    copy_image(places.source(name), places.sink(f"{there}:v1"), with_referrers=True)
    (first,) = read_referrers_of(places.source(f"{there}:v1"), image.descriptor.digest)
    registry.drop_manifest("app", first.digest)
    second = artifact(image.descriptor, "second")
    places.sink(name).put_manifest(second, OCI_MANIFEST, by_name=False)
    for _ in range(2):
        copy_image(places.source(name), places.sink(f"{there}:v2"), with_referrers=True)
        found = read_referrers_of(places.source(f"{there}:v1"), image.descriptor.digest)
        assert [one.digest for one in found] == [first.digest, digest_of(second)]


def signatures(*notes):
    """A manifest as cosign's: one blob, signed more than once."""
    layer = descriptor_of(EMPTY).to_json()
    config = Descriptor(OCI_EMPTY, digest_of(EMPTY), len(EMPTY)).to_json()
    layers = [{**layer, "annotations": {"signature": note}} for note in notes]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    ).encode()


@pytest.mark.parametrize("end", ["docker://", "oci:"])
@pytest.mark.parametrize("suffix", [".sig", ".att"])
def test_copy_loses_no_signature_of_others(plain, registry, places, tmp_path, end, suffix):
    name, image, _ = plain
    there = f"docker://{registry.address}/new:v2" if end == "docker://" else f"oci:{tmp_path}/x:v2"
    tag = f"sha256-{image.descriptor.digest.hex}{suffix}"

    def copy(*notes):
        places.sink(name).put_manifest_as(signatures(*notes), OCI_MANIFEST, tag)
        return copy_image(places.source(name), places.sink(there), with_referrers=True)

    def kept():
        return places.source(there).read_tag(tag).raw

    assert copy("a").referrers == 2
    copy("a", "b")
    assert kept() == signatures("a", "b")
    copy("b")
    assert kept() == signatures("a", "b")
    with pytest.raises(Unsupported, match=r"holds 1 of 2 that .* lacks") as caught:
        copy("b", "c")
    assert "sign again" in caught.value.hint
    assert kept() == signatures("a", "b")
