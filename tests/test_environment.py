# SPDX-License-Identifier: Apache-2.0
"""docs/environment.md against what the source reads, both ways."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Functions that read a variable by a name that they are given.
READERS = {"_either": lambda name: {name, name.upper()}}
WRITERS = {"update"}  # of a plugin, for the library that it loads
PAGE = (ROOT / "docs" / "environment.md").read_text()


def sources():
    for top in ("imagers", "plugins"):
        yield from sorted((ROOT / top).rglob("*.py"))


def constants(tree):
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def is_environ(node):
    return isinstance(node, ast.Attribute) and node.attr == "environ"


def keys(tree):
    """The expressions that name variables, and how many uses of the environment there are."""
    found, uses = [], 0
    for node in ast.walk(tree):
        uses += is_environ(node)
        if isinstance(node, ast.Subscript) and is_environ(node.value):
            found.append(node.slice)
        elif isinstance(node, ast.Compare) and is_environ(node.comparators[0]):
            found.append(node.left)
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute) and is_environ(function.value):
                found.append(None if function.attr in WRITERS else node.args[0])
    return found, uses


def read_in(path):
    """The variables that a module reads; fails where a name cannot be known."""
    tree = ast.parse(path.read_text())
    assert "getenv" not in path.read_text(), path
    known = constants(tree)
    names = set()
    inside = {
        id(node)
        for one in ast.walk(tree)
        if isinstance(one, ast.FunctionDef) and one.name in READERS
        for node in ast.walk(one)
    }
    found, uses = keys(tree)
    assert uses == len(found), f"{path}: the environment is used in a way that is not looked at"
    for key in found:
        if key is None or id(key) in inside:
            continue
        if isinstance(key, ast.Constant):
            names.add(key.value)
        else:
            assert isinstance(key, ast.Name), ast.unparse(key)
            names.add(known[key.id])
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in READERS:
            names |= READERS[node.func.id](node.args[0].value)
    return names


def section(title):
    """The variables in the first column of a table of the page."""
    text = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_page_has_every_variable_that_is_read_and_no_other():
    read = set().union(*(read_in(path) for path in sources()))
    assert set(section("What is read")) == read
    assert len(read) > 20


def test_page_has_each_variable_once():
    listed = [
        name
        for title in (
            "What is read",
            "What is read by what imagers stands on",
            "What is not read, and what to do instead",
        )
        for name in section(title)
    ]
    assert sorted(set(listed)) == sorted(listed)
    assert len(listed) > 50


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.environ['A_B']",
        "import os\nos.environ.get('A_B', 1)",
        "import os\n_A = 'A_B'\n'x' if _A in os.environ else os.environ.pop(_A)",
        "import os\ndef _either(name): return os.environ.get(name)\n_either('a_b')",
    ],
)
def test_each_way_to_read_one_is_seen(tmp_path, text):
    path = tmp_path / "module.py"
    path.write_text(text)
    assert "A_B" in read_in(path)


def test_way_that_is_not_known_is_an_error(tmp_path):
    path = tmp_path / "module.py"
    for text in ("import os\nfor one in os.environ: pass", "import os\nprint(dict(os.environ))"):
        path.write_text(text)
        with pytest.raises(AssertionError, match="in a way that is not looked at"):
            read_in(path)
