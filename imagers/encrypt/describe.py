"""For whom a layer is encrypted, as far as anybody can tell without a key.

>>> describe_wrapped_key(WrappedKey("pgp", b"..."))
'pgp'
>>> describe_recipients(WrappedKey("pgp", b"..."))
[]

What stands here is told by whoever made the image, and authenticated by nothing.
"""

from __future__ import annotations

from imagers.encrypt.annotations import COCO_SCHEME
from imagers.encrypt.schemes.broker import parse_packet
from imagers.errors import FormatError, Unsupported
from imagers.model.keys import WrappedKey
from imagers.model.strict_json import View

__all__ = ["describe_recipients", "describe_wrapped_key", "find_fault"]

_MAX_LINE = 400
_MAX_VALUE = 160
_MAX_SHOWN = 4  # recipients of one packet that a line names
_MAX_PACKET = 256 * 1024
_SCHEMES = ("jwe", "pkcs7", "pgp", "pkcs11")


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
        found = _recipients(wrapped)
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
    if wrapped.scheme not in _SCHEMES or _fault_of(wrapped) is None:
        return ""
    others = (WrappedKey(one, wrapped.packet) for one in _SCHEMES if one != wrapped.scheme)
    return next((one.scheme for one in others if _fault_of(one) is None), "")


def _fault_of(wrapped: WrappedKey) -> FormatError | Unsupported | None:
    try:
        if wrapped.scheme == "jwe":
            from imagers.encrypt.schemes.jwe import check_lengths, parse_jwe

            check_lengths(parse_jwe(wrapped.packet))
        elif wrapped.scheme == "pkcs11":
            from imagers.encrypt.schemes.pkcs11 import parse_pkcs11

            parse_pkcs11(wrapped.packet)
        elif wrapped.scheme in ("pkcs7", "pgp", COCO_SCHEME):
            _recipients(wrapped)
        elif not wrapped.scheme.startswith("provider."):
            return Unsupported(
                "the scheme is none of jwe, pkcs7, pgp, pkcs11 and provider.NAME, got "
                + repr(_shown(wrapped.scheme, _MAX_VALUE))
            )
    except (FormatError, Unsupported) as error:
        return error
    return None


def _recipients(wrapped: WrappedKey) -> list[tuple[str, str]]:
    packet = wrapped.packet
    if wrapped.scheme == "jwe":
        from imagers.encrypt.schemes.jwe import parse_jwe

        headers = parse_jwe(packet).headers
        return [(str(one.get("alg", "?")), str(one.get("kid") or "")) for one in headers]
    if wrapped.scheme == "pkcs7":
        from imagers.encrypt.schemes.pkcs7 import parse_recipients_of

        return [(one.algorithm_name, one.name) for one in parse_recipients_of(packet)]
    if wrapped.scheme == "pgp":
        from imagers.encrypt.schemes.pgp_packets import split_session_keys

        return [("", one.key_id.hex().upper()) for one in split_session_keys(packet)[0]]
    if wrapped.scheme == "pkcs11":
        document = View.parse(packet, what="", max_bytes=_MAX_PACKET)
        return [
            (f"RSA-OAEP with {one.value.get('hash') or 'sha1'}", "")
            for one in document.objects("recipients", null_is_empty=True)
        ]
    if wrapped.scheme.startswith("provider."):
        parsed = parse_packet(packet, what="")
        return [(parsed.wrap_type or parsed.provider, parsed.kid)]
    return []


def _shown(text: str, longest: int) -> str:
    """`text` on one line and bounded: control characters must not reach a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:longest])
