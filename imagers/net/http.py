# SPDX-License-Identifier: Apache-2.0
"""The one HTTP client: time limits, bounded reads, retries, safe redirects.

    with HTTPClient(HTTPSettings(ca_file="/etc/broker-ca.pem")) as client:
        answer = client.request("GET", "https://broker:8080/kbs/v0/auth", max_bytes=65536)

What it promises: plain http only to this machine unless it is allowed by name; no
`Authorization`, cookie or body ever follows a redirect to another origin; no answer is
longer than allowed, none is decoded, none is silently cut. Errors below HTTP and statuses
that the caller did not expect are `RemoteError` and its kinds, in one line.

Left to callers: who is logged in (`Authorization` is a header like others here), and what
the bytes mean.

Spec: RFC 9110.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from urllib.parse import urlsplit

import urllib3
import urllib3.exceptions as u3

from imagers import __version__, waiting
from imagers.errors import (
    LocalError,
    NotFound,
    RateLimited,
    RemoteError,
    Unauthorized,
    UsageError,
)
from imagers.files import local_errors
from imagers.model.closing import Closing
from imagers.net.connection import new_pools
from imagers.net.failures import remote_error
from imagers.net.proxies import Proxies, Proxy
from imagers.net.retry import RETRIED_STATUS, RetryPolicy, is_idempotent, parse_retry_after
from imagers.net.stream import ResponseStream
from imagers.net.tls import PeerCheck, new_checked_context, new_tls_context
from imagers.net.urls import Origin, join_url, parse_origin, redact_url

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Container, Generator, Mapping

__all__ = [
    "ANY_STATUS",
    "SUCCESS",
    "Body",
    "FileBody",
    "HTTPClient",
    "HTTPSettings",
    "PieceBody",
    "Response",
    "content_encoding",
    "status_error",
    "status_text",
]

logging.getLogger("imagers").addHandler(logging.NullHandler())  # until a program listens
_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer", "Response", ResponseStream)

SUCCESS = range(200, 300)
ANY_STATUS = range(100, 600)
_GZIP = b"\x1f\x8b"
_MAX_REDIRECTS = 5
_MAX_BODY = 1024 * 1024  # as containers/image reads of an error
_MAX_IDLE = 8  # connections kept to one server
_READ_PIECE = 1024 * 1024
_USER_AGENT = f"imagers/{__version__}"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEPT_ACROSS_ORIGINS = frozenset({"accept", "range", "user-agent", "accept-encoding"})


@dataclass(frozen=True, slots=True)
class HTTPSettings:
    """How to speak to servers.

    Attributes:
        ca_file: PEM file; only its certificates are trusted then, and none of the system's.
        ca_pem: the same in PEM, in place of it.
        more_ca_files: PEM files; trusted beside those.
        more_cas: the same, in PEM.
        client_certificates: pairs of PEM files, certificate and key, for servers that ask.
        proxies: which requests go through one.
        insecure_http: allow plain http to other machines.
        insecure_skip_verify: accept any certificate.
        peer_check: decides alone on the certificate of each peer, in place of CAs and names; what
            it raises passes. Only https is spoken then, and through no proxy.
        connect_timeout_s: bound on one connection attempt.
        read_timeout_s: bound on the silence of a server.
        total_timeout_s: bound on one `request`, retries included, unless it sends a file.
        upload_answer_timeout_s: bound on the silence after a file was sent, while a server
            stores and hashes it.
        retry: how often and how long to wait.
        ca_option, plain_option: what a user can give to name a CA, and to allow plain http, for
            hints; "" where there is nothing.
    """

    ca_file: str | os.PathLike[str] | None = None
    ca_pem: str | None = None
    more_ca_files: tuple[str | os.PathLike[str], ...] = ()
    more_cas: tuple[str, ...] = ()
    client_certificates: tuple[tuple[str | os.PathLike[str], str | os.PathLike[str]], ...] = ()
    proxies: Proxies = field(default_factory=Proxies)
    insecure_http: bool = False
    insecure_skip_verify: bool = False
    peer_check: PeerCheck | None = None
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    total_timeout_s: float = 300.0
    upload_answer_timeout_s: float = 600.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    ca_option: str = ""
    plain_option: str = ""


@dataclass(frozen=True, slots=True)
class FileBody:
    """A body read from a file, from the same byte at each attempt.

    Attributes:
        fd: open for reading; its position is neither used nor moved.
        size: of the body in bytes.
        offset: of its first byte in the file.
    """

    fd: int
    size: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class PieceBody:
    """A body that is made anew for each attempt, of the same bytes.

    Attributes:
        size: of the body in bytes.
        pieces: makes them, from the first on; each is used before the next is asked for. What
            it raises ends the request, with the body incomplete, and passes.
    """

    size: int
    pieces: Callable[[], Generator[memoryview, None, None]]


Body: TypeAlias = bytes | FileBody | PieceBody


def _size_of(body: Body) -> int:
    return len(body) if isinstance(body, bytes) else body.size


def _pieces(body: Body) -> Generator[memoryview, None, None]:
    """The body in pieces."""
    if isinstance(body, PieceBody):
        with closing(body.pieces()) as pieces:
            yield from pieces
    elif isinstance(body, bytes):
        yield memoryview(body)
    else:
        for at in range(0, body.size, _READ_PIECE):
            count = min(_READ_PIECE, body.size - at)
            yield memoryview(_read_at(body.fd, count, body.offset + at))


def _read_at(fd: int, count: int, offset: int) -> bytes:
    with local_errors("", "a file could not be read for sending"):
        data = os.pread(fd, count, offset)
    if len(data) != count:
        raise LocalError("a file became shorter while it was sent")
    return data


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer.

    Attributes:
        headers: names compare without case.
        url: that answered, after redirects.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)  # may be a token
    url: str = field(repr=False)  # may be signed


def status_error(
    status: int, message: str, *, code: str = "", hint: str | None = None
) -> RemoteError:
    """The kind of `RemoteError` that a status asks for, with a message of the caller's."""
    kind = RemoteError
    if status == 404:  # Not Found
        kind = NotFound
    elif status in (401, 403):
        kind = Unauthorized
    elif status == 429:  # Too Many Requests
        kind = RateLimited
    return kind(message, status=status, code=code, temporary=status in RETRIED_STATUS, hint=hint)


class HTTPClient(Closing):
    """Speaks to any number of servers; connections are kept and reused.

    Args:
        sleep: waits between attempts; tests give their own.

    What is in force (`imagers.waiting`) ends each of its waits.

    Threads: safe.
    """

    def __init__(
        self,
        settings: HTTPSettings | None = None,
        *,
        sleep: Callable[[float], None] = waiting.pause,
    ) -> None:
        self._settings = settings or HTTPSettings()
        if self._settings.peer_check is not None and self._settings.proxies != Proxies():
            raise UsageError("a peer that is to show what it is is spoken to without a proxy")
        self._sleep = sleep
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, Proxy | None], urllib3.PoolManager] = {}
        self._tls: ssl.SSLContext | None = None

    @property
    def settings(self) -> HTTPSettings:
        """As given."""
        return self._settings

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        max_bytes: int = _MAX_BODY,
        expected: Container[int] = SUCCESS,
        repeatable: bool | None = None,
        named_by: str = "",
    ) -> Response:
        """The whole answer, its body bounded by `max_bytes`.

        Args:
            expected: statuses to return; all others are raised by `status_error`.
            repeatable: whether sending twice is as good as once; None: by the method.
            named_by: who gave the address, if not the user, for messages.

        Raises:
            RemoteError: no answer, or none that was expected; `temporary` after all retries.
            UsageError: plain http to another machine, which was not allowed.
            FormatError: `url` is none.
        """
        # A file may take as long as it takes, while each piece makes progress.
        deadline = None
        if body is None or isinstance(body, bytes):
            deadline = time.monotonic() + self._settings.total_timeout_s

        def once() -> Response:
            with self._open_once(method, url, headers or {}, body, named_by=named_by) as stream:
                data = b""
                if stream.status in expected:
                    data = stream.read_bounded(max_bytes, deadline=deadline)
                    data = _decoded(stream, data, max_bytes)
                else:
                    stream.discard()
                return Response(stream.status, stream.headers, data, stream.url)

        response = self._with_retries(
            once,
            parse_origin(url),
            repeat=is_idempotent(method) if repeatable is None else repeatable,
            until=deadline,
        )
        if response.status not in expected:
            raise _unexpected(method, response)
        return response

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        expected: Container[int] = SUCCESS,
        repeatable: bool | None = None,
        named_by: str = "",
    ) -> ResponseStream:
        """The answer with its body still to be read; the caller closes it.

        Retries end when the headers are there: a body that breaks off is the reader's.
        Raises as `request`.

        Args:
            repeatable: False for a caller with retries of its own; None: by the method.
        """
        stream = self._with_retries(
            lambda: self._open_once(method, url, headers or {}, None, named_by=named_by),
            parse_origin(url),
            repeat=is_idempotent(method) if repeatable is None else repeatable,
            until=time.monotonic() + self._settings.total_timeout_s,
        )
        if stream.status not in expected:
            stream.discard()
            raise _unexpected(method, stream)
        return stream

    def pause(self, seconds: float) -> None:
        """Wait, as between attempts."""
        self._sleep(seconds)

    def close(self) -> None:
        """Close all idle connections. Safe to call twice."""
        with self._lock:
            for pools in self._pools.values():
                pools.clear()

    def _with_retries(
        self, once: Callable[[], _Answer], who: Origin, *, repeat: bool, until: float | None
    ) -> _Answer:
        """What `once` gives, after retries; an answer of any status."""
        waited = 0.0
        attempt = 1
        while True:
            attempt += 1
            retry_after = None
            why: object
            try:
                answer = once()
            except RemoteError as error:
                why = error
                wait = self._wait_before(attempt, None, waited, until)
                if not error.temporary or not repeat or wait is None:
                    raise
            else:
                if answer.status not in RETRIED_STATUS or not repeat:
                    return answer
                retry_after = parse_retry_after(
                    answer.headers.get("Retry-After"), now=datetime.now(UTC)
                )
                wait = self._wait_before(attempt, retry_after, waited, until)
                if wait is None:
                    return answer
                why = status_text(answer.status)
                if isinstance(answer, ResponseStream):
                    answer.discard()
            attempts = self._settings.retry.attempts
            _log.debug("again in %.1f s, attempt %d of %d: %s", wait, attempt, attempts, why)
            with waiting.waits_for(f"{who}, to try again: {why}"):
                self._sleep(wait)
            waited += wait

    def _wait_before(
        self, attempt: int, retry_after: float | None, waited: float, until: float | None
    ) -> float | None:
        wait = self._settings.retry.wait_before(attempt, retry_after=retry_after, waited=waited)
        if wait is None or (until is not None and time.monotonic() + wait > until):
            return None
        return wait

    def _open_once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None,
        *,
        named_by: str,
    ) -> ResponseStream:
        """One attempt: follows redirects, retries nothing."""
        origin = parse_origin(url)
        if not self._may_ask(origin):
            if self._settings.peer_check is not None:
                raise UsageError(f"{origin}: a peer that is to show what it is needs https")
            raise UsageError(
                f"{origin}: plain http is used to this machine only",
                hint="use https, or allow plain http by name",
            )
        # An address to write to, which a server gave, may be what lets one in: as of a redirect.
        is_ours = not named_by or method in ("GET", "HEAD")
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                stream = self._exchange(method, url, origin, headers, body, named_by=named_by)
            except RemoteError as error:
                self._log(method, url, error, whole=is_ours)
                raise
            self._log(method, url, stream.status, whole=is_ours)
            location = stream.headers.get("Location")
            if stream.status not in _REDIRECTS or location is None:
                return stream
            stream.discard()
            url = join_url(url, location)
            target = parse_origin(url)
            self._check_redirect(method, stream.status, origin, target)
            if target != origin:
                is_ours = False
                named_by = f"a redirect of {origin}"
                headers = {
                    name: value
                    for name, value in headers.items()
                    if name.lower() in _KEPT_ACROSS_ORIGINS
                }
            origin = target
        raise RemoteError(
            f"{origin}: expected at most {_MAX_REDIRECTS} redirects in a row, got more",
            hint="the server, or something before it, sends requests in a circle",
        )

    def _log(self, method: str, url: str, answer: object, *, whole: bool) -> None:
        """A line for a request.

        Args:
            whole: whether the path is shown too. Behind a redirect, it may be what lets one in.
        """
        if not _log.isEnabledFor(logging.DEBUG):
            return
        origin = parse_origin(url)
        proxy = self._settings.proxies.find(origin)
        through = f" through the proxy {proxy.url}" if proxy is not None else ""
        shown = redact_url(url) if whole else f"{origin.scheme}://{origin}/…"
        _log.debug("%s %s%s: %s", method, shown, through, answer)

    def _may_ask(self, origin: Origin) -> bool:
        if self._settings.peer_check is not None:
            return origin.scheme == "https"
        return origin.scheme == "https" or origin.is_loopback or self._settings.insecure_http

    def _check_redirect(self, method: str, status: int, origin: Origin, target: Origin) -> None:
        if origin.scheme == "https" and target.scheme == "http":
            raise RemoteError(
                f"{origin}: redirects from https to plain http at {target}, which is refused",
                status=status,
            )
        if not self._may_ask(target):
            raise RemoteError(
                f"{origin}: redirects to plain http at {target}, which is refused", status=status
            )
        # What is written, and secrets in bodies, go only where the caller sent them.
        if method not in ("GET", "HEAD") and (target != origin or status not in (307, 308)):
            raise RemoteError(
                f"{origin}: redirects a {method} request to {target}, which is refused",
                status=status,
            )

    def _exchange(
        self,
        method: str,
        url: str,
        origin: Origin,
        headers: Mapping[str, str],
        body: Body | None,
        *,
        named_by: str,
    ) -> ResponseStream:
        settings = self._settings
        sent = {"Accept-Encoding": "identity", "User-Agent": _USER_AGENT, **headers}
        connect_s, silence_s = settings.connect_timeout_s, settings.read_timeout_s
        if body is not None:
            sent["Content-Length"] = str(_size_of(body))
            # For urllib3 the limit on connecting is also the one on sending a piece.
            connect_s = max(connect_s, silence_s)
        if body is not None and not isinstance(body, bytes):
            silence_s = settings.upload_answer_timeout_s
        proxy = settings.proxies.find(origin)
        if proxy is not None and proxy.authorization and origin.scheme == "http":
            sent["Proxy-Authorization"] = proxy.authorization
        who = f"{origin}, which {named_by} names" if named_by else f"{origin}"
        if proxy is not None:
            who += f", through the proxy {proxy.url}"
        target = _request_target(url)
        if proxy is not None and origin.scheme == "http":
            target = url  # such a proxy is told all of it, and logged in to each time
        # A new connection is waited for in one go.
        connect_s = max(waiting.left_s(connect_s), waiting.TICK_S)
        with waiting.waits_for(who):
            try:
                # The pool of the checked origin, and not of what another parser sees in the URL.
                pool = self._manager(origin.scheme, proxy).connection_from_host(
                    f"[{origin.host}]" if ":" in origin.host else origin.host,
                    origin.port,
                    origin.scheme,
                )
                with closing(_pieces(body or b"")) as pieces:
                    response = pool.urlopen(
                        method,
                        target,
                        # A socket takes any buffer.
                        body=None if body is None else pieces,  # type: ignore[arg-type]
                        headers=sent,
                        redirect=False,
                        assert_same_host=False,  # the pool of a proxy has the proxy's name
                        retries=False,
                        preload_content=False,
                        decode_content=False,
                        timeout=urllib3.Timeout(connect=connect_s, read=silence_s),
                    )
            except (u3.HTTPError, OSError) as error:
                waiting.check()  # what is left of another limit may have been the reason
                raise remote_error(
                    error,
                    who,
                    timeout_s=silence_s,
                    connect_timeout_s=connect_s,
                    ca_option=settings.ca_option,
                    plain_option=settings.plain_option,
                ) from error
        return ResponseStream(
            response,
            origin,
            url,
            timeout_s=settings.read_timeout_s,
            has_body=method != "HEAD",
        )

    def _manager(self, scheme: str, proxy: Proxy | None) -> urllib3.PoolManager:
        with self._lock:
            pools = self._pools.get((scheme, proxy))
            if pools is None:
                tls = None
                if scheme == "https" or (proxy is not None and proxy.url.startswith("https:")):
                    # Reading the system's roots takes 10 ms.
                    tls = self._tls = self._tls or self._new_tls_context()
                pools = self._pools[scheme, proxy] = new_pools(
                    max_idle=_MAX_IDLE, tls=tls, proxy=proxy, peer_check=self._settings.peer_check
                )
            return pools

    def _new_tls_context(self) -> ssl.SSLContext:
        if self._settings.peer_check is not None:
            return new_checked_context()
        return new_tls_context(
            self._settings.ca_file,
            insecure_skip_verify=self._settings.insecure_skip_verify,
            ca_pem=self._settings.ca_pem,
            more_ca_files=self._settings.more_ca_files,
            more_cas=self._settings.more_cas,
            client_certificates=self._settings.client_certificates,
        )


def _request_target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _decoded(stream: ResponseStream, body: bytes, max_bytes: int) -> bytes:
    """The bytes that were meant, of a server or proxy that packs them though nobody asked for it.

    A label alone says little: storages keep `x-gzip` of whoever uploaded, others say `utf-8`.
    """
    encoding = content_encoding(stream.headers)
    if encoding not in ("gzip", "x-gzip") or not body.startswith(_GZIP):
        return body
    decoder = zlib.decompressobj(wbits=31)
    origin = parse_origin(stream.url)
    try:
        data = decoder.decompress(body, max_bytes + 1)
    except zlib.error:
        raise RemoteError(
            f"{origin}: expected gzip, as its content encoding says, got something else",
            status=stream.status,
            hint="a proxy before the server may add it",
        ) from None
    # What is behind the end of a member would be dropped, and with it a part of a list.
    if len(data) > max_bytes or not decoder.eof or decoder.unused_data:
        raise RemoteError(
            f"{origin}: the answer is too long, or breaks off: expected one gzip with at most "
            f"{max_bytes} bytes",
            status=stream.status,
        )
    return data


def content_encoding(headers: Mapping[str, str]) -> str:
    """What `Content-Encoding` says, in small letters; "" for the bytes as they are.

    It is asked for by nobody here. Bytes that have a digest are judged by that alone.
    """
    encoding: str = headers.get("Content-Encoding", "").strip().lower()[:40]
    return "" if encoding == "identity" else encoding


def _unexpected(method: str, answer: Response | ResponseStream) -> RemoteError:
    hint = None
    if answer.status in (401, 403):
        hint = "log in, or give other credentials"
    elif answer.status in RETRIED_STATUS:
        hint = "try again later"
    return status_error(
        answer.status,
        f"{method} {redact_url(answer.url)}: the server answered {status_text(answer.status)}",
        hint=hint,
    )


def status_text(status: int) -> str:
    """A status with its name: `503 service unavailable`."""
    try:
        return f"{status} {HTTPStatus(status).phrase.lower()}"
    except ValueError:
        return str(status)
