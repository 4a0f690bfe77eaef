# SPDX-License-Identifier: Apache-2.0
"""Algorithms that libcrypto has and `cryptography` has not: SM2 signatures and KMAC256.

    verify_sm2(public_key, signature, message, user_id=b"1234567812345678")
    kmac256(secret, context, length=32)

SM3 alone is in `cryptography`. Where the extension is missing, `plain_sm2.py` and `plain_kmac.py`
do the same.
"""

from __future__ import annotations

from imagers.errors import SignatureInvalid

try:
    from imagers.core._core import kmac256 as _kmac256
    from imagers.core._core import sm2_verify as _sm2_verify
except ImportError:  # imagers.core.layer warns of it
    from imagers.core.plain_kmac import kmac256 as _kmac256
    from imagers.core.plain_sm2 import sm2_verify as _sm2_verify

__all__ = ["kmac256", "verify_sm2"]

_SM2_BYTES = 64
_LONGEST_USER_ID = 8190  # bytes: its length in bits is a 16-bit number
_SHORTEST_KEY = 4
_LONGEST = 512  # bytes; libcrypto's bound of key, customization and result


def verify_sm2(public_key: bytes, signature: bytes, message: bytes, *, user_id: bytes) -> None:
    """Raise unless a message was signed by a key, with SM3, under its owner's user id.

    Args:
        public_key: x and y, 32 bytes each, big-endian.
        signature: r and s, 32 bytes each, big-endian.
        user_id: 1 to 8190 bytes; with another one the same signature is another's.

    Raises:
        SignatureInvalid: it was not; or the key is no point of the curve, or a number is out of
            range.
        LocalError: this machine's libcrypto has no SM2.
        ValueError: a length is another one.

    Spec: GB/T 32918.2-2016, section 7; GB/T 32918.5-2017.
    """
    if len(public_key) != _SM2_BYTES or len(signature) != _SM2_BYTES:
        raise ValueError(
            f"expected a key and a signature of {_SM2_BYTES} bytes, "
            f"got {len(public_key)} and {len(signature)}"
        )
    if not 1 <= len(user_id) <= _LONGEST_USER_ID:
        raise ValueError(f"expected a user id of 1 to {_LONGEST_USER_ID} bytes, got {len(user_id)}")
    if not _sm2_verify(public_key, signature, message, user_id):
        raise SignatureInvalid("the SM2 signature is not of this key, user id and message")


def kmac256(
    key: bytes | bytearray | memoryview, data: bytes, *, length: int, customization: bytes = b""
) -> bytes:
    """Give `length` bytes of KMAC256: a message's code, or a key derived from a secret.

    The length is part of what is computed: a shorter result is not the beginning of a longer one.

    Args:
        key: 4 to 512 bytes.
        length: in bytes, 1 to 512.
        customization: S of the specification; at most 512 bytes.

    Raises:
        LocalError: this machine's libcrypto has no KMAC.
        ValueError: a length is another one.

    Spec: NIST SP 800-185, section 4.
    """
    if not _SHORTEST_KEY <= len(key) <= _LONGEST:
        raise ValueError(f"expected a key of {_SHORTEST_KEY} to {_LONGEST} bytes, got {len(key)}")
    if len(customization) > _LONGEST:
        raise ValueError(
            f"expected a customization of at most {_LONGEST} bytes, got {len(customization)}"
        )
    if not 1 <= length <= _LONGEST:
        raise ValueError(f"expected a length of 1 to {_LONGEST}, got {length}")
    return _kmac256(key, data, customization, length)
