# SPDX-License-Identifier: Apache-2.0
"""Messages of protobuf with a few fields, read and written without generated code.

    >>> message = number_field(1, 300) + bytes_field(2, b"abc")
    >>> list(parse_fields(message))
    [(1, 300), (2, b'abc')]

Spec: protobuf.dev, Encoding: varints, and records of the wire types 0, 1, 2 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from imagers.errors import FormatError

__all__ = ["Field", "bytes_field", "number_field", "parse_fields"]

Field: TypeAlias = tuple[int, int | bytes]
"""A field's number, and its value: a varint, or bytes as they lie there."""

_WHAT = "protobuf message"
_MAX_VARINT_BYTES = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def bytes_field(number: int, data: bytes) -> bytes:
    """A field of bytes, a string or a message; proto3 leaves an empty one out."""
    if not data:
        return b""
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def number_field(number: int, value: int) -> bytes:
    """A field of an unsigned number; proto3 leaves a zero out."""
    return _varint(number << 3 | _VARINT) + _varint(value) if value else b""


def parse_fields(message: bytes) -> Iterator[Field]:
    """The fields in their order; of one that comes twice the last counts.

    Raises:
        FormatError: it is no message.
    """
    at = 0
    while at < len(message):
        key, at = _parse_varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _parse_varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, at = _parse_varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise FormatError(f"has a field of kind {kind}", what=_WHAT)
        if length > len(message) - at:
            raise FormatError("ends inside a field", what=_WHAT)
        yield key >> 3, message[at : at + length]
        at += length


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(0x80 | value & 0x7F)
        value >>= 7
    data.append(value)
    return bytes(data)


def _parse_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for number, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:
            return value, at + number + 1
    raise FormatError("ends inside a number", what=_WHAT)
