# SPDX-License-Identifier: Apache-2.0
"""What is left out, in words."""

import re
from pathlib import Path

import pytest

from imagers.core.left_out import Left, LeftOut, LeftOuts

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
    assert many.facts == {
        "kind": "label",
        "count": 3,
        "first": "bin/\x1b",
        "attribute": "security.selinux",
    }
    assert LeftOut(Left.WHITEOUT_DEVICE, 1, b"\xff'").facts == {
        "kind": "whiteout-device",
        "count": 1,
        "first": r"\xff'",
        "attribute": None,
    }


@pytest.mark.parametrize("kind", Left)
def test_text_of_each_kind_is_one_line(kind):
    assert LeftOut(kind, 2, b"a\nb", b"c\nd").text.isprintable()


def test_counter_keeps_the_first_of_each_kind_and_a_part_of_its_name():
    left_outs = LeftOuts()
    left_outs.add(Left.ACL, b"a")
    left_outs.add(Left.LABEL, b"n" * 2000, b"m" * 2000)
    left_outs.add(Left.LABEL, b"second")
    assert left_outs.found == (
        LeftOut(Left.LABEL, 2, b"n" * 1024, b"m" * 1024),
        LeftOut(Left.ACL, 1, b"a"),
    )
