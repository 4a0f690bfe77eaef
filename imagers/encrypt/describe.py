# SPDX-License-Identifier: Apache-2.0
"""For whom a layer is encrypted, as far as anybody can tell without a key.

>>> describe_wrapped_key(WrappedKey("pgp", b"..."))
'pgp'
>>> describe_recipients(WrappedKey("pgp", b"..."))
[]

What stands here is told by whoever made the image, and authenticated by nothing.
"""

from __future__ import annotations

from imagers.encrypt.schemes.scheme import SCHEMES, scheme_of
from imagers.errors import FormatError, Unsupported
from imagers.model.keys import WrappedKey

__all__ = ["describe_recipients", "describe_wrapped_key", "find_fault"]

_MAX_LINE = 400
_MAX_VALUE = 160
_MAX_SHOWN = 4  # recipients of one packet that a line names


def describe_wrapped_key(wrapped: WrappedKey) -> str:
    """One line: the scheme, and what the packet says of its recipients. Unauthenticated.

    Of a packet that cannot be read it says why.
    """
    fault = find_fault(wrapped)
    if fault is not None:
        kind = "malformed" if isinstance(fault, FormatError) else "unsupported"
        return _shown(f"{wrapped.scheme} ({kind}: {fault})", _MAX_LINE)
    if other := _other_scheme(wrapped):
        return _shown(f"{wrapped.scheme} (the packet is one of {other})", _MAX_LINE)
    found = describe_recipients(wrapped)
    names = [" ".join(value for value in one.values() if value) for one in found]
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    inside = f" ({', '.join(names[:_MAX_SHOWN])}{more})" if names else ""
    return _shown(wrapped.scheme + inside, _MAX_LINE)


def describe_recipients(wrapped: WrappedKey) -> list[dict[str, str]]:
    """Each recipient of a packet: `algorithm` and `key`, "" where the packet does not say.

    None where the packet cannot be read.
    """
    try:
        scheme = scheme_of(wrapped)
        found = [] if scheme is None else scheme.list_recipients(wrapped)
    except (FormatError, Unsupported):
        return []
    return [
        {"algorithm": _shown(algorithm, _MAX_VALUE), "key": _shown(key, _MAX_VALUE)}
        for algorithm, key in found
    ]


def find_fault(wrapped: WrappedKey) -> FormatError | Unsupported | None:
    """What is wrong with the form of a packet, whoever it is for; None for one that is whole.

    Packets of other key providers than a broker's are theirs to read. One that is whole but in
    the annotation of another scheme is not damaged: it has no key there.
    """
    fault = _fault_of(wrapped)
    return None if fault is not None and _other_scheme(wrapped) else fault


def _other_scheme(wrapped: WrappedKey) -> str:
    """The scheme that the packet is of, if that is not its annotation's; "" for no other."""
    names = [name for name, row in SCHEMES.items() if row.has_packets]
    if wrapped.scheme not in names or _fault_of(wrapped) is None:
        return ""
    others = (WrappedKey(one, wrapped.packet) for one in names if one != wrapped.scheme)
    return next((one.scheme for one in others if _fault_of(one) is None), "")


def _fault_of(wrapped: WrappedKey) -> FormatError | Unsupported | None:
    scheme = scheme_of(wrapped)
    if scheme is None:
        names = ", ".join(name for name, row in SCHEMES.items() if row.has_packets)
        return Unsupported(
            f"the scheme is none of {names} and provider.NAME, got "
            + repr(_shown(wrapped.scheme, _MAX_VALUE))
        )
    try:
        scheme.check_packet(wrapped)
    except (FormatError, Unsupported) as error:
        return error
    return None


def _shown(text: str, longest: int) -> str:
    """`text` on one line and bounded: control characters must not reach a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:longest])
