# SPDX-License-Identifier: Apache-2.0
"""Elements of BER and DER, one level at a time, for messages that no strict parser takes.

    for element in split(data, what="PKCS7"):
        element.tag, element.content

Only headers are read: what an element means is its reader's to say. Lengths are bounded by
the data itself, depth by the reader, who asks for each level.
"""

from __future__ import annotations

from dataclasses import dataclass

from asn1crypto import parser

from imagers.errors import FormatError

__all__ = ["Element", "encode", "encode_oid", "only", "split"]

_MAX_ELEMENTS = 1024  # on one level; recipients of one message are the most


@dataclass(frozen=True, slots=True)
class Element:
    """One element.

    Attributes:
        tag: class, constructed bit and number in one byte, as the first byte stands there.
        content: without the header.
        raw: with it.
    """

    tag: int
    content: bytes
    raw: bytes


def split(data: bytes, *, what: str) -> list[Element]:
    """The elements that `data` is made of, one after another.

    Raises:
        FormatError: they do not fill it exactly, or are too many.
    """
    found: list[Element] = []
    at = 0
    while at < len(data):
        if len(found) == _MAX_ELEMENTS:
            raise FormatError(f"expected at most {_MAX_ELEMENTS} elements", what=what)
        try:
            _, _, _, header, content, trailer = parser.parse(data[at:])
        except (ValueError, RecursionError) as error:
            raise FormatError("is not BER", what=what) from error
        length = len(header) + len(content) + len(trailer)
        found.append(Element(data[at], content, data[at : at + length]))
        at += length
    return found


def only(data: bytes, tag: int, *, what: str) -> bytes:
    """The content of the one element in `data`, which must have `tag`.

    Raises:
        FormatError: another tag, or not one element.
    """
    found = split(data, what=what)
    if len(found) != 1 or found[0].tag != tag:
        raise FormatError(f"expected one element with tag 0x{tag:02x}", what=what)
    return found[0].content


def encode(tag: int, *content: bytes) -> bytes:
    r"""The DER of one element around the bytes of others.

    >>> encode(0x30, encode(0x02, b"\\x01")).hex()
    '3003020101'
    """
    body = b"".join(content)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + body


def encode_oid(dotted: str) -> bytes:
    """The DER of an object identifier."""
    first, second, *others = map(int, dotted.split("."))
    body = bytearray()
    for number in (first * 40 + second, *others):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(0x80 | number & 0x7F)
        body += bytes(reversed(digits))
    return encode(0x06, bytes(body))
