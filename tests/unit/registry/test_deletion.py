# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.errors import FormatError, NotFound, RemoteError, Unauthorized, UsageError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.registry.credentials import Credentials
from imagers.registry.deletion import delete_image
from imagers.testing import EmbeddedRegistry, make_image, make_layer


@pytest.fixture
def delete(registry, opened, pushed):
    """A function: delete an image of the registry by the name behind its address; app:v1 is one."""
    assert pushed.raw

    def delete(name, **options):
        reference = parse_reference(f"{registry.address}/{name}")
        client = opened.client(str(reference), actions="*", **options)
        return delete_image(client, reference)

    return delete


@pytest.fixture
def sink(registry, opened):
    return opened.sink(f"{registry.address}/app:v1")


@pytest.fixture
def digest(pushed):
    return digest_of(pushed.raw)


def index_of(*digests):
    entries = [{"mediaType": OCI_MANIFEST, "digest": str(one), "size": 1} for one in digests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def deletions(registry):
    return [path for method, path in registry.asked() if method == "DELETE"]


def test_image_of_a_tag_is_deleted_by_its_digest(registry, delete, digest):
    deletion = delete("app:v1")
    assert (deletion.digest, deletion.tags) == (digest, ("v1",))
    assert (deletion.indexes, deletion.entries, deletion.referrers) == ((), (), ())
    assert deletions(registry) == [f"/v2/app/manifests/{digest}"]
    assert registry.tags("app") == {}
    with pytest.raises(NotFound):
        delete("app:v1")


def test_image_with_another_tag_is_not_deleted_by_one_of_them(
    registry, delete, digest, sink, pushed
):
    """By one tag, skopeo deletes the image of all of them."""
    for tag in ("latest", "v2"):
        sink.put_manifest_as(pushed.raw, OCI_MANIFEST, tag)
    with pytest.raises(UsageError, match="expected a digest: the same image is tagged") as caught:
        delete("app:v1")
    assert "'latest', 'v2', which would lose it" in str(caught.value)
    assert f"app@{digest} deletes it under all its names" in caught.value.hint
    assert deletions(registry) == []
    assert set(registry.tags("app")) == {"latest", "v1", "v2"}


def test_image_with_many_tags_names_a_few_of_them(delete, sink, pushed):
    for number in range(9):
        sink.put_manifest_as(pushed.raw, OCI_MANIFEST, f"t{number}")
    with pytest.raises(UsageError, match="'t0', 't1', 't2', 't3', 't4' and 4 more"):
        delete("app:v1")


def test_image_of_a_digest_is_deleted_under_all_its_names(registry, delete, digest, sink, pushed):
    sink.put_manifest_as(pushed.raw, OCI_MANIFEST, "v2")
    assert delete(f"app@{digest}").tags == ("v1", "v2")
    assert registry.tags("app") == {}


def test_other_images_of_the_repository_stay(registry, delete, opened):
    other = make_image(make_layer(b"other"))
    other.write(opened.sink(f"{registry.address}/app:other"))
    delete("app:v1")
    assert registry.tags("app") == {"other": digest_of(other.raw)}


def test_image_in_an_index_is_not_deleted_by_its_own_tag(registry, delete, digest, sink):
    sink.put_manifest_as(index_of(digest), OCI_INDEX, "multi")
    with pytest.raises(UsageError, match="it is in the index 'multi', which would lose it"):
        delete("app:v1")
    assert deletions(registry) == []
    deletion = delete(f"app@{digest}")
    assert (deletion.tags, deletion.indexes) == (("v1",), ("multi",))


def test_index_is_deleted_and_its_images_are_told(registry, delete, digest, sink):
    raw = index_of(digest)
    sink.put_manifest_as(raw, OCI_INDEX, "multi")
    deletion = delete("app:multi")
    assert (deletion.digest, deletion.entries) == (digest_of(raw), (digest,))
    assert registry.tags("app") == {"v1": digest}


@pytest.mark.parametrize("has_api", [True, False])
def test_what_refers_to_it_stays_and_is_told(registry, delete, digest, sink, pushed, has_api):
    registry.referrers_api = has_api
    empty = Descriptor(OCI_EMPTY, digest_of(b"{}"), 2)
    sink.put_blob(empty, b"{}", what="config")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": empty.to_json(),
        "layers": [empty.to_json()],
    }
    plain, bound = (
        json.dumps(one).encode()
        for one in (
            document,
            document | {"subject": Descriptor(OCI_MANIFEST, digest, len(pushed.raw)).to_json()},
        )
    )
    signature = f"sha256-{digest.hex}.sig"
    sink.put_manifest_as(plain, OCI_MANIFEST, signature)
    sink.put_manifest(bound, OCI_MANIFEST, by_name=False)
    found = delete("app:v1").referrers
    list_tag = [] if has_api else [f"sha256-{digest.hex}"]
    assert found == (*list_tag, signature, str(digest_of(bound)))
    assert signature in registry.tags("app")
    assert registry.read(digest_of(bound)) == bound


@pytest.mark.parametrize("status", [401, 404, 500])
def test_tags_that_nobody_tells_stop_a_deletion_by_tag_alone(registry, delete, digest, status):
    registry.answer_with(status, path="/tags/list", times=20)
    with pytest.raises(RemoteError) as caught:
        delete("app:v1")
    assert caught.value.status == status
    assert f"app@{digest} deletes it" in caught.value.hint
    assert deletions(registry) == []
    deletion = delete(f"app@{digest}")
    assert (deletion.tags, deletion.indexes) == (None, None)


def test_tag_that_cannot_be_looked_at_stops_a_deletion_by_tag(registry, delete, sink):
    sink.put_manifest_as(index_of(), OCI_INDEX, "v2")
    registry.answer_with(500, path="/manifests/v2", times=20)
    with pytest.raises(RemoteError, match="look at tag 'v2'"):
        delete("app:v1")
    assert deletions(registry) == []


def test_tags_beyond_the_bound_stop_a_deletion_by_tag(registry, delete, digest, monkeypatch):
    monkeypatch.setattr("imagers.registry.deletion._MAX_TAGS", 1)
    body = json.dumps({"tags": ["v1", "v2"]}).encode()
    registry.answer_with(200, path="/tags/list", body=body, times=2)
    with pytest.raises(FormatError, match="at most 1 to look at, got 2") as caught:
        delete("app:v1")
    assert str(digest) in caught.value.hint
    assert delete(f"app@{digest}").tags is None


@pytest.mark.parametrize("listed", [[], ["other"]])
def test_list_that_lacks_the_tag_itself_is_no_list_of_the_others(
    registry, delete, digest, sink, pushed, listed
):
    sink.put_manifest_as(pushed.raw, OCI_MANIFEST, "v2")
    body = json.dumps({"tags": listed}).encode()
    registry.answer_with(200, path="/tags/list", body=body)
    with pytest.raises(RemoteError, match=r"expected sha256:.* under its tag") as caught:
        delete("app:v1")
    assert f"app@{digest} deletes it" in caught.value.hint
    assert set(registry.tags("app")) == {"v1", "v2"}


def test_tag_that_moves_meanwhile_is_not_deleted(registry, delete, digest, opened):
    other = make_image(make_layer(b"other"))
    other.write(opened.sink(f"{registry.address}/app:other"))
    head = {"Docker-Content-Digest": str(digest_of(other.raw)), "Content-Type": OCI_MANIFEST}
    registry.answer_with(200, method="HEAD", path="/manifests/v1", headers=head)
    with pytest.raises(RemoteError, match="under its tag in the registry's list"):
        delete("app:v1")
    assert registry.tags("app")["v1"] == digest


def test_tag_of_an_index_that_the_registry_calls_json_is_read(registry, delete, digest, sink):
    raw = index_of(digest)
    sink.put_manifest_as(raw, OCI_INDEX, "multi")
    head = {"Docker-Content-Digest": str(digest_of(raw)), "Content-Type": "application/json"}
    registry.answer_with(200, method="HEAD", path="/manifests/multi", headers=head)
    with pytest.raises(UsageError, match="in the index 'multi'"):
        delete("app:v1")


def test_tag_that_went_meanwhile_is_none_of_its_tags(registry, delete):
    body = json.dumps({"tags": ["gone", "v1"]}).encode()
    registry.answer_with(200, path="/tags/list", body=body)
    assert delete("app:v1").tags == ("v1",)


def test_tag_whose_digest_the_registry_does_not_say_is_read(registry, delete, sink, pushed):
    """A HEAD without Docker-Content-Digest must not hide a second name."""
    sink.put_manifest_as(pushed.raw, OCI_MANIFEST, "v2")
    registry.answer_with(200, method="HEAD", path="/manifests/v2", body=b"")
    with pytest.raises(UsageError, match="tagged 'v2'"):
        delete("app:v1")


def test_digest_of_another_algorithm_is_compared_with_its_own(delete, sink, pushed):
    sink.put_manifest(
        pushed.raw, OCI_MANIFEST, by_name=False, digest=digest_of(pushed.raw, "sha512")
    )
    assert delete(f"app@{digest_of(pushed.raw, 'sha512')}").tags == ("v1",)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (405, b'{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}'),
        (405, b""),
        (400, b'{"errors":[{"code":"UNSUPPORTED"}]}'),
        (501, b""),
    ],
)
def test_registry_that_does_not_delete_says_so(registry, delete, status, body):
    registry.answer_with(status, method="DELETE", path="/manifests/", body=body)
    with pytest.raises(RemoteError, match=f"deletion: the registry answered {status}") as caught:
        delete("app:v1")
    assert caught.value.status == status
    assert "deletion may be turned off" in caught.value.hint
    assert set(registry.tags("app")) == {"v1"}


def test_deletion_that_is_not_allowed_is_not_one_that_is_turned_off(registry, delete):
    registry.answer_with(403, method="DELETE", path="/manifests/")
    with pytest.raises(Unauthorized) as caught:
        delete("app:v1")
    assert "turned off" not in caught.value.hint


def test_deletion_is_sent_once(registry, delete):
    """A second one would be answered with "there is no such thing", and say so."""
    registry.answer_with(503, method="DELETE", path="/manifests/", times=9)
    with pytest.raises(RemoteError):
        delete("app:v1")
    assert len(deletions(registry)) == 1


def test_image_that_is_not_there_is_not_deleted(registry, delete):
    with pytest.raises(NotFound, match="has no such image"):
        delete("app:v9")
    assert deletions(registry) == []


def test_page_in_place_of_an_answer_is_no_deletion(registry, delete):
    page = {"Content-Type": "text/html"}
    registry.answer_with(
        200, method="DELETE", path="/manifests/", headers=page, body=b"<html>log in"
    )
    with pytest.raises(RemoteError, match="got a page"):
        delete("app:v1")


def test_token_for_a_deletion_is_one_for_everything(opened):
    """docker's registry asks for "delete" and quay.io for "push": both have "*"."""
    with EmbeddedRegistry(username="u", password="p", token_auth=True) as registry:
        login = Credentials("u", "p")
        text = f"{registry.address}/app:v1"
        make_image(make_layer(b"x")).write(opened.sink(text, credentials=login))
        client = opened.client(text, actions="*", credentials=login)
        registry.requests.clear()
        delete_image(client, parse_reference(text))
        (asked,) = {path for _, path in registry.asked() if path.startswith("/token")}
        assert "scope=repository%3Aapp%3A%2A" in asked
        assert registry.tags("app") == {}
