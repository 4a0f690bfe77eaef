# SPDX-License-Identifier: Apache-2.0
"""What the first bytes of a layer say about its compression, whatever its media type says.

    source, compression = look_at(stream, cipher=None, size=descriptor.size, told=told, what="…")
    opened = open_layer(source, ..., compression=compression)

    compression = compression_of_checked(check_layer(stream, ...), what="…")

Builders and converters write layers whose type says gzip and whose bytes are a plain tar, and
the reverse; containers/image, Docker and containerd look at the bytes, and so do we. The judge is
the diff_id.

Of an encrypted layer the first bytes are decrypted, and with the cipher that can, authenticated.
With the other one they are as unauthenticated as all that is decompressed, unless the layer was
checked before; an attacker who changes them gets another reader to fail.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from imagers.core.jobs import source_of
from imagers.core.values import AES256_GCM_HKDF_1MB, BEGINNING_BYTES
from imagers.errors import FormatError, IntegrityError
from imagers.model.media import compression_of_bytes

if TYPE_CHECKING:
    from imagers.core.values import CheckedLayer, CipherParameters
    from imagers.model.media import Compression
    from imagers.model.stream import RawStream

__all__ = ["compression_of_checked", "look_at"]


_SEGMENT = 1024 * 1024


def look_at(
    source: RawStream,
    *,
    cipher: CipherParameters | None,
    size: int,
    told: Compression,
    what: str,
) -> tuple[RawStream, Compression]:
    """The source, to be read from its first byte in place of `source`, and its compression.

    Args:
        source: at its first byte; stays the caller's.
        cipher: of the layer; None if it is not encrypted.
        size: of the stored bytes, as the descriptor says.
        told: by the media type, of the layer once it is decrypted; what is found where the
            bytes cannot be looked at.
        what: name in messages.

    Raises:
        Unsupported: a compression that nothing here undoes.
        What reading the source raises.
    """
    is_aead = cipher is not None and cipher.name == AES256_GCM_HKDF_1MB
    beginning, again = _peek(source, min(size, _SEGMENT if is_aead else BEGINNING_BYTES))
    if beginning is not None and cipher is not None:
        beginning = _decrypt(beginning, cipher, size)
    if beginning is None:
        return again, told
    return again, compression_of_bytes(beginning, what=what)


def compression_of_checked(checked: CheckedLayer, *, what: str) -> Compression:
    """The compression of a layer whose stored bytes were right: of what was checked, not read anew.

    Raises:
        Unsupported: a compression that nothing here undoes.
    """
    beginning = checked.beginning
    if checked.cipher is not None:
        beginning = _decrypt_ctr(beginning, checked.cipher)
    return compression_of_bytes(beginning, what=what)


def _peek(source: RawStream, count: int) -> tuple[bytes | None, RawStream]:
    place = source_of(source)
    if isinstance(place, int):
        try:
            return os.pread(place, count, os.lseek(place, 0, os.SEEK_CUR)), source
        except OSError:  # a pipe; or whoever reads it says what is wrong
            return None, source
    buffer = bytearray(count)
    filled = 0
    with memoryview(buffer) as view:
        while filled < count and (got := place.readinto(view[filled:])):
            filled += got
    beginning = bytes(buffer[:filled])
    return beginning, _Again(beginning, place)


class _Again:
    """A stream whose first bytes were read already; closing stays with whoever has opened it."""

    def __init__(self, beginning: bytes, stream: RawStream) -> None:
        self._left = memoryview(beginning)
        self._stream = stream

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of `buffer`; 0 only at the end."""
        if not self._left:
            return self._stream.readinto(buffer)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        """Nothing of its own."""


def _decrypt(beginning: bytes, cipher: CipherParameters, size: int) -> bytes | None:
    """The first bytes of the layer; None where they are wrong, which the job reports in order."""
    if cipher.name == AES256_GCM_HKDF_1MB:
        from imagers.core.aead import open_range

        try:
            return open_range(
                lambda offset, count: beginning[offset : offset + count],
                size=size,
                cipher=cipher,
                offset=0,
                length=BEGINNING_BYTES,
                what="",
            )
        except (FormatError, IntegrityError):
            return None
    return _decrypt_ctr(beginning, cipher)


def _decrypt_ctr(beginning: bytes, cipher: CipherParameters) -> bytes:
    from cryptography.hazmat.primitives.ciphers import (
        Cipher,
        algorithms,
        modes,
    )

    with cipher.key.view() as key:
        stream = Cipher(algorithms.AES256(bytes(key)), modes.CTR(bytes(cipher.nonce))).decryptor()
    return stream.update(beginning)
