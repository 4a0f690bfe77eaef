# SPDX-License-Identifier: Apache-2.0
"""The published description and the program say the same."""

import json
import re

from imagers.broker.app import create_app
from imagers.broker.openapi import openapi_json
from imagers.broker.refusals import STATUS
from imagers.kbs.wire import ERROR_TYPE_PREFIX

DOCUMENT = json.loads(openapi_json())
METHODS = ("get", "post", "put", "delete")
RESOURCE = "{repository}/{type}/{tag}"


def described():
    """(method, path) of each operation."""
    return {
        (method, path)
        for path, item in DOCUMENT["paths"].items()
        for method in METHODS
        if method in item
    }


def filled(path):
    return re.sub(r"\{[a-z]+\}", "x", path)


def test_each_route_is_described_and_no_other(state):
    routes = {
        route.path.replace("{path:path}", RESOURCE).replace("{name:path}", "{name}")
        for route in create_app(state).routes
        if route.path != "/{path:path}"
    }
    assert routes == set(DOCUMENT["paths"])


def test_each_method_is_described_and_no_other(shared, shared_http, admin_headers):
    """What is not described is refused for its method, also for an admin."""
    admin = admin_headers(shared)
    for path in DOCUMENT["paths"]:
        for method in METHODS:
            status, _, body = shared_http(method.upper(), filled(path), **admin)
            name = json.loads(body)["type"].rpartition("/")[2] if status >= 400 else ""
            is_refused = name in ("MethodNotAllowed", "PluginNotFound") or (
                # For probes: any other method finds nothing.
                path in ("/healthz", "/readyz", "/metrics") and method != "get"
            )
            assert is_refused is ((method, path) not in described()), (method, path, status, name)


def test_stranger_gets_what_is_for_anybody_and_nothing_else(shared_http):
    for method, path in described():
        operation = DOCUMENT["paths"][path][method]
        status, _, body = shared_http(method.upper(), filled(path))
        name = json.loads(body)["type"].rpartition("/")[2] if status >= 400 else ""
        wanted = {next(iter(one)) for one in operation["security"]}
        if wanted == {"admin"}:
            assert (status, name) == (401, "AdminAuthAccess"), path
        elif wanted:
            assert (status, name) in ((401, "TokenNotFound"), (401, "SessionNotFound")), path
        else:
            assert status in (200, 400, 404), path


def test_document_is_published_to_anybody(shared_http):
    status, headers, body = shared_http("GET", "/openapi.json")
    assert (status, headers["Content-Type"], body) == (200, "application/json", openapi_json())


def test_each_reference_leads_somewhere_and_each_schema_is_used():
    text = openapi_json().decode()
    used = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert used == set(DOCUMENT["components"]["schemas"])


def test_errors_are_those_of_the_table():
    names = DOCUMENT["components"]["schemas"]["Error"]["properties"]["type"]["enum"]
    assert names == [ERROR_TYPE_PREFIX + name for name in STATUS]


def test_path_parameters_are_those_of_the_path():
    for path, item in DOCUMENT["paths"].items():
        told = {one["name"] for one in item.get("parameters", []) if one["in"] == "path"}
        assert told == set(re.findall(r"\{([a-z]+)\}", path))
