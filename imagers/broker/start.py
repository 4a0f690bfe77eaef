# SPDX-License-Identifier: Apache-2.0
"""The whole start of a broker, but for listening.

It makes what is missing (state directory, master key, admin key, token key, default policy), checks
what is there, and writes the first audit row. `unsealing` is what of it is about keys.

    state = open_state(BrokerConfig(state_directory=folder))
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from imagers.broker.admins import (
    OPERATOR,
    ROLES,
    shown_admin,
)
from imagers.broker.audit import AuditEvent, append
from imagers.broker.audit_heads import AuditHeads
from imagers.broker.challenges import Challenges
from imagers.broker.clock import SessionTime, is_too_far_back, milliseconds
from imagers.broker.config import ADMIN_PUBLIC_KEY, STORE
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
from imagers.broker.policy.table import (
    DEFAULT_POLICY,
    FORMER_DEFAULT_POLICY,
    MAX_POLICY_BYTES,
    ResourcePolicy,
    parse_policy,
)
from imagers.broker.rules import POLICY
from imagers.broker.state import SAMPLES, BrokerState
from imagers.broker.tokens import GuestTokens, check_issuer, make_signing_key
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
from imagers.evidence.plugins import load_verifier
from imagers.evidence.policy import MAX_POLICY_BYTES as MAX_APPRAISAL_POLICY
from imagers.evidence.policy import AppraisalPolicy, parse_appraisal_policy
from imagers.files import local_errors, read_bounded
from imagers.kbs.wire import admin_key_id
from imagers.model.evidence import DeviceVerifier
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from imagers.broker.config import BrokerConfig
    from imagers.broker.keeping.database import Database
    from imagers.model.evidence import Verifier
    from imagers.model.keys import SecretKey
    from imagers.model.strict_json import View

__all__ = ["Settings", "check_settings", "open_database", "open_state"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_FIRST_ADMIN = "admin"

_log = logging.getLogger("imagers.broker")


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
