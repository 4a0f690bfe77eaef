# SPDX-License-Identifier: Apache-2.0
r"""A policy in Rego before any engine sees it.

    policy = scan_policy(text)
    policy.rules, policy.calls, policy.source

Engines crash on text that was made for it, and take much without a word that they do not do. So a
text is refused here, with the line of its fault, unless

1. it is at most 256 KiB of printable text, whose brackets are closed and at most 64 deep;
2. it is `package policy` and has a rule `allow`, or a rule `trust_claims`;
3. it imports `rego.v1` and parts of `input`, and reaches through `data` for nothing but its own
   rules and `plugin`, `resource-path` and `query` of the request;
4. it does without `with`, for which the engine ends, and without functions that look at the
   machine, at a clock or at dice: the same facts get the same answer;
5. strings are written as the engine compares them, which takes `\u0041` and `A` for two;
6. no `not` stands inside `every`, and what is listed (`[x | ...]`) inside `not` or `every` holds no
   `not`, `every` or list of its own: the engine mistakes the variables there, and says yes;
7. each name is that of a rule, or given a value (`names`), and what is named of `input.imagers` is
   something that can be there.

That each function that is called is known (`calls`) is for the engine to say.

`data.plugin` is handed to the engine as `input.imagers.request.plugin`: what is in `data` is built
into a policy once, and a request is another each time. `data.reference`, of an older Trustee, may
stand in a text and is undefined. `paths` are the parts of the input that a text names: no other can
change its answer, and the rest is not sent.

No IO and no clock here.

Spec: Rego, the language of Open Policy Agent 1.0; Trustee, resource policy.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from imagers.broker.policy.inputs import NAMES
from imagers.broker.policy.rego.names import find_unknown
from imagers.broker.policy.rego.tokens import CLOSES, GOES_ON, KEYWORDS, OPENS, Token, is_body
from imagers.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from imagers.model.strict_json import JSON, JSONObject

__all__ = ["MAX_REGO_BYTES", "REFERENCE", "ScannedPolicy", "is_rego", "scan_policy"]

MAX_REGO_BYTES = 256 * 1024
REFERENCE = "query_reference_value"
"""The function that gives reference values; it is ours."""
_WHAT = "policy"
_MAX_DEPTH = 64
_PACKAGE = "policy"
_OURS = "imagers"
_REQUEST = (_OURS, "request")
_OF_REQUEST = frozenset({"plugin", "resource-path", "query", "reference"})
_FORBIDDEN = {
    "http.send": "a policy asks nobody",
    "net.lookup_ip_addr": "a policy asks nobody",
    "opa.runtime": "a policy does not look at the machine that it runs on",
    "print": "nobody would read it; give a rule 'reason'",
    "rand.intn": "the same facts get the same answer",
    "time.now_ns": "the same facts get the same answer; the time of the request is "
    "input.imagers.now_ns",
    "trace": "nobody would read it; give a rule 'reason'",
    "uuid.rfc4122": "the same facts get the same answer",
}
_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+|\r?\n)
    |(?P<comment>\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<raw>`[^`]*`)
    |(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>:=|==|!=|<=|>=|[][(){}.,;:=|&+*/%<>-])""",
    re.VERBOSE,
)
_CALL_INSTEAD = "call a rule or a function that has it"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
_REGO = re.compile(r"(?:[ \t\r\n]|#[^\n]*\n)*package\b")


@dataclass(frozen=True, slots=True)
class ScannedPolicy:
    """A text that may be shown to an engine.

    Attributes:
        source: what the engine is given; its lines are those of the text.
        rules: names of rules and functions.
        calls: what is called and is no rule of the text, with the line.
        strings: all that stand in it: reference values that it names are among them.
        paths: parts of the input that it names; an empty one is all of it.
    """

    source: str
    rules: frozenset[str]
    calls: Mapping[str, int]
    strings: frozenset[str]
    paths: tuple[tuple[str, ...], ...]

    def seen_of(self, value: JSONObject) -> JSONObject:
        """The parts of an input that the text names."""
        seen: JSONObject = {}
        for path in self.paths:
            if not path:
                return value
            _copy(value, seen, path)
        return seen

    def absent_of(self, value: JSONObject) -> tuple[tuple[str, ...], ...]:
        """The paths that end before what the text names, of parts of an input that are there."""
        return tuple(
            path for path in self.paths if path[:1] and path[0] in value and not _leads(value, path)
        )


def _leads(value: JSON, path: Sequence[str]) -> bool:
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True


def _copy(value: JSONObject, seen: JSONObject, path: Sequence[str]) -> None:
    """Put what is at a path, of at least one name, into `seen`; as far as the path leads."""
    for name in path[:-1]:
        below = value.get(name)
        if not isinstance(below, dict):
            break
        inner = seen.setdefault(name, {})
        assert isinstance(inner, dict)  # made here: no path begins another
        value, seen = below, inner
    else:
        name = path[-1]
    if name in value:
        seen[name] = value[name]


def is_rego(text: str) -> bool:
    """Whether a text begins as one in Rego does, rather than as a table."""
    return _REGO.match(text) is not None


def scan_policy(text: str, *, what: str = _WHAT) -> ScannedPolicy:
    """The policy that a text is.

    Raises:
        FormatError: it may not be shown to an engine; `where` has the line.
    """
    return _Scan(text, what).result()


class _Scan:
    """One text on its way through."""

    def __init__(self, text: str, what: str) -> None:
        self._text = text
        self._what = what
        self._check_size()
        self._check_printable()
        self._tokens = tuple(self._read())
        self._paths: dict[tuple[str, ...], None] = {}
        self._edits: list[int] = []  # where `data` stands for the request
        self._own: dict[str, int] = {}  # rules that are named through `data`, with the line

    def result(self) -> ScannedPolicy:
        self._check_package()
        rules: set[str] = set()
        called: dict[str, int] = {}
        for index, token in enumerate(self._tokens):
            if token.kind != "name" or self._is(index - 1, "."):
                continue
            if token.text == "with":
                raise self._fault(token, "'with' is not supported")
            if token.text in ("not", "every"):
                self._check_scopes(index)
            if token.text == "import":
                self._check_import(index)
            elif token.text == "input":
                self._note_path(index)
            elif token.text == "data":
                self._read_data(index)
            elif token.text not in KEYWORDS:
                if self._is_head(index):
                    rules.add(token.text)
                if (name := self._called(index)) is not None:
                    called.setdefault(name, token.line)
        if REFERENCE in rules:
            raise self._error(f"has a rule {REFERENCE!r}, which is ours")
        if not rules & {"allow", "trust_claims"}:
            raise self._error("expected a rule 'allow', or 'trust_claims' to appraise evidence")
        for name, line in self._own.items():
            if name not in rules:
                raise self._error(f"has no rule {name[:80]!r}", line=line)
        self._check_names(rules)
        calls = {name: line for name, line in called.items() if name not in rules}
        self._check_calls(calls)
        calls.pop(REFERENCE, None)
        return ScannedPolicy(
            source=self._source(),
            rules=frozenset(rules),
            calls=calls,
            strings=frozenset(self._strings()),
            paths=tuple(path for path in self._paths if not self._is_within_another(path)),
        )

    def _is_within_another(self, path: tuple[str, ...]) -> bool:
        return any(path[:count] in self._paths for count in range(len(path)))

    def _error(self, message: str, *, line: int = 0) -> FormatError:
        return FormatError(message, what=self._what, where=f"line {line}" if line else "")

    def _fault(self, token: Token, message: str) -> FormatError:
        return self._error(message, line=token.line)

    def _is(self, index: int, *texts: str) -> bool:
        """Whether the token there is one of these marks or keywords."""
        return 0 <= index < len(self._tokens) and self._tokens[index].text in texts

    def _name(self, index: int) -> str | None:
        """The name or string at a place."""
        if not 0 <= index < len(self._tokens):
            return None
        token = self._tokens[index]
        return token.content() if token.kind in ("name", "string", "raw") else None

    # Rule 1

    def _check_size(self) -> None:
        try:
            size = len(self._text.encode())
        except UnicodeEncodeError:
            raise self._error("is not text") from None
        if size > MAX_REGO_BYTES:
            raise self._error(f"expected at most {MAX_REGO_BYTES} bytes, got {size}")

    def _read(self) -> Iterator[Token]:
        at, line, first = 0, 1, True
        open_: list[Token] = []
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise self._error(f"expected no {self._text[at]!r}", line=line)
            kind, text = match.lastgroup or "", match[0]
            if kind not in ("blank", "comment"):
                depth = len(open_) - (text in CLOSES)
                token = Token(kind, text, at, line, first, depth)
                if text in OPENS:
                    open_.append(token)
                    if len(open_) > _MAX_DEPTH:
                        raise self._fault(token, f"expected brackets at most {_MAX_DEPTH} deep")
                elif text in CLOSES and (not open_ or OPENS[open_.pop().text] != text):
                    raise self._fault(token, f"'{text}' closes nothing")
                elif kind in ("string", "raw"):
                    self._check_string(token)
                yield token
                first = False
            newlines = text.count("\n")
            line += newlines
            first = first or newlines > 0
            at = match.end()
        if open_:
            raise self._fault(open_[-1], f"'{open_[-1].text}' is not closed")

    def _check_printable(self) -> None:
        """An engine may end a comment, or the text, at a control character that we do not."""
        if match := _CONTROL.search(self._text):
            line = self._text.count("\n", 0, match.start()) + 1
            raise self._error(f"expected no control character, got {match[0]!r}", line=line)

    def _check_string(self, token: Token) -> None:
        """Rule 5."""
        if "\t" in token.text:
            raise self._fault(token, "expected a tabulator in a string as \\t")
        if token.kind == "raw" or "\\" not in token.text:
            return
        try:
            value: JSON = json.loads(token.text)
        except ValueError:
            raise self._fault(token, f"{token.text[:40]} has an unknown escape") from None
        plain = json.dumps(value, ensure_ascii=False)
        if plain != token.text:
            raise self._fault(token, f"expected the string as {plain[:40]}, got {token.text[:40]}")

    def _strings(self) -> Iterator[str]:
        for token in self._tokens:
            if token.kind in ("string", "raw"):
                yield token.content()

    def _check_scopes(self, index: int) -> None:
        """Rule 6, from a `not` or an `every` to its end."""
        start = self._tokens[index]
        inside = self._tokens[index + 1 : self._end_of(index)]
        for at, token in enumerate(inside):
            if token.depth == start.depth and _is_word(inside, at, "not", "every"):
                raise self._fault(token, f"expected no '{token.text}' after '{start.text}'")
            if start.text == "every" and _is_word(inside, at, "not"):
                raise self._fault(token, f"expected no 'not' inside 'every'; {_CALL_INSTEAD}")
            if token.text != "|" or token.depth <= start.depth:
                continue
            for other in _around(inside, at):
                word = inside[other].text
                if other != at and (word == "|" or _is_word(inside, other, "not", "every")):
                    raise self._fault(
                        inside[other],
                        f"expected no '{word}' in what is listed inside '{start.text}'; "
                        f"{_CALL_INSTEAD}",
                    )

    def _end_of(self, index: int) -> int:
        """The place behind the statement of a `not` or an `every`."""
        start, is_in_body = self._tokens[index], False
        for at in range(index + 1, len(self._tokens)):
            token = self._tokens[at]
            if token.depth < start.depth:
                return at
            if token.depth > start.depth:
                continue
            is_next = token.first and not self._goes_on(at)
            if start.text == "not" and (is_next or token.text == ";"):
                return at
            is_in_body = is_in_body or is_body(self._tokens, at)
            # Unless it was a set that is gone through.
            if start.text == "every" and token.text == "}" and is_in_body:
                return at
        return len(self._tokens)

    # Rules 2 and 3

    def _check_package(self) -> None:
        if not self._is(0, "package"):
            raise self._error("expected 'package policy' at its beginning")
        line = self._tokens[0].line
        if self._name(1) != _PACKAGE or (len(self._tokens) > 2 and not self._tokens[2].first):
            raise self._error("expected the package 'policy'", line=line)
        for index, token in enumerate(self._tokens):
            if index and _is_word(self._tokens, index, "package"):
                raise self._fault(token, "expected one package")

    def _check_import(self, index: int) -> None:
        root, token = self._name(index + 1), self._tokens[index]
        path = self._names_after(index + 1)
        if root == "rego" and path == ("v1",):
            return
        if root == "future" and path[:1] == ("keywords",):
            return
        if root != "input":
            raise self._fault(token, "expected an import of 'rego.v1' or of a part of 'input'")

    def _read_data(self, index: int) -> None:
        path, token = self._names_after(index), self._tokens[index]
        if path[:1] == (_PACKAGE,) and len(path) > 1:
            self._own.setdefault(path[1], token.line)
            return
        if not path or path[0] not in _OF_REQUEST:
            named = f"data.{path[0]}" if path else "data"
            raise self._fault(
                token,
                f'expected data.plugin, data["resource-path"], data.query or a rule as '
                f"data.policy.NAME, got {named[:80]}",
            )
        self._edits.append(token.at)
        self._paths[*_REQUEST, *path] = None

    def _note_path(self, index: int) -> None:
        path = self._names_after(index)
        self._check_ours(path, self._tokens[index])
        self._paths[path] = None

    def _names_after(self, index: int) -> tuple[str, ...]:
        """The names that follow the root of a reference, as far as they are written out."""
        names = []
        while True:
            if self._follow(index, 2) and self._is(index + 1, "."):
                index += 2
                if self._tokens[index].kind != "name":
                    break
            elif self._follow(index, 3) and self._is(index + 1, "[") and self._is(index + 3, "]"):
                index += 2
                if self._tokens[index].kind not in ("string", "raw"):
                    break
            else:
                break
            names.append(self._tokens[index].content())
            if len(names) > _MAX_DEPTH:
                raise self._fault(
                    self._tokens[index], f"expected paths of at most {_MAX_DEPTH} names"
                )
            index += self._is(index + 1, "]")
        return tuple(names)

    def _follow(self, index: int, count: int) -> bool:
        """Whether so many tokens follow, with nothing between them."""
        tokens = self._tokens[index : index + count + 1]
        return len(tokens) > count and all(
            one.at + len(one.text) == other.at for one, other in pairwise(tokens)
        )

    def _is_kind(self, index: int, *kinds: str) -> bool:
        return index < len(self._tokens) and self._tokens[index].kind in kinds

    # Rule 4, and who is called

    def _is_head(self, index: int) -> bool:
        """Whether a rule begins here: first of its line, or after `default`, in no bracket."""
        token = self._tokens[index]
        if token.depth or index == 1:
            return False
        if self._is(index - 1, "default"):
            return True
        return (token.first or self._is(index - 1, ";")) and not self._goes_on(index)

    def _goes_on(self, index: int) -> bool:
        """Whether the statement before a token at the beginning of a line has not ended."""
        before, token = self._tokens[index - 1], self._tokens[index]
        wants = before.kind == "mark" and before.text not in (")", "]", "}", ";")
        joins = token.kind == "mark" and token.text not in ("(", "[", "{", "}", ")", "]", ";")
        is_member = self._is(index - 2, ".")  # as in `import future.keywords.in`
        return wants or joins or (before.text in GOES_ON and not is_member)

    def _called(self, index: int) -> str | None:
        """The name of the function that is called here."""
        parts = [self._tokens[index].text]
        while self._is(index + 1, ".") and self._is_kind(index + 2, "name"):
            index += 2
            parts.append(self._tokens[index].text)
        is_call = self._is(index + 1, "(") and not self._tokens[index + 1].first
        return ".".join(parts) if is_call else None

    def _check_calls(self, calls: Mapping[str, int]) -> None:
        for name, line in calls.items():
            if name in _FORBIDDEN:
                raise self._error(f"calls {name}: {_FORBIDDEN[name]}", line=line)

    # Rule 7

    def _check_names(self, rules: Iterable[str]) -> None:
        tokens = self._tokens
        starts = [
            at
            for at, token in enumerate(tokens)
            if at > 1 and token.kind == "name" and token.text != "else"
            if token.first and not token.depth and not self._goes_on(at)
        ]
        spans = list(pairwise((*starts, len(tokens))))
        imports = {start for start, _ in spans if tokens[start].text == "import"}
        known = {*rules, *(name for at in imports for name in self._imported(at))}
        denied = [at for at in range(len(tokens)) if _is_word(tokens, at, "not")]
        for start, end in spans:
            if start in imports:
                continue
            here = denied[bisect_left(denied, start) : bisect_left(denied, end)]
            scopes = [range(at - start, self._end_of(at) - start) for at in here]
            unknown = find_unknown(tokens[start:end], known, scopes)
            if unknown is not None:
                raise self._fault(*unknown)

    def _imported(self, index: int) -> Sequence[str]:
        """The name that an import gives to a part of `input`."""
        if not self._is(index + 1, "input"):
            return ()  # a language and its keywords
        path = self._names_after(index + 1)
        behind = index + 2
        while behind < len(self._tokens) and not self._tokens[behind].first:
            if self._is(behind, "as") and not self._is(behind - 1, "."):
                return (self._name(behind + 1) or "",)
            behind += 1
        return path[-1:]

    def _check_ours(self, path: Sequence[str], token: Token) -> None:
        if path[:1] == (_OURS,) and len(path) > 1 and path[1] not in NAMES:
            names = ", ".join(sorted(NAMES))
            raise self._fault(token, f"input.imagers has no {path[1][:80]!r}; it has {names}")

    def _source(self) -> str:
        parts, end = [], 0
        for at in self._edits:
            parts += [self._text[end:at], ".".join(("input", *_REQUEST))]
            end = at + len("data")
        return "".join((*parts, self._text[end:]))


def _is_word(tokens: Sequence[Token], at: int, *words: str) -> bool:
    """Whether a keyword stands there, and no member of that name."""
    is_member = at > 0 and tokens[at - 1].text == "."
    return tokens[at].kind == "name" and tokens[at].text in words and not is_member


def _around(tokens: Sequence[Token], at: int) -> range:
    """The places that are in the innermost bracket that a token is in."""
    depth = tokens[at].depth
    first, last = at, at
    while first > 0 and tokens[first - 1].depth >= depth:
        first -= 1
    while last + 1 < len(tokens) and tokens[last + 1].depth >= depth:
        last += 1
    return range(first, last + 1)
