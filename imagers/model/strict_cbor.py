# SPDX-License-Identifier: Apache-2.0
"""CBOR from outside: bounded; duplicate keys, trailing bytes and open ends refused.

Two readers that disagree about a duplicate key see two different claims under one signature;
that is refused here, for every document that the project reads.

    >>> view = CBORView.parse(bytes.fromhex("a10a43010203"), what="token", max_bytes=100)
    >>> view.byte_string(10, sizes=(3,)).hex()
    '010203'

| CBOR             | here                                             |
|------------------|--------------------------------------------------|
| integer          | int, of 64 bits at most                          |
| byte string      | bytes                                            |
| text string      | str; UTF-8                                       |
| array            | tuple                                            |
| map              | read-only mapping; its keys are int, str, bytes  |
| tag              | Tag                                              |
| false, true, null| False, True, None                                |
| other simple     | Simple, undefined among them                     |
| float            | refused: no document that is read here has one   |

Strings in pieces are refused, and so are arrays and maps without a length where nobody asked for
them. A float could pass for the integer that it equals, as a key and as a value. What is missing or
has another type is a `FormatError` that names its document and its place:
`token at $[2396]: expected 32 bytes, got 31`.

Spec: RFC 8949 sections 3 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self, cast

from imagers.errors import FormatError

__all__ = ["CBOR", "CBORView", "Simple", "Tag", "parse_cbor"]


@dataclass(frozen=True, slots=True)
class Tag:
    """A tagged value: what the number means is its reader's to say."""

    number: int
    value: CBOR


@dataclass(frozen=True, slots=True)
class Simple:
    """A simple value that is neither false, true nor null; undefined is 23."""

    number: int


CBOR = (
    None
    | bool
    | int
    | str
    | bytes
    | tuple["CBOR", ...]
    | Mapping["int | str | bytes", "CBOR"]
    | Tag
    | Simple
)

_OPEN_ARRAY, _OPEN_MAP, _BREAK = 0x9F, 0xBF, b"\xff"
_MAX_DEPTH = 32  # a signed CoRIM has 20
_MAX_VALUES = 200_000  # a value of one byte costs up to 120 in memory
_SIMPLE: dict[int, CBOR] = {
    low: {20: False, 21: True, 22: None}.get(low, Simple(low)) for low in range(24)
}


def parse_cbor(data: bytes, *, what: str, max_bytes: int, open_ended: bool = False) -> CBOR:
    """The value of one CBOR document; nothing in it can be changed.

    Args:
        what: name of the document in error messages.
        max_bytes: upper bound on the length of `data` in bytes.
        open_ended: take arrays and maps without a length, which end with a break.

    Raises:
        FormatError: too long, too deep, too many values, not CBOR, more behind its end, a key
            twice in one map or of another kind than the table has, text that is not UTF-8, a
            length that is left open, a float.
    """
    if len(data) > max_bytes:
        raise FormatError(f"expected at most {max_bytes} bytes, got {len(data)}", what=what)
    reader = _Reader(data, what, open_ended=open_ended)
    value = reader.item(_MAX_DEPTH)
    if reader.at != len(data):
        raise reader.error(f"has {len(data) - reader.at} bytes behind its end")
    return value


class _Reader:
    """One pass over the bytes; every count is held against what is left before it is used."""

    __slots__ = ("at", "data", "left", "open_ended", "what")

    def __init__(self, data: bytes, what: str, *, open_ended: bool) -> None:
        self.data = data
        self.what = what
        self.open_ended = open_ended
        self.at = 0
        self.left = _MAX_VALUES

    def error(self, message: str) -> FormatError:
        return FormatError(message, what=self.what, where=f"byte {self.at}")

    def item(self, depth: int) -> CBOR:
        """The value that starts here; `depth` is how much deeper it may go."""
        data, at = self.data, self.at
        try:
            head = data[at]
        except IndexError:
            raise self.error("is not CBOR: it ends where a value is expected") from None
        major, low = head >> 5, head & 0x1F
        if low < 24:
            self.at = at = at + 1
            number = low
        else:
            if low > 27:
                if head in (_OPEN_ARRAY, _OPEN_MAP) and self.open_ended:
                    return self.open_container(major, depth - 1)
                raise self.error(
                    "has an indefinite length, which is not taken"
                    if low == 31 and 2 <= major <= 5
                    else f"is not CBOR: no value starts with 0x{head:02x}"
                )
            if major == 7:
                return self.long_simple(low)
            end = at + 1 + (1 << (low - 24))
            if end > len(data):
                raise self.error("is not CBOR: it ends inside a number")
            number = int.from_bytes(data[at + 1 : end])
            self.at = at = end
        if major == 2 or major == 3:  # noqa: PLR1714  # faster than a set
            end = at + number
            if end > len(data):
                raise self.error(f"is not CBOR: {number} bytes are expected, {len(data) - at} left")
            text = data[at:end]
            if major == 3:
                try:
                    value = text.decode()
                except UnicodeDecodeError as error:
                    raise self.error(f"has text that is not UTF-8 at {error.start}") from None
                self.at = end
                return value
            self.at = end
            return text
        if major == 0:
            return number
        if major == 1:
            return -1 - number
        if major == 7:
            return _SIMPLE[number]
        return self.container(major, number, depth - 1)

    def container(self, major: int, number: int, depth: int) -> CBOR:
        """The array, map or tag whose head was read."""
        if depth < 0:
            raise self.error(f"is nested deeper than {_MAX_DEPTH}")
        if major == 6:
            return Tag(number, self.item(depth))
        values = number if major == 4 else 2 * number
        if values > len(self.data) - self.at:  # each takes one byte at least
            raise self.error(f"is not CBOR: {values} values are expected, fewer bytes are left")
        self.left -= values
        if self.left < 0:
            raise self.error(f"has more than {_MAX_VALUES} values")
        item = self.item
        if major == 4:
            return tuple([item(depth) for _ in range(number)])
        found: dict[int | str | bytes, CBOR] = {}
        for _ in range(number):
            self.pair(found, depth)
        return MappingProxyType(found)

    def pair(self, found: dict[int | str | bytes, CBOR], depth: int) -> None:
        """Add the key and the value that start here."""
        key = self.item(depth)
        # `True` and `1.0` equal `1` in a dict; neither is taken, so no two kinds clash.
        if type(key) not in _KEYS:
            raise self.error(f"expected a number, text or bytes as key, got {_kind_of(key)}")
        key = cast("int | str | bytes", key)
        if key in found:
            raise self.error(f"has the key {_shown(key)} twice in one map")
        found[key] = self.item(depth)

    def open_container(self, major: int, depth: int) -> CBOR:
        """The array or map without a length that starts here, to its break."""
        if depth < 0:
            raise self.error(f"is nested deeper than {_MAX_DEPTH}")
        self.at += 1
        values: list[CBOR] = []
        found: dict[int | str | bytes, CBOR] = {}
        while self.data[self.at : self.at + 1] != _BREAK:
            self.left -= 1
            if self.left < 0:
                raise self.error(f"has more than {_MAX_VALUES} values")
            if major == 4:
                values.append(self.item(depth))
            else:
                self.pair(found, depth)
        self.at += 1
        return tuple(values) if major == 4 else MappingProxyType(found)

    def long_simple(self, low: int) -> CBOR:
        """The simple value of two bytes that starts here."""
        if low > 24:
            raise self.error("has a float, which is not taken")
        if self.at + 2 > len(self.data):
            raise self.error("is not CBOR: it ends inside a simple value")
        number = self.data[self.at + 1]
        if number < 32:  # a second spelling of false, or none at all
            raise self.error(f"is not CBOR: the simple value {number} has one byte")
        self.at += 2
        return Simple(number)


_KEYS = frozenset({int, str, bytes})


def _shown(key: int | str | bytes) -> str:
    return f"{key.hex() if isinstance(key, bytes) else repr(key)}"[:80]


def _kind_of(value: object) -> str:
    """What a value is in the words of CBOR."""
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        str: "text",
        bytes: "bytes",
        tuple: "an array",
        MappingProxyType: "a map",
        Tag: "a tag",
    }
    return names.get(type(value), "a simple value")


class CBORView:
    """One map of a document, which knows where it stands.

    Members that are not asked for are ignored; `only` is for closed maps. Null is as good as
    absent where something optional is asked for with `in`.

    Args:
        value: any value of `parse_cbor`.
        what: name of the document in messages.
        where: path of the map in it.

    Raises:
        FormatError: `value` is no map. So does every method, at the place of the fault.
    """

    __slots__ = ("value", "what", "where")

    def __init__(self, value: object, *, what: str, where: str = "$") -> None:
        if not isinstance(value, MappingProxyType):
            raise FormatError(f"expected a map, got {_kind_of(value)}", what=what, where=where)
        self.value: Mapping[int | str | bytes, CBOR] = value
        self.what = what
        self.where = where

    @classmethod
    def parse(cls, data: bytes, *, what: str, max_bytes: int, open_ended: bool = False) -> Self:
        """The map that a document is; arguments and errors as for `parse_cbor`."""
        value = parse_cbor(data, what=what, max_bytes=max_bytes, open_ended=open_ended)
        return cls(value, what=what)

    def __contains__(self, key: int | str) -> bool:
        return self.value.get(key) is not None

    def at(self, key: int | str) -> str:
        """The path of a member."""
        return f"{self.where}[{key}]" if isinstance(key, int) else f"{self.where}.{key}"

    def error(self, message: str, key: int | str | None = None) -> FormatError:
        """The error at this map, or at a member of it."""
        where = self.where if key is None else self.at(key)
        return FormatError(message, what=self.what, where=where)

    def only(self, *keys: int | str) -> None:
        """Raise if there are other members."""
        for key in self.value:
            if key not in keys:
                raise self.error(f"has the unknown member {_shown(key)}")

    def wrong(self, expected: str, key: int | str) -> FormatError:
        """The error of a member that is missing or of another type."""
        value = self.value.get(key)
        if value is None:
            return self.error(f"is missing, expected {expected}", key)
        return self.error(f"expected {expected}, got {_kind_of(value)}", key)

    def byte_string(
        self, key: int | str, *, sizes: tuple[int, ...] = (), max_size: int | None = None
    ) -> bytes:
        """A byte string.

        Args:
            sizes: the lengths that it may have; any if empty.
            max_size: the most bytes that it may have.
        """
        value = self.value.get(key)
        if not isinstance(value, bytes):
            raise self.wrong("bytes", key)
        if sizes and len(value) not in sizes:
            expected = " or ".join(map(str, sizes))
            raise self.error(f"expected {expected} bytes, got {len(value)}", key)
        if max_size is not None and len(value) > max_size:
            raise self.error(f"expected at most {max_size} bytes, got {len(value)}", key)
        return value

    def text(self, key: int | str) -> str:
        """A text string."""
        value = self.value.get(key)
        if not isinstance(value, str):
            raise self.wrong("text", key)
        return value

    def integer(self, key: int | str, *, minimum: int = 0, maximum: int = 2**64 - 1) -> int:
        """A whole number from `minimum` to `maximum`."""
        value = self.value.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong("a whole number", key)
        if not minimum <= value <= maximum:
            raise self.error(f"expected a number from {minimum} to {maximum}, got {value}", key)
        return value

    def map(self, key: int | str) -> Self:
        """A map."""
        value = self.value.get(key)
        if not isinstance(value, MappingProxyType):
            raise self.wrong("a map", key)
        return type(self)(value, what=self.what, where=self.at(key))

    def array(self, key: int | str, *, most: int = _MAX_VALUES, least: int = 0) -> tuple[CBOR, ...]:
        """An array of `least` to `most` values."""
        value = self.value.get(key)
        if not isinstance(value, tuple):
            raise self.wrong("an array", key)
        if not least <= len(value) <= most:
            raise self.error(f"expected {least} to {most} entries, got {len(value)}", key)
        return value

    def maps(self, key: int | str, *, most: int = _MAX_VALUES, least: int = 0) -> tuple[Self, ...]:
        """The maps in an array; arguments as for `array`."""
        place = self.at(key)
        return tuple(
            type(self)(value, what=self.what, where=f"{place}[{index}]")
            for index, value in enumerate(self.array(key, most=most, least=least))
        )

    def byte_strings(
        self, key: int | str, *, most: int = _MAX_VALUES, least: int = 0
    ) -> tuple[bytes, ...]:
        """The byte strings in an array; arguments as for `array`."""
        found = self.array(key, most=most, least=least)
        for index, value in enumerate(found):
            if not isinstance(value, bytes):
                where = f"{self.at(key)}[{index}]"
                message = f"expected bytes, got {_kind_of(value)}"
                raise FormatError(message, what=self.what, where=where)
        return cast("tuple[bytes, ...]", found)
