# SPDX-License-Identifier: Apache-2.0
"""What a kind of recipient is, and the table of them.

    find_scheme("jwe").open_wrappers(["a.pem", "b.pem"], settings, stack)

A kind is a module with a `SCHEME`, and one line in `SCHEMES`, which imports it when it is used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from imagers.errors import UsageError
from imagers.model.keys import KeyUnwrapper, KeyWrapper, SecretKey, WrappedKey

if TYPE_CHECKING:
    from imagers.encrypt.keyfiles import DecryptionFile

__all__ = [
    "SCHEMES",
    "TIMEOUT_S",
    "ProviderSettings",
    "Row",
    "Scheme",
    "Target",
    "expected_recipients",
    "find_scheme",
    "scheme_of",
]

TIMEOUT_S = 60.0
"""How long a provider may take for one answer: an attestation may be behind it."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Where key providers are, and what they may take.

    Attributes:
        config_path: of the ocicrypt key-provider configuration; None for no providers.
        timeout_s: for one answer.
        oaep_hash: of PKCS11 packets; None for the first that fits a key.
        gpg_home: of the user's keyring; None for gpg's default.
        ask: gets the passphrase of a key, of which it is told the file, from a person; gives
            None where there is nobody. The caller of it wipes what it gives.
    """

    config_path: str | None = None
    timeout_s: float = TIMEOUT_S
    oaep_hash: str | None = None
    gpg_home: str | None = field(default=None)
    ask: Callable[[str], SecretKey | None] | None = None


class Target(Protocol):
    """Whom packets are to be taken from."""

    @property
    def name(self) -> str:
        """In messages."""

    def drop_from(self, wrapped: WrappedKey, number: int) -> bytes | None:
        """The packet without them; None if nobody is left in it.

        Args:
            number: of the packet, from 1, among those of its scheme.
        """


class Scheme(ABC):
    """One kind of recipient."""

    def check(self, value: str) -> None:
        """Raise unless `value` can stand after the name of the kind. Opens nothing.

        Raises:
            UsageError, FormatError: it cannot.
        """
        del value

    @abstractmethod
    def open_wrappers(
        self, values: Sequence[str], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyWrapper]:
        """What wraps keys for all these recipients, closed with `stack`.

        Raises:
            LocalError, FormatError, Unsupported, KeyUnavailable, PluginError: a key,
                certificate, keyring, token or provider cannot be used.
        """

    def open_unwrappers(
        self, files: Sequence[DecryptionFile], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyUnwrapper]:
        """What unwraps keys with these files, closed with `stack`; errors as `open_wrappers`."""
        del files, settings, stack
        return ()

    @abstractmethod
    def load_target(self, value: str, settings: ProviderSettings) -> Target:
        """Whom `--remove-recipient` means.

        Raises:
            UsageError: no packet says for whom it is.
            As `open_wrappers`.
        """

    def list_recipients(self, wrapped: WrappedKey) -> list[tuple[str, str]]:
        """Algorithm and key of each recipient of a packet, "" where it does not say.

        Raises:
            FormatError, Unsupported: it cannot be read.
        """
        del wrapped
        return []

    def check_packet(self, wrapped: WrappedKey) -> None:
        """Raise unless the packet is whole, whoever it is for; errors as `list_recipients`."""
        self.list_recipients(wrapped)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind in the table.

    Attributes:
        module: that has the `SCHEME`.
        usage: how a recipient is written.
        opens: the classes of `imagers.encrypt.keyfiles` that it unwraps with.
        has_packets: whether packets stand under its name in a manifest.
    """

    module: str
    usage: str
    opens: tuple[str, ...] = ()
    has_packets: bool = True


_HERE = "imagers.encrypt.schemes"
# In the order in which keys of several kinds are tried: what needs no program first.
SCHEMES: dict[str, Row] = {
    "jwe": Row(f"{_HERE}.jwe", "jwe:FILE", ("PrivateKey",)),
    "pkcs7": Row(f"{_HERE}.pkcs7", "pkcs7:FILE", ("Certificate",)),
    "pkcs11": Row(f"{_HERE}.pkcs11", "pkcs11:FILE", ("PrivateKey", "TokenFile")),
    "pgp": Row(f"{_HERE}.pgp", "pgp:ID", ("PGPKeyring",)),
    "provider": Row(f"{_HERE}.provider", "provider:NAME", has_packets=False),
    "broker": Row(f"{_HERE}.broker", "broker:URI", has_packets=False),
}


def expected_recipients() -> str:
    """How recipients are written, for a message about what is none."""
    *most, last = (row.usage for row in SCHEMES.values())
    return f"expected {', '.join(most)} or {last}"


def find_scheme(name: str) -> Scheme:
    """The kind of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in SCHEMES:
        raise UsageError(f"{expected_recipients()}, got scheme {name[:80]!r}")
    scheme: Scheme = import_module(SCHEMES[name].module).SCHEME
    return scheme


def scheme_of(wrapped: WrappedKey) -> Scheme | None:
    """The kind whose packets stand under the name of this one's; None for no kind of ours."""
    kind, dot, _ = wrapped.scheme.partition(".")
    if dot:
        return find_scheme(kind) if kind == "provider" else None
    row = SCHEMES.get(wrapped.scheme)
    return find_scheme(wrapped.scheme) if row is not None and row.has_packets else None
