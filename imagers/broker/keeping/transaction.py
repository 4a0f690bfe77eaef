# SPDX-License-Identifier: Apache-2.0
"""Reads and writes that happen together or not at all.

Statements are made once: to build one costs more than to run it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from imagers.broker.keeping.rows import (
    Admin,
    Approval,
    FormerResource,
    Image,
    Session,
    StoredResource,
    StoreRow,
)
from imagers.broker.keeping.tables import AUDIT_TEXTS, DEFAULT_TENANT, NUMBER_DIGITS
from imagers.kbs.resources import ResourcePath, parse_resource_path
from imagers.model.digest import Digest, parse_digest
from imagers.model.references import parse_references, references_to_json
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from imagers.broker.keeping.database import Connection, Cursor
    from imagers.model.references import ReferenceValue

__all__ = ["FIRST_HASH", "MAX_FORMER", "STORE_ID_BYTES", "Link", "Transaction", "chain_hash"]

STORE_ID_BYTES = 16
MAX_FORMER = 16
"""Versions of a resource that are kept beside the one that is served."""
FIRST_HASH = bytes(32)
"""What stands in for the hash before the first row of a chain."""
_SESSION = tuple(one.name for one in fields(Session))
_AUDIT = ("broker", "number", *AUDIT_TEXTS)
_ADMIN = ("id", "tenant", "name", "roles", "public_key")


def _insert(table: str, *columns: str) -> str:
    values = ", ".join(f":{name}" for name in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608 - names of ours


_RESOURCE = ("sealed", "size", "version", "created_at", "expires", "max_uses", "uses")
_FIND_RESOURCE = f"SELECT {', '.join(_RESOURCE)} FROM resources WHERE path = :path"  # noqa: S608 - ours
_INSERT_RESOURCE = _insert("resources", "path", *_RESOURCE)
_INSERT_FORMER = _insert("former_resources", "path", *_RESOURCE, "manifest_digests")
_LIST_FORMER = (
    f"SELECT manifest_digests, {', '.join(_RESOURCE)} FROM former_resources "  # noqa: S608 - ours
    "WHERE path = :path ORDER BY version DESC"
)
_DELETE_FORMER = "DELETE FROM former_resources WHERE path = :path AND version = :version"
_USE_RESOURCE = (
    "UPDATE resources SET uses = uses + 1 "
    "WHERE path = :path AND version = :version AND uses < max_uses"
)
# The repository of a path is what stands before its first slash.
_OF_REPOSITORY = "substr(path, 1, length(repositories.name) + 1) = repositories.name || '/'"
_LIST_RESOURCES = (
    f"SELECT path FROM resources LEFT JOIN repositories ON {_OF_REPOSITORY} "  # noqa: S608 - ours
    "WHERE coalesce(repositories.tenant, :default) = :tenant"
)
_HAS_SECRETS = (
    "SELECT 1 FROM resources WHERE substr(path, 1, length(:beginning)) = :beginning "
    "UNION ALL SELECT 1 FROM former_resources "
    "WHERE substr(path, 1, length(:beginning)) = :beginning "
    "LIMIT 1"
)
_FREE_REPOSITORIES = (
    "DELETE FROM repositories WHERE tenant = :name AND name NOT IN (SELECT repository FROM images)"
)
_NEXT_VERSION = (
    "INSERT INTO versions (path, last) VALUES (:path, 1) "
    "ON CONFLICT (path) DO UPDATE SET last = versions.last + 1"
)
_STORE = (
    "SELECT id, changes, (SELECT max(seen_ms) FROM brokers), (SELECT count(*) FROM era) FROM store"
)
_KEEP_TIME = "UPDATE brokers SET seen_ms = :now_ms WHERE name = :broker AND seen_ms < :now_ms"
_FIND_SESSION = f"SELECT {', '.join(_SESSION)} FROM sessions WHERE name = :name"  # noqa: S608 - ours
_IMAGE = (
    "repository", "manifest_digest", "number", "state", "successor", "reason", "proposed_by",
    "proposed_at",
)  # fmt: skip
_IMAGES = f"SELECT {', '.join(f'images.{name}' for name in _IMAGE)} FROM images"  # noqa: S608 - ours
_FIND_IMAGE = f"{_IMAGES} WHERE repository = :repository AND manifest_digest = :manifest_digest"
_BOUND_IMAGES = (
    f"{_IMAGES} JOIN bindings ON bindings.manifest_digest = images.manifest_digest "
    "WHERE bindings.path = :path AND images.repository = :repository"
)
_BOUND_APPROVALS = (
    "SELECT approvals.manifest_digest, admin, until, signature FROM approvals "
    "JOIN bindings ON bindings.manifest_digest = approvals.manifest_digest "
    "WHERE bindings.path = :path AND repository = :repository"
)
_DELETE_APPROVAL = (
    "DELETE FROM approvals "
    "WHERE repository = :repository AND manifest_digest = :manifest_digest AND admin = :admin"
)
_SET_IMAGE = (
    "UPDATE images SET state = :state, successor = :successor, reason = :reason "
    "WHERE repository = :repository AND manifest_digest = :manifest_digest"
)
_INSERT_SESSION = _insert("sessions", "broker", *_SESSION)
_KEEP_COLLATERAL = (
    "INSERT INTO collateral (name, number) VALUES (:name, :number) "
    "ON CONFLICT (name) DO UPDATE SET number = excluded.number "
    "WHERE collateral.number < excluded.number"
)
_LAST_LINK = "SELECT number, hash FROM audit WHERE broker = :broker ORDER BY number DESC LIMIT 1"
_INSERT_AUDIT = _insert("audit", *_AUDIT, "hash")
_SHOWN_AUDIT = ("hash", *AUDIT_TEXTS)
_NEXT_LINKS = (
    f"SELECT {', '.join(_AUDIT)}, hash, place FROM audit "  # noqa: S608 - names of ours
    "WHERE broker = :broker AND (number > :number OR (number = :number AND place > :place)) "
    "ORDER BY number, place LIMIT 1000"
)
_LAST_HEADS = (
    "SELECT signed FROM audit_heads AS one WHERE number = "
    "(SELECT max(number) FROM audit_heads WHERE broker = one.broker) ORDER BY broker"
)
_ID_BYTES = 8  # of a row's hash


@dataclass(frozen=True, slots=True)
class Link:
    """A row of a chain, by its broker, number from 1, and hash of 32 bytes."""

    broker: str
    number: int
    hash: bytes


def chain_hash(before: bytes, row: Mapping[str, str | int]) -> bytes:
    """The hash of an audit row, which names all rows of its chain before it.

    SHA-256 of the hash before, 32 bytes, and of the row's JSON: broker, number and texts in the
    order of the table, compact, in UTF-8.
    """
    told = {name: row[name] for name in _AUDIT}
    return sha256(before + dump_json(told)).digest()


class Transaction:
    """Reads and writes that happen together or not at all. Good inside its block.

    Args:
        words: see `Database`.
        broker: whose chain the audit rows continue.
        alone: whether it may change what releases are judged by.
    """

    def __init__(
        self,
        connection: Connection,
        words: Callable[[str], str],
        broker: str,
        *,
        alone: bool,
    ) -> None:
        self.is_alone = alone
        self._execute = connection.execute
        self._words = words
        self._broker = broker
        self._row: StoreRow | None = None
        self._link: Link | None = None
        self._has_new_link = False

    def _run(self, statement: str, **parameters: Any) -> Cursor:
        return self._execute(self._words(statement), parameters)

    # One piece of work among others

    def begin_part(self) -> None:
        """Begin what can be undone alone."""
        self._execute("SAVEPOINT part")

    def keep_part(self) -> None:
        """End it."""
        self._execute("RELEASE SAVEPOINT part")

    def undo_part(self) -> None:
        """End it as if it had not been."""
        self._execute("ROLLBACK TO SAVEPOINT part")
        self.keep_part()
        self._row = self._link = None  # `has_new_link` may say too much, which is no harm

    # Resources

    def find_resource(self, path: ResourcePath) -> StoredResource | None:
        """The resource of that name."""
        row = self._run(_FIND_RESOURCE, path=str(path)).fetchone()
        return None if row is None else StoredResource(path, *row)

    def next_version(self, path: ResourcePath) -> int:
        """The number for the next value of that name; it is never given again."""
        self._run(_NEXT_VERSION, path=str(path))
        found = self._run("SELECT last FROM versions WHERE path = :path", path=str(path))
        return int(_one(found)[0])

    def insert_resource(self, resource: StoredResource) -> None:
        """A new row; the name must be free."""
        self._run(_INSERT_RESOURCE, **_resource_row(resource))

    def use_resource(self, resource: StoredResource) -> bool:
        """Count a release of one that has an end; False: it has been released as often."""
        named = {"path": str(resource.path), "version": resource.version}
        return self._run(_USE_RESOURCE, **named).rowcount > 0

    def retire_resource(self, path: ResourcePath) -> bool:
        """Whether there was one; it is a former one now, with its bindings. The oldest go."""
        found = self.find_resource(path)
        if found is None:
            return False
        digests = " ".join(sorted(str(one) for one in self.bindings(path)))
        self._delete_current(path)
        self._run(_INSERT_FORMER, **_resource_row(found), manifest_digests=digests)
        for old in self.former_resources(path)[MAX_FORMER:]:
            self._run(_DELETE_FORMER, path=str(path), version=old.resource.version)
        return True

    def former_resources(self, path: ResourcePath) -> Sequence[FormerResource]:
        """Those that were replaced or deleted, the newest first."""
        rows = self._run(_LIST_FORMER, path=str(path)).fetchall()
        return [
            FormerResource(
                StoredResource(path, *row), frozenset(map(parse_digest, digests.split()))
            )
            for digests, *row in rows
        ]

    def revive_resource(self, former: FormerResource) -> None:
        """Have it again, with its bindings; the name must be free."""
        resource = former.resource
        named = {"path": str(resource.path), "version": resource.version}
        self._run(_DELETE_FORMER, **named)
        self.insert_resource(resource)
        for digest in former.manifest_digests:
            self.add_binding(resource.path, digest, by="", at="")

    def delete_resource(self, path: ResourcePath) -> bool:
        """Whether there was one, or a former one; nothing is left, nor of its bindings."""
        former = self._run("DELETE FROM former_resources WHERE path = :path", path=str(path))
        return self._delete_current(path) or former.rowcount > 0

    def _delete_current(self, path: ResourcePath) -> bool:
        self._run("DELETE FROM bindings WHERE path = :path", path=str(path))
        return self._run("DELETE FROM resources WHERE path = :path", path=str(path)).rowcount > 0

    def list_resources(self, tenant: str) -> tuple[ResourcePath, ...]:
        """The names of a tenant's, sorted."""
        rows = self._run(_LIST_RESOURCES, tenant=tenant, default=DEFAULT_TENANT).fetchall()
        return tuple(sorted(parse_resource_path(path) for (path,) in rows))

    def count_resources(self) -> int:
        """How many there are, of all tenants."""
        return int(_one(self._run("SELECT count(*) FROM resources"))[0])

    def bindings(self, path: ResourcePath) -> frozenset[Digest]:
        """The images that a resource belongs to."""
        found = self._run("SELECT manifest_digest FROM bindings WHERE path = :path", path=str(path))
        return frozenset(parse_digest(digest) for (digest,) in found.fetchall())

    def add_binding(self, path: ResourcePath, digest: Digest, *, by: str, at: str) -> None:
        """One more image; the pair must be new. Args as of `propose_image`."""
        add = _insert("bindings", "path", "manifest_digest")
        self._run(add, path=str(path), manifest_digest=str(digest))
        self.propose_image(path.repository, digest, by=by, at=at)

    # Images

    def propose_image(self, repository: str, digest: Digest, *, by: str, at: str) -> None:
        """Let a repository know an image; nothing changes for one that it knows.

        Args:
            by: the id of an admin's key, or "".
            at: when, in RFC 3339.
        """
        if self.find_image(repository, digest) is not None:
            return
        last = "SELECT max(number) FROM images WHERE repository = :repository"
        (number,) = _one(self._run(last, repository=repository))
        image = Image(
            repository=repository,
            digest=digest,
            number=(number or 0) + 1,
            proposed_by=by,
            proposed_at=at,
        )
        self._run(_insert("images", *_IMAGE), **_image_row(image))

    def find_image(self, repository: str, digest: Digest) -> Image | None:
        """What a repository knows of an image."""
        found = self._run(_FIND_IMAGE, repository=repository, manifest_digest=str(digest))
        row = found.fetchone()
        return None if row is None else _image_of(row)

    def bound_images(self, path: ResourcePath) -> Mapping[Digest, Image]:
        """The images that a resource belongs to."""
        found = self._run(_BOUND_IMAGES, path=str(path), repository=path.repository)
        return {image.digest: image for image in map(_image_of, found.fetchall())}

    def list_images(self, repository: str) -> tuple[Image, ...]:
        """All that a repository knows, the oldest first."""
        statement = f"{_IMAGES} WHERE repository = :repository ORDER BY number"
        return tuple(map(_image_of, self._run(statement, repository=repository).fetchall()))

    def set_image(self, image: Image) -> None:
        """Keep state, successor and reason of one that is there."""
        row = _image_row(image)
        names = ("repository", "manifest_digest", "state", "successor", "reason")
        self._run(_SET_IMAGE, **{name: row[name] for name in names})

    def approvals(self, repository: str) -> Mapping[Digest, Sequence[Approval]]:
        """Those of a repository's images, whether they count or not."""
        statement = (
            "SELECT manifest_digest, admin, until, signature FROM approvals "
            "WHERE repository = :repository"
        )
        return _by_image(self._run(statement, repository=repository))

    def bound_approvals(self, path: ResourcePath) -> Mapping[Digest, Sequence[Approval]]:
        """Those of the images that a resource belongs to."""
        return _by_image(self._run(_BOUND_APPROVALS, path=str(path), repository=path.repository))

    def set_approval(self, repository: str, digest: Digest, approval: Approval) -> None:
        """Keep one; the admin's former one of that image goes."""
        named = {
            "repository": repository,
            "manifest_digest": str(digest),
            "admin": approval.admin,
        }
        self._run(_DELETE_APPROVAL, **named)
        add = _insert("approvals", *named, "until", "signature")
        self._run(add, **named, until=approval.until, signature=approval.signature)

    def floors(self) -> Mapping[str, int]:
        """By repository, the number of the oldest image that is served, where there is one."""
        return dict(self._run("SELECT repository, number FROM floors").fetchall())

    def set_floor(self, repository: str, number: int) -> None:
        """Serve nothing older; 0: all."""
        self._run("DELETE FROM floors WHERE repository = :repository", repository=repository)
        if number:
            add = _insert("floors", "repository", "number")
            self._run(add, repository=repository, number=number)

    # The store

    def store_row(self) -> StoreRow:
        """The one row about the database, as it was when this transaction first looked."""
        if self._row is None:
            identity, changes, seen_ms, eras = _one(self._run(_STORE))
            self._row = StoreRow(identity, changes, seen_ms or 0, eras > 0)
        return self._row

    def enter_broker(self) -> None:
        """Write down that there is this broker, if it is new."""
        statement = _insert("brokers", "name", "seen_ms") + " ON CONFLICT (name) DO NOTHING"
        self._run(statement, name=self._broker, seen_ms=0)

    def touch(self) -> None:
        """Write a row as it is: to see whether the store takes it."""
        self._run("UPDATE brokers SET seen_ms = seen_ms WHERE name = :name", name=self._broker)

    def count_change(self) -> None:
        """Tell all who remember what was in force that it may be so no more."""
        self._run("UPDATE store SET changes = changes + 1")
        self._row = None

    def keep_time(self, now_ms: int) -> None:
        """Remember a time, if it is later than the one that is kept."""
        row = self.store_row()
        if now_ms > row.seen_ms:
            self._run(_KEEP_TIME, broker=self._broker, now_ms=now_ms)
            self._row = replace(row, seen_ms=now_ms)

    def begin_again(self, now_ms: int) -> None:
        """Another id, no sessions, and time from `now_ms` on; what is over stays over."""
        seen_s = self.store_row().seen_ms // 1000
        over = "SELECT repository, manifest_digest, admin FROM approvals WHERE until <= :seen_s"
        for repository, digest, admin in self._run(over, seen_s=seen_s).fetchall():
            named = {"repository": repository, "manifest_digest": digest, "admin": admin}
            self._run(_DELETE_APPROVAL, **named)
        for table in ("resources", "former_resources"):
            over = f"UPDATE {table} SET expires = 1 WHERE expires BETWEEN 1 AND :seen_s"  # noqa: S608 - ours
            self._run(over, seen_s=seen_s)
        self._run("DELETE FROM sessions")
        self._run("DELETE FROM era")
        self._run("INSERT INTO era (number) VALUES (1)")
        self._run("UPDATE store SET id = :id", id=os.urandom(STORE_ID_BYTES))
        self._run("UPDATE brokers SET seen_ms = :now_ms", now_ms=now_ms)
        self._row = None

    # Sessions

    def drop_sessions(self, now_ms: int) -> None:
        """Forget those that need not be kept any more."""
        self._run("DELETE FROM sessions WHERE keep_until_ms <= :now_ms", now_ms=now_ms)

    def count_sessions(self) -> int:
        """How many attested at this broker and are kept."""
        statement = "SELECT count(*) FROM sessions WHERE broker = :broker"
        return int(_one(self._run(statement, broker=self._broker))[0])

    def find_slot(self, tee: str, instance: str, *, most: int) -> int | None:
        """A free place of a machine, which has `most` of them; None: all are taken."""
        statement = "SELECT slot FROM sessions WHERE tee = :tee AND instance = :instance"
        taken = {slot for (slot,) in self._run(statement, tee=tee, instance=instance).fetchall()}
        return next((slot for slot in range(most) if slot not in taken), None)

    def insert_session(self, session: Session) -> None:
        """A new row; its nonce, its name and its place must be free."""
        values = {name: getattr(session, name) for name in _SESSION}
        self._run(_INSERT_SESSION, broker=self._broker, **values)

    def find_session(self, name: str) -> Session | None:
        """The session of that name, whether it is over or not."""
        row = self._run(_FIND_SESSION, name=name).fetchone()
        return None if row is None else Session(**dict(zip(_SESSION, row, strict=True)))

    # Settings

    def get_setting(self, name: str) -> bytes | None:
        """A value, or None."""
        row = self._run("SELECT value FROM settings WHERE name = :name", name=name).fetchone()
        return None if row is None else row[0]

    def set_setting(self, name: str, value: bytes) -> None:
        """Set or replace a value."""
        self._run("DELETE FROM settings WHERE name = :name", name=name)
        self._run(_insert("settings", "name", "value"), name=name, value=value)

    # Tenants

    def tenants(self) -> tuple[str, ...]:
        """The names of all, sorted."""
        rows = self._run("SELECT name FROM tenants WHERE gone = 0 ORDER BY name").fetchall()
        return tuple(name for (name,) in rows)

    def insert_tenant(self, name: str) -> None:
        """One more; the name must never have been taken."""
        self._run(_insert("tenants", "name", "gone"), name=name, gone=0)

    def delete_tenant(self, name: str) -> None:
        """It is gone, with its admins, policies and values; its repositories are nobody's.

        Those that know images stay with its name, which nobody takes again: what is known of them
        is nobody else's, and is not forgotten.
        """
        for table in ("admins", "policies", "reference_values"):
            self._run(f"DELETE FROM {table} WHERE tenant = :name", name=name)  # noqa: S608 - ours
        self._run(_FREE_REPOSITORIES, name=name)
        self._run("UPDATE tenants SET gone = 1 WHERE name = :name", name=name)

    def owners(self) -> Mapping[str, str]:
        """The tenant of each repository that is not the default tenant's, by its name, sorted."""
        rows = self._run("SELECT name, tenant FROM repositories ORDER BY name").fetchall()
        return dict(rows)

    def owner_of(self, repository: str) -> str:
        """The tenant of a repository."""
        statement = "SELECT tenant FROM repositories WHERE name = :name"
        row = self._run(statement, name=repository).fetchone()
        return DEFAULT_TENANT if row is None else str(row[0])

    def set_owner(self, repository: str, tenant: str) -> None:
        """Give a repository to a tenant."""
        self._run("DELETE FROM repositories WHERE name = :name", name=repository)
        if tenant != DEFAULT_TENANT:
            self._run(_insert("repositories", "name", "tenant"), name=repository, tenant=tenant)

    def has_secrets(self, repository: str) -> bool:
        """Whether a secret is kept for it, or a former one."""
        return self._run(_HAS_SECRETS, beginning=f"{repository}/").fetchone() is not None

    def knows_images(self, repository: str) -> bool:
        """Whether a secret of it was ever bound to an image."""
        statement = "SELECT 1 FROM images WHERE repository = :repository LIMIT 1"
        return self._run(statement, repository=repository).fetchone() is not None

    # Admins

    def admins(self, tenant: str | None = None) -> tuple[Admin, ...]:
        """Those of a tenant, or all, sorted by tenant and name."""
        where = "" if tenant is None else "WHERE tenant = :tenant "
        statement = f"SELECT {', '.join(_ADMIN)} FROM admins {where}ORDER BY tenant, name"  # noqa: S608 - ours
        named = {} if tenant is None else {"tenant": tenant}
        return tuple(map(_admin, self._run(statement, **named).fetchall()))

    def find_admin(self, id: str) -> Admin | None:  # noqa: A002 - its name
        """The admin whose key has that hash."""
        statement = f"SELECT {', '.join(_ADMIN)} FROM admins WHERE id = :id"  # noqa: S608 - ours
        row = self._run(statement, id=id).fetchone()
        return None if row is None else _admin(row)

    def insert_admin(self, admin: Admin) -> None:
        """A new row; the key must be nobody's, and the name free in its tenant."""
        values = {name: getattr(admin, name) for name in _ADMIN}
        self._run(_insert("admins", *_ADMIN), **values | {"roles": ",".join(sorted(admin.roles))})

    def delete_admin(self, id: str) -> bool:  # noqa: A002 - its name
        """Whether there was one."""
        return self._run("DELETE FROM admins WHERE id = :id", id=id).rowcount > 0

    # Policies

    def get_policy(self, tenant: str, name: str) -> bytes | None:
        """A policy of a tenant, or None."""
        statement = "SELECT value FROM policies WHERE tenant = :tenant AND name = :name"
        row = self._run(statement, tenant=tenant, name=name).fetchone()
        return None if row is None else row[0]

    def set_policy(self, tenant: str, name: str, value: bytes | None) -> None:
        """Set or replace one; None: have none of that name."""
        named = {"tenant": tenant, "name": name}
        self._run("DELETE FROM policies WHERE tenant = :tenant AND name = :name", **named)
        if value is not None:
            self._run(_insert("policies", "tenant", "name", "value"), **named, value=value)

    # Reference values

    def reference_values(self, tenant: str) -> Mapping[str, ReferenceValue]:
        """All of a tenant by name, sorted."""
        statement = "SELECT value FROM reference_values WHERE tenant = :tenant ORDER BY name"
        rows = self._run(statement, tenant=tenant).fetchall()
        found = (one for (value,) in rows for one in parse_references(value))
        return {one.name: one for one in found}

    def set_reference_value(self, tenant: str, value: ReferenceValue) -> None:
        """Set or replace one."""
        self.delete_reference_value(tenant, value.name)
        data = dump_json(references_to_json([value]))
        insert = _insert("reference_values", "tenant", "name", "value")
        self._run(insert, tenant=tenant, name=value.name, value=data)

    def delete_reference_value(self, tenant: str, name: str) -> bool:
        """Whether there was one."""
        statement = "DELETE FROM reference_values WHERE tenant = :tenant AND name = :name"
        return self._run(statement, tenant=tenant, name=name).rowcount > 0

    # Collateral

    def seen_collateral(self) -> Mapping[str, int]:
        """The highest number or time of each document that was believed."""
        rows = self._run("SELECT name, number FROM collateral").fetchall()
        return {name: int(number) for name, number in rows}

    def keep_collateral(self, numbers: Mapping[str, int]) -> None:
        """Remember numbers and times, where they are higher than those that are kept."""
        if not numbers:
            return
        seen = self.seen_collateral()
        for name, number in numbers.items():
            if number > seen.get(name, -1):
                self._run(_KEEP_COLLATERAL, name=name, number=f"{number:0{NUMBER_DIGITS}}")

    # Audit

    def append_audit(self, texts: Mapping[str, str]) -> None:
        """One more row, chained to the last one of this broker."""
        last = self.last_link()
        row: dict[str, Any] = {"broker": self._broker, "number": last.number + 1, **texts}
        row["hash"] = chain_hash(last.hash, row)
        self._run(_INSERT_AUDIT, **row)
        self._link = Link(self._broker, row["number"], row["hash"])
        self._has_new_link = True

    def last_link(self) -> Link:
        """The last row of this broker's chain; number 0 where it has none."""
        if self._link is None:
            row = self._run(_LAST_LINK, broker=self._broker).fetchone()
            self._link = Link(self._broker, *(row or (0, FIRST_HASH)))
        return self._link

    @property
    def has_new_link(self) -> bool:
        """Whether rows were appended."""
        return self._has_new_link

    def keep_audit_head(self, link: Link, signed: str) -> None:
        """One more signed head; repeating it is no fault."""
        statement = _insert("audit_heads", "broker", "number", "signed")
        self._run(
            f"{statement} ON CONFLICT (broker, number) DO NOTHING",
            broker=link.broker,
            number=link.number,
            signed=signed,
        )

    def audit_heads(self) -> Sequence[str]:
        """The last signed head of each chain."""
        return [signed for (signed,) in self._run(_LAST_HEADS).fetchall()]

    def all_audit_heads(self) -> Sequence[str]:
        """All signed heads."""
        return [signed for (signed,) in self._run("SELECT signed FROM audit_heads").fetchall()]

    def list_audit(
        self,
        limit: int,
        wanted: Mapping[str, str] | None = None,
        *,
        tenants: Sequence[str] | None = None,
    ) -> Sequence[Mapping[str, str]]:
        """The last rows, oldest first: the texts, and `id`, the first 16 hex digits of the hash.

        Args:
            tenants: whose; None: all.
            wanted: by column, what a row must have; `image` and `session` by their beginning;
                `since` is the earliest `at`, as it is stored; `id` is that of the one row.
        """
        tests: list[str] = []
        values: dict[str, Any] = dict(wanted or {})
        if tenants is not None:
            of = {f"tenant_{at}": name for at, name in enumerate(tenants)}
            tests.append(f"tenant IN ({', '.join(f':{name}' for name in of) or 'NULL'})")
            values |= of
        for name in wanted or {}:
            if name == "since":
                tests.append("at >= :since")
            elif name == "id":
                tests.append("hash >= :id AND hash <= :end")
                values["id"] = bytes.fromhex(values["id"])
                values["end"] = values["id"] + b"\xff" * (len(FIRST_HASH) - _ID_BYTES)
            elif name in ("image", "session"):
                tests.append(f"substr({name}, 1, length(:{name})) = :{name}")
            else:
                assert name in AUDIT_TEXTS  # the caller's own names would be SQL
                tests.append(f"{name} = :{name}")
        where = f"WHERE {' AND '.join(tests)} " if tests else ""
        statement = (
            f"SELECT {', '.join(_SHOWN_AUDIT)} FROM audit {where}"  # noqa: S608 - names of ours
            "ORDER BY place DESC LIMIT :limit"
        )
        rows = self._run(statement, limit=limit, **values).fetchall()
        return [
            {"id": hashed[:_ID_BYTES].hex(), **dict(zip(AUDIT_TEXTS, texts, strict=True))}
            for hashed, *texts in rows[::-1]
        ]

    def audit_chains(self) -> Iterator[tuple[Mapping[str, str | int], bytes]]:
        """All rows with their hashes: chain by chain, in their order."""
        brokers = self._run("SELECT DISTINCT broker FROM audit ORDER BY broker").fetchall()
        for (broker,) in brokers:
            number = place = 0
            # No constraint is relied on: who changes rows may have dropped it.
            while rows := self._links_after(broker, number, place):
                for *told, hashed, _ in rows:
                    yield dict(zip(_AUDIT, told, strict=True)), hashed
                number, place = rows[-1][1], rows[-1][-1]

    def _links_after(self, broker: str, number: int, place: int) -> Sequence[tuple[Any, ...]]:
        return self._run(_NEXT_LINKS, broker=broker, number=number, place=place).fetchall()


def _resource_row(resource: StoredResource) -> dict[str, Any]:
    return {
        "path": str(resource.path),
        **{name: getattr(resource, name) for name in _RESOURCE},
    }


def _image_row(image: Image) -> dict[str, Any]:
    return {
        "repository": image.repository,
        "manifest_digest": str(image.digest),
        "number": image.number,
        "state": image.state,
        "successor": "" if image.successor is None else str(image.successor),
        "reason": image.reason,
        "proposed_by": image.proposed_by,
        "proposed_at": image.proposed_at,
    }


def _image_of(row: tuple[Any, ...]) -> Image:
    named = dict(zip(_IMAGE, row, strict=True))
    digest, successor = parse_digest(named.pop("manifest_digest")), named.pop("successor")
    return Image(digest=digest, successor=parse_digest(successor) if successor else None, **named)


def _by_image(found: Cursor) -> Mapping[Digest, Sequence[Approval]]:
    approvals: dict[Digest, list[Approval]] = {}
    for digest, *row in found.fetchall():
        approvals.setdefault(parse_digest(digest), []).append(Approval(*row))
    return approvals


def _admin(row: tuple[Any, ...]) -> Admin:
    values = dict(zip(_ADMIN, row, strict=True))
    return Admin(**values | {"roles": frozenset(filter(None, values["roles"].split(",")))})


def _one(found: Cursor) -> tuple[Any, ...]:
    """The row that there always is."""
    row = found.fetchone()
    assert row is not None
    return row
