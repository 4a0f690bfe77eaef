# SPDX-License-Identifier: Apache-2.0
"""Every regular expression of the tree takes time in proportion to what it is given.

Two parts without a bound that can match the same text make a search through all ways to share
it: a user id of 400 blanks took 16 seconds. Strings that provoke it are made from each
expression itself: one that matches, with its parts repeated and something wrong at the end.
"""

import ast
import functools
import importlib
import pkgutil
import random
import re
import signal
from pathlib import Path

import pytest

import imagers

METHODS = {"match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
LENGTH = 20_000
LIMIT_S = 0.5  # of the processor; what is in proportion takes a millisecond
SEEDS = 40
ALPHABET = "abcdefghijklmnopqrstuvwxyz \t\na0A-_./:,;=\"'\\<>()[]{}#@*+%~!|&?^$\x00\x7f\xe9"
ENDS = ["", "\x00", "!", "<", " x"]


def expressions():
    """Each expression with how it is used: those with a name, and those in a call."""
    found = {}
    for info in pkgutil.walk_packages(imagers.__path__, "imagers."):
        if info.name == "imagers.__main__":
            continue
        module = importlib.import_module(info.name)
        path = Path(module.__file__)
        if path.suffix != ".py":
            continue
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        ]
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                used = {
                    call.func.attr
                    for call in calls
                    if isinstance(call.func.value, ast.Name) and call.func.value.id == name
                }
                found[f"{info.name}.{name}"] = value, used & METHODS or {"match"}
        for call in calls:
            if isinstance(call.func.value, ast.Name) and call.func.value.id == "re" and call.args:
                text = call.args[0]
                if isinstance(text, ast.Constant) and call.func.attr in METHODS:
                    where = f"{info.name}:{call.lineno}"
                    found[where] = re.compile(text.value), {call.func.attr}
    return found


@functools.cache
def characters(kind, value):
    """Of the alphabet, those that a part of an expression for one character takes."""
    # A part is known by what it prints, and parts cannot be compared.
    value = eval(value, {**vars(re._constants)})  # noqa: S307  # of our own expressions
    tree = re._parser.SubPattern(re._parser.State(), [(kind, value)])
    one = re._compiler.compile(tree)
    return [candidate for candidate in ALPHABET if one.match(candidate)]


class Maker:
    """A string that an expression matches, with some of its parts repeated."""

    def __init__(self, pattern, seed):
        self.random = random.Random(seed)  # noqa: S311  # the same strings each time
        self.favourite = self.random.choice(ALPHABET)
        self.budget = LENGTH
        text = pattern.pattern
        text = text.decode("latin-1") if isinstance(text, bytes) else text
        self.tree = re._parser.parse(text, pattern.flags & ~re.UNICODE)

    def make(self, nodes=None, after=()):
        nodes = list(self.tree if nodes is None else nodes)
        return "".join(self.one(*node, [*nodes[at + 1 :], *after]) for at, node in enumerate(nodes))

    def one(self, kind, value, after):
        name = str(kind)
        if name == "LITERAL":
            return chr(value)
        if name in ("NOT_LITERAL", "ANY", "IN"):
            return self.character(kind, value)
        if name == "BRANCH":
            return self.make(self.random.choice(value[1]), after)
        if name == "SUBPATTERN":
            return self.make(value[-1], after)
        if name == "ATOMIC_GROUP":
            return self.make(value, after)
        if name.endswith("REPEAT"):
            low, high, body = value
            once = self.word(list(body), after)
            count = low
            if high > 1000 and self.budget and self.random.random() < 0.7:
                count = max(low, self.random.choice([1, self.budget // max(1, len(once))]))
                self.budget = max(0, self.budget - count * len(once))
            return once * count
        return ""  # positions, assertions, references

    def character(self, kind, value):
        taken = characters(kind, repr(value))
        if self.favourite in taken:
            return self.favourite
        return self.random.choice(taken) if taken else "a"

    def word(self, body, after):
        """What follows a part, where that part can be it as well; else what the part is."""
        if after and len(body) == 1 and str(body[0][0]) in ("NOT_LITERAL", "ANY", "IN"):
            budget, self.budget = self.budget, 0
            word = self.make(after[: self.random.randint(1, len(after))])
            self.budget = budget
            if word and all(one in characters(body[0][0], repr(body[0][1])) for one in word):
                return word
        return self.make(body, after)


FOUND = expressions()


class TooSlow(Exception):
    pass


def _stop(*_):
    raise TooSlow


def is_linear(pattern, methods):
    before = signal.signal(signal.SIGVTALRM, _stop)
    text = ""
    try:
        for seed in range(SEEDS):
            for end in ENDS:
                text = Maker(pattern, seed).make()
                text = (text if seed % 2 else text[:-1]) + end
                if isinstance(pattern.pattern, bytes):
                    subject = text.encode("latin-1", "replace")
                else:
                    subject = text
                for method in methods:
                    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
                    arguments = ("", subject) if method in ("sub", "subn") else (subject,)
                    result = getattr(pattern, method)(*arguments)
                    if method == "finditer":
                        list(result)
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except TooSlow:
        return text
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return None


@pytest.mark.parametrize("where", sorted(FOUND))
def test_is_linear(where):
    pattern, methods = FOUND[where]
    assert is_linear(pattern, methods) is None


@pytest.mark.parametrize(
    "text",
    [r"(a+)+\Z", r"[a-z]*x[a-z]*\Z", r"<(.*)><(.*)>\Z", r"\s*(?P<n>[^<(]*?)\s*(?:<(.*)>)?\s*\Z"],
)
def test_what_is_not_linear_is_seen(text):
    assert is_linear(re.compile(text), {"match"}) is not None


def test_a_search_from_every_place_is_seen(monkeypatch):
    # Its square is small: on a fast machine 20,000 characters take less than the limit.
    monkeypatch.setitem(globals(), "LENGTH", 400_000)
    assert is_linear(re.compile("a+b"), {"search"}) is not None
