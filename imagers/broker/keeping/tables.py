# SPDX-License-Identifier: Apache-2.0
"""The schema, in the SQL that all kinds of databases share.

resources  path -> sealed secret, its size and version, when and after how many releases it ends
former_resources  the same of secrets that were replaced or deleted, and what they were bound to
versions   path -> the last version; it goes on when a path is deleted and made again, so that
an old sealed value does not open in the new row
bindings   path, manifest digest: which images a resource belongs to
images     what is known of each image of a repository, in the order of `number`; never forgotten
approvals  signatures of admins over an image; what counts is judged at each release
floors     repository -> the number of its oldest image that is served
sessions   handshakes whose evidence was accepted, unique by nonce and by place of a machine
era        one row, kept as sessions are: gone when they are
store      one row: the random id of this database, how often it was changed, and the head
seals      the digest of each row of a sealed table, by bucket and name; see `head`
buckets    the digest of each bucket that is not empty
brokers    name -> the highest time that this broker has seen
settings   the sealed token key
tenants    names that are or were taken: those of tenants that are gone are not given again
repositories      who owns one; what is not here is the default tenant's
admins     the public keys of admins by their hash, each of one tenant
policies   of each tenant: resource policy and attestation policies
reference_values  of each tenant: name -> what claims of that name have to equal
collateral        name -> the highest number or time of a document that was believed
audit      rows that triggers protect from change, a chain for each broker
audit_heads  what the last row of a chain was, signed now and then
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AUDIT_TEXTS",
    "COLUMNS",
    "DEFAULT_TENANT",
    "LASTING",
    "NUMBER_DIGITS",
    "PASSING",
    "SEALED",
    "TABLES",
    "WITH_SECRETS",
    "SealedTable",
]


@dataclass(frozen=True, slots=True)
class SealedTable:
    """A table of which no row is believed that the brokers did not make.

    Attributes:
        key: its columns, of which the first says the bucket.
        values: the other columns.
    """

    key: tuple[str, ...]
    values: tuple[str, ...] = ()


SEALED: Mapping[str, SealedTable] = {
    "resources": SealedTable(
        ("path",),
        ("sealed", "size", "version", "created_at", "expires", "max_uses", "uses"),
    ),
    "former_resources": SealedTable(
        ("path", "version"),
        ("sealed", "size", "created_at", "expires", "max_uses", "uses", "manifest_digests"),
    ),
    "versions": SealedTable(("path",), ("last",)),
    "bindings": SealedTable(("path", "manifest_digest")),
    "images": SealedTable(
        ("repository", "manifest_digest"),
        ("number", "state", "successor", "reason", "proposed_by", "proposed_at"),
    ),
    "approvals": SealedTable(("repository", "manifest_digest", "admin"), ("until", "signature")),
    "floors": SealedTable(("repository",), ("number",)),
    "tenants": SealedTable(("name",), ("gone",)),
    "repositories": SealedTable(("name",), ("tenant",)),
    "admins": SealedTable(("id",), ("tenant", "name", "roles", "public_key")),
    "policies": SealedTable(("tenant", "name"), ("value",)),
    "reference_values": SealedTable(("tenant", "name"), ("value",)),
}
"""What releases and the rights of admins are judged by. `sealed.SealedRows` reads and writes it."""

WITH_SECRETS = tuple(name for name, one in SEALED.items() if "sealed" in one.values)
"""Those whose rows have a sealed value, of their `path` and `version`."""

LASTING: Mapping[str, tuple[str, str | int]] = {"images": ("state", "revoked")}
"""Rows that stay for ever, whatever is restored: tables, a column and what is in it then."""

DEFAULT_TENANT = "default"
"""Is always there, and owns each repository that nobody else does."""

NUMBER_DIGITS = 50
"""Of a number of collateral, in text that compares as the number: a CRL's can have 20 bytes."""

AUDIT_TEXTS = (
    "tenant",
    "at",
    "event",
    "outcome",
    "tee",
    "path",
    "image",
    "rule",
    "session",
    "client",
    "evidence",
    "claims",
    "admin",
    "detail",
)

PASSING = ("sessions", "era")
"""Tables that need not outlive a fall of the database: guests shake hands again."""

# BYTES and PLACE are types that each kind of database has under a name of its own; a place is a
# number that the database gives, higher for each row.
_SCHEMA = """
CREATE TABLE resources (
    path TEXT PRIMARY KEY, sealed BYTES NOT NULL, size BIGINT NOT NULL, version BIGINT NOT NULL,
    created_at TEXT NOT NULL, expires BIGINT NOT NULL, max_uses BIGINT NOT NULL,
    uses BIGINT NOT NULL
);
CREATE TABLE former_resources (
    path TEXT NOT NULL, sealed BYTES NOT NULL, size BIGINT NOT NULL, version BIGINT NOT NULL,
    created_at TEXT NOT NULL, expires BIGINT NOT NULL, max_uses BIGINT NOT NULL,
    uses BIGINT NOT NULL, manifest_digests TEXT NOT NULL, PRIMARY KEY (path, version)
);
CREATE TABLE versions (path TEXT PRIMARY KEY, last BIGINT NOT NULL);
CREATE TABLE bindings (
    path TEXT NOT NULL, manifest_digest TEXT NOT NULL, PRIMARY KEY (path, manifest_digest)
);
CREATE TABLE images (
    repository TEXT NOT NULL, manifest_digest TEXT NOT NULL, number BIGINT NOT NULL,
    state TEXT NOT NULL, successor TEXT NOT NULL, reason TEXT NOT NULL, proposed_by TEXT NOT NULL,
    proposed_at TEXT NOT NULL, PRIMARY KEY (repository, manifest_digest)
);
CREATE TABLE approvals (
    repository TEXT NOT NULL, manifest_digest TEXT NOT NULL, admin TEXT NOT NULL,
    until BIGINT NOT NULL, signature BYTES NOT NULL,
    PRIMARY KEY (repository, manifest_digest, admin)
);
CREATE TABLE floors (repository TEXT PRIMARY KEY, number BIGINT NOT NULL);
CREATE TABLE sessions (
    nonce TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, broker TEXT NOT NULL, tee TEXT NOT NULL,
    instance TEXT NOT NULL, slot BIGINT, expires_ms BIGINT NOT NULL, keep_until_ms BIGINT NOT NULL,
    attested_with TEXT NOT NULL, token TEXT NOT NULL, UNIQUE (tee, instance, slot)
);
CREATE INDEX sessions_by_end ON sessions (keep_until_ms);
CREATE INDEX sessions_by_broker ON sessions (broker);
CREATE TABLE era (number BIGINT PRIMARY KEY);
CREATE TABLE store (id BYTES NOT NULL, changes BIGINT NOT NULL, head BYTES, head_key TEXT);
CREATE TABLE seals (
    bucket BIGINT NOT NULL, name TEXT NOT NULL, digest BYTES NOT NULL, PRIMARY KEY (bucket, name)
);
CREATE TABLE buckets (number BIGINT PRIMARY KEY, digest BYTES NOT NULL);
CREATE TABLE brokers (name TEXT PRIMARY KEY, seen_ms BIGINT NOT NULL);
CREATE TABLE settings (name TEXT PRIMARY KEY, value BYTES NOT NULL);
CREATE TABLE tenants (name TEXT PRIMARY KEY, gone BIGINT NOT NULL);
CREATE TABLE repositories (name TEXT PRIMARY KEY, tenant TEXT NOT NULL);
CREATE TABLE admins (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, roles TEXT NOT NULL,
    public_key BYTES NOT NULL, UNIQUE (tenant, name)
);
CREATE TABLE policies (
    tenant TEXT NOT NULL, name TEXT NOT NULL, value BYTES NOT NULL, PRIMARY KEY (tenant, name)
);
CREATE TABLE reference_values (
    tenant TEXT NOT NULL, name TEXT NOT NULL, value BYTES NOT NULL, PRIMARY KEY (tenant, name)
);
CREATE TABLE collateral (name TEXT PRIMARY KEY, number TEXT NOT NULL);
CREATE TABLE audit (
    place PLACE, broker TEXT NOT NULL, number BIGINT NOT NULL, {texts}, hash BYTES NOT NULL,
    UNIQUE (broker, number)
);
CREATE INDEX audit_by_tenant ON audit (tenant, place);
CREATE TABLE audit_heads (
    broker TEXT NOT NULL, number BIGINT NOT NULL, signed TEXT NOT NULL,
    PRIMARY KEY (broker, number)
);
"""
TABLES = tuple(
    one.strip()
    for one in _SCHEMA.format(texts=" TEXT NOT NULL, ".join((*AUDIT_TEXTS, ""))[:-2]).split(";")
    if one.strip()
)

COLUMNS: Mapping[str, Mapping[str, str]] = {
    table.split()[2]: {
        name: kind.rstrip(",")
        for name, kind in pairwise(table.replace("(", " ").split())
        if kind.rstrip(",") in ("TEXT", "BYTES", "BIGINT")
    }
    for table in TABLES
    if table.startswith("CREATE TABLE")
}
"""By table, the kinds of its columns."""
