# SPDX-License-Identifier: Apache-2.0
"""The schema, the same in each kind of database.

resources  path -> sealed secret, its size and version
versions   path -> the last version; it goes on when a path is deleted and made again, so that
           an old sealed value does not open in the new row
bindings   path, manifest digest: which images a resource belongs to
sessions   handshakes whose evidence was accepted, unique by nonce and by place of a machine
era        one row, kept as sessions are: gone when they are
store      one row: the random id of this database, how often it was changed
brokers    name -> the highest time that this broker has seen
settings   the sealed token key, the policy
reference_values  name -> what claims of that name have to equal
collateral        name -> the highest number or time of a document that was believed
audit      rows that triggers protect from change, a chain for each broker
"""

from __future__ import annotations

import sqlalchemy as sa

__all__ = [
    "AUDIT_TEXTS",
    "METADATA",
    "NUMBER_DIGITS",
    "audit",
    "bindings",
    "brokers",
    "collateral",
    "era",
    "reference_values",
    "resources",
    "sessions",
    "settings",
    "store",
    "versions",
]

NUMBER_DIGITS = 50
"""Of a number of collateral, in text that compares as the number: a CRL's can have 20 bytes."""

AUDIT_TEXTS = (
    "at",
    "event",
    "outcome",
    "tee",
    "path",
    "image",
    "rule",
    "session",
    "detail",
)

METADATA = sa.MetaData()

resources = sa.Table(
    "resources",
    METADATA,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
)
versions = sa.Table(
    "versions",
    METADATA,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("last", sa.Integer, nullable=False),
)
bindings = sa.Table(
    "bindings",
    METADATA,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("manifest_digest", sa.Text, primary_key=True),
)
sessions = sa.Table(
    "sessions",
    METADATA,
    sa.Column("nonce", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("broker", sa.Text, nullable=False, index=True),
    sa.Column("tee", sa.Text, nullable=False),
    sa.Column("instance", sa.Text, nullable=False),
    sa.Column("slot", sa.Integer),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
    sa.Column("keep_until_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("attested_with", sa.Text, nullable=False),
    sa.Column("token", sa.Text, nullable=False),
    sa.UniqueConstraint("tee", "instance", "slot", name="places_of_a_machine"),
)
era = sa.Table("era", METADATA, sa.Column("number", sa.Integer, primary_key=True))
store = sa.Table(
    "store",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.LargeBinary, nullable=False),
    sa.Column("changes", sa.BigInteger, nullable=False),
)
brokers = sa.Table(
    "brokers",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("seen_ms", sa.BigInteger, nullable=False),
)
settings = sa.Table(
    "settings",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
reference_values = sa.Table(
    "reference_values",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
collateral = sa.Table(
    "collateral",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.Text, nullable=False),
)
audit = sa.Table(
    "audit",
    METADATA,
    # The order of all brokers' rows; it may have gaps.
    sa.Column("place", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("broker", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    *(sa.Column(name, sa.Text, nullable=False) for name in AUDIT_TEXTS),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("broker", "number", name="links_of_a_chain"),
    sqlite_autoincrement=True,
)
