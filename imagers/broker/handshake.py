"""The handshake: a challenge, then evidence for it, once.

1. `auth` checks version and TEE and gives a fresh nonce under a fresh session.
2. `attest` wants a session that is open, its nonce, and a key that answers can be sealed to.
3. The report data is computed from the session's nonce and the key in the message, and the
   verifier must find it in the evidence: so evidence is for this handshake and this key.
4. The session changes from open to attested once. Whoever comes second with the very same
   message gets the same token (a lost answer may be asked for again); with any other, a
   refusal. Trustee gives the old token to both.
5. Evidence that is rejected ends the session: a nonce is tried once.

Init data is read and not judged by this broker; it is not in the token, and the audit row
says so. Device evidence is refused: nothing here would verify it.

Spec: Trustee key broker protocol 0.4.0.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from imagers.attest.jwe import check_public_key
from imagers.attest.messages import (
    PROTOCOL_VERSION,
    Challenge,
    Response,
    hash_report_data,
    parse_attestation,
    parse_request,
)
from imagers.broker.audit import AuditEvent, append, shown_session
from imagers.broker.refusals import Refusal, refusal_of
from imagers.broker.storage import Session, session_name
from imagers.errors import ImagersError

if TYPE_CHECKING:
    from imagers.attest.messages import Attestation
    from imagers.broker.state import BrokerState
    from imagers.model.evidence import Verifier

__all__ = ["Answer", "Handshake"]

_NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """A body and the cookie that goes with it."""

    body: bytes
    cookie: str
    expires: datetime


class Handshake:
    """The two steps, for any number of guests.

    Threads: safe.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    def auth(self, body: bytes) -> Answer:
        """Open a session.

        Raises:
            Refusal, FormatError: no session was opened.
        """
        request = parse_request(body)
        try:
            _check_version(request.version)
            self._verifier_of(request.tee)
        except Refusal as refusal:
            self._state.log_stranger(
                AuditEvent(event="auth", outcome="refused", tee=request.tee, detail=refusal.detail)
            )
            raise
        now = self._state.now()
        expires = now + self._state.config.session_lifetime
        cookie = uuid.uuid4().hex
        nonce = base64.b64encode(secrets.token_bytes(_NONCE_BYTES)).decode("ascii")
        with self._state.store.transaction() as transaction:
            transaction.drop_expired_sessions(_milliseconds(now))
            if transaction.count_sessions() >= self._state.config.max_sessions:
                raise Refusal("TooManySessions", "too many handshakes are under way; try later")
            transaction.insert_session(
                Session(
                    name=session_name(cookie),
                    tee=request.tee,
                    nonce=nonce,
                    expires_ms=_milliseconds(expires),
                )
            )
        return Answer(Challenge(nonce).to_bytes(), cookie, expires)

    def attest(self, cookie: str | None, body: bytes) -> Answer:
        """Judge evidence.

        Raises:
            Refusal, FormatError, Unsupported: no token was given.
        """
        now = self._state.now()
        session = self._find(cookie, now)
        assert cookie is not None  # `_find` refuses without one
        fingerprint = hashlib.sha256(body).hexdigest()
        expires = datetime.fromtimestamp(session.expires_ms / 1000, UTC)
        if session.token is not None:
            return Answer(self._again(session, fingerprint, now), cookie, expires)
        init = ""
        try:
            attestation = parse_attestation(body)
            token = self._judge(session, attestation, now, expires)
            init = "; init data was not judged" if attestation.init_data is not None else ""
        except (ImagersError, Refusal) as error:
            refusal = error if isinstance(error, Refusal) else refusal_of(error)
            if refusal is None:
                raise
            self._end(session, refusal, now)
            raise refusal from None
        with self._state.store.transaction() as transaction:
            won = transaction.finish_session(session.name, attested_with=fingerprint, token=token)
            if won:
                event = AuditEvent(
                    event="attest",
                    outcome="ok",
                    tee=session.tee,
                    session=shown_session(session),
                    detail="evidence was accepted" + init,
                )
                append(transaction, event, now=now)
                return Answer(Response(token).to_bytes(), cookie, expires)
            winner = transaction.find_session(cookie, _milliseconds(now))
        if winner is None:
            raise Refusal("SessionNotFound", "the session is unknown or expired")
        return Answer(self._again(winner, fingerprint, now), cookie, expires)

    def _judge(
        self, session: Session, attestation: Attestation, now: datetime, expires: datetime
    ) -> str:
        """The token, if everything fits."""
        if not hmac.compare_digest(attestation.nonce.encode(), session.nonce.encode()):
            raise Refusal("AttestationError", "the nonce is not the one of this session")
        if attestation.additional_evidence not in ("", "{}"):
            raise Refusal(
                "AttestationError", "evidence of additional devices is not taken by this broker"
            )
        check_public_key(attestation.tee_pubkey)
        report_data = hash_report_data(
            nonce=session.nonce,
            tee_pubkey=attestation.tee_pubkey,
            additional_evidence=attestation.additional_evidence,
        )
        claims = self._verifier_of(session.tee).verify(
            attestation.primary_evidence, report_data=report_data, now=now
        )
        if claims.tee != session.tee:  # a plugin that speaks for another TEE than its name
            raise RuntimeError(f"the verifier of {session.tee!r} gave claims of {claims.tee!r}")
        return self._state.guest_tokens.issue(
            claims, attestation=attestation, report_data=report_data, now=now, expires=expires
        )

    def _again(self, session: Session, fingerprint: str, now: datetime) -> bytes:
        """The answer to an attestation in a session that is attested already."""
        if session.token is not None and session.attested_with == fingerprint:
            return Response(session.token).to_bytes()
        refusal = Refusal(
            "AttestationError", "the session is attested already, with other evidence or key"
        )
        with self._state.store.transaction() as transaction:
            append(transaction, _refused(session, refusal), now=now)
        raise refusal

    def check_session(self, cookie: str | None) -> None:
        """Nothing, if the cookie is of a session, open or attested.

        Raises:
            Refusal: it is of none.
        """
        self._find(cookie, self._state.now())

    def _find(self, cookie: str | None, now: datetime) -> Session:
        detail = "the request has no cookie of a session"
        if cookie is not None:
            with self._state.store.transaction() as transaction:
                session = transaction.find_session(cookie, _milliseconds(now))
            if session is not None:
                return session
            detail = "the session is unknown or expired"
        self._state.log_stranger(AuditEvent(event="attest", outcome="refused", detail=detail))
        raise Refusal("SessionNotFound", detail)

    def _end(self, session: Session, refusal: Refusal, now: datetime) -> None:
        with self._state.store.transaction() as transaction:
            transaction.delete_open_session(session.name)
            append(transaction, _refused(session, refusal), now=now)

    def _verifier_of(self, tee: str) -> Verifier:
        verifier = self._state.verifiers.get(tee)
        if verifier is None:
            hint = "; start it with --allow-sample-tee for a demonstration"
            raise Refusal(
                "AttestationError",
                f"this broker takes no evidence of the TEE '{tee}'"
                + (hint if tee == "sample" else ""),
            )
        return verifier


def _check_version(version: str) -> None:
    if version != PROTOCOL_VERSION:
        raise Refusal(
            "AttestationError",
            f"expected protocol version '{PROTOCOL_VERSION}', got {version!r}",
        )


def _refused(session: Session, refusal: Refusal) -> AuditEvent:
    return AuditEvent(
        event="attest",
        outcome="refused",
        tee=session.tee,
        session=shown_session(session),
        detail=refusal.detail,
    )


def _milliseconds(when: datetime) -> int:
    return int(when.timestamp() * 1000)
