# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.broker.policy.rego.scan import MAX_REGO_BYTES, is_rego, scan_policy
from imagers.errors import FormatError
from tests.real_evidence import real_file

HEAD = "package policy\nimport rego.v1\ndefault allow := false\n"
FILES = ["affirming", "allow_all", "default", "deny_all"]
FILES += [f"ear_default_policy_{name}" for name in ("cpu", "gpu", "ppcie", "switch")]

REFUSED = {
    "no package": ("allow := true", "expected 'package policy'", ""),
    "nothing": ("", "expected 'package policy'", ""),
    "another package": ("package system\nallow := 1", "the package 'policy'", "line 1"),
    "a package below": ("package policy.a\nallow := 1", "the package 'policy'", "line 1"),
    "two packages": (HEAD + "package other", "expected one package", "line 4"),
    "no rule": ("package policy\nx := 1", "expected a rule 'allow'", ""),
    "an open bracket": (HEAD + "allow if {", "'{' is not closed", "line 4"),
    "a closing bracket": (HEAD + "allow if }", "'}' closes nothing", "line 4"),
    "another closing bracket": (HEAD + "allow if {)", "')' closes nothing", "line 4"),
    "deep brackets": (HEAD + "x := " + "[" * 65 + "]" * 65, "at most 64 deep", "line 4"),
    "very deep brackets": (HEAD + "x := " + "[" * 90_000 + "]" * 90_000, "at most 64", "line 4"),
    "a zero byte": (HEAD + "# \0", "no control character, got '\\x00'", "line 4"),
    "a bare return": (HEAD + "# a\rallow := true", "no control character, got '\\r'", "line 4"),
    "a vertical tabulator": (HEAD + "x := 1\x0b", "no control character", "line 4"),
    "half a string": (HEAD + 'x := "a', "expected no '\"'", "line 4"),
    "a string over lines": (HEAD + 'x := "a\nb"', "expected no '\"'", "line 4"),
    "a template": (HEAD + 'x := $"{input.a}"', "expected no '$'", "line 4"),
    "another letter": (HEAD + "é := 1", "expected no 'é'", "line 4"),
    "a surrogate": (HEAD + "# \ud800", "is not text", ""),
    "an escape that compares false": (HEAD + 'x := "\\u0041"', 'as "A", got "\\u0041"', "line 4"),
    "an escaped slash": (HEAD + 'x := "a\\/b"', 'as "a/b"', "line 4"),
    "an unknown escape": (HEAD + 'x := "\\d"', "unknown escape", "line 4"),
    "a tabulator in a string": (HEAD + 'x := "a\tb"', "tabulator in a string", "line 4"),
    "with": (HEAD + "allow if data.policy.allow with input as {}", "'with' is not", "line 4"),
    "an import of data": (HEAD + "import data.plugin", "expected an import of 'rego.v1'", "line 4"),
    "all of data": (HEAD + "x := data", "got data", "line 4"),
    "data by a variable": (HEAD + 'x := data[y] if y := "z"', "got data", "line 4"),
    "data after a blank": (HEAD + 'x := data ["plugin"]', "got data", "line 4"),
    "another package's data": (HEAD + "x := data.system.main", "got data.system", "line 4"),
    "all of the policy": (HEAD + "x := data.policy", "got data.policy", "line 4"),
    "no rule of ours": (HEAD + "x := data.policy.y", "has no rule 'y'", "line 4"),
    "the machine": (HEAD + "x := opa.runtime()", "calls opa.runtime: a policy does", "line 4"),
    "the network": (HEAD + "x := http.send({})", "calls http.send: a policy asks nobody", "line 4"),
    "the clock": (HEAD + "x := time.now_ns()", "input.imagers.now_ns", "line 4"),
    "dice": (HEAD + 'x := rand.intn("a", 3)', "calls rand.intn", "line 4"),
    "print": (HEAD + 'allow if { print("a") }', "calls print: nobody would read it", "line 4"),
    "not in every": (HEAD + "x if {\n every y in input {\n not y == 2\n}\n}", "no 'not'", "line 6"),
    "not in every of a set": (HEAD + "x if { every y in {1, 2} { not y } }", "no 'not'", "line 4"),
    "not in every of a union": (
        HEAD + "x if { every y in {1} | {2} { not y } }",
        "no 'not'",
        "line 4",
    ),
    "not deep in every": (HEAD + "x if { every y in [1] { [1 | not y] } }", "no 'not'", "line 4"),
    "not listed in not": (
        HEAD + "x if {\n not count([1 | some y in [1]\n not y == 1]) == 1\n}",
        "no 'not' in what is listed inside 'not'",
        "line 6",
    ),
    "not listed in a not that goes on": (
        HEAD + "x if {\n not 1 ==\n count([1 | some y in [1]; not y == 1])\n}",
        "no 'not' in what is listed inside 'not'",
        "line 6",
    ),
    "not listed in a not that the next line takes on": (
        HEAD + "x if {\n not 1\n == count([1 | some y in [1]; not y == 1])\n}",
        "no 'not' in what is listed inside 'not'",
        "line 6",
    ),
    "every listed in not": (
        HEAD + "x if { not count([1 | some y in [1]; every z in [1] { y == z }]) == 1 }",
        "no 'every' in what is listed inside 'not'",
        "line 4",
    ),
    "a list in a list in not": (
        HEAD + "x if { not count([y | some y in [1]; [z | z := y] == [1]]) == 1 }",
        "no '|' in what is listed inside 'not'",
        "line 4",
    ),
    "a list in a list in every": (
        HEAD + "x if { every a in [1] { count({y | some y in [1]; {z | z := y} == {1}}) == a } }",
        "no '|' in what is listed inside 'every'",
        "line 4",
    ),
    "two nots": (HEAD + "x if { not 1 not 2 }", "expected no 'not' after 'not'", "line 4"),
    "two everys": (HEAD + "x if { every every y }", "expected no 'every' after 'every'", "line 4"),
    "no rule and no value": (HEAD + "x := tru", "'tru' is no rule and has no value", "line 4"),
    "not among ours": (
        HEAD + 'x if input.imagers.signer == "y"',
        "input.imagers has no 'signer'; it has advisories, bindings",
        "line 4",
    ),
    "a function of ours": (HEAD + "query_reference_value(x) := 1", "which is ours", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_text_that_an_engine_may_not_see_is_refused(case):
    text, message, where = REFUSED[case]
    with pytest.raises(FormatError) as caught:
        scan_policy(text)
    assert message in str(caught.value)
    assert caught.value.where == where


def test_a_text_above_the_bound_is_refused_before_it_is_read():
    scan_policy(HEAD + "#" * (MAX_REGO_BYTES - len(HEAD)))
    with pytest.raises(FormatError, match=f"at most {MAX_REGO_BYTES} bytes, got"):
        scan_policy(HEAD + "#" * (MAX_REGO_BYTES - len(HEAD)) + "[")


def test_brackets_and_words_in_strings_and_comments_are_none():
    text = HEAD + 'x := "[[[{ data with"\ny := `((( data\n[`\n# {{{ with data\nallow if x == y\n'
    assert scan_policy(text).rules == {"allow", "x", "y"}


def test_a_not_beside_every_is_taken():
    scan_policy(HEAD + "x if { every y in {1} { y } ; not input.a; z := [1 | not input.b] }")
    scan_policy(HEAD + "x if { not input.a\n every y in [[{1}]] { y.not == 1 }\n not input.b\n}")
    scan_policy(HEAD + "x if every y in [1] { y }\nz if not input.b\n")


def test_lists_beside_and_in_a_not_are_taken():
    scan_policy(HEAD + "x if {\n not count([1 | input.a]) == 1\n y := [1 | not input.b]\n}")
    scan_policy(HEAD + "x if { not input.a; y := [1 | z := [2 | input.c]; not input.b] }")
    scan_policy(HEAD + "x if { every y in [1 | input.a] { count([z | z := y]) == 1 } }")


def test_brackets_are_as_deep_as_they_may_be():
    scan_policy(HEAD + "x := " + "[" * 64 + "]" * 64)


@pytest.mark.parametrize("name", FILES)
def test_policies_of_trustee_are_taken(name):
    scanned = scan_policy(real_file(f"policies/trustee/{name}.rego").read_text())
    assert scanned.rules & {"allow", "trust_claims"}
    assert scanned.calls.keys() <= {"count", "object.union_n"}


def test_calls_are_all_but_rules_of_the_text_and_reference_values():
    text = HEAD + (
        "f(x) := count(x)\nallow if {\n  f(input.a)\n  data.policy.f(1)\n  g(1)\n"
        '  object.get(input, "a", 1)\n  query_reference_value("x")\n  not (1 == 2)\n}\n'
    )
    assert scan_policy(text).calls == {"count": 4, "g": 8, "object.get": 9}


def test_a_line_that_goes_on_begins_no_rule():
    text = HEAD + "allow if\n  nope(1)\nx := 1 +\n  other(2)\n"
    scanned = scan_policy(text)
    assert scanned.rules == {"allow", "x"}
    assert scanned.calls == {"nope": 5, "other": 7}


def test_strings_are_known_as_what_they_stand_for():
    assert scan_policy(HEAD + 'x := ["a", `b`, "c\\n\\""]').strings == {"a", "b", 'c\n"'}


def test_what_stands_for_the_request_is_a_part_of_the_input():
    text = HEAD + 'plugin = data.plugin\nx := data["resource-path"][0]\ny := x.data.plugin\n'
    scanned = scan_policy(text)
    assert scanned.source == HEAD + (
        "plugin = input.imagers.request.plugin\n"
        'x := input.imagers.request["resource-path"][0]\ny := x.data.plugin\n'
    )
    assert scanned.paths == (
        ("imagers", "request", "plugin"),
        ("imagers", "request", "resource-path"),
    )


INPUT = {"a": {"b": {"c": 1}, "d": 2}, "e": [{"f": 3}], "g": None}
SEEN = {
    "a path": ("input.a.b.c == 1", {"a": {"b": {"c": 1}}}),
    "a path by strings": ('input["a"]["d"] == 1', {"a": {"d": 2}}),
    "two paths": ("input.a.b.c == input.a.d", {"a": {"b": {"c": 1}, "d": 2}}),
    "a path and what begins it": ("input.a.b.c == input.a", {"a": INPUT["a"]}),
    "a variable": ("input.a[x] == 1", {"a": INPUT["a"]}),
    "a number": ("input.e[0].f == 1", {"e": INPUT["e"]}),
    "more than there is": ("input.e.f == 1", {"e": INPUT["e"]}),
    "nothing that there is": ("input.x.y == 1", {}),
    "all of it": ("count(input) == 1", INPUT),
    "all of it by a variable": ("input[x].b == 1", INPUT),
    "after a blank, which may end it": ('input ["a"] == 1', INPUT),
    "a null": ("input.g == 1", {"g": None}),
    "an import": ("y == 1 }\nimport input.a as y\nx if {", {"a": INPUT["a"]}),
    "nothing": ("1 == 1", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", SEEN)
def test_a_policy_is_given_what_it_names_of_the_input(case):
    body, seen = SEEN[case]
    before = json.dumps(INPUT)
    assert scan_policy(HEAD + "allow if { " + body + " }").seen_of(INPUT) == seen
    assert json.dumps(INPUT) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("package policy", True),
        ("# a\n\n  package policy", True),
        ('{"rules": []}', False),
        ("", False),
        ("packages", False),
    ],
)
def test_a_text_in_rego_is_known_by_its_beginning(text, expected):
    assert is_rego(text) is expected


PIECES = ["input", "data", "policy", "plugin", ".", "[", "]", '"a"', "(", ")", "{", "}", "if"]
PIECES += [" ", "\n", "#", "`", '"', "allow", "x", ":=", "import", "default", "\\", "1", "with"]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=80))
def test_any_text_is_taken_or_refused(text):
    try:
        scanned = scan_policy(HEAD + text)
    except FormatError:
        return
    assert scanned.source.count("\n") == (HEAD + text).count("\n")
    scanned.seen_of(INPUT)
