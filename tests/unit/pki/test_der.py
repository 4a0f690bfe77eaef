# SPDX-License-Identifier: Apache-2.0
import pytest
from asn1crypto import core

from imagers.errors import FormatError
from imagers.pki.der import encode, encode_oid, only, split


@pytest.mark.parametrize("length", [0, 1, 0x7F, 0x80, 0xFF, 0x100, 70_000])
def test_encode_of_any_length_is_the_der_of_asn1crypto(length):
    data = bytes(length)
    assert encode(0x04, data) == core.OctetString(data).dump()
    assert only(encode(0x04, data), 0x04, what="x") == data


@pytest.mark.parametrize("dotted", ["1.2.840.113549.1.7.3", "2.16.840.1.101.3.4.1.42", "1.3.14"])
def test_encode_oid_is_the_der_of_asn1crypto(dotted):
    assert encode_oid(dotted) == core.ObjectIdentifier(dotted).dump()


def test_split_keeps_tags_contents_and_raw_bytes():
    first, second = encode(0x10, b"abc"), encode(0xA0, encode(0x04, b"d"))
    found = split(first + second, what="x")
    assert [(one.tag, one.raw) for one in found] == [(0x10, first), (0xA0, second)]
    assert found[0].content == b"abc"


def test_split_of_indefinite_length_leaves_its_end_away():
    (one,) = split(b"\x30\x80\x04\x01a\x00\x00", what="x")
    assert (one.tag, one.content) == (0x30, b"\x04\x01a")


@pytest.mark.parametrize("data", [b"\x30", b"\x30\x05a", b"\x04\x84\xff\xff\xff\xff", b"\x30\x80"])
def test_split_of_bytes_that_end_early_raises(data):
    with pytest.raises(FormatError, match="is not BER"):
        split(data, what="x")


def test_split_of_too_many_elements_raises():
    with pytest.raises(FormatError, match="at most 1024 elements"):
        split(b"\x05\x00" * 1025, what="x")


@pytest.mark.parametrize("data", [b"", b"\x05\x00", b"\x04\x00\x04\x00"])
def test_only_of_another_tag_or_count_raises(data):
    with pytest.raises(FormatError, match="expected one element with tag 0x04"):
        only(data, 0x04, what="x")
