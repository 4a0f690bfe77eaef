# SPDX-License-Identifier: Apache-2.0
"""Names in a policy that stand for nothing.

The engine takes a name that is no rule and was given no value for one that is undefined: `allow :=
tru` refuses everybody without a word, and `not is_reovked` holds for everybody. Other engines call
it an unsafe variable and refuse the text; so do we.

A name is given a value

    x := 1, x = y, [x, _] := f(1)     by assignment and by `=`, on both sides, in bodies
    some x in xs, every k, v in xs    as it is declared
    xs[x]                             as the index of what is there
    f(x), walk(xs, [x, _])            as an argument of the function that is defined, and as the
                                      last one of several of one that is called

anywhere in its rule; by what is listed (`[x | ...]`) or by the body of an `every` for that alone,
and by what `not` denies not at all. `some x` gives none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.broker.policy.rego.tokens import CLOSES, KEYWORDS, OPENS, is_body

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from imagers.broker.policy.rego.tokens import Token

__all__ = ["find_unknown"]

_ALWAYS = KEYWORDS | {"_", "data", "input"}
_ENDS = ("in", ";", "some", "every")  # what is declared


def find_unknown(
    rule: Sequence[Token], known: Container[str], denied: Iterable[range]
) -> tuple[Token, str] | None:
    """The first name of a rule that stands for nothing, and what to say; None: there is none.

    Args:
        rule: from its head to its end.
        known: names of rules, and what is imported.
        denied: the places of each `not` and what it denies, those inside others too.
    """
    return _Rule(rule, known, denied).unknown()


class _Rule:
    """The tokens of one rule, and what is around each."""

    def __init__(
        self, tokens: Sequence[Token], known: Container[str], denied: Iterable[range]
    ) -> None:
        self._tokens = tokens
        self._known = known
        self._around: list[int] = []  # the bracket that each is in; -1: none
        self._close: dict[int, int] = {}
        self._last_comma: dict[int, int] = {}
        open_ = [-1]
        for at, token in enumerate(tokens):
            if token.text in CLOSES and token.kind == "mark":
                self._close[open_.pop()] = at
            self._around.append(open_[-1])
            if token.text in OPENS and token.kind == "mark":
                open_.append(at)
            elif token.text == "," and not self._is(at + 1, ")"):
                self._last_comma[open_[-1]] = at
        self._body = next(
            (at for at, one in enumerate(tokens) if not one.depth and self._is(at, "if", "{")),
            len(tokens),
        )
        self._head = next(
            (
                at
                for at, one in enumerate(tokens)
                if not one.depth and self._is(at, ":=", "=", "if", "contains", "{")
            ),
            len(tokens),
        )
        self._bodies = dict(self._bodies_of_every())
        self._declared = dict(self._declarations())
        self._denied = frozenset(denied)
        own = {range(at, self._close[at]) for at in self._bodies.values()}
        own |= {range(at, self._close[at]) for at in self._lists()}
        self._scopes: list[range | None] = [None] * len(tokens)  # the innermost of each
        self._outer: dict[range, range | None] = {}
        for one in sorted({*self._denied, *own}, key=lambda one: (one.start, -one.stop)):
            self._outer[one] = self._scopes[one.start]
            self._scopes[one.start : one.stop] = [one] * len(one)

    def unknown(self) -> tuple[Token, str] | None:
        given: dict[str, set[range | None]] = {}
        used: list[int] = []
        for at in self._names():
            place = self._declared.get(at, at)
            if place < 0:
                continue
            scope = self._scopes[place]
            if self._is_given(at) and scope not in self._denied:
                given.setdefault(self._tokens[at].text, set()).add(scope)
            else:
                used.append(at)
        for at in used:
            token = self._tokens[at]
            if given.get(token.text, set()).isdisjoint(self._around_scope(self._scopes[at])):
                is_denied = self._is_given(at)
                why = "has no value outside 'not'" if is_denied else "is no rule and has no value"
                return token, f"{token.text[:80]!r} {why}"
        return None

    def _around_scope(self, scope: range | None) -> Iterator[range | None]:
        """A scope, and all that it is in."""
        while scope is not None:
            yield scope
            scope = self._outer[scope]
        yield None

    def _names(self) -> Iterator[int]:
        """The places of names that may be variables."""
        for at, token in enumerate(self._tokens):
            is_name = token.kind == "name" and not self._is(at - 1, ".")
            is_known = token.text in _ALWAYS or token.text in self._known
            if is_name and not is_known and not self._is_called(at):
                yield at

    def _is(self, at: int, *texts: str) -> bool:
        if not 0 <= at < len(self._tokens):
            return False
        token = self._tokens[at]
        return token.kind in ("name", "mark") and token.text in texts

    def _is_called(self, at: int) -> bool:
        while self._is(at + 1, "."):
            at += 2
        return self._is(at + 1, "(") and not self._tokens[at + 1].first

    def _declarations(self) -> Iterator[tuple[int, int]]:
        """The places between `some` or `every` and `in`, and where the name counts; -1: nowhere."""
        for at, token in enumerate(self._tokens):
            if not self._is(at, "some", "every") or self._is(at - 1, "."):
                continue
            places: list[int] = []
            for place in range(at + 1, len(self._tokens)):
                one = self._tokens[place]
                is_next = one.first and one.depth == token.depth and not self._is(place - 1, ",")
                if is_next or one.depth < token.depth or self._is(place, *_ENDS):
                    if self._is(place, "in"):
                        yield from ((name, self._bodies.get(at, name)) for name in places)
                    else:
                        yield from ((name, -1) for name in places)
                    break
                places.append(place)

    def _bodies_of_every(self) -> Iterator[tuple[int, int]]:
        """The places of each `every` and of the bracket of its body."""
        for at, token in enumerate(self._tokens):
            if self._is(at, "every") and not self._is(at - 1, "."):
                for place in range(at + 1, len(self._tokens)):
                    one = self._tokens[place]
                    if one.depth < token.depth or self._is(place, ";"):
                        break
                    if (
                        one.depth == token.depth
                        and self._is(place, "{")
                        and is_body(self._tokens, place)
                    ):
                        yield at, place
                        break

    def _lists(self) -> Iterator[int]:
        """The places of brackets of what is listed: there `|` is no union."""
        seen = set()
        for at in range(len(self._tokens)):
            around = self._around[at]
            if around in seen or not self._is(at, "|", ",", ";"):
                continue
            seen.add(around)
            if (
                self._is(at, "|")
                and self._is(around, "[", "{")
                and not is_body(self._tokens, around)
            ):
                yield around

    def _is_given(self, at: int) -> bool:
        """Whether a name is given its value here."""
        if at in self._declared or self._is_side(at, at):
            return True
        around = self._around[at]
        if around >= 0 and at < self._head:
            return True
        while around >= 0 and not self._is(around, "("):
            if self._is_side(around, self._close[around]) or self._is_index(around):
                return True
            around = self._around[around]
        return around >= 0 and self._last_comma.get(around, at) < at

    def _is_side(self, first: int, last: int) -> bool:
        """Whether something is what is assigned to, or a side of `=` in a body."""
        if self._is(last + 1, ":=", "="):
            return True
        is_in_body = self._tokens[first].depth > 0 or first > self._body
        return is_in_body and self._is(first - 1, "=") and not self._is(first - 2, "else")

    def _is_index(self, at: int) -> bool:
        """Whether a bracket holds an index."""
        if not self._is(at, "[") or at == 0:
            return False
        before, bracket = self._tokens[at - 1], self._tokens[at]
        is_value = before.text in ("]", ")", "}") if before.kind == "mark" else True
        is_keyword = before.text in KEYWORDS and not self._is(at - 2, ".")
        return is_value and not is_keyword and before.at + len(before.text) == bracket.at
