"""A blob whose download goes on where it broke off.

The reader keeps its hash: what it gets is one stream, whichever connections it came over, and
a byte that came twice or never is found by the digest at the end.

Spec: RFC 9110 section 14; OCI distribution-spec v1.1, "Pulling blobs".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from imagers.errors import RemoteError, SizeMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.net.retry import RetryPolicy
    from imagers.net.stream import ResponseStream

__all__ = ["ResumingStream"]

_PROGRESS = 1024 * 1024  # bytes after which earlier failures are forgotten
_PIECE = 256 * 1024
_PARTIAL = 206
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)\Z")


class Opener(Protocol):
    """Opens the blob again."""

    def __call__(self, first: int) -> ResponseStream:
        """The answer to a request for all bytes from `first` on; status 200 or 206."""


class ResumingStream:
    """A `RawStream` over a blob of known size.

    Args:
        stream: the first answer, of status 200.
        size: of the blob, which the reader holds it to.
        what: name in messages.
        again: opens it from a byte on.
        retry: how often in a row, and how long to wait before.
        pause: waits.
    """

    def __init__(
        self,
        stream: ResponseStream,
        size: int,
        *,
        what: str,
        again: Opener,
        retry: RetryPolicy,
        pause: Callable[[float], None],
    ) -> None:
        self._stream = stream
        self._size = size
        self._what = what
        self._again = again
        self._retry = retry
        self._pause = pause
        self._at = 0
        self._failures = 0
        self._since = 0  # bytes since the last failure
        self._waited = 0.0
        self._closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of `buffer`; 0 at the end of the last answer.

        Raises:
            RemoteError: broken off too often in a row, or the server gives another part.
        """
        while True:
            try:
                count = self._stream.readinto(buffer)
            except RemoteError as error:
                if self._closed or not error.temporary or self._at >= self._size:
                    raise
                self._resume(error)
                continue
            self._at += count
            self._since += count
            # A server that starts from the first byte each time makes no progress worth
            # forgetting: breaking off each MiB, it would have the blob sent a million times.
            if self._since >= _PROGRESS and self._stream.status == _PARTIAL:
                self._failures, self._waited = 0, 0.0
            return count

    def close(self) -> None:
        """Safe to call twice."""
        self._closed = True
        self._stream.close()

    def _resume(self, error: RemoteError) -> None:
        """Open it again at the byte after the last one; `error` if that is given up."""
        while True:
            self._failures += 1
            self._since = 0
            wait = self._retry.wait_before(
                self._failures + 1, retry_after=None, waited=self._waited
            )
            if wait is None:
                raise error
            self._pause(wait)
            self._waited += wait
            try:
                stream = self._again(self._at)
            except RemoteError as next_error:
                if not next_error.temporary:
                    raise
                error = next_error
                continue
            try:
                self._check(stream)
            except RemoteError as next_error:
                stream.close()
                if not next_error.temporary:
                    raise
                error = next_error
                continue
            except BaseException:
                stream.close()
                raise
            self._stream = stream
            return

    def _check(self, stream: ResponseStream) -> None:
        """Nothing, when `stream` is at our byte."""
        if stream.status == _PARTIAL:
            told = stream.headers.get("Content-Range", "")
            match = _CONTENT_RANGE.match(told.strip())
            right = match is not None and (
                (int(match[1]), int(match[2])) == (self._at, self._size - 1)
                and match[3] in ("*", str(self._size))
            )
            if not right:
                raise RemoteError(
                    f"{self._what}: expected the bytes from {self._at} to {self._size - 1}, "
                    f"got {told[:80]!r}",
                    status=stream.status,
                    hint="the registry, or a proxy before it, does not keep to ranges",
                )
            return
        if stream.length is not None and stream.length != self._size:
            raise SizeMismatch(expected=self._size, actual=stream.length, what=self._what)
        # It knows no ranges: what we have is read once more and dropped.
        buffer = memoryview(bytearray(_PIECE))
        left = self._at
        while left:
            count = stream.readinto(buffer[:left])
            if count == 0:
                raise RemoteError(f"{self._what}: the blob became shorter", temporary=True)
            left -= count
