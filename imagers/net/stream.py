# SPDX-License-Identifier: Apache-2.0
"""The body of an answer: bounded in bytes and in patience, never silently short.

Spec: RFC 9112 sections 6 and 8 (an incomplete body is an error).
"""

from __future__ import annotations

import contextlib
import http.client
import time
from typing import TYPE_CHECKING

import urllib3.exceptions as u3

from imagers import waiting
from imagers.errors import RemoteError
from imagers.model.closing import Closing
from imagers.net.connection import reader_of
from imagers.net.failures import remote_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    import urllib3

    from imagers.net.urls import Origin

__all__ = ["ResponseStream"]

_PIECE = 1024 * 1024
# A server that sends a byte before every time limit would hold a reader for ever: over each
# window as long as the read time limit it must keep this pace.
_LEAST_BYTES_PER_S = 1024
_WORTH_READING = 16 * 1024  # bytes; a new connection costs more than these


class ResponseStream(Closing):
    """An answer whose body is read in pieces: a `RawStream`, nothing of it verified.

    Attributes:
        status: of HTTP.
        headers: names compare without case.
        url: that answered, after redirects.

    Threads: one at a time.
    """

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        origin: Origin,
        url: str,
        *,
        timeout_s: float,
        has_body: bool = True,
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = url
        self._response = response
        self._read = reader_of(response)
        self._origin = origin
        self._timeout_s = timeout_s
        self._has_body = has_body
        self._window_bytes = 0
        self._window_s = 0.0
        self._ended = False
        self._error: RemoteError | None = None

    @property
    def length(self) -> int | None:
        """Bytes of the body that the headers promise, or None where they do not."""
        if not self._has_body:
            return 0
        if "Transfer-Encoding" in self.headers:
            return None
        text = self.headers.get("Content-Length", "")
        return (
            int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
        )  # 2**63 has 19

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of `buffer`; 0 at the end of the body.

        Raises:
            RemoteError: `temporary`: broken off, too slow, or shorter than promised; sticky.
        """
        if self._error is not None:
            raise self._error
        if not len(buffer):
            raise ValueError("expected a buffer with room, got an empty one")
        if self._ended:
            return 0
        started = time.monotonic()
        try:
            with waiting.waits_for(f"{self._origin}"):
                count = self._read(buffer[:_PIECE])
        except (u3.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            # ValueError: http.client on a chunk size that is no number.
            self._error = remote_error(error, self._origin, timeout_s=self._timeout_s)
            self.close()
            raise self._error from error
        if count == 0:
            self._ended = True
            return 0
        self._check_pace(count, time.monotonic() - started)
        return count

    def _check_pace(self, count: int, seconds: float) -> None:
        # Only time spent waiting for the server counts, not what the reader does between.
        self._window_bytes += count
        self._window_s += seconds
        if self._window_s < self._timeout_s:
            return
        if self._window_bytes < _LEAST_BYTES_PER_S * self._window_s:
            self._error = RemoteError(
                f"{self._origin}: too slow: {self._window_bytes} bytes in {self._window_s:.0f} s",
                temporary=True,
                hint="try again later",
            )
            self.close()
            raise self._error
        self._window_bytes = 0
        self._window_s = 0.0

    def read_bounded(self, max_bytes: int, *, deadline: float | None = None) -> bytes:
        """The rest of the body, of at most `max_bytes`.

        Args:
            deadline: on the monotonic clock, after which the reading ends.

        Raises:
            RemoteError: it is longer, or broke off, or took too long.
        """
        length = self.length
        if length is not None and length > max_bytes:
            self.close()
            raise self._too_long(max_bytes, length)
        # One byte more than allowed, to see that there is more.
        data = bytearray(min(max_bytes + 1, _PIECE) if length is None else length + 1)
        at = 0
        while True:
            if at == len(data):
                data += bytes(min(len(data), max_bytes + 1 - at))
            with memoryview(data) as view:
                count = self.readinto(view[at:])
            if count == 0:
                return bytes(memoryview(data)[:at])
            at += count
            if at > max_bytes:
                self.close()
                raise self._too_long(max_bytes, None)
            if deadline is not None and time.monotonic() > deadline:
                self.close()
                raise RemoteError(
                    f"{self._origin}: the answer took too long",
                    temporary=True,
                    hint="try again later",
                )

    def discard(self) -> None:
        """Close; a short body is read first, so that the connection can be used again."""
        if self.length is not None and self.length <= _WORTH_READING:
            with contextlib.suppress(RemoteError):
                self.read_bounded(_WORTH_READING)
        self.close()

    def _too_long(self, max_bytes: int, length: int | None) -> RemoteError:
        got = "more" if length is None else str(length)
        return RemoteError(
            f"{self._origin}: the answer is too long: expected at most {max_bytes} bytes, "
            f"got {got}",
            status=self.status,
        )

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        if self._ended:
            self._response.release_conn()
        else:
            self._response.close()
