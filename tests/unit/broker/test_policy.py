import json
import time
from dataclasses import FrozenInstanceError

import pytest

from imagers.attest.resources import ResourcePath
from imagers.broker.policy import (
    DEFAULT_POLICY,
    DENY_ALL_POLICY,
    ReleaseFacts,
    parse_policy,
)
from imagers.errors import FormatError, PolicyDenied
from imagers.model.digest import digest_of

IMAGE, OTHER = digest_of(b"one"), digest_of(b"other")
RULE = {"name": "r", "effect": "allow", "resource": "*/*/*", "image": "any"}


def facts(path="default/key/1", tee="snp", image=IMAGE, bindings=(IMAGE,)):
    return ReleaseFacts(ResourcePath(*path.split("/")), tee, image, frozenset(bindings))


def policy(*rules):
    return parse_policy(json.dumps({"rules": [RULE | rule for rule in rules]}))


def test_default_policy_allows_the_bound_image():
    assert parse_policy(DEFAULT_POLICY).decide(facts()) == "bound-image"


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"bindings": ()}, "the resource is not bound to any image"),
        ({"image": None}, "the request names no image"),
        ({"image": OTHER}, f"the resource is not bound to the image {OTHER}"),
        ({"image": None, "bindings": ()}, "the resource is not bound to any image"),
    ],
    ids=["no binding", "no image", "another image", "neither"],
)
def test_default_policy_denies_everything_else_and_says_why(change, piece):
    with pytest.raises(PolicyDenied) as caught:
        parse_policy(DEFAULT_POLICY).check(facts(**change))
    assert str(caught.value) == f"rule 'bound-image' does not apply: {piece}"
    assert str(IMAGE) not in str(caught.value)


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


def test_tee_list_limits_a_rule():
    table = policy({"tee": ["tdx", "snp"]})
    assert table.decide(facts(tee="snp")) == "r"
    with pytest.raises(PolicyDenied):
        table.check(facts(tee="sample"))


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("", "not JSON"),
        ("[]", "expected an object"),
        ("{}", "$.rules"),
        ('{"rules":{}}', "expected a list"),
        ('{"rules":[],"default":"allow"}', "unknown member 'default'"),
        ('{"rules":[1]}', "$.rules[0]: expected an object"),
        ('{"rules":[{}]}', "$.rules[0].name"),
        ('{"rules":[' + "1," * 1000 + "1]}", "at most 1000 rules"),
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
        ({"tee": []}, "1 to 32 names, got 0"),
        ({"tee": "snp"}, "expected a list"),
        ({"tee": None}, "expected a list"),
        ({"tee": ["SNP"]}, "the name of a TEE"),
        ({"tee": [1]}, "the name of a TEE"),
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


def test_parse_policy_one_name_twice_refused():
    with pytest.raises(FormatError, match="has the name 'r' twice") as caught:
        policy({}, {})
    assert str(caught.value) == "resource policy at $.rules[1].name: has the name 'r' twice"


def test_parse_policy_at_its_bounds_taken():
    rules = [RULE | {"name": f"r{number}"} for number in range(1000)]
    assert len(parse_policy(json.dumps({"rules": rules})).rules) == 1000
    text = '{"rules":[]}'
    assert parse_policy(text + " " * (262_144 - len(text))).rules == ()
    tees = [f"t{number}" for number in range(32)]
    (rule,) = policy({"name": "a" * 64, "tee": tees}).rules
    assert (rule.name, rule.effect, rule.tees) == ("a" * 64, "allow", frozenset(tees))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "a" * 65},
            (
                "resource policy at $.rules[0].name: expected a name of letters, digits, '_', '.' "
                f"and '-', got '{'a' * 65}'"
            ),
        ),
        (
            {"tee": [f"t{number}" for number in range(33)]},
            "resource policy at $.rules[0].tee: expected 1 to 32 names, got 33",
        ),
        (
            {"tee": ["t" * 33]},
            f"resource policy at $.rules[0].tee: expected the name of a TEE, got '{'t' * 33}'",
        ),
        (
            {"tee": 1},
            "resource policy at $.rules[0].tee: expected a list, got a number",
        ),
        (
            {"resource": "a/b"},
            (
                "resource policy at $.rules[0].resource: expected 'repository/type/tag' with '*' "
                "for any part of a segment, got 'a/b'"
            ),
        ),
        (
            {"resource": "a/b/" + "c" * 256},
            (
                "resource policy at $.rules[0].resource: expected 'repository/type/tag' with '*' "
                f"for any part of a segment, got 'a/b/{'c' * 76}'"
            ),
        ),
        (
            {"effect": "x" * 100},
            f"resource policy at $.rules[0].effect: expected 'allow' or 'deny', got '{'x' * 80}'",
        ),
        (
            {"image": "x"},
            "resource policy at $.rules[0].image: expected 'bound' or 'any', got 'x'",
        ),
        (
            {"effect": "deny", "image": "bound"},
            (
                "resource policy at $.rules[0].image: expected 'any' in a rule that denies, "
                "got 'bound'"
            ),
        ),
        (
            {"x" * 100: 1},
            (
                f"resource policy at $.rules[0]: has an unknown member '{'x' * 80}', expected "
                "effect, image, name, resource, tee"
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parse_policy_refusal_says_what_where_expected_and_found(change, message):
    with pytest.raises(FormatError) as caught:
        parse_policy(json.dumps({"rules": [RULE | change]}))
    assert str(caught.value) == message


@pytest.mark.parametrize("member", ["name", "effect", "resource", "image"])
def test_parse_policy_rule_without_a_member_refused(member):
    rule = {name: value for name, value in RULE.items() if name != member}
    with pytest.raises(FormatError) as caught:
        parse_policy(json.dumps({"rules": [rule]}))
    assert str(caught.value).startswith(f"resource policy at $.rules[0].{member}: is missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "resource policy at $: expected an object"),
        ('{"rules":[],"x":1}', "resource policy at $: has an unknown member 'x', expected rules"),
        ('{"rules":1}', "resource policy at $.rules: expected a list"),
        ('{"rules":[1]}', "resource policy at $.rules[0]: expected an object"),
        ('{"rules":["\ud800"]}', "resource policy: is not text"),
        (
            '{"rules":[' + "1," * 1000 + "1]}",
            "resource policy at $.rules: expected at most 1000 rules, got 1001",
        ),
    ],
    ids=range(6),
)
def test_parse_policy_refusal_of_a_document_says_where(text, message):
    with pytest.raises(FormatError) as caught:
        parse_policy(text)
    assert str(caught.value).startswith(message)


def test_decide_says_of_three_rules_why_they_do_not_apply():
    table = policy(*({"name": name, "image": "bound"} for name in "abcd"))
    with pytest.raises(PolicyDenied) as caught:
        table.decide(facts(bindings=()))
    why = "does not apply: the resource is not bound to any image"
    assert str(caught.value) == "; ".join(f"rule '{name}' {why}" for name in "abc")


def test_decide_without_a_rule_that_fits_says_so():
    with pytest.raises(PolicyDenied) as caught:
        policy({"tee": ["snp"]}, {"name": "s", "resource": "x/x/x"}).decide(facts(tee="sample"))
    assert str(caught.value) == "no rule allows it"


@pytest.mark.parametrize(
    ("value", "name"), [(facts(), "tee"), (policy({}).rules[0], "bound")], ids=["facts", "rule"]
)
def test_values_of_a_decision_cannot_be_changed(value, name):
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, True)
    assert not hasattr(value, "__dict__")


def test_policy_keeps_the_text_that_it_was_made_from():
    assert parse_policy(DEFAULT_POLICY).text == DEFAULT_POLICY
