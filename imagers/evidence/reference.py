# SPDX-License-Identifier: Apache-2.0
"""Reference values from files of others: Trustee's messages, CoRIM, SWID tags.

    imported = import_references(data)

Trustee registers reference values with a message of `version`, `type` (`sample`, `corim` or `swid`)
and `payload`, in base64; the payload alone is taken too. That of `sample` maps names to values or
lists of values, and policies in Rego see either as it was registered. But for a signed CoRIM they
come without anybody's signature: who sets them has to know where they are from.

Spec: Trustee, reference value provider service, message 0.1.0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagers.errors import FormatError, NoSignature, Unsupported
from imagers.evidence.corim import is_corim, parse_corim
from imagers.evidence.swid import parse_swid
from imagers.model.references import (
    MAX_REFERENCES_BYTES,
    MAX_VALUES,
    ReferenceValue,
    is_reference_name,
    parse_references,
)
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from imagers.model.strict_json import JSON

__all__ = ["Imported", "import_references"]

_WHAT = "reference values"
_KINDS = ("sample", "corim", "swid")


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file says.

    Attributes:
        trust_anchors: keys of CCA platforms, as `tees.cca.trust_anchors` of a policy has them.
        left_out: how many measurements are claims of no verifier here.
    """

    references: tuple[ReferenceValue, ...]
    trust_anchors: tuple[JSON, ...] = ()
    left_out: int = 0


def import_references(
    data: bytes, *, expires: datetime | None = None, source: str = "", key: bytes | None = None
) -> Imported:
    """Reference values of a message or of its payload, or those of our own file as they are.

    Args:
        expires: from then on they equal nothing; None: never, or when the file says.
        source: where the operator has them from.
        key: public, in PEM, of who has to have signed; None: nobody has to.

    Raises:
        FormatError: it is something else.
        Unsupported: the message is of another type.
        CouldNotVerify: it is signed, and there is no key.
        NoSignature, SignatureInvalid: it is not signed, or by another than the key is of.
    """
    if not is_corim(data) and not _is_xml(data):
        view = View.parse(data, what=_WHAT, max_bytes=MAX_REFERENCES_BYTES)
        if "payload" not in view:
            return _plain(view, data, expires, source, key)
        data = _payload(view)
    if is_corim(data):
        return _corim(data, expires, source, key)
    if _is_xml(data):
        _refuse_key(key)
        return Imported(_references(parse_swid(data), expires, source))
    view = View.parse(data, what=_WHAT, max_bytes=MAX_REFERENCES_BYTES)
    return _plain(view, data, expires, source, key)


def _is_xml(data: bytes) -> bool:
    return data.lstrip()[:1] == b"<"


def _payload(message: View) -> bytes:
    """What a message of Trustee carries."""
    kind = message.text("type")
    if kind not in _KINDS:
        expected = ", ".join(_KINDS)
        raise Unsupported(f"reference values of the type {kind[:40]!r}: expected one of {expected}")
    payload = message.bytes64("payload", max_size=MAX_REFERENCES_BYTES)
    if (is_corim(payload), _is_xml(payload)) != (kind == "corim", kind == "swid"):
        raise message.error(f"expected one of the type {kind!r}", "payload")
    return payload


def _refuse_key(key: bytes | None) -> None:
    if key is not None:
        raise NoSignature("only a CoRIM can be signed, and this is none")


def _plain(
    view: View, data: bytes, expires: datetime | None, source: str, key: bytes | None
) -> Imported:
    """Of names and values, or a file of ours."""
    _refuse_key(key)
    if "reference_values" in view:
        return Imported(parse_references(data))
    values = {name: _values(view, name, value) for name, value in view.value.items()}
    return Imported(
        tuple(
            replace(one, is_single=not isinstance(view.value[one.name], list))
            for one in _references(values, expires, source)
        )
    )


def _corim(data: bytes, expires: datetime | None, source: str, key: bytes | None) -> Imported:
    manifest = parse_corim(data, key=key)
    if not manifest.values and not manifest.trust_anchors:
        raise Unsupported(
            f"CoRIM: none of its {manifest.left_out} measurements is a claim of a TEE here",
            hint="docs/tee/reference-values.md has the profiles that are known",
        )
    until = [one for one in (expires, manifest.expires) if one is not None]
    return Imported(
        _references(manifest.values, min(until, default=None), source),
        tuple(manifest.trust_anchors),
        manifest.left_out,
    )


def _references(
    values: Mapping[str, Sequence[JSON]], expires: datetime | None, source: str
) -> tuple[ReferenceValue, ...]:
    found = []
    for name, each in values.items():
        if not is_reference_name(name):
            raise FormatError(f"expected the name of a claim, got {name[:80]!r}", what=_WHAT)
        if not 1 <= len(each) <= MAX_VALUES:
            raise FormatError(
                f"expected 1 to {MAX_VALUES} values, got {len(each)}", what=_WHAT, where=f"$.{name}"
            )
        found.append(ReferenceValue(name, tuple(each), expires, source))
    return tuple(found)


def _values(view: View, name: str, value: JSON) -> tuple[JSON, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, str | int) for one in values):
        raise view.error("expected a text, a whole number, true or false, or a list of them", name)
    return tuple(values)
