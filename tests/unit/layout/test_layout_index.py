# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.errors import FormatError, NotFound, Unsupported
from imagers.layout.layout_index import (
    LAYOUT_FILE,
    REF_NAME,
    Selection,
    check_layout_file,
    find_entry,
    parse_layout_index,
    replace_entry,
)
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.manifest import MAX_MANIFEST_BYTES
from imagers.model.media import OCI_MANIFEST


def entry(seed, ref=None, **more):
    value = Descriptor(OCI_MANIFEST, digest_of(seed.encode()), 7).to_json() | more
    if ref is not None:
        value["annotations"] = {REF_NAME: ref}
    return value


def index_of(*entries, **more):
    return json.dumps({"schemaVersion": 2, "manifests": list(entries), **more}).encode()


def parsed(*entries):
    return parse_layout_index(index_of(*entries), what="index.json")


DESCRIPTOR = Descriptor(OCI_MANIFEST, digest_of(b"new"), 9)


def test_check_layout_file_ours_is_good():
    check_layout_file(LAYOUT_FILE, what="oci-layout")


@pytest.mark.parametrize(
    ("raw", "kind", "text"),
    [
        (b'{"imageLayoutVersion":"2.0.0"}', Unsupported, "expected '1.0.0'"),
        (b"{}", FormatError, "is missing"),
        (b"", FormatError, "is not JSON"),
        (b'{"imageLayoutVersion":1}', FormatError, "expected a string"),
        (b'{"imageLayoutVersion":"1.0.0","imageLayoutVersion":"1.0.0"}', FormatError, "twice"),
        (b" " * 5000, FormatError, "at most 4096 bytes"),
    ],
)
def test_check_layout_file_bad_one_refused(raw, kind, text):
    with pytest.raises(kind, match=text):
        check_layout_file(raw, what="oci-layout")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schemaVersion":2,"manifests":{}}',
        b'{"schemaVersion":2,"manifests":[{}]}',
        b'{"schemaVersion":2,"manifests":[],"layers":[]}',
        index_of({**entry("a"), "digest": "sha256:../../../etc/passwd"}),
        index_of({**entry("a"), "size": -1}),
    ],
)
def test_parse_layout_index_bad_one_refused_with_its_name(raw):
    with pytest.raises(FormatError, match=r"the/index.json") as caught:
        parse_layout_index(raw, what="the/index.json")
    assert caught.value.what == "the/index.json"


def test_find_entry_by_name():
    index = parsed(entry("a", "v1"), entry("b", "v2"))
    assert find_entry(index, Selection(ref="v2"), name="x").digest == digest_of(b"b")


def test_find_entry_by_position():
    index = parsed(entry("a", "v1"), entry("b", "v1"))
    assert find_entry(index, Selection(position=1), name="x").digest == digest_of(b"b")


def test_find_entry_only_one_needs_no_name():
    assert find_entry(parsed(entry("a", "v1")), Selection(), name="x").digest == digest_of(b"a")


@pytest.mark.parametrize(
    ("entries", "selection", "kind", "text", "hint"),
    [
        ([], Selection(), NotFound, "has no image", None),
        ([], Selection(ref="v1"), NotFound, "has no image", None),
        ([entry("a", "v1")], Selection(ref="v2"), NotFound, "of this name", "'v1'"),
        ([entry("a", "v1")], Selection(position=1), NotFound, "entry 1", "from 0"),
        (
            [entry("a", "v1"), entry("b")],
            Selection(),
            FormatError,
            "exactly one image, got 2",
            "v1",
        ),
        (
            [entry("a", "v1"), entry("b", "v1")],
            Selection(ref="v1"),
            FormatError,
            "one entry named 'v1', got 2",
            ":@0",
        ),
    ],
)
def test_find_entry_none_or_several_refused(entries, selection, kind, text, hint):
    with pytest.raises(kind, match=text) as caught:
        find_entry(parsed(*entries), selection, name="oci:x")
    assert "oci:x" in str(caught.value)
    assert hint is None or hint in caught.value.hint


def names(raw):
    return [
        (one["digest"], one.get("annotations", {}).get(REF_NAME))
        for one in json.loads(raw)["manifests"]
    ]


def digest(seed):
    return str(digest_of(seed.encode()))


def test_replace_entry_first_one_makes_the_index():
    assert names(replace_entry(None, DESCRIPTOR, "v1", what="x")) == [(digest("new"), "v1")]


@pytest.mark.parametrize(
    ("before", "ref", "after"),
    [
        ([entry("a", "v1")], "v2", [("a", "v1"), ("new", "v2")]),
        ([entry("a", "v1"), entry("b", "v2")], "v1", [("b", "v2"), ("new", "v1")]),
        ([entry("a", "v1"), entry("b", "v1")], "v1", [("new", "v1")]),
        ([entry("a", "v1")], None, [("a", "v1"), ("new", None)]),
        ([entry("a")], None, [("new", None)]),
        ([entry("a"), entry("b")], None, [("a", None), ("b", None), ("new", None)]),
        ([entry("a"), entry("new")], None, [("a", None), ("new", None)]),
    ],
)
def test_replace_entry_takes_the_place_of_its_name(before, ref, after):
    raw = replace_entry(index_of(*before), DESCRIPTOR, ref, what="x")
    assert names(raw) == [(digest(seed), name) for seed, name in after]


def test_replace_entry_keeps_members_that_it_does_not_know():
    other = entry("a", "v1", urls=["https://x"], data="e30=")
    raw = replace_entry(index_of(other, annotations={"a": "b"}, x=[1]), DESCRIPTOR, "v2", what="x")
    document = json.loads(raw)
    assert document["manifests"][0] == other
    assert (document["annotations"], document["x"]) == ({"a": "b"}, [1])


def test_replace_entry_full_index_refused():
    """The bytes are what bounds it."""
    many = index_of(*[entry(str(number), f"v{number}") for number in range(3000)])
    replace_entry(many, DESCRIPTOR, "new", what="index.json")
    full = index_of(entry("x", "v7", artifactType="a" * (MAX_MANIFEST_BYTES - 300)))
    with pytest.raises(FormatError, match="full: expected at most 4194304 bytes"):
        replace_entry(full, DESCRIPTOR, "new", what="index.json")
    replace_entry(full, DESCRIPTOR, "v7", what="index.json")


def test_replace_entry_malformed_index_refused():
    with pytest.raises(FormatError, match=r"index\.json"):
        replace_entry(b"{", DESCRIPTOR, "v1", what="index.json")


@pytest.mark.parametrize(
    "raw", [b'{"schemaVersion":2}', b'{"schemaVersion":2,"manifests":null}', b'{"manifests":null}']
)
def test_layout_index_without_entries_is_empty_and_takes_one(raw):
    assert parse_layout_index(raw, what="x").manifests == ()
    after = parse_layout_index(
        replace_entry(raw, Descriptor(OCI_MANIFEST, digest_of(b"a"), 1), "v1", what="x"), what="x"
    )
    assert [one.digest for one in after.manifests] == [digest_of(b"a")]
