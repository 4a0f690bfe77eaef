# SPDX-License-Identifier: Apache-2.0
"""JSON from outside: bounded, duplicate names refused, no NaN.

Two readers that disagree about a duplicate name see two different documents under one
digest; that is refused here, for every document that the project reads.

    >>> view = View.parse(b'{"layers": [{"size": 7}]}', what="manifest", max_bytes=100)
    >>> [layer.integer("size") for layer in view.objects("layers")]
    [7]

What is missing or has another type is a `FormatError` that names its document and its place:
`manifest at $.layers[0].size: expected a whole number, got a string`.

Spec: RFC 8259 sections 4 and 9.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, Self, cast

from imagers.errors import FormatError
from imagers.model.base64 import decode_base64, decode_base64url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


__all__ = ["JSON", "JSONObject", "View", "dump_json", "parse_json"]

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
JSONObject = dict[str, JSON]

_MAX_DEPTH = 64  # deeper than any document of these formats; json itself recurses
_MAX_VALUES = 200_000  # a value of two bytes costs up to 80 in memory; a layer needs 5 for 120
# The closing quote is optional, so that a string without one ends the search: trying again
# at each of its escaped quotes would take time in the square of its length.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{},]', re.DOTALL)
_MAX_INT_DIGITS = 20  # a uint64; longer ones cost quadratic time to convert
_LONG_NUMBER = re.compile(r"[0-9]{20}")  # with a sign it is one too long


def parse_json(data: bytes, *, what: str, max_bytes: int) -> JSON:
    """The value of one JSON document.

    Args:
        what: name of the document in error messages.
        max_bytes: upper bound on the length of `data` in bytes.

    Raises:
        FormatError: too long, too deep, too many values, not UTF-8, not JSON, a name twice
            in one object, a number that is not finite, an escape that is no character.
    """
    if len(data) > max_bytes:
        raise FormatError(f"expected at most {max_bytes} bytes, got {len(data)}", what=what)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"is not UTF-8 at byte {error.start}", what=what) from None
    _check_structure(text, what)

    def no_duplicates(pairs: list[tuple[str, JSON]]) -> JSONObject:
        result = dict(pairs)
        if len(result) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = next(name for name, count in counts.items() if count > 1)
            raise FormatError(f"has the name {twice[:80]!r} twice in one object", what=what)
        return result

    def no_constant(name: str) -> NoReturn:
        raise FormatError(f"has {name}, which is not JSON", what=what)

    def bounded_int(digits: str) -> int:
        if len(digits) > _MAX_INT_DIGITS:
            raise FormatError(f"has a number of {len(digits)} digits", what=what)
        return int(digits)

    def finite_float(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):  # 1e999
            raise FormatError("has a number that is out of range", what=what)
        return number

    try:
        value = cast(
            "JSON",
            json.loads(
                text,
                object_pairs_hook=no_duplicates,
                parse_constant=no_constant,
                # Bytes are written as lists of numbers: without a call for each, twice as fast.
                parse_int=bounded_int if _LONG_NUMBER.search(text) else int,
                parse_float=finite_float,
            ),
        )
    except json.JSONDecodeError as error:
        raise FormatError(
            # Some of its messages end with the word.
            f"is not JSON: {error.msg.lower().removesuffix(' at')} at line {error.lineno} "
            f"column {error.colno}",
            what=what,
        ) from None
    # An escape can spell half a surrogate pair, which no writer could encode again.
    if "\\ud" in text or "\\uD" in text:
        try:
            dump_json(value)
        except UnicodeEncodeError:
            raise FormatError("has an escape that is no character", what=what) from None
    return value


def _check_structure(text: str, what: str) -> None:
    """Refuse nesting and numbers of values that cost stack or memory, without parsing."""
    opened = text.count("[") + text.count("{")
    if opened <= _MAX_DEPTH and opened + text.count(",") <= _MAX_VALUES:
        return
    depth = values = 0
    for token in _STRUCTURE.finditer(text):
        character = token[0][0]
        if character in "[{":
            depth += 1
            values += 1
            if depth > _MAX_DEPTH:
                raise FormatError(f"is nested deeper than {_MAX_DEPTH}", what=what)
        elif character in "]}":
            depth -= 1
        elif character == ",":
            values += 1
        if values > _MAX_VALUES:
            raise FormatError(f"has more than {_MAX_VALUES} values", what=what)


def _kind_of(value: object) -> str:
    """What a value is in the words of JSON."""
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)  # TOML and YAML have more


@functools.cache
def _folded(names: frozenset[str]) -> Mapping[str, str]:
    return {name.casefold(): name for name in names}


class View:
    """One object of a document, which knows where it stands.

    Members that are not asked for are ignored; `only` and `exactly` are for closed objects. Null
    is as good as absent, as Go writes and reads it.

    Args:
        value: any value of JSON, or as TOML and YAML give it.
        what: name of the document in messages.
        where: path of the object in it.

    Raises:
        FormatError: `value` is no object. So does every method, at the place of the fault.
    """

    __slots__ = ("value", "what", "where")

    def __init__(self, value: object, *, what: str, where: str = "$") -> None:
        if not isinstance(value, dict):
            raise FormatError(f"expected an object, got {_kind_of(value)}", what=what, where=where)
        self.value: JSONObject = value
        self.what = what
        self.where = where

    @classmethod
    def parse(cls, data: bytes, *, what: str, max_bytes: int) -> Self:
        """The object that a document is; arguments and errors as for `parse_json`."""
        return cls(parse_json(data, what=what, max_bytes=max_bytes), what=what)

    def __contains__(self, name: str) -> bool:
        return name in self.value  # null is there

    def at(self, name: str) -> str:
        """The path of a member."""
        return f"{self.where}.{name}" if self.where else name

    def error(self, message: str, name: str = "", *, hint: str | None = None) -> FormatError:
        """The error at this object, or at a member of it."""
        where = self.at(name) if name else self.where
        return FormatError(message, what=self.what, where=where, hint=hint)

    def only(self, *names: str) -> None:
        """Raise if there are other members."""
        for name in self.value:
            if name not in names:
                known = f"one of {', '.join(names)}" if names else "none"
                raise self.error(f"has the unknown member {str(name)[:80]!r}, expected {known}")

    def exactly(self, *names: str) -> None:
        """Raise unless these members are there, and no others."""
        self.only(*names)
        for name in names:
            if name not in self.value:
                raise self.error("is missing", name)

    def check_spelling(self, names: frozenset[str]) -> None:
        """Raise if a member is one of `names` but for upper and lower case.

        Readers in Go take `Layers` for `layers`: with both in one object, they and we would
        see two different images under one digest, and with the first alone only they see one.
        """
        for member in self.value:
            # The long s (U+017F) and the Kelvin sign (U+212A) fold to s and k, there and here.
            if member not in names and (meant := _folded(names).get(member.casefold())):
                raise self.error(f"expected {meant!r}, got {member[:80]!r}")

    def _wrong(self, expected: str, name: str) -> FormatError:
        value = self.value.get(name)
        if value is None:
            return self.error(f"is missing, expected {expected}", name)
        return self.error(f"expected {expected}, got {_kind_of(value)}", name)

    def text(self, name: str) -> str:
        """A string."""
        value = self.value.get(name)
        if not isinstance(value, str):
            raise self._wrong("a string", name)
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or None where it is absent or null."""
        value = self.value.get(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong("a string", name)
        return value

    def flag(self, name: str) -> bool:
        """A boolean, false where it is absent or null."""
        value = self.value.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong("true or false", name)
        return bool(value)

    def integer(self, name: str, *, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
        """A whole number from `minimum` to `maximum`."""
        value = self.value.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong("a whole number", name)
        if not minimum <= value <= maximum:
            raise self.error(f"expected a number from {minimum} to {maximum}, got {value}", name)
        return value

    def bytes64(self, name: str, *, size: int | None = None, max_size: int | None = None) -> bytes:
        """The bytes of a string of base64; sizes as for `decode_base64`."""
        return decode_base64(
            self.text(name), what=self.what, where=self.at(name), size=size, max_size=max_size
        )

    def bytes64url(
        self, name: str, *, size: int | None = None, max_size: int | None = None
    ) -> bytes:
        """The bytes of a string of base64url; sizes as for `decode_base64`."""
        return decode_base64url(
            self.text(name), what=self.what, where=self.at(name), size=size, max_size=max_size
        )

    def hex(self, name: str, *, size: int | None = None) -> bytes:
        """The bytes of a string of hex, in either case and with nothing between.

        Args:
            size: how many; None: any number.
        """
        text = self.text(name)
        with suppress(ValueError):
            data = bytes.fromhex(text)
            if 2 * len(data) == len(text) and size in (None, len(data)):  # it passes over blanks
                return data
        raise self.error(f"expected {'' if size is None else f'{size} bytes in '}hex", name)

    def octets(self, name: str, *, size: int | None = None, max_size: int | None = None) -> bytes:
        """The bytes of a list of numbers, as serde writes them.

        Args:
            size: how many; None: any number.
            max_size: the most that there may be.
        """
        value = self.value.get(name)
        if (
            isinstance(value, list)
            and size in (None, len(value))
            and set(map(type, value)) <= {int}
        ):
            if max_size is not None and len(value) > max_size:
                raise self.error(f"expected at most {max_size} bytes, got {len(value)}", name)
            with suppress(ValueError):  # a number above 255
                return bytes(cast("list[int]", value))
        raise self.error(f"expected a list of {'' if size is None else f'{size} '}bytes", name)

    def object(self, name: str, *, null_is_empty: bool = False) -> Self:
        """An object.

        Args:
            null_is_empty: where it is absent or null, an empty one.
        """
        value = self.value.get(name)
        if value is None and null_is_empty:
            value = {}
        if not isinstance(value, dict):
            raise self._wrong("an object", name)
        return type(self)(value, what=self.what, where=self.at(name))

    def optional_object(self, name: str) -> Self | None:
        """An object, or None where it is absent or null."""
        return None if self.value.get(name) is None else self.object(name)

    def string_map(self, name: str) -> dict[str, str]:
        """An object of strings; empty where it is absent or null.

        A null in it is the empty string, as for readers in Go.
        """
        members = self.value.get(name)
        if members is None:
            return {}
        if not isinstance(members, dict):
            raise self._wrong("an object", name)
        found: dict[str, str] = {}
        for key, value in members.items():
            if value is not None and not isinstance(value, str):
                raise self.error(
                    f"expected a string, got {_kind_of(value)}", f"{name}[{str(key)[:80]!r}]"
                )
            found[key] = value or ""
        return found

    def objects(
        self,
        name: str,
        *,
        most: int = _MAX_VALUES,
        non_empty: bool = False,
        null_is_empty: bool = False,
    ) -> Sequence[Self]:
        """The objects in a list.

        Args:
            most: how many there may be.
            non_empty: there must be one.
            null_is_empty: where it is absent or null, there are none.
        """
        found = self._list(name, most, non_empty=non_empty, null_is_empty=null_is_empty)
        place = self.at(name)
        return [
            type(self)(value, what=self.what, where=f"{place}[{index}]")
            for index, value in enumerate(found)
        ]

    def texts(
        self,
        name: str,
        *,
        most: int = _MAX_VALUES,
        non_empty: bool = False,
        null_is_empty: bool = False,
    ) -> tuple[str, ...]:
        """The strings in a list; arguments as for `objects`."""
        found = self._list(name, most, non_empty=non_empty, null_is_empty=null_is_empty)
        for index, value in enumerate(found):
            if not isinstance(value, str):
                raise self.error(f"expected a string, got {_kind_of(value)}", f"{name}[{index}]")
        return tuple(cast("list[str]", found))

    def _list(self, name: str, most: int, *, non_empty: bool, null_is_empty: bool) -> list[JSON]:
        value = self.value.get(name)
        if value is None and null_is_empty:
            return []
        if not isinstance(value, list):
            raise self._wrong("a list", name)
        if non_empty and not value:
            raise self.error("expected a list that is not empty", name)
        if len(value) > most:
            raise self.error(f"expected at most {most} entries, got {len(value)}", name)
        return value


def dump_json(value: object) -> bytes:
    """Compact UTF-8 JSON, members in the order that they have."""
    return _encode(value).encode()
