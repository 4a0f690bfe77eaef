# SPDX-License-Identifier: Apache-2.0
"""Requests to a key broker and its error answers, for the client and the admin client."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from imagers.errors import FormatError, RemoteError, UsageError
from imagers.model.strict_json import View
from imagers.net.http import ANY_STATUS, HTTPClient, status_error
from imagers.net.urls import parse_origin, redact_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from imagers.net.http import HTTPSettings, Response

__all__ = [
    "COOKIE_NAME",
    "ERROR_TYPE_PREFIX",
    "MAX_TOGETHER",
    "OUR_PREFIX",
    "PREFIX",
    "Endpoint",
    "ErrorAnswer",
    "admin_key_id",
    "parse_error",
]

PREFIX = "/kbs/v0"
OUR_PREFIX = "/imagers/v1"
MAX_TOGETHER = 128  # secrets of one request: an image has as many layers
COOKIE_NAME = "kbs-session-id"
ERROR_TYPE_PREFIX = "https://github.com/confidential-containers/kbs/errors/"
_MAX_ERROR = 64 * 1024
_MAX_DETAIL = 400  # characters of a foreign text that we carry on
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What a broker says went wrong: safe to show, bounded, on one line.

    Attributes:
        name: such as `PolicyDeny`; "" where the answer is none of the protocol.
        detail: in the broker's words.
    """

    name: str
    detail: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.name, self.detail) if part) or "no reason given"


def admin_key_id(key: Ed25519PublicKey) -> str:
    """How tokens of admins name their key, in `kid`: SHA-256 of its 32 bytes, in hex."""
    return sha256(key.public_bytes_raw()).hexdigest()


def parse_error(body: bytes) -> ErrorAnswer:
    """The error in `body`; one without a name if it is no error of the protocol."""
    try:
        value = View.parse(body, what="error answer", max_bytes=_MAX_ERROR).value
    except FormatError:
        return ErrorAnswer("", "")
    kind, detail = value.get("type"), value.get("detail")
    name = kind.rpartition("/")[2] if isinstance(kind, str) else ""
    text = detail[:_MAX_DETAIL] if isinstance(detail, str) else ""
    return ErrorAnswer(
        name=name if _NAME.match(name) else "",
        # What a broker writes must not steer a terminal.
        detail="".join(c if c.isprintable() else " " for c in text),
    )


class Endpoint:
    """The paths of one broker.

    Args:
        url: of the broker, without `/kbs/v0`.
        settings: CA, time limits, and whether plain http may leave this machine.

    Raises:
        FormatError: `url` is no http or https URL.
        UsageError: it has a query or a fragment.

    Threads: safe.
    """

    def __init__(self, url: str, settings: HTTPSettings | None) -> None:
        self.origin = parse_origin(url)
        if "?" in url or "#" in url:
            raise UsageError(
                f"expected the URL of a broker without a query, got {redact_url(url)!r}"
            )
        self._base = url.rstrip("/")
        self._client = HTTPClient(settings)

    def send(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        repeatable: bool | None = None,
        prefix: str = PREFIX,
    ) -> Response:
        """The answer, whatever its status.

        Args:
            repeatable: whether sending twice is as good as once; None: by the method.

        Raises:
            RemoteError: there was none.
        """
        return self._client.request(
            method,
            f"{self._base}{prefix}/{path}",
            headers=headers,
            body=body,
            max_bytes=max_bytes,
            expected=ANY_STATUS,
            repeatable=repeatable,
        )

    def failure(self, what: str, response: Response) -> RemoteError:
        """The error for an answer that has no meaning of its own in the protocol."""
        error = parse_error(response.body)
        hint = None
        if not error.name:
            hint = "is this the URL of a key broker, without '/kbs/v0'?"
        return status_error(
            response.status,
            f"{what}: the broker at {self.origin} answered with status {response.status}: {error}",
            code=error.name,
            hint=hint,
        )

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._client.close()
