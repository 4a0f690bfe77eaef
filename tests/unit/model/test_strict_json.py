# SPDX-License-Identifier: Apache-2.0
"""Strict JSON: one document for all readers, at a bounded cost."""

import json
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.model.base64 import encode_base64, encode_base64url
from imagers.model.strict_json import View, dump_json, parse_json

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
        pytest.param(b"[-" + b"1" * 20 + b"]", "a number of 21 digits", id="long with a sign"),
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
def test_view_of_another_value_refused_with_its_kind(data, kind):
    with pytest.raises(FormatError, match=f"expected an object, got {kind}") as caught:
        View.parse(data, what="config", max_bytes=100)
    assert caught.value.where == "$"


def test_dump_json_refuses_what_is_not_json():
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_json(float("nan"))


@pytest.mark.parametrize("member", ["Layers", "LAYERS", "layer\u017f", "layerS"])
def test_check_spelling_other_case_refused_naming_both(member):
    with pytest.raises(FormatError, match="expected 'layers', got '") as caught:
        view({member: 1}, "$.x").check_spelling(frozenset({"layers"}))
    assert caught.value.where == "$.x"


def test_check_spelling_exact_and_unrelated_names_pass():
    view({"layers": 1, "x": 2, "Lay": 3}).check_spelling(frozenset({"layers"}))


VALUE = {
    "s": "text",
    "i": 7,
    "l": [1],
    "o": {"k": "v"},
    "b": True,
    "n": None,
    "f": 1.0,
    "objects": [{"k": 1}, {}],
    "texts": ["a", ""],
    "data": "QUI=",
    "url": "-_8",
}


def view(value=VALUE, where="$.a"):
    return View(value, what="w", where=where)


def test_view_gives_members_of_the_right_type():
    one = view()
    assert one.text("s") == one.optional_text("s") == "text"
    assert one.integer("i") == 7
    assert one.flag("b") is True
    assert one.object("o").value == one.optional_object("o").value == {"k": "v"}
    assert one.string_map("o") == {"k": "v"}
    assert [each.value for each in one.objects("objects")] == [{"k": 1}, {}]
    assert one.texts("texts") == ("a", "")
    assert one.bytes64("data") == b"AB"
    assert one.bytes64url("url") == b"\xfb\xff"


def test_view_says_what_and_where_at_every_depth():
    one = View.parse(b'{"layers":[{},{"config":{"size":"7"}}]}', what="manifest", max_bytes=99)
    with pytest.raises(FormatError) as caught:
        one.objects("layers")[1].object("config").integer("size")
    assert (caught.value.what, caught.value.where) == ("manifest", "$.layers[1].config.size")
    assert str(caught.value).endswith("expected a whole number, got a string")


def test_view_of_a_subclass_gives_views_of_it():
    class Own(View):
        pass

    one = Own(VALUE, what="w")
    assert type(one.object("o")) is type(one.optional_object("o")) is Own
    assert {type(each) for each in one.objects("objects")} == {Own}


def test_view_without_a_root_names_members_alone():
    assert view(where="").object("o").at("k") == "o.k"


@pytest.mark.parametrize("name", ["n", "absent"])
def test_view_null_is_as_good_as_absent(name):
    one = view()
    assert one.optional_text(name) is None
    assert one.optional_object(name) is None
    assert one.flag(name) is False
    assert one.string_map(name) == {}
    assert one.object(name, null_is_empty=True).value == {}
    assert list(one.objects(name, null_is_empty=True)) == []
    assert one.texts(name, null_is_empty=True) == ()


READERS = ["text", "integer", "object", "objects", "texts", "bytes64", "bytes64url"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["n", "absent"])
def test_view_missing_member_refused_with_its_place(reader, name):
    with pytest.raises(FormatError, match="is missing, expected") as caught:
        getattr(view(), reader)(name)
    assert caught.value.where == f"$.a.{name}"


@pytest.mark.parametrize(
    ("reader", "wrong"),
    [
        ("text", "ilobf"),
        ("optional_text", "ilobf"),
        ("flag", "silof"),
        ("integer", "slobf"),
        ("object", "silbf"),
        ("optional_object", "silbf"),
        ("string_map", "silbf"),
        ("objects", "siobf"),
        ("texts", "siobf"),
        ("bytes64", "ilobf"),
        ("bytes64url", "ilobf"),
    ],
)
def test_view_member_of_another_type_refused_with_its_place(reader, wrong):
    for name in wrong:
        with pytest.raises(FormatError, match=r"expected .*, got a") as caught:
            getattr(view(), reader)(name)
        assert caught.value.where == f"$.a.{name}"


def test_view_falsy_values_are_of_their_own_type():
    one = view({"zero": 0, "empty": "", "none": []})
    for name in one.value:
        with pytest.raises(FormatError, match="expected true or false"):
            one.flag(name)
    for name in ("zero", "none"):
        with pytest.raises(FormatError, match="expected a string"):
            one.optional_text(name)
    for name in ("zero", "empty"):
        with pytest.raises(FormatError, match="expected a list"):
            one.texts(name, null_is_empty=True)
        with pytest.raises(FormatError, match="expected an object"):
            one.string_map(name)


@pytest.mark.parametrize("number", [4, 11])
def test_view_integer_out_of_range_refused_with_the_range(number):
    with pytest.raises(FormatError, match=f"expected a number from 5 to 10, got {number}"):
        view({"a": number}).integer("a", minimum=5, maximum=10)


def test_view_entries_of_another_type_refused_with_their_place():
    one = view({"objects": [{}, 1], "texts": ["a", None], "map": {"x\n": 1}})
    for reader, name, place in (
        ("objects", "objects", "objects[1]"),
        ("texts", "texts", "texts[1]"),
        ("string_map", "map", r"map['x\n']"),
    ):
        with pytest.raises(FormatError) as caught:
            getattr(one, reader)(name)
        assert caught.value.where == f"$.a.{place}"


def test_view_string_map_takes_null_for_empty_text_as_go_does():
    assert view({"m": {"a": None}}).string_map("m") == {"a": ""}


@pytest.mark.parametrize("reader", ["objects", "texts"])
def test_view_lists_of_other_lengths_refused(reader):
    one = view({"none": [], "two": [{}, {}] if reader == "objects" else ["", ""]})
    read = getattr(one, reader)
    assert not read("none")
    assert len(read("two", most=2)) == 2
    with pytest.raises(FormatError, match="expected a list that is not empty"):
        read("none", non_empty=True)
    with pytest.raises(FormatError, match="expected at most 1 entries, got 2") as caught:
        read("two", most=1)
    assert caught.value.where == "$.a.two"


@pytest.mark.parametrize("reader", ["bytes64", "bytes64url"])
def test_view_bytes_of_another_size_refused_with_their_place(reader):
    read = getattr(view({"a": "AAAA"}), reader)
    assert read("a", size=3) == read("a", max_size=3) == bytes(3)
    with pytest.raises(FormatError, match="expected 2 bytes, got 3") as caught:
        read("a", size=2)
    assert caught.value.where == "$.a.a"
    with pytest.raises(FormatError, match="at most 2 bytes, got 3"):
        read("a", max_size=2)


def test_view_hex_gives_bytes_of_either_case():
    one = view({"x": "00fF", "empty": ""})
    assert (one.hex("x"), one.hex("x", size=2), one.hex("empty")) == (b"\0\xff", b"\0\xff", b"")


@pytest.mark.parametrize("text", ["0", "0x00", "00 ff", " 00", "zz", "\uff10\uff10", 7, None])
def test_view_hex_that_is_none_is_refused(text):
    with pytest.raises(FormatError) as caught:
        view({"x": text}).hex("x")
    assert caught.value.where == "$.a.x"


@pytest.mark.parametrize("text", ["00", "000000", "", "00 ff"])
def test_view_hex_of_another_size_is_refused(text):
    with pytest.raises(FormatError, match="expected 2 bytes in hex"):
        view({"x": text}).hex("x", size=2)


def test_view_only_and_exactly_refuse_what_they_do_not_name():
    one = view({"a": 1, "b": None})
    assert "b" in one
    one.only("a", "b", "c")
    one.exactly("b", "a")
    with pytest.raises(FormatError, match="unknown member 'b', expected one of a, c") as caught:
        one.only("a", "c")
    assert caught.value.where == "$.a"
    with pytest.raises(FormatError, match="unknown member 'a', expected none"):
        one.only()
    with pytest.raises(FormatError, match="is missing") as caught:
        one.exactly("a", "b", "c")
    assert caught.value.where == "$.a.c"


def test_view_error_has_place_and_hint():
    error = view().error("is wrong", "s", hint="do it again")
    assert str(error) == "w at $.a.s: is wrong"
    assert (error.where, error.hint) == ("$.a.s", "do it again")


@given(JSON_VALUES, st.sampled_from([*READERS, "optional_text", "flag", "string_map"]))
def test_view_of_any_document_gives_a_value_or_format_error(value, reader):
    try:
        one = View.parse(dump_json({"a": value}), what="w", max_bytes=10_000)
        found = getattr(one, reader)("a")
    except FormatError:
        return
    if reader == "bytes64":
        assert encode_base64(found) == value
    elif reader == "bytes64url":
        assert encode_base64url(found) == value
    elif reader in ("text", "integer"):
        assert found == value


@pytest.mark.parametrize("beside", ['""', '"12345678901234567890123"'])
@pytest.mark.parametrize("number", [0, 7, -(10**18), 10**19 - 1, 2**64 - 1])
def test_number_of_64_bits_is_taken_whatever_stands_beside_it(number, beside):
    text = f"[{number}, {beside}]".encode()
    assert parse_json(text, what="x", max_bytes=99)[0] == number
