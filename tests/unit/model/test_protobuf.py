# SPDX-License-Identifier: Apache-2.0
"""Messages of protobuf: as the specification's examples have them, and bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.model.protobuf import bytes_field, number_field, parse_fields

NUMBERS = st.integers(1, 2**29 - 1)


def test_examples_of_the_specification():
    """Encoding: "A Simple Message", "Length-Delimited Records"."""
    assert number_field(1, 150).hex() == "089601"
    assert bytes_field(2, b"testing").hex() == "120774657374696e67"
    assert list(parse_fields(bytes.fromhex("089601120774657374696e67"))) == [
        (1, 150),
        (2, b"testing"),
    ]


@given(st.lists(st.tuples(NUMBERS, st.integers(1, 2**63) | st.binary(min_size=1, max_size=300))))
def test_fields_come_back(fields):
    message = b"".join(
        number_field(number, value) if isinstance(value, int) else bytes_field(number, value)
        for number, value in fields
    )
    assert list(parse_fields(message)) == fields


def test_empty_fields_are_left_out():
    assert bytes_field(1, b"") == number_field(1, 0) == b""


def test_fixed_numbers_are_bytes():
    message = bytes.fromhex("09") + bytes(8) + bytes.fromhex("15") + b"abcd"
    assert list(parse_fields(message)) == [(1, bytes(8)), (2, b"abcd")]


@pytest.mark.parametrize(
    ("message", "piece"),
    [
        (b"\x08", "inside a number"),
        (b"\x08" + b"\xff" * 11, "inside a number"),
        (b"\x0a\x05abc", "inside a field"),
        (b"\x09abc", "inside a field"),
        (b"\x0b", "field of kind 3"),
        (b"\x0e", "field of kind 6"),
    ],
)
def test_what_is_no_message_is_told(message, piece):
    with pytest.raises(FormatError, match=piece):
        list(parse_fields(message))


@given(st.binary(max_size=200))
def test_any_bytes_end_well(data):
    try:
        for _, value in parse_fields(data):
            assert isinstance(value, int) or len(value) <= len(data)
    except FormatError:
        pass
