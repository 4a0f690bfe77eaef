# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.broker.policy.rego.tokens import GOES_ON, KEYWORDS, Token


@pytest.mark.parametrize(
    ("kind", "text", "content"),
    [("name", "allow", "allow"), ("raw", "`a\\n`", "a\\n"), ("string", '"a\\n"', "a\n")],
)
def test_a_name_and_a_string_stand_for_their_content(kind, text, content):
    assert Token(kind, text, 0, 1, True, 0).content() == content


def test_what_goes_on_is_a_keyword():
    assert GOES_ON < KEYWORDS
