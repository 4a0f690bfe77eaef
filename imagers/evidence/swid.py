# SPDX-License-Identifier: Apache-2.0
"""SWID tags with measurements of a device's firmware (RIM), as NVIDIA publishes them.

    parse_swid(data)        # {"NVIDIA_Corporation.GPU.measurement_1": ["b558..."]}

Nothing of it is verified: what vouches for it is an XML signature, which is not looked at. A text
with a document type is refused, so that there are no entities to expand.

Spec: ISO/IEC 19770-2:2015; TCG Reference Integrity Manifest Information Model 1.01; the names are
those of Trustee's reference value provider.
"""

from __future__ import annotations

import re
from typing import NoReturn
from xml.parsers import expat

from imagers.errors import FormatError

__all__ = ["MAX_SWID", "parse_swid"]

MAX_SWID = 1024 * 1024
"""In bytes."""
_WHAT = "SWID tag"
_SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_RIM = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
_SHA384 = "http://www.w3.org/2001/04/xmlenc#sha384"
_MAX_ELEMENTS, _MAX_DEPTH, _MAX_RESOURCES = 10_000, 32, 1000
_DIGEST = re.compile(r"[0-9a-f]{96}\Z")
_INDEX = re.compile(r"[0-9]{1,4}\Z")
_HASH = re.compile(rf"{re.escape(_SHA384)} Hash[0-9]{{1,3}}\Z")
_ODD = re.compile(r"[^A-Za-z0-9_.]")


def parse_swid(data: bytes) -> dict[str, list[str]]:
    """The digests of each measurement that has some, by the name of its reference value.

    Raises:
        FormatError: it is no such tag.
    """
    if len(data) > MAX_SWID:
        raise FormatError(f"expected at most {MAX_SWID} bytes, got {len(data)}", what=_WHAT)
    tag = _Tag()
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.StartElementHandler = tag.start
    parser.EndElementHandler = tag.end
    parser.StartDoctypeDeclHandler = _no_document_type
    try:
        parser.Parse(data, True)  # it has no name
    except expat.ExpatError as error:
        raise FormatError(
            f"is no XML: {expat.ErrorString(error.code)} at line {error.lineno}", what=_WHAT
        ) from error
    if not tag.maker or not tag.found:
        raise FormatError("has no manufacturer or no measurements", what=_WHAT)
    prefix = _ODD.sub("_", f"{tag.maker}.{tag.edition}")
    return {
        f"{prefix}.measurement_{index}": sorted(digests) for index, digests in tag.found.items()
    }


def _no_document_type(*_: object) -> NoReturn:
    raise FormatError("has a document type, which is not taken", what=_WHAT)


class _Tag:
    """What the elements say, one after the other."""

    def __init__(self) -> None:
        self.maker = self.edition = ""
        self.found: dict[int, set[str]] = {}
        self._elements = self._depth = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        self._depth += 1
        if self._elements > _MAX_ELEMENTS or self._depth > _MAX_DEPTH:
            raise FormatError("has too many elements", what=_WHAT)
        if self._depth == 1 and name != f"{_SWID} SoftwareIdentity":
            raise FormatError("expected a SoftwareIdentity", what=_WHAT)
        if name == f"{_SWID} Meta":
            if self.maker:
                raise FormatError("has Meta twice", what=_WHAT)
            self.maker = attributes.get(f"{_RIM} FirmwareManufacturer", "")
            self.edition = attributes.get("edition", "")
        elif name == f"{_SWID} Resource" and attributes.get("type") == "Measurement":
            self._resource(attributes)

    def end(self, _: str) -> None:
        self._depth -= 1

    def _resource(self, attributes: dict[str, str]) -> None:
        index = attributes.get("index", "")
        digests = [value for name, value in attributes.items() if _HASH.match(name)]
        if not _INDEX.match(index) or not digests or not all(map(_DIGEST.match, digests)):
            raise FormatError(
                f"expected a measurement with its index and digests of SHA-384, got {index[:20]!r}",
                what=_WHAT,
            )
        # Zeros stand for one that there is none of; beside others they allow that it is missing.
        if not any(one.strip("0") for one in digests) or attributes.get("active") != "True":
            return
        self.found.setdefault(int(index), set()).update(digests)
        if len(self.found) > _MAX_RESOURCES:
            raise FormatError(f"expected at most {_MAX_RESOURCES} measurements", what=_WHAT)
