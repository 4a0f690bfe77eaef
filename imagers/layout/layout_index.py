# SPDX-License-Identifier: Apache-2.0
"""index.json of an OCI layout: which entry a name means, and the document with another entry.

No IO. The entries that a change does not concern keep every member that they have.

Spec: OCI image-spec v1.1, image-layout.md "index.json file", annotations.md for REF_NAME.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from imagers.errors import FormatError, NotFound, Unsupported
from imagers.model.manifest import MAX_MANIFEST_BYTES, Index, parse_index
from imagers.model.media import OCI_INDEX
from imagers.model.strict_json import JSON, JSONObject, View, dump_json

if TYPE_CHECKING:
    from imagers.model.descriptor import Descriptor

__all__ = [
    "LAYOUT_FILE",
    "REF_NAME",
    "Selection",
    "check_layout_file",
    "find_entry",
    "parse_layout_index",
    "replace_entry",
]

REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_VERSION = "1.0.0"
_SHOWN_NAMES = 10


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entry: by name, by position, or (with neither) the only one."""

    ref: str | None = None
    position: int | None = None


def check_layout_file(raw: bytes, *, what: str) -> None:
    """Raise unless `raw` is the `oci-layout` file of a layout that we read.

    Raises:
        FormatError: it is none.
        Unsupported: of another version.
    """
    version = View.parse(raw, what=what, max_bytes=4096).text("imageLayoutVersion")
    if version != _VERSION:
        raise Unsupported(
            f"{what}: layout version {version[:40]!r} is not supported: expected {_VERSION!r}"
        )


def parse_layout_index(raw: bytes, *, what: str) -> Index:
    """The index in `raw`; errors name the file."""
    try:
        return parse_index(raw, media_type=OCI_INDEX)
    except FormatError as error:
        raise FormatError(str(error), what=what, hint=error.hint) from error


def find_entry(index: Index, selection: Selection, *, name: str) -> Descriptor:
    """The entry that `selection` means.

    Args:
        name: of the layout as the user wrote it, for messages.

    Raises:
        NotFound: there is none.
        FormatError: two entries have the name, or there is more than one to choose from.
    """
    entries = index.manifests
    if selection.position is not None:
        if selection.position >= len(entries):
            raise NotFound(
                f"{name}: expected an entry {selection.position}, got a layout with {len(entries)}",
                hint="positions count from 0",
            )
        return entries[selection.position]
    if selection.ref is None:
        found = list(entries)
    else:
        found = [entry for entry in entries if entry.annotations.get(REF_NAME) == selection.ref]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(
            f"{name}: the layout has no image" + (" of this name" if entries else ""),
            hint=_names_of(index),
        )
    if selection.ref is None:
        raise FormatError(
            f"expected exactly one image, got {len(found)}", what=name, hint=_names_of(index)
        )
    raise FormatError(
        f"expected one entry named {selection.ref!r}, got {len(found)}",
        what=name,
        hint="choose one by its position, as in oci:PATH:@0",
    )


def _names_of(index: Index) -> str | None:
    names = [entry.annotations.get(REF_NAME) for entry in index.manifests]
    shown = [repr(name[:80]) for name in names if name][:_SHOWN_NAMES]
    if not shown:
        return None
    more = " and more" if len(names) > len(shown) else ""
    return f"its images are named {', '.join(shown)}{more}"


def replace_entry(
    raw: bytes | None, descriptor: Descriptor, ref: str | None, *, what: str
) -> bytes:
    """The index with an entry for `descriptor` named `ref`, in place of what had the name.

    Without a name the entry takes the place of the only nameless one, or of one with the
    same digest.

    Args:
        raw: the index as it is, or None for a new one.

    Raises:
        FormatError: `raw` is no index, or has no room.
    """
    document: JSONObject = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    if raw is not None:
        index = parse_layout_index(raw, what=what)
        document = dict(index.document)
    entries = list(cast("list[JSON]", document.get("manifests") or []))
    names = [] if raw is None else [one.annotations.get(REF_NAME) for one in index.manifests]
    if ref is not None:
        dropped = {at for at, name in enumerate(names) if name == ref}
    else:
        dropped = {at for at, name in enumerate(names) if name is None}
        if len(dropped) > 1:
            dropped = {at for at in dropped if index.manifests[at].digest == descriptor.digest}
    entry = descriptor.to_json()
    entry.pop("annotations", None)
    if ref is not None:
        entry["annotations"] = {REF_NAME: ref}
    kept = [one for at, one in enumerate(entries) if at not in dropped]
    document["manifests"] = [*kept, entry]
    result = dump_json(document)
    if len(result) > MAX_MANIFEST_BYTES:
        raise FormatError(
            f"the index is full: expected at most {MAX_MANIFEST_BYTES} bytes",
            what=what,
            hint="use another layout",
        )
    return result
