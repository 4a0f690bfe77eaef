# SPDX-License-Identifier: Apache-2.0
"""The doors of the packages: what users of the library import, and that their types are real."""

import ast
import importlib
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "imagers"
DOORS = ("pull", "build", "sign", "encrypt", "evidence", "kbs", "transport", "testing")
MAX_NAMES = 10


def public():
    """Every name of every door, and of `settings`."""
    for one in (*DOORS, "settings"):
        module = importlib.import_module(f"imagers.{one}")
        for name in module.__all__:
            yield pytest.param(getattr(module, name), id=f"{one}.{name}")


@pytest.mark.parametrize("one", DOORS)
def test_door_has_few_names_and_says_the_same_to_mypy_and_to_python(one):
    module = importlib.import_module(f"imagers.{one}")
    assert len(module.__all__) <= MAX_NAMES
    tree = ast.parse((PACKAGE / one / "__init__.py").read_text())
    for_mypy = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith(f"imagers.{one}.")
        for alias in node.names
    }
    (table,) = (node for node in ast.walk(tree) if isinstance(node, ast.Dict))
    for_python = {
        (f"imagers.{one}.{place}", name)
        for place, names in ast.literal_eval(table).items()
        for name in names
    }
    assert for_mypy == for_python
    assert sorted(name for _, name in for_python) == sorted(module.__all__)


def test_doors_cost_nothing_until_they_are_used():
    names = ", ".join(f"imagers.{one}" for one in DOORS)
    code = f"import sys, {names}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    ours = {name for name in done.stdout.split() if name.startswith("imagers.")}
    assert ours == {"imagers.lazy", *(f"imagers.{one}" for one in DOORS)}


def functions_of(thing):
    if inspect.isclass(thing):
        for name, member in vars(thing).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                yield member
        if "__init__" in vars(thing):
            yield thing.__init__
    elif inspect.isfunction(thing):
        yield inspect.unwrap(thing)


@pytest.mark.parametrize("thing", list(public()))
def test_type_hints_of_public_functions_can_be_had(thing):
    for function in functions_of(thing):
        hints = typing.get_type_hints(function)
        assert set(hints) == set(function.__annotations__)
