# SPDX-License-Identifier: Apache-2.0
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError, NotFound, RemoteError, Unauthorized, UsageError
from imagers.model.stream import read_all
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.registry import auth
from imagers.registry.auth import Authenticator, parse_challenges
from imagers.registry.credentials import Credentials, IdentityToken, RegistryToken
from imagers.registry.logins import find_login
from imagers.testing.registry import EmbeddedRegistry

SCOPE = "repository:app:pull"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Basic", [("basic", {})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a/t?x=1",service="s, t",scope="a:b:pull,push"',
            [("bearer", {"realm": "https://a/t?x=1", "service": "s, t", "scope": "a:b:pull,push"})],
        ),
        (r'Bearer realm="a\"b\\c"', [("bearer", {"realm": r"a\"b\c".replace(r"\"", '"')})]),
        (
            'Basic realm="x", Bearer realm="y", service=z',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "z"})],
        ),
        ('BEARER Realm = "x" , Service=y', [("bearer", {"realm": "x", "service": "y"})]),
        ('Bearer realm="x",realm="evil"', [("bearer", {"realm": "x"})]),
        ("", []),
        ("\x00", []),
        ('Basic, Bearer realm="y"', [("basic", {}), ("bearer", {"realm": "y"})]),
        ('Bearer realm="never ends', [("bearer", {})]),
    ],
)
def test_parse_challenges_forms(header, found):
    parsed = [(one.scheme, dict(one.parameters)) for one in parse_challenges(header)]
    assert parsed[: len(found)] == found


@given(st.text(max_size=300))
def test_parse_challenges_any_text_gives_an_end(header):
    parse_challenges(header)


def test_parse_challenges_long_header_is_bounded():
    assert len(parse_challenges("Basic, " * 1_000_000)) < 2000


@pytest.mark.parametrize(
    "header",
    [
        " " * 8192,
        "," * 8192,
        " ," * 4096,
        "Basic" + " " * 8192,
        "Basic x" + " " * 8192,
        "Basic x=" + " " * 8192,
        'Basic x="' + "\\" * 8191,
        'Basic x="' + 'a="' * 2700,
        "a " * 4096,
        "a" * 8192,
    ],
    ids=lambda header: f"{header[:12]!r}...",
)
def test_parse_challenges_of_any_long_header_is_quick(header):
    """A hundred headers, in CPU time: each took up to 1.6 s when steps grew with the square."""
    start = time.process_time()
    for _ in range(100):
        parse_challenges(header)
    assert time.process_time() - start < 20.0


class TokenServer:
    """Gives what `answers` say; counts and keeps the questions."""

    def __init__(self):
        self.answers = []
        self.seen = []
        self.posted = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                outer.posted.append(
                    (self.headers, self.rfile.read(int(self.headers["Content-Length"])))
                )
                self.do_GET()

            def do_GET(self):
                query = parse_qs(urlsplit(self.path).query)
                outer.seen.append((query, self.headers.get("Authorization")))
                status, body = outer.answers[min(len(outer.seen), len(outer.answers)) - 1]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server():
    one = TokenServer()
    yield one
    one.stop()


@pytest.fixture
def http():
    settings = HTTPSettings(retry=RetryPolicy(attempts=1))
    with HTTPClient(settings) as client:
        yield client


def challenged(http, server, credentials=None, *, header=None, url=None):
    """An authenticator that has seen a challenge."""
    one = Authenticator(http, credentials)
    header = header or f'Bearer realm="{server.url}/token",service="reg"'
    assert one.take_challenge(header, url or server.url, SCOPE, sent=None)
    return one


def token(value="abc", **more):
    return 200, json.dumps({"token": value, **more}).encode()


def test_authenticator_before_a_challenge_sends_nothing(http):
    assert Authenticator(http, Credentials("me", "x")).header(SCOPE) is None


def test_authenticator_token_fetched_once_per_scope(http, server):
    server.answers = [token("one"), token("two")]
    one = challenged(http, server)
    assert [one.header(SCOPE), one.header(SCOPE)] == ["Bearer one", "Bearer one"]
    assert one.header("repository:other:pull") == "Bearer two"
    assert one.header(SCOPE) == "Bearer one"
    assert server.seen[0] == ({"service": ["reg"], "scope": [SCOPE]}, None)
    assert len(server.seen) == 2


def test_authenticator_credentials_go_to_the_token_server(http, server):
    server.answers = [(200, b'{"access_token":"abc"}')]
    one = challenged(http, server, Credentials("me", "pw"))
    assert one.header(SCOPE) == "Bearer abc"
    assert server.seen[0][1] == Credentials("me", "pw").authorization()


def test_authenticator_relative_realm_is_at_the_registry(http, server):
    server.answers = [token()]
    one = challenged(http, server, header='Bearer realm="/token?account=me"')
    assert one.header(SCOPE) == "Bearer abc"
    assert server.seen[0][0] == {"account": ["me"], "scope": [SCOPE]}


def test_authenticator_token_that_ran_out_is_fetched_again(http, server, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(auth.time, "monotonic", lambda: clock[0])
    server.answers = [token("one", expires_in=100), token("two")]
    one = challenged(http, server)
    assert one.header(SCOPE) == "Bearer one"
    clock[0] += 90
    assert one.header(SCOPE) == "Bearer one"
    clock[0] += 10
    assert one.header(SCOPE) == "Bearer two"


@pytest.mark.parametrize("lifetime", [None, "soon", "300", 0, -1, 59.9, [], {}])
def test_authenticator_odd_lifetime_is_the_least_one(http, server, monkeypatch, lifetime):
    clock = [1000.0]
    monkeypatch.setattr(auth.time, "monotonic", lambda: clock[0])
    server.answers = [token("one", expires_in=lifetime), token("two")]
    one = challenged(http, server)
    assert one.header(SCOPE) == "Bearer one"
    clock[0] += 40
    assert one.header(SCOPE) == "Bearer one"
    clock[0] += 21
    assert one.header(SCOPE) == "Bearer two"


@pytest.mark.parametrize("status", [200, 201, 202])
def test_authenticator_token_of_any_good_answer_counts(http, server, status):
    server.answers = [(status, token("one")[1])]
    assert challenged(http, server).header(SCOPE) == "Bearer one"


def test_authenticator_asks_for_a_token_where_both_ways_are_offered(http, server):
    server.answers = [token("one")]
    header = f'Basic realm="x", Bearer realm="{server.url}/token"'
    assert (
        challenged(http, server, Credentials("me", "pw"), header=header).header(SCOPE)
        == "Bearer one"
    )


def test_authenticator_refused_token_is_dropped(http, server):
    server.answers = [token("one"), token("two")]
    one = challenged(http, server)
    sent = one.header(SCOPE)
    header = f'Bearer realm="{server.url}/token"'
    assert one.take_challenge(header, server.url, SCOPE, sent=sent)
    assert one.header(SCOPE) == "Bearer two"


def test_authenticator_fresh_token_of_another_thread_is_kept(http, server):
    server.answers = [token("one"), token("two")]
    one = challenged(http, server)
    one.header(SCOPE)
    # This request had gone out before there was a token.
    assert one.take_challenge(f'Bearer realm="{server.url}/"', server.url, SCOPE, sent=None)
    assert one.header(SCOPE) == "Bearer one"


def test_authenticator_basic_after_its_challenge(http):
    one = Authenticator(http, Credentials("me", "pw"))
    assert one.take_challenge('Basic realm="x"', "http://127.0.0.1/", SCOPE, sent=None)
    sent = one.header(SCOPE)
    assert sent == Credentials("me", "pw").authorization()
    assert not one.take_challenge('Basic realm="x"', "http://127.0.0.1/", SCOPE, sent=sent)


@pytest.mark.parametrize("header", ["", "Basic", "Negotiate", "Bearer service=x"])
def test_authenticator_challenge_that_it_cannot_meet_gives_up(http, header):
    assert not Authenticator(http, None).take_challenge(
        header, "http://127.0.0.1/", SCOPE, sent=None
    )


def test_authenticator_missing_token_server_does_not_say_that_the_image_is_missing(http, server):
    """A `NotFound` here would be read as "there is no signature"."""
    server.answers = [(404, b"")]
    one = challenged(http, server, None)
    with pytest.raises(RemoteError, match="token server answered 404") as caught:
        one.header(SCOPE)
    assert not isinstance(caught.value, NotFound)
    assert caught.value.status == 404


def test_authenticator_wrong_password_at_the_token_server_is_unauthorized(http, server):
    server.answers = [(401, b"")]
    one = challenged(http, server, Credentials("me", "hunter2"))
    with pytest.raises(Unauthorized, match="token server answered 401") as caught:
        one.header(SCOPE)
    assert "hunter2" not in str(caught.value)
    assert caught.value.status == 401


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"token":""}',
        b'{"token":1}',
        b'{"token":"a b"}',
        b'{"token":"a\\r\\nX-Evil: 1"}',
        b'{"token":"\xc3\xa9"}',
    ],
)
def test_authenticator_malformed_token_refused(http, server, body):
    server.answers = [(200, body)]
    with pytest.raises(FormatError, match=r"token of 127\.0\.0\.1"):
        challenged(http, server).header(SCOPE)


@pytest.mark.parametrize("told", ["null", '"300"', "300.5", "-1", "0", "true", "[]", '"soon"'])
def test_authenticator_token_with_an_odd_lifetime_is_used(http, server, told):
    server.answers = [(200, b'{"token":"abc","expires_in":%s}' % told.encode())]
    assert challenged(http, server).header(SCOPE) == "Bearer abc"


def test_authenticator_huge_token_refused(http, server):
    server.answers = [(200, b" " * (1024 * 1024 + 1))]
    with pytest.raises(RemoteError, match="at most 1048576 bytes"):
        challenged(http, server).header(SCOPE)


def test_authenticator_token_server_over_plain_http_of_a_tls_registry_refused(http, server):
    one = challenged(http, server, Credentials("me", "pw"), url="https://registry.example.org/v2/")
    with pytest.raises(RemoteError, match="token server over plain http"):
        one.header(SCOPE)
    assert server.seen == []


@pytest.mark.parametrize(
    "realm", ["file:///etc/passwd", "https://u:p@host/", "http://example.org/"]
)
def test_authenticator_bad_realm_refused(http, realm):
    one = Authenticator(http, Credentials("me", "pw"))
    one.take_challenge(f'Bearer realm="{realm}"', "http://127.0.0.1/v2/", SCOPE, sent=None)
    with pytest.raises((FormatError, UsageError, RemoteError)) as caught:
        one.header(SCOPE)
    assert ":p@" not in str(caught.value)


def test_identity_token_is_exchanged_by_a_form(http, server):
    server.answers = [(200, b'{"access_token":"abc","refresh_token":"new","expires_in":300}')]
    one = challenged(http, server, IdentityToken("s3cret&x=1"))
    assert one.header(SCOPE) == "Bearer abc"
    (headers, body) = server.posted[0]
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert headers["Authorization"] is None
    assert parse_qs(body.decode()) == {
        "grant_type": ["refresh_token"],
        "service": ["reg"],
        "client_id": ["imagers"],
        "scope": [SCOPE],
        "refresh_token": ["s3cret&x=1"],
    }
    # Not in the address, where logs would have it.
    assert server.seen[0] == ({}, None)


def test_identity_token_that_is_refused_is_unauthorized(http, server):
    server.answers = [(401, b'{"error":"invalid_grant"}')]
    one = challenged(http, server, IdentityToken("s3cret"))
    with pytest.raises(Unauthorized, match="token server answered 401") as caught:
        one.header(SCOPE)
    assert "s3cret" not in str(caught.value)


def test_identity_token_never_goes_by_basic(http):
    one = Authenticator(http, IdentityToken("s3cret"))
    assert not one.take_challenge('Basic realm="x"', "http://127.0.0.1/", SCOPE, sent=None)
    assert one.header(SCOPE) is None


def test_registry_token_goes_to_the_registry_as_it_is(http, server):
    one = Authenticator(http, RegistryToken("t0k"))
    assert one.header(SCOPE) is None
    header = f'Bearer realm="{server.url}/token"'
    assert one.take_challenge(header, server.url, SCOPE, sent=None)
    sent = one.header(SCOPE)
    assert sent == "Bearer t0k"
    # It is all there is: refused, nothing else is tried, and no token server is asked.
    assert not one.take_challenge(header, server.url, SCOPE, sent=sent)
    assert server.seen == []


def test_registry_token_is_not_for_basic(http):
    one = Authenticator(http, RegistryToken("t0k"))
    assert not one.take_challenge('Basic realm="x"', "http://127.0.0.1/", SCOPE, sent=None)


def test_identity_token_of_an_auth_file_reads_an_image(server, opened, image, tmp_path):
    """From the file to the blob: the registry sees the token that the exchange gave."""
    with EmbeddedRegistry(username="me", password="pw", token_auth=True) as registry:
        name = f"{registry.address}/app:v1"
        image.write(opened.sink(name, credentials=Credentials("me", "pw")))
        registry.tokens["t0k"] = SCOPE
        challenge = {"WWW-Authenticate": f'Bearer realm="{server.url}/token",service="reg"'}
        registry.answer_with(401, path="/v2/", headers=challenge)
        server.answers = [(200, b'{"access_token":"t0k"}')]
        path = tmp_path / "auth.json"
        path.write_text(json.dumps({"auths": {registry.address: {"identitytoken": "refr"}}}))
        login = find_login([path], registry.address, "app")
        source = opened.source(name, credentials=login)
        assert source.read_manifest().raw == image.raw
        with source.open_blob(image.layers[0], what="layer") as stream:
            assert read_all(stream, size=image.layers[0].size) == image.blobs[image.layers[0]]
    ((_, body),) = server.posted
    assert parse_qs(body.decode())["refresh_token"] == ["refr"]
    assert parse_qs(body.decode())["scope"] == [SCOPE]


@pytest.mark.parametrize("token", ["t0k", "other"])
def test_registry_token_of_an_auth_file_reads_an_image(opened, image, tmp_path, token):
    with EmbeddedRegistry(username="me", password="pw", token_auth=True) as registry:
        name = f"{registry.address}/app:v1"
        image.write(opened.sink(name, credentials=Credentials("me", "pw")))
        registry.tokens["t0k"] = SCOPE
        path = tmp_path / "auth.json"
        path.write_text(json.dumps({"auths": {registry.address: {"registrytoken": token}}}))
        source = opened.source(name, credentials=find_login([path], registry.address, "app"))
        registry.requests.clear()
        if token == "t0k":
            assert source.read_manifest().raw == image.raw
        else:
            with pytest.raises(Unauthorized):
                source.read_manifest()
        # Nothing else is tried: what is there is the token.
        assert [one.status for one in registry.requests if "token" in one.path] == []
