# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 of one connection: uvicorn's over httptools, and the rules that neither of them has.

llhttp, which httptools wraps, is strict about lines, names, values and lengths. Added here:

1. a head is bounded, in bytes and in fields;
2. HTTP/1.0 and 1.1 only; one Host; no coding of a body but `chunked`;
3. fields behind a body (trailers) are read and dropped: they may not become a cookie;
4. one request at a time. Who sends the next one before the answer (pipelining) is answered once,
   and the connection closes: uvicorn would queue thousands out of one read, and forget which runs;
5. a connection is used again only if all of the last request was read;
6. `Upgrade` is ignored, and the connection closes with the answer. With a body it is refused, for
   httptools takes the body for bytes of the new protocol;
7. what is refused is answered as all errors are, and once: never within another answer;
8. head and body of an answer leave in one piece: uvicorn would send two, and wake the peer twice.

Spec: RFC 9112 sections 3.2, 5, 6, 7.1.2, 9.3; RFC 9110 sections 7.8, 10.1.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from imagers.broker.refusals import Refusal, error_body

if TYPE_CHECKING:
    import asyncio
    import logging

    import uvicorn
    import uvicorn.server
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["MAX_HEAD_BYTES", "MAX_HEAD_FIELDS", "HTTP1Protocol"]

MAX_HEAD_BYTES = 128 * 1024  # a token stands in it; the limit of the Rust server
MAX_HEAD_FIELDS = 96  # the same
_FIELD_BYTES = len(": \r\n")
_REASONS = {400: "Bad Request", 431: "Request Header Fields Too Large"}


class HTTP1Protocol(HttpToolsProtocol):
    """uvicorn's, with the rules of the module.

    Args:
        log: where uvicorn's own lines go.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: uvicorn.server.ServerState,
        app_state: dict[str, Any],
        *,
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.logger = log  # type: ignore[assignment]  # has all that uvicorn calls
        self._head_begun = False
        self._head_bytes = 0
        self._fields = 0
        self._ignores = False

    @property
    def waits_for_head(self) -> bool:
        """Whether no request runs."""
        # uvicorn's type forgets that there is no cycle before the first request.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    @property
    def waits_for_peer(self) -> bool:
        """Whether it is the peer's turn to send or to read."""
        if self.waits_for_head:
            return True
        # Where more was written than is read, uvicorn waits before it begins an answer.
        return self.cycle.more_body or self.cycle.response_started or self.flow.write_paused

    def data_received(self, data: bytes) -> None:
        """Read what the peer sent."""
        self._unset_keepalive_if_required()
        if self._ignores:
            return
        try:
            self.parser.feed_data(data)
            if self._head_begun:  # rule 1, of a head that goes on
                self._head_bytes += len(data)
                _check_size(self._head_bytes)
        except httptools.HttpParserUpgrade:
            self._ignores = True  # rule 6
        except Refusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            own = error.__context__
            self._refuse(own if isinstance(own, Refusal) else _malformed(str(error)))

    def on_message_begin(self) -> None:
        """A request begins."""
        if not self.waits_for_head:  # rule 4
            self.cycle.keep_alive = False
            raise _malformed("a request before the answer to the one before")
        super().on_message_begin()
        self._head_begun = True
        self._head_bytes = self._fields = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of trailers."""
        self._fields += 1
        if self._fields > MAX_HEAD_FIELDS:  # rule 1
            raise Refusal("HeadTooLarge", f"expected at most {MAX_HEAD_FIELDS} header fields")
        if self._head_begun:  # rule 3
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: the request is run."""
        self._head_begun = False
        self._check_head()
        super().on_headers_complete()
        self.cycle.transport = _InOnePiece(self.cycle)  # type: ignore[assignment]  # rule 8: has all that it calls
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # rule 6

    def on_response_complete(self) -> None:
        """The answer is written."""
        cast("_InOnePiece", self.cycle.transport).flush()  # an answer to HEAD has no body
        if self.cycle.more_body:  # rule 5
            self.transport.close()
        super().on_response_complete()

    def _check_head(self) -> None:
        """Rules 1, 2 and 6."""
        names = [name for name, _ in self.headers]
        _check_size(
            len(self.url)
            + sum(len(name) + len(value) + _FIELD_BYTES for name, value in self.headers)
        )
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _malformed(f"expected HTTP/1.1, got version {version}")
        hosts = names.count(b"host")
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise _malformed(f"expected one Host, got {hosts}")
        for name, value in self.headers:
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise _malformed("expected no transfer coding but 'chunked'")
        if self.parser.should_upgrade() and not {
            b"content-length",
            b"transfer-encoding",
        }.isdisjoint(names):
            raise _malformed("expected no Upgrade: no other protocol is spoken here")
        if version == "1.0":
            self.expect_100_continue = False

    def _refuse(self, refusal: Refusal) -> None:
        """Rules 4 and 7: answer with a refusal if nothing is being answered; read nothing more."""
        self._ignores = True
        self.logger.warning("refused a request: %s", refusal.detail)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.more_body:
                # The body that it waits for is damaged: there is no request.
                cycle.disconnected = True
                cycle.message_event.set()
                if not cycle.response_started:
                    self._answer(refusal)
                self.transport.close()
            return
        self._answer(refusal)
        self.transport.close()

    def _answer(self, refusal: Refusal) -> None:
        body = error_body(refusal)
        head = f"HTTP/1.1 {refusal.status} {_REASONS[refusal.status]}\r\n"
        fields = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self.transport.write(head.encode() + lines + b"\r\n" + body)


class _InOnePiece:
    """What the answer to one request is written to: its head waits for what follows."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport: asyncio.Transport = cycle.transport
        self._head: bytes | None = None  # b"": it is on its way

    def write(self, data: bytes) -> None:
        if not self._cycle.response_started:  # 100 Continue
            self._transport.write(data)
        elif self._head is None:
            self._head = data
        else:
            self._transport.writelines([self._head, data])
            self._head = b""

    def flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


def _malformed(why: str) -> Refusal:
    return Refusal("SerdeError", f"this is no request of HTTP/1.1: {why}")


def _check_size(size: int) -> None:
    if size > MAX_HEAD_BYTES:
        raise Refusal("HeadTooLarge", f"expected a head of at most {MAX_HEAD_BYTES} bytes")
