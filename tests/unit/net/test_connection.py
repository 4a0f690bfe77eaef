import contextlib
import ssl
import time

import pytest
import urllib3.exceptions as u3

from imagers.net.connection import new_pools

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"


def test_new_pools_headers_in_time_are_no_error(peer, say):
    peer.answers = [say(body=b"ok")]
    pools = new_pools(max_idle=1, send_bytes=1024)
    response = pools.request("GET", peer.url, timeout=2.0, retries=False)
    assert response.data == b"ok"
    pools.clear()


def test_new_pools_tls_uses_the_context(tls_peer, say, authority):
    tls_peer.answers = [say(body=b"ok")]
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    pools = new_pools(max_idle=1, send_bytes=1024, tls=context)
    assert pools.request("GET", tls_peer.url, timeout=2.0, retries=False).data == b"ok"
    pools.clear()


def test_new_pools_without_time_limit_have_no_deadline(peer, say):
    peer.answers = [say(body=b"ok")]
    pools = new_pools(max_idle=1, send_bytes=1024)
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
    pools = new_pools(max_idle=1, send_bytes=1024)
    response = pools.request("GET", peer.url, timeout=0.3, retries=False, preload_content=False)
    assert response.read1(10) == b"abc"
    start = time.monotonic()
    with pytest.raises(u3.ReadTimeoutError):
        response.read1(10)
    assert time.monotonic() - start < 5
    response.close()
    pools.clear()


def test_new_pools_trailers_in_time_are_no_error(peer):
    peer.answers = [CHUNKED + b"0\r\nx: y\r\n\r\n"]
    pools = new_pools(max_idle=1, send_bytes=1024)
    response = pools.request("GET", peer.url, timeout=2.0, retries=False, preload_content=False)
    assert [response.read1(10), response.read1(10)] == [b"abc", b""]
    pools.clear()
