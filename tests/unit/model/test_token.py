# SPDX-License-Identifier: Apache-2.0
from imagers.model.keys import SecretKey
from imagers.model.token import TokenKey, TokenProvider, TokenReference


def test_reference_shows_no_pin():
    reference = TokenReference(token="t", object="o", pin=SecretKey(b"1234"))
    assert "pin" not in repr(reference)
    assert "1234" not in repr(reference)


def test_protocols_are_told_by_their_methods():
    assert not isinstance(object(), TokenKey)
    assert not isinstance(object(), TokenProvider)
