# SPDX-License-Identifier: Apache-2.0
"""What answers in place of a registry: login pages, captive portals, proxies that pack bytes."""

import gzip

import pytest

from imagers.errors import DigestMismatch, NotFound, RemoteError, SizeMismatch
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_MANIFEST
from imagers.model.stream import read_all
from imagers.registry.answers import page_type, words_of
from imagers.registry.credentials import Credentials

PAGE = b"\xef\xbb\xbf\r\n<!DOCTYPE html><html><form>Log in</form></html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}
ALL = range(100, 600)


def refused(registry, caught, doing):
    """It says where, what was asked, what came, and what to do."""
    text = str(caught.value)
    assert registry.address in text
    assert doing in text
    assert "'text/html'" in text
    assert "login page" in caught.value.hint


def test_page_in_place_of_a_manifest_says_from_where(registry, opened):
    registry.answer_with(200, path="/manifests/", headers=HTML, body=PAGE)
    with pytest.raises(RemoteError) as caught:
        opened.source(f"{registry.address}/app:v1").read_manifest()
    refused(registry, caught, "manifest")


def test_page_behind_a_redirect_says_where_it_led(registry, opened):
    other = registry.url.replace("127.0.0.1", "localhost")
    registry.answer_with(302, path="/manifests/", headers={"Location": f"{other}/login"})
    registry.answer_with(200, path="/login", headers=HTML, body=PAGE)
    with pytest.raises(RemoteError, match=r"from localhost:\d+$") as caught:
        opened.source(f"{registry.address}/app:v1").read_manifest()
    refused(registry, caught, "manifest")


@pytest.mark.parametrize("api", [True, False])
def test_page_in_place_of_referrers_is_not_none(registry, opened, pushed, api):
    """Whoever looks for signatures could not look: it is not "there are none"."""
    path = "/referrers/" if api else "/manifests/sha256-"
    registry.referrers_api = api
    registry.answer_with(200, path=path, headers=HTML, body=PAGE)
    source = opened.source(f"{registry.address}/app:v1")
    with pytest.raises(RemoteError) as caught:
        source.referrers(digest_of(pushed.raw))
    refused(registry, caught, "referrers")


def test_page_in_place_of_a_token_says_from_where(registry, opened):
    realm = f'Bearer realm="{registry.url}/token",service="s"'
    registry.answer_with(401, path="/v2/", headers={"WWW-Authenticate": realm})
    registry.answer_with(200, path="/token", headers=HTML, body=PAGE)
    with pytest.raises(RemoteError) as caught:
        opened.source(f"{registry.address}/app:v1").read_manifest()
    refused(registry, caught, "token")


def test_page_in_place_of_the_version_is_no_login(registry, opened):
    registry.answer_with(200, path="/v2/", headers=HTML, body=PAGE, times=9)
    client = opened.client(f"{registry.address}/app", credentials=Credentials("ann", "secret"))
    with pytest.raises(RemoteError) as caught:
        client.check_login()
    refused(registry, caught, "login")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_page_in_place_of_what_an_upload_gets_is_no_upload(registry, opened, method):
    """A captive portal says 200 to everything, and keeps nothing."""
    data = b"a blob"
    sink = opened.sink(f"{registry.address}/app:v1")
    registry.answer_with(200, path="/blobs/uploads/", method=method, headers=HTML, body=PAGE)
    with pytest.raises(RemoteError) as caught:
        sink.put_blob(Descriptor("a/b", digest_of(data), len(data)), data, what="blob")
    refused(registry, caught, "upload of blob")


def test_page_in_place_of_what_a_manifest_gets_is_no_manifest(registry, opened, image):
    registry.answer_with(200, path="/manifests/", method="PUT", headers=HTML, body=PAGE)
    with pytest.raises(RemoteError) as caught:
        image.write(opened.sink(f"{registry.address}/app:v1"))
    refused(registry, caught, "manifest")


def test_page_with_a_status_that_refuses_is_told(registry, opened):
    registry.answer_with(403, path="/manifests/", headers=HTML, body=PAGE, times=9)
    with pytest.raises(RemoteError, match="403 forbidden, with a page of type 'text/html' from"):
        opened.source(f"{registry.address}/app:v1").read_manifest()


def test_page_with_404_is_not_there_and_told(registry, opened):
    """Registries of static files have pages, too: for them nothing is there."""
    registry.answer_with(404, path="/manifests/", headers=HTML, body=PAGE, times=9)
    with pytest.raises(NotFound, match="404 not found, with a page of type 'text/html'") as caught:
        opened.source(f"{registry.address}/app:v1").read_manifest()
    assert "address of a registry" in caught.value.hint


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no"}]}', "DENIED: no"),
        (b'{"details":"incorrect username or password"}', "incorrect username or password"),
        (b'{"error":"invalid_grant","error_description":"expired\x1b[1m"}', ""),
        (b'{"error":"invalid_grant","error_description":"has\\nexpired"}', "has expired"),
        (b'{"code":1,"message":"Your token has expired"}', "Your token has expired"),
        (b'{"message":{}}', ""),
        (b"[]", ""),
    ],
)
def test_words_of_an_error_whatever_its_form(registry, opened, body, words):
    assert words_of(body) == words
    registry.answer_with(403, path="/manifests/", body=body, times=9)
    with pytest.raises(RemoteError) as caught:
        opened.source(f"{registry.address}/app:v1").read_manifest()
    assert str(caught.value).endswith(f"403 forbidden ({words})" if words else "403 forbidden")


def test_page_in_place_of_a_blob_is_a_wrong_size_and_told(registry, opened, pushed):
    registry.answer_with(200, path="/blobs/", headers=HTML, body=PAGE)
    source = opened.source(f"{registry.address}/app:v1")
    with pytest.raises(SizeMismatch) as caught:
        source.open_blob(pushed.layers[0], what="layer 1 of 1")
    assert "answered with a page" in caught.value.hint


@pytest.mark.parametrize("body", [b"", b"{}", b"true", b"  [1]", b"x" * 600 + b"<"])
def test_page_type_goes_by_the_bytes(body):
    """Some registries say text/html of an empty answer."""
    assert page_type(HTML, body) == ""
    assert page_type(HTML, PAGE) == "text/html"
    assert page_type({}, PAGE) == "unknown"


@pytest.mark.parametrize("label", ["x-gzip", "gzip", "aws-chunked", "utf-8", "binary"])
def test_label_of_a_blob_says_nothing_where_the_digest_is_right(registry, opened, pushed, label):
    layer = pushed.layers[0]
    data = pushed.blobs[layer]
    registry.answer_with(200, path="/blobs/", headers={"Content-Encoding": label}, body=data)
    source = opened.source(f"{registry.address}/app:v1")
    with source.open_blob(layer, what="layer 1 of 1") as stream:
        assert read_all(stream, size=layer.size) == data


def test_blob_that_a_proxy_packed_names_the_label(registry, opened, pushed):
    layer = pushed.layers[0]
    packed = gzip.compress(pushed.blobs[layer])
    registry.answer_with(200, path="/blobs/", headers={"Content-Encoding": "gzip"}, body=packed)
    source = opened.source(f"{registry.address}/app:v1")
    with pytest.raises(SizeMismatch) as caught:
        source.open_blob(layer, what="layer 1 of 1")
    assert "content encoding 'gzip'" in caught.value.hint


@pytest.mark.parametrize("by_digest", [True, False])
def test_manifest_that_a_proxy_packed_is_unpacked_and_the_digest_judges(
    registry, opened, pushed, by_digest
):
    raw, digest = pushed.raw, digest_of(pushed.raw)
    told = {"Content-Encoding": "gzip", "Content-Type": OCI_MANIFEST}
    registry.answer_with(200, path="/manifests/", headers=told, body=gzip.compress(raw))
    registry.answer_with(200, path="/manifests/", headers=told, body=gzip.compress(raw + b" "))
    source = opened.source(f"{registry.address}/app:v1")
    assert source.read_manifest(digest if by_digest else None).raw == raw
    with pytest.raises(DigestMismatch):
        source.read_manifest(digest)


def test_manifest_that_a_proxy_packed_otherwise_names_the_label(registry, opened):
    told = {"Content-Encoding": "br", "Content-Type": OCI_MANIFEST}
    registry.answer_with(200, path="/manifests/", headers=told, body=b"\x0b\x02\x80")
    with pytest.raises(RemoteError, match="content encoding 'br' from 127"):
        opened.source(f"{registry.address}/app:v1").read_manifest()


@pytest.mark.parametrize("body", [b"please log in", b"", b"null", b"\x1f\x8b\x08"])
@pytest.mark.parametrize("path", ["/referrers/", "/manifests/v1"])
def test_what_is_no_page_and_no_json_is_told_by_type_and_address(
    registry, opened, pushed, path, body
):
    registry.answer_with(200, path=path, headers={"Content-Type": "text/plain"}, body=body)
    source = opened.source(f"{registry.address}/app:v1")
    with pytest.raises(RemoteError) as caught:
        source.referrers(digest_of(pushed.raw)) if "ref" in path else source.read_manifest()
    text = f"expected JSON, got {len(body)} bytes of type 'text/plain' from {registry.address}"
    assert text in str(caught.value)


@pytest.mark.parametrize("path", ["/referrers/", "/manifests/v1"])
def test_error_that_comes_with_200_is_one(registry, opened, pushed, path):
    body = b'{"errors":[{"code":"DENIED","message":"log in"}]}'
    registry.answer_with(200, path=path, body=body)
    source = opened.source(f"{registry.address}/app:v1")
    with pytest.raises(RemoteError, match=r"answered 200 ok \(DENIED: log in\)") as caught:
        source.referrers(digest_of(pushed.raw)) if "ref" in path else source.read_manifest()
    assert caught.value.code == "DENIED"
