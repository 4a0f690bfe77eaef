# SPDX-License-Identifier: Apache-2.0
"""The handshake: a challenge, then evidence for it, taken once.

1. `auth` checks version and TEE and gives a fresh nonce and a cookie. It writes nothing down:
   both are under a MAC (`challenges`), and say for which session, TEE, hash algorithm and time
   they are good. Who asks for any number of them takes no place from others.
2. `attest` wants a cookie of this store that is not over, the nonce that was given with it, and
   a key that answers can be sealed to.
3. The report data is computed from that nonce and the key in the message, and the verifier must
   find it in the evidence: so evidence is for this handshake and this key.
4. Accepted evidence becomes a row, unique by nonce: the session. Whoever comes second with the
   very same message gets the same token (a lost answer may be asked for again); with any other,
   a refusal. Trustee gives the old token to both. The row is kept until the nonce has expired
   by any clock that is within the allowed error, and time is judged by no earlier one than the
   store has seen: so a nonce is taken once.
5. Evidence that is rejected leaves no trace but its row in the audit log, and does not use up
   the nonce: other evidence may be tried for it until it expires. It is as hard to forge each
   time, since it must bind this nonce; and nobody can end the handshake of another.
6. Sessions are bounded, all together and for each machine that the evidence names, and so are
   the claims that go into a token.

Init data that a guest sends has to be what its evidence binds, where its TEE binds any: the audit
row says where not.

Evidence of devices, such as GPUs, is taken beside that of a TEE and never alone: the text of all of
it is in the report data of the TEE, which so vouches for them, and each device binds the same nonce
and key. One that is rejected is the end of the handshake.

Spec: Trustee key broker protocol 0.4.0.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from imagers.broker.audit import AuditEvent, append, shown_session
from imagers.broker.clock import MAX_CLOCK_ERROR
from imagers.broker.refusals import Refusal, refusal_of
from imagers.broker.storage import Session
from imagers.broker.tokens import Judged
from imagers.errors import CouldNotVerify, FormatError, ImagersError, LocalError
from imagers.evidence.init_data import parse_init_data
from imagers.evidence.judge import judge_parsed
from imagers.evidence.steps import FETCH_NEWEST
from imagers.kbs.jwe import check_public_key
from imagers.kbs.messages import (
    DEFAULT_HASH,
    PROTOCOL_VERSION,
    Challenge,
    Response,
    hash_device_data,
    hash_report_data,
    parse_additional,
    parse_attestation,
    parse_request,
)
from imagers.model.evidence import Bound, DeviceVerifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.broker.challenges import Ticket
    from imagers.broker.state import BrokerState
    from imagers.broker.storage import Transaction
    from imagers.kbs.messages import Attestation, InitData
    from imagers.model.evidence import Claims, Verifier
    from imagers.model.strict_json import JSON

__all__ = ["Answer", "Handshake"]

# Characters; a token of all TEEs that we know takes some thousand. It travels in a header, and
# every session keeps one.
_MAX_TOKEN = 32 * 1024
_MAX_DEVICES = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """A body and the cookie that goes with it.

    Attributes:
        session: the name of the session, once evidence was accepted.
    """

    body: bytes
    cookie: str
    expires: datetime
    session: str = ""


class Handshake:
    """The two steps, for any number of guests.

    Threads: safe.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    def auth(self, body: bytes, *, caller: str = "") -> Answer:
        """A challenge.

        Args:
            caller: who asks, for the bounds of the audit log.

        Raises:
            Refusal, FormatError: there is none.
        """
        request = parse_request(body)
        try:
            _check_version(request.version)
            self._verifier_of(request.tee)
        except Refusal as refusal:
            event = AuditEvent(
                event="auth", outcome="refused", tee=request.tee, detail=refusal.detail
            )
            self._state.log_refusal(event, caller=caller)
            raise
        lifetime = self._state.config.session_lifetime
        expires_ms = self._state.session_time.now_ms() + _in_milliseconds(lifetime)
        cookie, nonce = self._state.challenges.issue(
            request.tee, algorithm=DEFAULT_HASH, expires_ms=expires_ms
        )
        return Answer(Challenge(nonce).to_bytes(), cookie, _when(expires_ms))

    def attest(self, cookie: str | None, body: bytes, *, caller: str = "") -> Answer:
        """Judge evidence.

        Args:
            caller: as for `auth`.

        Raises:
            Refusal, FormatError, Unsupported: no token was given.
        """
        ticket = self.check_session(cookie, caller=caller)
        assert cookie is not None  # `check_session` refuses without one
        fingerprint = hashlib.sha256(body).hexdigest()
        try:
            token = self._token(ticket, body, fingerprint)
        except (ImagersError, Refusal) as error:
            refusal = error if isinstance(error, Refusal) else refusal_of(error)
            if refusal is None:
                raise
            self._state.log_refusal(_refused(ticket, refusal), caller=caller)
            raise refusal from None
        return Answer(Response(token).to_bytes(), cookie, _when(ticket.expires_ms), ticket.name)

    def check_session(self, cookie: str | None, *, caller: str = "") -> Ticket:
        """What the cookie says, if this store gave it and it is not over.

        Raises:
            Refusal: it did not, or it is.
        """
        detail = "the request has no cookie of a session"
        if cookie is not None:
            ticket = self._state.challenges.open_cookie(cookie)
            if ticket is not None and self._state.session_time.now_ms() < ticket.expires_ms:
                return ticket
            detail = "the session is unknown or expired"
        event = AuditEvent(event="attest", outcome="refused", detail=detail)
        self._state.log_refusal(event, caller=caller)
        raise Refusal("SessionNotFound", detail)

    def _token(self, ticket: Ticket, body: bytes, fingerprint: str) -> str:
        """The token of this session: made now, or the one that the same message got before."""
        with self._state.store.reading() as transaction:
            earlier = transaction.find_session(ticket.name)
        if earlier is not None:
            return _same_token(earlier, fingerprint)
        attestation = parse_attestation(body)
        judged, token = self._judge(ticket, attestation)
        claims = judged[0].claims
        with self._state.store.transaction() as transaction:
            now_ms = self._pass_time(transaction)
            # Judging took its time.
            if now_ms >= ticket.expires_ms:
                raise Refusal("SessionNotFound", "the session is unknown or expired")
            earlier = transaction.find_session(ticket.name)
            if earlier is not None:
                return _same_token(earlier, fingerprint)
            self._check_room(transaction, claims)
            session = Session(
                name=ticket.name,
                nonce=attestation.nonce,
                tee=ticket.tee,
                instance=claims.instance,
                expires_ms=ticket.expires_ms,
                keep_until_ms=ticket.expires_ms + _in_milliseconds(MAX_CLOCK_ERROR),
                attested_with=fingerprint,
                token=token,
            )
            transaction.insert_session(session)
            transaction.keep_collateral(
                {
                    self._kept(one.claims.tee, name): at
                    for one in judged
                    for name, at in one.claims.collateral.items()
                }
            )
            event = AuditEvent(
                event="attest",
                outcome="ok",
                tee=ticket.tee,
                session=shown_session(ticket.name),
                detail=_told(judged, attestation),
            )
            append(transaction, event, now=self._state.now())
        return token

    def _pass_time(self, transaction: Transaction) -> int:
        """The time to judge by, which the store keeps; rows that are over by it are dropped."""
        row = transaction.store_row()
        if row.id != self._state.challenges.store_id:
            raise LocalError(
                "the store has begun again under this broker",
                hint="another broker of this store was started with its clock set back; restart",
            )
        now_ms = self._state.session_time.now_ms(row.seen_ms)
        transaction.keep_time(now_ms)
        transaction.drop_sessions(now_ms)
        return now_ms

    def _check_room(self, transaction: Transaction, claims: Claims) -> None:
        config = self._state.config
        if transaction.store_row().sessions >= config.max_sessions:
            raise Refusal("TooManySessions", "too many guests have attested; try later")
        if (
            claims.instance
            and transaction.sessions_of(claims.tee, claims.instance)
            >= config.max_sessions_of_instance
        ):
            raise Refusal("TooManySessions", "this machine has attested too often; try later")

    def _kept(self, tee: str, name: str) -> str:
        """The name under which the number of a document is kept: those of tests apart."""
        return f"test {name}" if tee in self._state.config.test_roots else name

    def _judge(self, ticket: Ticket, attestation: Attestation) -> tuple[Sequence[Judged], str]:
        """All evidence with its worth, that of the TEE first, and the token, if everything fits."""
        if not self._state.challenges.is_nonce_of(ticket, attestation.nonce):
            raise Refusal("AttestationError", "the nonce is not the one of this session")
        check_public_key(attestation.tee_pubkey)
        report_data = hash_report_data(
            nonce=attestation.nonce,
            tee_pubkey=attestation.tee_pubkey,
            additional_evidence=attestation.additional_evidence,
            report_hash=ticket.algorithm,
        )
        bound = Bound(report_data.digest, _digest_of(attestation.init_data))
        verifier = self._verifier_of(ticket.tee)
        judged = [self._judge_one(verifier, attestation.primary_evidence, bound)]
        device_data = hash_device_data(
            nonce=attestation.nonce,
            tee_pubkey=attestation.tee_pubkey,
            report_hash=ticket.algorithm,
        )
        for device, body in self._devices(attestation):
            judged.append(self._judge_one(device, body, Bound(device_data.digest)))
        token = self._state.guest_tokens.issue(
            judged,
            attestation=attestation,
            report_data=report_data,
            now=_when(self._state.session_time.now_ms()),
            expires=_when(ticket.expires_ms),
        )
        if len(token) > _MAX_TOKEN:
            raise Refusal(
                "AttestationError",
                f"expected claims for a token of at most {_MAX_TOKEN} characters, got {len(token)}",
            )
        return judged, token

    def _devices(self, attestation: Attestation) -> Sequence[tuple[DeviceVerifier[Any], JSON]]:
        """The evidence of each device, and who judges it."""
        devices: list[tuple[DeviceVerifier[Any], JSON]] = []
        for tee, body in parse_additional(attestation.additional_evidence).items():
            verifier = self._state.verifiers.get(tee)
            if not isinstance(verifier, DeviceVerifier):
                raise Refusal(
                    "AttestationError", f"this broker takes no evidence of the device '{tee}'"
                )
            devices += [(verifier, one) for one in verifier.split(body)]
        if len(devices) > _MAX_DEVICES:
            raise Refusal(
                "AttestationError",
                f"expected at most {_MAX_DEVICES} devices, got {len(devices)}",
            )
        return devices

    def _judge_one(self, verifier: Verifier[Any], body: JSON, bound: Bound) -> Judged:
        """One piece of evidence, and its worth."""
        tee = verifier.tee
        with self._state.store.reading() as transaction:
            seen = transaction.seen_collateral()
        evidence = verifier.parse(body)
        verifier.wanted(evidence)  # all that is read of the evidence alone has been read now
        try:
            claims = judge_parsed(
                verifier,
                evidence,
                bound=bound,
                read=self._state.read_collateral,
                now=_when(self._state.session_time.now_ms()),
                seen=lambda name: seen.get(self._kept(tee, name)),
            )
        except FormatError as error:  # a document of ours, and no fault of the guest
            raise CouldNotVerify(f"a document is damaged: {error}", hint=FETCH_NEWEST) from None
        # A plugin that speaks for another TEE than its name, or gives out a device as a machine.
        # Its class begins the name of a submod, which a number ends.
        if (
            claims.tee != tee
            or not claims.tee_class.isalpha()
            or (claims.tee_class == "cpu") == isinstance(verifier, DeviceVerifier)
        ):
            raise RuntimeError(
                f"the verifier of {tee!r} gave claims of {claims.tee!r}, {claims.tee_class}"
            )
        with self._state.store.reading() as transaction:
            appraisal = self._state.appraise(transaction, claims)
        appraisal.check_counts()
        return Judged(claims, appraisal, self._state.judges[tee])

    def _verifier_of(self, tee: str) -> Verifier[Any]:
        verifier = self._state.verifiers.get(tee)
        if verifier is None:
            hint = "; start it with --allow-sample-tee for a demonstration"
            raise Refusal(
                "AttestationError",
                f"this broker takes no evidence of the TEE '{tee}'"
                + (hint if tee == "sample" else ""),
            )
        if isinstance(verifier, DeviceVerifier):
            raise Refusal(
                "AttestationError",
                f"evidence of the device '{tee}' is taken beside that of a TEE, not alone",
            )
        return verifier


def _told(judged: Sequence[Judged], attestation: Attestation) -> str:
    """What was accepted, for the owner."""
    guest, *devices = judged
    told = f"evidence was accepted; appraised as {guest.appraisal.status}"
    for one in devices:
        told += f"; {one.claims.tee} as {one.appraisal.status}"
    if any(one.claims.test_root for one in judged):
        told += "; under a root for tests"
    if attestation.init_data is not None and not guest.claims.init_data:
        told += "; init data was not judged"
    return told


def _digest_of(init_data: InitData | None) -> bytes | None:
    """What the evidence has to bind of the init data that the guest says it was started with."""
    if init_data is None:
        return None
    if init_data.format != "toml":
        raise FormatError(f"expected 'toml', got {init_data.format[:40]!r}", what="init data")
    try:
        document = init_data.body.encode()
    except UnicodeEncodeError:
        raise FormatError("is not text", what="init data") from None
    return parse_init_data(document).digest


def _check_version(version: str) -> None:
    if version != PROTOCOL_VERSION:
        raise Refusal(
            "AttestationError",
            f"expected protocol version '{PROTOCOL_VERSION}', got {version!r}",
        )


def _same_token(session: Session, fingerprint: str) -> str:
    """The token of a session, for the message that it was given for."""
    if session.attested_with != fingerprint:
        raise Refusal(
            "AttestationError", "the session is attested already, with other evidence or key"
        )
    return session.token


def _refused(ticket: Ticket, refusal: Refusal) -> AuditEvent:
    return AuditEvent(
        event="attest",
        outcome="refused",
        tee=ticket.tee,
        session=shown_session(ticket.name),
        detail=refusal.told,
    )


def _in_milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def _when(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
