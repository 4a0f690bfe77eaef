# SPDX-License-Identifier: Apache-2.0
"""Which requests go through a proxy: the rules of `http_proxy`, `https_proxy` and `no_proxy`.

    Proxies(https="http://proxy:3128", exempt=("example.org", "10.0.0.0/8")).find(origin)

Values come in; nothing here reads the environment. This machine is never asked for through
a proxy.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from imagers.errors import FormatError
from imagers.model.base64 import encode_base64

if TYPE_CHECKING:
    from imagers.net.urls import Origin

__all__ = ["Proxies", "Proxy", "parse_exempt", "parse_proxy"]


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy.

    Attributes:
        url: without user and password.
        authorization: value of the header that logs in to it; "" for none.
    """

    url: str
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxy is for what.

    Attributes:
        http: for plain http.
        https: for https; it sees host names and ports.
        exempt: hosts without: `*`, a name (with all below it), an address, a network; each
            with or without a port.
    """

    http: Proxy | None = None
    https: Proxy | None = None
    exempt: tuple[str, ...] = ()

    def find(self, origin: Origin) -> Proxy | None:
        """The proxy for requests to `origin`."""
        proxy = self.https if origin.scheme == "https" else self.http
        if proxy is None or origin.is_loopback:
            return None
        if any(_fits(rule, origin) for rule in self.exempt):
            return None
        return proxy


def parse_proxy(text: str, *, what: str) -> Proxy:
    """A proxy from `[http://][USER:PASSWORD@]HOST:PORT`.

    Raises:
        FormatError: it is none; the text is not repeated, there may be a password in it.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise FormatError("expected a proxy as http://HOST:PORT", what=what)
    host = f"[{host}]" if ":" in host else host
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + encode_base64(pair.encode())
    default = 443 if parts.scheme == "https" else 80
    return Proxy(f"{parts.scheme}://{host}:{port or default}", authorization)


def parse_exempt(text: str) -> tuple[str, ...]:
    """The rules of a `no_proxy` list: commas between them, or spaces."""
    return tuple(rule.lower() for rule in text.replace(",", " ").split())


def _fits(rule: str, origin: Origin) -> bool:
    if rule == "*":
        return True
    host = origin.host.lower()
    name, colon, port = rule.rpartition(":")
    if colon and port.isdigit() and (name.count(":") == 0 or name.endswith("]")):
        if int(port) != origin.port:
            return False
        rule = name
    rule = rule.strip("[]")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        suffix = rule.removeprefix("*").removeprefix(".")
        return host == suffix or host.endswith(f".{suffix}")
