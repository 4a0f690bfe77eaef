# SPDX-License-Identifier: Apache-2.0
"""What the parts of one broker share: store, keys, verifiers, clock and limits."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from imagers.broker.admins import (
    by_admin,
    check_admin_token,
    find_admins,
)
from imagers.broker.audit import AuditEvent, RefusalLimits, append
from imagers.broker.audit_heads import AuditHeads
from imagers.broker.challenges import Challenges
from imagers.broker.clock import SessionTime
from imagers.broker.keeping.rows import Admin
from imagers.broker.keeping.store import Store
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.passports import Passports
from imagers.broker.policy.rego.engine import RegoEngine
from imagers.broker.policy.table import (
    ResourcePolicy,
)
from imagers.broker.refusals import Refusal
from imagers.broker.rules import LastRules
from imagers.broker.tokens import GuestTokens
from imagers.broker.ui.login import Logins
from imagers.errors import LocalError
from imagers.evidence.collateral.directory import CollateralDirectory
from imagers.evidence.plugins import DEVICES
from imagers.model.closing import Closing
from imagers.model.evidence import DeviceVerifier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from imagers.broker.config import BrokerConfig
    from imagers.broker.keeping.rows import StoreRow
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.policy.rego.engine import PolicyEngine
    from imagers.broker.rules import RegoPolicy, Rules
    from imagers.broker.sealing import Sealer
    from imagers.broker.tokens import AttestedGuest
    from imagers.kbs.resources import ResourcePath
    from imagers.model.evidence import Verifier

__all__ = ["SAMPLES", "BrokerState"]

SAMPLES = ("sample", "sampledevice")
"""Whose evidence anybody can make: a TEE, and a device."""

_T = TypeVar("_T")
_log = logging.getLogger("imagers.broker")


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
                path=str(self.config.store_file),
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
