# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest

from imagers.broker.keeping.head import BUCKETS, Bucket, Head, bucket_of, row_digest, shown

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
    changed = before.changed({ROW: None, AWAY: b"3" * 32})
    assert list(changed) == [bucket_of(ROW)]
    assert changed[bucket_of(ROW)] == Bucket()
    assert before.find(ROW) == b"1" * 32


def test_message_of_the_mac_has_the_number_and_all_digests():
    digests = [bucket.digest for bucket in Head(0, "", b"").buckets]
    message = Head.message(7, digests)
    assert message == b"imagers-broker head v1\0" + bytes(7) + b"\7" + bytes(32 * BUCKETS)


def test_shown_is_one_text_a_name():
    assert shown(("t", 'a"', 1)) == '["t","a\\"",1]'
