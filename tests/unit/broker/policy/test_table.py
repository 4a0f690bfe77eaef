# SPDX-License-Identifier: Apache-2.0
import json
import time
from dataclasses import replace

import pytest

from imagers.broker.policy.table import (
    DEFAULT_POLICY,
    DENY_ALL_POLICY,
    FORMER_DEFAULT_POLICY,
    NotAffirming,
    ReleaseFacts,
    ResourcePolicy,
    parse_policy,
)
from imagers.errors import FormatError, PolicyDenied
from imagers.kbs.resources import ResourcePath
from imagers.model.digest import digest_of

IMAGE, OTHER = digest_of(b"one"), digest_of(b"other")
RULE = {"name": "r", "effect": "allow", "resource": "*/*/*", "image": "any"}


def facts(path="default/key/1", tee="snp", image=IMAGE, bindings=(IMAGE,), *, own=True):
    return ReleaseFacts(ResourcePath(*path.split("/")), tee, image, frozenset(bindings), own)


def policy(*rules):
    return parse_policy(json.dumps({"rules": [RULE | rule for rule in rules]}))


def test_default_policy_allows_the_bound_image():
    assert parse_policy(DEFAULT_POLICY).decide(facts()) == "bound-image"


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"bindings": ()}, "not bound to any image"),
        ({"image": None}, "names no image"),
        ({"image": OTHER}, f"not bound to the image {OTHER}"),
        ({"image": None, "bindings": ()}, "not bound to any image"),
    ],
    ids=["no binding", "no image", "another image", "neither"],
)
def test_default_policy_denies_everything_else_and_says_why(change, piece):
    with pytest.raises(PolicyDenied) as caught:
        parse_policy(DEFAULT_POLICY).check(facts(**change))
    assert "rule 'bound-image'" in str(caught.value)
    assert piece in str(caught.value)
    assert str(IMAGE) not in str(caught.value)


@pytest.mark.parametrize("image", [IMAGE, OTHER, None])
def test_default_policy_gives_nothing_to_guests_of_others_and_tells_them_nothing(image):
    with pytest.raises(
        NotAffirming, match="rule 'bound-image' does not apply: this guest"
    ) as caught:
        parse_policy(DEFAULT_POLICY).check(facts(image=image, own=False))
    assert caught.value.rule == "bound-image"
    assert "bound to" not in str(caught.value)


def test_rule_without_trust_takes_any_genuine_guest():
    table = policy({"name": "own", "resource": "a/*/*", "trust": "affirming"}, {"name": "any"})
    assert table.decide(facts(path="a/b/c", own=True)) == "own"
    assert table.decide(facts(path="a/b/c", own=False)) == "any"


def test_rule_with_devices_wants_one_of_each_kind():
    table = policy({"name": "gpu", "devices": ["a", "b"]})
    for shown in ((), ("a",), ("c", "a")):
        with pytest.raises(PolicyDenied, match="'gpu' does not apply: the guest has shown no"):
            table.check(replace(facts(), devices=frozenset(shown)))
    assert table.decide(replace(facts(), devices=frozenset("abc"))) == "gpu"
    assert policy({"name": "cpu"}).decide(replace(facts(), devices=frozenset("a"))) == "cpu"


@pytest.mark.parametrize("rule", [{"devices": []}, {"devices": ["a"], "effect": "deny"}])
def test_policy_with_devices_that_say_nothing_refused(rule):
    with pytest.raises(FormatError, match=r"devices"):
        policy(rule)


def test_former_default_is_the_default_without_trust():
    (rule,), (former,) = (
        json.loads(text)["rules"] for text in (DEFAULT_POLICY, FORMER_DEFAULT_POLICY)
    )
    assert rule == former | {"trust": "affirming"}


def test_one_of_several_bindings_is_enough():
    assert parse_policy(DEFAULT_POLICY).decide(facts(bindings=(OTHER, IMAGE))) == "bound-image"


def test_empty_table_denies():
    with pytest.raises(PolicyDenied, match="no rule allows it"):
        policy().check(facts())


def test_deny_all_denies_with_its_name():
    with pytest.raises(PolicyDenied, match="rule 'deny-all' denies it"):
        parse_policy(DENY_ALL_POLICY).check(facts())


def test_first_matching_rule_wins():
    deny = {"name": "no", "effect": "deny", "resource": "default/*/*"}
    with pytest.raises(PolicyDenied, match="rule 'no'"):
        policy(deny, {"name": "yes"}).check(facts())
    assert policy({"name": "yes"}, deny).decide(facts()) == "yes"


def test_bound_rule_that_does_not_apply_goes_on_to_the_next():
    table = policy({"name": "bound", "image": "bound"}, {"name": "any", "resource": "trust/*/*"})
    assert table.decide(facts(path="trust/policy/1", bindings=())) == "any"
    with pytest.raises(PolicyDenied, match="'bound' does not apply"):
        table.check(facts(bindings=()))


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("default/key/1", "default/key/1", True),
        ("default/key/1", "default/key/11", False),
        ("*/key/*", "default/key/1", True),
        ("*/key/*", "default/keys/1", False),
        ("def*/k*y/*1", "default/key/1", True),
        ("def*/k*y/*1", "xdefault/key/1", False),
        ("a.b/x/x", "aXb/x/x", False),
        ("**/x/x", "aXb/x/x", True),
    ],
)
def test_resource_pattern(pattern, path, fits):
    table = policy({"resource": pattern})
    if fits:
        assert table.decide(facts(path=path)) == "r"
    else:
        with pytest.raises(PolicyDenied):
            table.check(facts(path=path))


def test_resource_pattern_of_many_stars_takes_no_time():
    table = policy({"resource": "a*" * 100 + "b/*/*"})
    begin = time.monotonic()
    with pytest.raises(PolicyDenied):
        table.check(facts(path="a" * 255 + "/x/x"))
    assert time.monotonic() - begin < 20


def test_rule_put_together_by_hand_never_allows_what_it_does_not_name():
    """With fewer expressions than segments, or an effect that is none."""
    (rule,) = policy({"resource": "default/key/2"}).rules
    with pytest.raises(ValueError, match="argument 2 is longer"):
        replace(rule, resource=()).fits(facts())
    odd = ResourcePolicy((replace(rule, resource=policy({}).rules[0].resource, effect="Deny"),), "")
    with pytest.raises(PolicyDenied, match="rule 'r' denies it"):
        odd.check(facts())


def test_tee_list_limits_a_rule():
    table = policy({"tee": ["tdx", "snp"]})
    assert table.decide(facts(tee="snp")) == "r"
    with pytest.raises(PolicyDenied):
        table.check(facts(tee="sample"))


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("", "not JSON"),
        ('{"rules":[],"rules":[]}', "twice"),
        ("[]", "expected an object"),
        ("{}", "$.rules"),
        ('{"rules":{}}', "expected a list"),
        ('{"rules":[],"default":"allow"}', "unknown member 'default'"),
        ('{"rules":[1]}', "$.rules[0]: expected an object"),
        ('{"rules":[{}]}', "$.rules[0].name"),
        ('{"rules":[' + "1," * 1000 + "1]}", "at most 1000 entries"),
        ('{"rules":[]}' + " " * 262_144, "at most 262144 bytes"),
        ('{"rules":["\ud800"]}', "is not text"),
    ],
)
def test_parse_policy_other_document_refused(text, piece):
    with pytest.raises(FormatError) as caught:
        parse_policy(text)
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"effect": "Allow"}, "'allow' or 'deny', got 'Allow'"),
        ({"image": "bond"}, "'bound' or 'any', got 'bond'"),
        ({"image": None}, "is missing"),
        ({"effect": "deny", "image": "bound"}, "'any' in a rule that denies"),
        ({"resource": "*"}, "repository/type/tag"),
        ({"resource": "*/*/*/*"}, "repository/type/tag"),
        ({"resource": "a/[bc]/d"}, "repository/type/tag"),
        ({"resource": "a/b?/d"}, "repository/type/tag"),
        ({"resource": "a//d"}, "repository/type/tag"),
        ({"resource": "a/b/c\n"}, "repository/type/tag"),
        ({"tee": []}, "a list that is not empty"),
        ({"tee": "snp"}, "expected a list"),
        ({"tee": None}, "expected a list"),
        ({"tee": ["SNP"]}, "the name of a TEE"),
        ({"tee": [1]}, "expected a string"),
        ({"name": "a b"}, "a name of letters"),
        ({"name": ""}, "a name of letters"),
        ({"images": "any"}, "unknown member 'images'"),
    ],
    ids=str,
)
def test_parse_policy_bad_rule_refused_with_its_place(change, piece):
    with pytest.raises(FormatError) as caught:
        parse_policy(json.dumps({"rules": [RULE | change]}))
    assert piece in str(caught.value)
    assert caught.value.where.startswith("$.rules[0]")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"name": 1}, ".name"),
        ({"name": "-a"}, ".name"),
        ({"name": "a\n"}, ".name"),
        ({"name": "a" * 65}, ".name"),
        ({"effect": "Allow"}, ".effect"),
        ({"effect": "allow\n"}, ".effect"),
        ({"effect": True}, ".effect"),
        ({"image": "bond"}, ".image"),
        ({"image": True}, ".image"),
        ({"effect": "deny", "image": "bound"}, ".image"),
        ({"resource": 1}, ".resource"),
        ({"resource": "*/*"}, ".resource"),
        ({"resource": "*/*/" + "a" * 256}, ".resource"),
        ({"resource": "a" * 256 + "/*/*"}, ".resource"),
        ({"resource": "/*/*"}, ".resource"),
        ({"resource": "*/*/"}, ".resource"),
        ({"tee": []}, ".tee"),
        ({"tee": "snp"}, ".tee"),
        ({"tee": [f"t{number}" for number in range(33)]}, ".tee"),
        ({"tee": ["snp", "tdx\n"]}, ".tee"),
        ({"tee": ["1tee"]}, ".tee"),
        ({"tee": [""]}, ".tee"),
        ({"tee": ["a" * 33]}, ".tee"),
        ({"tee": [["snp"]]}, ".tee[0]"),
        ({"Tee": ["snp"]}, ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_parse_policy_bad_rule_says_where(change, where):
    with pytest.raises(FormatError) as caught:
        parse_policy(json.dumps({"rules": [RULE, RULE | {"name": "s"} | change]}))
    assert caught.value.where == f"$.rules[1]{where}"
    assert caught.value.what == "resource policy"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"rules":{}}', "$.rules"),
        ('{"rules":[],"default":"allow"}', "$"),
        ('{"rules":["x"]}', "$.rules[0]"),
        ('{"rules":[' + "1," * 1000 + "1]}", "$.rules"),
    ],
    ids=["no list", "another member", "no object", "too many"],
)
def test_parse_policy_other_document_says_where(text, where):
    with pytest.raises(FormatError) as caught:
        parse_policy(text)
    assert caught.value.where == where
    assert caught.value.what == "resource policy"


def test_parse_policy_takes_all_up_to_its_bounds():
    """The smallest and the largest of everything; what is one beyond is refused above."""
    names = ["A", "0", "a" * 64, "a_.-"]
    names += [f"r{number}" for number in range(1000 - len(names))]
    tees = ["a", "a" * 32, "a-0", *[f"t{number}" for number in range(29)]]
    longest = "/".join(["a" * 255] * 3)
    text = json.dumps({"rules": [RULE | {"name": name} for name in names]})
    assert len(parse_policy(text.ljust(262_144)).rules) == 1000
    (rule,) = policy({"tee": tees, "resource": longest}).rules
    assert rule.tees == frozenset(tees)
    assert policy({"resource": longest}).decide(facts(path=longest)) == "r"


def test_parse_policy_keeps_its_text():
    assert parse_policy(DEFAULT_POLICY).text == DEFAULT_POLICY


def test_denial_names_the_rules_that_came_near_and_no_more_than_three():
    table = policy(*({"name": f"r{number}", "image": "bound"} for number in range(4)))
    with pytest.raises(PolicyDenied) as caught:
        table.check(facts(bindings=()))
    assert [name in str(caught.value) for name in ("r0", "r1", "r2", "r3")] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("rules", [({}, {}), ({}, {"name": "s"}, {})], ids=["next", "later"])
def test_parse_policy_one_name_twice_refused(rules):
    with pytest.raises(FormatError, match="has the name 'r' twice") as caught:
        policy(*rules)
    assert caught.value.where == f"$.rules[{len(rules) - 1}].name"


def approved(approvals, **more):
    return replace(facts(**more), approvals=approvals)


def test_rule_that_demands_approvals_takes_no_image_with_fewer():
    two = policy({"image": "bound", "approvals": 2})
    assert two.decide(approved(2)) == "r"
    assert two.decide(approved(3)) == "r"
    for number in (0, 1):
        with pytest.raises(PolicyDenied, match=f"has {number} of 2 approvals"):
            two.decide(approved(number))
    with pytest.raises(PolicyDenied, match="not bound to the image"):
        two.decide(approved(2, image=OTHER))


@pytest.mark.parametrize(
    "change",
    [
        {"approvals": 2},
        {"image": "bound", "approvals": 0},
        {"image": "bound", "approvals": 17},
        {"image": "bound", "approvals": True},
        {"image": "bound", "approvals": "2"},
        {"effect": "deny", "approvals": 1},
    ],
)
def test_approvals_that_mean_nothing_refused(change):
    with pytest.raises(FormatError, match="approvals"):
        policy(change)


def test_a_name_counts_only_from_a_known_guest_whether_trust_is_said_or_not():
    bound = policy({"image": "bound"})
    assert bound.decide(facts()) == "r"
    with pytest.raises(NotAffirming, match="rule 'r' does not apply: this guest"):
        bound.decide(facts(own=False))


def test_approvals_of_a_repository_are_what_it_needs_at_least():
    table = policy(
        {"name": "a", "image": "bound", "approvals": 3},
        {"name": "b", "image": "bound", "approvals": 2, "resource": "prod/*/*"},
        {"name": "c", "resource": "trust/*/*"},
        {"name": "d", "resource": "no/*/*", "effect": "deny"},
    )
    found = [table.approvals_of(name) for name in ("prod", "other", "trust", "no")]
    assert found == [2, 3, 0, 3]
    assert table.demands_approvals
    assert not parse_policy(DEFAULT_POLICY).demands_approvals
    assert policy({"effect": "deny"}).approvals_of("x") == 0
