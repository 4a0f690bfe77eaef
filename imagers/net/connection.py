# SPDX-License-Identifier: Apache-2.0
"""Connections of urllib3 with more bounds on time: until the headers are complete, and on sending.

The time limit of a socket starts again with every byte; a server that sends its headers a
byte at a time would hold a client for hours. So would the line before a chunk, or trailers
without end after the last one: they are read inside of one call for a piece of the body. The
body itself has its own watch, in `stream`, and goes from the socket into the reader's buffer.

A socket is asked ten times a second, so that what is in force (`imagers.waiting`) ends its waiting.
Connections are made aside where something is: no name server answers to anybody's limits.

What is sent has one time limit for all of a piece where urllib3 sends it: a slow line would need
small pieces, and those cost a fast one as much as hashing. Here the limit is for some bytes.
"""

from __future__ import annotations

import http.client
import io
import ssl
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from imagers import waiting

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed import SupportsRead
    from typing_extensions import Buffer

    from imagers.net.proxies import Proxy
    from imagers.net.tls import PeerCheck

__all__ = ["SendingTimeout", "new_pools", "reader_of"]

_LEAST_SENT = 64 * 1024  # bytes that must leave within the time limit of the socket
_PATIENCE = 2.0  # times the time limit of the socket, for all headers or one piece together


class _Watched(io.RawIOBase):
    """The bytes of a socket, until a deadline if there is one, and until something ends it.

    Args:
        raw: is closed with this.
        limit_s: on the silence of the socket; None: there is none.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limit_s: float | None) -> None:
        self._raw = raw
        self._sock = sock
        self._limit_s = limit_s
        self.deadline: float | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int | None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeoutError("the headers, or what is between pieces of the body, took too long")
        # The socket itself: the file that Python makes of it reads no more after a time-out.
        return _by_ticks(self._sock, self._limit_s, lambda: self._sock.recv_into(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """Gives what has come without waiting for more, and large reads what the socket gives."""

    _may_hold = True  # something that came with the headers

    def readinto(self, buffer: Buffer, /) -> int:
        # For more than its own buffer has room for, `readinto1` asks the socket although it has
        # something to give.
        with memoryview(buffer) as view:
            part = view[: io.DEFAULT_BUFFER_SIZE] if self._may_hold else view
            self._may_hold = len(part) < io.DEFAULT_BUFFER_SIZE
            with part:
                return self.readinto1(part)


class _Response(http.client.HTTPResponse):
    """An answer whose headers must be there in time."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._limit_s = sock.gettimeout()
        self._watched = _Watched(self.fp.detach(), sock, self._limit_s)
        self.fp = _Reader(self._watched, io.DEFAULT_BUFFER_SIZE)

    def begin(self) -> None:
        with self._in_time():
            super().begin()

    def read1(self, n: int = -1) -> bytes:
        """One piece of the body, with the lines that frame chunks."""
        with self._in_time():
            return super().read1(n)

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a part of `buffer`, with one read of the socket; 0 at the end of the body.

        Raises:
            IncompleteRead: the end comes before it was announced.
        """
        if self.chunked:
            with memoryview(buffer) as view:
                piece = self.read1(len(view))
                view[: len(piece)] = piece
            return len(piece)
        left = self.length
        count = super().readinto(buffer)
        if count == 0 and left:
            raise http.client.IncompleteRead(b"", left)
        return count

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        if self._limit_s is not None:
            self._watched.deadline = time.monotonic() + _PATIENCE * self._limit_s
        try:
            yield
        finally:
            self._watched.deadline = None


class SendingTimeout(TimeoutError):
    """The other side takes no more of a body.

    Attributes:
        limit_s: the time limit of a piece that was in force.
    """

    def __init__(self, limit_s: float) -> None:
        super().__init__("sending took too long")
        self.limit_s = limit_s


def _by_ticks(sock: socket.socket, limit_s: float | None, work: Callable[[], int]) -> int:
    """What one call of a socket gives, within a time limit; looks meanwhile whether it has to end.

    Raises:
        TimeoutError: not within the limit.
        Cancelled: see `imagers.waiting.check`.
    """
    end = None if limit_s is None else time.monotonic() + limit_s
    sock.settimeout(waiting.TICK_S if limit_s is None else min(limit_s, waiting.TICK_S))
    try:
        while True:
            waiting.check()
            try:
                return work()
            except TimeoutError:
                if end is not None and time.monotonic() >= end:
                    raise
    finally:
        sock.settimeout(limit_s)


def _send_all(sock: socket.socket, data: memoryview) -> None:
    """Send all of `data`, as long as it goes on."""
    limit_s = sock.gettimeout()
    sent, since = 0, time.monotonic()
    while data:
        try:
            # With TLS, the same bytes again.
            count = _by_ticks(sock, limit_s, partial(sock.send, data))
        except TimeoutError as error:
            raise SendingTimeout(limit_s or 0.0) from error
        data = data[count:]
        sent += count
        now = time.monotonic()
        if sent >= _LEAST_SENT:
            sent, since = 0, now
        elif limit_s is not None and now - since > limit_s:
            raise SendingTimeout(limit_s)


class _Sending(HTTPConnection):
    def send(self, data: SupportsRead[bytes] | Iterable[Buffer] | Buffer | str) -> None:
        """Headers as ever; pieces of a body, which are views, with their own time limit."""
        if isinstance(data, memoryview) and self.sock is not None:
            _send_all(self.sock, data)
        else:
            super().send(data)


class _Connection(_Sending):
    response_class = _Response

    def connect(self) -> None:
        """As ever, where it can be left."""
        waiting.run_aside(super().connect, if_late=self.close)


class _TLSConnection(_Sending, HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        """As ever, where it can be left."""
        waiting.run_aside(super().connect, if_late=self.close)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


def reader_of(response: urllib3.BaseHTTPResponse) -> Callable[[memoryview], int]:
    """A function that fills a part of a buffer with the body, as it came; 0 at its end.

    Raises what sockets and `http.client` raise, or urllib3.
    """
    # urllib3 has no way that makes no `bytes` of each piece, which costs as much as reading it.
    # This attribute is its private one: without it, the body goes the long way.
    inner = getattr(response, "_fp", None)
    if isinstance(inner, _Response):
        return inner.readinto

    def readinto(buffer: memoryview) -> int:
        piece = response.read1(len(buffer), decode_content=False)
        buffer[: len(piece)] = piece
        return len(piece)

    return readinto


def new_pools(
    *,
    max_idle: int,
    tls: ssl.SSLContext | None = None,
    proxy: Proxy | None = None,
    peer_check: PeerCheck | None = None,
) -> urllib3.PoolManager:
    """Pools of connections to any number of servers.

    Args:
        max_idle: connections kept to one server.
        tls: for https, also to a proxy.
        proxy: to go through.
        peer_check: of each connection with TLS, before anything is sent; not through a proxy.
    """
    pools: urllib3.PoolManager
    if proxy is None:
        pools = urllib3.PoolManager(maxsize=max_idle, ssl_context=tls)
    else:
        login = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
        pools = urllib3.ProxyManager(
            proxy.url,
            maxsize=max_idle,
            ssl_context=tls,
            proxy_headers=login,
            proxy_ssl_context=tls,
        )
    tls_pool = _TLSPool if peer_check is None else _checked_pool(peer_check)
    pools.pool_classes_by_scheme = {"http": _Pool, "https": tls_pool}
    return pools


def _checked_pool(peer_check: PeerCheck) -> type[_TLSPool]:
    class Connection(_TLSConnection):
        def connect(self) -> None:
            super().connect()
            assert isinstance(self.sock, ssl.SSLSocket)
            certificate = self.sock.getpeercert(binary_form=True)
            if certificate is None:
                raise ssl.SSLError("the peer has shown no certificate")
            peer_check(certificate)
            self.is_verified = True

    class Pool(_TLSPool):
        ConnectionCls = Connection

    return Pool
