# SPDX-License-Identifier: Apache-2.0
"""The published description and the program say the same."""

import json
import re
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imagers.broker.admins import ROLES
from imagers.broker.app import create_app
from imagers.broker.openapi import openapi_json
from imagers.broker.refusals import STATUS
from imagers.kbs.admin import BrokerAdmin
from imagers.kbs.tenants import TenantAdmin
from imagers.kbs.wire import ERROR_TYPE_PREFIX, admin_key_id
from imagers.pki.jose import sign_token

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
        if route.path != "/{path:path}" and not route.path.startswith("/ui")  # pages for people
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


SEE, WRITE = ("owner", "writer", "auditor"), ("owner", "writer")
READ, APPOINT = ("owner", "auditor"), ("owner", "operator")
FOR_ROLES = {
    "resource": {"get": SEE},
    f"resource/{RESOURCE}": dict.fromkeys(("post", "put", "delete"), WRITE),
    f"imagers/metadata/{RESOURCE}": {"get": SEE},
    f"imagers/binding/{RESOURCE}": {"post": WRITE},
    f"imagers/undelete/{RESOURCE}": {"post": WRITE},
    "imagers/image/{repository}": {"get": SEE},
    "imagers/image/{repository}/approval": {"post": WRITE},
    "imagers/image/{repository}/revocation": {"post": WRITE},
    "imagers/image/{repository}/successor": {"post": WRITE},
    "imagers/image/{repository}/floor": {"post": ("owner",)},
    "imagers/policy": {"get": READ, "post": ("owner",)},
    "imagers/attestation-policy/{name}": {"get": READ, "post": ("owner",), "delete": ("owner",)},
    "imagers/reference-value": {"get": READ, "post": ("owner",)},
    "imagers/reference-value/{name}": {"delete": ("owner",)},
    "imagers/audit": {"get": ("owner", "auditor", "operator")},
    "imagers/audit/head": {"get": ("operator",)},
    "imagers/admin-key": dict.fromkeys(("get", "post"), APPOINT),
    "imagers/admin-key/{id}": {"delete": APPOINT},
    "imagers/tenant": {"get": ("operator",)},
    "imagers/tenant/{name}": dict.fromkeys(("post", "delete"), ("operator",)),
    "imagers/repository/{name}": {"post": ("operator",)},
    "resource-policy": {"get": READ, "post": ("owner",)},
    "attestation-policy": {"post": ("owner",)},
    "reference-value": {"post": ("owner",)},
    "reference-value/{name}": {"get": READ},
}


def test_each_operation_of_admins_is_for_its_roles_and_no_other(shared, shared_http):
    keys = {}
    with BrokerAdmin(shared.url, key_file=shared.admin_key_file) as admin:
        for role in ROLES:
            keys[role] = Ed25519PrivateKey.generate()
            TenantAdmin(admin).add_key(f"the-{role}", [role], keys[role].public_key())

    def token(role):
        now = int(time.time())
        claims = {"iat": now, "exp": now + 60, "role": "admin"}
        kid = admin_key_id(keys[role].public_key())
        return f"Bearer {sign_token(claims, key=keys[role], header={'kid': kid})}"

    walked = set()
    for method, path in sorted(described()):
        operation = DOCUMENT["paths"][path][method]
        if operation["security"] != [{"admin": []}]:
            continue
        walked.add((method, path))
        roles = FOR_ROLES[path.removeprefix("/kbs/v0/")][method]
        for role in ROLES:
            answer = shared_http(method.upper(), filled(path), Authorization=token(role))
            name = json.loads(answer[2])["type"].rpartition("/")[2] if answer[0] >= 400 else ""
            assert name != "AdminAuthAccess"
            assert (name == "RoleDenied") is (role not in roles), (method, path, role, name)
    assert len(walked) == sum(map(len, FOR_ROLES.values()))


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
