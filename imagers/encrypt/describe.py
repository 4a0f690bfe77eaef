"""For whom a layer is encrypted, as far as anybody can tell without a key.

>>> describe_wrapped_key(WrappedKey("pgp", b"..."))
'pgp'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.encrypt.packets import parse_packet
from imagers.errors import FormatError, Unsupported

if TYPE_CHECKING:
    from imagers.model.keys import WrappedKey

__all__ = ["describe_wrapped_key"]

_MAX_LINE = 400
_MAX_SHOWN = 4  # recipients of one JWE that a line names


def describe_wrapped_key(wrapped: WrappedKey) -> str:
    """One line: the scheme, and what the packet says of its recipients. Unauthenticated.

    A packet that cannot be read is described by its scheme alone.
    """
    if wrapped.scheme == "jwe":
        return f"jwe{_describe_jwe(wrapped.packet)}"
    if wrapped.scheme.startswith("provider."):
        try:
            packet = parse_packet(wrapped.packet, what="")
        except (FormatError, Unsupported):
            return _shown(wrapped.scheme)
        return _shown(f"{wrapped.scheme} {packet.kid} ({packet.wrap_type or packet.provider})")
    return _shown(wrapped.scheme)


def _describe_jwe(packet: bytes) -> str:
    from imagers.encrypt.jwe import parse_jwe  # noqa: PLC0415  # loads `cryptography`

    try:
        headers = parse_jwe(packet).headers
    except FormatError:
        return ""
    names = [str(header.get("kid") or header.get("alg", "?"))[:80] for header in headers]
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return _shown(f" ({', '.join(names[:_MAX_SHOWN])}{more})")


def _shown(text: str) -> str:
    """`text` on one line and bounded: control characters must not reach a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:_MAX_LINE])
