# SPDX-License-Identifier: Apache-2.0
"""What the client of guest-components and a broker said to each other, both ways.

tests/vectors/guest-components has the exchanges. The broker is asked again in the client's own
words, with a fresh nonce where there has to be one; our client says what that one said, and reads
what that one read.
"""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from imagers.errors import KeyRefused, KeyUnavailable
from imagers.evidence.plugins import load_attester
from imagers.kbs.client import BrokerClient
from imagers.kbs.messages import (
    hash_report_data,
    parse_attestation,
    parse_challenge,
    parse_request,
    parse_response,
)
from imagers.kbs.wire import parse_error
from imagers.model.digest import parse_digest
from imagers.testing.broker import EmbeddedBroker

VECTORS = Path(__file__).resolve().parents[2] / "vectors/guest-components"
SCENARIOS = json.loads((VECTORS / "exchanges.json").read_bytes())
SECRET = b"a secret of the default repository"
POLICY = json.dumps(
    {
        "rules": [
            {"name": "no-secrets", "effect": "deny", "resource": "*/secret/*", "image": "any"},
            {"name": "all", "effect": "allow", "resource": "*/*/*", "image": "any"},
        ]
    }
)
AUTH, ATTEST = "/kbs/v0/auth", "/kbs/v0/attest"


def exchanges(*paths):
    """All exchanges of these paths, or of resources where there is none."""
    for scenario in SCENARIOS:
        for one in scenario["exchanges"]:
            path = one["request"]["path"]
            if path in paths or not (paths or path in (AUTH, ATTEST)):
                yield one


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as broker:
        broker.admin.set_policy(POLICY)
        broker.put("kbs:///default/key/1", SECRET)
        broker.put("kbs:///default/secret/denied", b"nobody gets this")
        yield broker


# --- their requests, our broker


def rebound(body, nonce):
    """The client's own evidence message, for another nonce."""
    message = json.loads(body)
    message["runtime-data"]["nonce"] = nonce
    key = parse_attestation(json.dumps(message).encode()).tee_pubkey
    digest = hash_report_data(nonce=nonce, tee_pubkey=key).digest
    message["tee-evidence"]["primary_evidence"]["report_data"] = base64.b64encode(digest).decode()
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def headers_of(request, **fresh):
    """Those of the recording, with the cookie or the token of this session where it had one."""
    headers = {}
    for name, value in request["headers"]:
        if name != "content-length":
            headers[name.replace("-", "_")] = fresh.get(name, value)
    return headers


def shape(body):
    """Of an answer: the members in their order, the name of an error, the header of a JWE."""
    value = json.loads(body)
    if "type" in value:
        return value["type"]
    if "protected" in value:
        protected = value["protected"]
        header = json.loads(base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4)))
        return list(value), list(header), header["alg"], header["enc"]
    return list(value)


# A session that ends in two seconds is told in the tests of handshakes.
LASTING = [one for one in SCENARIOS if one["scenario"] != "expired"]


@pytest.mark.parametrize(
    "scenario", LASTING, ids=[f"{one['scenario']}, {one['key']}" for one in LASTING]
)
def test_broker_answers_the_client_as_it_was_recorded(broker, http_of, scenario):
    http, fresh, nonce = http_of(broker.url), {}, ""
    for one in scenario["exchanges"]:
        request, body = one["request"], one["request"]["body"]
        if request["path"] == ATTEST and scenario["scenario"] != "lying":
            body = rebound(body, nonce)
        status, headers, answer = http(
            request["method"],
            request["path"],
            body.encode() or None,
            **headers_of(request, **fresh),
        )
        assert (status, shape(answer)) == (one["answer"]["status"], shape(one["answer"]["body"]))
        told = {name for name, _ in one["answer"]["headers"]}
        assert told <= {name.lower() for name in headers}
        assert headers["content-type"] == "application/json"
        if request["path"] == AUTH:
            nonce = json.loads(answer)["nonce"]
        if "set-cookie" in told:
            fresh["cookie"] = headers["set-cookie"].partition(";")[0]
        if request["path"] == ATTEST and status == 200:
            fresh["authorization"] = f"Bearer {json.loads(answer)['token']}"


def test_evidence_of_the_recording_counts_for_no_other_session(broker, http_of):
    http = http_of(broker.url)
    for one in exchanges(ATTEST):
        _, headers, _ = http("POST", AUTH, next(exchanges(AUTH))["request"]["body"].encode())
        cookie = headers["set-cookie"].partition(";")[0]
        answer = http("POST", ATTEST, one["request"]["body"].encode(), Cookie=cookie)
        assert answer[0] == 401
        assert parse_error(answer[2]).name == "AttestationError"
        assert "nonce" in parse_error(answer[2]).detail


def test_evidence_of_the_client_binds_what_we_say_it_has_to():
    """Its canonical JSON and hash are ours, byte for byte, for each kind of key."""
    kinds = set()
    for scenario in SCENARIOS:
        for one in scenario["exchanges"]:
            if one["request"]["path"] != ATTEST:
                continue
            message = parse_attestation(one["request"]["body"].encode())
            wanted = hash_report_data(nonce=message.nonce, tee_pubkey=message.tee_pubkey).digest
            found = base64.b64decode(message.primary_evidence["report_data"])
            assert (found == wanted) is (scenario["scenario"] != "lying")
            kinds.add(message.tee_pubkey.alg)
    assert kinds == {"ECDH-ES+A256KW", "RSA-OAEP-256", "ML-KEM-768+A192KW"}


# --- their answers, our client


def test_answers_that_the_client_read_are_read():
    for one in exchanges(AUTH):
        assert parse_request(one["request"]["body"].encode()).tee == "sample"
        assert parse_challenge(one["answer"]["body"].encode()).report_hash == "sha384"
    for one in exchanges(ATTEST):
        if one["answer"]["status"] == 200:
            assert parse_response(one["answer"]["body"].encode()).token.count(".") == 2
    for one in exchanges():
        if one["answer"]["status"] != 200:
            error = parse_error(one["answer"]["body"].encode())
            assert error.name in ("TokenNotFound", "TokenVerifierError", "ResourceNotFound") or (
                error.name in ("PolicyDeny", "PluginNotFound", "SessionNotFound")
            )


def test_client_opened_each_secret_that_it_was_given():
    """It has the keys, and we do not: what it said of the outcome is the proof."""
    for scenario in SCENARIOS:
        given = [
            one
            for one in scenario["exchanges"]
            if one["request"]["path"] not in (AUTH, ATTEST) and one["answer"]["status"] == 200
        ]
        opened = [one for one in scenario["client_says"] if "plaintext" in one]
        assert len(given) == len(opened)
        assert {base64.b64decode(one["plaintext"]) for one in opened} <= {SECRET}


class _Recorder:
    """A proxy before a broker that keeps what is asked."""

    def __init__(self, http):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked.append((self.command, self.path, dict(self.headers.items()), body))
                shown = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() in ("content-type", "cookie", "authorization")
                }
                status, headers, data = http(self.command, self.path, body or None, **shown)
                self.send_response(status)
                for name in ("Content-Type", "Set-Cookie"):
                    if name in headers:
                        self.send_header(name, headers[name])
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815 - named so by http.server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def skeleton(value):
    """Members and kinds of values of JSON, without the values."""
    if isinstance(value, dict):
        return {name: skeleton(one) for name, one in value.items()}
    return type(value).__name__


@pytest.mark.parametrize(
    "recorded",
    # Ours makes no RSA keys: those of others are told in the tests of the broker.
    [one for one in SCENARIOS if one["scenario"] == "cookie" and one["key"] != "RSA-OAEP-256"],
    ids=lambda one: one["key"],
)
def test_our_client_asks_what_that_client_asks(broker, http_of, recorded):
    with (
        _Recorder(http_of(broker.url)) as between,
        BrokerClient(
            between.url, attester=load_attester("sample"), tee_key_algorithm=recorded["key"]
        ) as client,
        client.get("kbs:///default/key/1", manifest_digest=None) as key,
        key.view() as data,
    ):
        assert bytes(data) == SECRET
    # That client asks once before it shakes hands.
    theirs = [one["request"] for one in recorded["exchanges"][1:]]
    assert [one[:2] for one in between.asked] == [(one["method"], one["path"]) for one in theirs]
    for (*_, headers, body), request in zip(between.asked, theirs, strict=True):
        sent = {name.lower(): value for name, value in headers.items()}
        for name, value in request["headers"]:
            if name == "content-type":
                assert sent[name] == value
            elif name == "cookie":
                assert sent[name].partition("=")[0] == value.partition("=")[0]
        if body:
            assert skeleton(json.loads(body)) == skeleton(json.loads(request["body"]))


def test_our_client_is_refused_as_that_client_is(broker):
    digest = parse_digest("sha256:" + "0" * 64)
    with broker.client() as client:
        with client.get("kbs:///default/key/1", manifest_digest=digest):
            pass
        with pytest.raises(KeyUnavailable, match="has no resource"):
            client.get("kbs:///default/key/missing", manifest_digest=None)
        with pytest.raises(KeyRefused) as caught:
            client.get("kbs:///default/secret/denied", manifest_digest=None)
        assert "no-secrets" in caught.value.reason
