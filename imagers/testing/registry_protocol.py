# SPDX-License-Identifier: Apache-2.0
"""The protocol of the embedded registry: what is asked, and the answer of a strict registry.

Digests are checked, missing blobs are refused, error documents have the codes of the
specification.

Spec: OCI distribution-spec v1.1.
"""

from __future__ import annotations

import hmac
import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from imagers.errors import FormatError, Unsupported
from imagers.model.base64 import encode_base64
from imagers.model.digest import Digest, digest_of, parse_digest
from imagers.model.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest_or_index
from imagers.model.media import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX
from imagers.model.strict_json import dump_json
from imagers.testing.registry_http import Connection, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.strict_json import JSON, JSONObject
    from imagers.testing.registry_storage import Repository, Upload

__all__ = ["Handler"]

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = rf"(?P<name>{_PART}(?:/{_PART})*)"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})\Z")
_CONTENT_RANGE = re.compile(r"([0-9]{1,15})-([0-9]{1,15})\Z")
_COUNT = re.compile(r"[0-9]{1,9}\Z")
_PAGE_BYTES = MAX_MANIFEST_BYTES - 4096  # of a list of referrers
_VERBS = ("get", "put", "post", "patch", "delete")
_ROUTES = [
    (re.compile(rf"/v2/{_NAME}/blobs/uploads/?\Z"), "uploads"),
    (re.compile(rf"/v2/{_NAME}/blobs/uploads/(?P<session>[0-9a-f]+)\Z"), "session"),
    (re.compile(rf"/v2/{_NAME}/blobs/(?P<digest>[^/]+)\Z"), "blob"),
    (re.compile(rf"/v2/{_NAME}/manifests/(?P<reference>[^/]+)\Z"), "manifest"),
    (re.compile(rf"/v2/{_NAME}/tags/list\Z"), "tags"),
    (re.compile(rf"/v2/{_NAME}/referrers/(?P<digest>[^/]+)\Z"), "referrers"),
    (re.compile(r"/v2/_catalog\Z"), "catalog"),
    (re.compile(r"/v2/?\Z"), "base"),
    (re.compile(r"/token\Z"), "token"),
]


class Handler(Connection):
    """The routes of a registry."""

    def route(self, path: str) -> None:
        """See `Connection`."""
        for pattern, kind in _ROUTES:
            match = pattern.match(path)
            if match is None:
                continue
            verb = "get" if self.command == "HEAD" else self.command.lower()
            answer = getattr(self, f"_{verb}_{kind}", None)
            if answer is None:
                allow = [verb for verb in _VERBS if hasattr(self, f"_{verb}_{kind}")]
                headers = {"Allow": ", ".join(verb.upper() for verb in allow)}
                raise Refused(405, "UNSUPPORTED", "this method is not supported here", headers)
            if kind != "token":
                self._check_login(match.groupdict().get("name", ""))
            answer(**match.groupdict())
            return
        raise Refused(404, "NAME_INVALID", "there is nothing of this name")

    # Who is there.

    def _check_login(self, name: str) -> None:
        state = self.state
        if state.token_auth:
            actions = "pull" if self.command in ("GET", "HEAD") else "pull,push"
            if self._may(name, actions):
                return
            challenge = f'Bearer realm="{state.url}/token",service="imagers"'
            if name:
                challenge += f',scope="repository:{name}:{actions}"'
            raise Refused(401, "UNAUTHORIZED", "log in", {"WWW-Authenticate": challenge})
        self._check_password()

    def _may(self, name: str, actions: str) -> bool:
        """Whether the token of the request, if tokens are asked for, allows it."""
        if not self.state.token_auth:
            return True
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        granted = self.state.tokens.get(token) if kind == "Bearer" else None
        return granted is not None and (not name or _covers(granted, name, actions))

    def _check_password(self) -> None:
        state = self.state
        if state.username is None:
            return
        pair = f"{state.username}:{state.password}".encode()
        wanted = "Basic " + encode_base64(pair)
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), wanted.encode()):
            challenge = {"WWW-Authenticate": 'Basic realm="imagers"'}
            raise Refused(401, "UNAUTHORIZED", "log in", challenge)

    def _get_token(self) -> None:
        if not self.state.token_auth:
            raise Refused(404, "UNSUPPORTED", "there are no tokens here")
        self._check_password()
        token = secrets.token_urlsafe(24)
        self.state.tokens[token] = " ".join(self.query.get("scope", []))
        self.send_json(200, {"token": token, "expires_in": 300})

    # Listings.

    def _get_base(self) -> None:
        self.send_json(200, {})

    def _get_catalog(self) -> None:
        with self.state.storage.lock:
            names = sorted(self.state.storage.repositories)
        self._send_page("repositories", names, {}, "/v2/_catalog")

    def _get_tags(self, name: str) -> None:
        repository = self._find(name)
        with self.state.storage.lock:
            tags = sorted(repository.tags)
        self._send_page("tags", tags, {"name": name}, f"/v2/{name}/tags/list")

    def _send_page(self, member: str, items: list[str], rest: JSONObject, path: str) -> None:
        """A listing, cut by the query parameters `last` and `n`."""
        last = self.query.get("last", [""])[0]
        items = [item for item in items if item > last]
        headers = {}
        count = self.query.get("n", [""])[0]
        if count:
            if not _COUNT.match(count):
                raise Refused(400, "UNSUPPORTED", "n is a number of at most nine digits")
            page = items[: int(count)]
            if page and len(page) < len(items):
                query = urlencode({"n": count, "last": page[-1]})
                headers["Link"] = f'<{path}?{query}>; rel="next"'
            items = page
        self.send_json(200, {**rest, member: list(items)}, headers)

    def _get_referrers(self, name: str, digest: str) -> None:
        if not self.state.referrers_api:
            raise Refused(404, "NAME_INVALID", "there is nothing of this name")
        subject = parse_digest(digest)
        repository = self.state.storage.find(name)
        wanted = self.query.get("artifactType", [""])[0]
        last = self.query.get("last", [""])[0]
        headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        found: list[JSON] = []
        size = 0
        with self.state.storage.lock:
            manifests = sorted((str(one), one) for one in repository.manifests if str(one) > last)
        for text, one in manifests:
            raw = self.state.storage.read(one)
            media_type = repository.manifests.get(one)
            entry = None if raw is None or media_type is None else _referrer(raw, media_type, one)
            if entry is None or entry.pop("subject") != str(subject):
                continue
            if wanted not in ("", entry.get("artifactType")):
                continue
            size += len(dump_json(entry)) + 1
            if found and size > _PAGE_BYTES:
                query = urlencode({"artifactType": wanted, "last": last})
                headers["Link"] = f'</v2/{name}/referrers/{subject}?{query}>; rel="next"'
                break
            found.append(entry)
            last = text
        index: JSONObject = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
        self.send_json(200, index, headers, media_type=OCI_INDEX)

    # Manifests.

    def _get_manifest(self, name: str, reference: str) -> None:
        repository = self._find(name)
        digest = self._resolve(repository, reference)
        raw = self.state.storage.read(digest)
        if raw is None:
            raise Refused(404, "MANIFEST_UNKNOWN", f"manifest {reference} is not known")
        headers = {
            "Content-Type": repository.manifests[digest],
            "Docker-Content-Digest": str(digest),
            "ETag": f'"{digest}"',
        }
        if not self._has_it(headers):
            self.send(200, headers, raw)

    def _has_it(self, headers: Mapping[str, str]) -> bool:
        """Whether the client has this content already, and was told so."""
        tags = {tag.strip() for tag in self.headers.get("If-None-Match", "").split(",")}
        if not tags & {headers["ETag"], "*"}:
            return False
        self.send(304, {"ETag": headers["ETag"]})
        return True

    def _resolve(self, repository: Repository, reference: str) -> Digest:
        with self.state.storage.lock:
            if ":" in reference:
                digest: Digest | None = parse_digest(reference)
            else:
                digest = repository.tags.get(reference)
            if digest is None or digest not in repository.manifests:
                raise Refused(404, "MANIFEST_UNKNOWN", f"manifest {reference} is not known")
            return digest

    def _put_manifest(self, name: str, reference: str) -> None:
        raw = self.body.read(MAX_MANIFEST_BYTES)
        media_type = self.headers.get("Content-Type", "").partition(";")[0].strip()
        if media_type not in MANIFEST_TYPES | INDEX_TYPES:
            raise Refused(400, "MANIFEST_INVALID", "this media type is not one of a manifest")
        document = parse_manifest_or_index(raw, media_type=media_type)
        if ":" in reference:
            digest = parse_digest(reference)
            if digest_of(raw, digest.algorithm) != digest:
                raise Refused(400, "DIGEST_INVALID", "these bytes have another digest")
        else:
            digest = digest_of(raw)
            if not _TAG.match(reference):
                raise Refused(400, "MANIFEST_INVALID", "this is no tag")
        storage = self.state.storage
        repository = storage.repository(name)
        with storage.lock:
            if isinstance(document, Manifest):
                layers = [one for one in document.layers if not one.is_reference]
                missing = {one.digest for one in (document.config, *layers)}
                missing -= repository.blobs
            else:
                missing = {one.digest for one in document.manifests} - set(repository.manifests)
            if missing:
                text = f"{min(missing)} is not known"
                raise Refused(400, "MANIFEST_BLOB_UNKNOWN", text)
            storage.put(digest, raw)
            repository.manifests[digest] = media_type
            if ":" not in reference:
                repository.tags[reference] = digest
            storage.save()
        headers = {"Location": f"/v2/{name}/manifests/{digest}"}
        headers["Docker-Content-Digest"] = str(digest)
        if document.subject is not None and self.state.referrers_api:
            headers["OCI-Subject"] = str(document.subject.digest)
        self.send(201, headers)

    def _delete_manifest(self, name: str, reference: str) -> None:
        storage = self.state.storage
        repository = self._find(name)
        with storage.lock:
            digest = self._resolve(repository, reference)
            if ":" in reference:
                del repository.manifests[digest]
                for tag in [tag for tag, one in repository.tags.items() if one == digest]:
                    del repository.tags[tag]
            else:
                del repository.tags[reference]
            storage.save()
        self.send(202)

    # Blobs.

    def _get_blob(self, name: str, digest: str) -> None:
        parsed = parse_digest(digest)
        is_known = parsed in self._find(name).blobs
        found = self.state.storage.open(parsed) if is_known else None
        if found is None:
            raise Refused(404, "BLOB_UNKNOWN", f"blob {digest} is not known")
        file, size = found
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
        }
        with file:
            asked = self.headers.get("Range", "")
            if self._has_it(headers):
                return
            # Another unit, or another method than GET: as if nothing were asked.
            if self.command != "GET" or not asked.startswith("bytes="):
                self.send_file(200, headers, file, 0, size)
                return
            start, stop = _parse_range(asked, size)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            self.send_file(206, headers, file, start, stop - start)

    def _delete_blob(self, name: str, digest: str) -> None:
        storage = self.state.storage
        parsed = parse_digest(digest)
        repository = self._find(name)
        with storage.lock:
            if parsed not in repository.blobs:
                raise Refused(404, "BLOB_UNKNOWN", f"blob {digest} is not known")
            repository.blobs.discard(parsed)
            storage.save()
        self.send(202)

    def _post_uploads(self, name: str) -> None:
        storage = self.state.storage
        mount = self.query.get("mount", [""])[0]
        if mount:
            digest = parse_digest(mount)
            other = self.query.get("from", [""])[0]
            with storage.lock:
                # Who may not read it there does not get it here.
                if digest in storage.find(other).blobs and self._may(other, "pull"):
                    storage.repository(name).blobs.add(digest)
                    storage.save()
                    self._send_stored(name, digest)
                    return
        upload = storage.start_upload(name)
        if "digest" in self.query:
            self._finish(name, upload)
            return
        session = secrets.token_hex(16)
        self.state.uploads[session] = upload
        self._send_session(202, name, session, upload)

    def _get_session(self, name: str, session: str) -> None:
        self._send_session(204, name, session, self._upload(name, session))

    def _patch_session(self, name: str, session: str) -> None:
        upload = self._upload(name, session)
        self._check_content_range(name, session, upload)
        self._receive(upload)
        self._send_session(202, name, session, upload)

    def _put_session(self, name: str, session: str) -> None:
        upload = self._upload(name, session)
        self._check_content_range(name, session, upload)
        self.state.uploads.pop(session, None)
        self._finish(name, upload)

    def _delete_session(self, name: str, session: str) -> None:
        self._upload(name, session).close()
        self.state.uploads.pop(session, None)
        self.send(204)

    def _upload(self, name: str, session: str) -> Upload:
        upload = self.state.uploads.get(session)
        if upload is None or upload.repository != name:
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        return upload

    def _check_content_range(self, name: str, session: str, upload: Upload) -> None:
        text = self.headers.get("Content-Range")
        if text is None:
            return
        match = _CONTENT_RANGE.match(text)
        if match is None or int(match[1]) != upload.size:
            headers = self._session_headers(name, session, upload)
            raise Refused(416, "BLOB_UPLOAD_INVALID", "chunks come in order", headers)
        count = int(match[2]) - int(match[1]) + 1
        if self.body.length is not None and count != self.body.length:
            text = f"the range has {count} bytes, the body {self.body.length}"
            raise Refused(400, "SIZE_INVALID", text)

    def _receive(self, upload: Upload) -> None:
        for piece in self.body.pieces():
            upload.write(piece)

    def _finish(self, name: str, upload: Upload) -> None:
        """Take the rest of an upload and keep it; what is refused is dropped."""
        storage = self.state.storage
        with upload:
            digest = parse_digest(self.query.get("digest", [""])[0])
            self._receive(upload)
            actual = upload.digest(digest.algorithm)
            if actual != digest:
                raise Refused(400, "DIGEST_INVALID", f"these bytes have the digest {actual}")
            storage.keep(upload, digest)
        with storage.lock:
            storage.repository(name).blobs.add(digest)
            storage.save()
        self._send_stored(name, digest)

    def _session_headers(self, name: str, session: str, upload: Upload) -> dict[str, str]:
        return {
            "Location": f"/v2/{name}/blobs/uploads/{session}",
            "Range": f"0-{max(upload.size - 1, 0)}",
            "Docker-Upload-UUID": session,
        }

    def _send_session(self, status: int, name: str, session: str, upload: Upload) -> None:
        self.send(status, self._session_headers(name, session, upload))

    def _send_stored(self, name: str, digest: Digest) -> None:
        location = f"/v2/{name}/blobs/{digest}"
        self.send(201, {"Location": location, "Docker-Content-Digest": str(digest)})

    def _find(self, name: str) -> Repository:
        with self.state.storage.lock:
            repository = self.state.storage.repositories.get(name)
        if repository is None:
            raise Refused(404, "NAME_UNKNOWN", f"repository {name} is not known")
        return repository


def _covers(granted: str, name: str, actions: str) -> bool:
    """Whether the scopes of a token allow `actions` on the repository `name`."""
    allowed = set()
    for scope in granted.split():
        kind, _, rest = scope.partition(":")
        repository, _, verbs = rest.rpartition(":")
        if kind == "repository" and repository == name:
            allowed |= set(verbs.split(","))
    return "*" in allowed or set(actions.split(",")) <= allowed


def _parse_range(text: str, size: int) -> tuple[int, int]:
    """First byte and the one after the last of a `Range` header with one range."""
    match = _RANGE.match(text)
    start = stop = -1
    if match is not None and match[1]:
        start = int(match[1])
        stop = min(int(match[2]) + 1, size) if match[2] else size
    elif match is not None and match[2]:
        start, stop = max(size - int(match[2]), 0), size
    if not 0 <= start < stop:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Refused(416, "SIZE_INVALID", "the blob has no such range", headers)
    return start, stop


def _referrer(raw: bytes, media_type: str, digest: Digest) -> JSONObject | None:
    """The entry for `raw` in a list of referrers, with its subject; None if it has none."""
    try:
        document = parse_manifest_or_index(raw, media_type=media_type)
    except (FormatError, Unsupported):
        return None  # a test has spoilt it
    if document.subject is None:
        return None
    entry: JSONObject = {"subject": str(document.subject.digest), "mediaType": media_type}
    entry |= {"digest": str(digest), "size": len(raw)}
    kind = document.artifact_type
    if not kind and isinstance(document, Manifest):
        kind = document.config.media_type
    if kind:
        entry["artifactType"] = kind
    if document.annotations:
        entry["annotations"] = dict(document.annotations)
    return entry
