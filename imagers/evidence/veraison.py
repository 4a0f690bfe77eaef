# SPDX-License-Identifier: Apache-2.0
"""Veraison: a service that judges evidence, asked by its challenge-response API.

    service = Veraison("https://veraison.example.org")
    documents = service.ask(token, profile="http://arm.com/CCA-SSD/1.0.0", nonce=nonce)

    GET  /.well-known/veraison/verification               the key of its results
    POST /challenge-response/v1/newSession?nonce=BASE64   201, where the session is
    POST the session, with the evidence                   what it says: complete, and a token (EAR)
    GET  the session                                      the same, while it is still processing

Newer services want the nonce without padding, older ones with it: the other form is tried where one
is refused. What comes back is trusted for nothing: `ear` verifies it.

Spec: Veraison, challenge-response API v1 (docs/api/challenge-response).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin

from imagers.errors import CouldNotVerify, FormatError, LocalError, RemoteError
from imagers.model.base64 import encode_base64url
from imagers.model.strict_json import View
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.net.urls import parse_origin

if TYPE_CHECKING:
    from imagers.net.http import Response

__all__ = ["DISCOVERY", "RESULT", "Veraison"]

DISCOVERY, RESULT = "veraison/discovery.json", "veraison/result.jwt"
"""The names of the two documents that it gives."""
_WELL_KNOWN = "/.well-known/veraison/verification"
_SESSIONS = "/challenge-response/v1/newSession"
_SESSION_TYPE = "application/vnd.veraison.challenge-response-session+json"
_DISCOVERY_TYPE = "application/vnd.veraison.discovery+json"
_MAX_ANSWER = 512 * 1024
_MAX_TYPES = 256
_CREATED, _OK, _ACCEPTED, _BAD_REQUEST, _NO_CONTENT = 201, 200, 202, 400, 204
_POLLS, _POLL_S = 20, 0.25


@dataclass(frozen=True, slots=True)
class Veraison:
    """One service.

    Attributes:
        url: without a path.
        ca_file: PEM; only its certificates are trusted for it; None: the system's.
        has_keys: whether the keys of its results are known, so that it is not asked for them.
        sleep: waits while it is processing; tests give their own.

    Threads: safe.
    """

    url: str
    ca_file: str | None = None
    has_keys: bool = False
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def ask(self, evidence: bytes, *, profile: str, nonce: bytes) -> Mapping[str, bytes]:
        """What it says of the evidence: documents by the names of this module.

        Args:
            profile: of the evidence; the service names the media types that it takes, and one of
                them names it.
            nonce: that the evidence binds.

        Raises:
            CouldNotVerify: it was not there, or did not come to a result.
        """
        settings = HTTPSettings(
            ca_file=self.ca_file,
            connect_timeout_s=5,
            read_timeout_s=10,
            total_timeout_s=20,
            retry=RetryPolicy(attempts=1),
            ca_option="'ca_file' beside its url in the appraisal policy",
        )
        try:
            with HTTPClient(settings) as client:
                return self._ask(client, evidence, profile, nonce)
        except (RemoteError, FormatError, LocalError) as error:
            raise CouldNotVerify(f"the service of Veraison gave no result: {error}") from error

    def _ask(
        self, client: HTTPClient, evidence: bytes, profile: str, nonce: bytes
    ) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        if not self.has_keys:
            accept = {"Accept": _DISCOVERY_TYPE}
            url = urljoin(self.url, _WELL_KNOWN)
            found[DISCOVERY] = client.request(
                "GET", url, headers=accept, max_bytes=_MAX_ANSWER
            ).body
        opened = self._open_session(client, nonce)
        where = urljoin(opened.url, opened.headers.get("Location", ""))
        if parse_origin(where) != parse_origin(self.url):
            raise RemoteError("it names a session at another server", status=opened.status)
        session = _view(opened)
        media_type = _media_type(session, profile)
        answer = client.request(
            "POST",
            where,
            headers={"Accept": _SESSION_TYPE, "Content-Type": media_type},
            body=evidence,
            max_bytes=_MAX_ANSWER,
            expected=(_OK, _ACCEPTED),
        )
        result = self._wait(client, where, _view(answer))
        with suppress(RemoteError):  # it ends by itself
            client.request("DELETE", where, expected=(_OK, _NO_CONTENT))
        found[RESULT] = result.encode()
        return found

    def _open_session(self, client: HTTPClient, nonce: bytes) -> Response:
        text = encode_base64url(nonce)
        padded = text + "=" * (-len(text) % 4)
        for form in dict.fromkeys((padded, text)):
            opened = client.request(
                "POST",
                urljoin(self.url, f"{_SESSIONS}?nonce={quote(form, safe='')}"),
                headers={"Accept": _SESSION_TYPE},
                max_bytes=_MAX_ANSWER,
                expected=(_CREATED, _BAD_REQUEST),
            )
            if opened.status == _CREATED:
                return opened
        raise RemoteError("it takes the nonce in no form", status=opened.status)

    def _wait(self, client: HTTPClient, where: str, session: View) -> str:
        """The token, once it is there."""
        for _ in range(_POLLS):
            status = session.text("status")
            if status == "complete":
                return session.text("result")
            if status not in ("processing", "waiting"):
                raise RemoteError(f"its session ended as {status[:40]!r}")
            self.sleep(_POLL_S)
            accept = {"Accept": _SESSION_TYPE}
            session = _view(client.request("GET", where, headers=accept, max_bytes=_MAX_ANSWER))
        raise RemoteError(f"it is still processing after {_POLLS * _POLL_S:g} s")


def _view(response: Response) -> View:
    return View.parse(response.body, what="answer of Veraison", max_bytes=_MAX_ANSWER)


def _media_type(session: View, profile: str) -> str:
    """The media type of collections with this profile, among those that the service takes."""
    for one in session.texts("accept", most=_MAX_TYPES):
        if one.startswith("application/eat-collection") and f'"{profile}"' in one:
            return one
    raise RemoteError(f"it takes no evidence with the profile {profile!r}")
