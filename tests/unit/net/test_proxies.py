# SPDX-License-Identifier: Apache-2.0
import socket
import threading

import pytest

from imagers.errors import FormatError
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.proxies import Proxies, Proxy, parse_exempt, parse_proxy
from imagers.net.retry import RetryPolicy
from imagers.net.urls import parse_origin

BOTH = {"http": Proxy("http://p:1"), "https": Proxy("http://q:1")}


@pytest.mark.parametrize(
    ("url", "exempt", "proxy"),
    [
        ("http://a.io/", "", "http://p:1"),
        ("https://a.io/", "", "http://q:1"),
        ("http://localhost/", "", None),
        ("http://127.0.0.1:5000/", "", None),
        ("http://a.io/", "*", None),
        ("http://a.io/", "a.io", None),
        ("http://b.a.io/", "a.io", None),
        ("http://b.a.io/", ".a.io", None),
        ("http://b.a.io/", "*.a.io", None),
        ("http://ba.io/", "a.io", "http://p:1"),
        ("http://a.io:81/", "a.io:82, b.io", "http://p:1"),
        ("http://a.io:81/", "b.io,a.io:81", None),
        ("http://10.1.2.3/", "10.0.0.0/8", None),
        ("http://11.1.2.3/", "10.0.0.0/8 11.1.2.4", "http://p:1"),
        ("http://[fd00::1]/", "fd00::/8", None),
    ],
)
def test_proxies_find(url, exempt, proxy):
    found = Proxies(**BOTH, exempt=parse_exempt(exempt)).find(parse_origin(url))
    assert (found and found.url) == proxy


def test_parse_proxy_keeps_the_password_out_of_sight():
    proxy = parse_proxy("http://me:p%40ss@host:3128/", what="http_proxy")
    assert proxy.url == "http://host:3128"
    assert proxy.authorization == "Basic bWU6cEBzcw=="
    assert "bWU" not in repr(proxy)
    assert parse_proxy("host:1", what="x").url == "http://host:1"
    for text in ("socks5://secret@h:1", "http://:1", "http://h:secret"):
        with pytest.raises(FormatError, match="http_proxy") as caught:
            parse_proxy(text, what="http_proxy")
        assert "secret" not in str(caught.value)


def test_request_goes_through_the_proxy():
    server = socket.create_server(("127.0.0.1", 0))
    seen = []

    def answer():
        for status in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 403 no\r\n\r\n",
        ):
            connection, _ = server.accept()
            seen.append(connection.recv(10_000).decode())
            connection.sendall(status)
            connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    proxy = parse_proxy(f"http://me:pw@127.0.0.1:{server.getsockname()[1]}", what="x")
    settings = HTTPSettings(
        proxies=Proxies(proxy, proxy), insecure_http=True, retry=RetryPolicy(attempts=1)
    )
    with HTTPClient(settings) as client:
        assert client.request("GET", "http://registry.invalid/v2/?a=b").body == b"ok"
        with pytest.raises(Exception, match=r"registry\.invalid:443"):
            client.request("GET", "https://registry.invalid/v2/")
    thread.join()
    server.close()
    assert seen[0].startswith("GET http://registry.invalid/v2/?a=b HTTP/1.1\r\n")
    assert seen[1].startswith("CONNECT registry.invalid:443 HTTP/1.")
    assert all(
        "roxy-Authorization: Basic bWU6cHc=" in one or "roxy-authorization: Basic bWU6cHc=" in one
        for one in seen
    )
