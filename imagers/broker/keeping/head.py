# SPDX-License-Identifier: Apache-2.0
"""What all rows of the sealed tables are, in one number and one MAC: the head of a store.

    row       SHA-256 over how many fields its name has, table, key and values
    bucket    one of 256, by table and first column of the key: SHA-256 over its rows, by name
    head      HMAC-SHA-256 over the number of changes and the digests of all buckets

A field is its kind (s, b, i or n), its length in four bytes, and its bytes; a name is the JSON of
its table and its key.

A broker holds the head that it has verified. After a change of another broker it reads only the
buckets that are other ones than before.

No IO here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "BUCKETS",
    "DIGEST_BYTES",
    "Bucket",
    "Head",
    "Name",
    "Seen",
    "Value",
    "bucket_of",
    "row_digest",
    "shown",
]

BUCKETS = 256
DIGEST_BYTES = 32
_EMPTY = bytes(DIGEST_BYTES)  # of a bucket without rows
_LABEL = b"imagers-broker head v1\0"
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_KINDS: Mapping[type, bytes] = {str: b"s", bytes: b"b", int: b"i"}

Name = tuple[str | int, ...]
"""A table, and the key of a row in it."""
Value = str | bytes | int | None


def _field(value: Value) -> bytes:
    if value is None:
        return b"n"
    data = value if isinstance(value, bytes) else str(value).encode()
    kind = _KINDS.get(type(value), b"?")  # a database of loose types can be given any other
    return b"%b%b%b" % (kind, len(data).to_bytes(4, "big"), data)


def row_digest(name: Name, values: Iterable[Value]) -> bytes:
    """The digest of a row: no two lists of fields have one text."""
    return sha256(b"".join(map(_field, (len(name), *name, *values)))).digest()


def bucket_of(name: Name) -> int:
    """The number of the bucket: one for all rows of a table with this first column."""
    return _bucket_of(name[:2])


@lru_cache(maxsize=65536)
def _bucket_of(group: Name) -> int:
    return sha256(shown(group).encode()).digest()[0]


def shown(name: Name) -> str:
    """The name as text, of which there is one."""
    return _encode(name)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a broker has seen of a store, kept outside of it.

    Attributes:
        number: of the newest head.
        lasting: rows that stay for ever: table, then the values of key and other columns.
    """

    number: int
    lasting: tuple[tuple[Value, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Bucket:
    """Rows, and the digest of all of them.

    Attributes:
        groups: by table and first column of the key: the digests of rows, by name. Each has
            `DIGEST_BYTES`: then no two buckets have one digest.
    """

    groups: Mapping[Name, Mapping[Name, bytes]] = field(default_factory=dict)
    digest: bytes = _EMPTY

    @classmethod
    def of(cls, groups: Mapping[Name, Mapping[Name, bytes]]) -> Bucket:
        """The bucket of these rows."""
        rows = {shown(name): digest for group in groups.values() for name, digest in group.items()}
        if not rows:
            return cls()
        parts = (_field(name) + rows[name] for name in sorted(rows))
        return cls(groups, sha256(b"".join(parts)).digest())

    def changed(self, marked: Mapping[Name, bytes | None]) -> Bucket:
        """The bucket after rows were set, or, where there is no digest, removed."""
        groups = dict(self.groups)
        for group in {name[:2] for name in marked}:
            rows = dict(groups.pop(group, {}))
            for name, digest in marked.items():
                if name[:2] != group:
                    continue
                rows.pop(name, None)
                if digest is not None:
                    rows[name] = digest
            if rows:
                groups[group] = rows
        return Bucket.of(groups)


@dataclass(frozen=True, slots=True)
class Head:
    """All rows of the sealed tables as they were after so many changes.

    Attributes:
        key: id of the master key that the MAC is made with.
    """

    number: int
    key: str
    mac: bytes
    buckets: Sequence[Bucket] = field(default=(Bucket(),) * BUCKETS, repr=False)

    @staticmethod
    def message(number: int, digests: Iterable[bytes]) -> bytes:
        """What the MAC is made over: the digests are those of all buckets, in their order."""
        return _LABEL + number.to_bytes(8, "big") + b"".join(digests)

    def find(self, name: Name) -> bytes | None:
        """The digest of the row of that name; None: there is no such row."""
        return self.buckets[bucket_of(name)].groups.get(name[:2], {}).get(name)

    def rows(self, prefix: Name) -> Mapping[Name, bytes]:
        """The digests of all rows of a table, or of those whose key begins so, by name."""
        if len(prefix) > 1:
            group = self.buckets[bucket_of(prefix)].groups.get(prefix[:2], {})
            if len(prefix) == len(prefix[:2]):
                return group
            return {name: one for name, one in group.items() if name[: len(prefix)] == prefix}
        found: dict[Name, bytes] = {}
        for bucket in self.buckets:
            for group_name, group in bucket.groups.items():
                if group_name[0] == prefix[0]:
                    found.update(group)
        return found

    def changed(self, marked: Mapping[Name, bytes | None]) -> Mapping[int, Bucket]:
        """The buckets that are other ones after the rows were set or removed."""
        by_bucket: dict[int, dict[Name, bytes | None]] = {}
        for name, digest in marked.items():
            if self.find(name) != digest:
                by_bucket.setdefault(bucket_of(name), {})[name] = digest
        return {number: self.buckets[number].changed(rows) for number, rows in by_bucket.items()}
