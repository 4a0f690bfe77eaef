# SPDX-License-Identifier: Apache-2.0
"""manifest.json of archives that `docker save` and `podman save` write. No IO.

    [{"Config": "NAME", "RepoTags": ["app:v1"], "Layers": ["NAME", ...]}]

The names are members of the archive: `HEX.json` and `HEX/layer.tar` (Docker to 24),
`blobs/sha256/HEX` (Docker since 25), `HEX.tar` (podman).

Spec: moby v28, image/tarexport; containers/image v5, docker/internal/tarfile.
"""

from __future__ import annotations

from dataclasses import dataclass

from imagers.errors import FormatError, NotFound
from imagers.model.manifest import MAX_MANIFEST_BYTES
from imagers.model.reference import Reference, parse_reference
from imagers.model.strict_json import JSONObject, View, dump_json, parse_json

__all__ = ["SavedImage", "dump_saved", "find_saved", "parse_saved"]

_SHOWN = 10
_MEMBERS = {name.casefold(): name for name in ("Config", "Layers", "RepoTags")}


@dataclass(frozen=True, slots=True)
class SavedImage:
    """One image of an archive: names of members.

    Attributes:
        tags: as written, some without registry.
    """

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]

    def has_tag(self, reference: Reference) -> bool:
        """Whether one of the tags means `reference`."""
        for tag in self.tags:
            try:
                if parse_reference(tag) == reference:
                    return True
            except FormatError:
                continue  # a tag that nobody can ask for
        return False


def parse_saved(raw: bytes, *, what: str) -> tuple[SavedImage, ...]:
    """The images that manifest.json names.

    Raises:
        FormatError: it is none, or beyond a bound.
    """
    entries = parse_json(raw, what=what, max_bytes=MAX_MANIFEST_BYTES)
    if not isinstance(entries, list) or not entries:
        raise FormatError("expected a list of images", what=what, where="$")
    return tuple(
        _parse_image(View(entry, what=what, where=f"$[{at}]")) for at, entry in enumerate(entries)
    )


def _parse_image(entry: View) -> SavedImage:
    entry = _as_spelt(entry)
    return SavedImage(
        config=entry.text("Config"),
        layers=entry.texts("Layers", null_is_empty=True),
        tags=entry.texts("RepoTags", null_is_empty=True),
    )


def _as_spelt(entry: View) -> View:
    """`entry` with its members as Docker spells them; engines in Go take `config` for `Config`.

    Of both they take the last, and with it perhaps another image than we would.
    """
    members: JSONObject = {}
    for name, value in entry.value.items():
        meant = _MEMBERS.get(name.casefold(), name)
        if meant in members:
            raise entry.error(f"expected one {meant!r}, got several spellings of it")
        members[meant] = value
    return View(members, what=entry.what, where=entry.where)


def find_saved(
    images: tuple[SavedImage, ...], ref: Reference | None, position: int | None, *, name: str
) -> SavedImage:
    """The image that a name or a position means; with neither, the only one.

    Raises:
        NotFound, FormatError: there is none, or more than one to choose from.
    """
    if position is not None:
        if position >= len(images):
            raise NotFound(
                f"{name}: expected an image {position}, got an archive with {len(images)}",
                hint="positions count from 0",
            )
        return images[position]
    found = images if ref is None else tuple(one for one in images if one.has_tag(ref))
    if len(found) == 1:
        return found[0]
    tags = [tag[:80] for image in images for tag in image.tags][:_SHOWN]
    hint = f"its images are named {', '.join(map(repr, tags))}" if tags else "choose one with :@N"
    if not found:
        raise NotFound(f"{name}: the archive has no image of this name", hint=hint)
    raise FormatError(f"expected exactly one image, got {len(found)}", what=name, hint=hint)


def dump_saved(config: str, layers: list[str], tag: str | None) -> bytes:
    """A manifest.json with one image."""
    tags = [] if tag is None else [tag]
    return dump_json([{"Config": config, "RepoTags": tags, "Layers": layers}])
