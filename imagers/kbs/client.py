# SPDX-License-Identifier: Apache-2.0
"""Secrets from a key broker: one handshake, then any number of them.

    with BrokerClient("https://broker:8080", attester=attester, http=settings) as broker:
        with broker.get("kbs:///default/key/1", manifest_digest=digest) as key:
            ...

It speaks the protocol of Trustee and works with it and with our broker alike. The two
answer differently:

    answer                       ours            Trustee
    session unknown or expired   401             401
    the policy says no           403             401 PolicyDeny
    no such secret               404             401 PluginInternalError

so a 401 that may mean a stale session costs at most one more handshake, and none where the
session is fresh or the name of the error says that it is a refusal.

The digest of the image travels as `?image-digest=` with each request. It is what this agent
says: a broker believes it because evidence shows which agent that is.

Several secrets of one image are asked for together (`get_all`) where the broker takes that, as
ours does.

Spec: Trustee key broker protocol 0.4.0.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from imagers import waiting
from imagers.errors import (
    AttestationError,
    CouldNotVerify,
    EvidenceRejected,
    EvidenceStale,
    KeyRefused,
    KeyUnavailable,
    RemoteError,
)
from imagers.kbs.jwe import MAX_ANSWER_BYTES, open_answer
from imagers.kbs.messages import (
    Attestation,
    InitData,
    Request,
    hash_device_data,
    hash_report_data,
    parse_challenge,
    parse_response,
)
from imagers.kbs.resources import parse_resource_uri
from imagers.kbs.tee_key import DEFAULT_TEE_KEY, TEEKey, make_tee_key
from imagers.kbs.wire import COOKIE_NAME, MAX_TOGETHER, OUR_PREFIX, Endpoint, parse_error
from imagers.model.closing import Closing
from imagers.model.digest import Digest
from imagers.model.evidence import Attester
from imagers.model.keys import SecretKey
from imagers.model.strict_json import View, dump_json
from imagers.net.http import HTTPSettings

if TYPE_CHECKING:
    from imagers.kbs.messages import Challenge
    from imagers.kbs.resources import ResourcePath
    from imagers.kbs.wire import ErrorAnswer
    from imagers.model.evidence import Evidence, ReportData
    from imagers.model.keys import ResourceStore
    from imagers.model.strict_json import JSONObject
    from imagers.net.http import Response

__all__ = ["BrokerClient"]

_log = logging.getLogger(__name__)
_OK = 200
_REFUSING = (400, 401, 403)
_UNAUTHORIZED = 401
_FORBIDDEN = 403
_NOT_FOUND = 404
_NO_SUCH_REQUEST = (_NOT_FOUND, 405)
_MAX_HANDSHAKE_BYTES = 256 * 1024  # of an answer: a challenge, or a token of some KiB
_OWNER_SEES = "its owner sees more in 'imagers broker audit'"
_JSON = {"Content-Type": "application/json"}
_COOKIE = re.compile(rf"(?:^|,\s*){COOKIE_NAME}=([A-Za-z0-9_-]{{1,128}})(?:\s*[;,]|$)")
# Trustee's names for refusals, which it sends with the status of a stale session.
_FINAL = frozenset({"PolicyDeny", "PluginInternalError"})
# Names of both brokers for a session or a token that is no good.
_SESSION = frozenset({"SessionNotFound", "TokenNotFound", "TokenVerifierError", "AttestationError"})


@dataclass(frozen=True, slots=True)
class _Session:
    """What one handshake gave. The key is of this session only."""

    key: TEEKey
    headers: dict[str, str] = field(repr=False)


def _collect(attester: Attester, data: ReportData) -> Evidence:
    """The evidence of an attester, whose device may take its time in the kernel."""
    with waiting.waits_for(f"evidence of the TEE {attester.tee!r}"):
        return waiting.run_aside(partial(attester.collect, data))


class BrokerClient(Closing):
    """A `ResourceStore` at a broker.

    The handshake happens at the first `get`, once for all threads; a new one only when the
    broker says that the session is over.

    Args:
        url: of the broker, without `/kbs/v0`.
        attester: collects the evidence; of it and of nothing else the broker judges.
        devices: collect evidence of devices of this machine, which the TEE's evidence binds.
        tee_key_algorithm: of the key that answers are sealed to; see `make_tee_key`.
        init_data: the document that this machine was started with, for the broker's policies.
        http: CA file, time limits; plain http to another machine must be allowed there.

    Raises:
        FormatError, UsageError: `url` is not the URL of a broker, or there is no such algorithm.

    Threads: safe.
    """

    def __init__(
        self,
        url: str,
        *,
        attester: Attester,
        devices: Sequence[Attester] = (),
        tee_key_algorithm: str = DEFAULT_TEE_KEY,
        init_data: str | None = None,
        http: HTTPSettings | None = None,
    ) -> None:
        make_tee_key(tee_key_algorithm)  # one that is not known is told now
        self._endpoint = Endpoint(url, http)
        self._attester = attester
        self._devices = devices
        self._tee_key_algorithm = tee_key_algorithm
        self._init_data = None if init_data is None else InitData("toml", init_data)
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._takes_many = True  # until the broker says that it does not

    def __repr__(self) -> str:
        return f"BrokerClient({self._endpoint.origin}, tee={self._attester.tee!r})"

    def get(self, uri: str, *, manifest_digest: Digest | None) -> SecretKey:
        """See `ResourceStore`.

        Raises:
            KeyRefused: the broker's policy says no; `reason` has its words.
            KeyUnavailable: it has no such secret.
            AttestationError: it does not believe what this machine is, or this is no TEE.
            RemoteError: it could not be asked, or its answer is no use.
            FormatError, TagMismatch: its answer is damaged, or for another guest.
        """
        path = parse_resource_uri(uri)
        session, fresh = self._current(stale=None)
        response = self._ask(session, path, manifest_digest)
        may_be_stale = response.status == _UNAUTHORIZED and not fresh
        if may_be_stale and parse_error(response.body).name not in _FINAL:
            session, _ = self._current(stale=session)
            response = self._ask(session, path, manifest_digest)
        if response.status != _OK:
            self._raise_refusal(uri, response)
        return open_answer(response.body, session.key)

    def get_all(
        self, uris: Sequence[str], *, manifest_digest: Digest | None
    ) -> dict[str, SecretKey]:
        """See `ResourceStore`.

        A broker that has said that it knows no such request is not asked in this way again.
        """
        found: dict[str, SecretKey] = {}
        try:
            for start in range(0, len(uris), MAX_TOGETHER):
                portion = uris[start : start + MAX_TOGETHER]
                got = self._get_portion(portion, manifest_digest)
                if not got:
                    break
                found.update(got)
        except BaseException:
            _close_all(found)
            raise
        if len(found) < len(uris):
            _close_all(found)
            return {}
        return found

    def _get_portion(self, uris: Sequence[str], digest: Digest | None) -> dict[str, SecretKey]:
        if not self._takes_many:
            return {}
        names = {uri: str(parse_resource_uri(uri)) for uri in uris}
        session, _ = self._current(stale=None)
        question: JSONObject = {"resources": list(names.values())}
        if digest is not None:
            question["image-digest"] = str(digest)
        response = self._endpoint.send(
            "POST",
            "release",
            prefix=OUR_PREFIX,
            headers={**_JSON, **session.headers},
            body=dump_json(question),
            max_bytes=MAX_ANSWER_BYTES,
            repeatable=True,  # as asking for one secret is
        )
        if response.status != _OK:
            if response.status in _NO_SUCH_REQUEST:
                is_missing = parse_error(response.body).name == "ResourceNotFound"
                self._takes_many = is_missing  # else the broker knows the request
            return {}
        answer = View.parse(response.body, what="released resources", max_bytes=MAX_ANSWER_BYTES)
        sealed = answer.object("resources")
        found: dict[str, SecretKey] = {}
        try:
            for uri, name in names.items():
                found[uri] = open_answer(dump_json(sealed.object(name).value), session.key)
        except BaseException:
            _close_all(found)
            raise
        return found

    def close(self) -> None:
        """Forget the session and close the connections. Safe to call twice."""
        with self._lock:
            self._session = None
        self._endpoint.close()

    def _current(self, *, stale: _Session | None) -> tuple[_Session, bool]:
        """The session in use, and whether it was made by this call.

        Args:
            stale: a session that is not to be used any more; if another thread has
                replaced it already, its successor is taken.
        """
        with waiting.held(self._lock, f"another handshake with {self._endpoint.origin}"):
            if self._session is not None and self._session is not stale:
                return self._session, False
            self._session = None
            self._session = self._shake_hands()
            return self._session, True

    def _ask(self, session: _Session, path: ResourcePath, digest: Digest | None) -> Response:
        query = f"?image-digest={digest}" if digest is not None else ""
        return self._endpoint.send(
            "GET",
            f"resource/{path}{query}",
            headers=session.headers,
            max_bytes=MAX_ANSWER_BYTES,
        )

    def _shake_hands(self) -> _Session:
        broker, tee = self._endpoint.origin, self._attester.tee
        _log.debug("shows the broker at %s evidence of the TEE %r", broker, tee)
        opened = self._endpoint.send(
            "POST",
            "auth",
            headers=_JSON,
            body=Request.offering_hashes(self._attester.tee).to_bytes(),
            max_bytes=_MAX_HANDSHAKE_BYTES,
            repeatable=True,  # it opens a session, and an unused one goes away
        )
        if opened.status != _OK:
            self._raise_handshake(opened, judged=False)
        challenge = parse_challenge(opened.body)
        cookie = self._cookie_of(opened)

        key = make_tee_key(self._tee_key_algorithm)
        additional = self._collect_devices(challenge, key)
        report_data = hash_report_data(
            nonce=challenge.nonce,
            tee_pubkey=key.public,
            additional_evidence=additional,
            report_hash=challenge.report_hash,
        )
        evidence = _collect(self._attester, report_data)
        attested = self._endpoint.send(
            "POST",
            "attest",
            headers={**_JSON, "Cookie": cookie},
            body=Attestation(
                nonce=challenge.nonce,
                tee_pubkey=key.public,
                primary_evidence=evidence.body,
                additional_evidence=additional,
                init_data=self._init_data,
            ).to_bytes(),
            max_bytes=_MAX_HANDSHAKE_BYTES,
            repeatable=True,  # the same message in the same session gets the same token
        )
        if attested.status != _OK:
            self._raise_handshake(attested, judged=True)
        token = parse_response(attested.body).token
        _log.debug("the broker at %s believes it", broker)
        # The cookie serves brokers that keep sessions, the token those that share none.
        return _Session(key, {"Cookie": cookie, "Authorization": f"Bearer {token}"})

    def _collect_devices(self, challenge: Challenge, key: TEEKey) -> str:
        """The text of all devices' evidence; "" where there are none."""
        if not self._devices:
            return ""
        data = hash_device_data(
            nonce=challenge.nonce, tee_pubkey=key.public, report_hash=challenge.report_hash
        )
        return dump_json({one.tee: _collect(one, data).body for one in self._devices}).decode()

    def _cookie_of(self, response: Response) -> str:
        found = _COOKIE.search(response.headers.get("Set-Cookie", ""))
        if found is None:
            raise RemoteError(
                f"the broker at {self._endpoint.origin} sent no cookie '{COOKIE_NAME}'",
                status=response.status,
                hint="a proxy before the broker may drop cookies",
            )
        return f"{COOKIE_NAME}={found[1]}"

    def _raise_handshake(self, response: Response, *, judged: bool) -> NoReturn:
        """Raise what an answer to `auth`, or (`judged`) to `attest`, means."""
        error = parse_error(response.body)
        if error.name == "CouldNotVerify":
            raise CouldNotVerify(
                f"the broker at {self._endpoint.origin} could not judge the evidence: "
                f"{error.detail}",
                hint="its owner sees in 'imagers broker audit' which document it lacks",
            )
        if response.status not in _REFUSING or not error.name:
            raise self._endpoint.failure("handshake", response)
        tee = self._attester.tee
        if not judged:
            raise AttestationError(
                f"the broker refuses to begin a handshake for the TEE {tee!r}: {error}"
            )
        if error.name == "SessionNotFound":
            raise EvidenceStale(
                f"the broker's challenge for the TEE {tee!r} is over: {error}",
                hint="collecting evidence took too long; try again",
            )
        raise EvidenceRejected(
            f"the broker rejects the evidence of the TEE {tee!r}: {error}", hint=_OWNER_SEES
        )

    def _raise_refusal(self, uri: str, response: Response) -> NoReturn:
        error = parse_error(response.body)
        if response.status == _NOT_FOUND and error.name:
            raise KeyUnavailable(
                f"the broker at {self._endpoint.origin} has no resource {uri!r}",
                hint="was it stored at this broker? 'imagers broker list' shows",
            )
        if response.status == _FORBIDDEN and error.name:
            raise KeyRefused(
                f"the broker refuses {uri!r}",
                reason=str(error),
                hint=_OWNER_SEES,
            )
        if response.status == _UNAUTHORIZED and error.name:
            self._raise_unauthorized(uri, error)
        raise self._endpoint.failure(f"resource {uri!r}", response)

    def _raise_unauthorized(self, uri: str, error: ErrorAnswer) -> NoReturn:
        if error.name in _SESSION:
            raise AttestationError(
                f"the broker at {self._endpoint.origin} does not know the session that it "
                f"gave a moment ago: {error}",
                hint="do several brokers stand behind this URL, without shared sessions?",
            )
        hint = None
        if error.name == "PluginInternalError":
            hint = "Trustee gives this answer also where it has no such resource"
        raise KeyRefused(f"the broker refuses {uri!r}", reason=str(error), hint=hint)


def _close_all(secrets: dict[str, SecretKey]) -> None:
    for one in secrets.values():
        one.close()


if TYPE_CHECKING:

    def _is_store(client: BrokerClient) -> ResourceStore:
        return client
