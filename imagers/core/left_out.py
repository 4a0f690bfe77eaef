# SPDX-License-Identifier: Apache-2.0
"""What unpacking leaves out of an image on purpose: counted, with the first of each kind.

    >>> LeftOut(Left.LABEL, 1, b"bin/sh", b"security.selinux").text
    "1 security label, 'security.selinux' of 'bin/sh': they belong to the policy of a machine"

What would stand in a tree and mean something else there (a label of another machine's policy, a
mark of overlayfs), or cannot be made by who unpacks, ends no pull; but nothing of it is silent.
The numbers are those of `enum imc_left` in `src/imagers_core.h`; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from imagers.core.failures import shown_name

__all__ = ["Left", "LeftOut", "LeftOuts"]

_LONGEST = 1024  # bytes of a name that are kept; IMC_FAILURE_TEXT of src/imagers_core.h


class Left(IntEnum):
    """The kinds of things that are left out."""

    DEVICE = 0
    WHITEOUT_DEVICE = 1
    CAPABILITY = 2
    LABEL = 3
    OVERLAY = 4
    ATTRIBUTE = 5
    ACL = 6
    AUFS = 7


# One, many, why.
_WORDS = {
    Left.DEVICE: (
        "device node",
        "device nodes",
        "only root can make them; a runtime mounts its own /dev",
    ),
    Left.WHITEOUT_DEVICE: (
        "device node 0:0",
        "device nodes 0:0",
        "overlay file systems take them for whiteouts; what had their names is removed",
    ),
    Left.CAPABILITY: (
        "file capability",
        "file capabilities",
        "only root can set them, on a file system that has them",
    ),
    Left.LABEL: ("security label", "security labels", "they belong to the policy of a machine"),
    Left.OVERLAY: (
        "attribute of overlayfs",
        "attributes of overlayfs",
        "they would hide or redirect files of the image",
    ),
    Left.ATTRIBUTE: (
        "extended attribute",
        "extended attributes",
        "this user or this file system cannot have them",
    ),
    Left.ACL: ("access control list", "access control lists", "engines do not set them either"),
    Left.AUFS: ("leftover of aufs", "leftovers of aufs", "no part of the image"),
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Things of one kind that a layer has and the tree has not.

    Attributes:
        first: name of the entry, as written in the layer; at most 1024 bytes.
        attribute: its name, where it is one.
    """

    kind: Left
    count: int
    first: bytes
    attribute: bytes = b""

    @property
    def facts(self) -> dict[str, str | int | None]:
        """The same for a program; bytes of a name that are no UTF-8 with a backslash."""
        return {
            "kind": self.kind.name.lower().replace("_", "-"),
            "count": self.count,
            "first": self.first.decode("utf-8", "backslashreplace"),
            "attribute": self.attribute.decode("utf-8", "backslashreplace") or None,
        }

    @property
    def where(self) -> str:
        """The first of them, as messages show names."""
        of = f"{shown_name(self.attribute)} of " if self.attribute else ""
        return of + shown_name(self.first)

    @property
    def text(self) -> str:
        """One line: how many of what, where the first is, and why."""
        one, many, why = _WORDS[self.kind]
        first = "" if self.count == 1 else "the first "
        noun = one if self.count == 1 else many
        return f"{self.count} {noun}, {first}{self.where}: {why}"


class LeftOuts:
    """Counts what is left out of one layer."""

    def __init__(self) -> None:
        self._found: dict[Left, LeftOut] = {}

    def add(self, kind: Left, name: bytes, attribute: bytes = b"") -> None:
        """One more, of the entry `name`."""
        old = self._found.get(kind)
        if old is None:
            self._found[kind] = LeftOut(kind, 1, name[:_LONGEST], attribute[:_LONGEST])
        else:
            self._found[kind] = replace(old, count=old.count + 1)

    @property
    def found(self) -> tuple[LeftOut, ...]:
        """All of them, by kind."""
        return tuple(self._found[kind] for kind in sorted(self._found))
