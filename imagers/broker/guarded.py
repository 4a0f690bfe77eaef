# SPDX-License-Identifier: Apache-2.0
"""What is about each request: its place in the crowd, bounds of its body, and errors as answers.

The body of a request is read only up to its bound and within a time. An error of ours is answered
with an id under which the log has the rest.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from imagers.broker.keeping.database import StoreFailed
from imagers.broker.refusals import Refusal, error_body, refusal_of
from imagers.broker.ui.pages import HEADERS
from imagers.errors import ImagersError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Receive, Scope, Send

    from imagers.broker.loglines import LimitedLog
    from imagers.broker.metrics import Metrics
    from imagers.broker.places import Place

__all__ = ["JSON_TYPE", "Guarded", "caller_of", "place_of", "prove", "read_body"]

JSON_TYPE = "application/json"
_BODY_SECONDS = 30.0  # for a body of 2 MiB: slower is no guest and no admin
_DRAIN_SECONDS = 2.0  # for the rest of a body that was refused
_DRAINED_BYTES = 8 * 1024 * 1024
_LATER = (429, 503)  # statuses that say when to ask again
_BODIES = frozenset((b"content-length", b"transfer-encoding"))  # who has none of them has no body


class Guarded:
    """An ASGI endpoint whose every failure is an error answer of the protocol.

    It is a class so that starlette hands over all methods, and refuses none in its own words.
    """

    def __init__(
        self,
        endpoint: Callable[[Request], Awaitable[Response]],
        log: LimitedLog,
        counted: Metrics,
    ) -> None:
        self._endpoint = endpoint
        self._log = log
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, once."""
        began = time.perf_counter()
        body = _Incoming(receive)
        request = Request(scope, body.receive)
        body.is_complete = _BODIES.isdisjoint(name for name, _ in scope["headers"])
        place = place_of(request)
        if place is not None and not place.arrive(request.headers.getlist("x-forwarded-for")):
            response = _error(_no_room("too many connections; try later"))
        else:
            response = await self._answer(request)
        if place is not None and not place.hold(len(response.body)):
            response = _error(_no_room("too many answers are on their way; try later"))
        if f"{scope['path']}/".startswith("/ui/"):  # faults and refusals too
            response.headers.update(HEADERS)
        seconds = time.perf_counter() - began
        self._counted.count(self._endpoint.__name__, response.status_code, seconds=seconds)
        waits = "expect" in request.headers
        if not (body.is_complete or waits):
            await body.drain(0)  # what is there already
        if not body.is_complete:
            # Who sends the rest, reads the answer and asks again could be there before we have
            # read it all: he would be refused as one who pipelines.
            response.headers["Connection"] = "close"
        if body.is_complete or waits:
            await response(scope, receive, send)
            return
        # The caller still sends. To close now would reset the connection, and the reset can
        # overtake the answer: it is sent, then the rest is read for a while, then we close.
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await body.drain(_DRAIN_SECONDS)
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, request: Request) -> Response:
        try:
            _check_path(request.scope["path"])
            return await self._endpoint(request)
        except Refusal as refusal:
            return _error(refusal)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except ImagersError as error:
            meant = refusal_of(error)
            return self._own_fault(error) if meant is None else _error(meant)
        except Exception as error:  # noqa: BLE001 - the border: nothing may leave it unshaped
            return self._own_fault(error)

    def _own_fault(self, error: Exception) -> Response:
        number = secrets.token_hex(4)
        # The classes of our errors hold no secrets; of others only the kind is logged, since
        # their text may repeat parameters.
        told = str(error) if isinstance(error, ImagersError) else ""
        self._log.error(
            "fault %s: %s %s",
            number,
            type(error).__name__,
            told,
            exc_info=self._log.isEnabledFor(logging.DEBUG),
        )
        where = "; its log has more under that id"
        if isinstance(error, StoreFailed):
            detail = f"fault {number} of the broker's store{where}; try later"
            return _error(Refusal("StoreUnavailable", detail))
        return _error(Refusal("InternalError", f"fault {number} of the broker{where}"))


def _check_path(path: str) -> None:
    # Patterns of routes let a line feed at the end pass: two paths would name one resource.
    if not (path.isascii() and path.isprintable()):
        raise Refusal(
            "InvalidRequestPath", f"expected printable ASCII in a path, got {path[:80]!r}"
        )


class _Incoming:
    """The body of a request on its way in: knows if there is more, and can read it to nowhere."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_complete = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.is_complete = not message.get("more_body", False)
        return message

    async def drain(self, seconds: float) -> None:
        left = _DRAINED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.is_complete and left > 0:
                    left -= len((await self.receive()).get("body", b""))


def place_of(request: Request) -> Place | None:
    """The place of the connection; None where another server than ours runs the application."""
    place: Place | None = request.scope.get("imagers.place")
    return place


def caller_of(request: Request) -> str:
    """Who asks, as far as is known without a proof: whose share the connection takes."""
    place = place_of(request)
    return (place.address if place is not None else None) or ""


def prove(request: Request, caller: str) -> None:
    """The caller has proved to be somebody: strangers do not displace his connection."""
    place = place_of(request)
    if place is not None:
        place.prove(caller)


def _no_room(detail: str) -> Refusal:
    return Refusal("TooManyConnections", detail)


def _error(refusal: Refusal) -> Response:
    headers = {"Cache-Control": "no-store"}
    if refusal.status in _LATER:
        headers["Retry-After"] = "5"
    return Response(error_body(refusal), refusal.status, headers=headers, media_type=JSON_TYPE)


async def read_body(request: Request, limit: int) -> bytearray:
    """The body, of at most `limit` bytes; the caller may overwrite it."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and (len(length) > len(str(limit)) or int(length) > limit):
        raise Refusal("PayloadTooLarge", f"expected at most {limit} bytes")
    data, place = bytearray(), place_of(request)
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                if len(data) + len(piece) > limit:
                    raise Refusal("PayloadTooLarge", f"expected at most {limit} bytes")
                data += piece
                if place is not None and not place.hold(len(data)):
                    raise _no_room("too many bodies are on their way; try later")
    except TimeoutError:
        raise Refusal("RequestTimeout", f"expected the body within {_BODY_SECONDS:g} s") from None
    return data
