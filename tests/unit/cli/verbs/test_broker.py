# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from imagers.broker.audit import AuditEvent
from imagers.cli.verbs.broker import _EVENTS
from imagers.errors import KeyRefused
from imagers.model.digest import digest_of


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


def test_audit_filters_and_shows_image_and_session(run, admin, imagers_broker):
    image = digest_of(b"image")
    imagers_broker.put("kbs:///a/b/c", b"secret", image=image)
    imagers_broker.put("kbs:///a/b/d", b"secret")
    with imagers_broker.client() as guest:
        guest.get("kbs:///a/b/c", manifest_digest=image).close()
        with pytest.raises(KeyRefused):
            guest.get("kbs:///a/b/d", manifest_digest=image)

    def rows(*filters):
        found = run("broker", "audit", *admin, "--json", *filters)
        assert found.code == 0, found.err
        return [(row["event"], row["uri"], row["outcome"]) for row in found.json()["entries"]]

    got = ("release", "kbs:///a/b/c", "ok")
    refused = ("release", "kbs:///a/b/d", "refused")
    assert rows("--event", "release") == [got, refused]
    assert rows("--event", "release", "--resource", "kbs:///a/b/d") == [refused]
    assert rows("--outcome", "refused") == [refused]
    assert got in rows("--image", str(image)[:19], "--limit", "9")
    assert rows("--image", image.hex[:8], "--outcome", "refused") == [refused]
    assert rows("--image", image.hex.upper(), "--outcome", "refused") == [refused]
    assert rows("--outcome", "refused", "--resource", "a/b/d") == [refused]
    assert rows("--since", "1h", "--event", "release") == [got, refused]
    assert rows("--since", "2999-01-01T00:00:00Z") == []
    session = run("broker", "audit", *admin, "--json").json()["entries"][-1]["session"]
    assert rows("--session", session, "--event", "release") == [got, refused]
    assert rows("--session", "nobody") == []
    head, *lines = run("broker", "audit", *admin, "--event", "release").out.splitlines()
    assert head.split()[5:8] == ["session", "resource", "image"]
    assert [line.split()[5:8] for line in lines] == [
        [session, "a/b/c", str(image)[:19]],
        [session, "a/b/d", str(image)[:19]],
    ]


@pytest.mark.parametrize(
    "time", ["yesterday", "0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-14:00", "999999999d"]
)
def test_audit_with_a_time_that_is_none_is_a_usage_error(run, admin, time):
    outcome = run("broker", "audit", *admin, "--since", time)
    assert outcome.code == 2
    assert "--since: expected a time such as" in outcome.err


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--event", "releases", 2),
        ("--resource", "kbs://host/a/b/c", 11),
        ("--resource", "a/b", 11),
        ("--image", "sha256:%", 2),
        ("--image", "docker://r.example/app", 2),
    ],
)
def test_audit_filter_that_no_entry_can_fit_is_refused(run, admin, option, value, code):
    """An empty list would look like the answer that nobody got anything."""
    outcome = run("broker", "audit", *admin, option, value)
    assert (outcome.code, outcome.out) == (code, "")
    assert option in outcome.err


def test_audit_events_are_those_that_the_broker_writes():
    assert list(get_args(get_type_hints(AuditEvent)["event"])) == _EVENTS


def test_audit_shows_the_newest_entries(run, admin):
    for number in range(3):
        put(run, admin, f"kbs:///a/b/c{number}")
    entries = run("broker", "audit", *admin, "--limit", "2", "--json").json()["entries"]
    assert len(entries) == 2
    assert entries[-1]["uri"] == "kbs:///a/b/c2"
    assert entries[-1]["tee"] is None
    text = run("broker", "audit", *admin).out
    assert text.splitlines()[0].split()[:4] == ["no", "at", "event", "outcome"]


def test_broker_of_this_machine_is_the_default(run):
    outcome = run("broker", "list", "--broker-admin-key", "/nowhere/key")
    assert outcome.code == 13
    assert "/nowhere/key" in outcome.err
