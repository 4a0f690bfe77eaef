# SPDX-License-Identifier: Apache-2.0
"""Strict CBOR: one document for all readers, at a bounded cost."""

import contextlib
import functools
import random
import tracemalloc
from types import MappingProxyType

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.model.strict_cbor import CBORView, Simple, Tag, parse_cbor

MEGA = 1024 * 1024


def parse(data, max_bytes=8 * MEGA):
    return parse_cbor(data, what="token", max_bytes=max_bytes)


def view(value, where="$"):
    return CBORView(parse(cbor2.dumps(value)), what="token", where=where)


# RFC 8949, appendix A: what is taken here.
GOOD = [
    ("00", 0),
    ("01", 1),
    ("0a", 10),
    ("17", 23),
    ("1818", 24),
    ("1819", 25),
    ("1864", 100),
    ("1903e8", 1000),
    ("1a000f4240", 1000000),
    ("1b000000e8d4a51000", 1000000000000),
    ("1bffffffffffffffff", 18446744073709551615),
    ("3bffffffffffffffff", -18446744073709551616),
    ("20", -1),
    ("29", -10),
    ("3863", -100),
    ("3903e7", -1000),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("f7", Simple(23)),
    ("f0", Simple(16)),
    ("f8ff", Simple(255)),
    (
        "c074323031332d30332d32315432303a30343a30305a",
        Tag(0, "2013-03-21T20:04:00Z"),
    ),
    ("c11a514b67b0", Tag(1, 1363896240)),
    ("d74401020304", Tag(23, bytes.fromhex("01020304"))),
    ("d818456449455446", Tag(24, bytes.fromhex("6449455446"))),
    (
        "d82076687474703a2f2f7777772e6578616d706c652e636f6d",
        Tag(32, "http://www.example.com"),
    ),
    ("40", b""),
    ("4401020304", b"\1\2\3\4"),
    ("60", ""),
    ("6161", "a"),
    ("6449455446", "IETF"),
    ("62225c", '"\\'),
    ("62c3bc", "\u00fc"),
    ("63e6b0b4", "\u6c34"),
    ("64f0908591", "\U00010151"),
    ("80", ()),
    ("83010203", (1, 2, 3)),
    ("8301820203820405", (1, (2, 3), (4, 5))),
    (
        "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
        tuple(range(1, 26)),
    ),
    ("a0", {}),
    ("a201020304", {1: 2, 3: 4}),
    ("a26161016162820203", {"a": 1, "b": (2, 3)}),
    ("826161a161626163", ("a", {"b": "c"})),
    (
        "a56161614161626142616361436164614461656145",
        {"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"},
    ),
    # Not of the appendix.
    ("1801", 1),  # a longer spelling of a number is one spelling of that number
    ("a30001410002613003", {0: 1, b"\0": 2, "0": 3}),  # no two kinds of key clash
    ("81" * 32 + "00", functools.reduce(lambda inner, _: (inner,), range(32), 0)),
    ("c249010000000000000000", Tag(2, bytes.fromhex("010000000000000000"))),  # left a tag
]


@pytest.mark.parametrize(("raw", "value"), GOOD, ids=[raw[:24] for raw, _ in GOOD])
def test_parse_cbor_good_document_gives_its_value(raw, value):
    found = parse(bytes.fromhex(raw))
    assert found == value
    assert type(found) is (MappingProxyType if isinstance(value, dict) else type(value))


BAD = [
    ("", "ends where a value is expected", "nothing"),
    ("18", "ends inside a number", "half a number"),
    ("1900", "ends inside a number", "half a long number"),
    ("4101" + "00", "has 1 bytes behind its end", "two documents"),
    ("42ff", "2 bytes are expected, 1 left", "half a byte string"),
    ("5bffffffffffffffff", "18446744073709551615 bytes are expected, 0 left", "bytes not there"),
    ("61", "1 bytes are expected, 0 left", "half a text"),
    ("61ff", "text that is not UTF-8", "text of no UTF-8"),
    ("63eda080", "text that is not UTF-8", "half a surrogate pair"),
    ("62c080", "text that is not UTF-8", "a longer spelling of UTF-8"),
    ("81", "1 values are expected, fewer bytes are left", "half an array"),
    ("9bffffffffffffffff", "values are expected, fewer bytes", "array not there"),
    ("bbffffffffffffffff", "values are expected, fewer bytes", "map not there"),
    ("a101", "2 values are expected, fewer bytes are left", "half a map"),
    ("a201000100", "the key 1 twice", "number twice"),
    ("a20100180100", "the key 1 twice", "number twice, once longer"),
    ("a26161006161 00", "the key 'a' twice", "text twice"),
    ("a2410700410700", "the key 07 twice", "bytes twice"),
    ("a1f500", "expected a number, text or bytes as key, got a boolean", "key true"),
    ("a1f600", "as key, got null", "key null"),
    ("a18000", "as key, got an array", "key array"),
    ("a1a000", "as key, got a map", "key map"),
    ("a1c10000", "as key, got a tag", "key tag"),
    ("a1f700", "as key, got a simple value", "key undefined"),
    ("a1f93c0000", "a float", "key 1.0"),
    ("f93c00", "a float", "half float"),
    ("fa47c35000", "a float", "single float"),
    ("fb3ff199999999999a", "a float", "double float"),
    ("f97e00", "a float", "no number"),
    ("5f42010243030405ff", "an indefinite length", "bytes in pieces"),
    ("7f657374726561646d696e67ff", "an indefinite length", "text in pieces"),
    ("9fff", "an indefinite length", "open array"),
    ("bfff", "an indefinite length", "open map"),
    ("ff", "no value starts with 0xff", "break"),
    ("1f", "no value starts with 0x1f", "number without length"),
    ("1c", "no value starts with 0x1c", "reserved 28"),
    ("fc", "no value starts with 0xfc", "reserved simple"),
    ("df00", "no value starts with 0xdf", "tag without length"),
    ("f8", "ends inside a simple value", "half a simple value"),
    ("f815", "the simple value 21 has one byte", "true in two bytes"),
    ("f818", "the simple value 24 has one byte", "simple value that there is not"),
    ("c1", "ends where a value is expected", "tag of nothing"),
    ("81" * 33 + "00", "nested deeper than 32", "deep arrays"),
    ("c1" * 33 + "00", "nested deeper than 32", "deep tags"),
]


@pytest.mark.parametrize(
    ("raw", "piece"), [pytest.param(raw, piece, id=name) for raw, piece, name in BAD]
)
def test_parse_cbor_bad_document_is_refused(raw, piece):
    with pytest.raises(FormatError) as caught:
        parse(bytes.fromhex(raw))
    assert caught.value.what == "token"
    assert caught.value.where.startswith("byte ")
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("9fff", ()),
        ("9f018202039f0405ffff", (1, (2, 3), (4, 5))),
        ("83018202039f0405ff", (1, (2, 3), (4, 5))),
        ("bfff", {}),
        ("bf61610161629f0203ffff", {"a": 1, "b": (2, 3)}),
        ("826161bf61626163ff", ("a", {"b": "c"})),
    ],
)
def test_parse_cbor_open_ends_are_taken_where_they_are_asked_for(raw, value):
    data = bytes.fromhex(raw)
    assert parse_cbor(data, what="token", max_bytes=99, open_ended=True) == value
    with pytest.raises(FormatError, match="indefinite length"):
        parse(data)


@pytest.mark.parametrize(
    ("raw", "piece"),
    [
        ("9f", "ends where a value is expected"),
        ("bf01", "ends where a value is expected"),
        ("bf01ff", "no value starts with 0xff"),
        ("81ff", "no value starts with 0xff"),
        ("bf01000100ff", "the key 1 twice"),
        ("bff500ff", "as key, got a boolean"),
        ("9fff00", "has 1 bytes behind its end"),
        ("5f4101ff", "an indefinite length"),
        ("7f6161ff", "an indefinite length"),
        ("9f" * 33, "nested deeper than 32"),
        ("9f" + "00" * 200_001 + "ff", "more than 200000 values"),
    ],
    ids=range(11),
)
def test_parse_cbor_open_ends_that_are_wrong_are_refused(raw, piece):
    with pytest.raises(FormatError, match=piece):
        parse_cbor(bytes.fromhex(raw), what="token", max_bytes=MEGA, open_ended=True)


def test_parse_cbor_bound_is_inclusive():
    assert parse(b"\x41a", 2) == b"a"
    with pytest.raises(FormatError, match="token: expected at most 1 bytes, got 2"):
        parse(b"\x41a", 1)


def test_parse_cbor_result_cannot_be_changed():
    found = parse(bytes.fromhex("a10182a00a"))
    with pytest.raises(TypeError):
        found[1] = 2
    with pytest.raises(TypeError):
        found[1][0][2] = 3
    with pytest.raises(TypeError):
        found[1][1] = 3


def test_parse_cbor_many_values_are_refused_before_they_are_made():
    many = b"\x9a" + (200_001).to_bytes(4) + b"\xa0" * 200_001
    tracemalloc.start()
    with pytest.raises(FormatError, match="more than 200000 values"):
        parse(many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    nested = b"\x83" + (b"\x9a" + (70_000).to_bytes(4) + b"\0" * 70_000) * 3
    with pytest.raises(FormatError, match="more than 200000 values"):
        parse(nested)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=100)
)
KEYS = st.integers(-(2**64), 2**64 - 1) | st.text(max_size=30) | st.binary(max_size=30)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)


def plain(value):
    """What cbor2 gives for the same bytes."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if isinstance(value, MappingProxyType):
        return {key: plain(one) for key, one in value.items()}
    return value


@given(VALUES, st.booleans())
def test_parse_cbor_gives_what_cbor2_wrote(value, canonical):
    raw = cbor2.dumps(value, canonical=canonical)
    assert plain(parse(raw)) == value
    assert cbor2.loads(raw) == value


@given(
    st.binary(max_size=100)
    | st.lists(st.sampled_from([0xA1, 0x81, 0, 0x20, 0x41, 0x61, 0xC1, 0xF5, 0x18, 0x58])).map(
        bytes
    )
)
def test_parse_cbor_of_any_bytes_is_refused_or_agrees_with_cbor2(raw):
    try:
        found = parse(raw)
    except FormatError:
        return
    if not tagged(found):
        assert plain(found) == cbor2.loads(raw)


def tagged(value):
    if isinstance(value, tuple):
        return any(tagged(one) for one in value)
    if isinstance(value, MappingProxyType):
        return any(tagged(one) for one in value.values())
    return isinstance(value, Tag | Simple)


def test_parse_cbor_of_mutated_documents_raises_format_errors_alone():
    """Also one flip in each place of a document of all kinds; what it gives is bounded."""
    good = cbor2.dumps(
        {
            265: "profile",
            10: bytes(64),
            2399: [{1: "BL", 2: bytes(32)}] * 6,
            44237: cbor2.CBORTag(18, [b"x", {}, None, True]),
        }
    )
    random_ = random.Random(7)  # noqa: S311  # not a secret
    for _ in range(20_000):
        bad = bytearray(good)
        for _ in range(random_.randint(1, 4)):
            bad[random_.randrange(len(bad))] = random_.randrange(256)
        with contextlib.suppress(FormatError):
            parse(bytes(bad))


TOKEN = {
    1: b"abc",
    2: "text",
    3: 7,
    4: {5: b""},
    6: [{7: 1}, {7: 2}],
    8: [b"a", b"b"],
    9: None,
    "name": True,
}


def test_view_gives_members_of_their_types():
    token = view(TOKEN)
    assert token.byte_string(1, sizes=(3, 4), max_size=3) == b"abc"
    assert token.text(2) == "text"
    assert token.integer(3) == 7
    assert token.map(4).byte_string(5) == b""
    assert [one.integer(7) for one in token.maps(6)] == [1, 2]
    assert token.byte_strings(8) == (b"a", b"b")
    assert token.array(8) == (b"a", b"b")
    assert 1 in token
    assert "name" in token
    assert 9 not in token
    assert 99 not in token


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda t: t.byte_string(99), r"$[99]: is missing, expected bytes"),
        (lambda t: t.byte_string(9), r"$[9]: is missing, expected bytes"),
        (lambda t: t.byte_string(2), r"$[2]: expected bytes, got text"),
        (lambda t: t.byte_string(1, sizes=(32, 48)), r"$[1]: expected 32 or 48 bytes, got 3"),
        (lambda t: t.byte_string(1, max_size=2), r"$[1]: expected at most 2 bytes, got 3"),
        (lambda t: t.text(1), r"$[1]: expected text, got bytes"),
        (lambda t: t.integer(2), r"$[2]: expected a whole number, got text"),
        (lambda t: t.integer("name"), r"$.name: expected a whole number, got a boolean"),
        (lambda t: t.integer(3, maximum=6), r"$[3]: expected a number from 0 to 6, got 7"),
        (lambda t: t.map(6), r"$[6]: expected a map, got an array"),
        (lambda t: t.map(4).text(5), r"$[4][5]: expected text, got bytes"),
        (lambda t: t.array(4), r"$[4]: expected an array, got a map"),
        (lambda t: t.array(8, most=1), r"$[8]: expected 0 to 1 entries, got 2"),
        (lambda t: t.array(8, least=3, most=4), r"$[8]: expected 3 to 4 entries, got 2"),
        (lambda t: t.maps(8), r"$[8][0]: expected a map, got bytes"),
        (lambda t: t.byte_strings(6), r"$[6][0]: expected bytes, got a map"),
        (lambda t: t.maps(6)[1].text(7), r"$[6][1][7]: expected text, got a number"),
        (lambda t: t.only(1, 2), "$: has the unknown member 3"),
    ],
)
def test_view_names_the_place_of_what_is_wrong(ask, message):
    with pytest.raises(FormatError) as caught:
        ask(view(TOKEN))
    assert str(caught.value) == f"token at {message}"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([], "an array"),
        (None, "null"),
        (5, "a number"),
        (cbor2.CBORTag(18, 1), "a tag"),
        (cbor2.undefined, "a simple value"),
    ],
)
def test_view_of_no_map_is_refused(value, kind):
    with pytest.raises(FormatError, match=f"token at top: expected a map, got {kind}"):
        view(value, "top")


def test_view_parse_reads_a_document():
    assert CBORView.parse(b"\xa1\x01\x02", what="token", max_bytes=9).integer(1) == 2
    view(TOKEN).only(*TOKEN)
