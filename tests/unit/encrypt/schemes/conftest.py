# SPDX-License-Identifier: Apache-2.0
import base64
import json
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from imagers.encrypt.schemes.providers.remote import decode_message, encode_message

# A provider that hides bytes by turning them around, and shows what it was asked.
PROGRAM = """
import base64, json, os, sys
question = json.load(sys.stdin)
with open({log!r}, "a") as log:
    log.write(json.dumps(question) + "\\n")
if question["op"] == "keywrap":
    data = base64.b64decode(question["keywrapparams"]["optsdata"])[::-1]
    answer = {{"keywrapresults": {{"annotation": FORM(data)}}}}
else:
    data = base64.b64decode(question["keyunwrapparams"]["annotation"])[::-1]
    answer = {{"keyunwrapresults": {{"optsdata": FORM(data)}}}}
json.dump(answer, sys.stdout)
"""
FORMS = {"base64": "base64.b64encode(data).decode()", "integers": "list(data)"}


@pytest.fixture
def program(tmp_path):
    """A function: the command of a provider, by the Python text that it is."""

    def write(text):
        path = tmp_path / "provider.py"
        path.write_text(textwrap.dedent(text))
        return sys.executable, (str(path),)

    return write


@pytest.fixture(params=FORMS)
def turning(request, program, tmp_path):
    """Command of a provider that works, in each dialect, and the list of its questions."""
    log = tmp_path / "questions"
    text = PROGRAM.format(log=str(log)).replace("FORM(data)", FORMS[request.param])
    return program(text), lambda: [json.loads(line) for line in log.read_text().splitlines()]


class Service:
    """The same on gRPC."""

    def __init__(self):
        self.questions = []
        self.failure = None
        self.release = None

    def answer(self, message, context):
        question = json.loads(decode_message(message))
        self.questions.append(question)
        if self.release is not None:
            self.release.wait(20)
        if self.failure is not None:
            context.abort(*self.failure)
        wraps = question["op"] == "keywrap"
        given = question["keywrapparams"]["optsdata"] or question["keyunwrapparams"]["annotation"]
        data = list(base64.b64decode(given)[::-1])
        answer = (
            {"keywrapresults": {"annotation": data}}
            if wraps
            else {"keyunwrapresults": {"optsdata": data}}
        )
        return encode_message(json.dumps(answer).encode())


@pytest.fixture
def serve():
    """A function: a service and its address, with TLS if credentials are given."""
    servers = []

    def start(credentials=None):
        service = Service()
        server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(service.answer)
        methods = {"WrapKey": handler, "UnWrapKey": handler}
        name = "keyprovider.KeyProviderService"
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, methods)])
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return service, f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()
