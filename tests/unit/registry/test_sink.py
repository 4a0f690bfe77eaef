# SPDX-License-Identifier: Apache-2.0
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imagers.errors import (
    DigestMismatch,
    FormatError,
    IntegrityError,
    LocalError,
    RemoteError,
    SizeMismatch,
    Unauthorized,
)
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_LAYER, OCI_MANIFEST
from imagers.registry.credentials import Credentials
from imagers.registry.sink import RegistrySink
from imagers.testing.registry import EmbeddedRegistry


@pytest.fixture
def sink(registry, opened):
    return opened.sink(f"{registry.address}/app:v1")


def stage(sink, descriptor, data, what="layer 1 of 1"):
    with sink.stage_blob() as staged:
        os.write(staged.fileno(), data)
        staged.commit(descriptor, what=what)


@pytest.fixture
def blob(image):
    return image.layers[0], image.blobs[image.layers[0]]


def uploads(registry):
    return [one for one in registry.asked() if one[0] == "PUT" and "/uploads/" in one[1]]


def test_sink_staged_blob_arrives(sink, registry, blob):
    stage(sink, *blob)
    assert registry.read(blob[0].digest) == blob[1]
    assert sink.has_blob(blob[0])


def test_sink_staged_blob_that_is_there_is_not_sent(sink, registry, blob):
    stage(sink, *blob)
    stage(sink, *blob)
    assert len(uploads(registry)) == 1


def test_sink_who_has_just_asked_does_not_ask_again(sink, registry, blob):
    assert not sink.has_blob(blob[0])
    stage(sink, *blob)
    assert [one[0] for one in registry.asked()] == ["GET", "HEAD", "POST", "PUT"]


def test_sink_empty_blob_arrives(sink, registry):
    descriptor = Descriptor(OCI_LAYER, digest_of(b""), 0)
    stage(sink, descriptor, b"")
    assert registry.read(descriptor.digest) == b""


def test_sink_blob_of_another_size_there_is_not_taken_for_it(sink, registry, blob):
    stage(sink, *blob)
    registry.replace_blob(blob[0].digest, b"short")
    assert not sink.has_blob(blob[0])
    stage(sink, *blob)
    assert registry.read(blob[0].digest) == blob[1]


def test_sink_commit_of_another_size_refused_before_asking(sink, registry, blob):
    with pytest.raises(SizeMismatch) as caught:
        stage(sink, blob[0], b"short")
    assert caught.value.actual == 5
    assert registry.requests == []


def test_sink_aborted_blob_is_not_sent(sink, registry, blob):
    with sink.stage_blob() as staged:
        os.write(staged.fileno(), blob[1])
    staged.abort()
    assert registry.requests == []


def test_sink_put_blob_of_other_bytes_refused_before_asking(sink, registry, blob):
    with pytest.raises(DigestMismatch):
        sink.put_blob(blob[0], b"x" * blob[0].size, what="layer")
    with pytest.raises(SizeMismatch):
        sink.put_blob(blob[0], b"x", what="layer")
    assert registry.requests == []


def test_sink_failed_upload_is_replayed_with_the_same_bytes(sink, registry, blob):
    registry.answer_with(503, method="PUT", path="/uploads/", times=2)
    stage(sink, *blob)
    assert len(uploads(registry)) == 3
    assert len({path.split("?")[0] for _, path in uploads(registry)}) == 3  # a session each
    assert registry.read(blob[0].digest) == blob[1]


def test_sink_lost_session_begins_again(sink, registry, blob):
    registry.answer_with(404, method="PUT", path="/uploads/")
    stage(sink, *blob)
    assert registry.read(blob[0].digest) == blob[1]


def test_sink_lost_answer_of_a_good_upload_is_found_out(sink, registry, blob):
    registry.break_off(method="PUT", path="/uploads/", after=0)
    stage(sink, *blob)
    assert registry.read(blob[0].digest) == blob[1]
    assert len(uploads(registry)) == 1


def test_sink_upload_that_always_fails_ends_and_cancels_its_sessions(sink, registry, blob):
    registry.answer_with(503, method="PUT", path="/uploads/", times=99)
    with pytest.raises(RemoteError, match="upload of layer 1 of 1") as caught:
        stage(sink, *blob)
    assert caught.value.status == 503
    assert len(uploads(registry)) == 3
    assert registry.uploads == {}


def test_sink_refused_upload_is_not_repeated(sink, registry, blob):
    body = b'{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}'
    registry.answer_with(400, method="PUT", path="/uploads/", body=body)
    with pytest.raises(RemoteError, match="DIGEST_INVALID: no") as caught:
        stage(sink, *blob)
    assert caught.value.code == "DIGEST_INVALID"
    assert len(uploads(registry)) == 1


def test_sink_wrong_bytes_in_the_spool_are_refused_by_the_registry(sink, blob):
    with pytest.raises(RemoteError, match="DIGEST_INVALID"):
        stage(sink, blob[0], b"x" * blob[0].size)


def test_sink_absolute_location_is_followed(sink, registry, blob, opened):
    # As many registries answer: absolute, with a query of its own.
    sink.has_blob(blob[0])
    client = opened.client(f"{registry.address}/app", actions="pull,push")
    session = client.request("POST", "blobs/uploads/", doing="x", expected=(202,)).headers[
        "Location"
    ]
    location = {"Location": f"{registry.url}{session}?_state=secret"}
    registry.answer_with(202, method="POST", path="/uploads/", headers=location)
    stage(sink, *blob)
    assert uploads(registry)[0][1] == f"{session}?_state=secret&digest={blob[0].digest}"


def test_sink_location_at_another_host_gets_no_login(opened, blob):
    credentials = Credentials("me", "pw")
    with EmbeddedRegistry(username="me", password="pw") as registry, EmbeddedRegistry() as other:
        sink = opened.sink(f"{registry.address}/app:v1", credentials=credentials)
        assert not sink.has_blob(blob[0])
        other.answer_with(201, method="PUT", path="/elsewhere")
        location = {"Location": f"{other.url}/elsewhere"}
        registry.answer_with(202, method="POST", path="/uploads/", headers=location)
        stage(sink, *blob)
        assert other.asked() == [("PUT", f"/elsewhere?digest={blob[0].digest}")]


def test_sink_upload_without_location_is_an_error(sink, registry, blob):
    registry.answer_with(202, method="POST", path="/uploads/")
    with pytest.raises(RemoteError, match="expected a Location header"):
        stage(sink, *blob)


@pytest.mark.parametrize("location", ["ftp://x/", "https://u:secret@host/"])
def test_sink_upload_with_a_bad_location_is_an_error(sink, registry, blob, location):
    registry.answer_with(202, method="POST", path="/uploads/", headers={"Location": location})
    with pytest.raises(FormatError) as caught:
        stage(sink, *blob)
    assert "secret" not in str(caught.value)


def test_sink_registry_that_stored_other_bytes_is_found_out(sink, registry, image):
    other = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    registry.answer_with(201, method="PUT", path="/manifests/", headers=other)
    with pytest.raises(DigestMismatch) as caught:
        sink.put_manifest(image.raw, OCI_MANIFEST, by_name=True)
    assert caught.value.expected == digest_of(image.raw)


def test_sink_digest_header_that_is_none_is_an_error(sink, registry, image):
    registry.answer_with(
        201, method="PUT", path="/manifests/", headers={"Docker-Content-Digest": "md5:x"}
    )
    with pytest.raises(FormatError, match="Docker-Content-Digest"):
        sink.put_manifest(image.raw, OCI_MANIFEST, by_name=True)


def test_sink_manifest_goes_byte_for_byte_with_its_type(sink, registry, image):
    image.write(sink)
    digest = registry.tags("app")["v1"]
    assert registry.read(digest) == image.raw
    assert registry.storage.find("app").manifests == {digest: OCI_MANIFEST}


def test_sink_manifest_not_by_name_has_no_tag(sink, registry, image):
    for descriptor, data in image.blobs.items():
        sink.put_blob(descriptor, data, what="blob")
    sink.put_manifest(image.raw, OCI_MANIFEST, by_name=False)
    assert registry.tags("app") == {}
    assert registry.asked()[-1] == ("PUT", f"/v2/app/manifests/{digest_of(image.raw)}")


def test_sink_manifest_as_another_tag(sink, registry, image):
    image.write(sink)
    sink.put_manifest_as(image.raw, OCI_MANIFEST, "sha256-1.sig")
    assert set(registry.tags("app")) == {"v1", "sha256-1.sig"}
    with pytest.raises(FormatError):
        sink.put_manifest_as(image.raw, OCI_MANIFEST, "no tag")


def test_sink_named_by_a_digest_takes_only_those_bytes(registry, opened, image):
    image.write(opened.sink(f"{registry.address}/app:v1"))
    pinned = opened.sink(f"{registry.address}/app@{digest_of(image.raw)}")
    pinned.put_manifest(image.raw, OCI_MANIFEST, by_name=True)
    with pytest.raises(DigestMismatch):
        pinned.put_manifest(image.raw + b" ", OCI_MANIFEST, by_name=True)


def test_sink_manifest_of_missing_blobs_refused_with_the_registrys_words(sink, image):
    with pytest.raises(RemoteError, match="MANIFEST_BLOB_UNKNOWN") as caught:
        sink.put_manifest(image.raw, OCI_MANIFEST, by_name=True)
    assert caught.value.code == "MANIFEST_BLOB_UNKNOWN"


def test_sink_manifest_upload_after_503_is_repeated(sink, registry, image):
    registry.answer_with(503, method="PUT", path="/manifests/", times=2)
    image.write(sink)
    assert "v1" in registry.tags("app")


@pytest.mark.parametrize("token_auth", [False, True], ids=["basic", "token"])
def test_sink_pushes_with_a_login(opened, image, token_auth):
    with EmbeddedRegistry(username="me", password="pw", token_auth=token_auth) as registry:
        name = f"{registry.address}/app:v1"
        image.write(opened.sink(name, credentials=Credentials("me", "pw")))
        assert "v1" in registry.tags("app")
        with pytest.raises(Unauthorized):
            image.write(opened.sink(name))


def test_sink_spool_directory_that_is_missing_is_a_local_error(registry, opened, tmp_path):
    one = opened.sink(f"{registry.address}/app:v1")
    client = opened.client(f"{registry.address}/app:v1")
    sink = RegistrySink(one.reference, client, name="x", spool_directory=tmp_path / "none")
    with pytest.raises(LocalError):
        sink.stage_blob()


def test_sink_hanging_upload_times_out(sink, registry, blob):
    registry.hang(method="PUT", path="/uploads/")
    registry.answer_with(400, method="PUT", path="/uploads/")
    with pytest.raises(RemoteError):
        stage(sink, *blob)


def test_sink_mounts_from_another_repository(opened, registry, pushed):
    source = opened.source(f"{registry.address}/app:v1")
    sink = opened.sink(f"{registry.address}/new:v1")
    registry.requests.clear()
    assert sink.try_mount(pushed.layers[0], source)
    assert sink.has_blob(pushed.layers[0])
    assert [method for method, _ in registry.asked()] == ["GET", "POST", "HEAD", "HEAD"]
    assert not opened.sink(f"{registry.address}/app:v2").try_mount(pushed.layers[0], source)
    assert not sink.try_mount(pushed.layers[0], object())


@pytest.mark.parametrize("status", [202, 400, 405])
def test_sink_that_may_not_mount_sends(opened, registry, pushed, status):
    source = opened.source(f"{registry.address}/app:v1")
    sink = opened.sink(f"{registry.address}/new:v1")
    headers = {"Location": "/v2/new/blobs/uploads/0"} if status == 202 else {}
    registry.answer_with(status, path="mount=", method="POST", headers=headers)
    assert not sink.try_mount(pushed.layers[0], source)
    pushed.write(sink)
    assert registry.tags("new")


def test_sink_mounts_with_a_token_for_both_repositories(opened, image):
    with EmbeddedRegistry(username="me", password="pw", token_auth=True) as registry:
        login = {"credentials": Credentials("me", "pw")}
        image.write(opened.sink(f"{registry.address}/app:v1", **login))
        source = opened.source(f"{registry.address}/app:v1", **login)
        sink = opened.sink(f"{registry.address}/new:v1", **login)
        assert sink.try_mount(image.layers[0], source)


def test_sink_sends_smaller_pieces_where_a_proxy_has_a_limit(opened, registry, image):
    sink = opened.sink(f"{registry.address}/app:v1")
    registry.answer_with(413, path="/blobs/uploads/", method="PUT")
    sink.put_blob(image.layers[0], image.blobs[image.layers[0]], what="layer")
    assert [method for method, _ in registry.asked()].count("PATCH") == 3  # of 3 000 000 bytes
    assert registry.read(image.layers[0].digest) == image.blobs[image.layers[0]]


def test_sink_gives_up_where_no_piece_is_small_enough(opened, registry, image):
    sink = opened.sink(f"{registry.address}/app:v1")
    registry.answer_with(413, path="/blobs/uploads/", method="PUT", times=100)
    registry.answer_with(413, path="/blobs/uploads/", method="PATCH", times=100)
    with pytest.raises(RemoteError, match="413"):
        sink.put_blob(image.layers[0], image.blobs[image.layers[0]], what="layer")
    assert registry.uploads == {}


class Raw:
    """A stream of a local file, in memory; counts what is open."""

    def __init__(self, place):
        self._place = place
        self._at = 0
        place.opened += 1
        place.open += 1

    def readinto(self, buffer):
        piece = self._place.data[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def close(self):
        self._place.open -= 1


class Place:
    """Where a blob is; opens it as often as it is asked."""

    def __init__(self, data):
        self.data = data
        self.opened = self.open = 0

    def __call__(self):
        return Raw(self)


def test_sink_sends_a_blob_from_where_it_is(opened, registry, image):
    sink = opened.sink(f"{registry.address}/app:v1")
    for descriptor in (image.layers[0], Descriptor(OCI_LAYER, digest_of(b""), 0)):
        place = Place(image.blobs.get(descriptor, b""))
        sink.send_blob(descriptor, place, what="layer")
        assert registry.read(descriptor.digest) == place.data
        assert (place.opened, place.open) == (1, 0)
        sink.send_blob(descriptor, place, what="layer")
        assert place.opened == 1  # it is there


@pytest.mark.parametrize(
    "change",
    [lambda last: bytes([last ^ 1]), lambda _: b"", lambda last: bytes([last, 0])],
    ids=["other", "short", "long"],
)
def test_sink_never_sends_all_of_a_blob_that_is_another(opened, registry, image, change):
    sink = opened.sink(f"{registry.address}/app:v1")
    data = image.blobs[image.layers[0]]
    place = Place(data[:-1] + change(data[-1]))
    with pytest.raises(IntegrityError, match="layer 3"):
        sink.send_blob(image.layers[0], place, what="layer 3")
    assert (place.opened, place.open) == (1, 0)
    assert registry.uploads == {}
    assert not sink.has_blob(image.layers[0])


def test_sink_reads_the_blob_again_for_another_attempt(opened, registry, image):
    sink = opened.sink(f"{registry.address}/app:v1")
    place = Place(image.blobs[image.layers[0]])
    registry.answer_with(503, method="PUT", path="/uploads/", times=2)
    sink.send_blob(image.layers[0], place, what="layer")
    assert (place.opened, place.open) == (3, 0)
    assert registry.read(image.layers[0].digest) == place.data


class Hasty(BaseHTTPRequestHandler):
    """A registry that says it has a blob before it has read it."""

    protocol_version = "HTTP/1.1"

    def answer(self, status, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        self.answer(200)

    def do_HEAD(self):
        self.answer(404)

    def do_POST(self):
        self.answer(202, Location="/v2/app/blobs/uploads/1")

    def do_PUT(self):
        self.answer(201)
        self.close_connection = True

    def do_DELETE(self):
        self.answer(204)

    def log_message(self, *args):
        pass


def test_sink_registry_that_has_all_before_it_was_sent_is_not_believed(opened):
    """Else its word would stand in for the check of what was read."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hasty) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            sink = opened.sink(f"127.0.0.1:{server.server_port}/app:v1")
            place = Place(bytes(32_000_000))  # more than sockets hold
            descriptor = Descriptor(OCI_LAYER, digest_of(b"other"), len(place.data))
            with pytest.raises(RemoteError):
                sink.send_blob(descriptor, place, what="layer")
        finally:
            server.shutdown()
    assert place.open == 0


def test_sink_spools_what_goes_in_several_requests(opened, registry, image):
    sink = opened.sink(f"{registry.address}/app:v1")
    registry.answer_with(413, path="/blobs/uploads/", method="PUT")
    place = Place(image.blobs[image.layers[0]])
    sink.send_blob(image.layers[0], place, what="layer")
    assert [method for method, _ in registry.asked()].count("PATCH") == 3  # of 3 000 000 bytes
    assert registry.read(image.layers[0].digest) == place.data
    assert (place.opened, place.open) == (2, 0)


# ---- statuses that the specification does not have ------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 405, 429, 500, 501])
def test_sink_sends_a_blob_where_nobody_may_ask_for_it(sink, registry, blob, status):
    registry.answer_with(status, path="/blobs/sha256", method="HEAD", times=100)
    stage(sink, *blob)
    assert registry.read(blob[0].digest) == blob[1]


@pytest.mark.parametrize("status", [403, 405, 500, 503])
def test_sink_mount_that_is_refused_in_any_way_is_none(opened, registry, pushed, status):
    registry.answer_with(status, path="mount=", method="POST", times=100)
    sink = opened.sink(f"{registry.address}/new:v1")
    assert not sink.try_mount(pushed.layers[0], opened.source(f"{registry.address}/app:v1"))


@pytest.mark.parametrize("status", [404, 405, 411, 415, 501])
def test_sink_blob_that_may_not_come_with_its_end_comes_before(sink, registry, blob, status):
    registry.answer_with(status, path="/blobs/uploads/", method="PUT")
    stage(sink, *blob)
    assert registry.read(blob[0].digest) == blob[1]
    assert [method for method, _ in registry.asked()].count("PATCH") == 1


def test_sink_blob_whose_pieces_are_not_taken_comes_with_its_end(sink, registry, blob):
    registry.answer_with(413, path="/blobs/uploads/", method="PUT")
    registry.answer_with(405, path="/blobs/uploads/", method="PATCH", times=100)
    stage(sink, *blob)
    assert registry.read(blob[0].digest) == blob[1]


def test_sink_blob_that_is_taken_in_no_form_is_refused(sink, registry, blob):
    registry.answer_with(405, path="/blobs/uploads/", method="PUT", times=100)
    registry.answer_with(405, path="/blobs/uploads/", method="PATCH", times=100)
    with pytest.raises(RemoteError, match="405"):
        stage(sink, *blob)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_sink_manifest_is_taken_with_any_word_for_yes(sink, registry, image, status):
    for descriptor, data in image.blobs.items():
        stage(sink, descriptor, data)
    registry.answer_with(status, path="/manifests/", method="PUT")
    sink.put_manifest(image.raw, OCI_MANIFEST, by_name=True)
    registry.answer_with(400, path="/manifests/", method="PUT")
    with pytest.raises(RemoteError, match="400"):
        sink.put_manifest(image.raw, OCI_MANIFEST, by_name=True)
