# SPDX-License-Identifier: Apache-2.0
"""Secrets: released to guests, kept by admins.

A release, in order; each step can refuse and each refusal is in the audit log:

1. the caller has an attested session or a token of this broker that is not over;
2. its TEE, and that of each of its devices, is one whose verifier is enabled now, with the roots
   and settings that it was judged by;
3. the path and the image digest are well-formed;
4. there is such a resource (a guest that attested may learn that there is not);
5. the claims still count, where they do by reference values alone, and the policy allows it: for
   this path, TEE, named image, the resource's bindings, and the worth of the guest's claims by the
   reference values in force now;
6. the secret is opened and sealed to the public key that the evidence bound;
7. the audit row is on disk, and what was judged by is still in force; else it is judged anew.
   Only then the answer leaves.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, NoReturn

from imagers.broker.audit import AuditEvent, append, shown_session
from imagers.broker.clock import milliseconds
from imagers.broker.keeping.rows import StoredResource
from imagers.broker.policy.rego.scan import is_rego
from imagers.broker.policy.table import NotAffirming, ReleaseFacts, RuleDenied, parse_policy
from imagers.broker.refusals import Refusal, refusal_of
from imagers.broker.state import SAMPLES
from imagers.broker.tokens import Accepted
from imagers.errors import EvidenceRejected, FormatError, PolicyDenied
from imagers.kbs.jwe import MAX_RESOURCE_BYTES, seal_answer
from imagers.kbs.resources import parse_resource_path
from imagers.model.digest import parse_digest
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagers.broker.challenges import Ticket
    from imagers.broker.keeping.rows import Session
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.state import BrokerState, Rules
    from imagers.broker.tokens import AttestedGuest
    from imagers.evidence.appraise import Appraisal
    from imagers.kbs.resources import ResourcePath
    from imagers.model.digest import Digest
    from imagers.model.keys import SecretKey

__all__ = ["IMAGE_QUERY", "Credentials", "Released", "Resources"]

_KIND = "resource"
IMAGE_QUERY = "image-digest"
_TRIES = 8  # of a release, while admins change what it is judged by
_MAX_AUDIT = 10_000  # rows of one answer
_AUDIT_FILTERS = frozenset({"event", "outcome", "path", "image", "session", "since"})
_MAX_BINDING = 4096  # bytes of the message
_MAX_BINDINGS = 1000  # of one resource: the manifests of a large index


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller shows: a session's cookie, a bearer token, both or neither."""

    cookie: str | None = None
    bearer: str | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """An answer, and whom it is for.

    Attributes:
        body: the JWE.
        caller: a session's name, or else the guest's key: one guest has one.
    """

    body: bytes
    caller: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a release is judged by, as one state of the store had it.

    Attributes:
        now: the time that sessions are judged by.
        session: of the cookie, unless it is over or none.
        found: by the text of its path, the resource that is asked for, and its images.
    """

    now: datetime
    session: Session | None
    rules: Rules
    found: Mapping[str, tuple[StoredResource, frozenset[Digest]]]


class Resources:
    """The secrets of one broker.

    Threads: safe.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    # For guests

    async def release(
        self,
        credentials: Credentials,
        path_text: str,
        images: Sequence[str] = (),
        *,
        caller: str = "",
    ) -> Released:
        """The JWE of a secret, for the guest of the credentials.

        Args:
            images: each digest that the request names; more than one is refused.
            caller: who asks, for the bounds of the audit log.

        Raises:
            Refusal: see the steps of the module.
        """
        ticket = None
        if credentials.cookie is not None:
            ticket = self._state.challenges.open_cookie(credentials.cookie)
        look = partial(self._look, ticket, path_text)
        for _ in range(_TRIES):
            seen = await self._state.store.read(look)
            try:
                guest = self._identify(credentials, seen)  # step 1
            except Refusal as refusal:
                event = AuditEvent(
                    event="release", outcome="refused", path=path_text, detail=refusal.told
                )
                await self._state.log_refusal(event, caller=caller)
                raise
            session = "" if seen.session is None else seen.session.name
            # By key where there is no session: it is as hard to come by as a session is.
            who = session or str(guest.tee_pubkey)
            event = AuditEvent(
                event="release",
                outcome="ok",
                tee=guest.tee,
                path=path_text,
                image=",".join(images),
                session=shown_session(session),
                detail=f"vouched for by {guest.issuer}" if guest.issuer else "",
            )
            try:
                stored, rule = self._decide(seen, guest, path_text, images)
            except Refusal as refusal:
                event = replace(event, outcome="refused", rule=refusal.rule, detail=refusal.told)
                await self._state.log_refusal(event, caller=who, attested=True)
                raise
            with self._open(stored) as secret:
                answer = seal_answer(secret, guest.tee_pubkey)  # step 6
            confirm = partial(self._confirm, seen.rules, replace(event, rule=rule))
            if await self._state.store.write(confirm):  # step 7
                return Released(answer, who)
        raise Refusal("StoreUnavailable", "what is in force keeps changing; try later")

    def _look(self, ticket: Ticket | None, path_text: str, transaction: Transaction) -> _Seen:
        """What one state of the store has."""
        now = self._state.session_now(transaction.store_row())
        session = None if ticket is None else transaction.find_session(ticket.name)
        if session is not None and session.expires_ms <= milliseconds(now):
            session = None
        found = {}
        with suppress(FormatError):  # the path is refused later, when it is known who asks
            path = parse_resource_path(path_text)
            stored = transaction.find_resource(path)
            if stored is not None:
                found[path_text] = stored, transaction.bindings(path)
        return _Seen(now, session, self._state.rules(transaction), found)

    def _confirm(self, rules: Rules, event: AuditEvent, transaction: Transaction) -> bool:
        """Whether the release was judged by what is in force; its row is written then."""
        if transaction.store_row().changes != rules.changes:
            return False
        append(transaction, event, now=self._state.now())
        return True

    def _identify(self, credentials: Credentials, seen: _Seen) -> AttestedGuest:
        """The guest. A good session goes before a bearer token, as with Trustee."""
        if seen.session is not None:
            return self._state.guest_tokens.check(seen.session.token, now=seen.now)
        return self._state.guest_of(_bearer_of(credentials), now=seen.now)

    def _decide(
        self, seen: _Seen, guest: AttestedGuest, path_text: str, images: Sequence[str]
    ) -> tuple[StoredResource, str]:
        """The resource, and the rule that allows it."""
        for one in guest.accepted:
            if isinstance(one, Accepted):
                self._check_judge(one)  # step 2; of passports the table says it
        path = _parse_path(path_text)  # step 3
        image = _parse_image(images)
        if path_text not in seen.found:  # step 4
            _raise_missing(path)
        stored, bindings = seen.found[path_text]
        judged = [(one.tee, seen.rules.worth(one, now=seen.now)) for one in guest.accepted]
        for _, appraisal in judged:
            _check_counts(appraisal)
        # Who allows the sample TEE believes guests that prove nothing, and was warned.
        unknown = [(tee, one) for tee, one in judged if not (one.is_affirming or tee in SAMPLES)]
        facts = ReleaseFacts(
            path=path,
            tee=guest.tee,
            image=image,
            bindings=bindings,
            is_affirming=not unknown,
            devices=frozenset(tee for tee, _ in judged[1:]),
        )
        try:
            rule = self._state.policy(seen.rules).decide(facts)  # step 5
        except NotAffirming as denied:
            raise _unknown_guest(denied, unknown) from None
        except PolicyDenied as denied:
            rule = denied.rule if isinstance(denied, RuleDenied) else ""
            raise Refusal("PolicyDeny", str(denied), rule=rule) from None
        return stored, rule

    def _check_judge(self, one: Accepted) -> None:
        tee = one.claims.tee
        if tee not in self._state.verifiers:
            raise Refusal("PolicyDeny", f"the TEE '{tee}' is not taken any more")
        if one.judge != self._state.judges[tee]:
            # Before this start somebody was believed who had the seed of a root for tests, or whom
            # an appraisal policy let pass that is not in force any more.
            raise Refusal(
                "TokenVerifierError", "the evidence was accepted under other roots or settings"
            )

    def _open(self, stored: StoredResource) -> SecretKey:
        return self._state.sealer.open(
            stored.sealed, kind=_KIND, name=str(stored.path), version=stored.version
        )

    # For admins. The caller has checked the admin's token.

    async def put(self, path_text: str, secret: SecretKey, *, replace: bool) -> None:
        """Store a secret; without `replace` only under a free name.

        Raises:
            Refusal: `ResourceExists`, or a bad name or size.
        """
        path = _parse_path(path_text)
        if not 1 <= len(secret) <= MAX_RESOURCE_BYTES:
            raise Refusal(
                "SerdeError", f"expected 1 to {MAX_RESOURCE_BYTES} bytes, got {len(secret)}"
            )
        now = self._state.now()

        def keep(transaction: Transaction) -> bool:
            event: Literal["put", "replace"] = "put"
            if transaction.find_resource(path) is not None:
                if not replace:
                    refused = AuditEvent(
                        event="put", outcome="refused", path=str(path), detail="exists"
                    )
                    append(transaction, refused, now=now)
                    return False
                # The new secret is not the key of the images that the old one was for.
                event = "replace"
                transaction.delete_resource(path)
            version = transaction.next_version(path)
            sealed = self._state.sealer.seal(secret, kind=_KIND, name=str(path), version=version)
            transaction.insert_resource(
                StoredResource(
                    path, sealed, len(secret), version, now.isoformat(timespec="seconds")
                )
            )
            append(transaction, AuditEvent(event=event, outcome="ok", path=str(path)), now=now)
            return True

        if not await self._state.store.change(keep):
            raise Refusal("ResourceExists", f"there is a resource '{path}' already")

    async def delete(self, path_text: str) -> None:
        """Remove a secret and its bindings.

        Raises:
            Refusal: `ResourceNotFound`.
        """
        path = _parse_path(path_text)

        def remove(transaction: Transaction) -> None:
            if not transaction.delete_resource(path):
                _raise_missing(path)
            event = AuditEvent(event="delete", outcome="ok", path=str(path))
            append(transaction, event, now=self._state.now())

        await self._state.store.change(remove)

    async def names(self) -> bytes:
        """The JSON list of all paths."""
        paths = await self._state.store.read(lambda transaction: transaction.list_resources())
        return dump_json([str(path) for path in paths])

    async def metadata(self, path_text: str) -> bytes:
        """The JSON of what may be told of a secret.

        Raises:
            Refusal: `ResourceNotFound`.
        """
        path = _parse_path(path_text)
        stored, bindings = await self._state.store.read(
            lambda transaction: (transaction.find_resource(path), transaction.bindings(path))
        )
        if stored is None:
            _raise_missing(path)
        return dump_json(
            {
                "path": str(path),
                "size": stored.size,
                "version": stored.version,
                "created_at": stored.created_at,
                "manifest_digests": sorted(str(digest) for digest in bindings),
            }
        )

    async def bind(self, path_text: str, body: bytes) -> None:
        """Register that a secret belongs to an image.

        Raises:
            Refusal: `ResourceNotFound`, or too many.
            FormatError: the message is none.
        """
        path = _parse_path(path_text)
        binding = View.parse(body, what="binding", max_bytes=_MAX_BINDING)
        digest = parse_digest(
            binding.text("manifest_digest"), what=binding.what, where=binding.at("manifest_digest")
        )

        def add(transaction: Transaction) -> None:
            if transaction.find_resource(path) is None:
                _raise_missing(path)
            bindings = transaction.bindings(path)
            if digest in bindings:
                return
            if len(bindings) >= _MAX_BINDINGS:
                raise Refusal("SerdeError", f"expected at most {_MAX_BINDINGS} bindings")
            transaction.add_binding(path, digest)
            event = AuditEvent(event="bind", outcome="ok", path=str(path), image=str(digest))
            append(transaction, event, now=self._state.now())

        await self._state.store.change(add)

    async def policy_text(self) -> bytes:
        """The policy in force."""
        rules = await self._state.store.read(self._state.rules)
        return self._state.policy(rules).text.encode()

    async def set_policy(self, body: bytes) -> None:
        """Put another policy in force.

        Raises:
            FormatError: it is none; the old one stays.
        """
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise FormatError("is not UTF-8", what="resource policy") from None
        if is_rego(text):
            raise FormatError("expected a table: this broker takes none in Rego", what="policy")
        policy = parse_policy(text)
        names = ", ".join(rule.name for rule in policy.rules) or "none"

        def keep(transaction: Transaction) -> None:
            self._state.set_policy(transaction, policy)
            event = AuditEvent(event="policy", outcome="ok", detail=f"rules: {names}")
            append(transaction, event, now=self._state.now())

        await self._state.store.change(keep)

    async def audit(self, limit_text: str, filters: Mapping[str, str] | None = None) -> bytes:
        """The JSON of the last rows.

        Args:
            filters: what rows must have; see `Transaction.list_audit`.

        Raises:
            Refusal: the limit is no number, the time no time, or a filter is not known.
        """
        if not (limit_text.isascii() and limit_text.isdigit() and len(limit_text) <= len("10000")):
            raise Refusal("SerdeError", f"expected a limit from 1 to {_MAX_AUDIT}")
        limit = min(int(limit_text), _MAX_AUDIT)
        wanted = dict(filters or {})
        if unknown := sorted(wanted.keys() - _AUDIT_FILTERS):
            raise Refusal("SerdeError", f"expected no filter {unknown[0][:40]!r}")
        if "since" in wanted:
            wanted["since"] = _parse_since(wanted["since"])
        rows = await self._state.store.read(
            lambda transaction: transaction.list_audit(limit, wanted)
        )
        return dump_json({"entries": rows})


def _check_counts(appraisal: Appraisal) -> None:
    """Raise if nothing of the claims may be believed now: a reference value is there no more."""
    try:
        appraisal.check_counts()
    except EvidenceRejected as error:
        refusal = refusal_of(error)
        assert refusal is not None  # it has a step
        raise refusal from None


def _unknown_guest(denied: NotAffirming, unknown: Sequence[tuple[str, Appraisal]]) -> Refusal:
    """The refusal of a guest that is not known: the rule for him, the reasons for the owner."""
    misses = [one for _, appraisal in unknown for one in appraisal.misses]
    told = "; ".join(dict.fromkeys(one.told() for one in misses))
    tee = next((tee for tee, appraisal in unknown if not appraisal.has_references), "")
    if tee:
        return Refusal(
            "NoReferenceValue",
            f"rule '{denied.rule}' does not apply: this broker has no reference value for the TEE "
            f"'{tee}'",
            rule=denied.rule,
            told=told,
        )
    return Refusal("PolicyDeny", str(denied), rule=denied.rule, told=told)


def _parse_since(text: str) -> str:
    """A time of RFC 3339 as rows have theirs, so that texts can be compared."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no zone")  # noqa: TRY301  # as bad as no time
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: before the year 1, or after 9999
        raise Refusal("SerdeError", f"expected a time with its zone, got {text[:40]!r}") from None
    return moment.isoformat(timespec="milliseconds")


def _bearer_of(credentials: Credentials) -> str:
    if credentials.bearer is not None:
        return credentials.bearer
    if credentials.cookie is None:
        raise Refusal("TokenNotFound", "the request has neither a session nor a token")
    raise Refusal("SessionNotFound", "the session is unknown, expired or not attested")


def _parse_path(text: str) -> ResourcePath:
    try:
        return parse_resource_path(text)
    except FormatError as error:
        raise Refusal("InvalidRequestPath", str(error)) from None


def _parse_image(values: Sequence[str]) -> Digest | None:
    if not values:
        return None
    if len(values) > 1:
        # Two readers could take different ones.
        raise Refusal("SerdeError", f"expected one '{IMAGE_QUERY}', got {len(values)}")
    try:
        return parse_digest(values[0], what=IMAGE_QUERY)
    except FormatError as error:
        raise Refusal("SerdeError", str(error)) from None


def _raise_missing(path: ResourcePath) -> NoReturn:
    raise Refusal("ResourceNotFound", f"there is no resource '{path}'")
