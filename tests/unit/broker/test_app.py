# SPDX-License-Identifier: Apache-2.0
"""The wire: statuses, bounds and bodies, with nothing of our client in between."""

import base64
import hashlib
import json
import logging
import re
import threading
import time
from email.utils import parsedate_to_datetime

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK, JWKSet
from jwcrypto.jwt import JWT

from imagers.broker.server import BrokerConfig, running
from imagers.model.digest import digest_of
from imagers.pki.jose import sign_token

IMAGE = digest_of(b"manifest")
URI = "kbs:///default/key/1"
PATH = "/kbs/v0/resource/default/key/1"
SECRET = b"a very secret key-encryption key"
ERRORS = "https://github.com/confidential-containers/kbs/errors/"


def error(answer):
    """Status and name of an error answer, which must have both members."""
    status, headers, body = answer
    value = json.loads(body)
    assert set(value) == {"type", "detail"}
    assert value["type"].startswith(ERRORS)
    assert headers["Content-Type"] == "application/json"
    return status, value["type"].removeprefix(ERRORS)


def auth(http, tee="sample"):
    body = {"version": "0.4.0", "tee": tee, "extra-params": ""}
    status, headers, data = http("POST", "/kbs/v0/auth", json.dumps(body).encode())
    assert status == 200
    return headers["Set-Cookie"], json.loads(data)["nonce"]


@pytest.fixture
def as_admin(embedded, admin_headers):
    return admin_headers(embedded)


@pytest.mark.parametrize("by", ["cookie", "token"])
def test_whole_flow_with_urllib_and_jwcrypto_only(embedded, http, by):
    """A peer that shares no code with our client: the wire is the protocol's."""

    embedded.put(URI, SECRET, image=IMAGE)
    set_cookie, nonce = auth(http)
    cookie = set_cookie.partition(";")[0]
    key = JWK.generate(kty="EC", crv="P-256")
    public = key.export_public(as_dict=True)
    pubkey = {name: public[name] for name in ("kty", "crv", "x", "y")} | {"alg": "ECDH-ES+A256KW"}
    bound = {"additional-evidence": "", "nonce": nonce, "tee-pubkey": pubkey}
    report_data = hashlib.sha384(rfc8785.dumps(bound)).digest()
    evidence = {"svn": "1", "report_data": base64.b64encode(report_data).decode()}
    body = {
        "init-data": None,
        "runtime-data": {"nonce": nonce, "tee-pubkey": pubkey},
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
    }
    status, _, data = http("POST", "/kbs/v0/attest", json.dumps(body).encode(), Cookie=cookie)
    assert status == 200
    token = json.loads(data)["token"]
    shown = {"Cookie": cookie} if by == "cookie" else {"Authorization": f"Bearer {token}"}
    status, headers, data = http("GET", f"{PATH}?image-digest={IMAGE}", **shown)
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    jwe = JWE(algs=["ECDH-ES+A256KW", "A256GCM"])
    jwe.deserialize(data.decode(), key)
    assert jwe.payload == SECRET


def test_token_verifies_with_the_published_keys(shared_http, guest_token_of_shared):
    """What a relying party does that knows the broker's address."""
    status, headers, body = shared_http("GET", "/.well-known/jwks.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert headers["Cache-Control"] == "public, max-age=300"
    JWT(jwt=guest_token_of_shared, key=JWKSet.from_json(body.decode()), algs=["ES256"])


def test_issuer_that_is_no_url_has_no_discovery(shared_http):
    answer = shared_http("GET", "/.well-known/openid-configuration")
    assert error(answer) == (404, "InvalidRequestPath")


def test_issuer_that_is_a_url_is_discovered(tmp_path, http_of):
    config = BrokerConfig(
        state_directory=tmp_path / "state",
        port=0,
        allow_sample_tee=True,
        issuer="https://broker.example",
    )
    with running(config) as broker:
        http = http_of(broker.url)
        status, headers, body = http("GET", "/.well-known/openid-configuration")
        assert (status, headers["Cache-Control"]) == (200, "public, max-age=300")
        assert json.loads(body)["jwks_uri"] == "https://broker.example/.well-known/jwks.json"
        assert error(http("POST", "/.well-known/jwks.json"))[1] == "MethodNotAllowed"


def token_of(broker):
    with broker.client() as client:
        session, _ = client._current(stale=None)
        return session.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture
def guest_token(embedded):
    return token_of(embedded)


@pytest.fixture
def guest_token_of_shared(shared):
    return token_of(shared)


def test_cookie_has_the_form_of_trustee(shared_http):
    name, _, rest = auth(shared_http)[0].partition("=")
    value, _, expires = rest.partition("; Expires=")
    assert name == "kbs-session-id"
    # What clients of ours take; to those of Trustee it is opaque.
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", value)
    assert parsedate_to_datetime(expires).tzinfo is not None


def test_health(shared_http):
    status, _, body = shared_http("GET", "/healthz")
    assert (status, body) == (200, b"ok\n")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/kbs/v0/auth", (404, "PluginNotFound")),
        ("PUT", "/kbs/v0/attest", (404, "PluginNotFound")),
        ("GET", "/kbs/v0/pkcs11/wrap-key", (404, "PluginNotFound")),
        ("GET", "/kbs/v0/", (404, "PluginNotFound")),
        ("GET", "/", (404, "InvalidRequestPath")),
        ("GET", "/kbs/v1/auth", (404, "InvalidRequestPath")),
        ("GET", "/elsewhere", (404, "InvalidRequestPath")),
        ("GET", "/kbs/v0/auth/", (404, "PluginNotFound")),
        ("POST", "/kbs/v0/attest/", (404, "PluginNotFound")),
        ("GET", "/healthz/", (404, "InvalidRequestPath")),
        ("GET", "/kbs/v0/resource/a/b/c%0A", (404, "InvalidRequestPath")),
        ("GET", "/kbs/v0/resource/a/b%0A/c", (404, "InvalidRequestPath")),
        ("GET", "/kbs/v0/imagers/reference-value/%C3%A4", (404, "InvalidRequestPath")),
        ("GET", "/%0A", (404, "InvalidRequestPath")),
        ("POST", "/kbs/v0/auth%0A/", (404, "InvalidRequestPath")),
        ("DELETE", "/kbs/v0/imagers/reference-value/a%2Fb", (401, "AdminAuthAccess")),
        ("GET", PATH, (401, "TokenNotFound")),
        ("PATCH", PATH, (401, "AdminAuthAccess")),
        ("POST", PATH, (401, "AdminAuthAccess")),
        ("PUT", PATH, (401, "AdminAuthAccess")),
        ("DELETE", PATH, (401, "AdminAuthAccess")),
        ("GET", "/kbs/v0/resource", (401, "AdminAuthAccess")),
        ("GET", "/kbs/v0/imagers/policy", (401, "AdminAuthAccess")),
        ("POST", "/kbs/v0/imagers/policy", (401, "AdminAuthAccess")),
        ("GET", "/kbs/v0/imagers/audit", (401, "AdminAuthAccess")),
        ("GET", "/kbs/v0/imagers/metadata/a/b/c", (401, "AdminAuthAccess")),
        ("POST", "/kbs/v0/imagers/binding/a/b/c", (401, "AdminAuthAccess")),
        ("POST", "/kbs/v0/attest", (401, "SessionNotFound")),
    ],
)
def test_stranger_gets(shared_http, method, path, expected):
    assert error(shared_http(method, path)) == expected


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic eDp5", "Bearer a b", "Bearer \x80", "Bearer a.b.c", "bearer "],
)
def test_authorization_that_is_none_refused(shared_http, header):
    assert error(shared_http("GET", PATH, Authorization=header))[0] == 401
    assert error(shared_http("DELETE", PATH, Authorization=header)) == (401, "AdminAuthAccess")


@pytest.mark.parametrize(
    "cookie", ["kbs-session-id", "kbs-session-id=", "xkbs-session-id=1", "kbs-session-id=\xe9"]
)
def test_cookie_that_is_none_refused(shared_http, cookie):
    assert error(shared_http("GET", PATH, Cookie=cookie)) == (401, "TokenNotFound")


def test_cookie_among_others_is_found(shared_http):
    cookie = auth(shared_http)[0].partition(";")[0]
    assert error(shared_http("GET", PATH, Cookie=f"a=b; {cookie}; c=d")) == (401, "SessionNotFound")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/kbs/v0/auth", b"", (400, "SerdeError")),
        ("/kbs/v0/auth", b"{", (400, "SerdeError")),
        ("/kbs/v0/auth", b"[" * 60_000, (400, "SerdeError")),
        ("/kbs/v0/auth", b" " * 65_537, (413, "PayloadTooLarge")),
        ("/kbs/v0/attest", b" " * (2 * 1024 * 1024 + 1), (401, "SessionNotFound")),
        (
            "/kbs/v0/auth",
            b'{"version":"0.1.1","tee":"sample","extra-params":""}',
            (401, "AttestationError"),
        ),
    ],
    ids=[
        "empty",
        "cut",
        "deep",
        "auth too large",
        "attest too large from a stranger",
        "old version",
    ],
)
def test_bad_body_is_refused(shared_http, path, body, expected):
    assert error(shared_http("POST", path, body)) == expected


def test_attestation_that_is_too_large_is_refused_in_a_session_too(shared_http):
    cookie = auth(shared_http)[0].partition(";")[0]
    body = b" " * (2 * 1024 * 1024 + 1)
    assert error(shared_http("POST", "/kbs/v0/attest", body, Cookie=cookie)) == (
        413,
        "PayloadTooLarge",
    )


def test_query_of_many_names_is_read_once(shared_http, guest_token_of_shared):
    """Each name of a query costs nothing but its bytes."""
    query = "&".join(f"a{number}=" for number in range(8000))
    begin = time.monotonic()
    answer = shared_http("GET", f"{PATH}?{query}", Authorization=f"Bearer {guest_token_of_shared}")
    assert error(answer) == (404, "ResourceNotFound")
    assert time.monotonic() - begin < 20


def test_admins_body_is_not_read_from_a_stranger(shared_http):
    """The refusal comes for the token, not for the size."""
    assert error(shared_http("POST", PATH, b" " * 3_000_000)) == (401, "AdminAuthAccess")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (("POST", PATH, b" " * (2 * 1024 * 1024 + 1)), (413, "PayloadTooLarge")),
        (("POST", PATH, b""), (400, "SerdeError")),
        (("POST", PATH + "?replace=yes", b"x"), (400, "SerdeError")),
        (("POST", "/kbs/v0/resource/a/b", b"x"), (404, "InvalidRequestPath")),
        (("PATCH", PATH, b"x"), (405, "MethodNotAllowed")),
        (("DELETE", PATH, None), (404, "ResourceNotFound")),
        (("GET", "/kbs/v0/imagers/metadata/default/key/1", None), (404, "ResourceNotFound")),
        (("POST", "/kbs/v0/imagers/metadata/default/key/1", b""), (405, "MethodNotAllowed")),
        (("GET", "/kbs/v0/imagers/binding/default/key/1", None), (405, "MethodNotAllowed")),
        (("POST", "/kbs/v0/imagers/binding/default/key/1", b"{}"), (400, "SerdeError")),
        (("DELETE", "/kbs/v0/imagers/policy", None), (405, "MethodNotAllowed")),
        (("POST", "/kbs/v0/imagers/policy", b" " * 300_000), (413, "PayloadTooLarge")),
        (("POST", "/kbs/v0/imagers/audit", b""), (405, "MethodNotAllowed")),
        (("GET", "/kbs/v0/imagers/audit?limit=x", None), (400, "SerdeError")),
        (("POST", "/kbs/v0/resource", b"x"), (404, "PluginNotFound")),
    ],
)
def test_admin_gets(shared, shared_http, request_, expected, admin_headers):
    assert error(shared_http(*request_, **admin_headers(shared))) == expected


def test_admin_put_replaces_and_post_creates_only(embedded, http, as_admin):
    assert http("POST", PATH, b"1", **as_admin)[0] == 200
    assert error(http("POST", PATH, b"2", **as_admin)) == (409, "ResourceExists")
    assert error(http("POST", PATH + "?replace=false", b"2", **as_admin))[0] == 409
    assert http("PUT", PATH, b"22", **as_admin)[0] == 200
    assert http("POST", PATH + "?replace=true", b"333", **as_admin)[0] == 200
    assert embedded.admin.metadata(URI).size == 3
    assert http("GET", "/kbs/v0/resource", **as_admin)[2] == b'["default/key/1"]'
    assert http("DELETE", PATH, **as_admin)[0] == 200


def test_admin_token_opens_no_secret(embedded, http, as_admin):
    """An admin stores secrets and does not read them."""
    embedded.put(URI, SECRET, image=IMAGE)
    answer = http("GET", f"{PATH}?image-digest={IMAGE}", **as_admin)
    assert error(answer) == (401, "TokenVerifierError")


def test_admin_token_of_the_guests_kind_refused(http, guest_token):
    assert error(http("DELETE", PATH, Authorization=f"Bearer {guest_token}"))[0] == 401


def test_strangers_at_the_admins_door_are_logged_and_bounded(embedded, http):
    for _ in range(130):
        http("DELETE", PATH)
    refused = [row for row in embedded.log if (row.event, row.outcome) == ("admin", "refused")]
    # A minute may end in between.
    assert 30 <= len(refused) <= 60
    assert refused[0].detail.startswith("DELETE /kbs/v0/resource/default/key/1: ")


def test_answers_with_secrets_are_not_to_be_cached(embedded, http, guest_token):
    embedded.put(URI, SECRET, image=IMAGE)
    answer = http("GET", f"{PATH}?image-digest={IMAGE}", Authorization=f"Bearer {guest_token}")
    assert answer[0] == 200
    assert answer[1]["Cache-Control"] == "no-store"
    assert "Server" not in answer[1]


def test_nothing_secret_is_logged_or_kept_in_the_clear(embedded, http, as_admin, caplog):
    with caplog.at_level(logging.DEBUG):
        http("POST", PATH, SECRET, **as_admin)
        embedded.admin.bind_manifest(URI, IMAGE)
        with embedded.client() as client:
            client.get(URI, manifest_digest=IMAGE).close()
            session, _ = client._current(stale=None)
        error(http("GET", PATH, **session.headers))
    cookie = session.headers["Cookie"].partition("=")[2]
    token = session.headers["Authorization"].partition(" ")[2]
    for hidden in (SECRET.decode(), cookie, token, as_admin["Authorization"].partition(" ")[2]):
        assert hidden not in caplog.text
    for path in embedded.state_directory.iterdir():
        assert SECRET not in path.read_bytes(), path.name
    assert not any(SECRET.decode() in str(row) or cookie in str(row) for row in embedded.log)


def test_concurrent_create_over_http_exactly_one_wins(http, as_admin):
    barrier = threading.Barrier(8)
    statuses = []

    def run():
        barrier.wait()
        statuses.append(http("POST", PATH, b"x", **as_admin)[0])

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 7


def test_admin_token_of_another_algorithm_refused(shared_http):
    key = ec.generate_private_key(ec.SECP256R1())
    token = sign_token({"role": "admin"}, key=key)
    assert error(shared_http("DELETE", PATH, Authorization=f"Bearer {token}"))[0] == 401
