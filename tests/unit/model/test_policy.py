"""Policies: what says nothing allows nothing."""

import pytest

from imagers.errors import CouldNotVerify, PolicyDenied
from imagers.model.policy import AllOf, AnyOf, UnsafeAllowAll


class Demand:
    """Allows the facts that it was made with."""

    def __init__(self, wanted):
        self.wanted = wanted
        self.calls = 0

    def check(self, facts):
        self.calls += 1
        if facts != self.wanted:
            raise PolicyDenied(f"expected '{self.wanted}', got '{facts}'")


class Broken:
    def check(self, facts):
        raise CouldNotVerify(f"registry is away for '{facts}'")


@pytest.mark.parametrize("kind", [AllOf, AnyOf])
def test_policy_without_parts_denies(kind):
    with pytest.raises(PolicyDenied, match="no rule, and so allows nothing") as caught:
        kind([]).check("a")
    assert caught.value.exit_code == 21


def test_all_of_allows_only_what_every_part_allows():
    AllOf([Demand("a"), Demand("a")]).check("a")
    last = Demand("b")
    with pytest.raises(PolicyDenied, match="expected 'b', got 'a'"):
        AllOf([Demand("a"), last]).check("a")
    assert last.calls == 1


def test_any_of_allows_what_one_part_allows():
    AnyOf([Demand("b"), Demand("a")]).check("a")


def test_any_of_refusal_says_what_each_part_said():
    with pytest.raises(PolicyDenied, match="expected 'b', got 'a'; expected 'c', got 'a'"):
        AnyOf([Demand("b"), Demand("c")]).check("a")


@pytest.mark.parametrize("kind", [AllOf, AnyOf])
def test_policy_part_that_could_not_look_is_neither_yes_nor_no(kind):
    with pytest.raises(CouldNotVerify, match="registry is away"):
        kind([Broken(), Demand("a")]).check("a")


def test_policies_keep_their_parts_when_the_list_changes():
    parts = [Demand("b")]
    policies = [AllOf(parts), AnyOf(parts)]
    parts[:] = [Demand("a")]
    for policy in policies:
        with pytest.raises(PolicyDenied):
            policy.check("a")


def test_nested_empty_policy_denies():
    with pytest.raises(PolicyDenied):
        AllOf([Demand("a"), AnyOf([])]).check("a")


def test_unsafe_allow_all_warns_when_it_is_made():
    with pytest.warns(UserWarning, match="allows everything"):
        policy = UnsafeAllowAll()
    policy.check("anything")
