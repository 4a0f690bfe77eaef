# SPDX-License-Identifier: Apache-2.0
"""Who administrates, and what of it: tokens of admins, and what each role may.

    owner      all of his tenant: its secrets, policies, reference values, audit log, admin keys
    writer     puts, deletes and binds secrets of his tenant, and sees what there are
    auditor    sees all of it but the values of secrets, and changes nothing
    operator   of the tenant `default`: tenants, who owns which repository, the admin keys of all,
               and the broker's own rows of the audit log; nothing that a tenant keeps

A token names its key by `kid`, as `imagers.kbs.admin` writes it. One without, such as that of
Trustee's client, can be of an admin of the tenant `default` alone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from imagers.broker.audit import AuditEvent
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.refusals import Refusal
from imagers.errors import ImagersError, SignatureInvalid
from imagers.pki.jose import parse_token, verify_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from imagers.broker.audit import Event, Outcome
    from imagers.broker.keeping.rows import Admin
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.rules import LastRules
    from imagers.model.strict_json import View

__all__ = [
    "OPERATOR",
    "OWNER",
    "ROLES",
    "Right",
    "approving_keys",
    "by_admin",
    "check_admin_token",
    "find_admins",
    "has_right",
    "require_right",
    "shown_admin",
]

OWNER, OPERATOR = "owner", "operator"
_WHAT = "admin token"
_LEEWAY = timedelta(seconds=30)  # between the clocks of an admin and the broker
_LONGEST = timedelta(minutes=10)
_SHOWN_DIGITS = 12
_KEY_ID = re.compile(r"[0-9a-f]{64}\Z")


class Right(Enum):
    """What an admin may do with what his tenant has; the last: with the broker."""

    SEE = "see secrets"
    WRITE = "change secrets"
    READ = "read policies, reference values and the audit log"
    RULE = "change policies and reference values"
    APPOINT = "change admin keys"
    OPERATE = "operate the broker"


ROLES: Mapping[str, frozenset[Right]] = {
    OWNER: frozenset(Right) - {Right.OPERATE},
    "writer": frozenset({Right.SEE, Right.WRITE}),
    "auditor": frozenset({Right.SEE, Right.READ}),
    OPERATOR: frozenset({Right.OPERATE}),
}
"""The rights of each role."""


def has_right(admin: Admin, right: Right) -> bool:
    """Whether one of his roles has it."""
    return any(right in ROLES[role] for role in admin.roles)


def require_right(admin: Admin, *rights: Right) -> None:
    """Raise unless he has one of them.

    Raises:
        Refusal: `RoleDenied`.
    """
    if not any(has_right(admin, right) for right in rights):
        wanted = [name for name, of in ROLES.items() if of & set(rights)]
        raise Refusal(
            "RoleDenied",
            f"to {rights[0].value} is for the role {' or '.join(wanted)}: the key "
            f"'{admin.name}' has {', '.join(sorted(admin.roles))}",
        )


def approving_keys(admins: Iterable[Admin]) -> Mapping[str, bytes]:
    """By their ids, the keys of those whose approval of an image counts."""
    return {one.id: one.public_key for one in admins if has_right(one, Right.WRITE)}


def shown_admin(admin: Admin) -> str:
    """How rows of the audit log name him: a name can be given again, a key can not."""
    return f"{admin.name} {admin.id[:_SHOWN_DIGITS]}"


def by_admin(
    admin: Admin,
    *,
    event: Event,
    outcome: Outcome = "ok",
    path: str = "",
    image: str = "",
    detail: str = "",
) -> AuditEvent:
    """What he did, or was refused, as a row of his tenant."""
    return AuditEvent(
        event=event,
        outcome=outcome,
        tenant=admin.tenant,
        path=path,
        image=image,
        admin=shown_admin(admin),
        detail=detail,
    )


def find_admins(transaction: Transaction, token: str, last: LastRules) -> Sequence[Admin]:
    """Those whose token it may be. Nothing of it is verified.

    Args:
        last: remembers who they are: anybody may send a token.

    Raises:
        Refusal: it is no token.
    """
    try:
        key_id = parse_token(token, what=_WHAT).header.optional_text("kid")
    except ImagersError as error:
        raise Refusal("AdminAuthAccess", str(error)) from None
    if key_id is None:
        return last.admins_of(transaction, DEFAULT_TENANT)
    found = transaction.find_admin(key_id) if _KEY_ID.match(key_id) else None
    return () if found is None else (found,)


def check_admin_token(token: str, admins: Sequence[Admin], *, now: datetime) -> Admin:
    """Whose key signed it, a short while ago and for a short while.

    Raises:
        Refusal: nobody's of these.
    """
    try:
        admin, payload = _verified(token, admins)
        issued, expires = _time(payload, "iat"), _time(payload, "exp")
        not_before = _time(payload, "nbf") if "nbf" in payload else issued
        role = payload.optional_text("role")
    except ImagersError as error:
        raise Refusal("AdminAuthAccess", str(error)) from None
    if role != "admin":
        raise Refusal("AdminAuthAccess", f"{_WHAT}: expected the role 'admin'")
    if expires - issued > _LONGEST:
        raise Refusal("AdminAuthAccess", f"{_WHAT}: expected one for at most {_LONGEST.seconds} s")
    if max(issued, not_before) > now + _LEEWAY:
        raise Refusal("AdminAuthAccess", f"{_WHAT}: is from the future; do the clocks agree?")
    if expires + _LEEWAY <= now:
        raise Refusal("AdminAuthAccess", f"{_WHAT}: has expired; do the clocks agree?")
    return admin


def _verified(token: str, admins: Sequence[Admin]) -> tuple[Admin, View]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    refused = SignatureInvalid(f"{_WHAT}: its key is none of an admin here")
    for admin in admins:
        key = Ed25519PublicKey.from_public_bytes(admin.public_key)
        try:
            return admin, verify_token(token, key=key, what=_WHAT)
        except SignatureInvalid as error:
            refused = error
    raise refused


def _time(payload: View, name: str) -> datetime:
    latest = 253_402_300_799  # 9999-12-31T23:59:59Z, the last that datetime knows
    return datetime.fromtimestamp(payload.integer(name, maximum=latest), UTC)
