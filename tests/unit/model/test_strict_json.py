"""Strict JSON: one document for all readers, at a bounded cost."""

import json
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.model.strict_json import (
    check_spelling,
    dump_json,
    get_int,
    get_list,
    get_object,
    get_optional_object,
    get_optional_str,
    get_str,
    get_string_map,
    parse_json,
    parse_object,
)

MEGA = 1024 * 1024


def parse(data, max_bytes=8 * MEGA):
    return parse_json(data, what="manifest", max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (
            b' [1, -2, 0, 1.5, 1e3, true, false, null, "a"]\n',
            [1, -2, 0, 1.5, 1000.0, True, False, None, "a"],
        ),
        ('{"ä": "\U0001f600"}'.encode(), {"ä": "\U0001f600"}),
        (rb'"\ud83d\ude00 \u0000 \\ud800"', "\U0001f600 \0 \\ud800"),
        (b'{"a": {"a": {"a": 1}}, "b": {"a": 2}}', {"a": {"a": {"a": 1}}, "b": {"a": 2}}),
        (b"18446744073709551615", 2**64 - 1),
        (b"[" * 64 + b"]" * 64, json.loads("[" * 64 + "]" * 64)),
        (b'["' + b"[{" * 200 + b'", "\\"[[["]', ["[{" * 200, '"[[[']),
    ],
)
def test_parse_json_good_document_gives_its_value(data, value):
    assert parse(data) == value


@pytest.mark.parametrize(
    ("data", "piece"),
    [
        pytest.param(b"", "is not JSON", id="nothing"),
        pytest.param(b"{", "is not JSON", id="half"),
        pytest.param(b"{} {}", "is not JSON: extra data at line 1 column 4", id="two documents"),
        pytest.param(b"{'a': 1}", "is not JSON", id="single quotes"),
        pytest.param(b"[1,]", "is not JSON", id="comma at the end"),
        pytest.param(b"[01]", "is not JSON", id="leading zero"),
        pytest.param(b"[+1]", "is not JSON", id="plus"),
        pytest.param(b"[.5]", "is not JSON", id="no digit before the point"),
        pytest.param(
            b'["\t"]',
            "is not JSON: invalid control character at line 1 column 3",
            id="control character in a string",
        ),
        pytest.param(
            b'["a', "is not JSON: unterminated string starting at line 1 column 2", id="no quote"
        ),
        pytest.param(rb'["\x41"]', "is not JSON", id="unknown escape"),
        pytest.param(b"[1] // a", "is not JSON", id="comment"),
        pytest.param(b"\xef\xbb\xbf{}", "is not JSON", id="byte order mark"),
        pytest.param(b"\xff", "is not UTF-8 at byte 0", id="not UTF-8"),
        pytest.param(b'["\xc0\xaf"]', "is not UTF-8 at byte 2", id="overlong UTF-8"),
        pytest.param(b'["\xed\xa0\x80"]', "is not UTF-8 at byte 2", id="surrogate in UTF-8"),
        pytest.param("{}".encode("utf-16"), "is not UTF-8", id="UTF-16"),
        pytest.param(rb'["\ud800"]', "no character", id="lone high surrogate"),
        pytest.param(rb'["\uDC00"]', "no character", id="lone low surrogate"),
        pytest.param(rb'["\uDe00\uD83d"]', "no character", id="surrogates in the wrong order"),
        pytest.param(rb'{"\ud800": 1}', "no character", id="lone surrogate in a name"),
        pytest.param(rb'{"\ud800": 1, "\ud800": 1}', "twice", id="lone surrogate twice"),
        pytest.param(b"[NaN]", "has NaN", id="NaN"),
        pytest.param(b"[Infinity]", "has Infinity", id="Infinity"),
        pytest.param(b"[-Infinity]", "has -Infinity", id="minus Infinity"),
        pytest.param(b"[1e999]", "out of range", id="number that is infinite"),
        pytest.param(b"[-1e999]", "out of range", id="number that is minus infinite"),
        pytest.param(b"[" + b"1" * 21 + b"]", "a number of 21 digits", id="long number"),
        pytest.param(b'{"a": 1, "a": 1}', "has the name 'a' twice", id="name twice"),
        pytest.param(rb'{"a": 1, "\u0061": 1}', "has the name 'a' twice", id="name twice, escaped"),
        pytest.param(b'[{"b": {"a": 1, "c": 2, "a": 3}}]', "'a' twice", id="name twice, inside"),
        pytest.param(b'{"\\u001b[2J": 1, "\\u001b[2J": 1}', "twice", id="control sequence twice"),
        pytest.param(b"[" * 65 + b"]" * 65, "nested deeper than 64", id="deep lists"),
        pytest.param(b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper than 64", id="deep objects"),
        pytest.param(b"[" * 100_000, "nested deeper than 64", id="very deep"),
        pytest.param(b"[" + b"[]," * 200_000 + b"1]", "more than 200000 values", id="many lists"),
        pytest.param(b"[" + b"1," * 200_000 + b"1]", "more than 200000 values", id="many numbers"),
    ],
)
def test_parse_json_bad_document_refused_on_one_line(data, piece):
    with pytest.raises(FormatError) as caught:
        parse(data)
    assert piece in str(caught.value)
    assert str(caught.value).startswith("manifest: ")
    assert str(caught.value).isprintable()
    assert caught.value.what == "manifest"


def test_parse_json_bound_is_in_bytes_and_inclusive():
    data = '"ää"'.encode()
    assert parse(data, max_bytes=6) == "ää"
    with pytest.raises(FormatError, match="expected at most 5 bytes, got 6"):
        parse(data, max_bytes=5)


# Each took minutes, or hundreds of MiB, by a simpler implementation.
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            b"{" + b",".join(b'"%d":1' % i for i in range(150_000)) + b',"x":1,"x":1}',
            id="duplicate at the end of a large object",
        ),
        pytest.param(
            b"[" + b"[]," * 65 + b'"' + b'\\"' * (2 * MEGA), id="escaped quotes without end"
        ),
        pytest.param(b"[" + b"[]," * 65 + b'"' + b"\\" * (4 * MEGA), id="backslashes without end"),
        pytest.param(b'["' * (2 * MEGA), id="quotes and brackets in turn"),
        pytest.param(b"[" + b"9" * (4 * MEGA) + b"]", id="one long whole number"),
        pytest.param(b"[0." + b"9" * (4 * MEGA) + b"]", id="one long fraction"),
        pytest.param(b"[" + b"[]," * (1 * MEGA) + b"1]", id="a million empty lists"),
        pytest.param(b"[" + b'"ab",' * (1 * MEGA) + b"1]", id="a million strings"),
    ],
)
def test_parse_json_hostile_document_costs_bounded_time_and_memory(data):
    start = time.monotonic()
    tracemalloc.start()
    try:
        parse(data)
    except FormatError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 64 * MEGA
    assert time.monotonic() - start < 30  # a linear one takes below 2 s, also when traced


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=10), inner, max_size=5)
    ),
    max_leaves=30,
)


@given(JSON_VALUES)
def test_parse_json_gives_back_what_was_dumped(value):
    data = dump_json(value)
    again = parse(data)
    assert again == value
    assert dump_json(again) == data
    # Another writer's escapes, order and spaces make no other value.
    assert parse(json.dumps(value, indent=3).encode()) == value


@given(
    st.binary(max_size=60)
    | st.text(alphabet='{}[]":,\\u0dD8e1-. aNI', max_size=40).map(str.encode)
    | st.tuples(JSON_VALUES.map(dump_json), st.integers(0, 200), st.binary(max_size=3)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
    )
)
def test_parse_json_any_bytes_give_format_error_or_a_value_that_re_encodes(data):
    try:
        value = parse(data)
    except FormatError:
        return
    again = dump_json(value)
    assert parse(again) == value
    assert dump_json(parse(again)) == again
    # Never more generous than the strict mode of the library below.
    assert json.loads(data) == value


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"[]", "a list"),
        (b'"{}"', "a string"),
        (b"1", "a number"),
        (b"1.5", "a number"),
        (b"true", "a boolean"),
        (b"null", "null"),
    ],
)
def test_parse_object_other_value_refused_with_its_kind(data, kind):
    with pytest.raises(FormatError, match=f"expected an object, got {kind}") as caught:
        parse_object(data, what="config", max_bytes=100)
    assert caught.value.where == "$"


def test_dump_json_refuses_what_is_not_json():
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_json(float("nan"))


@pytest.mark.parametrize("member", ["Layers", "LAYERS", "layer\u017f", "layerS"])
def test_check_spelling_other_case_refused_naming_both(member):
    with pytest.raises(FormatError, match="expected 'layers', got '") as caught:
        check_spelling({member: 1}, frozenset({"layers"}), what="manifest", where="$.x")
    assert caught.value.where == "$.x"


def test_check_spelling_exact_and_unrelated_names_pass():
    check_spelling({"layers": 1, "x": 2, "Lay": 3}, frozenset({"layers"}), what="manifest")


VALUE = {"s": "text", "i": 7, "l": [1], "o": {"k": "v"}, "b": True, "n": None, "f": 1.0}


def test_getters_give_members_of_the_right_type():
    assert get_str(VALUE, "s", what="w") == "text"
    assert get_int(VALUE, "i", what="w") == 7
    assert get_list(VALUE, "l", what="w") == [1]
    assert get_object(VALUE, "o", what="w") == {"k": "v"}
    assert get_string_map(VALUE, "o", what="w") == {"k": "v"}


@pytest.mark.parametrize("name", ["n", "absent"])
def test_optional_getters_take_null_for_absent(name):
    assert get_optional_str(VALUE, name, what="w") is None
    assert get_optional_object(VALUE, name, what="w") is None
    assert get_string_map(VALUE, name, what="w") == {}


@pytest.mark.parametrize("getter", [get_str, get_int, get_list, get_object])
@pytest.mark.parametrize("name", ["n", "absent"])
def test_getters_missing_member_refused_with_its_place(getter, name):
    with pytest.raises(FormatError, match="is missing, expected") as caught:
        getter(VALUE, name, what="w", where="$.a")
    assert caught.value.where == f"$.a.{name}"


@pytest.mark.parametrize(
    ("getter", "wrong"),
    [
        (get_str, "ilobf"),
        (get_optional_str, "ilobf"),
        (get_int, "slobf"),
        (get_list, "siobf"),
        (get_object, "silbf"),
        (get_optional_object, "silbf"),
        (get_string_map, "silbf"),
    ],
)
def test_getters_other_type_refused_with_its_place(getter, wrong):
    for name in wrong:
        with pytest.raises(FormatError, match=r"expected .*, got a") as caught:
            getter(VALUE, name, what="w", where="$")
        assert caught.value.where == f"$.{name}"


@pytest.mark.parametrize("number", [4, 11])
def test_get_int_out_of_range_refused_with_the_range(number):
    with pytest.raises(FormatError, match=f"expected a number from 5 to 10, got {number}"):
        get_int({"a": number}, "a", what="w", minimum=5, maximum=10)
