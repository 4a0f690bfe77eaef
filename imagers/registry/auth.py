# SPDX-License-Identifier: Apache-2.0
"""Logging in to a registry: anonymous, basic, and tokens fetched after a challenge.

    Authorization is sent only to the registry that asked, and credentials only to it and to
    the token server that it names, over https unless plain http is allowed for both.

A token is kept for the scope that it was fetched for, and no longer than it says.

Spec: distribution v2.8, docs/spec/auth/token.md; RFC 7617 (basic); RFC 9110 section 11.6.1.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from imagers import waiting
from imagers.errors import RemoteError
from imagers.model.strict_json import View
from imagers.net.http import ANY_STATUS, status_error, status_text
from imagers.net.urls import join_url, parse_origin, redact_url
from imagers.registry.answers import DONE, check_answer, check_json, words_of
from imagers.registry.credentials import Credentials, IdentityToken, Login, RegistryToken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.net.http import HTTPClient, Response

__all__ = [
    "Authenticator",
    "Challenge",
    "parse_challenges",
]

_log = logging.getLogger(__name__)
_MAX_HEADER = 8 * 1024
_MAX_TOKEN = 1024 * 1024  # as containers/image
_TOKEN = re.compile(r"[!-~]+\Z")
_SCOPE = re.compile(
    r"(?P<name>repository(?:\([a-z0-9]{1,32}\))?:[a-z0-9._/:-]{1,512}):(?P<actions>[a-z,*]{1,64})\Z"
)
_LIFETIME_S = 60  # where the token server says none, and the least that it may say
_MARGIN_S = 5.0  # a token must not run out on the way
# Possessive where two repetitions meet: 8 KiB of spaces took 1.6 s, as each was tried as the
# end of the first and the begin of the second.
_SCHEME = re.compile(r"[\s,]*+([!#$%&'*+.^_`|~0-9A-Za-z-]++)(?:\s++|(?=,)|\Z)")
_PARAMETER = re.compile(
    r"""\s*+,?\s*+([!#$%&'*+.^_`|~0-9A-Za-z-]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s,"]++))"""
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in that a server offers; names are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def _with_scope_of(challenge: Challenge, scope: str) -> str:
    """What a token is asked for: what the request needs, and what the registry says it needs.

    A proxy has other names inside than the one that was asked for. Nothing is done that nobody
    asked for: a request that only reads gets no token to write.
    """
    own = scope.split()
    actions = {action for one in own for action in one.rpartition(":")[2].split(",")}
    for one in challenge.parameters.get("scope", "").split():
        match = _SCOPE.match(one)
        if match is not None:
            allowed = {action for action in match["actions"].split(",") if action in actions}
            known = {
                action
                for name, _, some in (scope.rpartition(":") for scope in own)
                if name == match["name"]
                for action in some.split(",")
            }
            if not allowed <= known:
                own.append(f"{match['name']}:{','.join(sorted(allowed))}")
    return " ".join(dict.fromkeys(own))


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges of a `WWW-Authenticate` header; what cannot be read ends the list."""
    found: list[Challenge] = []
    header = header[:_MAX_HEADER]
    at = 0
    while scheme := _SCHEME.match(header, at):
        at = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, at):
            name, quoted, plain = parameter.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(name.lower(), value)
            at = parameter.end()
        found.append(Challenge(scheme[1].lower(), parameters))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    good_until: float


class Authenticator:
    """Knows how one registry wants to be spoken to.

    Threads: safe.
    """

    def __init__(self, client: HTTPClient, credentials: Login | None) -> None:
        self._client = client
        self._credentials = credentials
        self._lock = threading.Lock()
        self._bearer: tuple[Challenge, str] | None = None  # and the URL that sent it
        self._basic = False
        self._asks_token = False
        self._tokens: dict[str, _Token] = {}
        self._wanted: dict[str, str] = {}  # by the scope of a request, what the registry said
        self._guesses = isinstance(credentials, Credentials)

    def header(self, scope: str) -> str | None:
        """The `Authorization` for a request, as far as the registry has asked for one.

        Args:
            scope: what the request needs, as `repository:library/busybox:pull`.

        Raises:
            RemoteError, Unauthorized: the token server did not answer, or refused.
        """
        with waiting.held(self._lock, "another request for a token"):
            if self._asks_token and isinstance(self._credentials, RegistryToken):
                return self._credentials.authorization()
            if self._bearer is not None:
                token = self._tokens.get(scope)
                if token is None or time.monotonic() > token.good_until:
                    wanted = self._wanted.get(scope, scope)
                    token = self._tokens[scope] = self._fetch(*self._bearer, wanted)
                return token.header
            if self._basic and isinstance(self._credentials, Credentials):
                return self._credentials.authorization()
            return None

    def take_challenge(self, header: str, url: str, scope: str, *, sent: str | None) -> bool:
        """Whether a refused request is worth another try, with what `header()` then gives.

        Args:
            header: `WWW-Authenticate` of the answer.
            url: that answered; it must be of the registry itself, or whoever it redirects to
                could name a token server that gets the password.
            sent: the `Authorization` of the refused request.
        """
        with self._lock:
            # Tokens first: they are short-lived, and all kinds of logins have them.
            for challenge in sorted(
                parse_challenges(header), key=lambda one: one.scheme != "bearer"
            ):
                if challenge.scheme == "bearer" and isinstance(self._credentials, RegistryToken):
                    self._asks_token = True
                    return sent is None
                if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                    self._bearer = (challenge, url)
                    self._guesses = False
                    self._wanted[scope] = _with_scope_of(challenge, scope)
                    token = self._tokens.get(scope)
                    if token is not None and token.header == sent:
                        del self._tokens[scope]  # it may have run out, or been revoked
                    return True
                if challenge.scheme == "basic" and isinstance(self._credentials, Credentials):
                    self._basic = True
                    self._guesses = False
                    return sent is None
        return False

    def guess(self) -> str | None:
        """A login for a registry that refuses without saying how to log in; None: there is none.

        It is made once: an image that is not there is not there for everybody.
        """
        with self._lock:
            if not self._guesses or not isinstance(self._credentials, Credentials):
                return None
            self._guesses = False
            return self._credentials.authorization()

    def guessed_well(self) -> None:
        """What `guess` gave is what the registry wants."""
        with self._lock:
            self._basic = True

    def _fetch(self, challenge: Challenge, url: str, scope: str) -> _Token:
        realm = join_url(url, challenge.parameters["realm"])
        if parse_origin(url).scheme == "https" and parse_origin(realm).scheme != "https":
            raise RemoteError(
                f"{parse_origin(url)}: names a token server over plain http, which is refused: "
                f"{redact_url(realm)}",
                hint="a password would travel in the clear",
            )
        service = challenge.parameters.get("service", "")
        named_by = "" if parse_origin(realm) == parse_origin(url) else f"{parse_origin(url)}"
        _log.debug(
            "%s wants a token of %s for %r: asks %s",
            parse_origin(url),
            parse_origin(realm),
            scope,
            "without a login" if self._credentials is None else "with the login",
        )
        answer = self._ask(realm, service, scope, named_by)
        where = str(parse_origin(realm))
        if answer.status not in DONE:
            message = f"{where}: the token server answered {status_text(answer.status)}"
            if words := words_of(answer.body):
                message += f" ({words})"
            if answer.status == 404:
                # Not `NotFound`: that would say that the image, or its signature, is not there.
                raise RemoteError(message, status=answer.status)
            raise status_error(
                answer.status,
                f"{message} for {scope!r}",
                hint="log in, or give other credentials" if answer.status in (401, 403) else None,
            )
        check_answer(answer, doing="token", name=f"{parse_origin(url)}")
        check_json(answer, doing="token", name=f"{parse_origin(url)}")
        return _parse_token(answer.body, where)

    def _ask(self, realm: str, service: str, scope: str, named_by: str) -> Response:
        headers = {"Accept": "application/json"}
        if isinstance(self._credentials, IdentityToken):
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            return self._client.request(
                "POST",
                realm,
                headers=headers,
                body=self._credentials.form(service, scope),
                max_bytes=_MAX_TOKEN,
                expected=ANY_STATUS,
                repeatable=True,
                named_by=named_by,
            )
        query = [("service", service)] if service else []
        query += [("scope", one) for one in scope.split()]
        if isinstance(self._credentials, Credentials):
            headers["Authorization"] = self._credentials.authorization()
        return self._client.request(
            "GET",
            realm + ("&" if "?" in realm else "?") + urlencode(query),
            headers=headers,
            max_bytes=_MAX_TOKEN,
            expected=ANY_STATUS,
            named_by=named_by,
        )


def _parse_token(body: bytes, where: str) -> _Token:
    document = View.parse(body, what=f"token of {where}", max_bytes=_MAX_TOKEN)
    token = document.optional_text("token") or document.optional_text("access_token")
    # The token goes into a header: what is not visible ASCII would end or split it.
    if not token or not _TOKEN.match(token):
        raise document.error("expected a token of visible ASCII characters", "token")
    # It only says how long not to ask again; some write it as text, or with a fraction.
    told = document.value.get("expires_in")
    lifetime = max(_LIFETIME_S, told) if isinstance(told, int) else _LIFETIME_S
    return _Token(f"Bearer {token}", time.monotonic() + lifetime - _MARGIN_S)
