# SPDX-License-Identifier: Apache-2.0
"""SM2 in Python: the curve itself, and SM3 with its published answers. See test_algorithms.py."""

import pytest
from cryptography.hazmat.primitives import hashes

from imagers.core.plain_sm2 import G, N, P, is_on_curve, multiply, public_key_of, sign, sm2_verify


def test_generator_has_order_n():
    assert is_on_curve(G)
    assert multiply(N, G) is None
    assert multiply(N - 1, G) == (G[0], P - G[1])


@pytest.mark.parametrize("point", [(0, 0), (G[0], G[1] + 1), (G[0] + P, G[1]), (G[0], G[1] - P)])
def test_points_elsewhere_are_not_on_the_curve(point):
    assert not is_on_curve(point)


def test_sums_are_associative():
    assert multiply(15, G) == multiply(5, multiply(3, G)) == multiply(3, multiply(5, G))


def test_what_is_signed_verifies_and_nothing_else():
    key = public_key_of(77)
    signature = sign(77, b"one", user_id=b"me", k=99)
    assert sm2_verify(key, signature, b"one", b"me")
    assert not sm2_verify(key, signature, b"two", b"me")
    assert not sm2_verify(key, signature, b"one", b"you")
    assert not sm2_verify(public_key_of(78), signature, b"one", b"me")


# GB/T 32905-2016, annex A.
SM3 = {
    b"abc": "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
    b"abcd" * 16: "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732",
}


@pytest.mark.parametrize("message", SM3)
def test_sm3_of_cryptography_gives_the_published_digests(message):
    digest = hashes.Hash(hashes.SM3())
    digest.update(message)
    assert digest.finalize().hex() == SM3[message]
