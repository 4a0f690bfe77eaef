# SPDX-License-Identifier: Apache-2.0
"""What the words of `attest` share; the words themselves are tested in verbs/test_attest.py."""

from datetime import UTC, datetime

import pytest

from imagers.cli.evidence import Outcome, find_collateral, parse_hex, parse_time
from imagers.errors import CouldNotVerify, EvidenceRejected, UsageError


def test_collateral_is_the_named_one_else_the_users_if_there_is_one(home):
    assert find_collateral("there").name == "there"
    assert find_collateral(None) is None
    own = home / ".local" / "state" / "imagers" / "collateral"
    own.mkdir(parents=True)
    assert find_collateral(None) == own


@pytest.mark.parametrize("text", ["", "0", "zz", "0x00", "é"])
def test_hex_that_is_none_is_refused_by_the_option(text):
    if text == "":
        assert parse_hex("--x", text, 4) == b""
        return
    with pytest.raises(UsageError, match="--x: expected hex"):
        parse_hex("--x", text, 4)


def test_hex_is_bounded():
    assert parse_hex("--x", None, 4) is None
    assert parse_hex("--x", "00" * 4, 4) == bytes(4)
    with pytest.raises(UsageError, match="--x: expected at most 4 bytes, got 5"):
        parse_hex("--x", "00" * 5, 4)


def test_time_needs_a_zone():
    assert parse_time("--at", "2026-11-29T13:00:00+01:00") == datetime(2026, 11, 29, 12, tzinfo=UTC)
    with pytest.raises(UsageError, match="--at: expected a time"):
        parse_time("--at", "2026-11-29T13:00:00")


@pytest.mark.parametrize(
    ("error", "answer"),
    [(None, "yes"), (EvidenceRejected("x"), "no"), (CouldNotVerify("x"), "could not look")],
)
def test_answer_keeps_no_and_could_not_look_apart(error, answer):
    assert Outcome("snp", error=error).answer == answer
