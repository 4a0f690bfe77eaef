# SPDX-License-Identifier: Apache-2.0
import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.model.references import (
    MAX_REFERENCES_BYTES,
    ReferenceValue,
    as_word,
    is_reference_name,
    parse_references,
    references_to_json,
)
from imagers.model.strict_json import dump_json

ONE = {"name": "mr_td", "values": ["ab", 1, True], "expires": "2027-01-01T00:00:00Z", "source": "x"}


def parse(*items):
    return parse_references(json.dumps({"reference_values": items}).encode())


def test_references_come_back():
    (one,) = parse(ONE)
    assert one == ReferenceValue("mr_td", ("ab", 1, True), datetime(2027, 1, 1, tzinfo=UTC), "x")
    assert parse_references(dump_json(references_to_json([one]))) == (one,)
    assert parse({"name": "a", "values": [0]}) == (ReferenceValue("a", (0,)),)
    (one,) = parse({"name": "a", "values": [False], "single": True})
    assert one == ReferenceValue("a", (False,), is_single=True)
    assert parse_references(dump_json(references_to_json([one]))) == (one,)


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"name": "a b"}, "expected a name"),
        ({"name": "../x"}, "expected a name"),
        ({"name": 5}, "expected a string"),
        ({"values": []}, "1 to 1000 values"),
        ({"values": "ab"}, "1 to 1000 values"),
        ({"values": [None]}, "values[0]"),
        ({"values": [1.5]}, "values[0]"),
        ({"values": ["a", {}]}, "values[1]"),
        ({"values": ["a" * 1025]}, "values[0]"),
        ({"values": ["a"] * 1001}, "1 to 1000 values"),
        ({"expires": "2027-01-01"}, "expected a time"),
        ({"expires": "soon"}, "expected a time"),
        ({"expires": "9999-12-31T23:59:59-01:00"}, "expected a time"),
        ({"expires": 5}, "expected a string"),
        ({"source": "s" * 1025}, "at most 1024"),
        ({"comment": ""}, "unknown member"),
        ({"single": True}, "expected one value with 'single', got 3"),
        ({"single": 1}, "expected true or false"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_reference_value_is_refused_with_its_place(change, piece):
    with pytest.raises(FormatError) as caught:
        parse(ONE | change)
    assert piece in str(caught.value)
    assert "$.reference_values[0]" in str(caught.value)


def test_name_twice_refused():
    with pytest.raises(FormatError, match="has the name 'mr_td' twice"):
        parse(ONE, ONE)


def test_document_is_bounded():
    with pytest.raises(FormatError):
        parse_references(b" " * (MAX_REFERENCES_BYTES + 1))


@pytest.mark.parametrize("name", ["a", "mr_td", "A.b-c_9", "rvps:///github.com/a/b:v1", "x" * 128])
def test_names(name):
    assert is_reference_name(name)
    for other in ("", "9a", "/" + name, name + "?", name + "\n", "x" * 129, "é"):
        assert not is_reference_name(other)


@given(st.binary(max_size=300))
def test_any_bytes_are_references_or_a_format_error(data):
    with suppress(FormatError):
        parse_references(data)


def test_time_of_another_zone_is_told_in_utc():
    document = {"reference_values": [ONE | {"expires": "2027-01-01T01:00:00+02:00"}]}
    (one,) = parse_references(json.dumps(document).encode())
    assert f"{one.expires:%Y-%m-%dT%H:%M:%SZ}" == "2026-12-31T23:00:00Z"


@pytest.mark.parametrize(
    ("value", "word"), [(True, "true"), (False, "false"), (5, "5"), ("x", "x")]
)
def test_value_as_a_word_of_the_command_line(value, word):
    assert as_word(value) == word
