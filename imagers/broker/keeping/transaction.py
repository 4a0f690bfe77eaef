# SPDX-License-Identifier: Apache-2.0
"""Reads and writes that happen together or not at all.

Statements are made once: to build one costs more than to run it. Those about sealed tables are in
`sealed`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
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
from imagers.broker.keeping.sealed import Altered, SealedRows
from imagers.broker.keeping.tables import AUDIT_TEXTS, DEFAULT_TENANT, NUMBER_DIGITS, SEALED
from imagers.kbs.resources import ResourcePath, parse_resource_path
from imagers.model.digest import Digest, parse_digest
from imagers.model.references import parse_references, references_to_json
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from imagers.broker.keeping.database import Connection, Cursor
    from imagers.broker.keeping.head import Value
    from imagers.broker.keeping.sealed import HeldHeads
    from imagers.model.references import ReferenceValue

__all__ = ["FIRST_HASH", "MAX_FORMER", "STORE_ID_BYTES", "Link", "Transaction", "chain_hash"]

STORE_ID_BYTES = 16
MAX_FORMER = 16
"""Versions of a resource that are kept beside the one that is served."""
_FEW = 16  # images of a resource: more are looked up among all that the repository knows
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_HASH = bytes(32)
"""What stands in for the hash before the first row of a chain."""
_SESSION = tuple(one.name for one in fields(Session))
_AUDIT = ("broker", "number", *AUDIT_TEXTS)
_RESOURCE = SEALED["resources"].values
_ADMIN = ("id", "tenant", "name", "roles", "public_key")


def _insert(table: str, *columns: str) -> str:
    values = ", ".join(f":{name}" for name in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608 - names of ours


_STORE = (
    "SELECT id, changes, (SELECT max(seen_ms) FROM brokers), (SELECT count(*) FROM era), "
    "head, head_key FROM store"
)
_KEEP_TIME = "UPDATE brokers SET seen_ms = :now_ms WHERE name = :broker AND seen_ms < :now_ms"
_FIND_SESSION = f"SELECT {', '.join(_SESSION)} FROM sessions WHERE name = :name"  # noqa: S608 - ours
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
        heads: what is known of the sealed tables; None: nothing is, and none of them is read.
        alone: whether it may change what releases are judged by.
    """

    def __init__(
        self,
        connection: Connection,
        words: Callable[[str], str],
        broker: str,
        heads: HeldHeads | None = None,
        *,
        alone: bool,
    ) -> None:
        self.is_alone = alone
        self._heads = heads
        # What begins now sees no state before the newest that was seen until now.
        self._least = 0 if heads is None else heads.number
        self.sealed = SealedRows(self._run, self.store_row, heads, alone=alone)
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
        row = self.sealed.get("resources", str(path))
        return None if row is None else StoredResource(path, *row)

    def next_version(self, path: ResourcePath) -> int:
        """The number for the next value of that name; it is never given again."""
        row = self.sealed.get("versions", str(path))
        version = 1 if row is None else int(row[0]) + 1
        self.sealed.put("versions", [str(path)], [version])
        return version

    def insert_resource(self, resource: StoredResource) -> None:
        """A new row; the name must be free."""
        values = [getattr(resource, name) for name in _RESOURCE]
        self.sealed.insert("resources", [str(resource.path)], values)

    def use_resource(self, resource: StoredResource) -> None:
        """Count a release of one that has an end; it must be as it is kept."""
        self.sealed.remove("resources", str(resource.path))
        self.insert_resource(replace(resource, uses=resource.uses + 1))

    def retire_resource(self, path: ResourcePath) -> bool:
        """Whether there was one; it is a former one now, with its bindings. The oldest go."""
        found = self.find_resource(path)
        if found is None:
            return False
        self.set_former(FormerResource(found, self.bindings(path)))
        self._delete_current(path)
        for old in self.former_resources(path)[MAX_FORMER:]:
            self.sealed.remove("former_resources", str(path), old.resource.version)
        return True

    def former_resources(self, path: ResourcePath) -> Sequence[FormerResource]:
        """Those that were replaced or deleted, the newest first."""
        return [
            FormerResource(
                StoredResource(path, sealed, size, version, *row),
                frozenset(map(parse_digest, digests.split())),
            )
            for _, version, sealed, size, *row, digests in reversed(
                self.sealed.rows("former_resources", str(path))
            )
        ]

    def set_former(self, former: FormerResource) -> None:
        """Keep one, in the place of the one of its version that may be there."""
        one = former.resource
        digests = " ".join(sorted(map(str, former.manifest_digests)))
        values = (one.sealed, one.size, one.created_at, one.expires, one.max_uses, one.uses)
        self.sealed.put("former_resources", [str(one.path), one.version], [*values, digests])

    def revive_resource(self, former: FormerResource) -> None:
        """Have it again, with its bindings; the name must be free."""
        one = former.resource
        self.sealed.remove("former_resources", str(one.path), one.version)
        self.insert_resource(one)
        for digest in former.manifest_digests:
            self.add_binding(one.path, digest, by="", at="")

    def delete_resource(self, path: ResourcePath) -> bool:
        """Whether there was one, or a former one; nothing is left, nor of its bindings."""
        had_former = bool(self.sealed.names("former_resources", str(path)))
        self.sealed.remove_all("former_resources", str(path))
        return self._delete_current(path) or had_former

    def _delete_current(self, path: ResourcePath) -> bool:
        self.sealed.remove_all("bindings", str(path))
        return self.sealed.remove("resources", str(path))

    def list_resources(self, tenant: str) -> tuple[ResourcePath, ...]:
        """The names of a tenant's, sorted."""
        owners = self.owners()
        return tuple(
            path
            for path in self.all_resources()
            if owners.get(path.repository, DEFAULT_TENANT) == tenant
        )

    def all_resources(self) -> tuple[ResourcePath, ...]:
        """The names of all tenants', sorted."""
        return tuple(parse_resource_path(str(path)) for _, path in self.sealed.names("resources"))

    def all_former_resources(self) -> tuple[ResourcePath, ...]:
        """The names of which there are former ones, of all tenants, sorted."""
        names = {str(path) for _, path, _ in self.sealed.names("former_resources")}
        return tuple(sorted(map(parse_resource_path, names)))

    def count_resources(self) -> int:
        """How many there are, of all tenants."""
        return len(self.sealed.names("resources"))

    def bindings(self, path: ResourcePath) -> frozenset[Digest]:
        """The images that a resource belongs to."""
        rows = self.sealed.rows("bindings", str(path))
        return frozenset(parse_digest(digest) for _, digest in rows)

    def add_binding(self, path: ResourcePath, digest: Digest, *, by: str, at: str) -> None:
        """One more image; the pair must be new. Args as of `propose_image`."""
        self.sealed.insert("bindings", [str(path), str(digest)])
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
        # A revoked one outlives a restore: numbers can have gaps.
        number = max((one.number for one in self.list_images(repository)), default=0) + 1
        self.set_image(
            Image(
                repository=repository,
                digest=digest,
                number=number,
                proposed_by=by,
                proposed_at=at,
            )
        )

    def find_image(self, repository: str, digest: Digest) -> Image | None:
        """What a repository knows of an image."""
        row = self.sealed.get("images", repository, str(digest))
        return None if row is None else _image_of((repository, str(digest), *row))

    def bound_images(self, path: ResourcePath) -> Mapping[Digest, Image]:
        """The images that a resource belongs to."""
        bound = self.bindings(path)
        if len(bound) > _FEW:
            known = self.list_images(path.repository)
            return {one.digest: one for one in known if one.digest in bound}
        found = ((digest, self.find_image(path.repository, digest)) for digest in bound)
        return {digest: image for digest, image in found if image is not None}

    def list_images(self, repository: str) -> tuple[Image, ...]:
        """All that a repository knows, the oldest first."""
        images = map(_image_of, self.sealed.rows("images", repository))
        return tuple(sorted(images, key=lambda one: one.number))

    def set_image(self, image: Image) -> None:
        """Keep what is known of an image, in the place of what was."""
        successor = "" if image.successor is None else str(image.successor)
        self.sealed.put(
            "images",
            [image.repository, str(image.digest)],
            [
                image.number,
                image.state,
                successor,
                image.reason,
                image.proposed_by,
                image.proposed_at,
            ],
        )

    def put_lasting(self, rows: Iterable[Sequence[Value]]) -> None:
        """Have rows that stay for ever in an older state, as `SealedRows.lasting` gave them.

        An image keeps the number that it has there, or takes a free one. What followed it is left
        out where it is not known there, or leads back to it.
        """
        for table, *row in rows:
            if table == "images":
                self._put_lasting_image(_image_of(row))
            else:
                count = len(SEALED[str(table)].key)
                self.sealed.put(str(table), row[:count], row[count:])  # type: ignore[arg-type]  # no key is None

    def _put_lasting_image(self, image: Image) -> None:
        known = {one.digest: one for one in self.list_images(image.repository)}
        there = known.pop(image.digest, None)
        taken = {one.number for one in known.values()}
        if there is not None:
            image = replace(image, number=there.number)
        elif image.number in taken:
            image = replace(image, number=max(taken) + 1)
        after = image.successor
        while after in known:  # which has each of them once
            after = known.pop(after).successor
        self.set_image(image if after is None else replace(image, successor=None))

    def approvals(
        self, repository: str, digest: Digest | None = None
    ) -> Mapping[Digest, Sequence[Approval]]:
        """Those of an image, or of all of a repository, whether they count or not."""
        key = [repository] if digest is None else [repository, str(digest)]
        found: dict[Digest, list[Approval]] = {}
        for _, of, *row in self.sealed.rows("approvals", *key):
            found.setdefault(parse_digest(of), []).append(Approval(*row))
        return found

    def set_approval(self, repository: str, digest: Digest, approval: Approval) -> None:
        """Keep one; the admin's former one of that image goes."""
        key = (repository, str(digest), approval.admin)
        self.sealed.put("approvals", key, [approval.until, approval.signature])

    def floors(self) -> Mapping[str, int]:
        """By repository, the number of the oldest image that is served, where there is one."""
        return dict(self.sealed.rows("floors"))

    def set_floor(self, repository: str, number: int) -> None:
        """Serve nothing older; 0: all."""
        if number:
            self.sealed.put("floors", [repository], [number])
        else:
            self.sealed.remove("floors", repository)

    # The store

    def store_row(self) -> StoreRow:
        """The one row about the database, as it was when this transaction first looked.

        Raises:
            Altered: it is an older state of the database than one that was seen.
        """
        if self._row is None:
            identity, changes, seen_ms, eras, head, key = _one(self._run(_STORE))
            wanted = ((changes, int), (seen_ms or 0, int), (head or b"", bytes), (key or "", str))
            if self._heads is not None and not all(isinstance(*one) for one in wanted):
                raise self._heads.altered("what it says of itself has other types")
            if self._heads is not None and changes < self._least:
                told = f"expected change {self._least} or later, got {changes}: it is an old copy"
                raise self._heads.altered(told)
            self._row = StoreRow(identity, changes, seen_ms or 0, eras > 0, head, key or "")
        return self._row

    def enter_broker(self) -> None:
        """Write down that there is this broker, if it is new."""
        statement = _insert("brokers", "name", "seen_ms") + " ON CONFLICT (name) DO NOTHING"
        self._run(statement, name=self._broker, seen_ms=0)

    def touch(self) -> None:
        """Write a row as it is: to see whether the store takes it."""
        self._run("UPDATE brokers SET seen_ms = seen_ms WHERE name = :name", name=self._broker)

    def keep_time(self, now_ms: int) -> None:
        """Remember a time, if it is later than the one that is kept."""
        row = self.store_row()
        if now_ms > row.seen_ms:
            self._run(_KEEP_TIME, broker=self._broker, now_ms=now_ms)
            self._row = replace(row, seen_ms=now_ms)

    def begin_again(self, now_ms: int) -> None:
        """Another id, no sessions, and time from `now_ms` on; what is over stays over."""
        self._end_what_is_over(self.store_row().seen_ms // 1000)
        self._run("DELETE FROM sessions")
        self._run("DELETE FROM era")
        self._run("INSERT INTO era (number) VALUES (1)")
        self._run("UPDATE store SET id = :id", id=os.urandom(STORE_ID_BYTES))
        self._run("UPDATE brokers SET seen_ms = :now_ms", now_ms=now_ms)
        self._row = None

    def _end_what_is_over(self, now: int) -> None:
        for repository, digest, admin, until, _ in self.sealed.rows("approvals"):
            if until <= now:
                self.sealed.remove("approvals", repository, digest, admin)
        for path in self.all_resources():
            found = self.find_resource(path)
            if found is not None and 0 < found.expires <= now:
                self.sealed.remove("resources", str(path))
                self.insert_resource(replace(found, expires=1))
        for path in self.all_former_resources():
            for one in self.former_resources(path):
                if 0 < one.resource.expires <= now:
                    self.set_former(replace(one, resource=replace(one.resource, expires=1)))
        for tenant in self.tenants():
            for value in self.reference_values(tenant).values():
                if value.expires is not None and value.expires.timestamp() <= now:
                    self.set_reference_value(tenant, replace(value, expires=_LONG_AGO))

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
        return tuple(name for name, gone in self.sealed.rows("tenants") if not gone)

    def insert_tenant(self, name: str) -> None:
        """One more; the name must never have been taken."""
        self.sealed.insert("tenants", [name], [0])

    def delete_tenant(self, name: str) -> None:
        """It is gone, with its admins, policies and values; its repositories are nobody's.

        Those that know images stay with its name, which nobody takes again: what is known of them
        is nobody else's, and is not forgotten.
        """
        for repository, tenant in self.owners().items():
            if tenant == name and not self.knows_images(repository):
                self.sealed.remove("repositories", repository)
        for admin in self.admins(name):
            self.sealed.remove("admins", admin.id)
        for table in ("policies", "reference_values"):
            self.sealed.remove_all(table, name)
        self.sealed.put("tenants", [name], [1])

    def owners(self) -> Mapping[str, str]:
        """The tenant of each repository that is not the default tenant's, by its name, sorted."""
        return dict(self.sealed.rows("repositories"))

    def owner_of(self, repository: str) -> str:
        """The tenant of a repository."""
        row = self.sealed.get("repositories", repository)
        return DEFAULT_TENANT if row is None else str(row[0])

    def set_owner(self, repository: str, tenant: str) -> None:
        """Give a repository to a tenant."""
        if tenant == DEFAULT_TENANT:
            self.sealed.remove("repositories", repository)
        else:
            self.sealed.put("repositories", [repository], [tenant])

    def has_secrets(self, repository: str) -> bool:
        """Whether a secret is kept for it, or a former one."""
        names = (*self.sealed.names("resources"), *self.sealed.names("former_resources"))
        return any(str(path).startswith(f"{repository}/") for _, path, *_ in names)

    def repositories_of_images(self) -> Sequence[str]:
        """Those that know images, sorted."""
        return sorted({str(name[1]) for name in self.sealed.names("images")})

    def knows_images(self, repository: str) -> bool:
        """Whether a secret of it was ever bound to an image."""
        return bool(self.sealed.names("images", repository))

    # Admins

    def admins(self, tenant: str | None = None) -> tuple[Admin, ...]:
        """Those of a tenant, or all, sorted by tenant and name."""
        found = (_admin(row) for row in self.sealed.rows("admins"))
        wanted = (one for one in found if tenant in (None, one.tenant))
        return tuple(sorted(wanted, key=lambda one: (one.tenant, one.name)))

    def find_admin(self, id: str) -> Admin | None:  # noqa: A002 - its name
        """The admin whose key has that hash."""
        row = self.sealed.get("admins", id)
        return None if row is None else _admin((id, *row))

    def insert_admin(self, admin: Admin) -> None:
        """A new row; the key must be nobody's, and the name free in its tenant."""
        roles = ",".join(sorted(admin.roles))
        values = (admin.tenant, admin.name, roles, admin.public_key)
        self.sealed.insert("admins", [admin.id], values)

    def delete_admin(self, id: str) -> bool:  # noqa: A002 - its name
        """Whether there was one."""
        return self.sealed.remove("admins", id)

    # Policies

    def get_policy(self, tenant: str, name: str) -> bytes | None:
        """A policy of a tenant, or None."""
        row = self.sealed.get("policies", tenant, name)
        return None if row is None else row[0]

    def set_policy(self, tenant: str, name: str, value: bytes | None) -> None:
        """Set or replace one; None: have none of that name."""
        if value is None:
            self.sealed.remove("policies", tenant, name)
        else:
            self.sealed.put("policies", [tenant, name], [value])

    # Reference values

    def reference_values(self, tenant: str) -> Mapping[str, ReferenceValue]:
        """All of a tenant by name, sorted."""
        rows = self.sealed.rows("reference_values", tenant)
        found = (one for *_, value in rows for one in parse_references(value))
        return {one.name: one for one in found}

    def set_reference_value(self, tenant: str, value: ReferenceValue) -> None:
        """Set or replace one."""
        data = dump_json(references_to_json([value]))
        self.sealed.put("reference_values", [tenant, value.name], [data])

    def delete_reference_value(self, tenant: str, name: str) -> bool:
        """Whether there was one."""
        return self.sealed.remove("reference_values", tenant, name)

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

    def all_audit_heads(self) -> Sequence[object]:
        """All signed heads, or what is in their place."""
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

        Raises:
            Altered: a row is none that was written.
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
        self._check_audit(
            (text for _, *texts in rows for text in texts), (hashed for hashed, *_ in rows)
        )
        return [
            {"id": hashed[:_ID_BYTES].hex(), **dict(zip(AUDIT_TEXTS, texts, strict=True))}
            for hashed, *texts in rows[::-1]
        ]

    def _check_audit(self, texts: Iterable[object], hashes: Iterable[object] = ()) -> None:
        """Raise where what stands in a row is of another kind than what is written there."""
        are_hashes = (isinstance(one, bytes) and len(one) == len(FIRST_HASH) for one in hashes)
        if not all(isinstance(one, str) for one in texts) or not all(are_hashes):
            path = "" if self._heads is None else self._heads.path
            raise Altered("a row of the audit log is none that was written", path=path)

    def count_releases(self, since: str, tenants: Sequence[str]) -> Mapping[tuple[str, str], int]:
        """How many rows of releases there are, by hour (`2026-01-31T12`) and outcome.

        Args:
            since: the first hour.
            tenants: whose.

        Raises:
            Altered: a row is not as it was written.
        """
        of = {f"tenant_{at}": name for at, name in enumerate(tenants)}
        rows = self._run(
            "SELECT substr(at, 1, 13), outcome, count(*) FROM audit "  # noqa: S608 - names of ours
            "WHERE event = 'release' AND at >= :since "
            f"AND tenant IN ({', '.join(f':{name}' for name in of) or 'NULL'}) GROUP BY 1, 2",
            since=since,
            **of,
        ).fetchall()
        self._check_audit(text for *texts, _ in rows for text in texts)
        return {(hour, outcome): count for hour, outcome, count in rows}

    def count_audit(self) -> int:
        """How many rows there are, also such as are of no chain."""
        return int(_one(self._run("SELECT count(*) FROM audit"))[0])

    def audit_chains(self) -> Iterator[tuple[Mapping[str, str | int], bytes]]:
        """All rows of chains with their hashes: chain by chain, in their order.

        `place` is where the log shows a row, which is no part of its hash.
        """
        brokers = self._run("SELECT DISTINCT broker FROM audit ORDER BY broker").fetchall()
        for (broker,) in brokers:
            number = place = 0
            # No constraint is relied on: who changes rows may have dropped it.
            while rows := self._links_after(broker, number, place):
                for *told, hashed, shown_at in rows:
                    yield {**dict(zip(_AUDIT, told, strict=True)), "place": shown_at}, hashed
                number, place = rows[-1][1], rows[-1][-1]

    def _links_after(self, broker: str, number: int, place: int) -> Sequence[tuple[Any, ...]]:
        return self._run(_NEXT_LINKS, broker=broker, number=number, place=place).fetchall()


def _image_of(row: Sequence[Any]) -> Image:
    repository, digest, number, state, successor, reason, proposed_by, proposed_at = row
    return Image(
        repository=repository,
        digest=parse_digest(digest),
        number=number,
        state=state,
        successor=parse_digest(successor) if successor else None,
        reason=reason,
        proposed_by=proposed_by,
        proposed_at=proposed_at,
    )


def _admin(row: tuple[Any, ...]) -> Admin:
    values = dict(zip(_ADMIN, row, strict=True))
    return Admin(**values | {"roles": frozenset(filter(None, values["roles"].split(",")))})


def _one(found: Cursor) -> tuple[Any, ...]:
    """The row that there always is."""
    row = found.fetchone()
    assert row is not None
    return row
