# SPDX-License-Identifier: Apache-2.0
"""Where registries say that they want a login: everywhere, at /v2/ only, or nowhere."""

import base64
import itertools
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imagers.errors import RemoteError
from imagers.net.http import HTTPSettings
from imagers.registry.credentials import Credentials

BASIC = "Basic " + base64.b64encode(b"ann:secret").decode()
BEARER = "Bearer t0k"


class Server(ThreadingHTTPServer):
    """A registry that gives `tags/list` to who has logged in.

    Attributes:
        scheme: of its logins: basic or bearer.
        base, resource: status for who has not, and whether a challenge comes with it.
        asked: path and login of each request.
    """

    daemon_threads = True

    def __init__(self, scheme, base, resource, tls=None):
        self.scheme, self.base, self.resource, self.asked = scheme, base, resource, []
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"{'http' if tls is None else 'https'}://{self.address}"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_):
        """A client that goes away is none."""

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""

    def do_GET(self):
        server, login = self.server, self.headers.get("Authorization")
        server.asked.append((self.path.partition("?")[0], login))
        if self.path.startswith("/token"):
            self.say(200 if login == BASIC else 401, b'{"token":"t0k"}')
        elif login == (BASIC if server.scheme == "basic" else BEARER):
            self.say(200, b"{}")
        else:
            status, told = server.base if self.path == "/v2/" else server.resource
            realm = f'Bearer realm="{server.url}/token",service="s"'
            self.say(
                status, b"{}", {"basic": 'Basic realm="r"', "bearer": realm}[server.scheme], told
            )

    def say(self, status, body, challenge="", told=None):
        self.send_response(status)
        if told:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(params=["http", "https"])
def transport(request, authority, tmp_path):
    """Context for the server, settings for the client."""
    if request.param == "http":
        return None, HTTPSettings()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return context, HTTPSettings(ca_file=tmp_path / "ca.pem")


BASES = [(200, False), (401, True), (401, False), (404, False)]
RESOURCES = [*itertools.product((400, 401, 403, 404), (False,)), (401, True)]
LOGINS = {"a login": Credentials("ann", "secret"), "none": None, "wrong": Credentials("ann", "x")}


def comes(scheme, base, resource, login):
    """Whether the answer of a registry comes that wants a login."""
    if login != "a login":
        return False
    # A password is tried where nobody said how to log in; a token server has to be named.
    return scheme == "basic" or base[1] or resource[1]


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("resource", RESOURCES, ids=str)
@pytest.mark.parametrize("login", LOGINS)
def test_answer_comes_wherever_a_registry_asks_for_a_login(
    opened, transport, scheme, base, resource, login
):
    tls, settings = transport
    with Server(scheme, base, resource, tls) as server:
        client = opened.client(
            f"{server.address}/app", credentials=LOGINS[login], settings=settings
        )
        for _ in range(2):
            if comes(scheme, base, resource, login):
                answer = client.request("GET", "tags/list", doing="tags", expected=(200,))
                assert answer.body == b"{}"
            else:
                with pytest.raises(RemoteError):
                    client.request("GET", "tags/list", doing="tags", expected=(200,))
        paths = [path for path, _ in server.asked]
        assert paths.count("/v2/") == 1
        # How it travels is known before anything secret is sent.
        assert server.asked[0] == ("/v2/", None)
        if login == "none":
            assert {sent for _, sent in server.asked} == {None}


def test_password_that_nobody_asked_for_is_tried_once(opened):
    with Server("bearer", (200, False), (404, False)) as server:
        client = opened.client(f"{server.address}/app", credentials=Credentials("ann", "secret"))
        for _ in range(3):
            with pytest.raises(RemoteError) as caught:
                client.request("GET", "tags/list", doing="tags", expected=(200,))
            assert caught.value.status == 404
        assert [sent for _, sent in server.asked].count(BASIC) == 1


class Scoped(Handler):
    """Gives a token for what is asked for, and wants one for another name."""

    NEEDED = "repository:inner/app:pull"

    def do_GET(self):
        server, login = self.server, self.headers.get("Authorization")
        server.asked.append((self.path, login))
        if self.path.startswith("/token"):
            good = "inner%2Fapp%3Apull" in self.path
            self.say(200, b'{"token":"good"}' if good else b'{"token":"bad"}')
        elif login == "Bearer good":
            self.say(200, b"{}")
        else:
            needed = "" if self.path == "/v2/" else f',scope="{self.NEEDED},push,delete"'
            realm = f'Bearer realm="{server.url}/token",error="insufficient_scope"{needed}'
            self.say(401, b"{}", realm, told=True)


def test_scope_that_the_registry_names_is_asked_for_and_no_more_than_was_meant(opened):
    with Server("bearer", (401, True), (401, True)) as server:
        server.RequestHandlerClass = Scoped
        client = opened.client(f"{server.address}/app")
        assert client.request("GET", "tags/list", doing="tags", expected=(200,)).body == b"{}"
        tokens = [path for path, _ in server.asked if path.startswith("/token")]
        assert len(tokens) == 2
        assert "repository%3Aapp%3Apull" in tokens[1]
        assert "push" not in "".join(tokens)


class Redirecting(Handler):
    """Sends everything to another place, which wants no login and does not have it."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.path == "/v2/":
            self.say(200, b"{}")
            return
        self.send_response(307)
        self.send_header("Location", f"{self.server.other.url}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_password_is_not_tried_because_of_what_a_redirect_led_to(opened):
    with (
        Server("basic", (200, False), (403, False)) as other,
        Server("basic", (200, False), (200, False)) as server,
    ):
        server.RequestHandlerClass, server.other = Redirecting, other
        client = opened.client(f"{server.address}/app", credentials=Credentials("ann", "secret"))
        with pytest.raises(RemoteError) as caught:
            client.request("GET", "tags/list", doing="tags", expected=(200,))
        assert caught.value.status == 403
        assert {sent for _, sent in server.asked + other.asked} == {None}


def test_password_is_not_tried_elsewhere_where_elsewhere_leads_back(opened):
    with (
        Server("basic", (200, False), (200, False)) as other,
        Server("basic", (200, False), (404, False)) as server,
    ):
        other.RequestHandlerClass, other.other = Redirecting, server
        client = opened.client(f"{server.address}/app", credentials=Credentials("ann", "secret"))
        with pytest.raises(RemoteError) as caught:
            client.request("GET", f"{other.url}/x", doing="next page", expected=(200,))
        assert caught.value.status == 404
        assert {sent for _, sent in server.asked + other.asked} == {None}
