"""JSON from outside: bounded, duplicate names refused, no NaN.

Two readers that disagree about a duplicate name see two different documents under one
digest; that is refused here, for every document that the project reads.

    >>> parse_json(b'{"a": 1}', what="manifest", max_bytes=100)
    {'a': 1}

Spec: RFC 8259 sections 4 and 9.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, NoReturn, cast

from imagers.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "JSON",
    "JSONObject",
    "check_spelling",
    "dump_json",
    "get_int",
    "get_list",
    "get_object",
    "get_optional_list",
    "get_optional_object",
    "get_optional_str",
    "get_str",
    "get_string_map",
    "parse_json",
    "parse_object",
]

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
JSONObject = dict[str, JSON]

_MAX_DEPTH = 64  # deeper than any document of these formats; json itself recurses
_MAX_VALUES = 200_000  # a value of two bytes costs up to 80 in memory; a layer needs 5 for 120
# The closing quote is optional, so that a string without one ends the search: trying again
# at each of its escaped quotes would take time in the square of its length.
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{},]', re.DOTALL)
_MAX_INT_DIGITS = 20  # a uint64; longer ones cost quadratic time to convert


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
                parse_int=bounded_int,
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


def parse_object(data: bytes, *, what: str, max_bytes: int) -> JSONObject:
    """Like `parse_json`, and the document must be an object."""
    value = parse_json(data, what=what, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise FormatError(f"expected an object, got {_kind(value)}", what=what, where="$")
    return value


def check_spelling(
    value: Mapping[str, JSON], names: frozenset[str], *, what: str, where: str = "$"
) -> None:
    """Nothing, if no member is one of `names` but for upper and lower case.

    Readers in Go take `Layers` for `layers`: with both in one object, they and we would
    see two different images under one digest, and with the first alone only they see one.

    Raises:
        FormatError: such a member is there.
    """
    folded = {name.casefold(): name for name in names}
    for member in value:
        # The long s (U+017F) and the Kelvin sign (U+212A) fold to s and k, there and here.
        meant = folded.get(member.casefold())
        if meant is not None and meant != member:
            raise FormatError(f"expected {meant!r}, got {member[:80]!r}", what=what, where=where)


def dump_json(value: object) -> bytes:
    """Compact UTF-8 JSON, members in the order that they have."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _kind(value: object) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names[type(value)]


def _missing(what: str, where: str, wanted: str) -> NoReturn:
    raise FormatError(f"is missing, expected {wanted}", what=what, where=where)


def get_str(value: Mapping[str, JSON], name: str, *, what: str, where: str = "$") -> str:
    """Member `name`, which must be a string."""
    text = get_optional_str(value, name, what=what, where=where)
    if text is None:
        _missing(what, f"{where}.{name}", "a string")
    return text


def get_optional_str(
    value: Mapping[str, JSON], name: str, *, what: str, where: str = "$"
) -> str | None:
    """Member `name`, a string, or None where it is absent or null."""
    item = value.get(name)
    if item is None:
        return None
    if not isinstance(item, str):
        raise FormatError(
            f"expected a string, got {_kind(item)}", what=what, where=f"{where}.{name}"
        )
    return item


def get_int(
    value: Mapping[str, JSON],
    name: str,
    *,
    what: str,
    where: str = "$",
    minimum: int = 0,
    maximum: int = 2**63 - 1,
) -> int:
    """Member `name`, a whole number from `minimum` to `maximum`."""
    item = value.get(name)
    if item is None:
        _missing(what, f"{where}.{name}", "a whole number")
    if isinstance(item, bool) or not isinstance(item, int):
        raise FormatError(
            f"expected a whole number, got {_kind(item)}", what=what, where=f"{where}.{name}"
        )
    if not minimum <= item <= maximum:
        raise FormatError(
            f"expected a number from {minimum} to {maximum}, got {item}",
            what=what,
            where=f"{where}.{name}",
        )
    return item


def get_list(value: Mapping[str, JSON], name: str, *, what: str, where: str = "$") -> list[JSON]:
    """Member `name`, which must be a list."""
    item = value.get(name)
    if item is None:
        _missing(what, f"{where}.{name}", "a list")
    if not isinstance(item, list):
        raise FormatError(f"expected a list, got {_kind(item)}", what=what, where=f"{where}.{name}")
    return item


def get_optional_list(
    value: Mapping[str, JSON], name: str, *, what: str, where: str = "$"
) -> list[JSON]:
    """Member `name`, a list; empty where it is absent or null, as Go writes and reads it."""
    return [] if value.get(name) is None else get_list(value, name, what=what, where=where)


def get_object(value: Mapping[str, JSON], name: str, *, what: str, where: str = "$") -> JSONObject:
    """Member `name`, which must be an object."""
    item = get_optional_object(value, name, what=what, where=where)
    if item is None:
        _missing(what, f"{where}.{name}", "an object")
    return item


def get_optional_object(
    value: Mapping[str, JSON], name: str, *, what: str, where: str = "$"
) -> JSONObject | None:
    """Member `name`, an object, or None where it is absent or null."""
    item = value.get(name)
    if item is None:
        return None
    if not isinstance(item, dict):
        raise FormatError(
            f"expected an object, got {_kind(item)}", what=what, where=f"{where}.{name}"
        )
    return item


def get_string_map(
    value: Mapping[str, JSON], name: str, *, what: str, where: str = "$"
) -> dict[str, str]:
    """Member `name`, an object of strings; empty where it is absent or null.

    A null in it is the empty string, as for readers in Go.
    """
    item = get_optional_object(value, name, what=what, where=where) or {}
    result: dict[str, str] = {}
    for key, entry in item.items():
        if entry is None:
            result[key] = ""
            continue
        if not isinstance(entry, str):
            raise FormatError(
                f"expected a string, got {_kind(entry)}",
                what=what,
                where=f"{where}.{name}[{key[:80]!r}]",
            )
        result[key] = entry
    return result
