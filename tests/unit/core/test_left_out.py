"""What is left out, in words; and which attributes are set."""

import re
from pathlib import Path

import pytest

from imagers.core.left_out import Left, LeftOut, is_set, left_of_attribute

SOURCE = Path(__file__).resolve().parents[3] / "imagers/core/src/imagers_core.h"


def test_kinds_are_those_of_the_c_half():
    found = dict(re.findall(r"\bIMC_LEFT_(\w+) = (\d+)", SOURCE.read_text()))
    assert int(found.pop("KINDS")) == len(Left)
    assert {name: int(number) for name, number in found.items()} == {
        kind.name: kind.value for kind in Left
    }


def test_text_counts_and_names_the_first():
    one = LeftOut(Left.DEVICE, 1, b"dev/console")
    assert one.text.startswith("1 device node, 'dev/console': only root can make them")
    many = LeftOut(Left.LABEL, 3, b"bin/\x1b", b"security.selinux")
    assert many.text == (
        "3 security labels, the first 'security.selinux' of 'bin/\N{REPLACEMENT CHARACTER}': "
        "they belong to the policy of a machine"
    )
    assert many.noun == "security labels"


@pytest.mark.parametrize("kind", Left)
def test_text_of_each_kind_is_one_line(kind):
    assert LeftOut(kind, 2, b"a\nb", b"c\nd").text.isprintable()


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
