"""Values: what they hold, and that none of them shows a key."""

import dataclasses

import pytest

from imagers.core import (
    AES_256_CTR_HMAC_SHA256,
    Cancellation,
    CipherParameters,
    Limits,
    Means,
    Progress,
)
from imagers.errors import Cancelled
from imagers.model.keys import SecretKey


def test_cipher_parameters_do_not_show_the_key():
    shown = repr(CipherParameters(AES_256_CTR_HMAC_SHA256, SecretKey(b"k" * 32), bytes(16)))
    assert "kkk" not in shown
    assert "SecretKey(32 bytes)" in shown


def test_values_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Progress(1, 2, 3).bytes_in = 5


def test_cancellation_stays():
    cancellation = Cancellation()
    assert not cancellation.is_cancelled
    cancellation.check()
    cancellation.cancel()
    cancellation.cancel()
    assert cancellation.is_cancelled
    with pytest.raises(Cancelled):
        cancellation.check()


@pytest.mark.parametrize(
    ("limits", "stored", "expected"),
    [
        (Limits(max_tar_bytes=50, max_ratio=10, free_tar_bytes=7), 0, 7),
        (Limits(max_tar_bytes=50, max_ratio=10, free_tar_bytes=7), 1, 10),
        (Limits(max_tar_bytes=50, max_ratio=10, free_tar_bytes=7), 6, 50),
        (Limits(max_tar_bytes=5, max_ratio=10, free_tar_bytes=7), 0, 5),
    ],
)
def test_limit_of_the_tar_is_the_ratio_between_two_bounds(limits, stored, expected):
    assert limits.tar_bytes_of(stored) == expected


def test_default_limits_keep_the_memory_rule():
    """A zstd window, both rings and the frames stay below 64 MiB."""
    assert Means().window_bytes <= 32 * 1024 * 1024
