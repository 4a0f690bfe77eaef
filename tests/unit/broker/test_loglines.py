# SPDX-License-Identifier: Apache-2.0
import logging

from imagers.broker import loglines
from imagers.broker.loglines import LimitedLog


def test_limited_log_leaves_lines_out_and_says_how_many(caplog, monkeypatch):
    from datetime import UTC, datetime, timedelta

    times = [datetime(2026, 11, 1, tzinfo=UTC)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            assert tz is UTC
            return times[-1]

    monkeypatch.setattr(loglines, "datetime", Clock)
    log = LimitedLog("imagers.test", a_minute=2)
    for number in range(5):
        log.warning("line %d", number)
    times.append(times[0] + timedelta(minutes=1))
    log.error("line %d", 5)
    assert [record.getMessage() for record in caplog.records] == [
        "line 0",
        "line 1",
        "line 5 (3 lines before it left out)",
    ]
    assert caplog.records[-1].levelno == logging.ERROR


def test_limited_log_does_not_count_what_nobody_reads(caplog):
    log = LimitedLog("imagers.test", a_minute=1)
    with caplog.at_level(logging.WARNING, logger="imagers.test"):
        assert log.level == logging.WARNING
        log.info("quiet")
        log.warning("loud")
    assert [record.getMessage() for record in caplog.records] == ["loud"]
