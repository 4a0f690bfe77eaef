# SPDX-License-Identifier: Apache-2.0
"""Digests: strict text, and the comparison that everything rests on."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import DigestMismatch, FormatError
from imagers.model.digest import Digest, check_digest, digest_of, new_hasher, parse_digest


@pytest.mark.parametrize(("algorithm", "length"), [("sha256", 64), ("sha384", 96), ("sha512", 128)])
def test_parse_digest_registered_algorithm_gives_its_parts(algorithm, length):
    digest = parse_digest(f"{algorithm}:{'0f' * (length // 2)}")
    assert digest == Digest(algorithm, "0f" * (length // 2))
    assert str(digest) == f"{algorithm}:{'0f' * (length // 2)}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("sha256", id="no colon"),
        pytest.param("0" * 64, id="hex alone"),
        pytest.param("sha256:" + "0" * 32 + ":" + "0" * 31, id="two colons"),
        pytest.param("sha256:", id="no hex"),
        pytest.param(":" + "0" * 64, id="no algorithm"),
        pytest.param("sha256:" + "g" * 64, id="not hex"),
        pytest.param("sha256:" + "A" * 64, id="upper case"),
        pytest.param("SHA256:" + "a" * 64, id="upper case algorithm"),
        pytest.param("sha123:" + "0" * 64, id="unknown algorithm"),
        pytest.param("md5:" + "0" * 32, id="weak algorithm"),
        pytest.param("sha256:" + "0" * 62, id="short"),
        pytest.param("sha256:" + "0" * 65, id="long"),
        pytest.param("sha384:" + "0" * 64, id="sha384 with the length of sha256"),
        pytest.param("sha512:" + "0" * 64, id="sha512 with the length of sha256"),
        pytest.param("sha256:" + "0" * 63 + "\n", id="new line as last character"),
        pytest.param("sha256:" + "0" * 64 + "\n", id="new line after it"),
        pytest.param("sha256:" + "../" * 21 + "x", id="path"),
        pytest.param("sha256:" + "\u0660" * 64, id="digits of another script"),
        pytest.param(" sha256:" + "0" * 64, id="space before"),
    ],
)
def test_parse_digest_anything_else_refused_with_its_place(text):
    with pytest.raises(FormatError, match="expected 'sha256:' and 64 lower-case hex") as caught:
        parse_digest(text, what="manifest", where="$.config.digest")
    assert caught.value.where == "$.config.digest"
    assert str(caught.value).startswith("manifest at $.config.digest: ")


@given(st.text(max_size=80))
def test_parse_digest_any_text_gives_itself_or_format_error(text):
    try:
        digest = parse_digest(text)
    except FormatError:
        return
    assert str(digest) == text


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_digest_of_bytes_equals_hashlib(algorithm):
    data = b"some bytes"
    expected = hashlib.new(algorithm, data).hexdigest()
    assert digest_of(data, algorithm).hex == expected
    hasher = new_hasher(algorithm)
    hasher.update(memoryview(data)[:4])
    hasher.update(data[4:])
    assert hasher.hexdigest() == expected


def test_check_digest_same_bytes_passes():
    check_digest(b"abc", digest_of(b"abc", "sha512"), what="config")


def test_check_digest_other_bytes_raises_with_both_digests():
    expected = digest_of(b"abc")
    with pytest.raises(DigestMismatch, match="config: digest mismatch") as caught:
        check_digest(b"abd", expected, what="config")
    assert caught.value.expected == expected
    assert caught.value.actual == digest_of(b"abd")
    assert str(caught.value).index(str(expected)) < str(caught.value).index(
        str(caught.value.actual)
    )


def test_check_digest_right_hex_under_another_algorithm_raises():
    """The algorithm is that of the expectation; hex of one never passes as that of another."""
    wrong = Digest("sha512", digest_of(b"abc").hex)
    with pytest.raises(DigestMismatch):
        check_digest(b"abc", wrong, what="config")
