# SPDX-License-Identifier: Apache-2.0
"""URLs: parsed strictly, compared by origin, and shown without their secrets.

    >>> redact_url("https://host/v2/app/blobs/uploads/1?_state=secret&digest=sha256:0")
    'https://host/v2/app/blobs/uploads/…?_state=…&digest=sha256:0'

Spec: RFC 3986; RFC 6454 section 4 for origins.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from imagers.errors import FormatError

__all__ = ["Origin", "is_loopback", "join_url", "parse_origin", "redact_url", "with_scheme"]

_MAX_URL = 16 * 1024  # signed URLs of storage services reach 4 KiB
_PORTS = {"http": 80, "https": 443}
_VISIBLE = re.compile(r"[!-~]+\Z")
# What is behind it names an upload to whoever knows it.
_SECRET_PATH = re.compile(r"(/blobs/uploads/|/artifacts-uploads/).+")
# AMD's service for certificates is asked by the id of a chip, which tells machines apart.
_CHIP = re.compile(r"(/vcek/v1/[^/]*/)[0-9A-Fa-f]{16,}")
# A host with or without a port and a path, as people write it: `localhost:8447`.
_NO_SCHEME = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?(?:/[^@]*)?\Z")
# Values that help to understand a message and never hold a secret. All others are hidden:
# the next storage service will have a name for its signature that nobody listed.
_SHOWN_VALUES = frozenset(
    {"artifactType", "digest", "from", "image-digest", "last", "mount", "n", "scope", "service"}
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: who a secret may be told to."""

    scheme: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, by its name or address."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether `host` (no port, no brackets) is this machine: `localhost` or a loopback address.

    No name but `localhost` (RFC 6761) is looked up: an answer of DNS proves nothing.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_origin(url: str) -> Origin:
    """The origin of an absolute http or https URL.

    Raises:
        FormatError: another scheme, no host, a user name inside, or bytes that no URL has.
    """
    # urlsplit drops tabs and newlines silently, and what is shown must be what is asked.
    if len(url) > _MAX_URL or not _VISIBLE.match(url) or "\\" in url:
        raise FormatError("expected a URL of visible ASCII characters", what="URL")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise FormatError(f"expected a URL, got {redact_url(url)!r}", what="URL") from None
    if parts.scheme not in _PORTS:
        raise FormatError(f"expected http or https, got {redact_url(url)!r}", what="URL")
    if "@" in parts.netloc:
        raise FormatError(
            f"has a user name in it: {redact_url(url)!r}",
            what="URL",
            hint="give the credentials beside the URL",
        )
    if not parts.hostname:
        raise FormatError(f"expected a host in {redact_url(url)!r}", what="URL")
    return Origin(parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port)


def with_scheme(text: str) -> str | None:
    """The URL that was meant by a host without a scheme; None for what is none.

    >>> with_scheme("localhost:8447"), with_scheme("kbs.example/a")
    ('http://localhost:8447', 'https://kbs.example/a')
    """
    found = _NO_SCHEME.match(text)
    if found is None or found[1] in _PORTS:  # `http//host` is something else
        return None
    return f"{'http' if is_loopback(found[1].strip('[]')) else 'https'}://{text}"


def join_url(base: str, location: str) -> str:
    """The absolute form of a Location header, relative to the URL that answered with it.

    Raises:
        FormatError: the result is no URL that could be asked.
    """
    if len(location) > _MAX_URL:
        raise FormatError("expected a URL, got a Location header that is too long", what="URL")
    try:
        # Storage services put raw spaces and UTF-8 into it; "%" and reserved characters stay.
        joined = urljoin(base, quote(location, safe="%/:?#[]@!$&'()*+,;=~"))
    except ValueError:
        raise FormatError("expected a URL in the Location header", what="URL") from None
    parse_origin(joined)
    return joined.partition("#")[0]


def redact_url(url: str) -> str:
    """`url` as a message may show it: no user name, no password, no secret query values.

    Nor the name of an upload, which some registries take for a login, nor the id of a chip.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "(not a URL)"
    if ":" in host:
        host = f"[{host}]"
    pairs = []
    for pair in parts.query.split("&") if parts.query else []:
        name, equals, value = pair.partition("=")
        pairs.append(name + equals + (value if name in _SHOWN_VALUES or not value else "…"))
    query = "?" + "&".join(pairs) if pairs else ""
    origin = f"{parts.scheme}://{host}{port}" if parts.scheme or host else ""
    path = _CHIP.sub(r"\1…", _SECRET_PATH.sub(r"\1…", parts.path))
    if not host:  # USER:PASSWORD@HOST is a scheme and a path to the parser
        path = re.sub(".*@", "…@", path, flags=re.DOTALL)
    shown = f"{origin}{path}{query}"
    return "".join(c if c.isprintable() else "\ufffd" for c in shown)
