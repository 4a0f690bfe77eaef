# SPDX-License-Identifier: Apache-2.0
import itertools
from hashlib import sha256

import pytest

from imagers.broker.keeping.head import Bucket, Head, bucket_of, row_digest, shown

ROW = ("bindings", "default/key/1", "sha256:00")
OTHER = ("bindings", "default/key/1", "sha256:01")
AWAY = ("resources", "default/key/2")


def head_of(rows):
    head = Head(1, "k", b"m")
    buckets = list(head.buckets)
    for number, bucket in head.changed(rows).items():
        buckets[number] = bucket
    return Head(2, "k", b"m", tuple(buckets))


@pytest.mark.parametrize(
    "others",
    [
        [("t", "a"), ["b", "c"]],
        [("t", "a", "b"), ["c"]],
        [("t", "a"), ["bc"]],
        [("t", "a"), [b"bc"]],
        [("t", "a"), ["bc", None]],
        [("t", "a"), ["bc", ""]],
        [("t", "a"), [1]],
        [("t", "a"), ["1"]],
        [("t", "a"), [1.0]],
        [("ta",), ["bc"]],
    ],
    ids=repr,
)
def test_no_two_rows_have_one_digest(others):
    rows = [
        (("t", "a"), ["b", "c"]), (("t", "a", "b"), ["c"]), (("t", "a"), ["bc"]),
        (("t", "a"), [b"bc"]), (("t", "a"), ["bc", None]), (("t", "a"), ["bc", ""]),
        (("t", "a"), [1]), (("t", "a"), ["1"]), (("t", "a"), [1.0]), (("ta",), ["bc"]),
    ]  # fmt: skip
    same = [row for row in rows if row_digest(*row) == row_digest(*others)]
    assert same == [tuple(others)]


def a_field(kind, data):
    return kind + len(data).to_bytes(4, "big") + data


def test_digests_of_rows_and_buckets_are_those_that_the_module_describes():
    """What a store has kept has to be believed by the next version too."""
    fields = [
        a_field(b"i", b"2"),
        a_field(b"s", b"t"),
        a_field(b"s", "é".encode()),
        a_field(b"s", b"x"),
        a_field(b"b", b"y"),
        a_field(b"i", b"7"),
        b"n",
        a_field(b"?", b"1.5"),
    ]
    row = row_digest(("t", "é"), ["x", b"y", 7, None, 1.5])
    assert row == sha256(b"".join(fields)).digest()
    rows = {("t", "é", 1): b"1" * 32, ("t", "é", 0): b"0" * 32}
    told = [
        a_field(b"s", '["t","é",0]'.encode()) + b"0" * 32,
        a_field(b"s", '["t","é",1]'.encode()) + b"1" * 32,
    ]
    assert Bucket().changed(rows).digest == sha256(b"".join(told)).digest()
    assert bucket_of(("t", "é", 1)) == sha256('["t","é"]'.encode()).digest()[0]


def test_rows_are_found_by_any_beginning_of_their_key():
    one, same, other = (("approvals", "r", image, by) for image, by in ("aa", "ab", "ba"))
    head = head_of({one: b"1" * 32, same: b"2" * 32, other: b"3" * 32})
    assert head.rows(("approvals", "r", "a")) == {one: b"1" * 32, same: b"2" * 32}
    assert head.rows(("approvals", "r")) == head.rows(("approvals",))
    assert head.rows(("approvals", "r", "c")) == {}


def test_groups_of_one_bucket_are_kept_apart():
    bucket = Bucket().changed({ROW: b"1" * 32, AWAY: b"3" * 32})
    assert bucket.groups == {ROW[:2]: {ROW: b"1" * 32}, AWAY[:2]: {AWAY: b"3" * 32}}
    assert bucket.changed({ROW: None}).groups == {AWAY[:2]: {AWAY: b"3" * 32}}


def test_rows_of_one_group_are_in_one_bucket_and_names_are_found_by_their_beginning():
    assert bucket_of(ROW) == bucket_of(OTHER) == bucket_of(ROW[:2])
    head = head_of({ROW: b"1" * 32, OTHER: b"2" * 32, AWAY: b"3" * 32})
    assert head.find(ROW) == b"1" * 32
    assert head.find((*ROW[:2], "sha256:02")) is None
    assert set(head.rows(("bindings",))) == set(head.rows(ROW[:2])) == {ROW, OTHER}
    assert list(head.rows(("bindings", "default/key/2"))) == []
    assert list(head.rows(("resources",))) == [AWAY]


def test_bucket_is_other_for_each_set_of_rows_and_the_same_for_each_way_to_it():
    sets = [
        {},
        {ROW: b"1" * 32},
        {ROW: b"2" * 32},
        {OTHER: b"1" * 32},
        {ROW: b"1" * 32, OTHER: b"2" * 32},
        {ROW: b"2" * 32, OTHER: b"1" * 32},
    ]
    digests = [Bucket().changed(rows).digest for rows in sets]
    assert len(set(digests)) == len(sets)
    for one, other in itertools.permutations(sets, 2):
        gone = {name: None for name in one if name not in other}
        assert Bucket().changed(one).changed(other | gone).digest == Bucket().changed(other).digest


def test_change_touches_the_buckets_of_its_rows_alone_and_not_the_head_before():
    before = head_of({ROW: b"1" * 32, AWAY: b"3" * 32})
    assert "Bucket" not in repr(before)
    changed = before.changed({ROW: None, AWAY: b"3" * 32})
    assert list(changed) == [bucket_of(ROW)]
    assert changed[bucket_of(ROW)] == Bucket()
    assert before.find(ROW) == b"1" * 32


def test_message_of_the_mac_has_the_number_and_all_digests():
    digests = [bucket.digest for bucket in Head(0, "", b"").buckets]
    message = Head.message(7, digests)
    assert message == b"imagers-broker head v1\0" + bytes(7) + b"\7" + bytes(32 * 256)


def test_shown_is_one_text_a_name():
    assert shown(("t", 'a"', 1)) == '["t","a\\"",1]'
