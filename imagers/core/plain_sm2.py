# SPDX-License-Identifier: Apache-2.0
"""Signatures by SM2 with SM3, in Python: the definition of `src/sm2.c`, and what tests sign with.

    Z = SM3(bits of the user id (2 bytes) ‖ user id ‖ a ‖ b ‖ x of G ‖ y of G ‖ x ‖ y)
    e = SM3(Z ‖ message),  t = r + s mod n,  (x1, y1) = s·G + t·P,  good: e + x1 mod n = r

It is some ten times slower than libcrypto, and takes no care to keep a private key from those
who can measure it: nothing outside `imagers.testing` signs.

Spec: GB/T 32918.2-2016, sections 5.5, 6 and 7; the curve is that of GB/T 32918.5-2017.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes

__all__ = ["G", "N", "P", "is_on_curve", "multiply", "public_key_of", "sign", "sm2_verify"]

P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
_A = P - 3
_B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
G = (
    0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
    0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
)

Point = tuple[int, int]


def _sm3(*parts: bytes) -> bytes:
    digest = hashes.Hash(hashes.SM3())
    for part in parts:
        digest.update(part)
    return digest.finalize()


def is_on_curve(point: Point) -> bool:
    """Whether both coordinates are below P and satisfy the equation."""
    x, y = point
    return 0 <= x < P and 0 <= y < P and (y * y - x * x * x - _A * x - _B) % P == 0


def _add(one: Point | None, other: Point | None) -> Point | None:
    """The sum in affine coordinates; None is the point at infinity."""
    if one is None or other is None:
        return one or other
    if one[0] == other[0]:
        if (one[1] + other[1]) % P == 0:
            return None
        slope = (3 * one[0] * one[0] + _A) * pow(2 * one[1], -1, P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, P)
    x = (slope * slope - one[0] - other[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def multiply(number: int, point: Point) -> Point | None:
    """`number` times a point."""
    result: Point | None = None
    for bit in f"{number:b}":
        result = _add(result, result)
        if bit == "1":
            result = _add(result, point)
    return result


def _digest(public_key: bytes, message: bytes, user_id: bytes) -> int:
    curve = b"".join(number.to_bytes(32) for number in (_A, _B, *G))
    z = _sm3((8 * len(user_id)).to_bytes(2), user_id, curve, public_key)
    return int.from_bytes(_sm3(z, message))


def sm2_verify(public_key: bytes, signature: bytes, message: bytes, user_id: bytes, /) -> bool:
    """Whether it is one; see `imagers.core.algorithms`."""
    point = int.from_bytes(public_key[:32]), int.from_bytes(public_key[32:])
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    t = (r + s) % N
    if not is_on_curve(point) or not 0 < r < N or not 0 < s < N or t == 0:
        return False
    result = _add(multiply(s, G), multiply(t, point))
    return result is not None and (_digest(public_key, message, user_id) + result[0]) % N == r


def public_key_of(private_key: int) -> bytes:
    """Give x and y of the public key; the private one is from 1 to N - 2."""
    point = multiply(private_key, G)
    assert point is not None  # unreachable: G has order N
    return point[0].to_bytes(32) + point[1].to_bytes(32)


def sign(private_key: int, message: bytes, *, user_id: bytes, k: int) -> bytes:
    """Give r and s of a signature, for tests.

    Args:
        k: the number that must never be used twice, from 1 to N - 1.

    Raises:
        ValueError: this `k` gives none, which by chance does not happen.
    """
    point = multiply(k, G)
    assert point is not None  # unreachable: G has order N
    r = (_digest(public_key_of(private_key), message, user_id) + point[0]) % N
    s = pow(1 + private_key, -1, N) * (k - r * private_key) % N
    if r in (0, N - k) or s == 0:
        raise ValueError("this k gives no signature")
    return r.to_bytes(32) + s.to_bytes(32)
