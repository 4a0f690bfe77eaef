# SPDX-License-Identifier: Apache-2.0
"""Reference values from files of others: Trustee's messages.

    references = import_references(data)

Trustee registers reference values with a message of `version`, `type` (`sample`) and `payload`, in
base64, which maps names to values or lists of values; the payload alone is taken too. They come
without anybody's signature: who sets them has to know where they are from.

Spec: Trustee, reference value provider service, message 0.1.0, type `sample`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import FormatError, Unsupported
from imagers.model.references import (
    MAX_REFERENCES_BYTES,
    MAX_VALUES,
    ReferenceValue,
    is_reference_name,
    parse_references,
)
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from datetime import datetime

    from imagers.model.strict_json import JSON

__all__ = ["import_references"]

_WHAT = "reference values"


def import_references(
    data: bytes, *, expires: datetime | None = None, source: str = ""
) -> tuple[ReferenceValue, ...]:
    """Reference values of a message or of its payload, or those of our own file as they are.

    Args:
        expires: from then on they equal nothing; None: never.
        source: where the operator has them from.

    Raises:
        FormatError: it is something else.
        Unsupported: the message is of another type than `sample`.
    """
    view = View.parse(data, what=_WHAT, max_bytes=MAX_REFERENCES_BYTES)
    if "reference_values" in view:
        return parse_references(data)
    if "payload" in view:
        kind = view.text("type")
        if kind != "sample":
            raise Unsupported(f"reference values of the type {kind[:40]!r}: expected 'sample'")
        payload = view.bytes64("payload", max_size=MAX_REFERENCES_BYTES)
        view = View.parse(payload, what=_WHAT, max_bytes=MAX_REFERENCES_BYTES)
    return tuple(
        ReferenceValue(_name(name), _values(view, name, value), expires, source)
        for name, value in view.value.items()
    )


def _name(name: str) -> str:
    if not is_reference_name(name):
        raise FormatError(f"expected the name of a claim, got {name[:80]!r}", what=_WHAT)
    return name


def _values(view: View, name: str, value: JSON) -> tuple[JSON, ...]:
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= MAX_VALUES or not all(isinstance(one, str | int) for one in values):
        raise view.error("expected a text, a whole number, true or false, or a list of them", name)
    return tuple(values)
