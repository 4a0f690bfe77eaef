# SPDX-License-Identifier: Apache-2.0
"""Reference values: what claims of guests have to equal, and their JSON.

Builders make files of them, admins set them at a broker:

    {"reference_values": [
      {"name": "snp_launch_measurement", "values": ["c4a6..."],
       "expires": "2027-11-29T00:00:00+00:00", "source": "OVMF.fd of edk2-stable202611"}
    ]}

`expires` and `source` may be absent. A value is a string, a whole number, or true or false. With
`"single": true` there is one value, which policies in Rego see as it is, and not in a list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imagers.model.strict_json import JSON, JSONObject

__all__ = [
    "MAX_REFERENCES_BYTES",
    "MAX_SOURCE",
    "MAX_VALUES",
    "ReferenceValue",
    "as_word",
    "is_reference_name",
    "parse_reference_members",
    "parse_references",
    "references_to_json",
]

MAX_REFERENCES_BYTES = 1024 * 1024
_MAX_NAMES = 1000
MAX_VALUES = 1000
MAX_SOURCE = 1024  # characters
_MAX_TEXT = 1024  # of a value
_WHAT = "reference values"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:/-]{0,127}\Z")  # rvps:///a/b:v1 is one of Trustee's


@dataclass(frozen=True, slots=True)
class ReferenceValue:
    """What a claim has to equal: one of the values.

    Attributes:
        name: as verifiers name their claims, such as `snp_launch_measurement`.
        expires: aware; from then on it equals nothing. None: never.
        source: where the operator has it from, for people.
        is_single: whether policies in Rego see the one value as it is, and no list of it.
    """

    name: str
    values: tuple[JSON, ...]
    expires: datetime | None = None
    source: str = ""
    is_single: bool = False

    def as_policies_see_it(self) -> JSON:
        """What `query_reference_value` gives: the value, or the list of them."""
        return self.values[0] if self.is_single else list(self.values)


def as_word(value: object) -> str:
    """A value as a word of the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_reference_name(text: str) -> bool:
    """Whether it can be the name of a reference value."""
    return _NAME.match(text) is not None


def parse_references(data: bytes, *, what: str = _WHAT) -> tuple[ReferenceValue, ...]:
    """Reference values from JSON, in the order in which they stand.

    Raises:
        FormatError: it is something else, or has a name twice.
    """
    document = View.parse(data, what=what, max_bytes=MAX_REFERENCES_BYTES)
    document.only("reference_values")
    if "reference_values" not in document:
        raise document.error("is missing", "reference_values")
    return parse_reference_members(document)


def parse_reference_members(document: View) -> tuple[ReferenceValue, ...]:
    """The reference values of a document that holds more; none where the member is absent.

    Raises:
        FormatError: as for `parse_references`.
    """
    found: dict[str, ReferenceValue] = {}
    for item in document.objects("reference_values", most=_MAX_NAMES, null_is_empty=True):
        one = _parse_reference(item)
        if one.name in found:
            raise item.error(f"has the name {one.name!r} twice", "name")
        found[one.name] = one
    return tuple(found.values())


def references_to_json(references: Iterable[ReferenceValue]) -> JSONObject:
    """What `parse_references` reads."""
    return {
        "reference_values": [
            {
                "name": one.name,
                "values": list(one.values),
                "expires": None if one.expires is None else one.expires.isoformat(),
                "source": one.source,
                **({"single": True} if one.is_single else {}),
            }
            for one in references
        ]
    }


def _parse_reference(item: View) -> ReferenceValue:
    item.only("name", "values", "expires", "source", "single")
    name = item.text("name")
    if not is_reference_name(name):
        raise item.error("expected a name of letters, digits, '_', '.', ':', '/' and '-'", "name")
    source = item.optional_text("source") or ""
    if len(source) > MAX_SOURCE:
        raise item.error(f"expected at most {MAX_SOURCE} characters", "source")
    values = _parse_values(item)
    is_single = item.flag("single")
    if is_single and len(values) != 1:
        raise item.error(f"expected one value with 'single', got {len(values)}", "values")
    return ReferenceValue(name, values, _parse_expiry(item), source, is_single)


def _parse_values(item: View) -> tuple[JSON, ...]:
    values = item.value.get("values")
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_VALUES:
        raise item.error(f"expected a list of 1 to {MAX_VALUES} values", "values")
    for index, value in enumerate(values):
        if not isinstance(value, (str, int)) or len(str(value)) > _MAX_TEXT:
            raise item.error("expected a string, a whole number, true or false", f"values[{index}]")
    return tuple(values)


def _parse_expiry(item: View) -> datetime | None:
    text = item.optional_text("expires")
    if text is None:
        return None
    try:
        expires = datetime.fromisoformat(text)
        if expires.tzinfo is not None:
            return expires.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: before the year 1, or after 9999
        pass
    raise item.error(f"expected a time as 2026-11-29T12:00:00Z, got {text[:40]!r}", "expires")
