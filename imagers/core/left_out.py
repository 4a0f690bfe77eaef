"""What unpacking leaves out of an image on purpose: counted, with the first of each kind.

    >>> LeftOut(Left.LABEL, 1, b"bin/sh", b"security.selinux").text
    "1 security label, 'security.selinux' of 'bin/sh': they belong to the policy of a machine"

What would stand in a tree and mean something else there (a label of another machine's policy, a
mark of overlayfs), or cannot be made by who unpacks, ends no pull; but nothing of it is silent.
The numbers are those of `enum imc_left` in `src/imagers_core.h`; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from imagers.core.failures import shown_name

__all__ = ["Left", "LeftOut", "is_set", "left_of_attribute"]


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
    def noun(self) -> str:
        """What they are, in the plural."""
        return _WORDS[self.kind][1]

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


_CAPABILITY = b"security.capability"
_IMA = b"security.ima"  # a signature of the content: containers/storage keeps it too
# By the start of the name, in this order; what has none of them is an ATTRIBUTE.
_STARTS: tuple[tuple[bytes, Left], ...] = (
    (b"user.overlay.", Left.OVERLAY),
    (b"user.fuseoverlayfs.", Left.OVERLAY),
    (b"trusted.overlay.", Left.OVERLAY),
    (b"trusted.SGI_ACL_", Left.ACL),  # what XFS keeps its access control lists in
    (b"system.posix_acl_", Left.ACL),
    (b"system.nfs4_acl", Left.ACL),
    (b"SCHILY.acl.", Left.ACL),
    (b"security.", Left.LABEL),
)


def left_of_attribute(name: bytes) -> Left:
    """What an attribute of this name counts as where it is left out."""
    if name in (_CAPABILITY, _IMA):
        return Left.CAPABILITY if name == _CAPABILITY else Left.ATTRIBUTE
    return next((kind for start, kind in _STARTS if name.startswith(start)), Left.ATTRIBUTE)


def is_set(name: bytes, *, keep: bool) -> bool:
    """Whether unpacking sets an attribute of this name, by root (`keep`) or by another user.

    Access control lists are not: a default one would be passed on to files that a layer makes
    without any, and the tree would grant what the image does not. Labels and what overlayfs
    keeps are the machine's.
    """
    kind = left_of_attribute(name)
    if kind is Left.CAPABILITY:
        return keep
    if kind is not Left.ATTRIBUTE:
        return False
    return name.startswith(b"user.") or (keep and (name == _IMA or name.startswith(b"trusted.")))
