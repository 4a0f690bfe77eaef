# SPDX-License-Identifier: Apache-2.0
"""One layer's work as both implementations receive it: arguments checked, words decided.

`imagers.core.layer` makes these from the arguments of its callers; `imagers.core.plain`
and `imagers.core.native` do them. What a job decides here, they need not decide twice.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.core.values import (
    AES256_GCM_HKDF_1MB,
    AES_256_CTR_HMAC_SHA256,
    KEY_BYTES,
    MAC_BYTES,
    NONCE_BYTES,
    DirectorySink,
)
from imagers.errors import FormatError, Unsupported
from imagers.model.media import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.core.values import (
        CheckedLayer,
        CipherParameters,
        Limits,
        Progress,
        Resources,
    )
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.keys import SecretKey
    from imagers.model.stream import RawStream
    from imagers.waiting import Cancellation

__all__ = [
    "CheckJob",
    "OpenJob",
    "SealJob",
    "check_cipher",
    "check_descriptors",
    "check_limits",
    "check_means",
    "source_of",
]

_SMALLEST_WINDOW = 1 << 10  # RFC 8878 section 3.1.1.1.2
_LARGEST_WINDOW = 1 << 31  # ZSTD_WINDOWLOG_MAX of libzstd
_LONGEST_PATH = 4095  # PATH_MAX of Linux counts the NUL


_NONCE_BYTES = {AES_256_CTR_HMAC_SHA256: NONCE_BYTES, AES256_GCM_HKDF_1MB: 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class SealJob:
    """Read a layer, check it, perhaps compress it anew, perhaps encrypt it, write it.

    Attributes:
        decompress: what to undo first; NONE if the bytes stay as they are.
        compress: what to do then; NONE if the bytes stay as they are.
        sees_tar: whether what lies between the two is the tar.
        diff_id: checked if it is given and `sees_tar`.
        tar_bytes: the most that a decompressed tar may have.
        source_compression: of the source, also where it stays; `imagers.core.aead` looks
            at the tar on the side then.
    """

    source: int | RawStream
    sink: int
    expected: Descriptor
    cipher: CipherParameters | None
    decompress: Compression
    compress: Compression
    sees_tar: bool
    diff_id: Digest | None
    what: str
    tar_bytes: int
    resources: Resources
    on_progress: Callable[[Progress], None] | None
    cancellation: Cancellation | None
    source_compression: Compression = Compression.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """Read a stored layer, check it, perhaps decrypt it, and give on what is in it.

    Attributes:
        compression: to undo, where `sees_tar`.
        sees_tar: whether the tar is wanted: to give on, to unpack, or to check `diff_id`.
        gives_tar: whether a sink that is a file gets the tar, not the compressed bytes.
        tar_bytes: the most that the tar may have.
        checked: what the source is known by, piece by piece, in place of digest and HMAC.
    """

    source: int | RawStream
    sink: int | DirectorySink | None
    expected: Descriptor
    cipher: CipherParameters | None
    hmac: bytes
    compression: Compression
    sees_tar: bool
    gives_tar: bool
    diff_id: Digest | None
    what: str
    tar_bytes: int
    limits: Limits
    resources: Resources
    on_progress: Callable[[Progress], None] | None
    cancellation: Cancellation | None
    checked: CheckedLayer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """Read a stored layer, check it, and perhaps write it as it is.

    Attributes:
        key: of the codes.
    """

    source: int | RawStream
    sink: int | None
    expected: Descriptor
    cipher: CipherParameters | None
    hmac: bytes
    key: SecretKey
    what: str
    resources: Resources
    on_progress: Callable[[Progress], None] | None
    cancellation: Cancellation | None


def source_of(source: int | RawStream) -> int | RawStream:
    """`source`, or its file descriptor where that gives the very same bytes.

    Only a regular file of an unbuffered stream counts: the descriptor of an HTTP answer
    is its socket, and a buffered file has read ahead.
    """
    if isinstance(source, (int, io.BufferedIOBase)):
        return source
    fileno = getattr(source, "fileno", None)
    if fileno is None:
        return source
    try:
        fd = fileno()
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
    except (OSError, ValueError):
        return source
    return int(fd) if regular else source


def check_descriptors(*descriptors: object) -> None:
    """Refuse what is no open descriptor and could be taken for "none": the caller's bug."""
    for one in descriptors:
        fd = one.fd if isinstance(one, DirectorySink) else one
        if isinstance(fd, int) and fd < 0:
            raise ValueError(f"descriptor {fd} is not open")


def check_cipher(cipher: CipherParameters | None, hmac: bytes | None, *, what: str) -> None:
    """Refuse a cipher that is unknown, and parameters of a wrong length.

    Raises:
        Unsupported: another cipher.
        FormatError: a length; nothing of a key is shown.
    """
    if cipher is None:
        if hmac is not None:
            raise ValueError("an HMAC without a cipher")
        return
    if cipher.name not in _NONCE_BYTES:
        raise Unsupported(
            f"{what}: cipher {cipher.name[:80]!r} is not supported, "
            f"expected {AES_256_CTR_HMAC_SHA256!r} or {AES256_GCM_HKDF_1MB!r}"
        )
    is_aead = cipher.name == AES256_GCM_HKDF_1MB
    if is_aead and hmac is not None:
        raise ValueError("an HMAC with a cipher that has none")
    if cipher.associated_data and not is_aead:
        raise ValueError("associated data with a cipher that has no place for it")
    for noun, expected, actual in (
        ("key", KEY_BYTES, len(cipher.key)),
        ("nonce", _NONCE_BYTES[cipher.name], len(cipher.nonce)),
        # ocicrypt compares a tag of any length, and none at all is only its caller's bug.
        ("hmac", MAC_BYTES, MAC_BYTES if hmac is None else len(hmac)),
    ):
        if actual != expected:
            raise FormatError(f"expected a {noun} of {expected} bytes, got {actual}", what=what)


def check_means(resources: Resources) -> None:
    """Refuse means that make no sense: the caller's bug."""
    window = resources.window_bytes
    if not _SMALLEST_WINDOW <= window <= _LARGEST_WINDOW or window & (window - 1):
        raise ValueError("window_bytes must be a power of two from 1 KiB to 2 GiB")
    if (resources.threads is not None and resources.threads < 1) or resources.compressors < 1:
        raise ValueError("threads must be at least 1")


def check_limits(limits: Limits) -> None:
    """Refuse limits that make no sense: the caller's bug."""
    if not 1 <= limits.max_name_bytes <= _LONGEST_PATH:
        raise ValueError("max_name_bytes must be from 1 to 4095")
    for number in (limits.max_tar_bytes, limits.max_ratio, limits.free_tar_bytes):
        if not 0 <= number < 1 << 62:
            raise ValueError("limits must be from 0 to 2**62")
    if not 0 <= limits.max_entries < 1 << 32:
        raise ValueError("max_entries must be from 0 to 2**32")
