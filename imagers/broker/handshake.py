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

The token has the appraisal by the reference values of the tenant `default`. Evidence that counts by
reference values alone is taken where those of any tenant say so, and counts for no other.

Init data that a guest sends has to be what its evidence binds, where its TEE binds any: the audit
row says where not.

Evidence of devices, such as GPUs, is taken beside that of a TEE and never alone: the text of all of
it is in the report data of the TEE, which so vouches for them, and each device binds the same nonce
and key. One that is rejected is the end of the handshake.

Spec: Trustee key broker protocol 0.4.0.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from imagers.broker.audit import AuditEvent, append, shown_session
from imagers.broker.clock import MAX_CLOCK_ERROR, milliseconds
from imagers.broker.keeping.database import Taken
from imagers.broker.keeping.rows import Session
from imagers.broker.refusals import Refusal, refusal_of
from imagers.broker.tokens import Judged
from imagers.errors import CouldNotVerify, FormatError, ImagersError
from imagers.evidence.init_data import init_data_claims, parse_init_data
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
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagers.broker.challenges import Ticket
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.rules import Rules
    from imagers.broker.state import BrokerState
    from imagers.evidence.init_data import InitData
    from imagers.kbs.messages import Attestation
    from imagers.kbs.messages import InitData as AttestedInitData
    from imagers.model.evidence import Claims, ReportData, Verifier
    from imagers.model.strict_json import JSON, JSONObject

__all__ = ["Answer", "Handshake"]

# Characters; a token of all TEEs that we know takes some thousand. It travels in a header, and
# every session keeps one.
_MAX_TOKEN = 32 * 1024
_MAX_INIT_DATA_CLAIMS = 12 * 1024  # a third more in base64, beside the other claims
_MAX_DEVICES = 32
# Bytes of evidence. JSON of 2 MiB can take tens of MiB when it is parsed: not 40 at once.
_SMALL = 64 * 1024
_LARGE_AT_ONCE = 2
_SWEEP_MS = 1000  # how often sessions that are over are dropped, and the others counted


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


@dataclass(frozen=True, slots=True)
class _Piece:
    """One piece of evidence, read, and what it has to bind."""

    verifier: Verifier[Any]
    evidence: Any
    bound: Bound


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a guest shows.

    Attributes:
        pieces: that of the TEE first, then those of its devices.
        waits: whether documents have to be read to judge it.
    """

    attestation: Attestation
    report_data: ReportData
    pieces: Sequence[_Piece]
    init_data: InitData | None
    waits: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store knows when evidence comes.

    Attributes:
        store_id: of the store, which changes where it begins again.
        earlier: the session, if evidence was accepted in it already.
        seen: the highest number of each document that was believed.
    """

    store_id: bytes
    earlier: Session | None
    seen: Mapping[str, int]
    rules: Rules
    now: datetime


class _SessionsLost(Exception):
    """The database has lost which nonces are taken."""


class Handshake:
    """The two steps, for any number of guests.

    Threads: safe.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        # Of who writes: one at a time.
        self._sessions = 0
        self._sweep_at_ms = 0

    async def auth(self, body: bytes, *, caller: str = "") -> Answer:
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
            await self._state.log_refusal(event, caller=caller)
            raise
        lifetime = self._state.config.session_lifetime
        expires_ms = self._state.session_time.now_ms() + _in_milliseconds(lifetime)
        cookie, nonce = self._state.challenges.issue(
            request.tee, algorithm=DEFAULT_HASH, expires_ms=expires_ms
        )
        return Answer(Challenge(nonce).to_bytes(), cookie, _when(expires_ms))

    async def attest(self, cookie: str | None, body: bytes, *, caller: str = "") -> Answer:
        """Judge evidence.

        Args:
            caller: as for `auth`.

        Raises:
            Refusal, FormatError, Unsupported: no token was given.
        """
        store_id = self._state.challenges.store_id
        ticket = await self.check_session(cookie, caller=caller)
        assert cookie is not None  # `check_session` refuses without one
        fingerprint = hashlib.sha256(body).hexdigest()
        try:
            token = await self._token(ticket, store_id, body, fingerprint, caller)
        except (ImagersError, Refusal) as error:
            refusal = error if isinstance(error, Refusal) else refusal_of(error)
            if refusal is None:
                raise
            event = _refused(ticket, refusal, fingerprint)
            await self._state.log_refusal(event, caller=caller)
            raise refusal from None
        return Answer(Response(token).to_bytes(), cookie, _when(ticket.expires_ms), ticket.name)

    async def check_session(self, cookie: str | None, *, caller: str = "") -> Ticket:
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
        await self._state.log_refusal(event, caller=caller)
        raise Refusal("SessionNotFound", detail)

    async def _token(
        self, ticket: Ticket, store_id: bytes, body: bytes, fingerprint: str, caller: str
    ) -> str:
        """The token of this session: made now, or the one that the same message got before.

        Args:
            store_id: of the store that gave the ticket.
        """
        known = await self._state.store.read(partial(self._look, ticket))
        if known.store_id != store_id:  # it has begun again
            raise _unknown_session()
        if known.earlier is not None:
            return _same_token(known.earlier, fingerprint)
        if milliseconds(known.now) >= ticket.expires_ms:  # by the time that the store has seen
            raise _unknown_session()
        attestation, judged, token = await self._judge(ticket, body, known)
        await self._check_counts(judged, known)
        session = Session(
            name=ticket.name,
            nonce=attestation.nonce,
            tee=ticket.tee,
            instance=judged[0].claims.instance,
            expires_ms=ticket.expires_ms,
            keep_until_ms=ticket.expires_ms + _in_milliseconds(MAX_CLOCK_ERROR),
            attested_with=fingerprint,
            token=token,
        )
        event = AuditEvent(
            event="attest",
            outcome="ok",
            tee=ticket.tee,
            session=shown_session(ticket.name),
            client=caller,
            evidence=fingerprint,
            claims=self._state.guest_tokens.check(token, now=known.now).claims_digest,
            detail=_told(judged, attestation),
        )
        collateral = {
            self._kept(one.claims.tee, name): at
            for one in judged
            for name, at in one.claims.collateral.items()
        }
        keep = partial(self._keep, session, event, collateral, store_id)
        try:
            try:
                return await self._state.store.write(keep)
            except Taken:  # by another broker of this store, at the same time
                return await self._state.store.write(keep)
        except _SessionsLost:
            # What is given out from now on is of the new store.
            self._state.challenges.store_id = await self._state.store.change(self._begin_again)
            raise _unknown_session() from None

    def _look(self, ticket: Ticket, transaction: Transaction) -> _Known:
        row = transaction.store_row()
        return _Known(
            row.id,
            transaction.find_session(ticket.name),
            transaction.seen_collateral(),
            self._state.rules(transaction),
            self._state.session_now(row),
        )

    def _keep(
        self,
        session: Session,
        event: AuditEvent,
        collateral: Mapping[str, int],
        store_id: bytes,
        transaction: Transaction,
    ) -> str:
        """The token, once session and row are written; or that of the session that was there."""
        now_ms = self._pass_time(transaction, store_id)
        # Judging took its time.
        if now_ms >= session.expires_ms:
            raise _unknown_session()
        earlier = transaction.find_session(session.name)
        if earlier is not None:
            return _same_token(earlier, session.attested_with)
        transaction.insert_session(self._placed(transaction, session))
        self._sessions += 1
        transaction.keep_collateral(collateral)
        append(transaction, event, now=self._state.now())
        return session.token

    def _pass_time(self, transaction: Transaction, store_id: bytes) -> int:
        """The time to judge by, which the store keeps; rows that are over by it are dropped."""
        row = transaction.store_row()
        if not row.has_sessions:
            raise _SessionsLost
        # Not with what the broker knows by now: the ticket was given before.
        if row.id != store_id:
            raise _unknown_session()
        now_ms = self._state.session_time.now_ms(row.seen_ms)
        transaction.keep_time(now_ms)
        if now_ms >= self._sweep_at_ms:
            self._sweep_at_ms = now_ms + _SWEEP_MS
            transaction.drop_sessions(now_ms)
            self._sessions = transaction.count_sessions()
        return now_ms

    def _begin_again(self, transaction: Transaction) -> bytes:
        """Take nothing more that was given out before, unless another broker said so already.

        Returns the id of the store.
        """
        row = transaction.store_row()
        if row.has_sessions:
            return row.id
        transaction.begin_again(row.seen_ms)
        detail = "the database fell and lost its sessions: guests shake hands again"
        append(
            transaction,
            AuditEvent(event="start", outcome="ok", detail=detail),
            now=self._state.now(),
        )
        return transaction.store_row().id

    def _placed(self, transaction: Transaction, session: Session) -> Session:
        """The session with the place that it takes.

        Raises:
            Refusal: there is none.
        """
        config = self._state.config
        if self._sessions >= config.max_sessions:
            raise Refusal("TooManySessions", "too many guests have attested; try later")
        if not session.instance:
            return session
        slot = transaction.find_slot(
            session.tee, session.instance, most=config.max_sessions_of_instance
        )
        if slot is None:
            raise Refusal("TooManySessions", "this machine has attested too often; try later")
        return replace(session, slot=slot)

    def _kept(self, tee: str, name: str) -> str:
        """The name under which the number of a document is kept: those of tests apart."""
        return f"test {name}" if tee in self._state.config.test_roots else name

    async def _judge(
        self, ticket: Ticket, body: bytes, known: _Known
    ) -> tuple[Attestation, Sequence[Judged], str]:
        """All evidence with its worth, that of the TEE first, and the token, if everything fits.

        What takes its time or waits does so in a thread.
        """
        if len(body) > _SMALL:
            async with self._large:
                shown = await asyncio.to_thread(self._read, ticket, body)
                return await asyncio.to_thread(self._judge_shown, ticket, shown, known)
        shown = self._read(ticket, body)
        if shown.waits:
            return await asyncio.to_thread(self._judge_shown, ticket, shown, known)
        return self._judge_shown(ticket, shown, known)

    def _read(self, ticket: Ticket, body: bytes) -> _Shown:
        """All that the message says, not yet believed."""
        attestation = parse_attestation(body)
        if not self._state.challenges.is_nonce_of(ticket, attestation.nonce):
            raise Refusal("AttestationError", "the nonce is not the one of this session")
        check_public_key(attestation.tee_pubkey)
        report_data = hash_report_data(
            nonce=attestation.nonce,
            tee_pubkey=attestation.tee_pubkey,
            additional_evidence=attestation.additional_evidence,
            report_hash=ticket.algorithm,
        )
        init_data = _read_init_data(attestation.init_data)
        bound = Bound(report_data.digest, None if init_data is None else init_data.digest)
        verifier = self._verifier_of(ticket.tee)
        pieces = [_Piece(verifier, verifier.parse(attestation.primary_evidence), bound)]
        if devices := self._devices(attestation):
            device_data = hash_device_data(
                nonce=attestation.nonce,
                tee_pubkey=attestation.tee_pubkey,
                report_hash=ticket.algorithm,
            )
            bound = Bound(device_data.digest)
            pieces += [_Piece(device, device.parse(one), bound) for device, one in devices]
        # All that is read of the evidence alone is read here.
        waits = [bool(piece.verifier.wanted(piece.evidence)) for piece in pieces]
        return _Shown(attestation, report_data, pieces, init_data, any(waits))

    def _judge_shown(
        self, ticket: Ticket, shown: _Shown, known: _Known
    ) -> tuple[Attestation, Sequence[Judged], str]:
        judged = [self._judge_one(piece, known) for piece in shown.pieces]
        token = self._state.guest_tokens.issue(
            judged,
            attestation=shown.attestation,
            report_data=shown.report_data,
            now=known.now,
            expires=_when(ticket.expires_ms),
            init_data=_shown_init_data(shown.init_data, judged[0].claims),
            store_id=self._state.challenges.store_id,
        )
        if len(token) > _MAX_TOKEN:
            raise Refusal(
                "AttestationError",
                f"expected claims for a token of at most {_MAX_TOKEN} characters, got {len(token)}",
            )
        return shown.attestation, judged, token

    def _devices(self, attestation: Attestation) -> Sequence[tuple[DeviceVerifier[Any], JSON]]:
        """The evidence of each device, and who judges it."""
        devices: list[tuple[DeviceVerifier[Any], JSON]] = []
        for tee, body in parse_additional(attestation.additional_evidence).items():
            verifier = self._state.devices.get(tee)
            if verifier is None:
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

    def _judge_one(self, piece: _Piece, known: _Known) -> Judged:
        """One piece of evidence, and its worth."""
        verifier, tee = piece.verifier, piece.verifier.tee
        try:
            claims = judge_parsed(
                verifier,
                piece.evidence,
                bound=piece.bound,
                read=self._state.read_collateral,
                now=known.now,
                seen=lambda name: known.seen.get(self._kept(tee, name)),
            )
        except FormatError as error:  # a document of ours, and no fault of the guest
            raise CouldNotVerify(f"a document is damaged: {error}", hint=FETCH_NEWEST) from None
        # A plugin that speaks for another TEE than its name, or gives out a device as a machine.
        # Its class begins the name of a submod, which a number ends.
        if (
            claims.tee != tee
            or not claims.tee_class.isalpha()
            or (claims.tee_class == "cpu") == (tee in self._state.devices)
        ):
            raise RuntimeError(
                f"the verifier of {tee!r} gave claims of {claims.tee!r}, {claims.tee_class}"
            )
        appraisal = known.rules.appraise(claims, now=known.now)
        return Judged(claims, appraisal, self._state.judges[tee])

    async def _check_counts(self, judged: Sequence[Judged], known: _Known) -> None:
        """Raise unless each piece of evidence counts for a tenant: each release asks its own again.

        Raises:
            EvidenceRejected: one counts for nobody.
        """
        others = [one for one in judged if not one.appraisal.counts]
        if others:
            await self._state.store.read(partial(self._check_tenants, others, known.now))

    def _check_tenants(
        self, judged: Sequence[Judged], now: datetime, transaction: Transaction
    ) -> None:
        tenants = [self._state.rules(transaction, name) for name in transaction.tenants()]
        for one in judged:
            if not any(rules.appraise(one.claims, now=now).counts for rules in tenants):
                one.appraisal.check_counts()

    def _verifier_of(self, tee: str) -> Verifier[Any]:
        verifier = self._state.verifiers.get(tee)
        if verifier is None:
            hint = "; start it with --allow-sample-tee for a demonstration"
            raise Refusal(
                "AttestationError",
                f"this broker takes no evidence of the TEE '{tee}'"
                + (hint if tee == "sample" else ""),
            )
        if tee in self._state.devices:
            raise Refusal(
                "AttestationError",
                f"evidence of the device '{tee}' is taken beside that of a TEE, not alone",
            )
        return verifier


def _unknown_session() -> Refusal:
    return Refusal("SessionNotFound", "the session is unknown or expired")


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


def _read_init_data(init_data: AttestedInitData | None) -> InitData | None:
    """The init data that the guest says it was started with, whose digest its evidence binds."""
    if init_data is None:
        return None
    if init_data.format != "toml":
        raise FormatError(f"expected 'toml', got {init_data.format[:40]!r}", what="init data")
    try:
        document = init_data.body.encode()
    except UnicodeEncodeError:
        raise FormatError("is not text", what="init data") from None
    return parse_init_data(document)


def _shown_init_data(init_data: InitData | None, claims: Claims) -> JSONObject | None:
    """What policies see of it: nothing where the evidence does not bind it, or there is too much.

    A policy that asks for what it does not see says no.
    """
    if init_data is None or not claims.init_data:
        return None
    found = init_data_claims(init_data.data)
    return found if len(dump_json(found)) <= _MAX_INIT_DATA_CLAIMS else None


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


def _refused(ticket: Ticket, refusal: Refusal, fingerprint: str) -> AuditEvent:
    return AuditEvent(
        event="attest",
        outcome="refused",
        tee=ticket.tee,
        session=shown_session(ticket.name),
        evidence=fingerprint,
        detail=refusal.told,
    )


def _in_milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def _when(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
