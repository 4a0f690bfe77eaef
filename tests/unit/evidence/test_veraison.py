# SPDX-License-Identifier: Apache-2.0
"""The client of Veraison's service, against what the real one said, and against wrong ones."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imagers.errors import CouldNotVerify
from imagers.evidence.veraison import DISCOVERY, RESULT, Veraison

VECTORS = Path(__file__).parents[2] / "vectors" / "veraison"
EXCHANGE = {one["name"]: one for one in json.loads((VECTORS / "exchange.json").read_text())}
NONCE = bytes(range(48)).ljust(64, b"\0")
EVIDENCE = base64.b64decode(EXCHANGE["evidence"]["request"]["body"])
PROFILE = "http://arm.com/CCA-SSD/1.0.0"
WELL_KNOWN = "/.well-known/veraison/verification"
SESSION = EXCHANGE["session"]["response"]["headers"]["Location"]


def recorded(name):
    answer = EXCHANGE[name]["response"]
    return answer["status"], answer["headers"], answer["body"].encode()


@contextmanager
def service(answer):
    """A server whose answers `answer(method, path, body)` gives: status, headers, body."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.command, self.path, dict(self.headers), body))
            status, headers, data = answer(self.command, self.path, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815  # names of the base class

        def log_message(self, *_):
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def as_the_real_one(method, path, body):
    """What was recorded, by what is asked."""
    if path == WELL_KNOWN:
        return recorded("discovery")
    if path.startswith("/challenge-response/v1/newSession?nonce="):
        padded = path.endswith("%3D%3D")
        return recorded("session" if padded else "session, nonce without padding")
    assert path == f"/challenge-response/v1/{SESSION}"
    if method == "DELETE":
        return recorded("end")
    assert body == EVIDENCE
    return recorded("evidence")


def ask(url, *, evidence=EVIDENCE, profile=PROFILE, **more):
    one = Veraison(url, sleep=lambda _: None, **more)
    return one.ask(evidence, profile=profile, nonce=NONCE)


def test_what_the_real_service_said_is_asked_for_and_found():
    with service(as_the_real_one) as (url, seen):
        found = ask(url)
    assert json.loads(found[DISCOVERY])["ear-verification-key"]["crv"] == "P-256"
    assert found[RESULT].decode() == json.loads(recorded("evidence")[2])["result"]
    assert [(method, path.partition("?")[0]) for method, path, _, _ in seen] == [
        ("GET", WELL_KNOWN),
        ("POST", "/challenge-response/v1/newSession"),
        ("POST", f"/challenge-response/v1/{SESSION}"),
        ("DELETE", f"/challenge-response/v1/{SESSION}"),
    ]
    recorded_type = EXCHANGE["evidence"]["request"]["headers"]["Content-Type"]
    assert seen[2][2]["Content-Type"] == recorded_type


def test_service_whose_keys_are_known_is_not_asked_for_them():
    with service(as_the_real_one) as (url, seen):
        assert ask(url, has_keys=True).keys() == {RESULT}
    assert WELL_KNOWN not in [path for _, path, _, _ in seen]


def test_newer_service_gets_the_nonce_without_padding():
    def newer(method, path, body):
        if "newSession" in path:
            name = "session, nonce without padding" if "%3D" in path else "session"
            return recorded(name)
        return as_the_real_one(method, path, body)

    with service(newer) as (url, seen):
        assert RESULT in ask(url)
    assert sum("newSession" in path for _, path, _, _ in seen) == 2


def test_result_that_takes_its_time_is_waited_for_and_not_for_ever():
    complete = json.loads(recorded("evidence")[2])
    left = [2]

    def slow(method, path, body):
        if "session/" not in path or method == "DELETE":
            return as_the_real_one(method, path, body)
        left[0] -= 1
        state = complete if left[0] < 0 else {**complete, "status": "processing"}
        return 202 if method == "POST" else 200, {}, json.dumps(state).encode()

    with service(slow) as (url, _):
        assert RESULT in ask(url)
        left[0] = 1000
        with pytest.raises(CouldNotVerify, match="still processing after 5 s"):
            ask(url)


def instead(where, status, headers, body):
    """The real one, but for one answer."""

    def answer(method, path, given):
        if where in f"{method} {path}":
            return status, headers, body
        return as_the_real_one(method, path, given)

    return answer


@pytest.mark.parametrize(
    ("where", "status", "headers", "body", "piece"),
    [
        ("GET /.well-known", 404, {}, b"", "404"),
        ("newSession", 400, {}, b"{}", "takes the nonce in no form"),
        ("newSession", 500, {}, b"", "500"),
        ("newSession", 201, {"Location": "http://127.0.0.2:1/x"}, b"{}", "at another server"),
        ("newSession", 201, {"Location": "session/1"}, b"[]", "answer of Veraison"),
        ("newSession", 201, {"Location": "session/1"}, b'{"accept": ["a"]}', "no evidence with"),
        ("POST /challenge-response/v1/session/", 415, {}, b"", "415"),
        ("POST /challenge-response/v1/session/", 200, {}, b'{"status":"failed"}', "as 'failed'"),
        ("POST /challenge-response/v1/session/", 200, {}, b'{"status":"complete"}', "result"),
        ("POST /challenge-response/v1/session/", 200, {}, b"x" * 600_000, "524288"),
    ],
)
def test_service_that_gives_no_result_is_could_not_look(where, status, headers, body, piece):
    with (
        service(instead(where, status, headers, body)) as (url, _),
        pytest.raises(CouldNotVerify, match="the service of Veraison gave no result") as caught,
    ):
        ask(url)
    assert piece in str(caught.value)


def test_service_that_is_dead_is_could_not_look():
    with service(as_the_real_one) as (url, _):
        pass
    with pytest.raises(CouldNotVerify, match="gave no result"):
        ask(url)


def test_certificates_that_are_gone_are_could_not_look(tmp_path):
    with pytest.raises(CouldNotVerify, match="could not be read"):
        ask("https://127.0.0.1:1", ca_file=str(tmp_path / "none.pem"))


def test_session_that_cannot_be_ended_does_no_harm():
    with service(instead("DELETE", 500, {}, b"")) as (url, _):
        assert RESULT in ask(url)
