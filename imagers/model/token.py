# SPDX-License-Identifier: Apache-2.0
"""Keys on hardware tokens: how one is named, and the Protocols of the plugin that uses it.

    TokenReference(token="imagers", object="layers")       # pkcs11:token=imagers;object=layers

The plugin is found by the entry point `pkcs11` of the group `imagers.tokens`; only a key
file that names a token needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.keys import SecretKey

__all__ = ["TOKEN_GROUP", "TokenKey", "TokenProvider", "TokenReference"]

TOKEN_GROUP = "imagers.tokens"  # noqa: S105  # a name, no secret
"""The entry points of token plugins."""


@dataclass(frozen=True, slots=True)
class TokenReference:
    """Which key on which token, and how to get there.

    What is empty or None was not said, and everything that was said must fit.

    Attributes:
        token: its label.
        serial: of the token.
        slot_id: where the token is.
        object: label of the key.
        id: of the key.
        pin: to log in with; None where the token is used without. Wiped by its owner.
        module_path: shared library of the token; "" if `module_name` says which.
        module_name: such as `softhsm2`, looked for where such libraries are.
        environment: variables that the library is to find.
    """

    token: str = ""
    serial: str = ""
    slot_id: int | None = None
    object: str = ""
    id: bytes = b""
    pin: SecretKey | None = field(default=None, repr=False)
    module_path: str = ""
    module_name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class TokenKey(Protocol):
    """One RSA key on a token, in a session of its own."""

    def public_key(self) -> bytes:
        """The public half, DER SubjectPublicKeyInfo.

        Raises:
            KeyUnavailable: the token does not give it.
        """

    def decrypt_oaep(self, ciphertext: bytes, hash_name: str) -> SecretKey | None:
        """The content of RSAES-OAEP; None if it is for another key or was changed.

        Args:
            hash_name: `sha1` or `sha256`, also that of MGF1; the label is empty.

        Raises:
            Unsupported: the token does not do this.
            KeyUnavailable: it refuses.
        """

    def close(self) -> None:
        """End the session. Safe to call twice."""


@runtime_checkable
class TokenProvider(Protocol):
    """Opens keys on tokens of one kind."""

    def open_key(self, reference: TokenReference, *, private: bool) -> TokenKey:
        """The one key that the reference names; the caller closes it.

        Args:
            private: whether it is to decrypt, or only to tell its public half.

        Raises:
            KeyUnavailable: no such token or key, several, or the PIN is wrong.
            LocalError: the library cannot be loaded.
        """
