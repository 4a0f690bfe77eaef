# SPDX-License-Identifier: Apache-2.0
import json
import sqlite3
from contextlib import closing

import pytest

from imagers.broker.refusals import Refusal
from imagers.broker.resources import Ends
from imagers.errors import FormatError
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey

PATH = "default/key/1"


def bind(resources, digest):
    resources.bind(PATH, json.dumps({"manifest_digest": str(digest)}).encode())


@pytest.fixture
def stored(resources):
    resources.put(PATH, SecretKey(b"a secret"), replace=False)
    bind(resources, digest_of(b"manifest"))
    return resources


def refused(call, *arguments, **named):
    with pytest.raises(Refusal) as caught:
        call(*arguments, **named)
    return caught.value


@pytest.mark.parametrize("size", [0, 2 * 1024 * 1024 + 1])
def test_put_of_a_size_out_of_bounds_refused(resources, size):
    refusal = refused(resources.put, PATH, SecretKey(bytes(size)), replace=False)
    assert refusal.name == "SerdeError"


def test_put_refused_is_in_the_audit_log(stored, rows):
    assert refused(stored.put, PATH, SecretKey(b"x"), replace=False).status == 409
    assert (rows()[-1].event, rows()[-1].outcome) == ("put", "refused")


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"manifest_digest":"sha256:x"}', b'{"manifest_digest":1}', b" " * 5000],
)
def test_bind_message_that_is_none_refused(stored, body):
    with pytest.raises(FormatError):
        stored.bind(PATH, body)


def test_bind_beyond_the_limit_refused(stored, state):
    from imagers.kbs.resources import parse_resource_path

    with state.store.transaction() as transaction:
        path = parse_resource_path(PATH)
        for number in range(999):
            transaction.add_binding(path, digest_of(b"%d" % number), by="", at="")
    assert "at most 1000" in refused(bind, stored, digest_of(b"last")).detail


@pytest.mark.parametrize("limit", ["", "-1", "x", "1e3", "1000000", "\u0661"])
def test_audit_limit_that_is_no_number_refused(resources, limit):
    assert refused(resources.audit, limit).name == "SerdeError"


@pytest.mark.parametrize(
    "time", ["", "1h", "2026-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-14:00"]
)
def test_audit_since_that_is_no_time_refused(resources, time):
    assert refused(resources.audit, "9", {"since": time}).name == "SerdeError"


@pytest.mark.parametrize(
    "change", ["hash = NULL", "hash = 'x'", "hash = x'00'", "detail = x'00'", "outcome = NULL"]
)
def test_audit_with_a_row_that_was_changed_says_so(resources, state, change):
    resources.set_policy(b'{"rules": []}')
    with closing(sqlite3.connect(state.config.state_directory / "broker.sqlite")) as database:
        database.executescript(
            "DROP TRIGGER audit_no_update; PRAGMA writable_schema = ON;"
            "UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'audit';"
            "PRAGMA writable_schema = RESET;"
        )
        database.execute(f"UPDATE audit SET event = 'release', {change}")  # noqa: S608 - ours
        database.commit()
    refusal = refused(resources.audit, "9")
    assert (refusal.status, refusal.name) == (503, "StoreUnavailable")
    assert "a row of the audit log was changed from outside; 'imagers broker" in refusal.detail
    if "outcome" in change:
        assert refused(resources.count_releases, "2026").detail == refusal.detail


def test_audit_filters_are_texts_and_no_patterns(resources):
    for name, value in (("image", "%"), ("session", "_"), ("path", "' OR 1=1 --")):
        assert resources.audit("9", {name: value}) == b'{"entries":[]}'


def test_set_policy_that_is_no_text_refused(resources):
    with pytest.raises(FormatError, match="UTF-8"):
        resources.set_policy(b"\xff")


def test_deleted_secret_comes_back_with_its_bindings(stored):
    stored.delete(PATH)
    assert refused(stored.metadata, PATH).status == 404
    stored.undelete(PATH, None)
    found = json.loads(stored.metadata(PATH))
    assert (found["version"], found["former"]) == (1, [])
    assert found["manifest_digests"] == [str(digest_of(b"manifest"))]


def test_replaced_secret_comes_back_and_the_other_is_kept(stored, rows):
    for size in (2, 3):
        stored.put(PATH, SecretKey(bytes(size)), replace=True)
    stored.undelete(PATH, 2)
    found = json.loads(stored.metadata(PATH))
    assert (found["version"], found["size"]) == (2, 2)
    assert [one["version"] for one in found["former"]] == [3, 1]
    assert (rows()[-1].event, rows()[-1].detail) == ("undelete", "version 2")
    stored.put(PATH, SecretKey(b"x"), replace=True)
    assert json.loads(stored.metadata(PATH))["version"] == 4


def test_undelete_of_what_is_not_kept_refused(stored):
    for version in (None, 1, 2):
        assert refused(stored.undelete, PATH, version).name == "ResourceNotFound"
    stored.delete(PATH)
    assert refused(stored.undelete, PATH, 2).name == "ResourceNotFound"
    stored.delete(PATH, permanently=True)
    assert refused(stored.undelete, PATH, None).name == "ResourceNotFound"
    assert refused(stored.delete, PATH, permanently=True).name == "ResourceNotFound"


@pytest.mark.parametrize("text", ["", "0", "-1", "1e3", "x", "9" * 13, "999999999999", "\u0661"])
def test_end_that_is_no_number_refused(text):
    for pair in ((text, None), (None, text)):
        assert refused(Ends.parse, *pair).name == "SerdeError"


def test_ends_are_numbers_or_none():
    assert Ends.parse(None, None) == Ends()
    assert Ends.parse("1798761600", "3") == Ends(1798761600, 3)
    assert Ends(1798761600, 3).told() == "expires 2027-01-01T00:00:00+00:00; uses 3"
    assert Ends().told() == ""
