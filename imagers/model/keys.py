# SPDX-License-Identifier: Apache-2.0
"""Keys: secret bytes that can be wiped, and the Protocols of those who wrap them.

    with random_secret(32) as key, key.view() as data:
        ...                                  # data is wiped when the block ends

The public half of a recipient wraps, the secret half unwraps; the two never share a noun.
"""

from __future__ import annotations

import hmac
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol, runtime_checkable

from imagers.model.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from imagers.model.digest import Digest

__all__ = [
    "KeyUnwrapper",
    "KeyWrapper",
    "NotMine",
    "ResourceStore",
    "SecretKey",
    "UnwrapContext",
    "WrapContext",
    "WrappedKey",
    "random_secret",
]


class SecretKey(Closing):
    """Secret bytes in memory of their own, overwritten by `close()`.

    It does not print, is not hashable, cannot be pickled or copied, and compares in
    constant time. A `memoryview` from `view()` must not be kept after the block.

    Args:
        data: is copied; the caller wipes its own copy where it can.

    Threads: safe to view from several threads; `close` only when none does.
    """

    __slots__ = ("_closed", "_data")

    def __init__(self, data: Buffer) -> None:
        with memoryview(data) as view:  # refuses a number, of which bytearray() makes zeros
            self._data = bytearray(view)
        self._closed = False

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"SecretKey({len(self._data)} bytes)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretKey):
            return NotImplemented
        # Wiped keys are all alike, which must never be taken for the same key.
        if self._closed or other._closed:
            raise ValueError("the key was closed")
        return hmac.compare_digest(self._data, other._data)

    __hash__ = None  # type: ignore[assignment]  # a set of secrets would compare their hashes

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretKey cannot be pickled or copied")

    @contextmanager
    def view(self) -> Iterator[memoryview]:
        """The bytes, read-only, for the length of the block.

        Raises:
            ValueError: the key was closed.
        """
        if self._closed:
            raise ValueError("the key was closed")
        with memoryview(self._data) as whole, whole.toreadonly() as data:
            yield data

    def close(self) -> None:
        """Overwrite the bytes. Safe to call twice."""
        # The length stays, so that an overwrite cannot turn into a reallocation.
        self._data[:] = bytes(len(self._data))
        self._closed = True

    def __del__(self) -> None:
        if hasattr(self, "_data"):
            self.close()


def random_secret(length: int) -> SecretKey:
    """`length` fresh bytes from the operating system."""
    return SecretKey(os.urandom(length))


class NotMine(Exception):  # a signal between providers, not an error of the API
    """A key unwrapper says that a packet is for somebody else: ask the next one.

    It is no `ImagersError` and never leaves the package that asks. Its text says why, for
    the list of what was tried.
    """


@dataclass(frozen=True, slots=True)
class WrapContext:
    """What a wrapper may know of the layer whose key it wraps."""

    what: str


@dataclass(frozen=True, slots=True)
class UnwrapContext:
    """What an unwrapper may know of the image whose layer key it unwraps.

    Attributes:
        what: name of the layer in messages.
        manifest_digest: of the trusted image; None where no image is trusted (the
            `decrypt` command), and then keys that are bound to an image are refused.
    """

    what: str
    manifest_digest: Digest | None


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """One wrapped blob from an annotation, as it came.

    Attributes:
        scheme: what follows `org.opencontainers.image.enc.keys.`, such as `jwe` or
            `provider.attestation-agent`.
        packet: the decoded element: JWE text, packet JSON, ...
    """

    scheme: str
    packet: bytes = field(repr=False)


@runtime_checkable
class KeyWrapper(Protocol):
    """The public side of recipients of one scheme."""

    @property
    def scheme(self) -> str:
        """The scheme of the annotation that the packet goes to."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """The recipients, as messages show them; nothing secret."""

    def wrap(self, private_options: SecretKey, context: WrapContext) -> bytes:
        """One packet that each of the recipients can open."""


@runtime_checkable
class KeyUnwrapper(Protocol):
    """The secret side of one recipient."""

    @property
    def description(self) -> str:
        """How messages name it, such as `key file 'a.pem'`; nothing secret."""

    def unwrap(self, wrapped: WrappedKey, context: UnwrapContext) -> SecretKey:
        """The private options in the packet; the caller closes them.

        Raises:
            NotMine: for another recipient; ask the next unwrapper.
            KeyUnavailable, Unsupported: it cannot be had here; the next one is asked, and
                this is raised if nobody opens a packet of the layer.
            ImagersError: anything else stops the search.
        """


class ResourceStore(Protocol):
    """Named secrets at a broker, as the key packets need them.

    `uri` is always `kbs:///repository/type/tag`.
    """

    def get(self, uri: str, *, manifest_digest: Digest | None) -> SecretKey:
        """The secret of that name; the caller closes it.

        Args:
            manifest_digest: of the image that the secret is wanted for, told to the broker.

        Raises:
            KeyRefused: the broker says no.
            KeyUnavailable: it has no such secret.
            AttestationError: it does not believe what this machine is.
            RemoteError: it could not be asked.
        """

    def get_all(
        self, uris: Sequence[str], *, manifest_digest: Digest | None
    ) -> dict[str, SecretKey]:
        """The secrets of these names by one question, all or none; the caller closes them.

        None where the broker takes no such question, or does not give one of them: which, and
        why, is for `get` to say.

        Args:
            uris: no two are equal.
            manifest_digest: as for `get`.

        Raises:
            AttestationError, RemoteError, FormatError: as for `get`.
        """
