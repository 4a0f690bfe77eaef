# SPDX-License-Identifier: Apache-2.0
"""Names of secrets at a broker: exactly three segments.

    >>> parse_resource_uri("kbs:///default/key/1")
    ResourcePath(repository='default', type='key', tag='1')

Spec: Trustee key broker protocol 0.4.0, resource identifiers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from imagers.errors import FormatError

__all__ = [
    "ResourcePath",
    "is_repository",
    "parse_repository",
    "parse_resource_path",
    "parse_resource_uri",
]

_SCHEME = "kbs:///"
_MAX_SEGMENT = 255  # characters; a file name's length, for brokers that store files
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\Z")
_SEGMENTS = 3


@dataclass(frozen=True, slots=True, order=True)
class ResourcePath:
    """Repository, type and tag: safe as parts of a URL, a file name or a SQL value."""

    repository: str
    type: str
    tag: str

    def __str__(self) -> str:
        return f"{self.repository}/{self.type}/{self.tag}"

    @property
    def uri(self) -> str:
        """The name as key packets carry it."""
        return f"{_SCHEME}{self}"


def is_repository(text: str) -> bool:
    """Whether it can be the first segment of a name."""
    return _is_segment(text)


def parse_repository(text: str) -> str:
    """The first part of a resource's name.

    Raises:
        FormatError: it can be none.
    """
    if not is_repository(text):
        raise FormatError(
            f"expected a name of letters, digits, '_', '-' and '.', got {text[:80]!r}",
            what="repository",
        )
    return text


def parse_resource_path(text: str, *, what: str = "resource") -> ResourcePath:
    """A `ResourcePath` from `repository/type/tag`.

    Raises:
        FormatError: not three segments, or a segment with other characters than letters,
            digits, `_`, `-` and (not in front) `.`.
    """
    segments = text.split("/", _SEGMENTS)  # a fourth piece, however long, is one item
    if len(segments) != _SEGMENTS or not all(map(_is_segment, segments)):
        raise FormatError(
            "expected 'repository/type/tag' of letters, digits, '_', '-' and '.', "
            f"got {text[:160]!r}",
            what=what,
        )
    return ResourcePath(*segments)


def parse_resource_uri(text: str) -> ResourcePath:
    """A `ResourcePath` from `kbs:///repository/type/tag`.

    A host in the URI is refused: peers read it and then ask the configured broker all the
    same, so it would only mislead.

    Raises:
        FormatError: anything else.
    """
    if not text.startswith(_SCHEME):
        raise FormatError(
            f"expected 'kbs:///repository/type/tag', got {text[:160]!r}", what="resource URI"
        )
    return parse_resource_path(text.removeprefix(_SCHEME), what="resource URI")


def _is_segment(text: str) -> bool:
    return len(text) <= _MAX_SEGMENT and _SEGMENT.match(text) is not None
