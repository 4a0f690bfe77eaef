"""The HTTP side of the embedded registry: one request in, one answer of the protocol out.

Answers are those of a strict registry: digests are checked, missing blobs are refused, error
documents have the codes of the specification.

Spec: OCI distribution-spec v1.1.
"""

from __future__ import annotations

import base64
import hmac
import io
import json
import re
import secrets
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from imagers import __version__
from imagers.errors import FormatError, Unsupported
from imagers.model.digest import Digest, digest_of, parse_digest
from imagers.model.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest_or_index
from imagers.model.media import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping
    from email.message import Message

    from imagers.model.strict_json import JSON, JSONObject
    from imagers.testing.registry_storage import Repository, Storage, Upload

__all__ = ["Fault", "Handler", "LoggedRequest", "RegistryState"]

_NAME = r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)\Z")
_CONTENT_RANGE = re.compile(r"(?:bytes )?([0-9]+)-([0-9]+)(?:/.*)?\Z")
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
_PIECE = 1024 * 1024
_MOST_DRAINED = 64 * 1024 * 1024  # of a refused body, so that the client reads the refusal
_IDLE_S = 60.0


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as the registry saw it, and the status that it gave."""

    method: str
    path: str
    status: int


@dataclass
class Fault:
    """A wrong answer, given to the next `times` requests that it fits.

    Attributes:
        method: that it fits; "" for all.
        path: a part of the path that it fits.
        status: answered instead of the right thing; None: the right thing, see below.
        close_after: bytes of the right body after which the connection is reset.
        hang: no answer until the registry stops.
    """

    method: str
    path: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    close_after: int | None = None
    hang: bool = False


class RegistryState(Protocol):
    """What the handler needs of the registry."""

    storage: Storage
    uploads: dict[str, Upload]
    requests: list[LoggedRequest]
    faults: list[Fault]
    tokens: dict[str, str]
    stopping: threading.Event
    username: str | None
    password: str | None
    token_auth: bool

    @property
    def url(self) -> str:
        """Scheme and address."""


class _Refused(Exception):
    """An error answer of the protocol."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = f"imagers-registry/{__version__}"
    disable_nagle_algorithm = True
    timeout = _IDLE_S

    def __init__(self, connection: socket.socket, address: object, state: RegistryState) -> None:
        self._state = state
        self._query: dict[str, list[str]] = {}
        self._fault: Fault | None = None
        super().__init__(connection, address, state)  # type: ignore[arg-type]  # only kept by it

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as the base class
        """Nothing is printed."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Into the registry's own list."""
        del size
        # What is no HTTP, as the TLS that clients try first, has neither method nor path.
        if getattr(self, "command", None):
            self._state.requests.append(LoggedRequest(self.command, self.path, int(code)))

    def do_GET(self) -> None:  # as the base class
        """Any request."""
        self._body = _Body(self.rfile, self.headers)
        self._fault = self._take_fault()
        parts = urlsplit(self.path)
        self._query = parse_qs(parts.query, keep_blank_values=True)
        try:
            if self._fault is not None and self._fault.hang:
                self._state.stopping.wait()
                self.close_connection = True
            elif self._fault is not None and self._fault.status is not None:
                self._send(self._fault.status, self._fault.headers, self._fault.body)
            else:
                self._route(unquote(parts.path))
        except _Refused as refused:
            self._refuse(refused)
        except (FormatError, Unsupported) as error:
            is_digest = isinstance(error, FormatError) and error.what == "digest"
            code = "DIGEST_INVALID" if is_digest else "MANIFEST_INVALID"
            self._refuse(_Refused(400, code, str(error)))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        with suppress(OSError, _Refused):
            # So that a client that still sends reads the answer, and the next request fits.
            if not self._body.drain(_MOST_DRAINED):
                self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  # same

    def _take_fault(self) -> Fault | None:
        with self._state.storage.lock:
            for fault in self._state.faults:
                if (
                    fault.times > 0
                    and fault.method in ("", self.command)
                    and (fault.path in self.path)
                ):
                    fault.times -= 1
                    return fault
        return None

    def _route(self, path: str) -> None:
        for pattern, kind in _ROUTES:
            match = pattern.match(path)
            if match is None:
                continue
            verb = "get" if self.command == "HEAD" else self.command.lower()
            answer = getattr(self, f"_{verb}_{kind}", None)
            if answer is None:
                raise _Refused(405, "UNSUPPORTED", "this method is not supported here")
            if kind != "token":
                self._check_login(match.groupdict().get("name", ""))
            answer(**match.groupdict())
            return
        raise _Refused(404, "NAME_INVALID", "there is nothing of this name")

    # Who is there.

    def _check_login(self, name: str) -> None:
        state = self._state
        if state.token_auth:
            actions = "pull" if self.command in ("GET", "HEAD") else "pull,push"
            kind, _, token = self.headers.get("Authorization", "").partition(" ")
            granted = state.tokens.get(token, "") if kind == "Bearer" else ""
            if granted and (not name or _covers(granted, name, actions)):
                return
            challenge = f'Bearer realm="{state.url}/token",service="imagers"'
            if name:
                challenge += f',scope="repository:{name}:{actions}"'
            raise _Refused(401, "UNAUTHORIZED", "log in", {"WWW-Authenticate": challenge})
        self._check_password()

    def _check_password(self) -> None:
        state = self._state
        if state.username is None:
            return
        pair = f"{state.username}:{state.password}".encode()
        wanted = "Basic " + base64.b64encode(pair).decode()
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), wanted.encode()):
            challenge = {"WWW-Authenticate": 'Basic realm="imagers"'}
            raise _Refused(401, "UNAUTHORIZED", "log in", challenge)

    def _get_token(self) -> None:
        if not self._state.token_auth:
            raise _Refused(404, "UNSUPPORTED", "there are no tokens here")
        self._check_password()
        token = secrets.token_urlsafe(24)
        self._state.tokens[token] = " ".join(self._query.get("scope", []))
        self._send_json(200, {"token": token, "expires_in": 300})

    # Listings.

    def _get_base(self) -> None:
        self._send_json(200, {})

    def _get_catalog(self) -> None:
        with self._state.storage.lock:
            names = sorted(self._state.storage.repositories)
        self._send_page("repositories", names, {}, "/v2/_catalog")

    def _get_tags(self, name: str) -> None:
        repository = self._find(name)
        with self._state.storage.lock:
            tags = sorted(repository.tags)
        self._send_page("tags", tags, {"name": name}, f"/v2/{name}/tags/list")

    def _send_page(self, member: str, items: list[str], rest: JSONObject, path: str) -> None:
        """A listing, cut by the query parameters `last` and `n`."""
        last = self._query.get("last", [""])[0]
        items = [item for item in items if item > last]
        headers = {}
        count = self._query.get("n", [""])[0]
        if count:
            if not count.isdigit():
                raise _Refused(400, "PAGINATION_NUMBER_INVALID", "n is a number")
            page = items[: int(count)]
            if page and len(page) < len(items):
                query = urlencode({"n": count, "last": page[-1]})
                headers["Link"] = f'<{path}?{query}>; rel="next"'
            items = page
        self._send_json(200, {**rest, member: list(items)}, headers)

    def _get_referrers(self, name: str, digest: str) -> None:
        subject = parse_digest(digest)
        repository = self._state.storage.find(name)
        wanted = self._query.get("artifactType", [""])[0]
        found: list[JSON] = []
        with self._state.storage.lock:
            manifests = sorted(repository.manifests.items())
        for one, media_type in manifests:
            raw = self._state.storage.read(one)
            entry = None if raw is None else _referrer(raw, media_type, one, subject)
            if entry is not None and wanted in ("", entry.get("artifactType")):
                found.append(entry)
        headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        index: JSONObject = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
        self._send_json(200, index, headers, media_type=OCI_INDEX)

    # Manifests.

    def _get_manifest(self, name: str, reference: str) -> None:
        repository = self._find(name)
        digest = self._resolve(repository, reference)
        raw = self._state.storage.read(digest)
        if raw is None:
            raise _Refused(404, "MANIFEST_UNKNOWN", f"manifest {reference} is not known")
        headers = {
            "Content-Type": repository.manifests[digest],
            "Docker-Content-Digest": str(digest),
            "ETag": f'"{digest}"',
        }
        self._send(200, headers, raw)

    def _resolve(self, repository: Repository, reference: str) -> Digest:
        with self._state.storage.lock:
            if ":" in reference:
                digest: Digest | None = parse_digest(reference)
            else:
                digest = repository.tags.get(reference)
            if digest is None or digest not in repository.manifests:
                raise _Refused(404, "MANIFEST_UNKNOWN", f"manifest {reference} is not known")
            return digest

    def _put_manifest(self, name: str, reference: str) -> None:
        raw = self._body.read(MAX_MANIFEST_BYTES)
        media_type = self.headers.get("Content-Type", "").partition(";")[0].strip()
        if media_type not in MANIFEST_TYPES | INDEX_TYPES:
            raise _Refused(400, "MANIFEST_INVALID", "this media type is not one of a manifest")
        document = parse_manifest_or_index(raw, media_type=media_type)
        if ":" in reference:
            digest = parse_digest(reference)
            if digest_of(raw, digest.algorithm) != digest:
                raise _Refused(400, "DIGEST_INVALID", "these bytes have another digest")
        else:
            digest = digest_of(raw)
            if not _TAG.match(reference):
                raise _Refused(400, "TAG_INVALID", "this is no tag")
        storage = self._state.storage
        repository = storage.repository(name)
        with storage.lock:
            if isinstance(document, Manifest):
                missing = {one.digest for one in (document.config, *document.layers)}
                missing -= repository.blobs
            else:
                missing = {one.digest for one in document.manifests} - set(repository.manifests)
            if missing:
                text = f"{min(missing)} is not known"
                raise _Refused(400, "MANIFEST_BLOB_UNKNOWN", text)
            storage.put(digest, raw)
            repository.manifests[digest] = media_type
            if ":" not in reference:
                repository.tags[reference] = digest
            storage.save()
        headers = {"Location": f"/v2/{name}/manifests/{digest}"}
        headers["Docker-Content-Digest"] = str(digest)
        if isinstance(document, Manifest) and document.subject is not None:
            headers["OCI-Subject"] = str(document.subject.digest)
        self._send(201, headers)

    def _delete_manifest(self, name: str, reference: str) -> None:
        storage = self._state.storage
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
        self._send(202)

    # Blobs.

    def _get_blob(self, name: str, digest: str) -> None:
        parsed = parse_digest(digest)
        is_known = parsed in self._find(name).blobs
        found = self._state.storage.open(parsed) if is_known else None
        if found is None:
            raise _Refused(404, "BLOB_UNKNOWN", f"blob {digest} is not known")
        file, size = found
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
        }
        with file:
            asked = self.headers.get("Range")
            if asked is None:
                self._send_file(200, headers, file, 0, size)
                return
            start, stop = _parse_range(asked, size)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            self._send_file(206, headers, file, start, stop - start)

    def _delete_blob(self, name: str, digest: str) -> None:
        storage = self._state.storage
        parsed = parse_digest(digest)
        repository = self._find(name)
        with storage.lock:
            if parsed not in repository.blobs:
                raise _Refused(404, "BLOB_UNKNOWN", f"blob {digest} is not known")
            repository.blobs.discard(parsed)
            storage.save()
        self._send(202)

    def _post_uploads(self, name: str) -> None:
        storage = self._state.storage
        mount = self._query.get("mount", [""])[0]
        if mount:
            digest = parse_digest(mount)
            with storage.lock:
                if digest in storage.find(self._query.get("from", [""])[0]).blobs:
                    storage.repository(name).blobs.add(digest)
                    storage.save()
                    self._send_stored(name, digest)
                    return
        upload = storage.start_upload(name)
        if "digest" in self._query:
            self._finish(name, upload)
            return
        session = secrets.token_hex(16)
        self._state.uploads[session] = upload
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
        self._state.uploads.pop(session, None)
        self._finish(name, upload)

    def _delete_session(self, name: str, session: str) -> None:
        self._upload(name, session).file.close()
        self._state.uploads.pop(session, None)
        self._send(204)

    def _upload(self, name: str, session: str) -> Upload:
        upload = self._state.uploads.get(session)
        if upload is None or upload.repository != name:
            raise _Refused(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        return upload

    def _check_content_range(self, name: str, session: str, upload: Upload) -> None:
        text = self.headers.get("Content-Range")
        if text is None:
            return
        match = _CONTENT_RANGE.match(text)
        if match is None or int(match[1]) != upload.size:
            headers = self._session_headers(name, session, upload)
            raise _Refused(416, "BLOB_UPLOAD_INVALID", "chunks come in order", headers)

    def _receive(self, upload: Upload) -> None:
        for piece in self._body.pieces():
            upload.write(piece)

    def _finish(self, name: str, upload: Upload) -> None:
        """Take the rest of an upload and keep it; what is refused is dropped."""
        storage = self._state.storage
        with upload.file:
            digest = parse_digest(self._query.get("digest", [""])[0])
            self._receive(upload)
            actual = upload.digest(digest.algorithm)
            if actual != digest:
                raise _Refused(400, "DIGEST_INVALID", f"these bytes have the digest {actual}")
            storage.put(digest, upload.file)
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
        self._send(status, self._session_headers(name, session, upload))

    def _send_stored(self, name: str, digest: Digest) -> None:
        location = f"/v2/{name}/blobs/{digest}"
        self._send(201, {"Location": location, "Docker-Content-Digest": str(digest)})

    def _find(self, name: str) -> Repository:
        with self._state.storage.lock:
            repository = self._state.storage.repositories.get(name)
        if repository is None:
            raise _Refused(404, "NAME_UNKNOWN", f"repository {name} is not known")
        return repository

    # Answers.

    def _refuse(self, refused: _Refused) -> None:
        error = {"code": refused.code, "message": str(refused), "detail": None}
        with suppress(ConnectionError, TimeoutError):
            self._send_json(refused.status, {"errors": [error]}, refused.headers)

    def _send_json(
        self,
        status: int,
        value: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
        *,
        media_type: str = "application/json",
    ) -> None:
        self._send(status, {"Content-Type": media_type, **(headers or {})}, dump_json(value))

    def _send(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        self._send_file(status, headers or {}, io.BytesIO(body), 0, len(body))

    def _send_file(
        self, status: int, headers: Mapping[str, str], file: IO[bytes], start: int, count: int
    ) -> None:
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if status != HTTPStatus.NO_CONTENT and "Transfer-Encoding" not in headers:
            headers = {"Content-Length": str(count), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self._fault.close_after if self._fault is not None else None
        file.seek(start)
        sent = count if limit is None else min(limit, count)
        if isinstance(file, io.BytesIO):
            self.wfile.write(file.read(sent))
        elif sent:
            self.connection.sendfile(file, start, sent)
        if limit is not None:
            # Reset, as a crashed server or a middlebox does, and not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True


class _Body:
    """The body of a request, by length or in chunks."""

    def __init__(self, file: io.BufferedIOBase, headers: Message) -> None:
        self._file = file
        self._is_chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"
        length = headers.get("Content-Length", "0")
        self._left = int(length) if length.isdigit() and not self._is_chunked else 0
        self._ended = not self._is_chunked and self._left == 0

    def pieces(self) -> Iterator[bytes]:
        """All that is left of it."""
        while not self._ended:
            if self._is_chunked and self._left == 0 and not self._next_chunk():
                return
            piece = self._file.read(min(self._left, _PIECE))
            if not piece:
                self._ended = True
                raise ConnectionResetError
            self._left -= len(piece)
            if self._left == 0:
                if self._is_chunked:
                    self._file.readline(3)  # the end of line after the chunk
                else:
                    self._ended = True
            yield piece

    def read(self, max_bytes: int) -> bytes:
        """All of it, bounded."""
        data = bytearray()
        for piece in self.pieces():
            data += piece
            if len(data) > max_bytes:
                raise _Refused(413, "SIZE_INVALID", f"at most {max_bytes} bytes are taken")
        return bytes(data)

    def drain(self, max_bytes: int) -> bool:
        """Read what is left and drop it; whether that was all."""
        total = 0
        for piece in self.pieces():
            total += len(piece)
            if total > max_bytes:
                return False
        return True

    def _next_chunk(self) -> bool:
        line = self._file.readline(1024)
        try:
            self._left = int(line.partition(b";")[0], 16)
        except ValueError:
            self._ended = True
            raise ConnectionResetError from None
        if self._left > 0:
            return True
        while self._file.readline(65536).strip():  # trailers
            pass
        self._ended = True
        return False


def _covers(granted: str, name: str, actions: str) -> bool:
    """Whether the scopes of a token allow `actions` on the repository `name`."""
    allowed = set()
    for scope in granted.split():
        kind, _, rest = scope.partition(":")
        repository, _, verbs = rest.rpartition(":")
        if kind == "repository" and repository == name:
            allowed |= set(verbs.split(","))
    return set(actions.split(",")) <= allowed


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
        raise _Refused(416, "BLOB_UNKNOWN", "the blob has no such range", headers)
    return start, stop


def _referrer(raw: bytes, media_type: str, digest: Digest, subject: Digest) -> JSONObject | None:
    """The entry for the manifest `raw` in a list of referrers, or None if it is none."""
    document = json.loads(raw)  # was parsed strictly when it was pushed
    told = document.get("subject")
    if not isinstance(told, dict) or told.get("digest") != str(subject):
        return None
    entry: JSONObject = {"mediaType": media_type, "digest": str(digest), "size": len(raw)}
    config = document.get("config")
    kind = document.get("artifactType") or (config or {}).get("mediaType")
    if kind:
        entry["artifactType"] = kind
    if document.get("annotations"):
        entry["annotations"] = document["annotations"]
    return entry
