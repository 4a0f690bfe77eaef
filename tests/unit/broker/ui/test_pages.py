# SPDX-License-Identifier: Apache-2.0
"""Who sees which page, over HTTP."""

import asyncio
import re
import threading
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from imagers.broker.config import BrokerConfig
from imagers.broker.images import Images
from imagers.broker.references import References
from imagers.broker.resources import Resources
from imagers.broker.server import running
from imagers.broker.start import open_state
from imagers.broker.ui import views
from imagers.broker.ui.pages import Pages
from imagers.errors import KeyRefused
from imagers.kbs.admin import BrokerAdmin
from imagers.kbs.tenants import TenantAdmin
from imagers.model.digest import digest_of
from tests.unit.broker.conftest import first_admin

PAGES = ["", "/attempts", "/guests", "/images", "/resources", "/policies", "/reference-values"]
FORM = {"Content_Type": "application/x-www-form-urlencoded"}


class Browser:
    """A cookie, and requests with it."""

    def __init__(self, http):
        self._http = http
        self.cookie = ""

    def get(self, path):
        status, headers, body = self._http("GET", f"/ui{path}", Cookie=self.cookie)
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["Cache-Control"] == "no-store"
        return status, body.decode()

    def log_in(self, token, **more):
        body = urlencode({"token": token}).encode()
        status, headers, body = self._http("POST", "/ui/login", body, **FORM, **more)
        self.cookie = (headers["Set-Cookie"] or "").partition(";")[0]
        return status, headers, body.decode()


@pytest.fixture
def browser(embedded):
    return Browser(http_of_without_redirects(embedded.url))


def http_of_without_redirects(url):
    import http.client
    from urllib.parse import urlsplit

    def send(method, path, body=None, **headers):
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items() if value}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    return send


@pytest.fixture
def new_key(embedded, tmp_path):
    """Makes an admin of a tenant with roles: the client's side of him."""

    def make(tenant, *roles):
        key = Ed25519PrivateKey.generate()
        path = tmp_path / f"{tenant}-{'-'.join(roles)}.key"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        of = TenantAdmin(embedded.admin)
        of.add_key(f"the-{roles[0]}", roles, key.public_key(), tenant=tenant)
        return BrokerAdmin(embedded.url, key_file=path)

    return make


def test_stranger_sees_where_to_log_in_and_nothing_else(embedded, browser):
    embedded.put("kbs:///default/app/key", b"secret")
    for page in (*PAGES, "/resources/default/app/key", "/attempts/0123456789abcdef", "/nothing"):
        status, body = browser.get(page)
        assert status == 200
        assert "Token of an admin" in body
        assert "default/app" not in body
        assert "Overview" not in body


def test_admin_logs_in_sees_all_pages_and_logs_out(embedded, browser):
    embedded.put("kbs:///default/app/key", b"a very secret key", image=digest_of(b"image"))
    status, headers, _ = browser.log_in(embedded.admin.make_token())
    assert (status, headers["Location"]) == (303, "/ui")
    attributes = set(headers["Set-Cookie"].split("; ")[1:])
    assert attributes == {"Path=/ui", "HttpOnly", "SameSite=Strict"}
    for page in (*PAGES, "/resources/default/app/key"):
        status, body = browser.get(page)
        assert status == 200
        assert "log out admin" in body
        assert "a very secret key" not in body
    assert str(digest_of(b"image")) in body
    assert "default/app/key" in browser.get("/resources")[1]
    assert "bound-image" in browser.get("/policies")[1]
    send = http_of_without_redirects(embedded.url)
    status, headers, _ = send("POST", "/ui/logout", b"", Cookie=browser.cookie)
    assert (status, headers["Set-Cookie"].partition(";")[0]) == (303, "imagers-ui=")
    assert "Max-Age=0" in headers["Set-Cookie"]


def test_refusal_is_told_with_its_reasons(embedded, browser):
    embedded.put("kbs:///default/app/key", b"secret", image=digest_of(b"image"))
    with embedded.client() as guest, pytest.raises(KeyRefused):
        guest.get("kbs:///default/app/key", manifest_digest=digest_of(b"other"))
    browser.log_in(embedded.admin.make_token())
    _, body = browser.get("")
    [link] = set(re.findall(r'href="/ui(/attempts/[0-9a-f]{16})"', body))
    status, body = browser.get(link)
    assert status == 200
    assert "Why it was refused" in body
    assert str(digest_of(b"other")) in body
    assert "127.0.0.1" in body
    assert 'class="reason"' in body


@pytest.mark.parametrize("token", ["", "x", "a.b.c"])
def test_wrong_token_is_refused_and_in_the_audit_log(embedded, browser, token):
    status, _, body = browser.log_in(token)
    assert status == 401
    assert 'role="alert"' in body
    assert browser.cookie == ""
    assert (embedded.log[-1].event, embedded.log[-1].outcome) == ("admin", "refused")
    assert embedded.log[-1].client == "127.0.0.1"


def test_token_of_another_key_is_refused(embedded, browser, tmp_path):
    path = tmp_path / "other.key"
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with BrokerAdmin(embedded.url, key_file=path) as stranger:
        assert browser.log_in(stranger.make_token())[0] == 401


def test_form_of_another_site_is_refused(embedded, browser):
    for site in ("cross-site", "same-site"):
        status, headers, _ = browser.log_in(embedded.admin.make_token(), Sec_Fetch_Site=site)
        assert (status, headers["Set-Cookie"]) == (401, None)
    assert browser.log_in(embedded.admin.make_token(), Sec_Fetch_Site="same-origin")[0] == 303


def test_nothing_is_changed_by_the_pages(embedded, browser):
    browser.log_in(embedded.admin.make_token())
    send = http_of_without_redirects(embedded.url)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for page in PAGES:
            status, *_ = send(method, f"/ui{page}", b"", Cookie=browser.cookie)
            assert status in (404, 405), (method, page)


def test_page_that_there_is_not(embedded, browser):
    browser.log_in(embedded.admin.make_token())
    for page in (
        "/nothing",
        "/attempts/x",
        "/attempts/" + "0" * 16,
        "/resources/a/b/c",
        "/guests/x",
    ):
        status, body = browser.get(page)
        assert status in (400, 404), page
        assert "Not shown" in body


def test_roles_see_what_the_interface_for_programs_shows_them(embedded, browser, new_key):
    embedded.put("kbs:///default/app/key", b"secret")
    seen = {}
    for role in ("owner", "auditor", "operator"):
        with new_key("default", role) as admin:
            assert browser.log_in(admin.make_token())[0] == 303
        seen[role] = {page: browser.get(page)[0] for page in PAGES}
    everything = dict.fromkeys(PAGES, 200)
    assert seen["owner"] == seen["auditor"] == everything
    closed = dict.fromkeys(["/images", "/resources", "/policies", "/reference-values"], 403)
    assert seen["operator"] == everything | closed
    with new_key("default", "writer") as admin:
        status, _, body = browser.log_in(admin.make_token())
    assert status == 401
    assert "is for the role" in body


def test_nothing_of_another_tenant_is_on_any_page(embedded, browser, new_key):
    embedded.put("kbs:///default/app/key", b"secret", image=digest_of(b"image"))
    with embedded.client() as guest, pytest.raises(KeyRefused):
        guest.get("kbs:///default/app/key", manifest_digest=digest_of(b"other"))
    TenantAdmin(embedded.admin).add("a")
    browser.log_in(embedded.admin.make_token())
    [link] = re.findall(
        r'href="/ui(/attempts/[0-9a-f]{16})"', browser.get("/attempts?outcome=refused")[1]
    )
    assert browser.get(link)[0] == 200
    with new_key("a", "owner") as admin:
        browser.log_in(admin.make_token())
    status, theirs = browser.get(link)
    assert status == 404
    _, missing = browser.get("/attempts/" + "0" * 16)
    assert theirs.replace(link[-16:], "0" * 16) == missing
    for page in (*PAGES, "/resources/default/app/key"):
        body = browser.get(page)[1].replace("there is no resource 'default/app/key'", "")
        for name in ("default", "app/key", '">refused<', str(digest_of(b"other"))):
            assert name not in body, (page, name)
    assert "0 refused" in browser.get("")[1]


def test_admin_who_was_removed_sees_nothing_more(embedded, browser, new_key):
    with new_key("default", "auditor") as admin:
        browser.log_in(admin.make_token())
    assert "log out" in browser.get("")[1]
    of = TenantAdmin(embedded.admin)
    [key] = [one for one in of.keys(None) if one.name == "the-auditor"]
    of.remove_key(key.id)
    assert "Token of an admin" in browser.get("")[1]


def test_login_is_over_after_a_while_and_the_clock_does_not_bring_it_back(state, clock, admin):
    from tests.unit.broker.conftest import Now

    found = Now(state)
    cookie = state.log_in(admin)
    assert found.find_logged_in(cookie) == admin
    clock.advance(minutes=31)
    assert found.find_logged_in(cookie) is None
    clock.advance(minutes=-2)
    assert found.find_logged_in(cookie) is None
    assert found.find_logged_in(None) is None


def test_login_counts_after_a_start_of_the_broker(state, admin):
    from tests.unit.broker.conftest import Now

    cookie = state.log_in(admin)
    state.close()
    with open_state(state.config) as again:
        assert Now(again).find_logged_in(cookie) == admin


def test_pages_load_nothing_from_elsewhere(browser):
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        status, body = browser.get(f"/{name}")
        assert status == 200
        assert "://" not in body
        assert kind


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("POST", "/ui/login", {"Sec_Fetch_Site": "cross-site"}),
        ("POST", "/ui/other", {}),
        ("DELETE", "/ui", {}),
        ("GET", "/ui/page.txt", {}),
    ],
)
def test_refusals_have_the_headers_of_pages(embedded, method, path, more):
    http = http_of_without_redirects(embedded.url)
    _, headers, _ = http(method, path, **more)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_faults_have_the_headers_of_pages(embedded, browser, monkeypatch):
    browser.log_in(embedded.admin.make_token())
    monkeypatch.setattr("imagers.broker.app.asset", None)
    assert browser.get("/page.css")[0] == 500
    assert b"nosniff" not in http_of_without_redirects(embedded.url)("GET", "/uix")[1].as_bytes()


def test_head_is_answered_as_get_without_a_body(embedded, browser):
    browser.log_in(embedded.admin.make_token())
    http = http_of_without_redirects(embedded.url)
    for path in ("/ui", "/ui/page.css", "/ui/attempts"):
        status, headers, body = http("HEAD", path, Cookie=browser.cookie)
        got, as_got, page = http("GET", path, Cookie=browser.cookie)
        assert (status, body) == (got, b"")
        assert int(headers["Content-Length"]) == len(page)
        assert headers["Content-Type"] == as_got["Content-Type"]


@pytest.mark.parametrize(
    ("config", "forwarded", "is_secure"),
    [
        ({}, "https", False),
        ({"trusted_proxies": ("127.0.0.1",)}, "https", True),
        ({"trusted_proxies": ("127.0.0.1",)}, "http", False),
        ({"trusted_proxies": ("127.0.0.1",)}, None, False),
        ({"trusted_proxies": ("192.0.2.1",)}, "https", False),
        ({"issuer": "https://broker.example"}, None, True),
    ],
)
def test_the_cookie_of_a_login_is_for_https_where_a_browser_speaks_it(
    tmp_path, config, forwarded, is_secure
):
    with running(BrokerConfig(state_directory=tmp_path / "state", port=0, **config)) as broker:
        with BrokerAdmin(broker.url, key_file=broker.admin_key_file) as admin:
            token = admin.make_token()
        browser = Browser(http_of_without_redirects(broker.url))
        _, headers, _ = browser.log_in(token, X_Forwarded_Proto=forwarded)
    assert ("Secure" in headers["Set-Cookie"].split("; ")) == is_secure


def test_pages_are_written_beside_the_loop_that_serves_guests(state, monkeypatch):
    threads = []
    real = views.frame

    def frame(*args, **named):
        threads.append(threading.get_ident())
        return real(*args, **named)

    monkeypatch.setattr(views, "frame", frame)
    pages = Pages(state, Resources(state), References(state), Images(state))
    for path in PAGES:
        asyncio.run(pages.show(first_admin(state), path.removeprefix("/"), {}))
    assert len(threads) == len(PAGES)
    assert threading.get_ident() not in threads
