# SPDX-License-Identifier: Apache-2.0
"""The launch measurement of SEV, with the answer that virtee/sev publishes."""

import hashlib

import pytest

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.sev.measurement import check_measurement
from imagers.model.keys import SecretKey

# virtee/sev, src/session/mod.rs, `verify`: nothing was measured, under firmware 0.18 build 15.
TIK = SecretKey(bytes.fromhex("66320db73158a35a255d051758e95ed4"))
DIGEST = hashlib.sha256(b"").digest()
ANSWER = bytes.fromhex(
    "6faab2daae389bcd3405a05d6cafe33c0414f7bedd0bae19ba5f38b7fd1664ea"
    "4fbe0bedbad6c86ae8f68971d103e554"
)
GOOD = {"digest": DIGEST, "tik": TIK, "policy": 0, "api": (0, 0x12), "build": 0x0F}


def test_published_measurement_is_good():
    check_measurement(ANSWER, **GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": hashlib.sha256(b"x").digest()},
        {"tik": SecretKey(bytes(16))},
        {"policy": 1},
        {"policy": 1 << 31},
        {"api": (1, 0x12)},
        {"api": (0, 0x13)},
        {"build": 0x10},
    ],
    ids=str,
)
def test_each_part_of_a_launch_counts(change):
    with pytest.raises(EvidenceRejected, match="is not that of this guest"):
        check_measurement(ANSWER, **(GOOD | change))


def test_each_bit_of_the_answer_counts():
    for bit in range(8 * len(ANSWER)):
        changed = (int.from_bytes(ANSWER) ^ 1 << bit).to_bytes(len(ANSWER))
        with pytest.raises(EvidenceRejected):
            check_measurement(changed, **GOOD)


@pytest.mark.parametrize("answer", [b"", ANSWER[:-1], ANSWER + b"\0", ANSWER[:32]])
def test_answer_of_another_length_is_none(answer):
    with pytest.raises(FormatError, match="expected 48 bytes"):
        check_measurement(answer, **GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": DIGEST[:-1]},
        {"tik": SecretKey(bytes(32))},
        {"policy": 1 << 32},
        {"policy": -1},
        {"build": 256},
        {"api": (0, -1)},
    ],
    ids=str,
)
def test_what_is_the_callers_own_is_checked(change):
    with pytest.raises(ValueError, match=r"expected|range"):
        check_measurement(ANSWER, **(GOOD | change))


def test_refusal_says_nothing_of_the_key():
    with pytest.raises(EvidenceRejected) as caught:
        check_measurement(ANSWER, **(GOOD | {"policy": 3}))
    assert "66320db7" not in f"{caught.value} {caught.value.hint}"
    assert "policy 0x3" in str(caught.value)
