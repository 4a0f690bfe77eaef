# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.errors import FormatError, NotFound, RemoteError, Unauthorized
from imagers.registry.credentials import Credentials
from imagers.registry.listing import list_tags
from imagers.testing import EmbeddedRegistry

PATH = "/v2/app/tags/list"


@pytest.fixture
def client(registry, opened):
    return opened.client(f"{registry.address}/app")


def tags(*names):
    return json.dumps({"name": "app", "tags": names}).encode()


def link(target):
    return {"Link": f'<{target}>; rel="next"'}


def test_tags_of_a_repository_are_all_its_tags(pushed, registry, client, opened):
    sink = opened.sink(f"{registry.address}/app:v1")
    for name in ("v3", "v2", "latest"):
        sink.put_manifest_as(pushed.raw, pushed.media_type, name)
    assert list_tags(client) == ("latest", "v1", "v2", "v3")


def test_tags_of_all_pages_are_read_each_once(registry, client):
    registry.answer_with(
        200, path="/tags/list", headers=link(f"{PATH}?last=b"), body=tags("a", "b")
    )
    registry.answer_with(200, path="last=b", headers=link("list?last=c"), body=tags("b", "c"))
    registry.answer_with(200, path="last=c", body=tags("d"))
    assert list_tags(client) == ("a", "b", "c", "d")
    asked = [one.path for one in registry.requests if "tags" in one.path]
    assert asked == [PATH, f"{PATH}?last=b", f"{PATH}?last=c"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"name":"app","tags":null}', ()),
        (b'{"name":"app"}', ()),
        (b'{"name":"app","tags":[]}', ()),
        (b'{"tags":[null,"v1",null]}', ("v1",)),
        (b'{"tags":["v1","sha256:' + b"a" * 64 + b'"]}', ("v1",)),
    ],
    ids=["null", "left out", "empty", "null among them, as Nexus", "a digest, as Artifactory"],
)
def test_tags_as_registries_write_them(registry, client, body, expected):
    registry.answer_with(200, path="/tags/list", body=body)
    assert list_tags(client) == expected


@pytest.mark.parametrize(
    ("body", "piece"),
    [
        (tags("v1", "../v2"), r"\$.tags: expected a tag, got '../v2'"),
        (tags("a b"), "expected a tag"),
        (tags("\x1b[2J"), "expected a tag"),
        (tags(7), "expected a string"),
        (b'{"tags":{}}', "expected a list"),
        (b"[]", "expected an object"),
        (b'{"tags":["a"]', "is not JSON"),
    ],
)
def test_what_is_no_list_of_tags_refused(registry, client, body, piece):
    registry.answer_with(200, path="/tags/list", body=body)
    with pytest.raises(FormatError, match=piece) as caught:
        list_tags(client)
    assert caught.value.exit_code == 11


def test_next_page_on_another_server_never_asked(opened):
    """The login of one registry is not for whom its list leads to."""
    with (
        EmbeddedRegistry(username="u", password="p") as registry,
        EmbeddedRegistry() as other,
    ):
        client = opened.client(f"{registry.address}/app", credentials=Credentials("u", "p"))
        elsewhere = link(f"{other.url}{PATH}?last=a")
        registry.answer_with(200, path="/tags/list", headers=elsewhere, body=tags("a"))
        with pytest.raises(FormatError, match="the next page is on another server"):
            list_tags(client)
        assert other.requests == []


def test_pages_in_a_circle_refused(registry, client):
    circle = link(PATH)
    registry.answer_with(200, path="/tags/list", headers=circle, body=tags("a"), times=9)
    with pytest.raises(FormatError, match="lead back"):
        list_tags(client)
    assert len([one for one in registry.requests if "tags" in one.path]) == 2


def test_pages_without_end_and_without_tags_refused(registry, client, monkeypatch):
    monkeypatch.setattr("imagers.registry.listing._MAX_TAG_PAGES", 5)
    registry.answer_with(200, path="/tags/list", headers=link(PATH), body=tags(), times=9)
    with pytest.raises(FormatError, match="at most 5 pages, got more"):
        list_tags(client)


def test_pages_that_are_too_large_together_refused(registry, client, monkeypatch):
    monkeypatch.setattr("imagers.registry.listing._MAX_TAG_BYTES", 100)
    for at in range(3):
        body = tags("x" * 20 + str(at))
        registry.answer_with(200, path="/tags/list", headers=link(f"{PATH}?n={at}"), body=body)
    with pytest.raises(FormatError, match="at most 100 bytes, got more"):
        list_tags(client)


def test_repository_that_is_not_there_is_not_an_empty_one(registry, client):
    with pytest.raises(NotFound) as caught:
        list_tags(client)
    assert caught.value.code == "NAME_UNKNOWN"
    assert str(caught.value).startswith(f"{registry.address}/app: tags: ")  # and no tag of ours
    assert caught.value.hint == "check the name of the repository"


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Unauthorized), (403, Unauthorized), (500, RemoteError)]
)
def test_list_that_cannot_be_had_is_not_an_empty_one(registry, client, status, kind):
    registry.answer_with(status, path="/tags/list", times=9)
    with pytest.raises(kind) as caught:
        list_tags(client)
    assert caught.value.status == status


def test_page_that_fails_leaves_no_part_of_the_list(registry, client):
    registry.answer_with(200, path="/tags/list", headers=link(f"{PATH}?last=a"), body=tags("a"))
    registry.answer_with(404, path="last=a", times=9)
    with pytest.raises(NotFound):
        list_tags(client)
