# SPDX-License-Identifier: Apache-2.0
import ssl
import threading

import pytest

from imagers.errors import NotFound, RateLimited, RemoteError, Unauthorized
from imagers.net.failures import NOT_TLS
from imagers.net.http import HTTPSettings
from imagers.net.proxies import Proxies, parse_proxy
from imagers.net.retry import RetryPolicy
from imagers.registry.credentials import Credentials
from imagers.testing.registry import EmbeddedRegistry

ALL = range(200, 300)


def test_client_loopback_without_tls_uses_plain_http(registry, opened):
    client = opened.client(f"{registry.address}/app")
    with pytest.raises(NotFound, match="NAME_UNKNOWN") as caught:
        client.request("GET", "tags/list", doing="tags", expected=ALL)
    assert str(caught.value).startswith(f"{registry.address}/app:latest: tags: ")
    assert caught.value.code == "NAME_UNKNOWN"


def test_client_asks_for_the_scheme_once(registry, opened):
    client = opened.client(f"{registry.address}/app")
    for _ in range(3):
        with pytest.raises(NotFound):
            client.request("GET", "tags/list", doing="tags", expected=ALL)
    asked = [path for _, path in registry.asked()]
    assert asked == ["/v2/", *["/v2/app/tags/list"] * 3]


@pytest.fixture
def tls_registry(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with EmbeddedRegistry(tls=context) as one:
        yield one


def test_client_loopback_with_tls_uses_it(tls_registry, opened, authority, tmp_path):
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    client = opened.client(f"{tls_registry.address}/app", settings=HTTPSettings(ca_file=ca_file))
    with pytest.raises(NotFound):
        client.request("GET", "tags/list", doing="tags", expected=ALL)


def test_client_loopback_with_unknown_certificate_never_falls_back(tls_registry, opened):
    client = opened.client(f"{tls_registry.address}/app")
    with pytest.raises(RemoteError, match="certificate was not accepted"):
        client.request("GET", "tags/list", doing="tags", expected=ALL)
    assert tls_registry.requests == []


def test_client_not_tls_on_another_machine_refused(opened, monkeypatch):
    client = opened.client("registry.example.org/app")

    def not_tls(*_, **__):
        raise RemoteError("x", code=NOT_TLS)

    monkeypatch.setattr(client._http, "request", not_tls)
    with pytest.raises(RemoteError, match="does not speak TLS") as caught:
        client.request("GET", "tags/list", doing="tags", expected=ALL)
    assert "--tls-verify=false" in caught.value.hint


def test_client_docker_hub_has_its_own_host(opened, monkeypatch):
    client = opened.client("busybox")
    asked = []

    def stop(_, url, **__):
        asked.append(url)
        raise RemoteError("stop")

    monkeypatch.setattr(client._http, "request", stop)
    with pytest.raises(RemoteError, match="stop"):
        client.request("GET", "tags/list", doing="tags", expected=ALL)
    assert asked == ["https://registry-1.docker.io/v2/"]


@pytest.mark.parametrize("token_auth", [False, True], ids=["basic", "token"])
def test_client_logs_in_after_the_challenge(opened, token_auth):
    with EmbeddedRegistry(username="me", password="pw", token_auth=token_auth) as registry:
        client = opened.client(f"{registry.address}/app", credentials=Credentials("me", "pw"))
        for _ in range(2):
            with pytest.raises(NotFound):
                client.request("GET", "tags/list", doing="tags", expected=ALL)
        statuses = [one.status for one in registry.requests if "tags" in one.path]
        # /v2/ said how before.
        assert statuses == [404, 404]
        assert len([one for one in registry.requests if "token?" in one.path]) == token_auth


@pytest.mark.parametrize("token_auth", [False, True], ids=["basic", "token"])
@pytest.mark.parametrize("credentials", [None, Credentials("me", "hunter2")], ids=["none", "wrong"])
def test_client_without_good_credentials_is_unauthorized(opened, token_auth, credentials):
    with EmbeddedRegistry(username="me", password="pw", token_auth=token_auth) as registry:
        client = opened.client(f"{registry.address}/app", credentials=credentials)
        with pytest.raises(Unauthorized) as caught:
            client.request("GET", "tags/list", doing="tags", expected=ALL)
        assert caught.value.status == 401
        assert "log in" in caught.value.hint
        assert "hunter2" not in str(caught.value)


def test_client_token_that_was_revoked_is_fetched_again(opened):
    with EmbeddedRegistry(token_auth=True) as registry:
        client = opened.client(f"{registry.address}/app")
        with pytest.raises(NotFound):
            client.request("GET", "tags/list", doing="tags", expected=ALL)
        registry.tokens.clear()
        with pytest.raises(NotFound):
            client.request("GET", "tags/list", doing="tags", expected=ALL)


def test_client_of_several_threads_only_those_that_were_refused_ask_again(opened):
    """A token that runs out in the middle of a transfer, when several layers are on the way."""
    with EmbeddedRegistry(username="me", password="pw", token_auth=True) as registry:
        client = opened.client(f"{registry.address}/app", credentials=Credentials("me", "pw"))
        with pytest.raises(NotFound):
            client.request("GET", "tags/list", doing="tags", expected=ALL)
        challenge = {"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'}
        refused = {"0", "2", "5"}
        for number in refused:
            registry.answer_with(401, path=f"/manifests/{number}", headers=challenge)
        registry.requests.clear()
        ready = threading.Barrier(6)
        answers = {}

        def ask(number):
            ready.wait(60)
            try:
                client.request("GET", f"manifests/{number}", doing="x", expected=ALL)
            except RemoteError as error:
                answers[number] = error.status

        threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answers == dict.fromkeys("012345", 404)
        asked = [one.path.rpartition("/")[2] for one in registry.requests if "manif" in one.path]
        assert {one: asked.count(one) for one in "012345"} == {
            one: 2 if one in refused else 1 for one in "012345"
        }
        # One new token serves all, unless one of them was refused with the new one already.
        assert 1 <= len([one for one in registry.requests if "/token" in one.path]) <= len(refused)


def test_client_refused_login_names_the_registry_and_no_image(opened):
    with EmbeddedRegistry(username="me", password="pw") as registry:
        client = opened.client(f"{registry.address}/x:x", credentials=Credentials("me", "no"))
        with pytest.raises(Unauthorized) as caught:
            client.check_login()
        assert str(caught.value).startswith(f"{registry.address}: login: ")


def test_client_tells_how_long_the_registry_asks_to_wait(registry, opened):
    registry.answer_with(429, path="tags", headers={"Retry-After": "3600"})
    client = opened.client(f"{registry.address}/app")
    with pytest.raises(RateLimited) as caught:
        client.request("GET", "tags/list", doing="tags", expected=ALL)
    assert caught.value.retry_after == 3600
    assert "wait 3600 s" in caught.value.hint
    assert len([one for one in registry.requests if "tags" in one.path]) == 1


def test_client_token_for_pull_does_not_push(opened):
    with EmbeddedRegistry(token_auth=True) as registry:
        for actions, kind in (("pull", Unauthorized), ("pull,push", NotFound)):
            client = opened.client(f"{registry.address}/app", actions=actions)
            with pytest.raises(kind):
                client.request("DELETE", "manifests/v1", doing="delete", expected=ALL)


def test_client_challenge_of_a_redirect_target_is_not_taken(registry, opened):
    # Whoever the registry redirects to must not get at the password through a realm.
    with EmbeddedRegistry() as other, EmbeddedRegistry() as thief:
        registry.answer_with(307, path="/blobs/", headers={"Location": f"{other.url}/x"})
        challenge = {"WWW-Authenticate": f'Bearer realm="{thief.url}/token"'}
        other.answer_with(401, path="/x", headers=challenge)
        client = opened.client(f"{registry.address}/app", credentials=Credentials("me", "hunter2"))
        with pytest.raises(Unauthorized):
            client.open("blobs/sha256:0", doing="layer", expected=(200,))
        assert thief.requests == []


def test_client_absolute_url_of_another_origin_gets_no_login(opened):
    with (
        EmbeddedRegistry(username="me", password="pw") as registry,
        EmbeddedRegistry(username="me", password="pw") as other,
    ):
        client = opened.client(f"{registry.address}/app", credentials=Credentials("me", "pw"))
        with pytest.raises(NotFound):
            client.request("GET", "tags/list", doing="tags", expected=ALL)
        with pytest.raises(Unauthorized):
            client.request("GET", f"{other.url}/v2/x/tags/list", doing="tags", expected=ALL)


def test_client_plain_http_url_from_a_tls_registry_refused(tls_registry, registry, opened):
    settings = HTTPSettings(insecure_skip_verify=True, insecure_http=True)
    client = opened.client(f"{tls_registry.address}/app", settings=settings)
    with pytest.raises(RemoteError, match="sends us to plain http"):
        client.request("PUT", f"{registry.url}/v2/x", doing="upload", body=b"x", expected=ALL)
    assert registry.requests == []


def test_client_error_html_page_is_told_by_status(registry, opened):
    registry.answer_with(403, path="tags", body=b"<html>\x1b[31m no</html>")
    client = opened.client(f"{registry.address}/app")
    with pytest.raises(Unauthorized, match="403 forbidden, with a page of type") as caught:
        client.request("GET", "tags/list", doing="tags", expected=ALL)
    assert str(caught.value).isprintable()


def test_client_answer_longer_than_allowed_refused(registry, opened):
    registry.answer_with(200, path="tags", body=b"x" * 101)
    client = opened.client(f"{registry.address}/app")
    with pytest.raises(RemoteError, match="at most 100 bytes, got 101"):
        client.request("GET", "tags/list", doing="tags", max_bytes=100, expected=ALL)


def test_client_nobody_there_is_one_line(opened):
    settings = HTTPSettings(retry=RetryPolicy(attempts=1))
    client = opened.client("127.0.0.1:1/app", settings=settings)
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1:1: connection refused") as caught:
        client.request("GET", "tags/list", doing="tags", expected=ALL)
    assert "\n" not in str(caught.value)


# ---- who named an address that does not answer ------------------------------------------------

NOBODY = "127.0.0.1:1"


def test_address_of_a_redirect_is_said_to_be_one(registry, opened):
    registry.answer_with(307, path="/blobs/", headers={"Location": f"http://{NOBODY}/x"}, times=9)
    client = opened.client(f"{registry.address}/app")
    with pytest.raises(RemoteError) as caught:
        client.open("blobs/sha256:0", doing="layer", expected=(200,))
    assert f"{NOBODY}, which a redirect of {registry.address} names: connection" in str(
        caught.value
    )


def test_address_of_a_location_is_said_to_be_the_registrys(registry, opened):
    client = opened.client(f"{registry.address}/app", actions="pull,push")
    with pytest.raises(RemoteError) as caught:
        client.request("PUT", f"http://{NOBODY}/x", doing="upload", expected=(201,))
    assert f"{NOBODY}, which the registry at {registry.address} names" in str(caught.value)
    # The host is the same: a proxy has left the port away.
    assert "$http_host" in caught.value.hint


def test_address_of_a_token_server_is_said_to_be_the_registrys(registry, opened):
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{NOBODY}/token"'}
    registry.answer_with(401, path="/v2/", headers=challenge)
    client = opened.client(f"{registry.address}/app")
    with pytest.raises(RemoteError, match=f"{NOBODY}, which {registry.address} names: connection"):
        client.request("GET", "tags/list", doing="tags", expected=ALL)


def test_address_of_a_proxy_is_named(opened):
    settings = HTTPSettings(proxies=Proxies(https=parse_proxy(f"http://{NOBODY}", what="proxy")))
    client = opened.client("registry.example/app", settings=settings)
    with pytest.raises(
        RemoteError, match=f"registry.example:443, through the proxy http://{NOBODY}:"
    ):
        client.request("GET", "tags/list", doing="tags", expected=ALL)


def test_client_sent_to_another_port_where_another_server_says_no_has_the_same_hint(
    registry, opened
):
    with EmbeddedRegistry() as other:
        other.answer_with(404, path="/v2/x", body=b"<html>nginx</html>")
        client = opened.client(f"{registry.address}/app")
        with pytest.raises(RemoteError, match="404") as caught:
            client.request("PUT", f"{other.url}/v2/x", doing="upload", body=b"x", expected=(201,))
        assert other.address in str(caught.value)
    assert "$http_host" in caught.value.hint
