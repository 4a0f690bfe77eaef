# SPDX-License-Identifier: Apache-2.0
"""The head of an OpenPGP message: for which keys its session key is there.

    tag 1: length, version 3, key id (8 bytes), ...      one a recipient
    the rest                                            the encrypted data

Spec: RFC 4880 sections 4.2 and 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from imagers.errors import FormatError

__all__ = ["SessionKey", "split_session_keys"]

_WHAT = "OpenPGP message"
_MAX_RECIPIENTS = 300
_PKESK = 1
_VERSION = 3
_KEY_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class SessionKey:
    """The session key for one recipient.

    Attributes:
        key_id: of the key that opens it, 8 bytes; zeros hide it. Unauthenticated.
        raw: the packet.
    """

    key_id: bytes
    raw: bytes


def split_session_keys(packet: bytes) -> tuple[list[SessionKey], bytes]:
    """The session keys at the start of a message, and the rest of it.

    Raises:
        FormatError: it is no binary message, or has none.
    """
    found: list[SessionKey] = []
    at = 0
    while at < len(packet):
        tag, start, end = _header(packet, at)
        if tag != _PKESK:
            break
        body = packet[start:end]
        if len(body) < 1 + _KEY_ID_BYTES or body[0] != _VERSION:
            raise FormatError(f"expected session keys of version {_VERSION}", what=_WHAT)
        found.append(SessionKey(body[1 : 1 + _KEY_ID_BYTES], packet[at:end]))
        if len(found) > _MAX_RECIPIENTS:
            raise FormatError(f"expected at most {_MAX_RECIPIENTS} recipients", what=_WHAT)
        at = end
    if not found:
        raise FormatError("expected session keys at its start", what=_WHAT)
    return found, packet[at:]


def _header(packet: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the packet at `at`; the end is 0 where it is not said at once."""
    first = packet[at]
    if not first & 0x80:
        raise FormatError("is not binary OpenPGP", what=_WHAT)
    if first & 0x40:
        tag, length_bytes = first & 0x3F, _new_length_bytes(packet, at + 1)
        if length_bytes == 0:  # in pieces: never for session keys
            return tag, 0, 0
        raw = packet[at + 1 : at + 1 + length_bytes]
        if length_bytes == 2:
            length = ((raw[0] - 192) << 8) + raw[-1] + 192
        else:
            length = int.from_bytes(raw[1:] if length_bytes == 5 else raw)
    else:
        tag, kind = first >> 2 & 0x0F, first & 3
        if kind == 3:  # to the end of the input
            return tag, 0, 0
        length_bytes = 1 << kind
        length = int.from_bytes(packet[at + 1 : at + 1 + length_bytes])
    start = at + 1 + length_bytes
    if tag == _PKESK and start + length > len(packet):
        raise FormatError("ends inside a packet", what=_WHAT)
    return tag, start, start + length


def _new_length_bytes(packet: bytes, at: int) -> int:
    if at >= len(packet):
        raise FormatError("ends inside a packet", what=_WHAT)
    first = packet[at]
    if first < 192:
        return 1
    if first < 224:
        return 2
    return 5 if first == 255 else 0
