# SPDX-License-Identifier: Apache-2.0
"""Tenants and who owns which repository, kept by operators. The caller has checked the role.

A repository that was given to nobody is the tenant `default`'s. It is handed over only while
nothing is kept in it: what a tenant put there is released by that tenant's policy, or not at all.
The name of a tenant that is gone is not given again, since rows of the audit log have it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from imagers.broker.admins import by_admin
from imagers.broker.audit import append
from imagers.broker.keeping.database import Taken
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.policy.table import DEFAULT_POLICY
from imagers.broker.refusals import Refusal
from imagers.broker.rules import POLICY
from imagers.kbs.resources import is_repository
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from imagers.broker.keeping.rows import Admin
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.state import BrokerState

__all__ = ["Tenants", "require_tenant"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
_MAX_TENANTS = 256
_MAX_REPOSITORIES = 1000  # of one tenant
_MAX_MESSAGE = 4096


class Tenants:
    """The tenants of one store.

    Threads: safe.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    async def list(self) -> bytes:
        """The JSON of all of them: their repositories, and how many admin keys."""

        def look(transaction: Transaction) -> bytes:
            owners, admins = transaction.owners(), transaction.admins()
            keys = Counter(one.tenant for one in admins)
            return dump_json(
                {
                    "tenants": [
                        {
                            "name": name,
                            "repositories": [one for one in owners if owners[one] == name],
                            "admin_keys": keys[name],
                        }
                        for name in transaction.tenants()
                    ]
                }
            )

        return await self._state.store.read(look)

    async def add(self, by: Admin, name: str) -> None:
        """A new tenant, with the default policy, no reference values and no admin key.

        Raises:
            Refusal: the name is none or was taken once, or there are too many.
        """
        if not _NAME.match(name):
            raise Refusal(
                "SerdeError",
                f"expected a tenant's name of lower-case letters, digits and '-', at most 64, "
                f"got {name[:80]!r}",
            )

        def add(transaction: Transaction) -> None:
            if len(transaction.tenants()) >= _MAX_TENANTS:
                raise Refusal("Conflict", f"expected at most {_MAX_TENANTS} tenants")
            transaction.insert_tenant(name)
            transaction.set_policy(name, POLICY, DEFAULT_POLICY.encode())
            self._log(transaction, by, name, "add")

        try:
            await self._state.change(by, add)
        except Taken:
            raise Refusal(
                "Conflict", f"there is, or was, a tenant '{name}'; names are not given again"
            ) from None

    async def remove(self, by: Admin, name: str) -> None:
        """Let a tenant be gone, with its admin keys, policy and reference values.

        Raises:
            Refusal: there is none, it still has secrets, or it is the default one.
        """
        if name == DEFAULT_TENANT:
            raise Refusal("Conflict", f"the tenant '{name}' is always there")

        def remove(transaction: Transaction) -> None:
            require_tenant(transaction, name)
            for repository, owner in transaction.owners().items():
                if owner == name:
                    _check_unused(transaction, repository)
            transaction.delete_tenant(name)
            self._log(transaction, by, name, "remove")

        await self._state.change(by, remove)

    async def assign(self, by: Admin, repository: str, body: bytes) -> None:
        """Give a repository to a tenant: `{"tenant": "team-a"}`.

        Raises:
            FormatError: the message is none.
            Refusal: there is no such tenant, the name is none, or something is kept in it.
        """
        tenant = View.parse(body, what="owner", max_bytes=_MAX_MESSAGE).text("tenant")
        if not is_repository(repository):
            raise Refusal(
                "SerdeError",
                "expected a repository's name of letters, digits, '_', '-' and '.', "
                f"got {repository[:80]!r}",
            )

        def assign(transaction: Transaction) -> None:
            require_tenant(transaction, tenant)
            before = transaction.owner_of(repository)
            if before == tenant:
                return
            _check_unused(transaction, repository)
            if transaction.knows_images(repository):
                # What was revoked stays so, and whose images they are is nobody else's.
                raise Refusal(
                    "Conflict",
                    f"the repository '{repository}' knows images: it changes hands no more",
                )
            owners = transaction.owners()
            if tenant != DEFAULT_TENANT and Counter(owners.values())[tenant] >= _MAX_REPOSITORIES:
                raise Refusal("Conflict", f"expected at most {_MAX_REPOSITORIES} repositories")
            transaction.set_owner(repository, tenant)
            for of, verb in ((before, "take"), (tenant, "give")):
                self._log(transaction, by, of, f"{verb} repository {repository}")

        await self._state.change(by, assign)

    def _log(self, transaction: Transaction, by: Admin, tenant: str, detail: str) -> None:
        """Write what an operator did with a tenant: to the broker's rows and its own.

        What the default tenant has is what nobody else does: its rows would name theirs.
        """
        event = by_admin(by, event="tenant", detail=f"tenant {tenant}: {detail}")
        for of in ("", tenant):
            if of != DEFAULT_TENANT:
                append(transaction, replace(event, tenant=of), now=self._state.now())


def require_tenant(transaction: Transaction, name: str) -> None:
    """Raise unless there is such a tenant.

    Raises:
        Refusal: `ResourceNotFound`.
    """
    if name not in transaction.tenants():
        raise Refusal("ResourceNotFound", f"there is no tenant {name[:80]!r}")


def _check_unused(transaction: Transaction, repository: str) -> None:
    if transaction.has_secrets(repository):
        raise Refusal(
            "Conflict",
            f"the repository '{repository}' has secrets, or former ones: its owner deletes them "
            "permanently first",
        )
