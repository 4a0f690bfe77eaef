# SPDX-License-Identifier: Apache-2.0
"""What the parts of one broker share: store, keys, verifiers, clock and limits.

`open_state` is the whole start: it makes what is missing (state directory, master key,
admin key, token key, default policy), checks what is there, and writes the first audit row.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from imagers.broker.admins import (
    OPERATOR,
    ROLES,
    by_admin,
    check_admin_token,
    find_admins,
    shown_admin,
)
from imagers.broker.audit import AuditEvent, RefusalLimits, append
from imagers.broker.audit_heads import AuditHeads
from imagers.broker.challenges import Challenges
from imagers.broker.clock import SessionTime, is_too_far_back, milliseconds
from imagers.broker.keeping.rows import Admin
from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.store import BROKER, Store
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.keyfiles import (
    load_admin_public_key,
    make_admin_key,
    make_state_directory,
)
from imagers.broker.passports import MAX_ISSUERS_BYTES, Passports, parse_issuers
from imagers.broker.policy.rego.engine import RegoEngine
from imagers.broker.policy.table import (
    DEFAULT_POLICY,
    FORMER_DEFAULT_POLICY,
    MAX_POLICY_BYTES,
    ResourcePolicy,
    parse_policy,
)
from imagers.broker.refusals import Refusal
from imagers.broker.rules import POLICY, LastRules
from imagers.broker.tokens import DEFAULT_ISSUER, GuestTokens, check_issuer, make_signing_key
from imagers.broker.ui.login import Logins, make_login_key
from imagers.broker.unsealing import (
    AUDIT_KEY,
    CHALLENGE_KEY,
    LOGIN_KEY,
    TOKEN_KEY,
    check_descriptor,
    make_challenge_key,
    open_sealer,
    own_key,
    unseal,
)
from imagers.errors import FormatError, LocalError, UsageError
from imagers.evidence.collateral.directory import CollateralDirectory
from imagers.evidence.plugins import DEVICES, load_verifier
from imagers.evidence.policy import MAX_POLICY_BYTES as MAX_APPRAISAL_POLICY
from imagers.evidence.policy import AppraisalPolicy, parse_appraisal_policy
from imagers.files import local_errors, read_bounded
from imagers.kbs.wire import admin_key_id
from imagers.model.closing import Closing
from imagers.model.evidence import DeviceVerifier
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from imagers.broker.keeping.database import Database
    from imagers.broker.keeping.rows import StoreRow
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.policy.rego.engine import PolicyEngine
    from imagers.broker.rules import RegoPolicy, Rules
    from imagers.broker.sealing import Sealer
    from imagers.broker.tokens import AttestedGuest
    from imagers.kbs.resources import ResourcePath
    from imagers.model.evidence import Verifier
    from imagers.model.keys import SecretKey
    from imagers.model.strict_json import View

__all__ = ["MAX_SESSIONS", "BrokerConfig", "BrokerState", "check_settings", "open_state"]

ADMIN_KEY = "admin.key"
ADMIN_PUBLIC_KEY = "admin.pub"
MASTER_KEY = "master.key"
NEXT_KEY = "master.next"
STORE = "broker.sqlite"
SAMPLES = ("sample", "sampledevice")
"""Whose evidence anybody can make: a TEE, and a device."""
MAX_SESSIONS = 200_000  # of some 2 KiB of disk each; 333 handshakes a second, for ever
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_FIRST_ADMIN = "admin"

_T = TypeVar("_T")
_log = logging.getLogger("imagers.broker")


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """How one broker is run.

    Attributes:
        state_directory: for the store and the keys; made with mode 0700 if missing.
        database: `postgresql://…` of a store that many brokers share; None: a file in the state
            directory.
        name: of this broker among those that share its store.
        host: address to listen on.
        port: 0 for any free one.
        tees: names of the TEEs to take evidence of.
        appraisal_policy_file: what to let pass of each TEE, and reference values, which are set
            at each start; None: the strict settings.
        collateral_directory: lists of revoked certificates, TCB information and such, by name.
        test_roots: certificates in PEM by the name of a TEE, in place of its vendor's. For tests.
        allow_sample_tee: take evidence that anybody can make. For demonstrations.
        issuer: what this broker is called in its tokens; where it is an https URL, a document of
            OpenID discovery is there.
        passport_issuers_file: whose tokens are taken beside this broker's own; None: nobody's.
        policy_file: resource policy to put in force at the start; None keeps the stored
            one, which at first is "an image's key only for that image and one's own guests".
        certificate_file, certificate_key_file: PEM, for https.
        admin_ca_file: PEM; admins have to show a certificate of these CAs beside their token; None:
            the token is enough.
        unsafe_plain_http: listen without TLS on an address that is not this machine's own.
        trusted_proxies: addresses and networks whose X-Forwarded-For is believed, for the
            shares of places; of anybody else it is not looked at.
        session_lifetime: of a handshake and its token, from its start, never extended.
        master_key_fd: a descriptor that gives the master key, in place of the file; read once.
        accept_older_state: believe a database that is older than one that was seen here.
        max_sessions: attested, at the same time, each kept for its lifetime and the longest
            error of a clock; more are refused with 429.
        max_sessions_of_instance: the same of one machine, for TEEs whose verifier tells
            machines apart.
        stop_timeout_s: how long a stop waits for requests that run.
        clock: gives aware times; tests give their own.
    """

    state_directory: Path
    database: str | None = None
    name: str = BROKER
    host: str = "127.0.0.1"
    port: int = 8080
    tees: tuple[str, ...] = ()
    appraisal_policy_file: Path | None = None
    collateral_directory: Path | None = None
    test_roots: Mapping[str, bytes] = field(default_factory=dict)
    allow_sample_tee: bool = False
    issuer: str = DEFAULT_ISSUER
    passport_issuers_file: Path | None = None
    policy_file: Path | None = None
    certificate_file: Path | None = None
    certificate_key_file: Path | None = None
    admin_ca_file: Path | None = None
    unsafe_plain_http: bool = False
    trusted_proxies: tuple[str, ...] = ()
    master_key_fd: int | None = None
    accept_older_state: bool = False
    session_lifetime: timedelta = timedelta(minutes=5)
    max_sessions: int = MAX_SESSIONS
    max_sessions_of_instance: int = 256
    stop_timeout_s: int = 30
    clock: Callable[[], datetime] = field(default=_utc_now, compare=False)

    @property
    def admin_key_file(self) -> Path:
        """Where the first start writes the admin's private key."""
        return self.state_directory / ADMIN_KEY

    @property
    def master_key_file(self) -> Path:
        """Where the first start writes the master key."""
        return self.state_directory / MASTER_KEY

    @property
    def store_file(self) -> Path:
        """Where the store is, unless it is in a database of its own."""
        return self.state_directory / STORE

    @property
    def next_key_file(self) -> Path:
        """Where the next master key is while it is rotated."""
        return self.state_directory / NEXT_KEY


@dataclass(frozen=True, slots=True)
class BrokerState(Closing):
    """An open broker, not yet listening.

    Attributes:
        judges: by name of a TEE, a digest of the roots and settings of its verifier.
        engine: judges by policies in Rego; who runs the broker closes it in its event loop.
        devices: the verifiers of devices, which count beside a TEE.
        admin_key_made: the admin key file, if this start made it.
        master_key_made: the master key file, if this start made it.
        refusals: bound the audit rows of refusals.
    """

    config: BrokerConfig
    store: Store
    sealer: Sealer
    challenges: Challenges
    session_time: SessionTime
    guest_tokens: GuestTokens
    audit_heads: AuditHeads
    logins: Logins
    passports: Passports
    verifiers: Mapping[str, Verifier[Any]]
    judges: Mapping[str, str]
    devices: Mapping[str, DeviceVerifier[Any]]
    admin_key_made: Path | None
    master_key_made: Path | None
    refusals: RefusalLimits = field(default_factory=RefusalLimits)
    engine: PolicyEngine = field(default_factory=RegoEngine)
    last_rules: LastRules = field(default_factory=LastRules)

    def now(self) -> datetime:
        """The time, by the broker's clock."""
        return self.config.clock()

    def session_now(self, row: StoreRow) -> datetime:
        """The time that sessions and their tokens are judged by; see `SessionTime`."""
        return datetime.fromtimestamp(self.session_time.now_ms(row.seen_ms) / 1000, UTC)

    async def admin_of(self, token: str | None) -> Admin:
        """The admin whose token it is.

        Raises:
            Refusal: nobody's.
        """
        if token is None:
            raise Refusal("AdminAuthAccess", "the request has no token of an admin")
        found = await self.store.read(
            lambda transaction: find_admins(transaction, token, self.last_rules)
        )
        return check_admin_token(token, found, now=self.now())

    def log_in(self, by: Admin) -> str:
        """The cookie of an admin who has shown a token."""
        return self.logins.issue(by.id, now_ms=self.session_time.now_ms())

    async def find_logged_in(self, cookie: str | None) -> Admin | None:
        """The admin of a cookie, as the store has him now."""
        if cookie is None:
            return None

        def look(transaction: Transaction) -> Admin | None:
            now_ms = self.session_time.now_ms(transaction.store_row().seen_ms)
            key_id = self.logins.check(cookie, now_ms=now_ms)
            return None if key_id is None else transaction.find_admin(key_id)

        return await self.store.read(look)

    async def change(self, by: Admin, work: Callable[[Transaction], _T]) -> _T:
        """As `Store.change`, by an admin who still is the same when it is done.

        Raises:
            Refusal: he is not.
        """

        def run(transaction: Transaction) -> _T:
            if transaction.find_admin(by.id) != by:
                raise Refusal("AdminAuthAccess", "the admin key was removed or changed meanwhile")
            return work(transaction)

        return await self.store.change(run)

    def guest_of(
        self, token: str, tenant: str, *, now: datetime, store_id: bytes | None = None
    ) -> AttestedGuest:
        """The guest of a bearer token: of this broker, or of an issuer that the tenant lists.

        Args:
            store_id: see `GuestTokens.check`.

        Raises:
            Refusal: it is neither, or not good.
        """
        if not self.passports or self.guest_tokens.is_named_in(token):
            return self.guest_tokens.check(token, now=now, store_id=store_id)
        return self.passports.check(token, tenant=tenant, now=now)

    def rules(self, transaction: Transaction, tenant: str = DEFAULT_TENANT) -> Rules:
        """The rules in force for a tenant in the state that a transaction sees.

        Each look is also how a broker comes to know that another one has begun the store again.
        """
        if not transaction.is_alone:
            self.challenges.store_id = transaction.store_row().id
        return self.last_rules.of(transaction, tenant)

    def owner_of(self, transaction: Transaction, path: ResourcePath) -> str:
        """The tenant that owns the repository of a path, in that state."""
        return self.last_rules.owner_of(transaction, path.repository)

    def policy(self, rules: Rules) -> ResourcePolicy | RegoPolicy:
        """The policy of the rules.

        Raises:
            LocalError: the stored one was damaged; nothing is released then.
        """
        if rules.policy is None:
            raise LocalError(
                f"the stored policy is damaged: {rules.fault}",
                path=str(self.config.state_directory / STORE),
                hint="put one in force again: 'imagers broker policy set'",
            )
        return rules.policy

    def why_nothing_is_released(self) -> str:
        """Why no guest can get anything, whatever it proves; "" if one may."""
        devices = self.devices.keys() | (self.passports.tees & DEVICES.keys())
        tees = (self.verifiers.keys() | self.passports.tees) - devices
        if not tees and devices:
            return "it takes evidence of devices, and of no TEE beside which they count"
        if not tees:
            return "it takes evidence of no TEE"
        faults = []
        with self.store.reading() as transaction:
            for tenant in transaction.tenants():
                try:
                    policy = self.policy(self.rules(transaction, tenant))
                except LocalError as error:  # it starts all the same: an admin has to put it right
                    faults.append(str(error))
                    continue
                if not isinstance(policy, ResourcePolicy) or any(
                    rule.effect == "allow"
                    and (not rule.tees or rule.tees & tees)
                    and rule.devices <= devices
                    for rule in policy.rules
                ):
                    return ""
        return min(faults, default="its policy allows nothing to guests of these TEEs and devices")

    def tees_without_references(self) -> Mapping[str, tuple[str, ...]]:
        """The TEEs no guest of which can be known as one's own: no reference value is set.

        By name of the TEE, the names of the values that are missing, for the way that is nearest.
        """
        with self.store.reading() as transaction:
            tenants = transaction.tenants()
            names = {name for one in tenants for name in self.rules(transaction, one).references}
        missing = {
            tee: min(
                (tuple(name for name in way if name not in names) for way in verifier.references),
                key=len,
                default=("none is known",),
            )
            for tee, verifier in self.verifiers.items()
            if tee not in SAMPLES
        }
        return {tee: way for tee, way in missing.items() if way}

    def read_collateral(self, name: str) -> bytes | None:
        """A document by its name, or None; nothing of it is verified."""
        directory = self.config.collateral_directory
        return None if directory is None else CollateralDirectory(directory).read(name)

    async def log_refusal(self, event: AuditEvent, *, caller: str, attested: bool = False) -> None:
        """Write the row of a refusal, if the minute has room for it.

        Args:
            caller: who it was, as far as is known: an address or a session's name.
            attested: whether he proved what he is; else it is an address.
        """
        now = self.now()
        if not attested:
            event = replace(event, client=caller)
        left_out = self.refusals.admit(event, now, caller, attested=attested)
        if left_out is None:
            return
        if left_out:
            event = replace(
                event, detail=f"{event.detail} ({left_out} refusals before it left out)"
            )
        row = event
        await self.store.write(lambda transaction: append(transaction, row, now=now))

    async def log_denied(self, by: Admin, detail: str, *, path: str = "") -> None:
        """The same for an admin, who has no right to what he asks for."""
        event = by_admin(by, event="admin", outcome="refused", path=path, detail=detail)
        await self.log_refusal(event, caller=by.id, attested=True)

    def close(self) -> None:
        """Write what was left out of the audit log, and close the store. Safe to call twice."""
        try:
            for tenant, left_out in self.refusals.take_left_out().items():
                detail = f"{left_out} refusals before it left out"
                event = AuditEvent(event="stop", outcome="ok", tenant=tenant, detail=detail)
                with self.store.transaction() as transaction:
                    append(transaction, event, now=self.now())
        finally:
            self.store.close()


def open_state(config: BrokerConfig) -> BrokerState:
    """A broker that is ready to listen.

    Raises:
        LocalError: state directory, key files or store cannot be used as they are.
        FormatError: the policy file is none.
        UsageError: the sample TEE is named without being allowed, or the issuer is none.
        PluginError: a verifier is missing or broken.
    """
    settings = check_settings(config)
    make_state_directory(config.state_directory)
    database = open_database(config.state_directory, config.database, name=config.name)
    store = Store(database, config.name)
    try:
        return _open_in(config, store, settings)
    except BaseException:
        store.close()
        raise


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration names beside the state, read."""

    appraisal: AppraisalPolicy
    verifiers: Mapping[str, Verifier[Any]]
    policy: ResourcePolicy | None
    passports: Passports


def check_settings(config: BrokerConfig) -> Settings:
    """What the configuration names beside the state; nothing is made. Raises as `open_state`."""
    check_issuer(config.issuer)
    check_descriptor(config)
    if not _NAME.match(config.name):
        raise UsageError(
            "--name: expected a name of letters, digits, '.', '_' and '-', "
            f"got {config.name[:80]!r}"
        )
    appraisal = _read_appraisal_policy(config.appraisal_policy_file)
    verifiers = _load_verifiers(config, appraisal.settings)
    passports = _read_passport_issuers(config)
    policy = _read_policy(config.policy_file) if config.policy_file is not None else None
    if config.collateral_directory is not None and not config.collateral_directory.is_dir():
        raise LocalError("is no directory of collateral", path=str(config.collateral_directory))
    return Settings(appraisal, verifiers, policy, passports)


def open_database(state_directory: Path, url: str | None, *, name: str = BROKER) -> Database:
    """The database of a broker; nothing is in it until a store is opened.

    Args:
        url: of PostgreSQL; None: a file in the state directory.
        name: of the broker.

    Raises:
        LocalError: it cannot be reached, is open to others, or the extra is not installed.
        UsageError, FormatError: the URL has a password, or is none.
    """
    if url is None:
        return SQLiteDatabase(state_directory / STORE)
    try:
        from imagers.broker.keeping.postgresql import PostgreSQLDatabase
    except ImportError:
        raise LocalError(
            "a store in PostgreSQL needs the extra 'postgresql'",
            hint="in the clone of imagers: pip install '.[broker,postgresql]'",
        ) from None
    return PostgreSQLDatabase(url, name)


def _open_in(
    config: BrokerConfig,
    store: Store,
    settings: Settings,
) -> BrokerState:
    appraisal, verifiers, policy = settings.appraisal, settings.verifiers, settings.policy

    sealer, master_made = open_sealer(config, store)
    unsealed = unseal(config, store, sealer)
    with own_key(store, sealer, TOKEN_KEY, make_signing_key) as private:
        guest_tokens = GuestTokens(private, issuer=config.issuer)
    with own_key(store, sealer, AUDIT_KEY, make_signing_key) as private:
        audit_heads = AuditHeads(private, clock=config.clock)
    with own_key(store, sealer, LOGIN_KEY, make_login_key) as key:
        logins = Logins(key)
    with own_key(store, sealer, CHALLENGE_KEY, make_challenge_key) as secret:
        challenges, session_time = _open_sessions(store, secret, config.clock)
    admin_made, enrolled = _enrol_admin(config, store)
    state = BrokerState(
        config=config,
        store=store,
        sealer=sealer,
        challenges=challenges,
        session_time=session_time,
        guest_tokens=guest_tokens,
        audit_heads=audit_heads,
        logins=logins,
        passports=settings.passports,
        verifiers=verifiers,
        judges={name: _judge(config, appraisal, name) for name in verifiers},
        devices={name: one for name, one in verifiers.items() if isinstance(one, DeviceVerifier)},
        admin_key_made=config.admin_key_file if admin_made else None,
        master_key_made=config.master_key_file if master_made else None,
    )
    store.before_commit = audit_heads.keep
    with store.transaction() as transaction:
        if policy is None and transaction.get_policy(DEFAULT_TENANT, POLICY) in (
            None,
            FORMER_DEFAULT_POLICY.encode(),
        ):
            policy = parse_policy(DEFAULT_POLICY)
        if policy is not None:
            transaction.set_policy(DEFAULT_TENANT, POLICY, policy.text.encode())
        for one in appraisal.references:
            transaction.set_reference_value(DEFAULT_TENANT, one)
        detail = f"TEEs: {', '.join(sorted(verifiers)) or 'none'}{enrolled}"
        if unsealed.older is not None:
            detail += f"; older state accepted: change {unsealed.older}"
        if appraisal.references:
            names = ", ".join(one.name for one in appraisal.references)
            detail += f"; reference values from {config.appraisal_policy_file}: {names}"
        if config.test_roots:
            detail += f"; test roots: {', '.join(sorted(config.test_roots))}"
        if config.passport_issuers_file is not None:
            detail += f"; passport issuers from {config.passport_issuers_file}"
        if config.policy_file is not None:
            detail += f"; policy from {config.policy_file}"
        append(transaction, AuditEvent(event="start", outcome="ok", detail=detail), now=state.now())
    for tee in sorted(config.test_roots):
        _log.warning(
            "certificates for tests stand for the vendor's of the TEE %s: it proves nothing",
            tee,
        )
    if config.allow_sample_tee:
        _log.warning(
            "the sample TEE is allowed: anybody who reaches this broker can attest; "
            "use it for demonstrations only"
        )
    return state


def _enrol_admin(config: BrokerConfig, store: Store) -> tuple[bool, str]:
    """Let there be an admin who may do all: whether his key was made now, and what the log says.

    It is that of the state directory, unless the store has one that another broker made. Where
    both of its files are gone, it is replaced: nobody has it any more, or somebody else.
    """
    public_key_file = config.state_directory / ADMIN_PUBLIC_KEY
    is_there = public_key_file.exists() or public_key_file.is_symlink()
    with store.transaction() as transaction:
        admins = transaction.admins(DEFAULT_TENANT)
        has_operator = any(OPERATOR in one.roles for one in admins)
        if has_operator and (is_there or config.database is not None):
            return False, ""
        made = make_admin_key(config.admin_key_file, public_key_file)
        key = load_admin_public_key(public_key_file)
        first = Admin(
            id=admin_key_id(key),
            tenant=DEFAULT_TENANT,
            name=_FIRST_ADMIN,
            roles=frozenset(ROLES),
            public_key=key.public_bytes_raw(),
        )
        for earlier in admins:
            if earlier.name == first.name:
                transaction.delete_admin(earlier.id)
        transaction.delete_admin(first.id)
        transaction.insert_admin(first)
    return made, f"; admin key '{shown_admin(first)}' has all roles"


def _open_sessions(
    store: Store, secret: SecretKey, clock: Callable[[], datetime]
) -> tuple[Challenges, SessionTime]:
    with store.transaction() as transaction:
        row, now = transaction.store_row(), clock()
        if is_too_far_back(milliseconds(now), row.seen_ms):
            # Which of the two times was wrong is not known. With another id, nothing that was
            # given out before is taken.
            transaction.begin_again(milliseconds(now))
            detail = "the clock went back: all sessions were ended, and time begins again"
            append(transaction, AuditEvent(event="start", outcome="ok", detail=detail), now=now)
            row = transaction.store_row()
    with secret.view() as data:
        return Challenges(bytes(data), row.id), SessionTime(clock, row.seen_ms)


def _load_verifiers(
    config: BrokerConfig, settings: Mapping[str, View]
) -> Mapping[str, Verifier[Any]]:
    names = dict.fromkeys(config.tees)
    if names.keys() & set(SAMPLES) and not config.allow_sample_tee:
        raise UsageError(
            "the sample TEE proves nothing and is not taken",
            hint="for a demonstration, say --allow-sample-tee",
        )
    if config.allow_sample_tee:
        names |= dict.fromkeys(SAMPLES)
    for what, told in (("test roots", config.test_roots), ("an appraisal policy", settings)):
        if others := told.keys() - names:
            raise UsageError(f"{what} for the TEE {min(others)!r}, which is not taken")
    return {
        name: load_verifier(name, settings=settings.get(name), roots=config.test_roots.get(name))
        for name in names
    }


def _judge(config: BrokerConfig, appraisal: AppraisalPolicy, tee: str) -> str:
    """A digest of the roots and settings of a verifier."""
    settings = appraisal.settings.get(tee)
    told = dump_json({} if settings is None else settings.value)
    return sha256(sha256(config.test_roots.get(tee, b"")).digest() + told).hexdigest()


def _read_appraisal_policy(path: Path | None) -> AppraisalPolicy:
    if path is None:
        return AppraisalPolicy({}, ())
    doing = "the appraisal policy cannot be read"
    data = read_bounded(path, max_bytes=MAX_APPRAISAL_POLICY, doing=doing)
    return parse_appraisal_policy(data, what=str(path))


def _read_passport_issuers(config: BrokerConfig) -> Passports:
    path = config.passport_issuers_file
    if path is None:
        return Passports()

    def read(name: str) -> bytes:
        doing = f"a file of {path} cannot be read"
        return read_bounded(path.parent / name, max_bytes=MAX_ISSUERS_BYTES, doing=doing)

    doing = "the passport issuers cannot be read"
    data = read_bounded(path, max_bytes=MAX_ISSUERS_BYTES, doing=doing)
    return parse_issuers(data, what=str(path), read=read, allow_sample=config.allow_sample_tee)


def _read_policy(path: Path) -> ResourcePolicy:
    with local_errors(path, "the policy cannot be read"), path.open("rb") as file:
        data = file.read(MAX_POLICY_BYTES + 1)
    try:
        return parse_policy(data.decode())
    except UnicodeDecodeError:
        raise FormatError("is not UTF-8", what=str(path)) from None
