# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import UsageError
from imagers.model.keys import SecretKey
from imagers.registry.credentials import Credentials


def test_credentials_never_show_the_password():
    credentials = Credentials("me", "hunter2")
    assert "hunter2" not in f"{credentials} {credentials!r}"
    assert credentials.authorization() == "Basic bWU6aHVudGVyMg=="


def test_credentials_take_a_secret_key():
    with SecretKey(b"hunter2") as password:
        assert Credentials("me", password).authorization() == "Basic bWU6aHVudGVyMg=="


def test_credentials_parse_keeps_colons_of_the_password():
    credentials = Credentials.parse("me:a:b")
    assert credentials.username == "me"
    assert credentials.authorization() == "Basic bWU6YTpi"


@pytest.mark.parametrize("text", ["", "me", ":password", "m\ne:x"])
def test_credentials_malformed_refused_without_showing_them(text):
    with pytest.raises(UsageError) as caught:
        Credentials.parse(text)
    assert "password" not in str(caught.value)
