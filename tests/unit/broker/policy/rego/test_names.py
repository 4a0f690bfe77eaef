# SPDX-License-Identifier: Apache-2.0
"""A name that stands for nothing is refused where it stands, and no policy that is good is."""

import pytest

from imagers.broker.policy.rego.scan import scan_policy
from imagers.errors import FormatError

HEAD = "package policy\nimport rego.v1\nimport input.snp\nimport input.tdx as quote\n"

GOOD = {
    "assignment": "allow if { x := 1; x == 1 }",
    "assignment behind its use": "allow if { x == y; y := 1; x := 1 }",
    "a pattern": 'allow if { [a, {"k": b}] := input.a; a == b }',
    "the left side of a unification": "allow if { x = input.a; x == 1 }",
    "its right side": "allow if { input.a = x; x == 1 }",
    "a pattern on its right side": "allow if { input.a = [x, _]; x == 1 }",
    "in one line": "allow if input.a = x",
    "some": "allow if { some x in input.a; x == 1 }",
    "some of two": "allow if { some k, v in input.a; k == v }",
    "some alone": "allow if {\n  some x, y\n  input.a[x][y] == 1\n}",
    "some pattern in lines": 'allow if {\n  some {\n    "a": x,\n  } in input.a\n  x == 1\n}',
    "every": "allow if { every k, v in input.a { k == v } }",
    "an index": "allow if { input.a[x].b[y] == x; y == 1 }",
    "a pattern as index": "s := {[1, 2]}\nallow if { s[[x, 2]]; x == 1 }",
    "an argument": "f(x, [y, _]) := x + y\nallow if f(1, [2, 3]) == 3",
    "an argument behind else": "f(x) := 1 if { input.a }\nelse := x\nallow if f(2) == 2",
    "a partial rule": "p[x] := y if { some x, y in input.a }\nallow if p[1] == 2",
    "a set": "deny contains x if { some x in input.a }\nallow if count(deny) == 0",
    "an argument that is given back": "allow if { walk(input, [path, value]); value == path[0] }",
    "one behind which is a comma": "allow if { walk(\n  input,\n  [path, _],\n); path == [] }",
    "behind an import of a keyword": "import future.keywords.in\nm := 1\nallow if { m == 1 }",
    "listed": "allow if { count([x | some x in input.a]) == 1 }",
    "an object that is listed": "allow if { {k: v | some k, v in input.a} == {} }",
    "in what is denied": "allow if { some x in input.a; not x == 1 }",
    "listed in what is denied": "allow if { not count([x | some x in input.a]) > 1 }",
    "in a body of every": "allow if { every x in {1} | {2} { y := x; y > 0 } }",
    "what is gone through": "allow if { every x in input.a[i] { x > 0 }; i == 1 }",
    "one name listed twice": "allow if { [x | some x in input.a] == {x | some x in input.b} }",
    "a union": "allow := c if { input.a | input.b == c; c := input.d }",
    "an import of a member in brackets": 'import input.submods["cpu0"]\nallow if cpu0 == 1',
    "an import of one that is a keyword": "import input.as as bs\nallow if bs == 1",
    "imports": "allow if { snp.svn == quote.svn }",
    "rules": "default n := 1\nm := n\nallow if { n == m }\nallow if data.policy.m == 2",
    "members": "allow if { input.tru == input.allowed.x.y; input.package.some == 1 }",
    "nothing named": "allow if { input.a[_] == 1; [_, _] = input.b }",
    "functions with dots": "allow if { object.get(input, 'a', 1) == 1 }".replace("'", '"'),
}
BAD = {
    "allow := tru": "tru",
    "default allow := fals": "fals",
    "allow = tru": "tru",
    "allow if tru": "tru",
    "allow if not is_revokd\nis_revoked if input.a": "is_revokd",
    "allow if { not y == 1 }": "y",
    "allow if { x := 1; y == x }": "y",
    "allow if { count([1 | foo]) == 0 }": "foo",
    "allow if { every x in foo { x } }": "foo",
    "allow if { some x in foo }": "foo",
    "allow if { f(foo) }\nf(x) := x": "foo",
    "allow if { x == 1 }\nm if { x := 1 }": "x",
    "f(x) := y\nallow if f(1) == 1": "y",
    "deny contains x if { input.a }\nallow if not deny": "x",
    "allow if { input.a }\nelse := fals": "fals",
    "allow if { input.a }\nelse = fals": "fals",
    "allow if { input.a in tees }": "tees",
    "allow if { input.a == {1: foo} }": "foo",
    "allow if { [1] [x] == 1 }": "x",
    "allow if { some x; not x }": "x",
    "allow if { xs := [x | some x in input.a]; not x == 1 }": "x",
    "allow if { every x in input.a { x > 0 }; not x }": "x",
    "allow if { not y; every x in input.a { y := x } }": "y",
    "allow if not v1": "v1",
}


@pytest.mark.parametrize("case", GOOD)
def test_a_name_that_has_a_value_is_taken(case):
    assert "allow" in scan_policy(HEAD + GOOD[case] + "\n").rules


@pytest.mark.parametrize("text", BAD)
def test_a_name_that_stands_for_nothing_is_refused_with_its_line(text):
    with pytest.raises(FormatError) as caught:
        scan_policy(f"{HEAD}\n{text}\n")
    line = 6 + text[: text.index(BAD[text])].count("\n")
    assert caught.value.where == f"line {line}"
    assert f"{BAD[text]!r} is no rule and has no value" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "allow if { not input.a[i] == 1 }",
        "allow if { not input.a = i }",
        "allow if { i == 1; not input.a[i] }",
        "allow if { count([x | some x in input.a; not input.b[i] == x]) == 0 }",
    ],
)
def test_a_value_that_is_denied_is_none(text):
    with pytest.raises(FormatError, match=r"'i' (has no value outside 'not'|is no rule)"):
        scan_policy(f"{HEAD}{text}\n")


def test_values_of_a_denied_list_are_none_outside():
    with pytest.raises(FormatError, match="'x' is no rule and has no value"):
        scan_policy(HEAD + "allow if { x == 1; not count([x | some x in input.a]) > 1 }\n")


def test_a_path_that_is_longer_than_an_input_is_deep_is_refused():
    path = ".a" * 65
    with pytest.raises(FormatError, match="expected paths of at most 64 names"):
        scan_policy(f"{HEAD}allow if input{path}\n")
    assert scan_policy(f"{HEAD}allow if input{path[2:]}\n").paths[-1] == ("a",) * 64
