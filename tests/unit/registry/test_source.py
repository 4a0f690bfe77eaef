# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.errors import (
    DigestMismatch,
    FormatError,
    NotFound,
    RemoteError,
    SizeMismatch,
    Truncated,
)
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.manifest import parse_manifest
from imagers.model.media import INDEX_TYPES, MANIFEST_TYPES, OCI_LAYER, OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.model.stream import read_all
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.registry.client import RegistryClient
from imagers.registry.credentials import Credentials
from imagers.registry.source import RegistrySource
from imagers.testing.registry import EmbeddedRegistry


@pytest.fixture
def source(registry, opened):
    return opened.source(f"{registry.address}/app:v1")


def test_source_manifest_comes_byte_for_byte(source, pushed, registry):
    answer = source.read_manifest()
    assert (answer.raw, answer.media_type) == (pushed.raw, OCI_MANIFEST)
    assert answer.digest == digest_of(pushed.raw)
    assert source.name == f"docker://{registry.address}/app:v1"


def test_source_accepts_all_kinds_of_manifests():
    seen = []

    class Recorder(HTTPClient):
        def request(self, method, url, *, headers=None, **options):
            seen.append((headers or {}).get("Accept"))
            return super().request(method, url, headers=headers, **options)

    with EmbeddedRegistry() as registry:
        client = RegistryClient(parse_reference(f"{registry.address}/a"), http=Recorder())
        with pytest.raises(NotFound):
            RegistrySource(client.reference, client, name="x").read_manifest()
        client.close()
    assert set(seen[-1].split(", ")) == MANIFEST_TYPES | INDEX_TYPES


def test_source_blobs_come_and_are_checked(source, pushed):
    for descriptor, data in pushed.blobs.items():
        with source.open_blob(descriptor, what="blob") as stream:
            assert read_all(stream, size=descriptor.size) == data


def test_source_pinned_reference_is_compared(registry, opened, pushed):
    digest = digest_of(pushed.raw)
    source = opened.source(f"{registry.address}/app@{digest}")
    assert source.read_manifest().raw == pushed.raw
    registry.corrupt_blob(digest, 5)
    with pytest.raises(DigestMismatch) as caught:
        source.read_manifest()
    assert caught.value.expected == digest


def test_source_manifest_by_digest_is_compared(source, registry, pushed):
    digest = digest_of(pushed.raw)
    registry.replace_blob(digest, pushed.raw + b"\n")
    with pytest.raises(DigestMismatch):
        source.read_manifest(digest)


def test_source_pinned_by_sha512_is_compared_with_it(registry, opened, pushed):
    digest = digest_of(pushed.raw, "sha512")
    registry.answer_with(200, path=str(digest), body=pushed.raw)
    registry.answer_with(200, path=str(digest), body=pushed.raw + b" ")
    source = opened.source(f"{registry.address}/app@{digest}")
    assert source.read_manifest().digest == digest
    with pytest.raises(DigestMismatch):
        source.read_manifest()


def test_source_digest_header_is_never_believed(source, registry, pushed):
    lie = {"Docker-Content-Digest": "sha256:" + "0" * 64, "Content-Type": OCI_MANIFEST}
    registry.answer_with(200, path="/manifests/", headers=lie, body=pushed.raw)
    assert source.read_manifest().digest == digest_of(pushed.raw)


def test_source_digest_header_does_not_save_other_bytes(source, registry, pushed):
    digest = digest_of(pushed.raw)
    lie = {"Docker-Content-Digest": str(digest), "Content-Type": OCI_MANIFEST}
    registry.answer_with(200, path="/manifests/", headers=lie, body=b"{}")
    with pytest.raises(DigestMismatch):
        source.read_manifest(digest)


@pytest.mark.usefixtures("pushed")
def test_source_unknown_tag_is_not_found_and_named(registry, opened):
    name = f"{registry.address}/app:v2"
    with pytest.raises(NotFound, match=f"{name}: the registry has no such image") as caught:
        opened.source(name).read_manifest()
    assert (caught.value.status, caught.value.code) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.usefixtures("pushed")
def test_source_read_tag_missing_and_failing_are_different(source, registry):
    with pytest.raises(NotFound):
        source.read_tag("sha256-0.sig")
    registry.answer_with(500, path="/manifests/sha256-0.sig", times=3)
    with pytest.raises(RemoteError) as caught:
        source.read_tag("sha256-0.sig")
    assert not isinstance(caught.value, NotFound)
    assert caught.value.temporary


def test_source_read_tag_is_another_tag(source, registry, opened, pushed):
    opened.sink(f"{registry.address}/app").put_manifest_as(pushed.raw, OCI_MANIFEST, "other")
    assert source.read_tag("other").raw == pushed.raw


def test_source_read_tag_that_is_none_refused(source):
    with pytest.raises(FormatError, match="expected a tag"):
        source.read_tag("../../etc")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_source_failing_then_good_registry_is_tried_again(source, registry, pushed, status):
    registry.answer_with(status, path="/manifests/", headers={"Retry-After": "0"}, times=2)
    assert source.read_manifest().raw == pushed.raw


def test_source_huge_manifest_refused(source, registry, pushed):
    registry.replace_blob(digest_of(pushed.raw), b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(RemoteError, match="too long: expected at most 4194304 bytes"):
        source.read_manifest()


def test_source_other_media_type_than_inside_refused(source, registry, pushed):
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    registry.answer_with(
        200, path="/manifests/", headers={"Content-Type": f"{kind}; charset=x"}, body=pushed.raw
    )
    answer = source.read_manifest()
    with pytest.raises(FormatError, match="expected"):
        parse_manifest(answer.raw, media_type=answer.media_type)


def test_source_blob_of_other_bytes_refused_at_the_end(source, registry, pushed):
    registry.corrupt_blob(pushed.layers[0].digest, 1_000_000)
    with (
        source.open_blob(pushed.layers[0], what="layer 1 of 1") as stream,
        pytest.raises(DigestMismatch, match="layer 1 of 1"),
    ):
        read_all(stream, size=pushed.layers[0].size)


@pytest.mark.parametrize("change", [-1, 1])
def test_source_blob_of_another_size_refused_at_once(source, registry, pushed, change):
    data = pushed.blobs[pushed.layers[0]]
    registry.replace_blob(pushed.layers[0].digest, (data + b"x")[: len(data) + change])
    with pytest.raises(SizeMismatch) as caught:
        source.open_blob(pushed.layers[0], what="layer")
    assert (caught.value.expected, caught.value.actual) == (len(data), len(data) + change)


def test_source_blob_without_length_that_ends_early_is_truncated(source, registry, pushed):
    data = pushed.blobs[pushed.layers[0]]
    chunked = b"%x\r\n" % 1000 + data[:1000] + b"\r\n0\r\n\r\n"
    headers = {"Transfer-Encoding": "chunked"}
    registry.answer_with(200, path="/blobs/", headers=headers, body=chunked)
    with (
        source.open_blob(pushed.layers[0], what="layer") as stream,
        pytest.raises(Truncated) as caught,
    ):
        read_all(stream, size=pushed.layers[0].size)
    assert (caught.value.expected, caught.value.actual) == (len(data), 1000)


def test_source_connection_reset_in_a_blob_is_temporary(source, registry, pushed):
    registry.break_off(path="/blobs/", after=1000, times=100)
    with (
        source.open_blob(pushed.layers[0], what="layer") as stream,
        pytest.raises(RemoteError) as caught,
    ):
        read_all(stream, size=pushed.layers[0].size)
    assert caught.value.temporary


def test_source_connection_reset_in_a_manifest_is_tried_again(source, registry, pushed):
    registry.break_off(path="/manifests/", after=10)
    assert source.read_manifest().raw == pushed.raw


@pytest.mark.usefixtures("pushed")
def test_source_missing_blob_is_not_found(source):
    descriptor = Descriptor(OCI_LAYER, digest_of(b"none"), 4)
    with pytest.raises(NotFound, match=r"layer 7.*BLOB_UNKNOWN"):
        source.open_blob(descriptor, what="layer 7")


@pytest.mark.usefixtures("pushed")
def test_source_hanging_registry_times_out(registry, opened):
    registry.hang(path="/manifests/", times=9)
    quick = HTTPSettings(read_timeout_s=0.2, retry=RetryPolicy(attempts=1))
    with pytest.raises(RemoteError, match=r"no answer within 0\.2 s"):
        opened.source(f"{registry.address}/app:v1", settings=quick).read_manifest()


def test_source_blob_redirected_without_the_login(opened, image):
    with EmbeddedRegistry(username="me", password="pw") as registry, EmbeddedRegistry() as storage:
        credentials = Credentials("me", "pw")
        image.write(opened.sink(f"{registry.address}/app:v1", credentials=credentials))
        data = image.blobs[image.layers[0]]
        storage.answer_with(200, path="/signed", body=data)
        location = {"Location": f"{storage.url}/signed?sig=secret"}
        registry.answer_with(307, path="/blobs/", headers=location)
        source = opened.source(f"{registry.address}/app:v1", credentials=credentials)
        source.read_manifest()
        with source.open_blob(image.layers[0], what="layer") as stream:
            assert read_all(stream, size=len(data)) == data


def test_source_document_is_kept_as_it_came(source, pushed):
    assert json.loads(source.read_manifest().raw)["layers"][0]["size"] == pushed.layers[0].size
