# SPDX-License-Identifier: Apache-2.0
"""What went wrong below HTTP, in one line: who, what, and what to do.

Errors of urllib3, ssl and sockets end here and become `RemoteError`.
"""

from __future__ import annotations

import errno
import http.client
import os
import socket
import ssl
from typing import TYPE_CHECKING

import urllib3.exceptions as u3

from imagers.errors import RemoteError
from imagers.net.connection import SendingTimeout

if TYPE_CHECKING:
    from imagers.net.urls import Origin

__all__ = ["NOT_TLS", "remote_error"]

NOT_TLS = "NOT_TLS"  # `RemoteError.code` where the server speaks something else than TLS
_NOT_TLS_REASONS = frozenset(
    {
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)


def _chain(error: BaseException) -> list[BaseException]:
    """`error`, the errors in its arguments, and its causes, outermost first."""
    found: list[BaseException] = []
    queue: list[BaseException] = [error]
    while queue:
        one = queue.pop(0)
        if any(one is other for other in found):
            continue
        found.append(one)
        queue += [argument for argument in one.args if isinstance(argument, BaseException)]
        if one.__cause__ is not None:
            queue.append(one.__cause__)
    return found


def remote_error(
    error: Exception,
    origin: Origin | str,
    *,
    timeout_s: float,
    connect_timeout_s: float | None = None,
    ca_option: str = "",
    plain_option: str = "",
) -> RemoteError:
    """The `RemoteError` that says what `error` means to a user.

    Args:
        origin: who was asked, and who named it, if that was not the user.
        timeout_s: the limit on silence that was in force, for messages.
        connect_timeout_s: the limit on connecting, if there could have been need of one.
        ca_option, plain_option: as for `HTTPSettings`.
    """
    chain = _chain(error)
    for one in chain:
        if isinstance(one, ssl.SSLError) or (
            isinstance(one, u3.SSLError) and "hostname" in str(one)
        ):
            return _tls_error(one, origin, ca_option, plain_option)
        if isinstance(one, socket.gaierror):
            return RemoteError(
                f"{origin}: the host name was not found",
                temporary=one.errno == socket.EAI_AGAIN,
                hint="check the name, and that this machine can resolve names",
            )
    for one in chain:
        if isinstance(one, SendingTimeout):
            return RemoteError(
                f"{origin}: took nothing of what is sent for {one.limit_s:g} s",
                temporary=True,
                hint="the server hangs, or the network to it is broken; try again later",
            )
        if isinstance(one, (u3.ConnectTimeoutError, u3.ReadTimeoutError, TimeoutError)) and (
            not isinstance(one, u3.NewConnectionError)
        ):
            is_connecting = isinstance(one, u3.ConnectTimeoutError) and connect_timeout_s
            limit_s = connect_timeout_s if is_connecting else timeout_s
            return RemoteError(
                f"{origin}: no answer within {limit_s:g} s",
                temporary=True,
                hint="the server hangs, or a firewall drops the packets; try again later",
            )
    for one in chain:
        if isinstance(one, http.client.HTTPException) and not isinstance(
            one, (http.client.RemoteDisconnected, http.client.IncompleteRead)
        ):
            return RemoteError(
                f"{origin}: the answer is not HTTP, or its headers are too long",
                hint="is this the right port?",
            )
    for one in chain:
        if isinstance(one, OSError) and one.errno is not None:
            return _socket_error(one.errno, origin)
    return RemoteError(
        f"{origin}: the connection broke before the answer was complete",
        temporary=True,
        hint="try again; if it stays, look at the server and the proxies before it",
    )


def _tls_error(
    error: BaseException, origin: Origin | str, ca_option: str, plain_option: str
) -> RemoteError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return RemoteError(
            f"{origin}: the certificate was not accepted: {error.verify_message}",
            hint="name the CA of the server"
            + (f" with {ca_option}" if ca_option else "")
            + ", or check that the host name is right",
        )
    if isinstance(error, ssl.SSLEOFError) or (
        isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS_REASONS
    ):
        return RemoteError(
            f"{origin}: the server does not speak TLS",
            code=NOT_TLS,
            hint="it may speak plain http; that must be allowed by name"
            + (f": {plain_option}" if plain_option else ""),
        )
    reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
    return RemoteError(
        f"{origin}: TLS failed: {str(reason).lower().replace('_', ' ')[:200]}",
        hint="client and server have no protocol or cipher in common, or something between them "
        "broke the connection",
    )


def _socket_error(number: int, origin: Origin | str) -> RemoteError:
    if number == errno.ECONNREFUSED:
        return RemoteError(
            f"{origin}: connection refused",
            temporary=True,
            hint="is the server running, and is the port right?",
        )
    if number in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED):
        return RemoteError(
            f"{origin}: the server closed the connection before the answer was complete",
            temporary=True,
            hint="try again; if it stays, look at the server and the proxies before it",
        )
    return RemoteError(
        f"{origin}: {os.strerror(number).lower()}",
        temporary=True,
        hint="check the network of this machine",
    )
