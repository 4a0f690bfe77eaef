# SPDX-License-Identifier: Apache-2.0
"""Services that give collateral, inside a test: of the vendors, and of clouds.

    with CollateralServer(world) as server:
        server.faults.append(Fault("/crl", status=429, headers={"Retry-After": "1"}))
        fetch(server.url + "/vcek/v1/Genoa/crl")

What they answer is in `services`. A stale service is that of a world whose `now` is long ago.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, urlsplit

from imagers.testing.evidence.services import Answer, answer
from imagers.testing.registry_http import LoggedRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from imagers.testing.evidence.guests import World

__all__ = ["CollateralServer", "Fault"]

_HOST = "127.0.0.1"
_IDLE_S = 60.0
_NOT_FOUND = Answer(404, b"Not Found")


@dataclass
class Fault:
    """A wrong answer, given to the next `times` requests that it fits.

    Attributes:
        path: a part of path and query that it fits.
        status: answered instead of the right one; None: the right one.
        body: sent instead of the right one; None: the right one, or with a status nothing.
        delay_s: before the answer; it ends when the server stops.
        is_cut: the connection ends in the middle of the body.
    """

    path: str = ""
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay_s: float = 0
    is_cut: bool = False


class CollateralServer:
    """A server on a free loopback port that gives the documents of worlds.

    Args:
        worlds: each vendor's services answer for all of its own.

    Attributes:
        faults: the first that fits a request and has times left is taken.
        requests: all so far, in the order of their answers. They name chips.

    Threads: safe.
    """

    def __init__(self, *worlds: World) -> None:
        self.faults: list[Fault] = []
        self.requests: list[LoggedRequest] = []
        self._worlds = worlds
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self._stopping.clear()
        self._server = _Server((_HOST, 0), _Handler)
        self._server.owner = self
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        server, self._server = self._server, None
        if server is not None:
            self._stopping.set()
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        """Scheme and address, without a slash behind.

        Raises:
            RuntimeError: it is not running.
        """
        if self._server is None:
            raise RuntimeError("the server of collateral is not running")
        return f"http://{_HOST}:{self._server.server_port}"

    def asked(self) -> list[str]:
        """Paths and queries of all requests so far."""
        return [one.path for one in self.requests]

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[Answer, bool]:
        """What a request gets, and whether it is cut, after the delay that was asked for."""
        fault = self._take_fault(path)
        parts = urlsplit(path)
        query = dict(parse_qsl(parts.query))
        found = (answer(world, parts.path, query, headers) for world in self._worlds)
        right = next((one for one in found if one is not None), _NOT_FOUND)
        if fault is None:
            return right, False
        if fault.delay_s:
            self._stopping.wait(fault.delay_s)
        if fault.status is not None:
            return Answer(fault.status, fault.body or b"", fault.headers), fault.is_cut
        body = right.body if fault.body is None else fault.body
        return Answer(right.status, body, {**right.headers, **fault.headers}), fault.is_cut

    def log(self, request: LoggedRequest) -> None:
        """Keep a request."""
        with self._lock:
            self.requests.append(request)

    def _take_fault(self, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.path in path:
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: CollateralServer


class _Handler(BaseHTTPRequestHandler):
    """One request: connections end with it."""

    server: _Server
    timeout = _IDLE_S

    def do_GET(self) -> None:  # as the base class
        answer, is_cut = self.server.owner.answer(self.path, self.headers)  # type: ignore[arg-type]  # a mapping but by name
        body = answer.body
        with suppress(OSError):  # the client went away
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if is_cut else body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Into the server's own list."""
        del size
        self.server.owner.log(LoggedRequest(self.command or "", self.path or "", int(code)))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as the base class
        """Nothing is printed."""
