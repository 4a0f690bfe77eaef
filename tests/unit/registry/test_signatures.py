"""What a registry keeps beside images, from one with and one without the referrers API."""

import json

import pytest

from imagers.errors import FormatError, NotFound, RemoteError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_INDEX, OCI_MANIFEST
from imagers.registry.signatures import RegistrySignatures, referrers_tag


@pytest.fixture
def subject(pushed):
    return Descriptor(OCI_MANIFEST, digest_of(pushed.raw), len(pushed.raw))


@pytest.fixture
def sink(registry, opened):
    return opened.sink(f"{registry.address}/app:v1")


def attach(sink, subject, *, noun="one"):
    empty = b"{}"
    config = Descriptor("application/vnd.oci.empty.v1+json", digest_of(empty), len(empty))
    sink.put_blob(config, empty, what="config")
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": f"x/{noun}",
            "config": config.to_json(),
            "layers": [config.to_json()],
            "subject": subject.to_json(),
        }
    ).encode()
    entry = Descriptor(OCI_MANIFEST, digest_of(raw), len(raw), artifact_type=f"x/{noun}")
    RegistrySignatures(sink).put_referrer(raw, entry, subject.digest)
    return entry


def without_api(registry):
    """404 for the list, and no `OCI-Subject` in answers, as docker-registry 2.8."""
    registry.answer_with(404, path="/referrers/", times=99)


def test_referrers_of_nothing_are_none(registry, sink, subject, opened):
    source = opened.source(f"{registry.address}/app:v1")
    assert RegistrySignatures(source).read_referrers(subject.digest) == ((), True)
    without_api(registry)
    assert RegistrySignatures(source).read_referrers(subject.digest) == ((), False)
    assert RegistrySignatures(sink).read_referrers(subject.digest) == ((), False)


def test_referrers_are_listed_by_the_api(registry, sink, subject):
    entries = [attach(sink, subject, noun=noun) for noun in ("one", "two")]
    listed, has_api = RegistrySignatures(sink).read_referrers(subject.digest)
    assert has_api
    assert {one.digest for one in listed} == {one.digest for one in entries}
    assert referrers_tag(subject.digest) not in registry.tags("app")


def index_of(*entries):
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [one.to_json() for one in entries],
        }
    ).encode()


def test_referrers_tag_keeps_what_others_wrote(registry, opened, subject, image, pushed):
    """Where the registry has no API, the list is a tag that everybody writes."""
    del image
    sink = opened.sink(f"{registry.address}/app:v1")
    other = Descriptor(OCI_MANIFEST, digest_of(pushed.raw), len(pushed.raw), artifact_type="a/b")
    tag = referrers_tag(subject.digest)
    sink.put_manifest_as(index_of(other), OCI_INDEX, tag)
    registry.requests.clear()
    empty = b"{}"
    config = Descriptor("x/y", digest_of(empty), len(empty))
    sink.put_blob(config, empty, what="config")
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.to_json(),
            "layers": [],
        }
    ).encode()
    entry = Descriptor(OCI_MANIFEST, digest_of(raw), len(raw))
    for _ in range(2):  # the second time there is nothing to do
        RegistrySignatures(sink).put_referrer(raw, entry, subject.digest)
    without_api(registry)
    listed, has_api = RegistrySignatures(sink).read_referrers(subject.digest)
    assert not has_api
    assert [one.digest for one in listed] == [other.digest, entry.digest]


def test_referrers_tag_that_does_not_keep_it_is_an_error(registry, sink, subject):
    empty = b"{}"
    config = Descriptor("x/y", digest_of(empty), len(empty))
    sink.put_blob(config, empty, what="config")
    raw = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.to_json(), "layers": []}
    ).encode()
    entry = Descriptor(OCI_MANIFEST, digest_of(raw), len(raw))
    tag = referrers_tag(subject.digest)
    registry.answer_with(201, path=f"/manifests/{tag}", method="PUT", times=99)
    with pytest.raises(RemoteError, match="does not keep the entry") as caught:
        RegistrySignatures(sink).put_referrer(raw, entry, subject.digest)
    assert caught.value.temporary
    writes = [path for method, path in registry.asked() if method == "PUT" and tag in path]
    assert len(writes) == 3


def test_referrers_on_pages_are_all_read_and_pages_are_bounded(registry, sink, subject):
    one = Descriptor(OCI_MANIFEST, digest_of(b"1"), 1)
    two = Descriptor(OCI_MANIFEST, digest_of(b"2"), 1)
    path = f"/v2/app/referrers/{subject.digest}"
    headers = {"Link": f'<{path}?page=2>; rel="next"', "Content-Type": OCI_INDEX}
    registry.answer_with(200, path="/referrers/", headers=headers, body=index_of(one))
    registry.answer_with(200, path="page=2", body=index_of(two))
    listed, _ = RegistrySignatures(sink).read_referrers(subject.digest)
    assert listed == (one, two)
    registry.answer_with(200, path="/referrers/", headers=headers, body=index_of(one), times=99)
    with pytest.raises(FormatError, match="32 pages"):
        RegistrySignatures(sink).read_referrers(subject.digest)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"manifests":[]}'])
def test_referrers_answer_that_is_no_index_is_refused(registry, sink, subject, body):
    registry.answer_with(200, path="/referrers/", body=body)
    with pytest.raises(FormatError):
        RegistrySignatures(sink).read_referrers(subject.digest)


def test_referrers_that_are_too_many_are_refused(registry, sink, subject):
    many = index_of(*[Descriptor(OCI_MANIFEST, digest_of(b"%d" % n), 1) for n in range(600)])
    headers = {"Link": '</v2/app/referrers/more>; rel="next"'}
    registry.answer_with(200, path="/referrers/", headers=headers, body=many, times=9)
    with pytest.raises(FormatError, match="at most 1024"):
        RegistrySignatures(sink).read_referrers(subject.digest)


@pytest.mark.parametrize("status", [400, 403, 500, 503])
def test_referrers_registry_that_fails_is_not_one_without_the_api(registry, sink, subject, status):
    registry.answer_with(status, path="/referrers/", times=9)
    with pytest.raises(RemoteError) as caught:
        RegistrySignatures(sink).read_referrers(subject.digest)
    assert not isinstance(caught.value, NotFound)


def test_extension_is_there_if_the_registry_says_so(registry, sink, subject):
    beside = RegistrySignatures(sink)
    assert not beside.supports_signatures()
    headers = {"X-Registry-Supports-Signatures": "1"}
    registry.answer_with(200, path="/v2/", headers=headers)
    assert beside.supports_signatures()
    registry.answer_with(200, path="/v2/", headers={"X-Registry-Supports-Signatures": "2"})
    assert not beside.supports_signatures()
    registry.answer_with(200, path="/extensions/v2/app/signatures/", body=b'{"signatures":[]}')
    assert beside.read_signatures(subject.digest, max_bytes=99) == b'{"signatures":[]}'
    registry.answer_with(201, path="/extensions/", method="PUT")
    beside.put_signature(subject.digest, b"{}")
    asked = [path for _, path in registry.asked() if path.startswith("/extensions")]
    assert asked == [f"/extensions/v2/app/signatures/{subject.digest}"] * 2


def test_extension_answer_that_is_too_long_is_refused(registry, sink, subject):
    registry.answer_with(200, path="/extensions/", body=bytes(2_000_000))
    with pytest.raises(RemoteError):
        RegistrySignatures(sink).read_signatures(subject.digest, max_bytes=99)
