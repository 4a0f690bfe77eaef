# SPDX-License-Identifier: Apache-2.0
"""Which attributes are set; that both implementations agree is in test_plain_unpack.py."""

import os

import pytest

from imagers.core.left_out import Left
from imagers.core.plain_attributes import (
    BadAttribute,
    clear_attributes,
    is_set,
    left_of_attribute,
    set_attributes,
)
from imagers.core.plain_tar import Entry, Kind


@pytest.mark.parametrize(
    ("name", "kind", "of_root", "of_users"),
    [
        (b"security.capability", Left.CAPABILITY, True, False),
        (b"security.ima", Left.ATTRIBUTE, True, False),
        (b"security.selinux", Left.LABEL, False, False),
        (b"security.evm", Left.LABEL, False, False),
        (b"security.SMACK64EXEC", Left.LABEL, False, False),
        (b"security.capability2", Left.LABEL, False, False),
        (b"user.a", Left.ATTRIBUTE, True, True),
        (b"user.overlay.opaque", Left.OVERLAY, False, False),
        (b"user.fuseoverlayfs.opaque", Left.OVERLAY, False, False),
        (b"trusted.a", Left.ATTRIBUTE, True, False),
        (b"trusted.overlay.redirect", Left.OVERLAY, False, False),
        (b"trusted.SGI_ACL_FILE", Left.ACL, False, False),
        (b"system.posix_acl_default", Left.ACL, False, False),
        (b"system.nfs4_acl", Left.ACL, False, False),
        (b"SCHILY.acl.access", Left.ACL, False, False),
        (b"btrfs.compression", Left.ATTRIBUTE, False, False),
        (b"user", Left.ATTRIBUTE, False, False),
    ],
)
def test_attributes_that_are_set(name, kind, of_root, of_users):
    assert left_of_attribute(name) is kind
    assert is_set(name, keep=True) is of_root
    assert is_set(name, keep=False) is of_users


def test_attributes_are_set_and_cleared_and_others_told(tmp_path):
    wanted = ((b"user.a", b"1"), (b"user.b", b""), (b"trusted.c", b"3"), (b"x", None))
    entry = Entry(Kind.DIRECTORY, b"d", b"", 0o755, 0, 0, 0, 0, attributes=wanted)
    told = []

    def leave_out(kind, name):
        told.append((kind, name))

    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        set_attributes(
            fd, entry, keep=False, leave_out=lambda kind, name: told.append((kind, name))
        )
        assert os.getxattr(fd, "user.a") == b"1"
        assert os.getxattr(fd, "user.b") == b""
        clear_attributes(fd, keep=False)
        assert not [name for name in os.listxattr(fd) if name.startswith("user.")]
    finally:
        os.close(fd)
    assert told == [(Left.ATTRIBUTE, b"trusted.c"), (Left.ATTRIBUTE, b"x")]


def test_attribute_that_no_file_can_have_is_refused(tmp_path):
    entry = Entry(Kind.FILE, b"f", b"", 0, 0, 0, 0, 0, attributes=((b"user." + b"n" * 251, b""),))
    with pytest.raises(BadAttribute) as caught:
        set_attributes(os.fsencode(tmp_path), entry, keep=False, leave_out=print)
    assert caught.value.name == b"user." + b"n" * 251
