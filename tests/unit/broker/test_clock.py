# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest

from imagers.broker.clock import MAX_CLOCK_ERROR, SessionTime, is_too_far_back, milliseconds
from imagers.errors import LocalError

NOW = datetime(2026, 11, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
ERROR_MS = 300_000


def test_milliseconds_are_whole():
    assert milliseconds(NOW + timedelta(microseconds=1999)) == NOW_MS + 1


def test_session_time_never_goes_back():
    times = iter([NOW, NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)])
    time = SessionTime(lambda: next(times), 0)
    assert [time.now_ms() - NOW_MS for _ in range(3)] == [0, 0, 60_000]


def test_session_time_is_no_earlier_than_what_the_store_has_seen():
    time = SessionTime(lambda: NOW, NOW_MS + 1)
    assert time.now_ms() == NOW_MS + 1
    assert time.now_ms(NOW_MS + 2) == NOW_MS + 2
    assert time.now_ms(NOW_MS) == NOW_MS + 2


def test_session_time_refuses_a_clock_that_is_too_far_behind():
    """Else time would stand still, and no session would end, until the clock catches up."""
    assert timedelta(milliseconds=ERROR_MS) == MAX_CLOCK_ERROR
    assert SessionTime(lambda: NOW, NOW_MS + ERROR_MS).now_ms() == NOW_MS + ERROR_MS
    time = SessionTime(lambda: NOW, NOW_MS + ERROR_MS + 1)
    with pytest.raises(LocalError, match="the clock is 300 s behind") as caught:
        time.now_ms()
    assert "restart" in (caught.value.hint or "")


def test_is_too_far_back_at_the_bound():
    assert not is_too_far_back(0, ERROR_MS)
    assert is_too_far_back(0, ERROR_MS + 1)
    assert not is_too_far_back(ERROR_MS, 0)
