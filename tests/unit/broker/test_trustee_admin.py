# SPDX-License-Identifier: Apache-2.0
"""What Trustee's client sends as an admin is done, or refused in one line."""

import base64
import json
from pathlib import Path

import pytest

from imagers.broker.trustee_admin import MAX_MESSAGE_BYTES
from imagers.kbs.admin import BrokerAdmin
from imagers.kbs.wire import ERROR_TYPE_PREFIX

TABLE = {
    "rules": [{"name": "all", "effect": "allow", "resource": "*/*/*", "image": "any"}],
}
REGO = b"package policy\n\ndefault allow = false\n"


RECORDED = json.loads(
    (Path(__file__).resolve().parents[2] / "vectors/guest-components/admin.json").read_bytes()
)


def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def message(kind, payload):
    """As `kbs-client config set-sample-reference-value` writes it."""
    return json.dumps(
        {"version": "0.1.0", "type": kind, "payload": base64.b64encode(payload).decode()}
    ).encode()


@pytest.fixture
def admin(embedded, http, admin_headers):
    headers = admin_headers(embedded)

    def send(method, path, body=None):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        status, _, answer = http(method, f"/kbs/v0/{path}", body, **headers)
        return status, answer

    return send


def error(answer):
    status, body = answer
    told = json.loads(body)
    assert set(told) == {"type", "detail"}
    return status, told["type"].removeprefix(ERROR_TYPE_PREFIX), told["detail"]


def test_resource_policies_are_listed_by_id(admin):
    assert admin("GET", "resource-policy") == (200, b'["resource-policy"]')


def test_resource_policy_may_be_the_table_of_this_broker(embedded, admin):
    text = json.dumps(TABLE)
    assert admin("POST", "resource-policy", {"policy": url64(text.encode())}) == (200, b"")
    with BrokerAdmin(embedded.url, key_file=embedded.admin_key_file) as own:
        assert own.get_policy() == text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("resource-policy", {"policy": url64(REGO)}),
        (
            "attestation-policy",
            {"type": "rego", "policy_id": "default_cpu", "policy": url64(REGO)},
        ),
    ],
)
def test_policy_in_rego_is_put_in_force_or_refused_with_its_line(admin, path, body):
    kept = "imagers/policy" if path == "resource-policy" else "imagers/attestation-policy/cpu"
    assert admin("POST", path, body) == (200, b"")
    assert admin("GET", kept) == (200, REGO)
    broken = body | {"policy": url64(REGO + b"\nallow if { nothing(1) }\n")}
    status, name, detail = error(admin("POST", path, broken))
    assert (status, name) == (400, "SerdeError")
    assert "line" in detail
    assert admin("GET", kept) == (200, REGO)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("resource-policy", b""),
        ("resource-policy", b"[]"),
        ("resource-policy", {}),
        ("resource-policy", {"policy": 7}),
        ("resource-policy", {"policy": "%%%"}),
        ("resource-policy", {"policy": url64(b'{"rules": 7}')}),
        ("resource-policy", {"policy": url64(b"{\xff")}),
        ("attestation-policy", {"policy": url64(REGO)}),
        ("attestation-policy", {"policy_id": "default_cpu"}),
        ("reference-value", b"{"),
        ("reference-value", {"version": "0.1.0"}),
        ("reference-value", {"version": "0.2.0", "type": "sample", "payload": ""}),
        ("reference-value", {"version": "0.1.0", "type": "sample", "payload": "%"}),
        ("reference-value", {"version": "0.1.0", "type": "x", "payload": "e30="}),
        ("reference-value", {"reference_values": []}),
        ("reference-value", message("sample", b"{}")),
        ("reference-value", message("sample", b'{"a": 1.5}')),
        ("reference-value", message("sample", b'{"a": null}')),
        ("reference-value", message("sample", b'{"/a": 1}')),
        ("reference-value", message("sample", b'{"a": 1, "a": 2}')),
        ("reference-value", message("corim", b"{}")),
        ("reference-value", message("corim", b"\xd9\x01\xf5")),
        ("reference-value", message("swid", b"<x/>")),
    ],
)
def test_message_that_is_none_is_refused(admin, path, body):
    status, name, _ = error(admin("POST", path, body))
    assert (status, name) == (400, "SerdeError")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (["ab"], ["ab"]),
        ([1, 2], [1, 2]),
        (True, True),
        ("one", "one"),
        (7, 7),
        (False, False),
    ],
)
def test_sample_reference_value_is_given_back_as_it_was_set(admin, value, kept):
    body = message("sample", json.dumps({"svn": value}).encode())
    assert admin("POST", "reference-value", body) == (200, b"")
    status, answer = admin("GET", "reference-value/svn")
    assert (status, json.loads(answer)) == (200, kept)


def test_reference_value_takes_the_place_of_the_one_before(admin):
    for value in ("a", "b"):
        admin("POST", "reference-value", message("sample", json.dumps({"x": [value]}).encode()))
    assert json.loads(admin("GET", "reference-value/x")[1]) == ["b"]


def test_reference_value_says_where_it_is_from(embedded, admin):
    admin("POST", "reference-value", message("sample", b'{"x": ["a"]}'))
    with BrokerAdmin(embedded.url, key_file=embedded.admin_key_file) as own:
        (one,) = own.reference_values()
    assert (one.name, one.source, one.expires) == ("x", "a message of Trustee's", None)


def test_reference_value_that_has_expired_is_not_given(admin):
    body = {
        "reference_values": [
            {"name": "x", "values": ["a"], "expires": "2020-01-01T00:00:00Z"},
            {"name": "y", "values": ["a"], "expires": "2999-01-01T00:00:00Z"},
        ]
    }
    assert admin("POST", "imagers/reference-value", body)[0] == 200
    assert error(admin("GET", "reference-value/x"))[:2] == (404, "ResourceNotFound")
    assert admin("GET", "reference-value/y") == (200, b'["a"]')


@pytest.mark.parametrize("name", ["missing", "", "a/b/c", "..", "%00", "x" * 5000])
def test_reference_value_that_is_not_there_is_not_found(admin, name):
    assert error(admin("GET", f"reference-value/{name}"))[0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "resource-policy"),
        ("DELETE", "resource-policy"),
        ("GET", "attestation-policy"),
        ("DELETE", "attestation-policy"),
        ("GET", "reference-value"),
        ("PUT", "reference-value"),
        ("POST", "reference-value/x"),
        ("DELETE", "reference-value/x"),
        ("GET", "pkcs11/wrap-key"),
        ("POST", "provisioner/provision"),
        ("GET", "external/name/x"),
        ("GET", "nebula-ca/credential"),
    ],
)
def test_wrong_method_of_a_built_in_and_unknown_plugins_are_not_found(admin, method, path):
    assert error(admin(method, path))[:2] == (404, "PluginNotFound")


def test_message_that_is_too_large_is_refused(admin):
    assert error(admin("POST", "reference-value", b" " * (MAX_MESSAGE_BYTES + 1)))[0] == 413


def test_stranger_may_none_of_it(shared_http):
    for method, path in (
        ("GET", "resource-policy"),
        ("POST", "resource-policy"),
        ("POST", "attestation-policy"),
        ("POST", "reference-value"),
        ("GET", "reference-value/x"),
    ):
        status, _, body = shared_http(
            method, f"/kbs/v0/{path}", b"{}" if method == "POST" else None
        )
        assert error((status, body))[:2] == (401, "AdminAuthAccess")


def test_client_of_trustee_is_answered_as_it_was_recorded(embedded, http, admin_headers):
    """Each verb of `kbs-client config`, in its own bytes."""
    token = admin_headers(embedded)["Authorization"]
    for one in RECORDED:
        request, answer = one["exchange"]["request"], one["exchange"]["answer"]
        headers = {
            name.replace("-", "_"): value.replace("Bearer ADMIN", token)
            for name, value in request["headers"]
            if name != "content-length"
        }
        status, _, body = http(
            request["method"], request["path"], request["body"].encode() or None, **headers
        )
        assert (status, body.decode()) == (answer["status"], answer["body"])
        assert (status == 200) is (one["exit_code"] == 0)
    verbs = {one["verb"][0] for one in RECORDED}
    assert {"set-resource", "set-resource-policy", "set-attestation-policy"} <= verbs
    assert {"delete-resource", "get-reference-value", "set-sample-reference-value"} <= verbs
