# SPDX-License-Identifier: Apache-2.0
"""The values of `imagers.core`: what a job is given and what it gives back.

Nothing here moves a byte; see `imagers.core.layer` for that.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from imagers.errors import Unsupported

if TYPE_CHECKING:
    from imagers.core.left_out import LeftOut
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.keys import SecretKey

__all__ = [
    "AES256_GCM_HKDF_1MB",
    "AES_256_CTR_HMAC_SHA256",
    "BEGINNING_BYTES",
    "CODE_BYTES",
    "KEY_BYTES",
    "MAC_BYTES",
    "NONCE_BYTES",
    "Allowance",
    "CheckedLayer",
    "CipherParameters",
    "DirectorySink",
    "Limits",
    "OpenedLayer",
    "Ownership",
    "Progress",
    "Resources",
    "SealedLayer",
]

# ocicrypt, blockcipher/blockcipher.go: the one cipher that all peers have.
AES_256_CTR_HMAC_SHA256 = "AES_256_CTR_HMAC_SHA256"
# Tink's streaming AEAD of this name: for images that imagers will open.
AES256_GCM_HKDF_1MB = "AES256_GCM_HKDF_1MB"
KEY_BYTES = 32
NONCE_BYTES = 16  # the whole first counter block, incremented as a 128-bit big-endian number
MAC_BYTES = 32
CODE_BYTES = 16  # of a piece, see CheckedLayer
BEGINNING_BYTES = 512  # of a layer, to tell its compression: a header of a tar

_MIB = 1024 * 1024
_GIB = 1024 * _MIB


@dataclass(frozen=True, slots=True)
class CipherParameters:
    """The cipher of one layer, with its key.

    A pair of key and nonce seals exactly one byte stream: who seals twice draws anew.

    Attributes:
        name: as the annotation writes it: `AES_256_CTR_HMAC_SHA256` or
            `AES256_GCM_HKDF_1MB`.
        key: 32 bytes; stays the caller's, and is copied for the length of a call.
        nonce: 16 bytes; empty for `AES256_GCM_HKDF_1MB`, which draws its own.
        associated_data: authenticated with each segment of `AES256_GCM_HKDF_1MB`; empty
            for the other, which has no place for it.
    """

    name: str
    key: SecretKey
    nonce: bytes
    associated_data: bytes = b""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. Counts only grow; nothing that they count is verified yet.

    Attributes:
        bytes_in: taken from the source.
        bytes_out: that left the last stage: of the sealed layer, or of the opened one.
        entries: of the tar, unpacked.
    """

    bytes_in: int
    bytes_out: int
    entries: int


class Ownership(Enum):
    """Whose the unpacked files are."""

    KEEP = "keep"  # as the tar says; needs root
    MINE = "mine"  # the caller's, whatever the tar says


@dataclass(frozen=True, slots=True)
class DirectorySink:
    """A directory to unpack into; nothing outside of it is ever touched.

    Attributes:
        fd: of the open directory; stays the caller's. What is in it already counts as the
            content of lower layers.
        ownership: see `Ownership`.
    """

    fd: int
    ownership: Ownership


@dataclass(frozen=True, slots=True)
class Resources:
    """What the work on one layer may use of this machine.

    Attributes:
        threads: the most that compute at the same time; 1 does all in the thread that calls.
            None: one for each core that this process may use.
        window_bytes: upper bound on the window of a zstd frame, a power of two. Its decoder
            holds that much memory; levels up to 19 need 8 MiB.
        compressors: upper bound on threads that compress, each with frames of its own to hold:
            24 MiB for the first two, 12 MiB for each further one.
    """

    threads: int | None = None
    window_bytes: int = 32 * _MIB
    compressors: int = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What a layer may cost before it is refused, and all layers of an image together.

    Attributes:
        max_tar_bytes: of the tar after decompression.
        max_ratio: tar bytes per stored byte. The default is just above what deflate can
            reach (1032), so that zstd may do no more than gzip could.
        free_tar_bytes: may come on top of that.
        max_entries: of the tar; implied directories count.
        max_name_bytes: of the name of an entry or the target of a link; Linux takes no
            more than 4095 in one call.
    """

    max_tar_bytes: int = 256 * _GIB
    max_ratio: int = 1100
    free_tar_bytes: int = _GIB
    max_entries: int = 1_000_000
    max_name_bytes: int = 4095

    def tar_bytes_of(self, stored_size: int) -> int:
        """The most tar bytes that a stored layer of this size may give."""
        return min(self.max_tar_bytes, self.free_tar_bytes + self.max_ratio * stored_size)


class Allowance:
    """What is left of the limits for the other layers of an image.

    Bounds of a layer alone are no bounds: an image of a thousand layers may have each of them a
    thousand times. In any order the layers of an image come to the same.

    Threads: safe. Of layers that are opened at the same time each may take what is left when it
    begins; what is too much together is refused when it ends.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()

    @property
    def limits(self) -> Limits:
        """Of a layer that begins now."""
        with self._lock:
            return self._limits

    def spend(self, *, stored_size: int, tar_size: int, entries: int = 0, what: str) -> None:
        """A layer is done.

        Raises:
            Unsupported: with those before it that is more than an image may have.
        """
        with self._lock:
            old = self._limits
            left = (
                old.max_tar_bytes - tar_size,
                old.free_tar_bytes - max(0, tar_size - old.max_ratio * stored_size),
                old.max_entries - entries,
            )
            if min(left) < 0:
                raise Unsupported(
                    f"{what}: has, with the layers before it, more bytes or entries than an "
                    "image may have",
                    hint="the image may be made to exhaust this machine; do not use it",
                )
            self._limits = replace(
                old, max_tar_bytes=left[0], free_tar_bytes=left[1], max_entries=left[2]
            )


@dataclass(frozen=True, slots=True)
class SealedLayer:
    """What was written by `seal_layer`, after every check.

    Attributes:
        digest: SHA-256 of the bytes written.
        size: of the bytes written.
        hmac: over the bytes written; empty where there was no cipher.
        source_size: of the bytes read.
        diff_id: digest of the tar, where the tar passed by; None where the source was
            compressed and stayed so.
        tar_size: of the tar; 0 where it did not pass by.
    """

    digest: Digest
    size: int
    hmac: bytes
    source_size: int
    diff_id: Digest | None
    tar_size: int = 0


@dataclass(frozen=True, slots=True)
class CheckedLayer:
    """Stored bytes that were right once, and how they are known again: see `check_layer`.

    Attributes:
        expected: what they turned out to be; so are `cipher` and `hmac`.
        beginning: the first of them, at most 512.
        codes: one for each 256 KiB: 64 bytes for each MiB.
        key: of the codes; `close` wipes it.
    """

    expected: Descriptor
    cipher: CipherParameters | None
    hmac: bytes | None
    beginning: bytes = field(repr=False)
    codes: bytes = field(repr=False)
    key: SecretKey

    def close(self) -> None:
        """Forget them. Safe to call twice."""
        self.key.close()


@dataclass(frozen=True, slots=True)
class OpenedLayer:
    """What was read by `open_layer`, after every check.

    Attributes:
        size: of the stored bytes.
        tar_size: of the tar; 0 where nobody asked for it (see `open_layer`).
        diff_id: digest of the tar; None where nobody asked for it.
        entries: of the tar, unpacked; 0 where nothing was.
        hole_bytes: of the sparse files that were unpacked, on top of what the tar has of them.
        left_out: what the layer has and the tree has not; see `imagers.core.left_out`.
        digest: SHA-256 of what a descriptor got with `decompress=False`; None otherwise.
        bytes_out: that left the last stage; with such a descriptor, what it got.
    """

    size: int
    tar_size: int
    diff_id: Digest | None
    entries: int
    digest: Digest | None = None
    bytes_out: int = 0
    hole_bytes: int = 0
    left_out: tuple[LeftOut, ...] = ()
