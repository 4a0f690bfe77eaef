# SPDX-License-Identifier: Apache-2.0
"""A blob whose download goes on where it broke off.

The reader keeps its hash: what it gets is one stream, whichever connections it came over, and
a byte that came twice or never is found by the digest at the end.

Spec: RFC 9110 sections 10.2.3 (Retry-After) and 14 (ranges); OCI distribution-spec v1.1,
"Pulling blobs".
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, Protocol

from imagers import waiting
from imagers.errors import RemoteError, SizeMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.net.retry import RetryPolicy
    from imagers.net.stream import ResponseStream

__all__ = ["PARTIAL", "Opener", "Patience", "ResumingStream", "check_range", "give_up"]

PARTIAL = 206
_log = logging.getLogger(__name__)
_PROGRESS = 1024 * 1024  # bytes after which earlier failures are forgotten
_WAITS = 10  # times the longest wait of one request: so long does one download wait in all
_PIECE = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)\Z")


class Opener(Protocol):
    """Opens the blob again, once: whoever calls it has the patience."""

    def __call__(self, first: int, last: int | None = None) -> ResponseStream:
        """The answer to a request for the bytes from `first` on, to `last`; status 200 or 206."""


class Patience:
    """How often one download is tried again, and after how long.

    A failure soon after another counts more, a stretch of bytes makes them forgotten; what all
    waits together take is bounded, so that a server cannot keep a client for ever with a byte
    now and then.

    Args:
        retry: of one request; a download that broke off is tried nearly twice as often in a row.
        pause: waits.
    """

    def __init__(self, retry: RetryPolicy, pause: Callable[[float], None]) -> None:
        self._retry = replace(retry, attempts=2 * retry.attempts - 1)
        self._pause = pause
        self._failures = 0
        self._waited = 0.0
        self._waited_in_all = 0.0
        self._since = 0  # bytes since the last failure

    def progress(self, count: int) -> None:
        """So many bytes came."""
        self._since += count
        if self._since >= _PROGRESS:
            self._failures, self._waited = 0, 0.0

    def wait(self, error: RemoteError) -> bool:
        """Whether to try again, after a wait as long as the server asks for at least."""
        self._failures += 1
        self._since = 0
        wait = self._retry.wait_before(
            self._failures + 1, retry_after=error.retry_after, waited=self._waited
        )
        limit = _WAITS * self._retry.max_wait_s
        if not error.temporary or wait is None or self._waited_in_all + wait > limit:
            return False
        attempt, attempts = self._failures + 1, self._retry.attempts
        _log.debug("goes on in %.1f s, attempt %d of %d: %s", wait, attempt, attempts, error)
        with waiting.waits_for(f"another attempt: {error}"):
            self._pause(wait)
        self._waited += wait
        self._waited_in_all += wait
        return True


def check_range(stream: ResponseStream, *, first: int, last: int, size: int, what: str) -> None:
    """Raise unless a partial answer says that it has these bytes of a blob of `size`.

    Raises:
        SizeMismatch: it says that the blob has another size.
        RemoteError: it says that it has other bytes.
    """
    told = stream.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.match(told.strip())
    if match is not None and match[3] != "*" and int(match[3]) != size:
        raise SizeMismatch(expected=size, actual=int(match[3]), what=what)
    got = repr(told[:80])
    if match is not None and (int(match[1]), int(match[2])) == (first, last):
        if stream.length in (None, last - first + 1):
            return
        got = f"{stream.length} bytes"
    raise RemoteError(
        f"{what}: expected the bytes from {first} to {last}, got {got}",
        status=stream.status,
        hint="the registry, or a proxy before it, does not keep to ranges",
    )


def give_up(error: RemoteError, *, what: str, at: int, size: int) -> NoReturn:
    """Raise the error that ends a download, with how far it came."""
    if error.status is not None:
        raise error  # an answer, which says what was asked
    raise RemoteError(
        f"{what}: broke off after {at} of {size} bytes: {error}",
        code=error.code,
        temporary=error.temporary,
        hint=error.hint,
    ) from error


class ResumingStream:
    """A `RawStream` over a blob of known size.

    Args:
        stream: the first answer, of status 200; None: it is opened when it is needed.
        size: of the blob, which the reader holds it to.
        what: name in messages.
        again: opens it from a byte on.
        patience: with failures.
        first: the byte that the reader wants first.
    """

    def __init__(
        self,
        stream: ResponseStream | None,
        size: int,
        *,
        what: str,
        again: Opener,
        patience: Patience,
        first: int = 0,
    ) -> None:
        self._stream = stream
        self._size = size
        self._what = what
        self._again = again
        self._patience = patience
        self._at = first
        self._closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of `buffer`; 0 at the end of the last answer.

        Raises:
            RemoteError: broken off too often in a row, or the server gives another part.
        """
        while True:
            try:
                stream = self._stream or self._open()
                count = stream.readinto(buffer)
            except RemoteError as error:
                if self._closed or self._at >= self._size:
                    raise
                if not self._patience.wait(error):
                    give_up(error, what=self._what, at=self._at, size=self._size)
                self._stream = None
                continue
            self._at += count
            # A server that starts from the first byte each time makes no progress worth
            # forgetting: breaking off each MiB, it would have the blob sent a million times.
            if stream.status == PARTIAL:
                self._patience.progress(count)
            return count

    def close(self) -> None:
        """Safe to call twice."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()

    def _open(self) -> ResponseStream:
        """Open it at the byte after the last one."""
        stream = self._again(self._at)
        try:
            self._check(stream)
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return stream

    def _check(self, stream: ResponseStream) -> None:
        """Nothing, when `stream` is at our byte."""
        if stream.status == PARTIAL:
            last = self._size - 1
            check_range(stream, first=self._at, last=last, size=self._size, what=self._what)
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
