# SPDX-License-Identifier: Apache-2.0
"""The protocol of the embedded registry, request by request, as the specification writes it."""

import http.client
import json
import socket
from urllib.parse import quote

import pytest

from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from imagers.testing.registry import EmbeddedRegistry

DATA = b"0123456789" * 100


@pytest.fixture(params=["memory", "directory"])
def registry(request, tmp_path):
    with EmbeddedRegistry(None if request.param == "memory" else tmp_path / "r") as one:
        yield one


@pytest.fixture
def ask(registry):
    """One request over one connection for the whole test: keep-alive must hold."""
    host, _, port = registry.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)

    def send(method, path, body=None, headers=None, **more):
        connection.request(method, path, body, headers or {}, **more)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    yield send
    connection.close()


def code_of(body):
    return json.loads(body)["errors"][0]["code"]


def put_blob(ask, data, name="app"):
    status, headers, _ = ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(data)}", data)
    assert (status, headers["Location"]) == (201, f"/v2/{name}/blobs/{digest_of(data)}")
    return digest_of(data)


def manifest_of(ask, layer=DATA, name="app", **more):
    config = b"{}"
    for data in (config, layer):
        put_blob(ask, data, name)
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor(OCI_CONFIG, digest_of(config), len(config)).to_json(),
            "layers": [Descriptor(OCI_LAYER, digest_of(layer), len(layer)).to_json()],
            **more,
        }
    ).encode()


def put_manifest(ask, raw, reference="v1", name="app", media_type=OCI_MANIFEST):
    headers = {"Content-Type": media_type}
    return ask("PUT", f"/v2/{name}/manifests/{reference}", raw, headers)


def test_base_says_that_it_is_a_registry(ask):
    status, headers, body = ask("GET", "/v2/")
    assert (status, body) == (200, b"{}")
    assert headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/",
        "/v2/UPPER/tags/list",
        "/v2/a/b",
        "/v2/../etc",
        "/v2/a..b/tags/list",
        "/v2/a___b/tags/list",
        "/v2/a//b/tags/list",
        "/v2/a-/tags/list",
    ],
)
def test_unknown_path_is_404_with_an_error_document(ask, path):
    status, _, body = ask("GET", path)
    assert (status, code_of(body)) == (404, "NAME_INVALID")


def test_unknown_method_is_405(ask):
    status, headers, body = ask("PATCH", "/v2/app/manifests/v1")
    assert (status, code_of(body)) == (405, "UNSUPPORTED")
    assert headers["Allow"] == "GET, PUT, DELETE"


# Blobs.


def test_blob_single_post_then_get_and_head(ask):
    digest = put_blob(ask, DATA)
    for method, expected in (("GET", DATA), ("HEAD", b"")):
        status, headers, body = ask(method, f"/v2/app/blobs/{digest}")
        assert (status, body) == (200, expected)
        assert headers["Content-Length"] == str(len(DATA))
        assert headers["Docker-Content-Digest"] == str(digest)


def test_blob_post_then_put(ask):
    status, headers, _ = ask("POST", "/v2/app/blobs/uploads/")
    assert status == 202
    assert headers["Range"] == "0-0"
    status, _, _ = ask("PUT", f"{headers['Location']}?digest={digest_of(DATA)}", DATA)
    assert status == 201
    assert ask("GET", f"/v2/app/blobs/{digest_of(DATA)}")[2] == DATA


def test_blob_in_chunks(ask):
    location = ask("POST", "/v2/app/blobs/uploads/")[1]["Location"]
    at = 0
    for size in (1, 399, 600):
        piece = DATA[at : at + size]
        ranges = {"Content-Range": f"{at}-{at + size - 1}"}
        status, headers, _ = ask("PATCH", location, piece, ranges)
        at += size
        assert (status, headers["Range"]) == (202, f"0-{at - 1}")
    status, headers, _ = ask("GET", location)
    assert (status, headers["Range"]) == (204, "0-999")
    assert ask("PUT", f"{location}?digest={digest_of(DATA)}")[0] == 201
    assert ask("GET", location)[0] == 404


def test_blob_chunk_out_of_order_is_416_with_the_range(ask):
    location = ask("POST", "/v2/app/blobs/uploads/")[1]["Location"]
    ask("PATCH", location, DATA[:10], {"Content-Range": "0-9"})
    for wrong in ("11-20", "0-9", "x", "bytes 10-19/*", "9" * 5000 + "-10"):
        status, headers, body = ask("PATCH", location, b"x" * 10, {"Content-Range": wrong})
        assert (status, headers["Range"]) == (416, "0-9")
        assert code_of(body) == "BLOB_UPLOAD_INVALID"


def test_blob_chunk_of_another_length_than_its_range_is_refused(ask):
    location = ask("POST", "/v2/app/blobs/uploads/")[1]["Location"]
    for wrong in ("0-8", "0-10", "0-0"):
        status, _, body = ask("PATCH", location, b"x" * 10, {"Content-Range": wrong})
        assert (status, code_of(body)) == (400, "SIZE_INVALID")
    assert ask("PATCH", location, b"x" * 10, {"Content-Range": "0-9"})[0] == 202


def test_blob_last_chunk_in_the_put(ask):
    location = ask("POST", "/v2/app/blobs/uploads/")[1]["Location"]
    ask("PATCH", location, DATA[:600])
    status, _, _ = ask("PUT", f"{location}?digest={digest_of(DATA)}", DATA[600:])
    assert status == 201


def test_blob_in_chunked_transfer_encoding(ask):
    location = ask("POST", "/v2/app/blobs/uploads/")[1]["Location"]
    pieces = iter([DATA[:7], DATA[7:500], DATA[500:]])
    assert ask("PATCH", location, pieces, encode_chunked=True)[0] == 202
    assert ask("PUT", f"{location}?digest={digest_of(DATA)}")[0] == 201


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_blob_by_another_algorithm(ask, algorithm):
    digest = digest_of(DATA, algorithm)
    assert ask("POST", f"/v2/app/blobs/uploads/?digest={digest}", DATA)[0] == 201
    assert ask("GET", f"/v2/app/blobs/{digest}")[2] == DATA


@pytest.mark.parametrize("digest", [digest_of(b"other"), "sha256:0", "md5:0", ""])
def test_blob_with_another_digest_is_refused_and_not_kept(ask, registry, digest):
    status, _, body = ask("POST", f"/v2/app/blobs/uploads/?digest={digest}", DATA)
    assert (status, code_of(body)) == (400, "DIGEST_INVALID")
    assert registry.storage.find("app").blobs == set()


def test_blob_upload_cancelled_is_gone(ask, registry):
    location = ask("POST", "/v2/app/blobs/uploads/")[1]["Location"]
    assert ask("DELETE", location)[0] == 204
    status, _, body = ask("PUT", f"{location}?digest={digest_of(DATA)}", DATA)
    assert (status, code_of(body)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert registry.uploads == {}


def test_blob_upload_of_another_repository_is_unknown(ask):
    location = ask("POST", "/v2/app/blobs/uploads/")[1]["Location"].replace("/app/", "/other/")
    assert ask("PATCH", location, DATA)[0] == 404


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("0-0", 0, 1), ("10-19", 10, 20), ("990-", 990, 1000), ("-5", 995, 1000), ("5-9999", 5, 1000)],
)
def test_blob_range_is_206(ask, asked, start, stop):
    digest = put_blob(ask, DATA)
    status, headers, body = ask(
        "GET", f"/v2/app/blobs/{digest}", headers={"Range": f"bytes={asked}"}
    )
    assert (status, body) == (206, DATA[start:stop])
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/1000"


@pytest.mark.parametrize(
    "asked",
    ["bytes=1000-", "bytes=5-4", "bytes=-", "bytes=0-1,3-4", "bytes=" + "9" * 5000 + "-"],
    ids=["after the end", "backwards", "nothing", "two", "huge"],
)
def test_blob_bad_range_is_416(ask, asked):
    digest = put_blob(ask, DATA)
    status, headers, _ = ask("GET", f"/v2/app/blobs/{digest}", headers={"Range": asked})
    assert (status, headers["Content-Range"]) == (416, "bytes */1000")


@pytest.mark.parametrize(
    ("method", "asked"), [("GET", "lines=1-2"), ("GET", ""), ("HEAD", "bytes=0-9")]
)
def test_blob_range_that_means_nothing_is_ignored(ask, method, asked):
    digest = put_blob(ask, DATA)
    status, headers, _ = ask(method, f"/v2/app/blobs/{digest}", headers={"Range": asked})
    assert (status, headers["Content-Length"]) == (200, "1000")


def test_content_that_the_client_has_is_304(ask):
    digest = put_blob(ask, DATA)
    raw = manifest_of(ask)
    put_manifest(ask, raw)
    for path, tag in ((f"blobs/{digest}", digest), ("manifests/v1", digest_of(raw))):
        for method in ("GET", "HEAD"):
            has = {"If-None-Match": f'"x", "{tag}"'}
            status, headers, body = ask(method, f"/v2/app/{path}", headers=has)
            assert (status, headers["ETag"], body) == (304, f'"{tag}"', b"")
            assert ask(method, f"/v2/app/{path}", headers={"If-None-Match": '"x"'})[0] == 200


def test_blob_of_another_repository_is_unknown_until_mounted(ask):
    digest = put_blob(ask, DATA, "one")
    put_blob(ask, b"x", "two")
    status, _, body = ask("GET", f"/v2/two/blobs/{digest}")
    assert (status, code_of(body)) == (404, "BLOB_UNKNOWN")
    assert ask("POST", f"/v2/two/blobs/uploads/?mount={digest}&from=one")[0] == 201
    assert ask("GET", f"/v2/two/blobs/{digest}")[2] == DATA


def test_blob_mount_of_what_is_not_there_begins_an_upload(ask):
    path = f"/v2/two/blobs/uploads/?mount={digest_of(DATA)}&from=one"
    status, headers, _ = ask("POST", path)
    assert status == 202
    assert ask("PUT", f"{headers['Location']}?digest={digest_of(DATA)}", DATA)[0] == 201


def test_blob_delete(ask):
    digest = put_blob(ask, DATA)
    assert ask("DELETE", f"/v2/app/blobs/{digest}")[0] == 202
    assert ask("GET", f"/v2/app/blobs/{digest}")[0] == 404
    assert ask("DELETE", f"/v2/app/blobs/{digest}")[0] == 404


# Manifests.


def test_manifest_by_tag_and_digest(ask):
    raw = manifest_of(ask)
    status, headers, _ = put_manifest(ask, raw)
    assert (status, headers["Docker-Content-Digest"]) == (201, str(digest_of(raw)))
    for reference in ("v1", digest_of(raw)):
        for method, expected in (("GET", raw), ("HEAD", b"")):
            status, headers, body = ask(method, f"/v2/app/manifests/{reference}")
            assert (status, body, headers["Content-Type"]) == (200, expected, OCI_MANIFEST)
            assert headers["Docker-Content-Digest"] == str(digest_of(raw))
            assert headers["Content-Length"] == str(len(raw))


@pytest.mark.parametrize("reference", ["v2", digest_of(b"other"), "sha256:0"])
def test_manifest_unknown(ask, reference):
    put_manifest(ask, manifest_of(ask))
    status, _, body = ask("GET", f"/v2/app/manifests/{reference}")
    assert status in (400, 404)
    assert code_of(body) in ("MANIFEST_UNKNOWN", "DIGEST_INVALID")


def test_manifest_of_an_unknown_repository(ask):
    status, _, body = ask("GET", "/v2/none/manifests/v1")
    assert (status, code_of(body)) == (404, "NAME_UNKNOWN")


def test_manifest_of_a_missing_blob_refused(ask, registry):
    raw = manifest_of(ask, name="elsewhere")
    status, _, body = put_manifest(ask, raw)
    assert (status, code_of(body)) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert registry.tags("app") == {}


@pytest.mark.parametrize(
    ("raw", "media_type", "code"),
    [
        (b"{", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"{}", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b'{"schemaVersion":1}', OCI_MANIFEST, "MANIFEST_INVALID"),
        (b'{"schemaVersion":2,"manifests":[]}', OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"{}", "text/plain", "MANIFEST_INVALID"),
        (b"{}", "", "MANIFEST_INVALID"),
    ],
)
def test_manifest_malformed_refused(ask, raw, media_type, code):
    status, _, body = put_manifest(ask, raw, media_type=media_type)
    assert (status, code_of(body)) == (400, code)


def test_manifest_under_another_digest_refused(ask):
    status, _, body = put_manifest(ask, manifest_of(ask), reference=digest_of(b"other"))
    assert (status, code_of(body)) == (400, "DIGEST_INVALID")


def test_manifest_under_no_tag_refused(ask):
    status, _, body = put_manifest(ask, manifest_of(ask), reference=".tag")
    assert (status, code_of(body)) == (400, "MANIFEST_INVALID")


def test_manifest_too_large_refused(ask):
    status, _, body = put_manifest(ask, b" " * (4 * 1024 * 1024 + 1))
    assert (status, code_of(body)) == (413, "SIZE_INVALID")
    assert ask("GET", "/v2/")[0] == 200


def test_manifest_delete_by_tag_keeps_the_manifest(ask, registry):
    raw = manifest_of(ask)
    put_manifest(ask, raw)
    put_manifest(ask, raw, "v2")
    assert ask("DELETE", "/v2/app/manifests/v1")[0] == 202
    assert set(registry.tags("app")) == {"v2"}
    assert ask("DELETE", f"/v2/app/manifests/{digest_of(raw)}")[0] == 202
    assert registry.tags("app") == {}
    assert ask("GET", f"/v2/app/manifests/{digest_of(raw)}")[0] == 404


def test_index_needs_its_manifests(ask):
    raw = manifest_of(ask)
    entry = Descriptor(OCI_MANIFEST, digest_of(raw), len(raw)).to_json()
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    status, _, body = put_manifest(ask, index, media_type=OCI_INDEX)
    assert (status, code_of(body)) == (400, "MANIFEST_BLOB_UNKNOWN")
    put_manifest(ask, raw, digest_of(raw))
    assert put_manifest(ask, index, media_type=OCI_INDEX)[0] == 201
    assert ask("GET", "/v2/app/manifests/v1")[1]["Content-Type"] == OCI_INDEX


# Listings.


def test_tags_are_sorted_and_come_in_pages(ask):
    raw = manifest_of(ask)
    for tag in ("c", "a", "b", "B"):
        put_manifest(ask, raw, tag)
    assert json.loads(ask("GET", "/v2/app/tags/list")[2]) == {
        "name": "app",
        "tags": ["B", "a", "b", "c"],
    }
    status, headers, body = ask("GET", "/v2/app/tags/list?n=3")
    assert (status, json.loads(body)["tags"]) == (200, ["B", "a", "b"])
    path = headers["Link"].removeprefix("<").partition(">")[0]
    status, headers, body = ask("GET", path)
    assert (json.loads(body)["tags"], headers["Link"]) == (["c"], None)
    assert json.loads(ask("GET", "/v2/app/tags/list?n=0")[2])["tags"] == []
    assert ask("GET", "/v2/app/tags/list?n=x")[0] == 400


def test_tags_of_an_unknown_repository(ask):
    status, _, body = ask("GET", "/v2/none/tags/list")
    assert (status, code_of(body)) == (404, "NAME_UNKNOWN")


def test_catalog_lists_repositories(ask):
    for name in ("b", "a/x"):
        put_blob(ask, DATA, name)
    assert json.loads(ask("GET", "/v2/_catalog")[2]) == {"repositories": ["a/x", "b"]}


def test_referrers_are_found_and_filtered(ask):
    raw = manifest_of(ask)
    put_manifest(ask, raw)
    subject = Descriptor(OCI_MANIFEST, digest_of(raw), len(raw)).to_json()
    signature = manifest_of(
        ask, subject=subject, artifactType="application/x.sig", annotations={"a": "b"}
    )
    other = manifest_of(ask, subject=subject)
    for one in (signature, other):
        status, headers, _ = put_manifest(ask, one, digest_of(one))
        assert (status, headers["OCI-Subject"]) == (201, str(digest_of(raw)))
    status, headers, body = ask("GET", f"/v2/app/referrers/{digest_of(raw)}")
    assert (status, headers["Content-Type"]) == (200, OCI_INDEX)
    found = {one["digest"]: one for one in json.loads(body)["manifests"]}
    assert found == {
        str(digest_of(signature)): {
            "mediaType": OCI_MANIFEST,
            "digest": str(digest_of(signature)),
            "size": len(signature),
            "artifactType": "application/x.sig",
            "annotations": {"a": "b"},
        },
        str(digest_of(other)): {
            "mediaType": OCI_MANIFEST,
            "digest": str(digest_of(other)),
            "size": len(other),
            "artifactType": OCI_CONFIG,
        },
    }
    path = f"/v2/app/referrers/{digest_of(raw)}?artifactType=application/x.sig"
    status, headers, body = ask("GET", path)
    assert [one["digest"] for one in json.loads(body)["manifests"]] == [str(digest_of(signature))]
    assert headers["OCI-Filters-Applied"] == "artifactType"


def test_referrers_that_are_indexes_are_listed(ask):
    raw = manifest_of(ask)
    put_manifest(ask, raw)
    one = Descriptor(OCI_MANIFEST, digest_of(raw), len(raw)).to_json()
    kind, note = "application/x.set", {"a": "b"}
    plain, typed = (
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [one], **more})
        for more in ({"subject": one}, {"subject": one, "artifactType": kind, "annotations": note})
    )
    for index in (plain, typed):
        status, headers, _ = put_manifest(
            ask, index.encode(), digest_of(index.encode()), media_type=OCI_INDEX
        )
        assert (status, headers["OCI-Subject"]) == (201, one["digest"])
    found = json.loads(ask("GET", f"/v2/app/referrers/{digest_of(raw)}")[2])["manifests"]
    assert sorted(found, key=len) == [
        {"mediaType": OCI_INDEX, "digest": str(digest_of(plain.encode())), "size": len(plain)},
        {
            "mediaType": OCI_INDEX,
            "digest": str(digest_of(typed.encode())),
            "size": len(typed),
            "artifactType": kind,
            "annotations": note,
        },
    ]


def test_referrers_beyond_one_manifest_come_in_pages(ask):
    subject = Descriptor(OCI_MANIFEST, digest_of(b"subject"), 7).to_json()
    for number in range(5):
        raw = manifest_of(ask, subject=subject, annotations={str(number): "x" * 1_500_000})
        assert put_manifest(ask, raw, digest_of(raw))[0] == 201
    path = f"/v2/app/referrers/{subject['digest']}?artifactType={quote(OCI_CONFIG)}"
    sizes, seen = [], set()
    while path:
        status, headers, body = ask("GET", path)
        assert (status, headers["OCI-Filters-Applied"]) == (200, "artifactType")
        assert len(body) <= 4 * 1024 * 1024
        sizes.append(len(json.loads(body)["manifests"]))
        seen |= {one["digest"] for one in json.loads(body)["manifests"]}
        path = (headers["Link"] or "").removeprefix("<").partition(">")[0]
    assert (sizes, len(seen)) == ([2, 2, 1], 5)


def test_referrers_leave_out_what_a_test_has_spoilt(ask, registry):
    subject = Descriptor(OCI_MANIFEST, digest_of(b"subject"), 7).to_json()
    raw = manifest_of(ask, subject=subject)
    put_manifest(ask, raw, digest_of(raw))
    registry.corrupt_blob(digest_of(raw))
    status, _, body = ask("GET", f"/v2/app/referrers/{subject['digest']}")
    assert (status, json.loads(body)["manifests"]) == (200, [])


def test_referrers_of_what_has_none_is_an_empty_index(ask):
    status, _, body = ask("GET", f"/v2/app/referrers/{digest_of(b'none')}")
    assert (status, json.loads(body)["manifests"]) == (200, [])
    assert ask("GET", "/v2/app/referrers/x")[0] == 400


def test_artifact_with_the_empty_config_is_taken(ask):
    put_blob(ask, b"{}")
    empty = Descriptor(OCI_EMPTY, digest_of(b"{}"), 2).to_json()
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/x.thing",
            "config": empty,
            "layers": [empty],
        }
    ).encode()
    assert put_manifest(ask, raw)[0] == 201


def test_body_of_a_refused_request_does_not_spoil_the_next(ask):
    assert ask("POST", "/v2/UPPER/blobs/uploads/", b"GET / HTTP/1.1\r\n\r\n" * 10)[0] == 404
    assert ask("GET", "/v2/")[0] == 200


# What no client should send.


@pytest.mark.parametrize(
    "head",
    [
        "GET http://[ HTTP/1.1\r\n",
        "rubbish\r\n",
        "GET /v2/?" + "a&" * 100 + " HTTP/1.1\r\n",
        "POST /v2/app/blobs/uploads/ HTTP/1.1\r\nContent-Length: x\r\n",
        "POST /v2/app/blobs/uploads/ HTTP/1.1\r\nContent-Length: -1\r\n",
        "POST /v2/app/blobs/uploads/ HTTP/1.1\r\nContent-Length: \xb2\r\n",
        f"POST /v2/app/blobs/uploads/ HTTP/1.1\r\nContent-Length: {'9' * 5000}\r\n",
        "POST /v2/app/blobs/uploads/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        "POST /v2/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "POST /v2/app/blobs/uploads/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n",
    ],
    ids=range(10),
)
def test_request_that_is_not_clear_is_400_and_ends_the_connection(registry, head):
    host, _, port = registry.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}Host: x\r\n\r\n".encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_request_with_bad_chunks_ends_the_connection(registry):
    host, _, port = registry.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = "GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(f"{head}zz\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.count(b"HTTP/1.1") == 1
    assert registry.asked() == [("GET", "/v2/")]


def test_request_that_begins_tls_is_answered_in_plain_http(registry):
    host, _, port = registry.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00" + b"x" * 512)  # no end of line anywhere
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert registry.asked() == []
