# SPDX-License-Identifier: Apache-2.0
"""The key-provider configuration of ocicrypt, as values.

    {"key-providers": {
        "NAME":  {"cmd": {"path": "/usr/lib/provider", "args": ["--x"]}},
        "NAME2": {"grpc": "127.0.0.1:50051"},
        "NAME3": {"grpc": "keys.example.org:443", "grpc-tls": {
            "root-ca-file": "...", "cert-file": "...", "key-file": "...", "server-name": "..."}}}}

`cmd` wins over `grpc`. Beyond loopback and unix sockets gRPC must have TLS, because layer
keys travel over it; and TLS verifies, always.

Spec: containers/ocicrypt v1.3.2, config/keyprovider-config.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.encrypt.keyfiles import read_small_file
from imagers.errors import FormatError, KeyUnavailable, Unsupported
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = [
    "GRPCProvider",
    "ProgramProvider",
    "ProviderConfig",
    "TLSFiles",
    "check_provider_name",
    "find_provider",
    "load_provider_config",
    "parse_provider_config",
]

_MAX_BYTES = 128 * 1024
_MAX_PROVIDERS = 64
_MAX_ARGS = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})\Z")


@dataclass(frozen=True, slots=True)
class ProgramProvider:
    """A program that answers one question each time it is started.

    Attributes:
        path: as the configuration has it; without a slash it is looked for in PATH.
        args: its arguments.
    """

    path: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """How a gRPC provider is verified, and how it verifies us; "" where nothing is said.

    Attributes:
        root_ca: PEM certificates to trust; "" for those of the system.
        certificate: our own, PEM, with `key`.
        server_name: what its certificate must be for, where that is not the host.
    """

    root_ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class GRPCProvider:
    """A service.

    Attributes:
        address: `host:port`, or `unix:///path`.
        tls: None for plain text, which only this machine may have.
    """

    address: str
    tls: TLSFiles | None = None


ProviderConfig = ProgramProvider | GRPCProvider
"""One provider of the configuration."""


def check_provider_name(name: str, *, what: str) -> str:
    """`name`, if it can be one: it becomes part of an annotation's name.

    Raises:
        FormatError: it is none.
    """
    if not _NAME.match(name):
        raise FormatError(
            f"expected a provider name of letters, digits, '.', '_' and '-', got {name[:80]!r}",
            what=what,
        )
    return name


def load_provider_config(path: str) -> Mapping[str, View]:
    """The providers of the configuration file at `path`.

    Raises:
        LocalError, FormatError: it cannot be read, or is none.
    """
    with read_small_file(path) as content, content.view() as data:
        return parse_provider_config(bytes(data), name=path)


def parse_provider_config(data: bytes, *, name: str) -> Mapping[str, View]:
    """The entry of each provider; `find_provider` makes a value of one.

    An entry is looked at only when it is asked for: one that is for another tool, or
    broken, is no reason to refuse the others.

    Raises:
        FormatError: not a configuration.
    """
    document = View.parse(data, what=name, max_bytes=_MAX_BYTES)
    found = document.object("key-providers", null_is_empty=True)
    if len(found.value) > _MAX_PROVIDERS:
        raise found.error(f"expected at most {_MAX_PROVIDERS} providers")
    return {
        provider: View(entry, what=name, where=found.at(provider[:80]))
        for provider, entry in found.value.items()
    }


def find_provider(entries: Mapping[str, View], name: str) -> ProviderConfig:
    """The provider `name` of a configuration.

    Raises:
        KeyUnavailable: the configuration has none of that name.
        FormatError: its entry is wrong.
        Unsupported: a kind of provider that is not done here, or plain text to elsewhere.
    """
    what = f"key provider {name[:80]!r}"
    if name not in entries:
        known = ", ".join(sorted(entries)[:8]) or "none"
        raise KeyUnavailable(
            f"{what} is not configured; configured: {known}",
            hint="name it in the file that OCICRYPT_KEYPROVIDER_CONFIG names",
        )
    entry = entries[name]
    command = entry.optional_object("cmd")
    if command is not None:
        return _parse_command(command)
    address = entry.optional_text("grpc")
    if address:
        return _parse_grpc(address, entry)
    if "path" in entry:
        raise entry.error('has "path" at the top; expected {"cmd": {"path": ..., "args": [...]}}')
    kinds = ", ".join(sorted(entry.value)[:4]) or "nothing"
    raise Unsupported(f"{what}: expected cmd or grpc, got {kinds}")


def _parse_command(command: View) -> ProgramProvider:
    path = command.text("path")
    args = command.texts("args", most=_MAX_ARGS, null_is_empty=True)
    if not path or any("\0" in one for one in (path, *args)):
        raise command.error("expected a path and a list of strings without NUL")
    return ProgramProvider(path, args)


def _parse_grpc(address: str, entry: View) -> GRPCProvider:
    tls = entry.optional_object("grpc-tls")
    if address.startswith("unix:"):
        return GRPCProvider(address, _parse_tls(tls))
    for scheme in ("tcp://", "http://", "https://"):
        address = address.removeprefix(scheme)
    match = _HOST_PORT.match(address)
    if match is None or not 0 < int(match[2]) < 1 << 16:
        raise entry.error(f"expected host:port or unix:///path, got {address[:160]!r}", "grpc")
    if tls is None and not _is_loopback(match[1]):
        raise Unsupported(
            f"{entry.what} at {entry.where}: gRPC to {address[:160]!r} would send layer keys in "
            "the clear",
            hint="give the provider a certificate, and its entry a grpc-tls object",
        )
    return GRPCProvider(address, _parse_tls(tls))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _parse_tls(tls: View | None) -> TLSFiles | None:
    if tls is None:
        return None
    if tls.value.get("insecure-skip-verify"):
        raise Unsupported(
            f"{tls.what} at {tls.where}: insecure-skip-verify is not supported: keys would go to "
            "whoever answers",
            hint="name the provider's own certificate as root-ca-file",
        )
    certificate, key = (tls.optional_text(name) or "" for name in ("cert-file", "key-file"))
    if bool(certificate) != bool(key):
        raise tls.error("expected cert-file and key-file together")
    return TLSFiles(
        root_ca=tls.optional_text("root-ca-file") or "",
        certificate=certificate,
        key=key,
        server_name=tls.optional_text("server-name") or "",
    )
