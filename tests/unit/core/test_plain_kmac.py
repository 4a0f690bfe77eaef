# SPDX-License-Identifier: Apache-2.0
"""KMAC256 in Python: the sponge below it against hashlib's. See test_algorithms.py."""

import hashlib

import pytest

from imagers.core import plain_kmac


@pytest.mark.parametrize("length", [0, 1, 8, 135, 136, 137, 300])
def test_permutation_is_that_of_shake256(length):
    """Keccak with SHAKE's two bits of padding in place of cSHAKE's, which hashlib has."""
    data = bytes(range(256)) * 2
    padded = bytearray(data[:length] + b"\x1f")
    padded += bytes(-len(padded) % 136)
    padded[-1] |= 0x80
    state = [0] * 25
    for at in range(0, len(padded), 136):
        for lane in range(17):
            state[lane] ^= int.from_bytes(padded[at + 8 * lane : at + 8 * lane + 8], "little")
        plain_kmac._permute(state)
    digest = b"".join(lane.to_bytes(8, "little") for lane in state[:17])
    assert digest == hashlib.shake_256(data[:length]).digest(136)


def test_key_customization_data_and_length_all_count():
    codes = {
        plain_kmac.kmac256(key, data, tag, length)[:16]
        for key in (bytes(32), bytes(33))
        for data in (b"", b"\0")
        for tag in (b"", b"\0")
        for length in (16, 17)
    }
    assert len(codes) == 16
