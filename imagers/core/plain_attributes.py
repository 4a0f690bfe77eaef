# SPDX-License-Identifier: Apache-2.0
"""Extended attributes of what is unpacked: which are set, and what the others count as.

What is set is a list, and all else is left out: labels are of a machine's policy, and some names
change what a tree shows where overlayfs reads it (docs/adr/0042-what-is-left-out-is-told.md).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from imagers.core.left_out import Left

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.core.plain_tar import Entry

__all__ = ["BadAttribute", "clear_attributes", "is_set", "left_of_attribute", "set_attributes"]

_CAPABILITY = b"security.capability"
_IMA = b"security.ima"  # a signature of the content: containers/storage keeps it too
# By the start of the name, in this order; what has none of them is an ATTRIBUTE.
_STARTS: tuple[tuple[bytes, Left], ...] = (
    (b"user.overlay.", Left.OVERLAY),
    (b"user.fuseoverlayfs.", Left.OVERLAY),
    (b"user.containers.", Left.OVERLAY),  # fuse-overlayfs: other owner, mode, kind
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


# setxattr(2) for "not this user, not on this kind of file" and "not this file system".
_NOT_HERE = (errno.EPERM, errno.ENOTSUP)
_NEVER = (errno.EINVAL, errno.ERANGE, errno.E2BIG)  # that no file can have


class BadAttribute(Exception):
    """No file can have this value; `name` is the attribute's."""

    def __init__(self, name: bytes) -> None:
        super().__init__(name)
        self.name = name


def set_attributes(
    place: int | bytes, entry: Entry, *, keep: bool, leave_out: Callable[[Left, bytes], None]
) -> None:
    """Set those of an entry that are to be set, in their order.

    Args:
        place: a descriptor, or a path that is not followed.
        keep: by root.
        leave_out: is told of each of the others.

    Raises:
        BadAttribute, OSError
    """
    for name, value in entry.attributes:
        if value is None or not is_set(name, keep=keep):
            leave_out(left_of_attribute(name), name)
            continue
        if name == _CAPABILITY and not value:
            raise BadAttribute(name)  # Linux takes it, and then does not run the program
        try:
            os.setxattr(place, name, value, follow_symlinks=isinstance(place, int))
        except OSError as error:
            if error.errno in _NEVER:
                raise BadAttribute(name) from error
            if error.errno not in _NOT_HERE:
                raise
            leave_out(left_of_attribute(name), name)


def clear_attributes(fd: int, *, keep: bool) -> None:
    """Take what a lower layer gave a directory: an entry says all that it has."""
    try:
        names = [os.fsencode(name) for name in os.listxattr(fd)]
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return
    names = [name for name in names if is_set(name, keep=keep)]
    if names and not keep:
        os.fchmod(fd, 0o700)  # of a directory that may not be written none can be taken
    for name in names:
        os.removexattr(fd, name)
