# SPDX-License-Identifier: Apache-2.0
"""The values that the store keeps, as it gives them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from imagers.kbs.resources import ResourcePath
    from imagers.model.digest import Digest

__all__ = ["Admin", "Approval", "FormerResource", "Image", "Session", "StoreRow", "StoredResource"]


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
    """A resource as it is stored; `sealed` opens with kind `resource`, its path and version.

    Attributes:
        expires: seconds since 1970, from which on it is not released; 0: never.
        max_uses: how often it is released; 0: without an end.
        uses: how often it was, counted where there is an end.
    """

    path: ResourcePath
    sealed: bytes
    size: int
    version: int
    created_at: str
    expires: int = 0
    max_uses: int = 0
    uses: int = 0


@dataclass(frozen=True, slots=True)
class FormerResource:
    """A resource that was replaced or deleted, and the images that it belonged to."""

    resource: StoredResource
    manifest_digests: frozenset[Digest]


@dataclass(frozen=True, slots=True)
class Approval:
    """An admin's word that an image is good, as it was given; it may count no more.

    Attributes:
        admin: the id of his key.
        until: seconds since 1970, when it is over.
        signature: see `imagers.kbs.images`.
    """

    admin: str
    until: int
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of a repository; it is known for ever.

    Attributes:
        number: its place among the images of its repository, in the order in which they were
            proposed.
        state: `revoked` is final.
        successor: what to take in its place, if that was said; also of one that is revoked.
        reason: why it was revoked, else "".
        proposed_by: the id of the admin key that bound it first; "": it is not known.
        proposed_at: RFC 3339, by the broker's clock; "" as above.
    """

    repository: str
    digest: Digest
    number: int
    state: Literal["current", "superseded", "revoked"] = "current"
    successor: Digest | None = None
    reason: str = ""
    proposed_by: str = ""
    proposed_at: str = ""


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
