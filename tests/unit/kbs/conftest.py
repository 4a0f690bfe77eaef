# SPDX-License-Identifier: Apache-2.0
"""A broker of ours, and a peer that answers as it is told."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imagers.testing.broker import EmbeddedBroker


@pytest.fixture
def embedded():
    with EmbeddedBroker() as broker:
        yield broker


class Scripted:
    """Answers by path with what stands in `answers`; the last answer of a path repeats."""

    def __init__(self):
        self.answers = {}
        self.requests = []
        self.url = ""

    def say(self, path, *answers):
        self.answers[path] = list(answers)

    def say_error(self, path, status, name, detail=""):
        self.say(path, (status, {}, error_body(name, detail)))

    def count(self, path):
        return sum(one[1].partition("?")[0] == path for one in self.requests)


def error_body(name, detail):
    kind = f"https://github.com/confidential-containers/kbs/errors/{name}"
    return json.dumps({"type": kind, "detail": detail}).encode()


@pytest.fixture
def scripted():
    script = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            length = int(self.headers.get("Content-Length", "0"))
            body = self.rfile.read(length)
            script.requests.append((self.command, self.path, dict(self.headers), body))
            left = script.answers.get(self.path.partition("?")[0], [(404, {}, b"nothing here")])
            status, headers, data = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
