# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest


def put(run, admin, name="kbs:///a/b/c", data=b"secret", *more):
    Path("file").write_bytes(data)
    return run("broker", "put", name, "file", *admin, *more)


def test_put_get_list_delete(run, admin):
    assert put(run, admin).out == "stored kbs:///a/b/c, 6 bytes, bound to no image\n"
    assert run("broker", "list", *admin).out == "kbs:///a/b/c\n"
    facts = run("broker", "get", "kbs:///a/b/c", *admin, "--json").json()
    assert facts["size"] == 6
    assert facts["manifest_digests"] == []
    assert run("broker", "delete", "kbs:///a/b/c", *admin).code == 0
    assert run("broker", "list", *admin, "--json").json() == {"uris": []}


def test_get_never_shows_the_secret(run, admin):
    put(run, admin)
    for words in (["get", "kbs:///a/b/c"], ["get", "kbs:///a/b/c", "--json"], ["audit"]):
        outcome = run("broker", *words, *admin)
        assert outcome.code == 0
        assert "secret" not in outcome.out.replace("secret-", "")


def test_put_of_a_taken_name_needs_replace(run, admin):
    put(run, admin)
    refused = put(run, admin)
    assert refused.code == 10
    assert "--replace" in refused.err
    assert put(run, admin, "kbs:///a/b/c", b"another", "--replace").code == 0
    assert run("broker", "get", "kbs:///a/b/c", *admin, "--json").json()["size"] == 7


@pytest.mark.parametrize("data", [b"", b"x" * (2 * 1024 * 1024 + 1)], ids=["empty", "too large"])
def test_put_of_no_secret_refused(run, admin, data):
    outcome = put(run, admin, "kbs:///a/b/c", data)
    assert outcome.code == 13
    assert "expected 1 to" in outcome.err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("localhost:8447", "http://localhost:8447"),
        ("[::1]:8447", "http://[::1]:8447"),
        ("kbs.example", "https://kbs.example"),
        ("kbs.example:8447/base", "https://kbs.example:8447/base"),
    ],
)
def test_broker_address_without_a_scheme_is_explained(run, given, meant):
    outcome = run("broker", "list", "--broker", given)
    assert outcome.code == 2
    assert outcome.err == (
        f"imagers: error: --broker: expected a URL with http:// or https://, got '{given}'\n"
        f"imagers: hint: write --broker {meant}\n"
    )


def test_broker_of_this_machine_is_the_default(run):
    outcome = run("broker", "list", "--broker-admin-key", "/nowhere/key")
    assert outcome.code == 13
    assert "/nowhere/key" in outcome.err
