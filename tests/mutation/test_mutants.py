# SPDX-License-Identifier: Apache-2.0
"""What the mutants of a source are, and that each is one change which compiles."""

import ast
import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutants_of = load("mutants").mutants_of


def names(source):
    """Without the statement that stands behind each."""
    return [one.name.partition(": ")[2].partition(" in ")[0] for one in mutants_of(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a == b", ["a == b -> a != b"]),
        ("x = a < b", ["a < b -> a <= b", "a < b -> a >= b"]),
        ("if a < b:\n    x = y", ["a < b -> True", "a < b -> False", "a < b -> a <= b"]),
        ("if a == b:\n    x = y", ["a == b -> True", "a == b -> False"]),
        ("if a:\n    raise X", ["a -> True", "a -> False"]),
        ("if a:\n    raise X\nelse:\n    x = y", ["a -> True", "a -> False", "raise X -> pass"]),
        ("while a:\n    x = y", ["a -> False"]),
        ("x = a and b", ["a and b -> a or b", "a and b -> b", "a and b -> a"]),
        ("x = not a", ["not a -> a"]),
        ("x = 4 * 1024", ["4 * 1024 -> 4097", "4 * 1024 -> 4095"]),
        ("x = True", ["True -> False"]),
        ("x = 'key'", ["'key' -> 'XXkey'"]),
        ("x = '[a]{0,3}\\\\Z'", [
            r"'[a]{0,3}\\Z' -> 'XX[a]{0,3}\\Z'",
            r"'[a]{0,3}\\Z' -> '[a]{0,3}'",
            r"'[a]{0,3}\\Z' -> '[a]{0,4}\\Z'",
            r"'[a]{0,3}\\Z' -> '[a]{0,2}\\Z'",
            r"'[a]{0,3}\\Z' -> '[a]{1,3}\\Z'",
        ]),
        ("x = all(a)", ["all(a) -> any(a)"]),
        ("f(a=b)", ["f(a=b) -> pass", "f(a=b) -> without a"]),
        ("a.b = c", ["a.b = c -> pass"]),
        ("with a:\n    x = y", ["with a: -> if True:"]),
        ("try:\n    x = y\nexcept (A, B):\n    x = z", ["(A, B) -> (B,)", "(A, B) -> (A,)"]),
        ("try:\n    x = y\nexcept A:\n    x = z", ["A -> ()"]),
        ("match a:\n    case B():\n        x = y", ["B() -> never"]),
        ("def f():\n    return a", ["return a -> return None"]),
        ("def f(a=1):\n    x = y", ["1 -> 2", "1 -> 0"]),
        ("x = [a for a in b if a.c]", ["a.c -> True", "a.c -> False"]),
    ],
)  # fmt: skip
def test_mutants_of_a_construct_are_these(source, expected):
    assert names(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "import a",
        "__all__ = ['a']",
        "assert a == 1",
        "if TYPE_CHECKING:\n    x = 1",
        "def f(a: 'b') -> 'c':\n    x = y",
        "@dataclass(frozen=True)\nclass A:\n    a: int",
        "x = 'for people'",
        "x = f'for {1 + 1}'",
        "x = 'for ' + ', '.join(a[:2])",
        "x = f(hint='a', what='b')",
    ],
)
def test_mutants_of_what_decides_nothing_are_none(source):
    assert names(source) == []


def test_facts_of_an_error_are_changed_and_its_text_is_not():
    source = "raise E(f'expected {1}', what='a', where='b', expected=2, hint='c')"
    assert [name.rpartition(" -> ")[2] for name in names(source)] == [
        "pass",
        "without where",
        "without expected",
        "'XXb'",
        "3",
        "1",
    ]


@pytest.mark.parametrize("path", sorted(load("modules").MODULES))
def test_each_mutant_of_a_module_is_a_change_of_its_own(path):
    source = (ROOT / path).read_text()
    found = mutants_of(source)
    assert len({one.name for one in found}) == len(found) > 0
    original = ast.unparse(ast.parse(source))
    for one in found[::25]:
        assert one.compile(source, path)
        assert ast.unparse(one.tree(source)) != original


def test_mutant_of_a_method_names_the_function_and_the_lines():
    head = "class A:\n    @property\n    def f(self):\n"
    source = head + "        if (\n            a\n        ):\n            return b\n"
    found = mutants_of(source)
    assert [one.function for one in found] == [("A.f", 2)] * 2
    assert [one.lines for one in found] == [range(4, 7)] * 2
