# SPDX-License-Identifier: Apache-2.0
"""A proxy that spoils answers: between a client and a registry, by a seed.

    with FaultProxy(registry.address, seed=7) as proxy:
        client(f"{proxy.address}/app:v1")
    proxy.faults                                    # what it did, in order

Each connection carries one request. By the seed it is passed on as it is, or its answer is
cut at byte N, stalls, is slow, comes with a wrong length or wrong bytes, or is another one:
a reset, 429, 500, 503, or a redirect to another host. The same seed and the same requests, in
the same order, give the same choices; how much of an answer arrives before a reset is the
system's.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

__all__ = ["FAULTS", "FaultProxy"]

FAULTS = (
    "cut",
    "reset",
    "stall",
    "slow",
    "status 500",
    "status 503",
    "status 429",
    "wrong length",
    "wrong bytes",
    "redirect",
)
_HOST = "127.0.0.1"
_PIECE = 64 * 1024
_MAX_HEAD = 64 * 1024
_SILENCE_S = 20.0
_STATUS = {
    "status 500": b"500 Internal Server Error\r\n",
    "status 503": b"503 Service Unavailable\r\nRetry-After: 0\r\n",
    "status 429": b"429 Too Many Requests\r\nRetry-After: 0\r\n",
}


class FaultProxy:
    """A proxy that runs between `__enter__` and `__exit__`.

    Args:
        target: HOST:PORT of a server that speaks plain http.
        seed: of what goes wrong.
        rate: part of the requests that are spoilt, from 0 to 1.
        stall_s: how long an answer that stalls takes.
        kinds: of `FAULTS`, those that happen.
        on_sent: told, in a thread of the proxy, how many bytes of answers it has passed on in all,
            after each piece: for faults of the client at a byte, such as its death.

    Attributes:
        faults: what went wrong, in order: a word of `FAULTS`, and the request line.
        elsewhere: requests that followed a redirect to another host, whole heads.
    """

    def __init__(
        self,
        target: str,
        *,
        seed: int,
        rate: float = 0.3,
        stall_s: float = 0.3,
        kinds: Sequence[str] = FAULTS,
        on_sent: Callable[[int], None] | None = None,
    ) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._random = random.Random(seed)  # noqa: S311  # repeatable, not secret
        self._rate = rate
        self._stall_s = stall_s
        self._kinds = kinds
        self._on_sent = on_sent
        self._sent = 0
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._threads: dict[threading.Thread, list[socket.socket]] = {}
        self._stopping = threading.Event()
        self.faults: list[tuple[str, str]] = []
        self.elsewhere: list[bytes] = []

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        if self._listener is None:
            raise RuntimeError("the proxy is not running")
        return f"{_HOST}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        listener = socket.create_server((_HOST, 0))
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        listener, acceptor = self._listener, self._acceptor
        assert listener is not None  # entered
        assert acceptor is not None
        self._stopping.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the acceptor
        acceptor.join()
        listener.close()
        with self._lock:
            threads = list(self._threads.items())
        for thread, sockets in threads:
            for one in list(sockets):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # stopped
            sockets = [client]
            thread = threading.Thread(target=self._serve, args=(client, sockets), daemon=True)
            with self._lock:
                self._threads[thread] = sockets
            thread.start()

    def _serve(self, client: socket.socket, sockets: list[socket.socket]) -> None:
        try:
            with client, suppress(OSError, ValueError):
                client.settimeout(_SILENCE_S)
                self._exchange(client, sockets)
        finally:
            with self._lock:
                self._threads.pop(threading.current_thread(), None)

    def _exchange(self, client: socket.socket, sockets: list[socket.socket]) -> None:
        if not client.recv(1, socket.MSG_PEEK).isalpha():
            # A client that tries TLS is told so at once, as a server of http does.
            client.recv(_PIECE)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            return
        head, rest = _read_head(client)
        line = head.partition(b"\r\n")[0].decode("latin-1")
        if "imagers-elsewhere" in line:
            self.elsewhere.append(head)
            line = line.replace("?imagers-elsewhere", "")
            head = head.replace(b"?imagers-elsewhere", b"", 1)
            fault = None
        else:
            fault = self.choose(line)
        with socket.create_connection(self._target, timeout=_SILENCE_S) as server:
            sockets.append(server)
            # One request a connection: the end of an answer is then the end of the connection.
            server.sendall(_with_header(head, b"Connection: close"))
            _pass_body(client, server, head, rest)
            answer_head, answer_rest = _read_head(server)
            self._answer(client, server, fault, answer_head, answer_rest, line)

    def choose(self, line: str) -> str | None:
        """What goes wrong with the next request; None: nothing."""
        with self._lock:
            if self._random.random() >= self._rate:
                return None
            fault = self._random.choice(self._kinds)
            if fault == "redirect" and not line.startswith("GET /v2/"):
                fault = "status 503"
            self.faults.append((fault, line))
            return fault

    def _answer(  # noqa: PLR0917  # one exchange
        self,
        client: socket.socket,
        server: socket.socket,
        fault: str | None,
        head: bytes,
        rest: bytes,
        line: str,
    ) -> None:
        if fault in _STATUS:
            client.sendall(
                b"HTTP/1.1 " + _STATUS[fault] + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        if fault == "redirect":
            # localhost is another host than 127.0.0.1, and this same proxy.
            path = line.split(" ")[1].partition("?")[0]
            port = self.address.rpartition(":")[2]
            location = f"http://localhost:{port}{path}?imagers-elsewhere"
            client.sendall(
                b"HTTP/1.1 307 Temporary Redirect\r\nLocation: "
                + location.encode()
                + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        if fault == "reset":
            _reset(client)
            return
        if fault == "wrong length":
            head = _changed_length(head, self._draw(2) * 2 - 1)
        self._pass_on(client, _with_header(head, b"Connection: close"))
        at = 0
        within = _length(head) or 4096
        cut = self._draw(within) if fault in ("cut", "stall", "wrong bytes") else -1
        piece = rest or server.recv(_PIECE)  # head and body may come one after the other
        while piece:
            if -1 < cut < at + len(piece) and cut >= at:
                self._pass_on(client, piece[: cut - at])
                if fault == "cut":
                    _reset(client)
                    return
                if fault == "stall":
                    self._stopping.wait(self._stall_s)
                    piece = piece[cut - at :]
                else:
                    piece = bytes([piece[cut - at] ^ 1]) + piece[cut - at + 1 :]
                at = cut
                cut = -1
            if fault == "slow":
                for start in range(0, len(piece), max(1, len(piece) // 4)):
                    self._pass_on(client, piece[start : start + max(1, len(piece) // 4)])
                    self._stopping.wait(0.002)
            else:
                self._pass_on(client, piece)
            at += len(piece)
            piece = server.recv(_PIECE)

    def _pass_on(self, client: socket.socket, piece: bytes) -> None:
        client.sendall(piece)
        if self._on_sent is not None:
            with self._lock:
                self._sent += len(piece)
                sent = self._sent
            self._on_sent(sent)

    def _draw(self, below: int) -> int:
        with self._lock:
            return self._random.randrange(below)


def _read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(_PIECE)
        if not piece or len(data) > _MAX_HEAD:
            raise ValueError("no head")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _with_header(head: bytes, header: bytes) -> bytes:
    lines = [
        line for line in head[:-4].split(b"\r\n") if not line.lower().startswith(b"connection:")
    ]
    return b"\r\n".join([*lines, header]) + b"\r\n\r\n"


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _changed_length(head: bytes, by: int) -> bytes:
    length = _length(head)
    return head.replace(
        b"Content-Length: %d\r\n" % length, b"Content-Length: %d\r\n" % max(0, length + by)
    )


def _pass_body(client: socket.socket, server: socket.socket, head: bytes, rest: bytes) -> None:
    left = _length(head)
    piece = rest
    while left:
        if not piece:
            piece = client.recv(min(left, _PIECE))
            if not piece:
                raise ValueError("the client went away")
        server.sendall(piece)
        left -= len(piece)
        piece = b""


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
