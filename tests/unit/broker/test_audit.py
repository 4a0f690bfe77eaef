# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

from imagers.broker.audit import AuditEvent, RefusalLimit, append, shown_session

NOW = datetime(2026, 11, 1, 12, 0, 0, 500_000, tzinfo=UTC)


def test_append_writes_all_members_and_the_time(state, rows):
    event = AuditEvent(
        event="release",
        outcome="refused",
        tee="snp",
        path="default/key/1",
        image="sha256:0",
        rule="r",
        session="abc",
        detail="why",
    )
    with state.store.transaction() as transaction:
        append(transaction, event, now=NOW)
    (row,) = rows()
    assert row.at == "2026-11-01T12:00:00.500+00:00"
    assert (row.event, row.outcome, row.tee, row.path) == (
        "release",
        "refused",
        "snp",
        "default/key/1",
    )
    assert (row.image, row.rule, row.session, row.detail) == ("sha256:0", "r", "abc", "why")


def test_append_bounds_and_cleans_what_callers_wrote(state, rows):
    path, detail = "a\x1b[2J\n" + "b" * 1000, "c" * 3000
    event = AuditEvent(event="release", outcome="refused", path=path, detail=detail)
    with state.store.transaction() as transaction:
        append(transaction, event, now=NOW)
    (row,) = rows()
    assert row.path.startswith("a\ufffd[2J\ufffdb")
    assert (len(row.path), len(row.detail)) == (400, 2000)


def test_shown_session_is_a_part_of_the_name():
    assert shown_session("0123456789abcdef0123456789abcdef") == "0123456789ab"
    assert shown_session("") == ""


def test_refusal_limit_bounds_a_minute_and_counts_what_it_left_out():
    limit = RefusalLimit(a_minute=2)
    assert [limit.admit(NOW, str(caller)) for caller in range(5)] == [0, 0, None, None, None]
    later = NOW + timedelta(minutes=1)
    assert [limit.admit(later, "0") for _ in range(3)] == [3, 0, None]
    assert (limit.take_left_out(), limit.take_left_out()) == (1, 0)


def test_refusal_limit_bounds_one_caller_and_leaves_room_for_others():
    limit = RefusalLimit(a_minute=4, of_one=2)
    assert [limit.admit(NOW, "loud") for _ in range(4)] == [0, 0, None, None]
    assert [limit.admit(NOW, "other") for _ in range(3)] == [2, 0, None]
    assert limit.admit(NOW + timedelta(minutes=1), "loud") == 1


def test_refusal_limit_remembers_no_more_callers_than_rows():
    limit = RefusalLimit(a_minute=10)
    for caller in range(1000):
        limit.admit(NOW, str(caller))
    assert len(limit._counts) == 10
