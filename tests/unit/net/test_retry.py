# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime

import pytest

from imagers.net.retry import RetryPolicy, is_idempotent, parse_retry_after

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 7 ", 7.0),
        ("99999999999999999999", 10.0**6),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("Mon, 23 Nov 2026 12:00:05", 5.0),
        (None, None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\u0663", None),
        ("", None),
        # A year that no C integer holds: datetime says OverflowError, not ValueError.
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
def test_parse_retry_after_forms(value, seconds):
    assert parse_retry_after(value, now=NOW) == seconds


def test_is_idempotent_post_and_patch_are_not():
    assert [
        m for m in ("GET", "HEAD", "PUT", "DELETE", "POST", "PATCH") if not is_idempotent(m)
    ] == [
        "POST",
        "PATCH",
    ]


def test_wait_before_backoff_doubles_its_bound():
    policy = RetryPolicy(attempts=5, backoff_s=1.0)
    for attempt, bound in ((2, 1), (3, 2), (4, 4), (5, 8)):
        waits = [policy.wait_before(attempt, retry_after=None, waited=0) for _ in range(50)]
        assert all(0 <= wait <= bound for wait in waits)
        assert len(set(waits)) > 1


def test_wait_before_too_many_attempts_gives_up():
    assert RetryPolicy(attempts=2).wait_before(3, retry_after=None, waited=0) is None


def test_wait_before_server_asks_for_longer_is_obeyed():
    assert RetryPolicy().wait_before(2, retry_after=20, waited=0) >= 20


def test_wait_before_server_asks_for_too_long_gives_up():
    assert RetryPolicy(max_wait_s=60).wait_before(2, retry_after=61, waited=0) is None
    assert RetryPolicy(max_wait_s=60).wait_before(2, retry_after=30, waited=40) is None
