import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.model.base64 import decode_base64, encode_base64


@given(st.binary(max_size=100))
def test_decode_base64_gives_back_what_was_encoded(data):
    assert decode_base64(encode_base64(data), what="x", where="") == data


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
    with pytest.raises(FormatError, match="not standard padded base64") as caught:
        decode_base64(text, what="layer 1 of 1", where="$.symkey")
    assert caught.value.where == "$.symkey"
    assert text not in str(caught.value)


@given(st.text(max_size=20))
def test_decode_base64_of_any_text_gives_bytes_that_encode_to_it_or_raises(text):
    try:
        data = decode_base64(text, what="x", where="")
    except FormatError:
        return
    assert encode_base64(data) == text
