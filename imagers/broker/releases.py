# SPDX-License-Identifier: Apache-2.0
"""Secrets, released to guests.

A release, in order; each step can refuse and each refusal is in the audit log:

1. the caller has an attested session, or a token of this broker or of an issuer that is listed for
   the tenant that owns the repository, that is not over; before that nothing of a secret is read;
2. its TEE, and that of each of its devices, is one whose verifier is enabled now, with the roots
   and settings that it was judged by;
3. the path and the image digest are well-formed;
4. there is such a resource (a guest that attested may learn that there is not), its time is not
   over, and it has not been released as often as it may be;
5. the claims still count, where they do by reference values alone; the image that the guest names
   is not revoked, nor older than the oldest that its repository serves; and the policy allows it:
   for this path, TEE, named image, the resource's bindings and their approvals, and the worth of
   the guest's claims by the reference values and the attestation policy in force now. A name
   counts only from a guest whose claims are affirming; one that names none of the resource's
   images is refused where any of these would be;
6. the secret is opened and sealed to the public key that the evidence bound;
7. the audit row is on disk, the release is counted where the resource has a number of them, and
   what was judged by is still in force and was read moments ago; else it is judged anew. Only then
   the answer leaves.

Policy, reference values and issuers are those of the tenant that owns the repository, and the row
is his. Several secrets in one request are released together or not at all, each by its own tenant;
together they are no larger than one may be.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from imagers.broker.admins import approving_keys
from imagers.broker.audit import AuditEvent, append, shown_session
from imagers.broker.clock import milliseconds
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.keeping.transaction import Transaction
from imagers.broker.policy.images import (
    ImageDenied,
    check_named,
    check_unnamed,
    good_approvals,
    newest_successor,
)
from imagers.broker.policy.inputs import (
    Binding,
    ResourceFacts,
    attestation_input,
    reference_inputs,
    request_data,
    resource_input,
)
from imagers.broker.policy.rego.engine import NOT_ASKED
from imagers.broker.policy.table import NotAffirming, ReleaseFacts, ResourcePolicy, RuleDenied
from imagers.broker.refusals import Refusal, refusal_of
from imagers.broker.resources import parse_path, raise_missing
from imagers.broker.sealing import RESOURCE_KIND
from imagers.broker.state import SAMPLES
from imagers.broker.tokens import Accepted, Vouched
from imagers.errors import EvidenceRejected, FormatError, PolicyDenied
from imagers.evidence.appraise import AFFIRMING
from imagers.kbs.jwe import MAX_RESOURCE_BYTES, seal_answer
from imagers.kbs.resources import parse_resource_path
from imagers.kbs.wire import MAX_TOGETHER
from imagers.model.digest import parse_digest
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagers.broker.challenges import Ticket
    from imagers.broker.keeping.rows import Approval, Image, Session, StoredResource
    from imagers.broker.policy.inputs import Worth
    from imagers.broker.rules import RegoPolicy, Rules
    from imagers.broker.state import BrokerState
    from imagers.broker.tokens import AttestedGuest
    from imagers.evidence.appraise import Appraisal
    from imagers.kbs.resources import ResourcePath
    from imagers.model.digest import Digest
    from imagers.model.strict_json import JSONObject

__all__ = [
    "IMAGE_QUERY",
    "MAX_REQUEST",
    "Asked",
    "Credentials",
    "Released",
    "Releases",
    "join_released",
    "parse_asked",
]

IMAGE_QUERY = "image-digest"
_WHAT = "release request"
MAX_REQUEST = 128 * 1024
_FRESH = timedelta(seconds=5)  # how old what a release is judged by may be when it leaves
_SMALL = 4096  # bytes of a secret and its images, of those that are kept in memory, sealed
_IMAGE = 768  # bytes that what is known of one takes there
_TRIES = 8  # of a release, while admins change what it is judged by


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller shows: a session's cookie, a bearer token, both or neither."""

    cookie: str | None = None
    bearer: str | None = None

    def require(self) -> None:
        """Raise unless something is shown.

        Raises:
            Refusal: `TokenNotFound`.
        """
        if self.cookie is None and self.bearer is None:
            raise Refusal("TokenNotFound", "the request has neither a session nor a token")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        paths: of the resources, one or more.
        images: each digest that the request names; more than one is refused.
        query: the parameters of the request, for policies in Rego.
    """

    paths: Sequence[str]
    images: Sequence[str] = ()
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Released:
    """An answer, and whom it is for.

    Attributes:
        bodies: a JWE for each path, in the order in which they were asked for.
        caller: a session's name, or else the guest's key: one guest has one.
    """

    bodies: Sequence[bytes]
    caller: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a release is judged by, as one state of the store had it.

    Attributes:
        state: of the store: how many changes it had seen, and its head.
        now: the time that sessions are judged by.
        session: of the cookie, unless it is over or none.
        cases: of each tenant of whose something is asked for.
        owners: the tenant of each path that is asked for, by its text; "" of one that is none.
        found: by the text of its path, each resource that is asked for and there.
    """

    state: tuple[int, bytes | None]
    now: datetime
    session: Session | None
    cases: dict[str, _Case] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    found: dict[str, _Found] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether something that it was judged by is over: a resource, an approval or a value."""
        values = (one for case in self.cases.values() for one in case.rules.references.values())
        ends = (found.end for found in self.found.values())
        return any(end and end <= self.now.timestamp() for end in ends) or any(
            one.expires is not None and one.expires <= self.now for one in values
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """A resource, and what is known of its images.

    Attributes:
        bound: those that it belongs to.
        approvals: how many of each count; empty where no policy asks for it.
        floor: the number of the oldest that its repository serves; 0: any.
        named: what the repository knows of the image that the guest names.
        successor: what to take in place of that.
        end: when the first of the resource and the approvals is over, in seconds; 0: none.
    """

    stored: StoredResource
    bound: Mapping[Digest, Image]
    approvals: Mapping[Digest, int]
    floor: int
    named: Image | None
    successor: Digest | None
    end: int


@dataclass(frozen=True, slots=True)
class _Judged:
    """One piece of a guest's evidence, and its worth now.

    Attributes:
        appraisal: by the reference values; None: another verifier's word, or an attestation policy
            in place of it.
    """

    one: Accepted | Vouched
    worth: Worth
    appraisal: Appraisal | None
    fault: str = ""

    @property
    def is_known(self) -> bool:
        """Whether it is of a machine of the owner's."""
        # Who allows the sample TEE believes guests that prove nothing, and was warned.
        return self.worth.status == AFFIRMING or self.one.tee in SAMPLES


@dataclass(frozen=True, slots=True)
class _Case:
    """A guest as one tenant knows it.

    Attributes:
        judged: what its evidence is worth to him, once that was found out.
    """

    tenant: str
    guest: AttestedGuest
    rules: Rules
    judged: list[_Judged] = field(default_factory=list)

    @property
    def is_known(self) -> bool:
        """Whether all its evidence is of a machine of the owner's."""
        return bool(self.judged) and all(one.is_known for one in self.judged)


class _Outdated(Exception):  # a signal
    """What a release was judged by is in force no more."""


class _Refused(Exception):
    """Who asks is refused before it is known what there is.

    Attributes:
        tenant: whose path it is; "": it is none.
    """

    def __init__(self, refusal: Refusal, tenant: str, path: str) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.tenant = tenant
        self.path = path


def parse_asked(body: bytes) -> Asked:
    """What a request for several secrets asks for.

        {"resources": ["default/app/1", "default/app/2"], "image-digest": "sha256:…"}

    Raises:
        FormatError: it is none.
    """
    message = View.parse(body, what=_WHAT, max_bytes=MAX_REQUEST)
    message.only("resources", IMAGE_QUERY)
    paths = message.texts("resources", most=MAX_TOGETHER, non_empty=True)
    if len(set(paths)) < len(paths):
        raise message.error("expected no resource twice", "resources")
    image = message.optional_text(IMAGE_QUERY)
    return Asked(paths, () if image is None else (image,))


def join_released(asked: Asked, released: Released) -> bytes:
    """The answer to it: `{"resources": {"default/app/1": JWE, …}}`."""
    pairs = zip(asked.paths, released.bodies, strict=True)
    return b'{"resources":{%s}}' % b",".join(dump_json(path) + b":" + jwe for path, jwe in pairs)


class Releases:
    """What guests get of one broker.

    Threads: safe.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    async def release(
        self, credentials: Credentials, asked: Asked, *, caller: str = ""
    ) -> Released:
        """The JWE of each secret, for the guest of the credentials.

        Args:
            caller: the address that asks, for the audit log and its bounds.

        Raises:
            Refusal: see the steps of the module; of the first secret that is refused.
        """
        ticket = None
        if credentials.cookie is not None:
            ticket = self._state.challenges.open_cookie(credentials.cookie)
        look = partial(self._look, ticket, credentials, asked)
        for _ in range(_TRIES):
            try:
                seen = await self._state.store.read(look)
            except _Refused as refused:
                event = AuditEvent(
                    event="release",
                    outcome="refused",
                    tenant=refused.tenant,
                    path=refused.path,
                    detail=refused.refusal.told,
                )
                await self._state.log_refusal(event, caller=caller)
                raise refused.refusal from None
            session = "" if seen.session is None else seen.session.name
            # By key where there is no session: it is as hard to come by as a session is.
            first = seen.cases[seen.owners[asked.paths[0]]].guest
            who = session or str(first.tee_pubkey)
            events, bodies, counted = [], [], []
            for path_text in asked.paths:
                case = seen.cases[seen.owners[path_text]]
                told = partial(
                    AuditEvent,
                    event="release",
                    tenant=case.tenant,
                    tee=case.guest.tee,
                    path=path_text,
                    image=",".join(asked.images),
                    session=shown_session(session),
                    client=caller,
                    evidence="" if seen.session is None else seen.session.attested_with,
                    claims=case.guest.claims_digest,
                )
                try:
                    stored, rule = await self._decide(seen, case, asked, path_text)
                except Refusal as refusal:
                    event = told(outcome="refused", rule=refusal.rule, detail=refusal.told)
                    await self._state.log_refusal(event, caller=who, attested=True)
                    if seen.has_ended:
                        # No broker whose clock is behind, or that starts anew, may say yes yet.
                        keep = partial(Transaction.keep_time, now_ms=milliseconds(seen.now))
                        await self._state.store.write(keep)
                    raise
                vouched = f"vouched for by {case.guest.issuer}" if case.guest.issuer else ""
                events.append(told(outcome="ok", rule=rule, detail=vouched))
                bodies.append(self._seal(stored, case.guest))  # step 6
                if stored.max_uses:
                    counted.append(stored)
            # How often something was released is what the next release is judged by.
            write = self._state.store.change if counted else self._state.store.write
            with suppress(_Outdated):
                await write(partial(self._confirm, seen, events, counted))  # step 7
                return Released(bodies, who)
        raise Refusal("StoreUnavailable", "what is in force keeps changing; try later")

    def _look(
        self,
        ticket: Ticket | None,
        credentials: Credentials,
        asked: Asked,
        transaction: Transaction,
    ) -> _Seen:
        """What one state of the store has, for a guest that is known: nothing is read for others.

        Raises:
            _Refused: see step 1; or it is too much.
        """
        row = transaction.store_row()
        now = self._state.session_now(row)
        session = None if ticket is None else transaction.find_session(ticket.name)
        if session is not None and session.expires_ms <= milliseconds(now):
            session = None
        seen, size = _Seen((row.changes, row.head), now, session), 0
        image = _image_of(asked.images)
        for path_text in asked.paths:
            path = _path_of(path_text)
            tenant = "" if path is None else self._state.owner_of(transaction, path)
            seen.owners[path_text] = tenant
            try:
                if tenant not in seen.cases:
                    of = tenant or DEFAULT_TENANT
                    guest = self._identify(credentials, session, of, row.id, now)  # step 1
                    seen.cases[tenant] = _Case(tenant, guest, self._state.rules(transaction, of))
                # A bad path or image is refused later, when it is known who asks.
                if path is not None:
                    found = self._find(transaction, path, image, seen.cases[tenant], now)
                    if found is not None:
                        size += found.stored.size
                        _check_size(size)
                        seen.found[path_text] = found
            except Refusal as refusal:
                raise _Refused(refusal, tenant, path_text) from None
        return seen

    def _find(
        self,
        transaction: Transaction,
        path: ResourcePath,
        image: Digest | None,
        case: _Case,
        now: datetime,
    ) -> _Found | None:
        read = partial(_find, transaction, path, image, case, now)
        if case.rules.asks_for_approvals:  # which count until a time
            return read()
        return self._state.last_rules.recall(transaction, (path, image), read, is_small=_is_small)

    def _confirm(
        self,
        seen: _Seen,
        events: Sequence[AuditEvent],
        counted: Sequence[StoredResource],
        transaction: Transaction,
    ) -> None:
        """Write the rows of a release that was judged by what is in force.

        Raises:
            _Outdated: it was not. Nothing is changed then, which would make others outdated.
        """
        row = transaction.store_row()
        # What was in time when it was read may be over, after a policy that took long.
        state = (row.changes, row.head)
        if state != seen.state or self._state.session_now(row) - seen.now > _FRESH:
            raise _Outdated
        for stored in counted:
            transaction.use_resource(stored)
        for event in events:
            append(transaction, event, now=self._state.now())

    def _identify(
        self,
        credentials: Credentials,
        session: Session | None,
        tenant: str,
        store_id: bytes,
        now: datetime,
    ) -> AttestedGuest:
        """The guest, to a tenant. A good session goes before a bearer token, as with Trustee."""
        if session is not None:
            return self._state.guest_tokens.check(session.token, now=now)
        bearer = _bearer_of(credentials)
        return self._state.guest_of(bearer, tenant, now=now, store_id=store_id)

    def _check_judges(self, guest: AttestedGuest) -> None:
        for one in guest.accepted:
            if not isinstance(one, Accepted):
                continue  # of passports the table says it
            if one.tee not in self._state.verifiers:
                raise Refusal("PolicyDeny", f"the TEE '{one.tee}' is not taken any more")
            if one.judge != self._state.judges[one.tee]:
                # Before this start somebody was believed who had the seed of a root for tests, or
                # whom an appraisal policy let pass that is not in force any more.
                raise Refusal(
                    "TokenVerifierError", "the evidence was accepted under other roots or settings"
                )

    async def _judge_one(self, seen: _Seen, case: _Case, one: Accepted | Vouched) -> _Judged:
        if isinstance(one, Vouched) and one.appraisal is not None:
            return _Judged(one, one.appraisal, one.appraisal)
        claims, rules = one.claims, case.rules
        assert claims is not None  # one of the two is there
        appraisal = rules.appraise(claims, now=seen.now)
        _check_counts(appraisal)
        text = rules.attestation.get(claims.tee_class)
        if text is None:
            return _Judged(one, appraisal, appraisal)
        references, expired = reference_inputs(rules.references.values(), now=seen.now)
        evidence = case.guest.evidence_of(one)
        worth = await self._state.engine.appraise(
            case.tenant,
            text,
            input=attestation_input(claims, evidence, expired=expired, now=seen.now),
            references=references,
        )
        _check_asked(worth.fault)
        return _Judged(one, worth, None, worth.fault)

    async def _decide(
        self, seen: _Seen, case: _Case, asked: Asked, path_text: str
    ) -> tuple[StoredResource, str]:
        """The resource, and the rule that allows it."""
        guest, judged = case.guest, case.judged
        self._check_judges(guest)  # step 2
        path = parse_path(path_text)  # step 3
        image = _parse_image(asked.images)
        if path_text not in seen.found:  # step 4
            raise_missing(path)
        found = seen.found[path_text]
        _check_ends(found.stored, seen.now)
        policy = self._state.policy(case.rules)
        if not judged:
            judged.extend([await self._judge_one(seen, case, one) for one in guest.accepted])
        if not case.is_known:  # then what it says is nobody's word
            image = None
        if image is not None:
            _check_named(image, found)
        if isinstance(policy, ResourcePolicy):
            rule = _ask_table(policy, case, path, image, found)
        else:
            facts = ResourceFacts(
                now=seen.now,
                image=image,
                init_data=_init_data_of(guest),
                bindings=_bindings(found),
            )
            worth = {name: each.worth for each in judged for name in each.one.submods}
            shown = resource_input(guest.claims, worth, facts)
            data = request_data(path, asked.query)
            rule = await self._ask(case.tenant, policy, shown, data)
        if image not in found.bound:
            _check_unnamed(found, rule)
        return found.stored, rule

    async def _ask(
        self, tenant: str, policy: RegoPolicy, seen: JSONObject, data: JSONObject
    ) -> str:
        """The rule of a policy in Rego that allows it."""
        decision = await self._state.engine.decide(tenant, policy.text, input=seen, data=data)
        if decision.allow:
            return decision.rule
        _check_asked(decision.fault)
        told = decision.reason or "the policy does not allow it"
        if decision.fault:
            raise Refusal("PolicyDeny", f"the policy gave no answer: {decision.fault}", told=told)
        detail = f"rule '{decision.rule}' denies it" if decision.rule else "no rule allows it"
        raise Refusal("PolicyDeny", detail, rule=decision.rule, told=f"{detail}: {told}")

    def _seal(self, stored: StoredResource, guest: AttestedGuest) -> bytes:
        secret = self._state.sealer.open(
            stored.sealed, kind=RESOURCE_KIND, name=str(stored.path), version=stored.version
        )
        with secret:
            return seal_answer(secret, guest.tee_pubkey)


def _path_of(text: str) -> ResourcePath | None:
    try:
        return parse_resource_path(text)
    except FormatError:
        return None


def _image_of(images: Sequence[str]) -> Digest | None:
    try:
        return _parse_image(images)
    except Refusal:
        return None


def _find(
    transaction: Transaction,
    path: ResourcePath,
    image: Digest | None,
    case: _Case,
    now: datetime,
) -> _Found | None:
    stored, rules = transaction.find_resource(path), case.rules
    if stored is None:
        return None
    floor = rules.floors.get(path.repository, 0)
    bound = transaction.bound_images(path)
    named = None if image is None else bound.get(image)
    if image is not None and named is None:
        named = transaction.find_image(path.repository, image)
    successor = None
    if named is not None and named.successor is not None:
        known = {one.digest: one for one in transaction.list_images(path.repository)}
        successor = newest_successor(named, known, floor=floor)
    ends = [stored.expires] if stored.expires else []
    approvals = {}
    if rules.asks_for_approvals:
        given: dict[Digest, Sequence[Approval]] = {}
        for digest in bound:
            given |= transaction.approvals(path.repository, digest)
        keys = approving_keys(transaction.admins(case.tenant))
        approvals = {
            digest: len(good_approvals(one, given.get(digest, ()), keys, now=now))
            for digest, one in bound.items()
        }
        ends += [one.until for each in given.values() for one in each]
    return _Found(stored, bound, approvals, floor, named, successor, min(ends, default=0))


def _is_small(found: _Found | None) -> bool:
    return found is not None and found.stored.size + _IMAGE * len(found.bound) <= _SMALL


def _check_ends(stored: StoredResource, now: datetime) -> None:
    if stored.expires and stored.expires <= now.timestamp():
        end = datetime.fromtimestamp(stored.expires, UTC).isoformat()
        raise Refusal(
            "ResourceExpired", f"the time of '{stored.path}' is over", told=f"it ended at {end}"
        )
    if stored.max_uses and stored.uses >= stored.max_uses:
        raise Refusal(
            "ResourceUsedUp",
            f"'{stored.path}' was released as often as it may be",
            told=f"that is {stored.max_uses} times",
        )


def _check_named(image: Digest, found: _Found) -> None:
    try:
        check_named(image, found.named, floor=found.floor, successor=found.successor)
    except ImageDenied as denied:
        raise Refusal(denied.name, str(denied), told=denied.told) from None


def _check_unnamed(found: _Found, rule: str) -> None:
    try:
        check_unnamed(found.bound.values(), floor=found.floor)
    except ImageDenied as denied:
        raise Refusal(denied.name, str(denied), rule=rule, told=denied.told) from None


def _bindings(found: _Found) -> Sequence[Binding]:
    return [
        Binding(
            digest,
            "active" if image.state == "current" else image.state,
            found.approvals.get(digest, 0),
        )
        for digest, image in sorted(found.bound.items())
    ]


def _init_data_of(guest: AttestedGuest) -> JSONObject | None:
    """What its token says of the init data that the evidence of its TEE binds."""
    claims = guest.evidence_of(guest.accepted[0]).get("init_data_claims")
    return claims if isinstance(claims, dict) else None


def _check_asked(fault: str) -> None:
    """Raise where a policy was not even asked: that is no denial, which a guest takes as final."""
    if fault in NOT_ASKED:
        raise Refusal("PolicyUnavailable", f"the policy was not asked: {fault}; try later")


def _check_size(size: int) -> None:
    """Raise where the secrets of one request are more than one may be."""
    if size > MAX_RESOURCE_BYTES:
        raise Refusal(
            "PayloadTooLarge",
            f"expected at most {MAX_RESOURCE_BYTES} bytes of secrets together; ask for fewer",
        )


def _check_counts(appraisal: Appraisal) -> None:
    """Raise if nothing of the claims may be believed now, by this tenant.

    A reference value is there no more, or it is another tenant's. It is no fault of the session:
    to shake hands again would not help.
    """
    try:
        appraisal.check_counts()
    except EvidenceRejected as error:
        refusal = refusal_of(error)
        assert refusal is not None  # it has a step
        raise Refusal("PolicyDeny", refusal.detail, told=refusal.told) from None


def _ask_table(
    policy: ResourcePolicy,
    case: _Case,
    path: ResourcePath,
    image: Digest | None,
    found: _Found,
) -> str:
    """The rule of a table that allows it."""
    unknown = [one for one in case.judged if not one.is_known]
    facts = ReleaseFacts(
        path=path,
        tee=case.guest.tee,
        image=image,
        bindings=frozenset(found.bound),
        is_affirming=not unknown,
        devices=frozenset(one.one.tee for one in case.judged[1:]),
        approvals=0 if image is None else found.approvals.get(image, 0),
    )
    try:
        return policy.decide(facts)
    except NotAffirming as denied:
        raise _unknown_guest(denied, unknown) from None
    except PolicyDenied as denied:
        rule = denied.rule if isinstance(denied, RuleDenied) else ""
        raise Refusal("PolicyDeny", str(denied), rule=rule) from None


def _unknown_guest(denied: NotAffirming, unknown: Sequence[_Judged]) -> Refusal:
    """The refusal of a guest that is not known: the rule for him, the reasons for the owner."""
    told = "; ".join(dict.fromkeys(reason for one in unknown for reason in _reasons(one)))
    for one in unknown:
        if one.appraisal is not None and not one.appraisal.has_references:
            return Refusal(
                "NoReferenceValue",
                f"rule '{denied.rule}' does not apply: this broker has no reference value for the "
                f"TEE '{one.one.tee}'",
                rule=denied.rule,
                told=told,
            )
    return Refusal("PolicyDeny", str(denied), rule=denied.rule, told=told)


def _reasons(one: _Judged) -> Sequence[str]:
    if one.appraisal is not None:
        return [miss.told() for miss in one.appraisal.misses]
    vector = ", ".join(f"{name} {number}" for name, number in one.worth.vector.items() if number)
    said = f"the attestation policy says {one.worth.status} of {one.one.tee}: {vector or 'nothing'}"
    return [f"{said}; it gave no answer: {one.fault}" if one.fault else said]


def _bearer_of(credentials: Credentials) -> str:
    if credentials.bearer is not None:
        return credentials.bearer
    credentials.require()
    raise Refusal("SessionNotFound", "the session is unknown, expired or not attested")


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
