# SPDX-License-Identifier: Apache-2.0
"""Time limits as a user writes them."""

import pytest

from imagers.errors import UsageError
from imagers.model.time_limits import TimeLimits, parse_time_limits

DURATIONS = {
    "90s": 90,
    "5m": 300,
    "1h30m": 5400,
    "1h0m5s": 3605,
    "250ms": 0.25,
    "1.5s": 1.5,
    "300": 300,
    "0.5": 0.5,
    "0": None,
    "0s": None,
}
WRONG = {
    "": "expected a duration",
    "soon": "expected a duration",
    "-5": "expected a duration",
    "5 m": "expected a duration",
    "5d": "expected a duration",
    "1e3": "expected a duration",
    "\u0665": "expected a duration",
    "5m\n": "expected a duration",
    "keys=": "expected a duration",
    "9999999999": "expected a duration",
    "999999999h": "expected at most 1000000000 s",
    "key=5": "expected DURATION or PHASE=DURATION, each once, got 'key=5'",
    "total=5": "expected DURATION or PHASE=DURATION",
    "=5": "expected DURATION or PHASE=DURATION",
    "5,6": "expected DURATION or PHASE=DURATION, each once, got '6'",
    "keys=5,keys=6": "each once, got 'keys=6'",
    "keys=5,": "expected a duration",
}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_duration_is_that_of_go_or_a_number_of_seconds(text, seconds):
    assert parse_time_limits(text) == TimeLimits(total=seconds)
    assert parse_time_limits(f"layers={text}") == TimeLimits(layers=seconds)


def test_limits_of_phases_and_of_all_are_given_together():
    found = parse_time_limits("trust=10s,20s,keys=0,layers=2h,bundle=1m")
    assert found == TimeLimits(total=20, trust=10, keys=None, layers=7200, bundle=60)


@pytest.mark.parametrize(("text", "told"), WRONG.items())
def test_what_is_no_limit_is_refused_with_what_is(text, told):
    with pytest.raises(UsageError) as caught:
        parse_time_limits(text)
    assert told in str(caught.value)
    assert caught.value.hint or "at most" in told


def test_phase_that_is_not_given_keeps_its_default():
    assert parse_time_limits("5m") == TimeLimits(total=300)
    assert TimeLimits() == TimeLimits(None, 900, 900, None, 900)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limit_of_a_program_is_a_number_above_zero(value):
    with pytest.raises(ValueError, match="keys"):
        TimeLimits(keys=value)
