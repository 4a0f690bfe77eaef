# SPDX-License-Identifier: Apache-2.0
r"""Seals: what was verified of a kept layer, when, by which policy and keys, under a MAC.

    seal = parse_seal(data, key, name)
    data = write_seal(seal, key)

A seal is two lines, the MAC of the second and the second:

    0123...ef\n                          HMAC-SHA256, 64 lower-case hex digits
    {"basis":"signature",...}\n          JSON, names sorted, no spaces

The MAC's key is the guest's: who may write to the disk that the store is on can take entries
away, or bring back old ones, and cannot make one.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.errors import FormatError, IntegrityError
from imagers.model.digest import Digest, parse_digest
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from imagers.model.keys import SecretKey

__all__ = ["MAX_SEAL_BYTES", "Checks", "Seal", "StoredAs", "entry_name", "parse_seal", "write_seal"]

MAX_SEAL_BYTES = 1024 * 1024
_MAC_HEX = 64
_VERSION = 1
_SEAL_LABEL = b"imagers store seal 1\0"
_KEY_LABEL = b"imagers store layer key 1\0"


def entry_name(kind: str, digest: Digest) -> str:
    """The name of an entry: what is kept, and the digest that it is found by.

    Args:
        kind: "blob", or the way in which a tree is kept; lower-case letters.
        digest: of the stored bytes of a blob; the ChainID of a tree.
    """
    return f"{kind}-{digest.algorithm}-{digest.hex}"


@dataclass(frozen=True, slots=True)
class StoredAs:
    """The stored bytes that a layer was found in.

    Attributes:
        digest: of the stored bytes.
        key_code: what tells the layer's key from another, without telling it; "" where the layer
            was not encrypted.
    """

    digest: Digest
    key_code: str

    @classmethod
    def of(cls, digest: Digest, layer_key: SecretKey | None, *, key: SecretKey) -> StoredAs:
        """The value for a layer with this key; `key` is the store's."""
        if layer_key is None:
            return cls(digest, "")
        with layer_key.view() as other:
            return cls(digest, _mac(_KEY_LABEL, other, key))


@dataclass(frozen=True, slots=True)
class Checks:
    """On whose word a layer was kept.

    Attributes:
        image: digest of the manifest whose signatures and policy were evaluated.
        basis: why that was trusted, such as "signature".
        policy: SHA-256 of the policy, hex.
        signers: keys of signatures, as the policy's decision names them.
        at: when, seconds since the epoch.
    """

    image: Digest
    basis: str
    policy: str
    signers: tuple[str, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Seal:
    """See the module.

    Attributes:
        name: of the entry: a seal is good for no other.
        needs: names of the entries that this one is nothing without.
        diff_id: of the layer's tar; None for what is no layer.
        size: bytes that the entry is counted with.
        stored_as: what the layer was found in. A tree is given to no image in which it is
            something else.
        checks: see `Checks`.
        tar_size, entries, hole_bytes: of the tar, for reports and limits.
        left_out: of the tar, as its writer has it.
        facts: what its writer must know to open it, such as a root hash.
        content: digest over the content of a tree; "" for a blob.
    """

    name: str
    size: int
    checks: Checks
    needs: tuple[str, ...] = ()
    diff_id: Digest | None = None
    stored_as: tuple[StoredAs, ...] = ()
    tar_size: int = 0
    entries: int = 0
    hole_bytes: int = 0
    left_out: tuple[dict[str, str], ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    content: str = ""


def write_seal(seal: Seal, key: SecretKey) -> bytes:
    """The bytes of a seal under `key`."""
    document = dump_json(
        {
            "basis": seal.checks.basis,
            "checked_at": seal.checks.at,
            "content": seal.content,
            "diff_id": None if seal.diff_id is None else str(seal.diff_id),
            "entries": seal.entries,
            "facts": dict(sorted(seal.facts.items())),
            "hole_bytes": seal.hole_bytes,
            "image": str(seal.checks.image),
            "left_out": [dict(sorted(one.items())) for one in seal.left_out],
            "name": seal.name,
            "needs": list(seal.needs),
            "policy": seal.checks.policy,
            "signers": list(seal.checks.signers),
            "size": seal.size,
            "stored_as": [
                {"digest": str(one.digest), "key_code": one.key_code} for one in seal.stored_as
            ],
            "tar_size": seal.tar_size,
            "version": _VERSION,
        }
    )
    return _mac(_SEAL_LABEL, document, key).encode() + b"\n" + document + b"\n"


def parse_seal(data: bytes, key: SecretKey, name: str) -> Seal:
    """The seal of the entry `name`.

    Raises:
        IntegrityError: it was not written under `key`, or for another entry.
        FormatError: it is no seal.
    """
    what = f"seal of {name}"
    mac, separator, document = data[:-1].partition(b"\n")
    if data[-1:] != b"\n" or not separator or len(mac) != _MAC_HEX:
        raise FormatError("expected two lines, a MAC and a document", what=what)
    # Before anything of the document is parsed.
    if not hmac.compare_digest(_mac(_SEAL_LABEL, document, key).encode(), mac):
        raise IntegrityError(f"{what}: it was not written under this store's key")
    view = View.parse(document, what=what, max_bytes=MAX_SEAL_BYTES)
    if view.integer("version") != _VERSION:
        raise FormatError(f"expected version {_VERSION}, got another", what=what)
    if view.text("name") != name:
        raise IntegrityError(f"{what}: it is that of {view.text('name')}")
    return Seal(
        name=name,
        needs=tuple(view.texts("needs")),
        diff_id=None
        if (diff_id := view.optional_text("diff_id")) is None
        else parse_digest(diff_id, what=what, where=view.at("diff_id")),
        size=view.integer("size"),
        stored_as=tuple(
            StoredAs(
                parse_digest(one.text("digest"), what=what, where=one.at("digest")),
                one.text("key_code"),
            )
            for one in view.objects("stored_as")
        ),
        checks=Checks(
            image=parse_digest(view.text("image"), what=what, where=view.at("image")),
            basis=view.text("basis"),
            policy=view.text("policy"),
            signers=tuple(view.texts("signers")),
            at=view.integer("checked_at"),
        ),
        tar_size=view.integer("tar_size"),
        entries=view.integer("entries"),
        hole_bytes=view.integer("hole_bytes"),
        left_out=tuple(
            {name: one.text(name) for name in ("attribute", "count", "first", "kind")}
            for one in view.objects("left_out")
        ),
        facts=view.string_map("facts"),
        content=view.text("content"),
    )


def _mac(label: bytes, data: bytes | memoryview, key: SecretKey) -> str:
    with key.view() as view:
        secret = bytearray(view)
    try:
        code = hmac.new(secret, label, "sha256")
    finally:
        secret[:] = bytes(len(secret))
    code.update(data)
    return code.hexdigest()
