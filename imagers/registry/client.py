# SPDX-License-Identifier: Apache-2.0
"""One repository of one registry: where it is, who is logged in, what went wrong.

    client = RegistryClient(reference, http=HTTPClient(), credentials=None, actions="pull")
    answer = client.request("GET", "manifests/latest", doing="manifest", max_bytes=4096)

Left to `source` and `sink`: what is asked and what the bytes mean.

Spec: OCI distribution-spec v1.1.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from imagers import waiting
from imagers.errors import RemoteError, Unauthorized
from imagers.model.closing import Closing
from imagers.model.reference import DEFAULT_REGISTRY
from imagers.net.failures import NOT_TLS
from imagers.net.http import ANY_STATUS, HTTPClient, Response
from imagers.net.retry import parse_retry_after
from imagers.net.stream import ResponseStream
from imagers.net.urls import parse_origin
from imagers.registry.answers import (
    DONE,
    MAX_ERROR_BYTES,
    check_answer,
    page_type,
    refusal,
)
from imagers.registry.auth import Authenticator

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from imagers.model.reference import Reference
    from imagers.net.http import Body
    from imagers.registry.credentials import Login

__all__ = ["RegistryClient"]

_log = logging.getLogger(__name__)
_DOCKER_HUB = "registry-1.docker.io"  # where the names of docker.io really are
_UNAUTHORIZED = 401
_HIDDEN = (400, 401, 403, 404)  # what some say to whoever has not logged in, without a challenge
_WITHOUT_PORT = (
    "a proxy before the registry tells it its name without the port: set Host to $http_host "
    "there, or http.relativeurls in the registry"
)
_ERROR_S = 30.0  # to read what an error is about

_Answer = TypeVar("_Answer", Response, ResponseStream)


class RegistryClient(Closing):
    """Requests to the repository of `reference`.

    The registry is spoken to over https. Plain http is tried only where the server does not
    speak TLS, and only to this machine or where the settings of `http` allow it.

    Args:
        reference: registry and repository count, tag and digest do not.
        http: is owned by this object afterwards, and closed with it.
        actions: what the token is for: `pull` or `pull,push`; "" for a mere login.
        named_by: who gave the registry's name, if not the user, for messages.

    Threads: safe.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        http: HTTPClient,
        credentials: Login | None = None,
        actions: str = "pull",
        named_by: str = "",
    ) -> None:
        self.reference = reference
        self._named_by = named_by
        self._http = http
        self._auth = Authenticator(http, credentials)
        self._scope = f"repository:{reference.repository}:{actions}" if actions else ""
        self._lock = threading.Lock()
        self._base: str | None = None

    def request(
        self,
        method: str,
        target: str,
        *,
        doing: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        max_bytes: int = MAX_ERROR_BYTES,
        expected: Container[int],
        repeatable: bool | None = None,
        more_scope: str = "",
        name: str | None = None,
        any_answer: bool = False,
    ) -> Response:
        """The whole answer, with one of the `expected` statuses.

        Args:
            target: below the repository, as `blobs/uploads/`; or an absolute URL that the
                registry gave, which sees the login only if it is on the registry itself.
            doing: names the request in messages.
            more_scope: that the token must have beside that of the repository.
            name: in messages; None: the image's.
            any_answer: whether a page for people will do, because only headers are looked at.

        Raises:
            RemoteError: and its kinds; with code and message of the registry.
        """
        answer = self._logged_in(
            target,
            lambda url, extra: self._http.request(
                method,
                url,
                named_by=self._who_named(url),
                headers={**(headers or {}), **extra},
                body=body,
                max_bytes=max(max_bytes, MAX_ERROR_BYTES),
                expected=ANY_STATUS,
                repeatable=repeatable,
            ),
            more_scope=more_scope,
        )
        if answer.status not in expected:
            error = self._refusal(answer, answer.body, doing, name)
            if self._is_without_port(self._url(target)):
                error.hint = _WITHOUT_PORT  # another server answered, which knows nothing of it
            raise error
        if answer.status in DONE and not any_answer:
            check_answer(answer, doing=doing, name=str(self.reference) if name is None else name)
        if len(answer.body) > max_bytes:
            raise RemoteError(
                f"{self.reference}: {doing}: the answer is too long: expected at most "
                f"{max_bytes} bytes, got {len(answer.body)}",
                status=answer.status,
            )
        return answer

    @property
    def http(self) -> HTTPClient:
        """The client below."""
        return self._http

    def open(
        self,
        target: str,
        *,
        doing: str,
        expected: Container[int],
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> ResponseStream:
        """A GET whose body is still to be read; the caller closes it. Raises as `request`.

        Args:
            repeatable: False for a caller that tries again by itself.
        """
        stream = self._logged_in(
            target,
            lambda url, extra: self._http.open(
                "GET",
                url,
                named_by=self._who_named(url),
                headers={**(headers or {}), **extra},
                expected=ANY_STATUS,
                repeatable=repeatable,
            ),
        )
        if stream.status in expected:
            return stream
        body = b""
        with suppress(RemoteError), stream:
            body = stream.read_bounded(MAX_ERROR_BYTES, deadline=time.monotonic() + _ERROR_S)
        raise self._refusal(stream, body, doing)

    def _refusal(
        self, answer: Response | ResponseStream, body: bytes, doing: str, name: str | None = None
    ) -> RemoteError:
        name = str(self.reference) if name is None else name
        page = page_type(answer.headers, body)
        if page:
            page = f"a page of type {page!r} from {parse_origin(answer.url)}"
        error = refusal(answer.status, body, doing=doing, name=name, page=page)
        if error.temporary:
            told = answer.headers.get("Retry-After")
            error.retry_after = parse_retry_after(told, now=datetime.now(UTC))
        if error.retry_after:
            error.hint = f"the registry asks to wait {error.retry_after:.0f} s before trying again"
        return error

    def check_login(self) -> None:
        """Raise unless the registry accepts the login.

        Raises:
            Unauthorized: it does not.
        """
        try:
            self.request(
                "GET",
                f"{self._base_url()}/v2/",
                doing="login",
                expected=(200,),
                name=self.reference.registry,  # the repository may be one that is none
            )
        except Unauthorized as error:
            error.hint = "check the user's name and the password"
            raise

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._http.close()

    def _logged_in(
        self,
        target: str,
        send: Callable[[str, Mapping[str, str]], _Answer],
        *,
        more_scope: str = "",
    ) -> _Answer:
        """What `send` gets, the second time with the login that the registry asked for."""
        scope = f"{self._scope} {more_scope}".strip()
        url = self._url(target)
        is_registry = parse_origin(url) == parse_origin(self._base_url())
        sent = self._auth.header(scope) if is_registry else None
        try:
            answer = send(url, {} if sent is None else {"Authorization": sent})
        except RemoteError as error:
            if error.status is None and self._is_without_port(url):
                error.hint = _WITHOUT_PORT
            raise
        if answer.status == _UNAUTHORIZED and self._take_challenge(answer, scope, sent):
            _discard(answer)
            sent = self._auth.header(scope)
            return send(url, {} if sent is None else {"Authorization": sent})
        # What a redirect led to hides nothing of the registry's.
        is_hidden = answer.status in _HIDDEN and self._is_its_own(answer)
        if sent is None and is_registry and is_hidden:
            guess = self._auth.guess()
            if guess is not None:
                again = send(url, {"Authorization": guess})
                if again.status not in _HIDDEN:
                    self._auth.guessed_well()
                    _discard(answer)
                    return again
                _discard(again)
        return answer

    def _take_challenge(
        self, answer: Response | ResponseStream, scope: str, sent: str | None
    ) -> bool:
        if not self._is_its_own(answer):
            return False
        return self._auth.take_challenge(
            answer.headers.get("WWW-Authenticate", ""), answer.url, scope, sent=sent
        )

    def _is_its_own(self, answer: Response | ResponseStream) -> bool:
        return parse_origin(answer.url) == parse_origin(self._base_url())

    def _url(self, target: str) -> str:
        base = self._base_url()
        if not target.startswith(("http://", "https://")):
            return f"{base}/v2/{self.reference.repository}/{target}"
        if base.startswith("https:") and target.startswith("http:"):
            raise RemoteError(
                f"{self.reference}: the registry sends us to plain http at "
                f"{parse_origin(target)}, which is refused",
                hint="a proxy before the registry must tell it that it is reached over https",
            )
        return target

    def _is_without_port(self, url: str) -> bool:
        base, named = parse_origin(self._base_url()), parse_origin(url)
        return base.host == named.host and base.port != named.port

    def _who_named(self, url: str) -> str:
        base = parse_origin(self._base_url())
        return self._named_by if parse_origin(url) == base else f"the registry at {base}"

    def _base_url(self) -> str:
        """Scheme and host of the registry; the first call asks it."""
        with waiting.held(self._lock, f"another request to {self.reference.registry}"):
            if self._base is None:
                self._base = self._find_base()
            return self._base

    def _find_base(self) -> str:
        host = self.reference.registry
        if host == DEFAULT_REGISTRY:
            host = _DOCKER_HUB
        try:
            return self._ask_base(f"https://{host}")
        except RemoteError as error:
            if error.code != NOT_TLS:
                raise
            origin = parse_origin(f"http://{host}/")
            if not origin.is_loopback and not self._http.settings.insecure_http:
                raise RemoteError(
                    f"{origin}: the registry does not speak TLS",
                    code=NOT_TLS,
                    hint="--tls-verify=false allows plain http, readable and changeable on the way",
                ) from error
            _log.debug("%s does not speak TLS: asks over plain http", origin)
            return self._ask_base(f"http://{host}")

    def _ask_base(self, base: str) -> str:
        """Ask for /v2/ without a login, and keep how the registry wants one.

        Nothing secret is sent before it is known how it travels. Some say only here that they
        want a login, and hide what they have from whoever has none.
        """
        answer = self._http.request(
            "GET", f"{base}/v2/", expected=ANY_STATUS, named_by=self._named_by
        )
        if answer.status == _UNAUTHORIZED and parse_origin(answer.url) == parse_origin(base):
            self._auth.take_challenge(
                answer.headers.get("WWW-Authenticate", ""), answer.url, self._scope, sent=None
            )
        return base


def _discard(answer: Response | ResponseStream) -> None:
    if not isinstance(answer, Response):
        answer.discard()
