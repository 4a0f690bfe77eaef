# SPDX-License-Identifier: Apache-2.0
"""Encryption of what storage keeps: AES-256-GCM under the master key.

    12 bytes nonce ‖ ciphertext ‖ 16 bytes tag
    additional data: "imagers-broker seal v1" NUL kind NUL name NUL version

A sealed value is good for one place only: under another name or version number it does not open.
(An old row that is put back whole, number included, does: what is in the database besides sealed
values is not authenticated, docs/threats.md.) Random 96-bit nonces under one key: at 2**32 values
a repetition is as likely as 2**-33 (NIST SP 800-38D section 8.3); a broker writes one for each
put.

Who can write the database can still delete, put back, and change policy and bindings, which
are not secret: sealing keeps secrets, it does not replace the permissions of the folder.
"""

from __future__ import annotations

import os

from imagers.errors import LocalError, TagMismatch
from imagers.model.keys import SecretKey

__all__ = ["Sealer", "derive_key"]

_CONTEXT = "imagers-broker seal v1"
_NONCE_BYTES = 12
_TAG_BYTES = 16
_DERIVED_BYTES = 32


def derive_key(master_key: bytearray, *, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose, which tells nothing of the master key or of others.

    Spec: RFC 5869 (HKDF) with SHA-256, no salt, the purpose as info.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derived = HKDF(hashes.SHA256(), _DERIVED_BYTES, salt=None, info=purpose.encode())
    return derived.derive(master_key)


class Sealer:
    """Seals and opens values.

    Args:
        master_key: 32 bytes; the caller wipes its copy. `cryptography` keeps one of its own
            for the life of the broker (docs/threats.md).

    Threads: safe.
    """

    def __init__(self, master_key: bytearray) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aead = AESGCM(master_key)

    def seal(self, secret: SecretKey, *, kind: str, name: str, version: int) -> bytes:
        """`secret`, sealed for one place."""
        nonce = os.urandom(_NONCE_BYTES)
        with secret.view() as data:
            return nonce + self._aead.encrypt(nonce, data, _place(kind, name, version))

    def open(self, sealed: bytes, *, kind: str, name: str, version: int) -> SecretKey:
        """The secret of that place; the caller closes it.

        Raises:
            TagMismatch: sealed for another place, with another key, or changed.
        """
        from cryptography.exceptions import InvalidTag

        what = f"sealed {kind} '{name}'"
        if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
            raise TagMismatch(what=what)
        try:
            data = self._aead.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _place(kind, name, version)
            )
        except InvalidTag:
            raise TagMismatch(what=what) from None
        return SecretKey(data)

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
                hint="bring back the master key that was in use when the store was made",
            ) from None


def _place(kind: str, name: str, version: int) -> bytes:
    parts = (_CONTEXT, kind, name, str(version))
    assert not any("\0" in part for part in parts)
    return "\0".join(parts).encode()
