# SPDX-License-Identifier: Apache-2.0
"""The values that the store keeps, as it gives them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.kbs.resources import ResourcePath

__all__ = ["Admin", "Session", "StoreRow", "StoredResource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """Who may administrate, and what of it.

    Attributes:
        id: hash of the public key, in hex.
        name: what his tenant calls him.
        public_key: the 32 bytes of an Ed25519 key.
    """

    id: str
    tenant: str
    name: str
    roles: frozenset[str]
    public_key: bytes


@dataclass(frozen=True, slots=True)
class StoredResource:
    """A resource as it is stored; `sealed` opens with kind `resource`, its path and version."""

    path: ResourcePath
    sealed: bytes
    size: int
    version: int
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A handshake whose evidence was accepted.

    Attributes:
        name: hash of the session's id, in hex: names the session and does not open it.
        instance: which machine the evidence is of, where its verifier tells; else "".
        slot: which of the places of its machine it takes; None without an instance.
        expires_ms: when session and token are over.
        keep_until_ms: until when the row is kept, so that its nonce is taken once.
        attested_with: hash of the attestation that was accepted.
    """

    name: str
    nonce: str
    tee: str
    instance: str = ""
    slot: int | None = None
    expires_ms: int
    keep_until_ms: int
    attested_with: str
    token: str


@dataclass(frozen=True, slots=True)
class StoreRow:
    """What the database says of itself.

    Attributes:
        id: random; of this database, and of no copy that began again.
        changes: counts what releases are judged by: resources, bindings, policies, values, owners.
        seen_ms: the highest time that any broker of this store kept.
        has_sessions: whether the rows of sessions are whole. A database that keeps them in
            memory loses them when it falls, and with them which nonces are taken.
        head: the MAC of the sealed tables after these changes; see `head`.
        head_key: id of the master key that it is made with.
    """

    id: bytes
    changes: int
    seen_ms: int
    has_sessions: bool
    head: bytes | None = None
    head_key: str = ""
