# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.model.base64 import (
    decode_base64,
    decode_base64_lines,
    decode_base64url,
    encode_base64,
    encode_base64url,
)

BOTH = [(encode_base64, decode_base64), (encode_base64url, decode_base64url)]


@pytest.mark.parametrize(("encode", "decode"), BOTH)
@given(data=st.binary(max_size=100))
def test_decode_gives_back_what_was_encoded(encode, decode, data):
    assert decode(encode(data), what="x", size=len(data), max_size=len(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        "QQ",
        "QQ=",
        "QR==",
        "QQ==\n",
        " QQ==",
        "QQ==QQ==",
        "Q-==",
        "Q_==",
        "====",
        "Ünicode=",
        "\ud800",
    ],
)
def test_decode_base64_of_other_spellings_raises_without_showing_the_text(text):
    with pytest.raises(FormatError, match="expected base64 with padding") as caught:
        decode_base64(text, what="layer 1 of 1", where="$.symkey")
    assert caught.value.where == "$.symkey"
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", ["QQ==", "QR", "Q", "QQ\n", " QQ", "Q+8", "Q/8", "Ü", "\ud800"])
def test_decode_base64url_of_other_spellings_raises_without_showing_the_text(text):
    with pytest.raises(FormatError, match="expected base64url without padding") as caught:
        decode_base64url(text, what="key", where="$.x")
    assert caught.value.where == "$.x"
    assert text not in str(caught.value)


@pytest.mark.parametrize(("encode", "decode"), BOTH)
@given(text=st.text(max_size=20) | st.text(alphabet="AQgw_-+/=\u0660 \n", max_size=12))
def test_decode_of_any_text_gives_bytes_that_encode_to_it_or_raises(encode, decode, text):
    try:
        data = decode(text, what="x")
    except FormatError:
        return
    assert encode(data) == text


@pytest.mark.parametrize(("encode", "decode"), BOTH)
def test_decode_of_another_size_raises_with_both(encode, decode):
    with pytest.raises(FormatError, match="expected 16 bytes, got 17") as caught:
        decode(encode(bytes(17)), what="x", where="$.nonce", size=16)
    assert caught.value.where == "$.nonce"
    with pytest.raises(FormatError, match="expected at most 16 bytes, got 17"):
        decode(encode(bytes(17)), what="x", max_size=16)
    with pytest.raises(FormatError, match="expected at most 16 bytes, got 3750"):
        decode("\u20ac" * 5000, what="x", max_size=16)


@pytest.mark.parametrize("text", ["QU\nI=", "QUI=\r\n", "\r\n\r\nQUI="])
def test_decode_base64_lines_passes_over_line_ends(text):
    assert decode_base64_lines(text, what="x") == b"AB"


@pytest.mark.parametrize("text", ["QU I=", "QUI=\t", "QUI", "QUJ=", "QUI=\u2028"])
def test_decode_base64_lines_passes_over_nothing_else(text):
    with pytest.raises(FormatError, match="expected base64 with padding"):
        decode_base64_lines(text, what="x")
