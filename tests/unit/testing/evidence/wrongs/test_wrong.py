# SPDX-License-Identifier: Apache-2.0
"""What is wrong prints as its name."""

from imagers.testing.evidence.wrongs.wrong import NO, Wrong


def test_wrong_prints_without_its_evidence():
    one = Wrong("a thing", "1, product", {"quote": "secret"}, {"a": b"secret"}, b"secret")
    assert "secret" not in repr(one)
    assert (one.name, one.error) == ("a thing", NO)
