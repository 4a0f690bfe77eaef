# SPDX-License-Identifier: Apache-2.0
import contextlib
import http.client
import io
import socket
import ssl
import threading
import time

import pytest
import urllib3
import urllib3.exceptions as u3

from imagers.net import connection
from imagers.net.connection import new_pools, reader_of

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"


def test_new_pools_headers_in_time_are_no_error(peer, say):
    peer.answers = [say(body=b"ok")]
    pools = new_pools(max_idle=1)
    response = pools.request("GET", peer.url, timeout=2.0, retries=False)
    assert response.data == b"ok"
    pools.clear()


def test_new_pools_tls_uses_the_context(tls_peer, say, authority):
    tls_peer.answers = [say(body=b"ok")]
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    pools = new_pools(max_idle=1, tls=context)
    assert pools.request("GET", tls_peer.url, timeout=2.0, retries=False).data == b"ok"
    pools.clear()


def test_new_pools_without_time_limit_have_no_deadline(peer, say):
    peer.answers = [say(body=b"ok")]
    pools = new_pools(max_idle=1)
    assert pools.request("GET", peer.url, timeout=None, retries=False).data == b"ok"
    pools.clear()


@pytest.mark.parametrize("line", [b"0\r\nx: y\r\n", b"3;"], ids=["trailers", "extension"])
def test_new_pools_framing_without_end_is_given_up(peer, line):
    """Each byte comes in time, and one call for a piece of the body reads all of them."""

    def drip(connection):
        connection.sendall(CHUNKED + line)
        with contextlib.suppress(OSError):
            while not peer.stopped.wait(0.05):
                connection.sendall(b"x: y\r\n" if line.startswith(b"0") else b"x")

    peer.answers = [drip]
    pools = new_pools(max_idle=1)
    response = pools.request("GET", peer.url, timeout=0.3, retries=False, preload_content=False)
    assert response.read1(10) == b"abc"
    start = time.monotonic()
    with pytest.raises(u3.ReadTimeoutError):
        response.read1(10)
    assert time.monotonic() - start < 30
    response.close()
    pools.clear()


def test_new_pools_trailers_in_time_are_no_error(peer):
    peer.answers = [CHUNKED + b"0\r\nx: y\r\n\r\n"]
    pools = new_pools(max_idle=1)
    response = pools.request("GET", peer.url, timeout=2.0, retries=False, preload_content=False)
    assert [response.read1(10), response.read1(10)] == [b"abc", b""]
    pools.clear()


@pytest.fixture
def opened(peer):
    """Opens an answer, whose body is read with the function that it gives."""
    pools = new_pools(max_idle=1)

    @contextlib.contextmanager
    def open_(answer):
        peer.answers = [answer]
        response = pools.request("GET", peer.url, timeout=2.0, retries=False, preload_content=False)
        try:
            yield reader_of(response)
        finally:
            response.close()

    yield open_
    pools.clear()


def read_all(read, count):
    buffer = memoryview(bytearray(count))
    found = b""
    while filled := read(buffer):
        found += buffer[:filled]
    assert read(buffer) == 0
    return found


@pytest.mark.parametrize("count", [1, 7, 8192, 100_000])
def test_reader_of_body_of_known_length_comes_to_its_end_and_no_further(opened, say, count):
    body = bytes(range(256)) * 200
    with opened((say(body=body + b"surplus", length=len(body)), "close")) as read:
        assert read_all(read, count) == body


@pytest.mark.parametrize("count", [1, 2, 100])
def test_reader_of_chunks_gives_what_is_in_them(opened, count):
    with opened(CHUNKED + b"2\r\nde\r\n0\r\n\r\n") as read:
        assert read_all(read, count) == b"abcde"


def test_reader_of_body_until_the_end_of_the_connection(opened):
    with opened((b"HTTP/1.1 200 OK\r\n\r\n12345", "close")) as read:
        assert read_all(read, 100) == b"12345"


def test_reader_of_body_that_ends_early_raises(opened, say):
    early = (say(body=b"12345", length=6), "close")
    with opened(early) as read, pytest.raises(http.client.IncompleteRead):
        read_all(read, 100)


@pytest.mark.parametrize("count", [6, 8191, 8192, 8193, 1_000_000])
def test_reader_of_gives_what_has_come_before_the_buffer_is_full(opened, say, count):
    """The peer sends more only after it is told that the first part was read."""
    seen = threading.Event()

    def give(connection):
        connection.sendall(say(body=b"12345", length=10))
        seen.wait(30)
        connection.sendall(b"67890")

    with opened(give) as read:
        buffer = memoryview(bytearray(count))
        found = b""
        while len(found) < 5:
            found += buffer[: read(buffer)]
        seen.set()
        assert found + read_all(read, count) == b"1234567890"


def test_reader_of_another_kind_of_answer_goes_the_long_way():
    response = urllib3.HTTPResponse(body=io.BytesIO(b"12345"), preload_content=False)
    assert read_all(reader_of(response), 3) == b"12345"


def put(url, *pieces, timeout=20.0, tls=None):
    pools = new_pools(max_idle=1, tls=tls)
    try:
        return pools.request(
            "PUT",
            url,
            body=map(memoryview, pieces),
            headers={"Content-Length": str(sum(map(len, pieces)))},
            timeout=timeout,
            retries=False,
        )
    finally:
        pools.clear()


@pytest.mark.parametrize("kind", ["peer", "tls_peer"])
def test_connection_sends_large_pieces_whole(request, kind, say, authority):
    peer = request.getfixturevalue(kind)
    peer.answers = [say("201 Created")]
    body = bytes(range(256)) * 40_000
    tls = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    assert put(peer.url, body, b"", b"end", tls=tls).status == 201
    assert peer.seen[0][3] == body + b"end"


def test_connection_that_takes_nothing_more_is_given_up():
    """Nobody reads, and what sockets hold is soon full."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(u3.ProtocolError) as caught:
            put(url, bytes(50_000_000), timeout=0.3)
    assert isinstance(caught.value.args[1], TimeoutError)


class Slow:
    """A socket whose peer takes a byte at a time, each of them in time."""

    def __init__(self, limit_s):
        self._limit_s = limit_s
        self.taken = 0

    def gettimeout(self):
        return self._limit_s

    def settimeout(self, limit_s):
        """It is never waited for."""

    def send(self, data):
        assert data
        time.sleep(0.001)
        self.taken += 1
        return 1


def test_connection_that_takes_a_byte_at_a_time_is_given_up():
    slow = Slow(0.05)
    with pytest.raises(TimeoutError, match="too long"):
        connection._send_all(slow, memoryview(bytes(1_000_000)))
    assert slow.taken < 1000


def test_connection_without_a_time_limit_is_never_given_up():
    slow = Slow(None)
    connection._send_all(slow, memoryview(bytes(100)))
    assert slow.taken == 100
