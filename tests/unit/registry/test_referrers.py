# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.errors import FormatError, RemoteError, Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of, parse_digest
from imagers.model.media import DOCKER_INDEX, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from imagers.registry.referrers import MAX_REFERRERS, referrers_tag

EMPTY = b"{}"
NO_API = (404, 400, 405, 406)


def artifact(subject, kind="application/vnd.example.note", note="one"):
    empty = Descriptor(OCI_EMPTY, digest_of(EMPTY), len(EMPTY))
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": kind,
            "config": empty.to_json(),
            "layers": [empty.to_json()],
            "subject": subject.to_json(),
            "annotations": {"note": note},
        }
    ).encode()


def index_of(*entries):
    value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    return json.dumps(value).encode()


@pytest.fixture
def subject(pushed):
    return Descriptor(OCI_MANIFEST, digest_of(pushed.raw), len(pushed.raw))


@pytest.fixture
def sink(registry, opened, subject):
    assert subject.size
    sink = opened.sink(f"{registry.address}/app:v1")
    sink.put_blob(Descriptor(OCI_EMPTY, digest_of(EMPTY), 2), EMPTY, what="config")
    return sink


@pytest.fixture
def source(registry, opened):
    return opened.source(f"{registry.address}/app:v1")


def test_referrers_of_the_api_have_type_and_annotations(source, sink, subject, registry):
    assert source.referrers(subject.digest) == ()
    raw = artifact(subject)
    sink.put_manifest(raw, OCI_MANIFEST, by_name=False)
    (entry,) = source.referrers(subject.digest)
    assert (entry.digest, entry.size) == (digest_of(raw), len(raw))
    assert entry.artifact_type == "application/vnd.example.note"
    assert entry.annotations == {"note": "one"}
    assert referrers_tag(subject.digest) not in registry.tags("app")


def test_referrers_are_filtered_here_too(source, sink, subject):
    for kind in ("application/a", "application/b"):
        sink.put_manifest(artifact(subject, kind), OCI_MANIFEST, by_name=False)
    (entry,) = source.referrers(subject.digest, artifact_type="application/b")
    assert entry.artifact_type == "application/b"


@pytest.mark.parametrize("status", NO_API)
def test_referrers_without_api_are_written_and_read_by_the_tag(
    source, sink, subject, registry, status
):
    registry.answer_with(status, path="/referrers/", times=10)
    registry.referrers_api = False
    assert source.referrers(subject.digest) == ()
    raws = [artifact(subject, note=str(number)) for number in range(3)]
    for raw in [*raws, raws[0]]:
        sink.put_manifest(raw, OCI_MANIFEST, by_name=False)
    assert [one.digest for one in source.referrers(subject.digest)] == list(map(digest_of, raws))
    assert referrers_tag(subject.digest) in registry.tags("app")


def test_referrers_registry_fails_is_not_none_there(source, subject, registry):
    registry.answer_with(500, path="/referrers/", times=10)
    with pytest.raises(RemoteError, match="500") as caught:
        source.referrers(subject.digest)
    assert caught.value.status == 500


def test_referrers_all_pages_are_read(source, subject, registry):
    one, two = (
        Descriptor(OCI_MANIFEST, digest_of(data), 1, artifact_type="a/b").to_json()
        for data in (b"1", b"2")
    )
    path = f"/v2/app/referrers/{subject.digest}"
    link = {"Link": f'<{path}?n=1&last=x>; rel="next"', "Content-Type": OCI_INDEX}
    registry.answer_with(200, path="/referrers/", headers=link, body=index_of(one))
    registry.answer_with(200, path="/referrers/", body=index_of(two))
    assert [str(e.digest) for e in source.referrers(subject.digest)] == [
        one["digest"],
        two["digest"],
    ]


def test_referrers_next_page_elsewhere_refused(source, subject, registry):
    link = {"Link": '<http://127.0.0.2:1/x>; rel="next"'}
    registry.answer_with(200, path="/referrers/", headers=link, body=index_of())
    with pytest.raises(FormatError, match="another server"):
        source.referrers(subject.digest)


def test_referrers_pages_without_end_refused(source, subject, registry):
    link = {"Link": f'</v2/app/referrers/{subject.digest}>; rel="next"'}
    registry.answer_with(200, path="/referrers/", headers=link, body=index_of(), times=100)
    with pytest.raises(FormatError, match="pages"):
        source.referrers(subject.digest)


def test_referrers_tag_that_is_an_image_refused(source, sink, subject, registry, pushed):
    registry.answer_with(404, path="/referrers/")
    sink.put_manifest_as(pushed.raw, OCI_MANIFEST, referrers_tag(subject.digest))
    with pytest.raises(Unsupported, match="of the index"):
        source.referrers(subject.digest)


def test_referrers_tag_of_a_long_digest_is_cut():
    digest = parse_digest("sha512:" + "a" * 128)
    assert referrers_tag(digest) == "sha512-" + "a" * 64
    assert MAX_REFERRERS >= 1000


def index_artifact(subject, children, **more):
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [one.to_json() for one in children],
        "subject": subject.to_json(),
        **more,
    }
    return json.dumps(value).encode()


@pytest.mark.parametrize("has_api", [True, False])
def test_referrers_that_are_indexes_are_written_and_read(source, sink, subject, registry, has_api):
    registry.referrers_api = has_api
    plain = index_artifact(subject, [subject])
    typed = index_artifact(
        subject, [subject], artifactType="application/vnd.example.set", annotations={"a": "b"}
    )
    for raw in (plain, typed):
        sink.put_manifest(raw, OCI_INDEX, by_name=False)
    found = {one.digest: one for one in source.referrers(subject.digest)}
    assert {one.media_type for one in found.values()} == {OCI_INDEX}
    assert found[digest_of(plain)].artifact_type is None
    assert found[digest_of(typed)].artifact_type == "application/vnd.example.set"
    assert found[digest_of(typed)].annotations == {"a": "b"}
    assert (referrers_tag(subject.digest) in registry.tags("app")) is not has_api


def test_referrers_tag_is_written_for_a_subject_that_is_not_there(source, sink, subject, registry):
    registry.referrers_api = False
    missing = Descriptor(OCI_MANIFEST, digest_of(b"not yet"), 7)
    sink.put_manifest(artifact(missing), OCI_MANIFEST, by_name=False)
    assert len(source.referrers(missing.digest)) == 1
    assert source.referrers(subject.digest) == ()


def test_referrers_tag_keeps_what_others_wrote(source, sink, subject, registry, pushed):
    registry.referrers_api = False
    other = Descriptor(OCI_MANIFEST, digest_of(pushed.raw), len(pushed.raw), artifact_type="a/b")
    members = json.loads(index_of(other.to_json()))
    members["annotations"] = {"of": "others"}
    members["manifests"][0]["unknown"] = [1]
    sink.put_manifest_as(json.dumps(members).encode(), OCI_INDEX, referrers_tag(subject.digest))
    raw = artifact(subject)
    sink.put_manifest(raw, OCI_MANIFEST, by_name=False)
    kept = json.loads(registry.read(registry.tags("app")[referrers_tag(subject.digest)]))
    assert kept["annotations"] == {"of": "others"}
    assert kept["manifests"][0]["unknown"] == [1]
    assert [one.digest for one in source.referrers(subject.digest)] == [
        other.digest,
        digest_of(raw),
    ]


def test_referrers_tag_that_does_not_keep_the_entry_is_an_error(sink, subject, registry):
    registry.referrers_api = False
    tag = referrers_tag(subject.digest)
    registry.answer_with(201, path=f"/manifests/{tag}", method="PUT", times=99)
    with pytest.raises(RemoteError, match="does not keep the entry") as caught:
        sink.put_manifest(artifact(subject), OCI_MANIFEST, by_name=False)
    assert caught.value.temporary
    assert sum(tag in path for method, path in registry.asked() if method == "PUT") == 4


def test_referrers_tag_that_is_full_refused_before_it_is_written(sink, subject, registry):
    registry.referrers_api = False
    entries = [
        Descriptor(OCI_MANIFEST, digest_of(b"%d" % n), 1).to_json() for n in range(MAX_REFERRERS)
    ]
    path = f"/manifests/{referrers_tag(subject.digest)}"
    registry.answer_with(200, path=path, method="GET", body=index_of(*entries))
    with pytest.raises(FormatError, match="room for one more entry, got 1024 of") as caught:
        sink.put_manifest(artifact(subject), OCI_MANIFEST, by_name=False)
    assert "delete" in caught.value.hint
    # Few entries, but large ones: a list over 4 MiB could not be read again.
    entries = [
        Descriptor(
            OCI_MANIFEST, digest_of(b"%d" % n), 1, annotations={"a": "x" * 1_000_000}
        ).to_json()
        for n in range(4)
    ]
    registry.answer_with(200, path=path, method="GET", body=index_of(*entries))
    with pytest.raises(FormatError, match="room for one more entry, got 4 of"):
        sink.put_manifest(artifact(subject, note="n" * 200_000), OCI_MANIFEST, by_name=False)
    assert not [path for method, path in registry.asked() if method == "PUT" and "sha256-" in path]


def test_referrers_tag_that_is_a_docker_list_is_not_written(sink, subject, registry):
    registry.referrers_api = False
    body = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": []}).encode()
    path = f"/manifests/{referrers_tag(subject.digest)}"
    registry.answer_with(200, path=path, method="GET", body=body)
    with pytest.raises(Unsupported, match="of the referrers tag"):
        sink.put_manifest(artifact(subject), OCI_MANIFEST, by_name=False)


# Hostile lists.


def entry(name=b"1", **more):
    return {"mediaType": OCI_MANIFEST, "digest": str(digest_of(name)), "size": 1, **more}


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"errors":[]}',
        b'{"schemaVersion":2,"manifests":{}}',
        b'{"schemaVersion":2,"manifests":[],"manifests":[]}',
        b'{"schemaVersion":2,"manifests":[],"layers":[]}',
        index_of("x"),
        index_of({}),
        index_of(entry(digest="sha256:0")),
        index_of(entry(size=-1)),
        index_of(entry(size="1")),
        index_of(entry(mediaType="\r\n")),
        index_of(entry(artifactType=1)),
        index_of(entry(annotations={"a": []})),
        b'{"schemaVersion":2,"manifests":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=range(15),
)
@pytest.mark.parametrize("has_api", [True, False])
def test_referrers_answer_that_is_no_list_refused(source, subject, registry, body, has_api):
    registry.referrers_api = has_api
    path = "/referrers/" if has_api else f"/manifests/{referrers_tag(subject.digest)}"
    registry.answer_with(200, path=path, body=body)
    with pytest.raises(FormatError):
        source.referrers(subject.digest)


def test_referrers_that_are_too_many_refused(source, subject, registry):
    many = [index_of(*[entry(b"%d" % n) for n in range(at, at + 600)]) for at in (0, 600)]
    link = {"Link": '</v2/app/referrers/more>; rel="next"'}
    for body in many:
        registry.answer_with(200, path="/referrers/", headers=link, body=body)
    with pytest.raises(FormatError, match="at most 1024 entries"):
        source.referrers(subject.digest)


def test_referrers_that_are_too_large_together_refused(source, subject, registry):
    link = {"Link": '</v2/app/referrers/more>; rel="next"'}
    body = index_of(entry(annotations={"a": "x" * 4_000_000}))
    registry.answer_with(200, path="/referrers/", headers=link, body=body, times=9)
    with pytest.raises(FormatError, match="at most 16777216 bytes"):
        source.referrers(subject.digest)


def test_referrers_page_over_4_mib_refused(source, subject, registry):
    registry.answer_with(200, path="/referrers/", body=b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(RemoteError, match="too l"):
        source.referrers(subject.digest)


def test_referrers_listed_twice_count_once(source, subject, registry):
    body = index_of(entry(artifactType="a/b"), entry(b"2"), entry(artifactType="c/d"))
    registry.answer_with(200, path="/referrers/", body=body)
    assert [one.artifact_type for one in source.referrers(subject.digest)] == ["a/b", None]


@pytest.mark.parametrize("status", [400, 404, 500])
def test_referrers_second_page_that_is_missing_is_not_the_end(source, subject, registry, status):
    link = {"Link": '</v2/app/referrers/more>; rel="next"'}
    registry.answer_with(200, path="/referrers/", headers=link, body=index_of())
    registry.answer_with(status, path="/referrers/more", times=9)
    with pytest.raises(RemoteError):
        source.referrers(subject.digest)


@pytest.mark.parametrize(
    ("link", "pages"),
    [
        ('<{}>; rel="next"', 2),
        ("<{}>; rel=next", 2),
        ("<{}>; rel=next, </x>; rel=last", 2),
        ('</x>; rel="first", <{}>; title="a, b"; REL="last next"', 2),
        ('<{}>; rel = "next"', 2),
        ('<{}>; rel="nextfile"', 1),
        ("<{}>; rel=nextfile", 1),
        ('<{}>; rel="' + " next" * 4000, 1),
        ('<{}>; rel="prev"', 1),
        ('<{}>; anchor="rel=next"', 1),
        ("next", 1),
        ("<<{}>", 1),
    ],
)
def test_referrers_link_header_is_read_as_others_write_it(source, subject, registry, link, pages):
    headers = {"Link": link.format("/v2/app/referrers/more")}
    registry.answer_with(200, path="/referrers/", headers=headers, body=index_of(entry(b"1")))
    registry.answer_with(200, path="/referrers/more", body=index_of(entry(b"2")))
    assert len(source.referrers(subject.digest)) == pages
