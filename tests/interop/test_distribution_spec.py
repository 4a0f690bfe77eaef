# SPDX-License-Identifier: Apache-2.0
"""The distribution specification as a table: requests, and the answers that it demands.

The rows of a group follow each other in a repository of its own. All are asked of the embedded
registry, which must answer so, and of docker-registry, whose other answers are in the table
with the reason.

Spec: OCI distribution-spec v1.1; `end-N` are the numbers of its table of endpoints.
"""

import base64
import http.client
import json
import re
import subprocess
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlencode, urlsplit

import pytest

from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from imagers.testing.registry import EmbeddedRegistry

CODES = {
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID",
    "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}  # fmt: skip
ANY = "any value"
PULLABLE = "a URL that gives the content"
NOT_THERE = None

# What is pushed and pulled, by name. In the table {name} is the digest of it.

CONTENT = {
    "blob": bytes(range(256)) * 4,
    "config": b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}',
    "empty": b"{}",
    "large": b" " * (4 * 1024 * 1024 + 1),
    "no JSON": b"{",
}
TYPES = {"config": OCI_CONFIG, "blob": OCI_LAYER, "empty": OCI_EMPTY}
NOTE, SET = "application/vnd.example.note", "application/vnd.example.set"


def descriptor(name):
    return Descriptor(TYPES[name], digest_of(CONTENT[name]), len(CONTENT[name])).to_json()


def manifest(name, config, *layers, media_type=OCI_MANIFEST, **more):
    """Put a document into CONTENT; its blanks tell whether a registry writes it anew."""
    parts = {"config": descriptor(config), "layers": [descriptor(one) for one in layers]}
    if media_type == OCI_INDEX:
        parts = {"manifests": [descriptor(one) for one in (config, *layers)]}
    document = {"schemaVersion": 2, "mediaType": media_type, **parts, **more}
    CONTENT[name] = json.dumps(document, indent=3).encode()
    TYPES[name] = media_type


manifest("image", "config", "blob")
manifest("other image", "config", "blob", annotations={"a": "b"})
manifest("no layers", "config")
manifest("index", "image", "other image", media_type=OCI_INDEX)
manifest("note", "empty", "empty", subject=descriptor("image"), artifactType=NOTE)
manifest("untyped", "config", subject=descriptor("image"), annotations={"made": "today"})
manifest(
    "set", "image", media_type=OCI_INDEX, subject=descriptor("image"), artifactType=SET,
    annotations={"a": "b"},
)  # fmt: skip
manifest("untyped set", "image", media_type=OCI_INDEX, subject=descriptor("image"))
manifest("on the index", "empty", subject=descriptor("index"), artifactType=NOTE)
# A referrer, its artifact type and its annotations, as lists have to show them.
SHOWN = {
    "note": {"artifactType": NOTE},
    "untyped": {"artifactType": OCI_CONFIG, "annotations": {"made": "today"}},
    "set": {"artifactType": SET, "annotations": {"a": "b"}},
    "untyped set": {},
    "on the index": {"artifactType": NOTE},
}
NAMES = {name.replace(" ", "_"): str(digest_of(data)) for name, data in CONTENT.items()}
NAMES |= {
    "none": str(digest_of(b"nowhere")),
    "blob512": str(digest_of(CONTENT["blob"], "sha512")),
    "image512": str(digest_of(CONTENT["image"], "sha512")),
}


@dataclass(frozen=True)
class Row:
    """A request and its answer.

    `AT` in a path is the Location of the last answer that had one. `gives` is the name of the
    content, and `tags` and `lists` are the tags and the referrers that the answer has.

    `docker` is how the answer of docker-registry 2.8 is another one, with the reason. It must
    be another one, but where that is `by_chance`, or `mended` since a version.
    """

    end: str
    method: str
    path: str
    status: int | tuple
    body: str = ""
    send: dict = field(default_factory=dict)
    headers: dict = field(default_factory=dict)
    gives: str = ""
    tags: tuple | None = None
    in_order: bool = True
    cut: bool = False
    by_chance: bool = False
    mended: tuple = ()
    why: str = ""
    lists: tuple | None = None
    code: str = ""
    docker: dict = field(default_factory=dict)

    def __str__(self):
        return f"{self.end}: {self.method} {self.path}"


def name_of(content):
    return "{" + content.replace(" ", "_") + "}"


def other(why, **answer):
    return {"why": why, "code": "", **answer}


def put_manifest(name, target, status=201, code="", **more):
    headers = {"Location": PULLABLE, "Docker-Content-Digest": ANY} if status == 201 else {}
    return Row(
        "end-7", "PUT", f"NAME/manifests/{target}", status, name,
        {"Content-Type": TYPES.get(name, OCI_MANIFEST)}, headers | more.pop("headers", {}),
        code=code, **more,
    )  # fmt: skip


def put_referrer(name, subject):
    return put_manifest(
        name,
        name_of(name),
        headers={"OCI-Subject": name_of(subject)},
        docker=other("no referrers API", headers={"Location": PULLABLE, "OCI-Subject": NOT_THERE}),
    )


def chunk(method, start, stop, status, **more):
    answer = {"Location": ANY, "Range": f"0-{stop - 1}"} if status == 202 else {}
    send = {"Content-Range": f"{start}-{stop - 1}", "Content-Type": "application/octet-stream"}
    end, path = ("end-5", "AT") if method == "PATCH" else ("end-6", "AT digest={blob}")
    headers = answer | more.pop("headers", {})
    return Row(end, method, path, status, f"blob {start} {stop}", send, headers, **more)


NO_ORDER = other("it does not look at the ranges of chunks", status=202)


def tags(query, *names, all_tags=(), **more):
    docker = other(
        "it lists all, whatever n and last say, as they come from the directory",
        tags=all_tags or names,
        in_order=False,
        by_chance=True,
    )
    path = f"NAME/tags/list{query}"
    return Row("end-8", "GET", path, 200, tags=names, docker=docker, **more)


def referrers(query, *names, subject="{image}", **more):
    answer = {"Content-Type": OCI_INDEX}
    if query:
        answer["OCI-Filters-Applied"] = "artifactType"
        query = "?artifactType=" + quote(query, safe="")
    return Row(
        "end-12", "GET", f"NAME/referrers/{subject}{query}", 200, headers=answer, lists=names,
        docker=other("no referrers API", status=404, headers={}, lists=None), **more,
    )  # fmt: skip


OCTETS = {"Content-Type": "application/octet-stream"}
ACCEPT = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"}
START = Row("end-4a", "POST", "NAME/blobs/uploads/", 202, headers={"Location": ANY})
OF_BLOB = {"Content-Length": "1024", "Docker-Content-Digest": "{blob}"}
CREATED = {"Location": PULLABLE}
FINISH = Row("end-6", "PUT", "AT digest={blob}", 201, "blob", OCTETS, CREATED)
FINISH_EMPTY = replace(FINISH, body="", send={})
GET_BLOB = Row("end-2", "GET", "NAME/blobs/{blob}", 200, headers=OF_BLOB, gives="blob")
NO_BLOB = Row("end-2", "GET", "NAME/blobs/{blob}", 404, code="BLOB_UNKNOWN")
NO_SESSION = {"status": 404, "code": "BLOB_UPLOAD_UNKNOWN"}
IMAGE = {
    "Content-Type": OCI_MANIFEST,
    "Content-Length": str(len(CONTENT["image"])),
    "Docker-Content-Digest": "{image}",
}
ALL_OF_IMAGE = ("config", "blob", "image")
TAGS = ("B", "a", "b", "c", "c1")
MANY = ("config", "blob", "empty", "image", "other image", "index")


def get_manifest(reference, name="image", method="GET", status=200, **more):
    headers = IMAGE if name == "image" and status == 200 else {}
    gives = name if method == "GET" and status == 200 else ""
    code = "MANIFEST_UNKNOWN" if status == 404 else ""
    path = f"NAME/manifests/{reference}"
    return Row("end-3", method, path, status, "", ACCEPT, headers, gives, code=code, **more)


# Group: what the repository has before, and the rows.
TABLE = {
    # Determining support.
    "support": ((), [Row("end-1", "GET", "", 200)]),
    # Pull.
    "blobs": (("blob",), [
        GET_BLOB,
        replace(GET_BLOB, method="HEAD", gives=""),
        Row("end-2", "GET", "NAME/blobs/{none}", 404, code="BLOB_UNKNOWN"),
        Row("end-2", "HEAD", "NAME/blobs/{none}", 404),
        Row("end-2", "GET", "NAME/blobs/sha256:xyz", 400, code="DIGEST_INVALID"),
        Row("end-2", "GET", "NOWHERE/blobs/{blob}", 404, code="NAME_UNKNOWN",
            docker=other("it looks for the blob, not for the repository", code="BLOB_UNKNOWN")),
    ]),
    "parts of blobs": (("blob",), [
        Row("end-2", "GET", "NAME/blobs/{blob}", 206, send={"Range": "bytes=10-19"},
            headers={"Content-Range": "bytes 10-19/1024", "Content-Length": "10"},
            gives="blob 10 20"),
        Row("end-2", "GET", "NAME/blobs/{blob}", 206, send={"Range": "bytes=1000-"},
            headers={"Content-Range": "bytes 1000-1023/1024"}, gives="blob 1000 1024"),
        Row("end-2", "GET", "NAME/blobs/{blob}", 206, send={"Range": "bytes=-24"},
            headers={"Content-Range": "bytes 1000-1023/1024"}, gives="blob 1000 1024"),
        Row("end-2", "GET", "NAME/blobs/{blob}", 416, send={"Range": "bytes=1024-"},
            headers={"Content-Range": "bytes */1024"},
            docker=other("it announces the length of the blob and sends a text", cut=True,
                         mended=(2, 8, 3))),
    ]),
    "manifests": ((*ALL_OF_IMAGE, "image as v1"), [
        get_manifest("{image}"),
        get_manifest("v1"),
        get_manifest("{image}", method="HEAD"),
        get_manifest("v1", method="HEAD"),
        get_manifest("{none}", status=404),
        get_manifest("v2", status=404),
        replace(get_manifest("v2", method="HEAD", status=404), code=""),
        get_manifest("{blob}", status=404,
                     docker=other("it takes the blob for a broken manifest", status=500)),
        replace(get_manifest("{image}", status=404), path="NOWHERE/manifests/{image}",
                code="NAME_UNKNOWN",
                docker=other("it looks for the manifest, not for the repository",
                             code="MANIFEST_UNKNOWN")),
        Row("end-3", "GET", "NAME/manifests/v1", 200, headers=IMAGE, gives="image",
            docker=other("without Accept it gives no OCI manifests", status=404, headers={},
                         gives="", code="MANIFEST_UNKNOWN")),
        Row("end-3", "GET", "UPPER/Case/manifests/v1", 404, code="NAME_INVALID",
            docker=other("no path of its own: an answer of its router")),
    ]),
    # Push.
    "blob, POST then PUT": ((), [START, FINISH, GET_BLOB]),
    "blob, one POST": ((), [
        Row("end-4b", "POST", "NAME/blobs/uploads/?digest={blob}", 201, "blob", OCTETS, CREATED,
            docker=other("it knows no single POST, as the specification allows", status=202,
                         headers={"Location": ANY})),
        replace(GET_BLOB, docker=other("the PUT follows", status=404, headers={}, gives="")),
    ]),
    "blob, one PATCH without a range": ((), [
        START,
        Row("end-5", "PATCH", "AT", 202, "blob", OCTETS, {"Location": ANY, "Range": "0-1023"}),
        FINISH_EMPTY,
        GET_BLOB,
    ]),
    "blob, in chunks": ((), [
        START,
        chunk("PATCH", 0, 400, 202),
        Row("end-13", "GET", "AT", 204, headers={"Location": ANY, "Range": "0-399"}),
        chunk("PATCH", 400, 1024, 202),
        Row("end-13", "GET", "AT", 204, headers={"Location": ANY, "Range": "0-1023"}),
        FINISH_EMPTY,
        GET_BLOB,
    ]),
    "blob, first chunk not at 0": ((), [
        START,
        chunk("PATCH", 10, 20, 416, docker=NO_ORDER),
    ]),
    "blob, the same chunk again": ((), [
        START,
        chunk("PATCH", 0, 400, 202),
        chunk("PATCH", 0, 400, 416, docker=NO_ORDER),
    ]),
    "blob, last chunk in the PUT, out of order": ((), [
        START,
        chunk("PATCH", 0, 1000, 202),
        chunk("PUT", 999, 1024, 416,
              docker=other("it does not look at the range of a PUT, but at the digest",
                           status=400, code="DIGEST_INVALID")),
    ]),
    "blob, last chunk in the PUT, in order": ((), [
        START,
        chunk("PATCH", 0, 1000, 202),
        chunk("PUT", 1000, 1024, 201, headers=CREATED),
        GET_BLOB,
    ]),
    "blob, with another digest": ((), [
        START,
        Row("end-6", "PUT", "AT digest={none}", 400, "blob", OCTETS, code="DIGEST_INVALID"),
        START,
        Row("end-6", "PUT", "AT digest=sha256:xyz", 400, "blob", OCTETS, code="DIGEST_INVALID"),
        START,
        Row("end-6", "PUT", "AT digest=md9:" + "0" * 64, 400, "blob", OCTETS,
            code="DIGEST_INVALID"),
        START,
        Row("end-6", "PUT", "AT", 400, "blob", OCTETS, code="DIGEST_INVALID"),
        replace(NO_BLOB, code="", status=404),
    ]),
    "blob, sha512": ((), [
        START,
        Row("end-6", "PUT", "AT digest={blob512}", 201, "blob", OCTETS, CREATED),
        Row("end-2", "GET", "NAME/blobs/{blob512}", 200, headers={"Content-Length": "1024"},
            gives="blob"),
    ]),
    "upload, cancelled": ((), [
        START,
        chunk("PATCH", 0, 400, 202),
        Row("end-14", "DELETE", "AT", 204),
        Row("end-13", "GET", "AT", **NO_SESSION),
        Row("end-5", "PATCH", "AT", body="blob", send=OCTETS, **NO_SESSION),
        Row("end-6", "PUT", "AT digest={blob}", body="blob", send=OCTETS, **NO_SESSION),
        Row("end-14", "DELETE", "AT", **NO_SESSION),
    ]),
    "blob, from another repository": ((), [
        replace(START, path="OTHER/blobs/uploads/"),
        FINISH,
        Row("end-11", "POST", "NAME/blobs/uploads/?mount={blob}&from=OTHER", 201,
            headers={**CREATED, "Docker-Content-Digest": "{blob}"}),
        GET_BLOB,
        Row("end-11", "POST", "NAME/blobs/uploads/?mount={none}&from=OTHER", 202,
            headers={"Location": ANY}),
        Row("end-11", "POST", "NAME/blobs/uploads/?mount={blob}&from=NOWHERE", 202,
            headers={"Location": ANY}),
        Row("end-11", "POST", "NAME/blobs/uploads/?mount={blob}", (201, 202),
            headers={"Location": ANY}),
    ]),
    "manifest, by tag and digest": (("config", "blob"), [
        get_manifest("v1", status=404),
        put_manifest("image", "v1", headers={"Docker-Content-Digest": "{image}"}),
        get_manifest("v1"),
        get_manifest("{image}"),
        put_manifest("other image", "{other_image}"),
        get_manifest("{other_image}", "other image"),
        put_manifest("other image", "v1"),
        get_manifest("v1", "other image"),
        get_manifest("{image}"),
        put_manifest("no layers", "nothing"),
        get_manifest("nothing", "no layers"),
        replace(put_manifest("image", "v3"),
                send={"Content-Type": f"{OCI_MANIFEST}; charset=utf-8"}),
        get_manifest("v3"),
        put_manifest("image", "_" + "a." * 63 + "a"),
        get_manifest("_" + "a." * 63 + "a"),
        put_manifest("index", "many"),
        get_manifest("many", "index"),
    ]),
    "manifest, sha512": (("config", "blob"), [
        put_manifest("image", "{image512}", headers={"Docker-Content-Digest": "{image512}"},
                     docker=other("its manifests have sha256 digests only", status=400,
                                  headers={}, code="DIGEST_INVALID")),
        Row("end-3", "GET", "NAME/manifests/{image512}", 200, "", ACCEPT, gives="image",
            docker=other("see above", status=404, gives="", code="MANIFEST_UNKNOWN")),
    ]),
    "manifest, refused": (("config",), [
        put_manifest("image", "v1", 400, "MANIFEST_BLOB_UNKNOWN"),
        put_manifest("no layers", "{none}", 400, "DIGEST_INVALID"),
        put_manifest("no JSON", "v1", 400, "MANIFEST_INVALID"),
        put_manifest("empty", "v1", 400, "MANIFEST_INVALID"),
        put_manifest("large", "v1", 413, "SIZE_INVALID",
                     docker=other("it says so with another status", status=400,
                                  code="MANIFEST_INVALID")),
        put_manifest("no layers", "a" * 129, (400, 404)),
        put_manifest("no layers", ".v1", (400, 404)),
        get_manifest("v1", status=404),
    ]),
    "index of what is not there": (("config", "blob", "image"), [
        put_manifest("index", "v1", 400, "MANIFEST_BLOB_UNKNOWN"),
    ]),
    # Content discovery.
    "tags": (("config", "blob", *(f"image as {tag}" for tag in reversed(TAGS))), [
        tags("", *TAGS),
        tags("?n=2", "B", "a", all_tags=TAGS),
        tags("?n=0", all_tags=TAGS, headers={"Link": NOT_THERE}),
        tags("?n=2&last=a", "b", "c", all_tags=TAGS),
        tags("?last=b", "c", "c1", all_tags=TAGS),
        tags("?last=c1", all_tags=TAGS),
        tags("?n=99", *TAGS, headers={"Link": NOT_THERE}),
        Row("end-8", "GET", "NOWHERE/tags/list", 404, code="NAME_UNKNOWN"),
    ]),
    "referrers": (MANY, [
        referrers(""),
        referrers("", subject="{none}"),
        *(put_referrer(name, "image") for name in ("note", "untyped", "set", "untyped set")),
        put_referrer("on the index", "index"),
        referrers("", "note", "untyped", "set", "untyped set"),
        referrers("", "on the index", subject="{index}"),
        referrers(NOTE, "note"),
        referrers(SET, "set"),
        referrers(OCI_CONFIG, "untyped"),
        referrers("application/vnd.example.none"),
        Row("end-12", "GET", "NAME/referrers/sha256:xyz", 400, code="DIGEST_INVALID",
            docker=other("no referrers API", status=404)),
    ]),
    "referrers before their subject": (("config", "empty"), [
        put_referrer("note", "image"),
        referrers("", "note"),
    ]),
    # Content management.
    "delete a tag": (("config", "blob", "image as v1", "image as v2"), [
        Row("end-9", "DELETE", "NAME/manifests/v1", 202,
            docker=other("it deletes no tags; the specification has 400 and 405 for that",
                         status=400, code="DIGEST_INVALID")),
        get_manifest("v1", status=404, docker=other("see above", status=200)),
        get_manifest("{image}"),
        tags("", "v2", all_tags=("v1", "v2")),
    ]),
    "delete a manifest": (("config", "blob", "empty", "image as v1", "other image as v2"), [
        put_referrer("note", "image"),
        Row("end-9", "DELETE", "NAME/manifests/{note}", 202),
        referrers(""),
        Row("end-9", "DELETE", "NAME/manifests/{image}", 202),
        get_manifest("{image}", status=404),
        get_manifest("v1", status=404),
        tags("", "v2"),
        Row("end-9", "DELETE", "NAME/manifests/{image}", 404, code="MANIFEST_UNKNOWN"),
        Row("end-9", "DELETE", "NOWHERE/manifests/{image}", 404, code="NAME_UNKNOWN",
            docker=other("it looks for the manifest only", code="MANIFEST_UNKNOWN")),
    ]),
    "delete a blob": (("blob",), [
        Row("end-10", "DELETE", "NAME/blobs/{blob}", 202),
        NO_BLOB,
        Row("end-10", "DELETE", "NAME/blobs/{blob}", 404, code="BLOB_UNKNOWN"),
        Row("end-10", "DELETE", "NOWHERE/blobs/{blob}", 404, code="NAME_UNKNOWN",
            docker=other("it looks for the blob only", code="BLOB_UNKNOWN")),
    ]),
}  # fmt: skip


# What asks the rows.


def content(name):
    """The bytes of this name, or those from A to B of "name A B"."""
    if name in CONTENT or not name:
        return CONTENT.get(name, b"")
    name, start, stop = name.rsplit(" ", 2)
    return CONTENT[name][int(start) : int(stop)]


class Asker:
    """Asks one registry about one repository, over one connection.

    Args:
        login: "" for none, "basic" or "token": then each row is refused without it first.
        docker: the version of a docker-registry, as numbers; () is another registry.
    """

    def __init__(self, address, repository, *, login="", docker=()):
        self.connection = http.client.HTTPConnection(address, timeout=60)
        self.names = {"NAME": repository, "OTHER": f"{repository}-2", "NOWHERE": "no/where"}
        self.docker = docker
        self.location = ""
        self.authorization = {}
        basic = {"Authorization": "Basic " + base64.b64encode(b"me:pw").decode()}
        if login == "token":
            scopes = [("scope", f"repository:{name}:*") for name in self.names.values()]
            scopes.append(("scope", "repository:UPPER/Case:*"))
            answer = self.send("GET", "/token?" + urlencode(scopes), headers=basic)
            self.authorization = {"Authorization": f"Bearer {json.loads(answer.data)['token']}"}
        elif login:
            self.authorization = basic

    def send(self, method, url, body=b"", headers=None):
        self.connection.request(method, url, body or None, headers or {})
        answer = self.connection.getresponse()
        try:
            answer.data, answer.is_cut = answer.read(), False
        except http.client.IncompleteRead as error:
            answer.data, answer.is_cut = error.partial, True
            self.connection.close()
        return answer

    def fill(self, text):
        for name, value in self.names.items():
            text = re.sub(rf"\b{name}\b", value, text)
        return re.sub(r"{(\w+)}", lambda match: NAMES[match[1]], text)

    def url(self, path):
        where, _, query = path.partition(" ")
        if where != "AT":
            return "/v2/" + self.fill(path)
        where = self.location + ("&" if query and "?" in self.location else "?" if query else "")
        return where + self.fill(query)

    def push(self, name):
        """Put content into the repository, "NAME as TAG" by a tag."""
        name, _, tag = name.partition(" as ")
        if TYPES.get(name) in (OCI_MANIFEST, OCI_INDEX):
            row = put_manifest(name, tag or name_of(name))
        else:
            self.ask(START)
            row = replace(FINISH, path=f"AT digest={name_of(name)}", body=name)
        self.ask(row)

    def ask(self, row):
        url = self.url(row.path)
        if self.authorization and "UPPER" not in url:
            self.check_is_refused(row.method, url)
        answer = self.send(row.method, url, content(row.body), {**row.send, **self.authorization})
        otherwise = replace(row, **row.docker)
        mended = otherwise.mended and otherwise.mended <= self.docker
        if self.docker and row.docker and not mended:
            if not otherwise.by_chance:
                with pytest.raises(AssertionError):
                    self.check(row, answer)
            row = otherwise
        self.check(row, answer)
        self.check_location(row, answer)

    def check(self, row, answer):
        told = f"{row}: {answer.status} {answer.headers} {answer.data[:300]}"
        allowed = row.status if isinstance(row.status, tuple) else (row.status,)
        assert answer.status in allowed, told
        assert answer.is_cut == row.cut, told
        self.check_headers(row, answer, told)
        self.check_body(row, answer, told)

    def check_is_refused(self, method, url):
        answer = self.send(method, url)
        told = f"{method} {url}: {answer.status}"
        assert answer.status == 401, told
        assert answer.headers["WWW-Authenticate"], told
        if method != "HEAD":
            assert json.loads(answer.data)["errors"][0]["code"] == "UNAUTHORIZED", told

    def check_headers(self, row, answer, told):
        for name, value in row.headers.items():
            found = answer.headers[name]
            if value is NOT_THERE:
                assert found is None, told
            elif value in (ANY, PULLABLE):
                assert found, told
            else:
                assert found == self.fill(value), told

    def check_location(self, row, answer):
        location = answer.headers["Location"]
        if location and answer.status < 300:
            parts = urlsplit(location)
            self.location = parts.path + (f"?{parts.query}" if parts.query else "")
        if row.headers.get("Location") == PULLABLE:
            pulled = self.send("GET", self.location, headers={**ACCEPT, **self.authorization})
            assert pulled.status == 200, f"{row}: {location}"
            assert row.body not in CONTENT or pulled.data == CONTENT[row.body], f"{row}: {location}"

    def check_body(self, row, answer, told):
        if row.gives:
            assert answer.data == content(row.gives), told
        if row.method == "HEAD" or answer.status == 204:
            assert answer.data == b"", told
        if row.tags is not None:
            assert answer.headers["Content-Type"].partition(";")[0] == "application/json", told
            listing = json.loads(answer.data)
            found = listing["tags"] if row.in_order else sorted(listing["tags"])
            assert (listing["name"], found) == (self.fill("NAME"), list(row.tags)), told
        if row.lists is not None:
            index = json.loads(answer.data)
            assert (index["schemaVersion"], index["mediaType"]) == (2, OCI_INDEX), told
            expected = [{**descriptor(name), **SHOWN[name]} for name in row.lists]
            by_digest = {one["digest"]: one for one in index["manifests"]}
            assert by_digest == {one["digest"]: one for one in expected}, told
            assert len(index["manifests"]) == len(expected), told
        if answer.status >= 400 and row.method != "HEAD":
            self.check_error(row, answer, told)

    def check_error(self, row, answer, told):
        """An error may have any body; as JSON it has the form and the codes of the table."""
        if not answer.headers.get("Content-Type", "").startswith("application/json"):
            assert not row.code, told
            return
        errors = json.loads(answer.data)["errors"]
        codes = [one["code"] for one in errors]
        assert errors, told
        if not self.docker:
            assert set(codes) <= CODES, told
        assert all(re.fullmatch("[A-Z_]+", code) for code in codes), told
        assert row.code in ("", *codes), told


@pytest.fixture(scope="module")
def known_docker_registry(docker_registry):
    """The address and version of a docker-registry, which must be one that the table knows."""
    words = ["docker-registry", "--version"]
    version = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
    numbers = re.search(r" v?(2\.8\.\d+)", version)
    if not numbers:
        pytest.skip(f"the table knows docker-registry 2.8, not {version.strip()}")
    return docker_registry.address, tuple(int(one) for one in numbers[1].split("."))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The embedded registry in its kinds, by the login that they ask for."""
    directory = tmp_path_factory.mktemp("embedded")
    with (
        EmbeddedRegistry() as plain,
        EmbeddedRegistry(directory, "me", "pw") as basic,
        EmbeddedRegistry(username="me", password="pw", token_auth=True) as token,
    ):
        yield {"": plain.address, "basic": basic.address, "token": token.address}


def run(asker, group):
    given, rows = TABLE[group]
    try:
        for name in given:
            asker.push(name)
        for row in rows:
            asker.ask(row)
    finally:
        asker.connection.close()


def repository(group):
    return "spec/" + re.sub("[^a-z0-9]+", "-", group).strip("-")


@pytest.mark.parametrize("login", ["", "basic", "token"])
@pytest.mark.parametrize("group", TABLE)
def test_embedded_registry_answers_as_the_specification_demands(embedded, group, login):
    run(Asker(embedded[login], repository(group), login=login), group)


@pytest.mark.parametrize("group", TABLE)
def test_docker_registry_answers_so_or_as_the_table_says(known_docker_registry, group):
    address, version = known_docker_registry
    run(Asker(address, repository(group), docker=version), group)


def test_table_has_every_endpoint():
    asked = {row.end.rstrip("abc") for _, rows in TABLE.values() for row in rows}
    assert asked == {f"end-{number}" for number in range(1, 15)}
