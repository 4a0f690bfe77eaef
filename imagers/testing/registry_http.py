# SPDX-License-Identifier: Apache-2.0
"""HTTP of the embedded registry: bodies in, answers out, and the faults that tests ask for.

What the answers are is in `registry_protocol`.

Spec: RFC 9112; OCI distribution-spec v1.1, "Error Codes".
"""

from __future__ import annotations

import io
import re
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from imagers import __version__
from imagers.errors import FormatError, Unsupported
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping
    from email.message import Message

    from imagers.testing.registry_storage import Storage, Upload

__all__ = ["Connection", "Fault", "LoggedRequest", "Refused", "RegistryState", "RequestBody"]

_PIECE = 1024 * 1024
_MOST_DRAINED = 64 * 1024 * 1024  # of a refused body, so that the client reads the refusal
_IDLE_S = 60.0
_MAX_PARAMETERS = 64
_TLS_HANDSHAKE = b"\x16"
_NO_TLS = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_LENGTH = re.compile(r"[0-9]{1,15}\Z")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,12}\Z")


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as the registry saw it, and the status that it gave.

    Attributes:
        authorization: the header; "" without one.
        range: the same.
    """

    method: str
    path: str
    status: int
    authorization: str = ""
    range: str = ""


@dataclass
class Fault:
    """A wrong answer, given to the next `times` requests that it fits.

    Attributes:
        method: that it fits; "" for all.
        path: a part of the path that it fits.
        status: answered instead of the right thing; None: the right thing, see below.
        close_after: bytes of the right body after which the connection is reset.
        hang: no answer, or no more than `close_after` bytes of it, until the registry stops.
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
    referrers_api: bool

    @property
    def url(self) -> str:
        """Scheme and address."""


class Refused(Exception):
    """An error answer of the protocol."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


class Connection(BaseHTTPRequestHandler):
    """One connection: requests in, `route` by `route`; faults that tests asked for first.

    Attributes:
        state: of the registry.
        query: parameters of the request.
        body: of the request.
    """

    protocol_version = "HTTP/1.1"
    server_version = f"imagers-registry/{__version__}"
    disable_nagle_algorithm = True
    timeout = _IDLE_S
    default_request_version = "HTTP/1.1"  # else what is no HTTP is answered without a status

    def __init__(self, connection: socket.socket, address: object, state: RegistryState) -> None:
        self.state = state
        self.query: dict[str, list[str]] = {}
        self._fault: Fault | None = None
        super().__init__(connection, address, state)  # type: ignore[arg-type]  # only kept by it

    def handle(self) -> None:
        """All requests of the connection; one that begins TLS gets an answer in plain HTTP.

        containerd and others fall back to plain HTTP when they see one.
        """
        with suppress(OSError):
            if self.rfile.peek(1)[:1] == _TLS_HANDSHAKE:  # type: ignore[attr-defined]
                self.rfile.read1()
                self.wfile.write(_NO_TLS)
                return
        super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as the base class
        """Nothing is printed."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Into the registry's own list."""
        del size
        # What is no HTTP, as the TLS that clients try first, has neither method nor path.
        if getattr(self, "command", None):
            names = ("Authorization", "Range")
            told = [self.headers.get(name, "") if self.headers else "" for name in names]
            self.state.requests.append(LoggedRequest(self.command, self.path, int(code), *told))

    def do_GET(self) -> None:  # as the base class
        """Any request."""
        self._fault = None
        try:
            self.body = RequestBody(self.rfile, self.headers)
            parts = urlsplit(self.path)
            self.query = parse_qs(
                parts.query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS
            )
        except ValueError as error:
            # Where the next request would begin is not known either.
            self.close_connection = True
            self._refuse(Refused(400, "UNSUPPORTED", str(error)))
            return
        self._fault = self._take_fault()
        try:
            if self._fault is not None and self._fault.hang and self._fault.close_after is None:
                self.state.stopping.wait()
                self.close_connection = True
            elif self._fault is not None and self._fault.status is not None:
                self.send(self._fault.status, self._fault.headers, self._fault.body)
            else:
                self.route(unquote(parts.path))
        except Refused as refused:
            self._refuse(refused)
        except (FormatError, Unsupported) as error:
            is_digest = isinstance(error, FormatError) and error.what == "digest"
            code = "DIGEST_INVALID" if is_digest else "MANIFEST_INVALID"
            self._refuse(Refused(400, code, str(error)))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        try:
            # So that a client that still sends reads the answer, and the next request fits.
            is_all = self.body.drain(_MOST_DRAINED)
        except OSError:
            is_all = False
        if not is_all:
            self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  # same

    def _take_fault(self) -> Fault | None:
        with self.state.storage.lock:
            for fault in self.state.faults:
                if (
                    fault.times > 0
                    and fault.method in ("", self.command)
                    and (fault.path in self.path)
                ):
                    fault.times -= 1
                    return fault
        return None

    def route(self, path: str) -> None:
        """Answer the request; the protocol does.

        Raises:
            Refused: answer with this error instead.
        """
        raise NotImplementedError

    def _refuse(self, refused: Refused) -> None:
        error = {"code": refused.code, "message": str(refused), "detail": None}
        with suppress(ConnectionError, TimeoutError):
            self.send_json(refused.status, {"errors": [error]}, refused.headers)

    def send_json(
        self,
        status: int,
        value: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
        *,
        media_type: str = "application/json",
    ) -> None:
        """Answer with a document."""
        self.send(status, {"Content-Type": media_type, **(headers or {})}, dump_json(value))

    def send(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        """Answer with bytes."""
        self.send_file(status, headers or {}, io.BytesIO(body), 0, len(body))

    def send_file(
        self, status: int, headers: Mapping[str, str], file: IO[bytes], start: int, count: int
    ) -> None:
        """Answer with `count` bytes of a file from `start`; with none to HEAD."""
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if status not in _BODILESS and "Transfer-Encoding" not in headers:
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
        if self._fault is not None and self._fault.hang:
            self.state.stopping.wait()
        if limit is not None:
            # Reset, as a crashed server or a middlebox does, and not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True


class RequestBody:
    """The body of a request, by length or in chunks.

    Attributes:
        length: that the request says; None of one in chunks.

    Raises:
        ValueError: it says its length in no way that is known, or in two ways.
    """

    def __init__(self, file: io.BufferedIOBase, headers: Message) -> None:
        self._file = file
        lengths = headers.get_all("Content-Length", [])
        codings = headers.get_all("Transfer-Encoding", [])
        self._is_chunked = bool(codings)
        if [one.lower() for one in codings] not in ([], ["chunked"]):
            raise ValueError("a transfer encoding other than chunked is not supported")
        if len(lengths) + len(codings) > 1 or not all(map(_LENGTH.match, lengths)):
            raise ValueError("the length of the body is not clear")
        self.length = None if codings else int(lengths[0]) if lengths else 0
        self._left = self.length or 0
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
                raise Refused(413, "SIZE_INVALID", f"at most {max_bytes} bytes are taken")
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
        size = self._file.readline(1024).partition(b";")[0].strip()
        if not _CHUNK_SIZE.match(size):
            self._ended = True
            raise ConnectionResetError
        self._left = int(size, 16)
        if self._left > 0:
            return True
        while self._file.readline(65536).strip():  # trailers
            pass
        self._ended = True
        return False
