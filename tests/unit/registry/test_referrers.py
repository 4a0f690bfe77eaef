import json

import pytest

from imagers.errors import FormatError, RemoteError, Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of, parse_digest
from imagers.model.media import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
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
