# SPDX-License-Identifier: Apache-2.0
"""Tenants of a broker, who owns which repository, and the admin keys of each.

    with BrokerAdmin(url, key_file="admin.key", http=settings) as admin:
        tenants = TenantAdmin(admin)
        tenants.add("team-a")
        tenants.assign("team-a", "app-a")
        tenants.add_key("alice", ["owner"], load_admin_public_key("alice.pub"), tenant="team-a")

Tenants and repositories are an operator's; admin keys are that too, and those of his own tenant an
owner's. All of it is an extension of our own broker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from imagers.errors import FormatError, UsageError
from imagers.files import read_bounded
from imagers.model.base64 import encode_base64
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from imagers.kbs.admin import BrokerAdmin
    from imagers.model.strict_json import JSONObject

__all__ = ["AdminKey", "Tenant", "TenantAdmin", "load_admin_public_key", "parse_admin_public_key"]

_MAX_ANSWER = 16 * 1024 * 1024
_MAX_KEY_FILE = 64 * 1024
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\Z")
_LIST_TENANTS = "'imagers broker tenant list' shows what it has"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant.

    Attributes:
        repositories: that were given to it; the tenant `default` has all others.
        admin_keys: how many.
    """

    name: str
    repositories: tuple[str, ...]
    admin_keys: int


@dataclass(frozen=True, slots=True)
class AdminKey:
    """The key of an admin.

    Attributes:
        id: SHA-256 of the public key, in hex.
        roles: of `owner`, `writer`, `auditor`, `operator`; sorted.
    """

    id: str
    tenant: str
    name: str
    roles: tuple[str, ...]


def load_admin_public_key(path: str | os.PathLike[str]) -> Ed25519PublicKey:
    """An Ed25519 public key from a PEM file.

    Raises:
        LocalError: no such file, or it cannot be read.
        FormatError: no such key in it.
    """
    data = read_bounded(path, max_bytes=_MAX_KEY_FILE, doing="the public key cannot be read")
    return parse_admin_public_key(data, what=str(path))


def parse_admin_public_key(data: bytes, *, what: str) -> Ed25519PublicKey:
    """An Ed25519 public key in PEM.

    Raises:
        FormatError: it is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise FormatError(
            "expected a PEM file with an Ed25519 public key",
            what=what,
            hint="of a private one: openssl pkey -in alice.key -pubout -out alice.pub",
        )
    return key


class TenantAdmin:
    """The tenants of one broker.

    Threads: safe.
    """

    def __init__(self, admin: BrokerAdmin) -> None:
        self._admin = admin

    def tenants(self) -> tuple[Tenant, ...]:
        """All of them, sorted by name."""
        found = _parsed(self._ask("list tenants", "GET", "tenant"), "tenants")
        return tuple(
            Tenant(one.text("name"), one.texts("repositories"), one.integer("admin_keys"))
            for one in found.objects("tenants")
        )

    def add(self, name: str) -> None:
        """Make a tenant.

        Raises:
            RemoteError: code `Conflict`: the name is or was taken.
        """
        self._ask(f"add the tenant {name!r}", "POST", f"tenant/{_part(name)}")

    def remove(self, name: str) -> None:
        """Remove a tenant that has no secrets, with its keys, policies and reference values.

        Raises:
            NotFound: there is none of that name.
            RemoteError: code `Conflict`: it still has secrets.
        """
        missing = f"the broker has no tenant {name!r}"
        self._ask(f"remove the tenant {name!r}", "DELETE", f"tenant/{_part(name)}", missing=missing)

    def assign(self, tenant: str, repository: str) -> None:
        """Give a repository that has no secrets to a tenant.

        Raises:
            NotFound: there is no such tenant.
            RemoteError: code `Conflict`: something is in the repository.
        """
        self._ask(
            f"assign the repository {repository!r}",
            "POST",
            f"repository/{_part(repository)}",
            dump_json({"tenant": tenant}),
            missing=f"the broker has no tenant {tenant!r}",
        )

    def keys(self, tenant: str | None = None) -> tuple[AdminKey, ...]:
        """The admin keys of a tenant, sorted by name.

        Args:
            tenant: None: that of the admin who asks.

        Raises:
            NotFound: there is no such tenant.
        """
        path = "admin-key" if tenant is None else f"admin-key?tenant={quote(tenant, safe='')}"
        missing = f"the broker has no tenant {tenant!r}"
        body = self._ask("list admin keys", "GET", path, missing=missing)
        return tuple(map(_key, _parsed(body, "admin keys").objects("admin_keys")))

    def add_key(
        self,
        name: str,
        roles: Sequence[str],
        key: Ed25519PublicKey,
        *,
        tenant: str | None = None,
    ) -> AdminKey:
        """Let a key administrate.

        Args:
            tenant: as for `keys`.

        Raises:
            NotFound: there is no such tenant.
            RemoteError: code `Conflict`: the name is taken, or the key in use.
        """
        message: JSONObject = {
            "name": name,
            "roles": [*roles],
            "public_key": encode_base64(key.public_bytes_raw()),
            "tenant": tenant,
        }
        body = self._ask(
            f"add the admin key {name!r}",
            "POST",
            "admin-key",
            dump_json(message),
            missing=f"the broker has no tenant {tenant!r}",
        )
        return _key(_parsed(body, "admin key"))

    def remove_key(self, key_id: str) -> None:
        """Let a key administrate no more.

        Raises:
            NotFound: there is none of that id.
            RemoteError: code `Conflict`: it is the last of an owner or operator.
        """
        self._admin.ask(
            "remove the admin key",
            "DELETE",
            f"imagers/admin-key/{_part(key_id)}",
            missing=f"the broker has no admin key {key_id!r}",
            hint="'imagers broker admin-key list' shows what it has",
        )

    def _ask(
        self,
        what: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        missing: str = "",
    ) -> bytes:
        where = f"imagers/{path}"
        return self._admin.ask(what, method, where, body, missing=missing, hint=_LIST_TENANTS)


def _parsed(body: bytes, what: str) -> View:
    return View.parse(body, what=what, max_bytes=_MAX_ANSWER)


def _key(one: View) -> AdminKey:
    return AdminKey(one.text("id"), one.text("tenant"), one.text("name"), one.texts("roles"))


def _part(name: str) -> str:
    """A name as a part of a path."""
    if not _PART.match(name):
        raise UsageError(f"expected a name of letters, digits, '_', '-' and '.', got {name[:80]!r}")
    return name
