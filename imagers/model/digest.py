# SPDX-License-Identifier: Apache-2.0
"""Digests: an algorithm and its lower-case hex, strictly parsed.

    >>> parse_digest("sha256:" + "0" * 64).algorithm
    'sha256'

Spec: OCI image-spec v1.1, descriptor.md, "Digests".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from imagers.errors import DigestMismatch, FormatError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Digest", "Hasher", "check_digest", "digest_of", "new_hasher", "parse_digest"]

# Registered algorithms of the specification, with the length of their hex.
_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+\Z")


class Hasher(Protocol):
    """What `hashlib` gives: an incremental hash."""

    def update(self, data: Buffer, /) -> None:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """Give the hex of all bytes so far."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The name of exact bytes. Two equal digests name equal bytes.

    Make one with `parse_digest` or `digest_of`; the constructor checks nothing.
    """

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def parse_digest(text: str, *, what: str = "digest", where: str = "") -> Digest:
    """A `Digest` from `algorithm:hex`.

    The result is safe as a part of a path or a URL: both halves are from closed sets.

    Raises:
        FormatError: unknown algorithm, wrong length, or anything but lower-case hex.
    """
    algorithm, colon, hexadecimal = text.partition(":")
    length = _HEX_LENGTH.get(algorithm)
    if not colon or length is None or len(hexadecimal) != length or not _HEX.match(hexadecimal):
        raise FormatError(
            "expected 'sha256:' and 64 lower-case hex digits (or sha384, sha512), "
            f"got {text[:160]!r}",
            what=what,
            where=where,
        )
    return Digest(algorithm, hexadecimal)


def new_hasher(algorithm: str) -> Hasher:
    """An incremental hash for an algorithm of a parsed `Digest`."""
    return hashlib.new(algorithm)


def digest_of(data: Buffer, algorithm: str = "sha256") -> Digest:
    """The `Digest` of bytes in memory."""
    return Digest(algorithm, hashlib.new(algorithm, data).hexdigest())


def check_digest(data: Buffer, expected: Digest, *, what: str) -> None:
    """Raise unless `data` has the digest `expected`.

    Raises:
        DigestMismatch: it has another one.
    """
    actual = digest_of(data, expected.algorithm)
    if not hmac.compare_digest(actual.hex, expected.hex):
        raise DigestMismatch(expected=expected, actual=actual, what=what)
