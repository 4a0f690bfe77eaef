# SPDX-License-Identifier: Apache-2.0
"""Encryption of what storage keeps, and the MAC of its head, under the master key.

    8 bytes id of the master key ‖ 12 bytes nonce ‖ ciphertext ‖ 16 bytes tag     AES-256-GCM
    additional data: "imagers-broker seal v2" NUL kind NUL name NUL version NUL id in hex

A sealed value is good for one place only: under another name or version number it does not open.
That a row is the one that a broker wrote last is the head's business (`keeping.head`), whose key is
derived from the master key. Random 96-bit nonces under one key: at 2**32 values a repetition is as
likely as 2**-33 (NIST SP 800-38D section 8.3); a broker writes one for each put.

Values of stores that were made before there were ids begin with the nonce, and their additional
data says "v1" and no id. They open until the master key is rotated, which seals them anew.

While it is rotated there are two master keys. The head names the one in force, which seals what is
new; what a broker has not, it looks for when it meets it.
"""

from __future__ import annotations

import hmac
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from imagers.errors import LocalError, TagMismatch
from imagers.model.keys import SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from imagers.broker.keeping.sealed import HeadKeys

__all__ = ["RESOURCE_KIND", "SETTING_KIND", "Sealer", "derive_key", "key_id_of"]

RESOURCE_KIND = "resource"
"""Of what the sealer seals: the secrets of the owner."""
SETTING_KIND = "setting"
"""The same: the keys that all brokers of a store share."""

_CONTEXT = "imagers-broker seal v2"
_CONTEXT_WITHOUT_ID = "imagers-broker seal v1"
_ID_PURPOSE = "imagers-broker key id v1"
_HEAD_PURPOSE = "imagers-broker head key v1"
_ID_BYTES = 8
_NONCE_BYTES = 12
_TAG_BYTES = 16
_DERIVED_BYTES = 32


def derive_key(secret: bytes | bytearray, *, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose, which tells nothing of the secret or of others.

    Spec: RFC 5869 (HKDF) with SHA-256, no salt, the purpose as info.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derived = HKDF(hashes.SHA256(), _DERIVED_BYTES, salt=None, info=purpose.encode())
    return derived.derive(secret)


def key_id_of(master_key: bytearray) -> str:
    """What a master key is called: 16 hex digits, which tell nothing of it."""
    return derive_key(master_key, purpose=_ID_PURPOSE)[:_ID_BYTES].hex()


@dataclass(frozen=True, slots=True, repr=False)
class _Key:
    """What is derived from a master key, or holds it."""

    aead: AESGCM
    head: bytes


class Sealer:
    """Seals and opens values, and makes the MACs of heads.

    Args:
        master_keys: of 32 bytes, the first one in force; the caller wipes his copies.
            `cryptography` keeps them for the life of the broker (docs/threats.md).
        find: gives those that are there now, of which there may be others than before.

    Attributes:
        current: id of the key in force.
        ids: of the keys that it was given.

    Threads: safe.
    """

    def __init__(
        self,
        master_keys: Sequence[bytearray],
        find: Callable[[], Iterable[bytearray]] = tuple,
    ) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._keys: dict[str, _Key] = {}
        self._add(master_keys)
        self.ids = tuple(self._keys)
        self.current = self.ids[0]

    def _add(self, master_keys: Iterable[bytearray]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        for one in master_keys:
            head = derive_key(one, purpose=_HEAD_PURPOSE)
            self._keys.setdefault(key_id_of(one), _Key(AESGCM(one), head))

    def _key(self, key_id: str) -> _Key:
        """The key of that id.

        Raises:
            LocalError: it is not here.
        """
        with self._lock:
            if key_id not in self._keys:
                for one in self._find():
                    self._add([one])
                    one[:] = bytes(len(one))
            if key_id in self._keys:
                return self._keys[key_id]
        raise LocalError(
            f"the store is sealed with the master key {key_id[:16]}, and here "
            f"{'are' if len(self._keys) > 1 else 'is'} {', '.join(sorted(self._keys))}",
            hint="bring back the master key that was in use; where it is being rotated, copy "
            "master.next from the state directory where that was begun",
        )

    def mac(self, key: str, message: bytes) -> bytes:
        """See `HeadKeys`."""
        return hmac.digest(self._key(key).head, message, sha256)

    def seal(self, secret: SecretKey, *, kind: str, name: str, version: int) -> bytes:
        """`secret`, sealed for one place with the key in force."""
        key_id = self.current
        nonce = os.urandom(_NONCE_BYTES)
        place = _place(_CONTEXT, kind, name, str(version), key_id)
        aead = self._key(key_id).aead
        with secret.view() as data:
            return bytes.fromhex(key_id) + nonce + aead.encrypt(nonce, data, place)

    def key_of(self, sealed: bytes) -> str:
        """The id of the key that a value names; of one from before ids, any."""
        return sealed[:_ID_BYTES].hex()

    def open(self, sealed: bytes, *, kind: str, name: str, version: int) -> SecretKey:
        """The secret of that place; the caller closes it.

        Raises:
            TagMismatch: sealed for another place, with another key, or changed.
        """
        what = f"sealed {kind} '{name}'"
        key_id = self.key_of(sealed)
        place = kind, name, str(version)
        if key_id not in self._keys:
            for key in list(self._keys.values()):
                with suppress(TagMismatch):
                    return _open(key, sealed, _place(_CONTEXT_WITHOUT_ID, *place), what)
        try:
            key = self._key(key_id)
        except LocalError as error:
            raise TagMismatch(what=what, hint=str(error)) from None
        return _open(key, sealed[_ID_BYTES:], _place(_CONTEXT, *place, key_id), what)

    def open_first(self, sealed: bytes, *, kind: str, name: str, master_key_path: str) -> SecretKey:
        """Like `open`, for the value that a start looks at: it tells a wrong master key.

        Raises:
            LocalError: the master key is not the one of this store.
        """
        try:
            return self.open(sealed, kind=kind, name=name, version=1)
        except TagMismatch:
            raise LocalError(
                "this master key does not open the store: it belongs to another one, "
                "or the store was changed",
                path=master_key_path,
                hint="bring back the master key that was in use; where it was rotated, that is the "
                "one of the broker where it was",
            ) from None


if TYPE_CHECKING:

    def _is_head_keys(sealer: Sealer) -> HeadKeys:
        return sealer


def _open(key: _Key, sealed: bytes, place: bytes, what: str) -> SecretKey:
    from cryptography.exceptions import InvalidTag

    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        raise TagMismatch(what=what)
    try:
        data = key.aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
    except InvalidTag:
        raise TagMismatch(what=what) from None
    return SecretKey(data)


def _place(*parts: str) -> bytes:
    assert not any("\0" in part for part in parts)
    return "\0".join(parts).encode()
