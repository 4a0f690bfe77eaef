# SPDX-License-Identifier: Apache-2.0
"""A peer that sends exactly the bytes that a test gives it."""

import socket
import ssl
import struct
import threading
from contextlib import suppress

import pytest
import trustme

from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy


def answer(status="200 OK", body=b"", *, length=None, headers=()):
    """An answer as bytes; `length` is what its header says."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


class Peer:
    """Gives each request the next of `answers`; the last one repeats.

    An answer is bytes, a function of the connection, or a pair of bytes and what follows:
    `close` or `reset`.
    """

    def __init__(self, tls=None):
        self.answers = []
        self.seen = []
        self.connections = 0
        self.stopped = threading.Event()
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def address(self):
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def url(self):
        return f"{'https' if self._tls else 'http'}://{self.address}"

    def stop(self):
        self.stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for one in self._sockets:
            with suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection):
        with suppress(OSError, EOFError), connection:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._sockets.append(connection)  # the other one has lost its descriptor to it
            with connection, connection.makefile("rb") as file:
                while True:
                    self.seen.append(read_request(file))
                    at = min(len(self.seen), len(self.answers)) - 1
                    if not self._give(connection, self.answers[at]):
                        return

    def _give(self, connection, what):
        if callable(what):
            what(connection)
            return False
        data, after = what if isinstance(what, tuple) else (what, None)
        connection.sendall(data)
        if after == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return after is None


def read_request(file):
    """Method, target, headers (names in lower case) and body of one request."""
    first = file.readline()
    if not first:
        raise EOFError
    method, target, _ = first.decode().split(" ")
    headers = {}
    while line := file.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = file.read(int(headers.get("content-length", 0)))
    return method, target, headers, body


@pytest.fixture
def peer():
    one = Peer()
    yield one
    one.stop()


@pytest.fixture
def other_peer():
    one = Peer()
    yield one
    one.stop()


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture
def server_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def tls_peer(server_tls):
    one = Peer(server_tls)
    yield one
    one.stop()


@pytest.fixture
def say():
    return answer


@pytest.fixture
def waits():
    """The waits that the client asked for, in seconds."""
    return []


@pytest.fixture
def client(waits):
    settings = HTTPSettings(
        connect_timeout_s=20, read_timeout_s=20, retry=RetryPolicy(attempts=3, backoff_s=0.5)
    )
    with HTTPClient(settings, sleep=waits.append) as one:
        yield one


@pytest.fixture
def impatient():
    settings = HTTPSettings(
        connect_timeout_s=0.3, read_timeout_s=0.3, retry=RetryPolicy(attempts=1)
    )
    with HTTPClient(settings) as one:
        yield one
