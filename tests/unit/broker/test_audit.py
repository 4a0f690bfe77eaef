from datetime import UTC, datetime, timedelta

from imagers.broker.audit import AuditEvent, StrangerLimit, append, shown_session
from imagers.broker.storage import Session, session_name

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
    event = AuditEvent(event="release", outcome="refused", path="a\x1b[2J\n" + "b" * 1000)
    with state.store.transaction() as transaction:
        append(transaction, event, now=NOW)
    (row,) = rows()
    assert row.path.startswith("a\ufffd[2J\ufffdb")
    assert len(row.path) == 400


def test_shown_session_is_not_a_part_of_the_cookie():
    cookie = "0123456789abcdef0123456789abcdef"
    shown = shown_session(Session(session_name(cookie), "sample", "nonce", 0))
    assert len(shown) == 12
    assert shown not in cookie
    assert shown_session(None) == ""


def test_stranger_limit_bounds_a_minute_and_counts_what_it_left_out():
    limit = StrangerLimit(a_minute=2)
    assert [limit.admit(NOW) for _ in range(5)] == [0, 0, None, None, None]
    later = NOW + timedelta(minutes=1)
    assert [limit.admit(later) for _ in range(3)] == [3, 0, None]
