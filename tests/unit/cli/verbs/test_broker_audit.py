# SPDX-License-Identifier: Apache-2.0
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from imagers.broker.audit import AuditEvent
from imagers.cli.verbs import broker_audit
from imagers.cli.verbs.broker_audit import _EVENTS
from imagers.errors import KeyRefused
from imagers.model.digest import digest_of


def put(run, admin, name="kbs:///a/b/c"):
    Path("file").write_bytes(b"secret")
    return run("broker", "put", name, "file", *admin)


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
    assert head.split()[5:8] == ["who", "resource", "image"]
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
    assert text.splitlines()[0].split()[:4] == ["id", "at", "event", "outcome"]


def entries(run, admin, *more):
    return run("broker", "audit", *admin, "--json", *more).json()["entries"]


def test_why_shows_all_of_an_entry_and_what_its_session_did_before(run, admin, imagers_broker):
    imagers_broker.put("kbs:///a/b/c", b"secret", image=digest_of(b"image"))
    with imagers_broker.client() as guest, pytest.raises(KeyRefused):
        guest.get("kbs:///a/b/c", manifest_digest=digest_of(b"other"))
    attest, release = entries(run, admin)[-2:]
    assert (attest["event"], release["event"]) == ("attest", "release")
    for name in ("client", "evidence", "claims", "session"):
        assert attest[name] == release[name] is not None
    assert (attest["client"], len(attest["evidence"]), len(attest["claims"])) == (
        "127.0.0.1",
        64,
        64,
    )
    told = run("broker", "audit", *admin, "--why", release["id"])
    lines = told.out.splitlines()
    assert lines[0].split()[:4] == [attest["at"], "attest", "ok", "sample"]
    assert f"claims:   {release['claims']}" in lines
    assert "detail:" in lines
    facts = run("broker", "audit", *admin, "--why", release["id"], "--json").json()
    assert facts == {"entry": release, "before": [attest]}


def test_why_of_no_entry_says_where_the_ids_are(run, admin):
    outcome = run("broker", "audit", *admin, "--why", "0" * 16)
    assert outcome.code == 10
    assert "has no entry 0000000000000000" in outcome.err
    assert "'imagers broker audit' shows the ids" in outcome.err
    outcome = run("broker", "audit", *admin, "--why", "x")
    assert (outcome.code, "16 hex digits, got 'x'" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--follow", "--verify"], "expected one of --follow and --verify"),
        (["--head", "x"], "belong to --verify"),
        (["--state", "x"], "belong to --verify"),
        (["--why", "0" * 16, "--event", "put"], "--why takes no filter, such as --event"),
        (["--verify", "--since", "1h"], "--verify takes no filter, such as --since"),
    ],
    ids=range(5),
)
def test_words_that_do_not_go_together_are_refused(run, admin, words, message):
    outcome = run("broker", "audit", *admin, *words)
    assert outcome.code == 2
    assert message in outcome.err


def test_log_is_compared_with_a_head_that_was_exported(run, admin, imagers_broker):
    put(run, admin)
    assert run("broker", "audit", *admin, "--export-head", "head").code == 0
    put(run, admin, "kbs:///a/b/d")
    state = imagers_broker.admin_key_file.parent
    check = ["broker", "audit", "--verify", "--state", state]
    assert "consistent with themselves; no head was given" in run(*check).out
    assert run(*check, "--head", "head").code == 0
    facts = run(*check, "--head", "head", "--json").json()
    assert facts == {"rows": 3, "signed": 2, "problems": []}
    with closing(sqlite3.connect(state / "broker.sqlite")) as connection:
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute("UPDATE audit SET path = 'x' WHERE number = 2")
        connection.commit()
    outcome = run(*check, "--head", "head")
    assert outcome.code == 20
    assert "broker: row 2 does not follow" in outcome.out
    assert "the audit log is not what was written: 1 place" in outcome.err
    assert run(*check, "--head", "head", "--json").json()["problems"]


def test_head_is_not_written_over_an_older_one(run, admin):
    assert run("broker", "audit", *admin, "--export-head", "head", "--json").json() == {
        "file": "head"
    }
    before = Path("head").read_bytes()
    outcome = run("broker", "audit", *admin, "--export-head", "head")
    assert outcome.code == 13
    assert "an older head proves what a newer one does not" in outcome.err
    assert Path("head").read_bytes() == before


def test_verify_where_there_is_no_store_makes_none(run, tmp_path):
    (tmp_path / "state").mkdir()
    outcome = run("broker", "audit", "--verify", "--state", tmp_path / "state")
    assert outcome.code == 13
    assert "there is no store" in outcome.err
    assert list((tmp_path / "state").iterdir()) == []


def test_follow_prints_each_entry_once_and_those_that_come(run, admin, imagers_broker, monkeypatch):
    imagers_broker.put("kbs:///a/b/d", b"secret")
    coming = ["d2", "d1", "d0"]

    def wait(seconds):
        assert seconds > 0
        if not coming:
            raise KeyboardInterrupt
        imagers_broker.put(f"kbs:///a/b/{coming.pop()}", b"secret")

    monkeypatch.setattr(broker_audit.time, "sleep", wait)
    outcome = run("broker", "audit", *admin, "--follow", "--json", "--event", "put")
    assert outcome.code == 0
    found = [json.loads(line)["uri"] for line in outcome.out.splitlines()]
    assert found == [f"kbs:///a/b/{name}" for name in ("d", "d0", "d1", "d2")]
