# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.broker.ui.login import LIFETIME_MS, Logins, make_login_key

ADMIN, OTHER = "a" * 64, "b" * 64
LOGINS = Logins(make_login_key())
NOW = 1_000_000


def test_cookie_says_who_it_is_until_it_is_over():
    cookie = LOGINS.issue(ADMIN, now_ms=NOW)
    assert LOGINS.check(cookie, now_ms=NOW) == ADMIN
    assert LOGINS.check(cookie, now_ms=NOW + LIFETIME_MS - 1) == ADMIN
    assert LOGINS.check(cookie, now_ms=NOW + LIFETIME_MS) is None


def test_cookie_by_another_key_is_nobodys():
    assert Logins(make_login_key()).check(LOGINS.issue(ADMIN, now_ms=NOW), now_ms=NOW) is None


def test_cookie_for_another_or_for_longer_is_nobodys():
    admin, end, mac = LOGINS.issue(ADMIN, now_ms=NOW).split(".")
    assert LOGINS.check(f"{OTHER}.{end}.{mac}", now_ms=NOW) is None
    assert LOGINS.check(f"{admin}.{int(end) + 1}.{mac}", now_ms=NOW) is None
    assert LOGINS.check(f"{admin}.0{end}.{mac}", now_ms=NOW) is None


@pytest.mark.parametrize("cookie", [None, "", ".", "a.1.b", f"{ADMIN}.1.{ADMIN}\n", "\u0661" * 9])
def test_text_that_is_no_cookie_is_nobodys(cookie):
    assert LOGINS.check(cookie, now_ms=0) is None


@given(st.integers(0, 10_000), st.characters(codec="ascii"))
def test_no_character_of_a_cookie_can_be_another(place, character):
    cookie = LOGINS.issue(ADMIN, now_ms=NOW)
    place %= len(cookie)
    changed = cookie[:place] + character + cookie[place + 1 :]
    if changed != cookie:
        assert LOGINS.check(changed, now_ms=NOW) is None
