# SPDX-License-Identifier: Apache-2.0
"""Keys of admins and their roles, kept by owners of a tenant, and by operators for all tenants.

    {"name": "alice", "roles": ["writer"], "public_key": base64 of 32 bytes, "tenant": "team-a"}

The caller has checked the role. Whoever is no operator sees and changes those of his own tenant
alone, and none that has the role of one. Each tenant that has an owner keeps one, and the broker an
operator: nobody can lock himself out. A key is of one tenant, so that a token is of one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from imagers.broker.admins import OPERATOR, OWNER, ROLES, Right, by_admin, has_right, shown_admin
from imagers.broker.audit import append
from imagers.broker.keeping.database import Taken
from imagers.broker.keeping.rows import Admin
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.refusals import Refusal
from imagers.broker.tenants import require_tenant
from imagers.kbs.wire import admin_key_id
from imagers.model.base64 import encode_base64
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.state import BrokerState
    from imagers.model.strict_json import JSONObject

__all__ = ["AdminKeys"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_MAX_KEYS = 64  # of one tenant
_MAX_MESSAGE = 4096
_KEY_BYTES = 32


class AdminKeys:
    """The admin keys of one store.

    Threads: safe.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    async def list(self, by: Admin, tenant: str | None) -> bytes:
        """The JSON of those of a tenant.

        Args:
            tenant: None: his own.

        Raises:
            Refusal: it is not his, or there is none.
        """
        wanted = tenant or by.tenant
        _check_reach(by, wanted)

        def look(transaction: Transaction) -> tuple[Admin, ...]:
            require_tenant(transaction, wanted)
            return transaction.admins(wanted)

        found = await self._state.store.read(look)
        return dump_json({"admin_keys": [_told(one) for one in found]})

    async def add(self, by: Admin, body: bytes) -> bytes:
        """One more; returns its JSON.

        Raises:
            FormatError: the message is none.
            Refusal: it is for a tenant that is not his or a role that he may not give; the name or
                the key is taken; or there are too many.
        """
        admin = _parse_admin(body, by.tenant)
        _check_reach(by, admin.tenant)
        _check_roles(by, admin)

        def add(transaction: Transaction) -> None:
            require_tenant(transaction, admin.tenant)
            if len(transaction.admins(admin.tenant)) >= _MAX_KEYS:
                raise Refusal("Conflict", f"expected at most {_MAX_KEYS} admin keys of a tenant")
            transaction.insert_admin(admin)
            self._log(transaction, by, admin, "add")

        try:
            await self._state.change(by, add)
        except Taken:
            raise Refusal(
                "Conflict", f"the name '{admin.name}' is taken in the tenant, or the key in use"
            ) from None
        return dump_json(_told(admin))

    async def remove(self, by: Admin, key_id: str) -> None:
        """Have no such key.

        Raises:
            Refusal: there is none of his tenant, or it is the last of an owner or operator.
        """

        def remove(transaction: Transaction) -> None:
            admin = transaction.find_admin(key_id)
            if admin is None or not (admin.tenant == by.tenant or has_right(by, Right.OPERATE)):
                raise Refusal("ResourceNotFound", f"there is no admin key {key_id[:80]!r}")
            _check_roles(by, admin)
            left = [one for one in transaction.admins(admin.tenant) if one.id != admin.id]
            for role in admin.roles & {OWNER, OPERATOR}:
                if not any(role in one.roles for one in left):
                    raise Refusal(
                        "Conflict",
                        f"the key '{admin.name}' is the last one with the role {role}: add another "
                        "one first",
                    )
            transaction.delete_admin(admin.id)
            self._log(transaction, by, admin, "remove")

        await self._state.change(by, remove)

    def _log(self, transaction: Transaction, by: Admin, admin: Admin, verb: str) -> None:
        """Write it to the rows of the tenant, and to the broker's if its operator did it."""
        detail = f"{verb} {shown_admin(admin)}: {', '.join(sorted(admin.roles))}"
        event = by_admin(by, event="admin-key", detail=detail)
        append(transaction, replace(event, tenant=admin.tenant), now=self._state.now())
        if by.tenant != admin.tenant:
            told = f"tenant {admin.tenant}: {detail}"
            append(transaction, replace(event, tenant="", detail=told), now=self._state.now())


def _check_reach(by: Admin, tenant: str) -> None:
    """Raise the same for a tenant that there is and one that there is not."""
    if tenant != by.tenant and not has_right(by, Right.OPERATE):
        raise Refusal("RoleDenied", "the admin keys of other tenants are for the role operator")


def _check_roles(by: Admin, admin: Admin) -> None:
    """Raise where an operator is made or removed by somebody who is none."""
    if OPERATOR in admin.roles and not has_right(by, Right.OPERATE):
        raise Refusal("RoleDenied", "the role operator is given and taken by operators alone")


def _parse_admin(body: bytes, own: str) -> Admin:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    message = View.parse(body, what="admin key", max_bytes=_MAX_MESSAGE)
    message.only("name", "roles", "public_key", "tenant")
    name = message.text("name")
    if not _NAME.match(name):
        raise message.error(
            f"expected letters, digits, '.', '_', '@' and '-', at most 64, got {name[:80]!r}",
            "name",
        )
    roles = frozenset(message.texts("roles", most=len(ROLES), non_empty=True))
    if unknown := roles - ROLES.keys():
        raise message.error(f"expected {', '.join(ROLES)}, got {min(unknown)[:40]!r}", "roles")
    tenant = message.optional_text("tenant") or own
    if OPERATOR in roles and tenant != DEFAULT_TENANT:
        raise message.error(f"operators are of the tenant '{DEFAULT_TENANT}' alone", "roles")
    raw = message.bytes64("public_key", size=_KEY_BYTES)
    key = Ed25519PublicKey.from_public_bytes(raw)
    return Admin(id=admin_key_id(key), tenant=tenant, name=name, roles=roles, public_key=raw)


def _told(admin: Admin) -> JSONObject:
    return {
        "id": admin.id,
        "tenant": admin.tenant,
        "name": admin.name,
        "roles": [*sorted(admin.roles)],
        "public_key": encode_base64(admin.public_key),
    }
