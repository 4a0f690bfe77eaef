# SPDX-License-Identifier: Apache-2.0
"""Values: what they hold, and that none of them shows a key."""

import dataclasses

import pytest

from imagers.core import (
    AES_256_CTR_HMAC_SHA256,
    Allowance,
    CipherParameters,
    Limits,
    Progress,
    Resources,
)
from imagers.errors import Unsupported
from imagers.model.keys import SecretKey


def test_cipher_parameters_do_not_show_the_key():
    shown = repr(CipherParameters(AES_256_CTR_HMAC_SHA256, SecretKey(b"k" * 32), bytes(16)))
    assert "kkk" not in shown
    assert "SecretKey(32 bytes)" in shown


def test_values_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Progress(1, 2, 3).bytes_in = 5


@pytest.mark.parametrize(
    ("limits", "stored", "expected"),
    [
        (Limits(max_tar_bytes=50, max_ratio=10, free_tar_bytes=7), 0, 7),
        (Limits(max_tar_bytes=50, max_ratio=10, free_tar_bytes=7), 1, 17),
        (Limits(max_tar_bytes=50, max_ratio=10, free_tar_bytes=7), 6, 50),
        (Limits(max_tar_bytes=5, max_ratio=10, free_tar_bytes=7), 0, 5),
    ],
)
def test_limit_of_the_tar_is_the_ratio_and_something_free_below_a_bound(limits, stored, expected):
    assert limits.tar_bytes_of(stored) == expected


def test_default_limits_keep_the_memory_rule():
    """A zstd window, both rings and the frames stay below 64 MiB."""
    assert Resources().window_bytes <= 32 * 1024 * 1024


LIMITS = Limits(max_tar_bytes=1000, max_ratio=10, free_tar_bytes=100, max_entries=5)


@pytest.mark.parametrize("order", [1, -1])
def test_allowance_is_one_for_all_layers_in_any_order(order):
    allowance = Allowance(LIMITS)
    # stored and tar bytes: 40 and 60 above the ratio, and one that is below it
    for stored, tar in [(1, 50), (50, 100), (2, 80)][::order]:
        assert tar <= allowance.limits.tar_bytes_of(stored)
        allowance.spend(stored_size=stored, tar_size=tar, entries=1, what="layer")
    left = allowance.limits
    assert (left.max_tar_bytes, left.free_tar_bytes, left.max_entries) == (770, 0, 2)
    assert left.tar_bytes_of(1) == 10
    with pytest.raises(
        Unsupported, match="layer 4: has, with the layers before it, more"
    ) as caught:
        allowance.spend(stored_size=1, tar_size=11, what="layer 4")
    assert "exhaust" in caught.value.hint


@pytest.mark.parametrize("spent", [{"tar_size": 1001}, {"tar_size": 1, "entries": 6}])
def test_allowance_holds_all_layers_to_each_bound(spent):
    with pytest.raises(Unsupported):
        Allowance(LIMITS).spend(stored_size=1000, what="layer", **spent)
