# SPDX-License-Identifier: Apache-2.0
"""Keys and numbers from a seed: the same in each process, and different for each label.

    key = rsa_key(seed, "AMD Genoa ARK")
    chip_id = octets(seed, "AMD Genoa chip", 64)

An RSA key of 4096 bits takes a quarter of a second, once a process.

For tests only: whoever has the seed has the keys.
"""

from __future__ import annotations

from functools import cache
from hashlib import shake_256

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

__all__ = ["SEED_BYTES", "ec_key", "octets", "rsa_key"]

SEED_BYTES = 32
_EXPONENT = 65537
_SMALL = 200_000
"""Below it all primes are tried by a sieve, which leaves one number in 22 of those looked at."""
_WINDOW = 1 << 14
"""Numbers looked at; one in 710 is prime."""


def octets(seed: bytes, label: str, size: int) -> bytes:
    """`size` bytes.

    Raises:
        ValueError: the seed does not have `SEED_BYTES` bytes.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"expected a seed of {SEED_BYTES} bytes, got {len(seed)}")
    return shake_256(b"imagers.testing.evidence\0" + seed + label.encode()).digest(size)


@cache
def ec_key(seed: bytes, label: str, curve: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    """A key on a curve."""
    bits = curve().key_size
    # A bit short, so that it is below the order of the curve whichever that is.
    number = int.from_bytes(octets(seed, label, bits // 8)) >> 1 | 1
    return ec.derive_private_key(number, curve())


@cache
def rsa_key(seed: bytes, label: str, bits: int = 4096) -> rsa.RSAPrivateKey:
    """A key of 4096 bits, or fewer."""
    p, q = (_prime(octets(seed, f"{label} {one}", bits // 16)) for one in "pq")
    private = pow(_EXPONENT, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p,
        q,
        private,
        rsa.rsa_crt_dmp1(private, p),
        rsa.rsa_crt_dmq1(private, q),
        rsa.rsa_crt_iqmp(p, q),
        rsa.RSAPublicNumbers(_EXPONENT, p * q),
    )
    # OpenSSL would search for factors again, for longer than it took to find the primes.
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@cache
def _small_primes() -> list[int]:
    is_prime = bytearray([1]) * _SMALL
    for number in range(2, int(_SMALL**0.5) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(len(range(number * number, _SMALL, number)))
    return [number for number in range(3, _SMALL) if is_prime[number]]


def _prime(begin: bytes) -> int:
    """The first prime from a number on, of those that leave 3 when divided by 4."""
    # With both upper bits set, two of them give all bits of a key.
    start = int.from_bytes(begin) | 3 << (len(begin) * 8 - 2) | 3
    is_left = bytearray([1]) * _WINDOW
    for small in _small_primes():
        first = -start * pow(4, -1, small) % small
        is_left[first::small] = bytes(len(range(first, _WINDOW, small)))
    for at in range(_WINDOW):
        number = start + 4 * at
        if is_left[at] and _is_prime(number) and (number - 1) % _EXPONENT:
            return number
    raise AssertionError("no prime in the window")  # one seed in 10^10


def _is_prime(number: int) -> bool:
    """Euler's test: of a prime each power (number - 1) / 2 is 1 or -1; of others hardly any is.

    The power is taken by OpenSSL, as an encryption with that exponent: 15 times as fast as `pow`.
    """
    public = rsa.RSAPublicNumbers((number - 1) // 2, number).public_key()
    power = int.from_bytes(public.encrypt(b"any", padding.PKCS1v15()))
    return power in (1, number - 1)
