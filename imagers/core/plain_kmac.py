# SPDX-License-Identifier: Apache-2.0
"""KMAC256 in Python: the definition of `src/kmac.c`.

    KMAC256(K, X, L, S) = cSHAKE256(bytepad(encode_string(K), 136) ‖ X ‖ right_encode(L),
                                    L, "KMAC", S)
    cSHAKE256(X, L, N, S) = KECCAK[512](bytepad(encode_string(N) ‖ encode_string(S), 136)
                                        ‖ X ‖ 00, L)

Nothing of Python's own has Keccak with the padding of cSHAKE: it differs from SHAKE's in two bits.

Spec: NIST SP 800-185, sections 2.3, 3 and 4; FIPS 202, section 3.
"""

from __future__ import annotations

__all__ = ["kmac256"]

_RATE = 136  # bytes: 1600 bits less a capacity of 512
_WORD = (1 << 64) - 1


def _constants() -> tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]]:
    """Round constants, and (x, y, offset) in the order in which rho and pi move lanes."""
    constants, register = [], 1
    for _ in range(24):
        constant = 0
        for j in range(7):
            constant |= (register & 1) << ((1 << j) - 1)
            register = register << 1 ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    lanes, x, y = [], 1, 0
    for t in range(24):
        lanes.append((x, y, (t + 1) * (t + 2) // 2 % 64))
        x, y = y, (2 * x + 3 * y) % 5
    return tuple(constants), tuple(lanes)


_ROUNDS, _LANES = _constants()


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _WORD


def _permute(state: list[int]) -> None:
    """Keccak-f[1600] on 25 lanes; lane (x, y) is at x + 5y."""
    for constant in _ROUNDS:
        columns = [
            state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20]
            for x in range(5)
        ]
        for x in range(5):
            parity = columns[x - 1] ^ _rotate(columns[(x + 1) % 5], 1)
            for y in range(0, 25, 5):
                state[x + y] ^= parity
        moved = [state[0]] * 25
        for x, y, offset in _LANES:
            moved[y + 5 * ((2 * x + 3 * y) % 5)] = _rotate(state[x + 5 * y], offset)
        for y in range(0, 25, 5):
            row = moved[y : y + 5]
            for x in range(5):
                state[x + y] = row[x] ^ (~row[(x + 1) % 5] & _WORD & row[(x + 2) % 5])
        state[0] ^= constant


def _sponge(data: bytes, length: int) -> bytes:
    """KECCAK[512] of whole bytes that end with the two zero bits of cSHAKE."""
    padded = bytearray(data + b"\x04")  # 00, and the first bit of pad10*1
    padded += bytes(-len(padded) % _RATE)
    padded[-1] |= 0x80
    state = [0] * 25
    for at in range(0, len(padded), _RATE):
        for lane in range(_RATE // 8):
            state[lane] ^= int.from_bytes(padded[at + 8 * lane : at + 8 * lane + 8], "little")
        _permute(state)
    result = b""
    while True:
        result += b"".join(lane.to_bytes(8, "little") for lane in state[: _RATE // 8])
        if len(result) >= length:
            return result[:length]
        _permute(state)


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8))


def _left_encode(value: int) -> bytes:
    return bytes((len(_number(value)),)) + _number(value)


def _encode_string(text: bytes) -> bytes:
    return _left_encode(8 * len(text)) + text


def _bytepad(text: bytes) -> bytes:
    padded = _left_encode(_RATE) + text
    return padded + bytes(-len(padded) % _RATE)


def kmac256(
    key: bytes | bytearray | memoryview, data: bytes, customization: bytes, length: int, /
) -> bytes:
    """The code; see `imagers.core.algorithms`."""
    bits = _number(8 * length)
    right_encoded = bits + bytes((len(bits),))
    return _sponge(
        _bytepad(_encode_string(b"KMAC") + _encode_string(customization))
        + _bytepad(_encode_string(bytes(key)))
        + data
        + right_encoded,
        length,
    )
