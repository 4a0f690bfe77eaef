# SPDX-License-Identifier: Apache-2.0
"""The mutants of a module: its source with one thing wrong in each.

What is changed, one at a time:

* a condition is True, or False; of `and` and `or` each part goes, and one becomes the other
* comparisons: `==` and `!=`, `in`, `is` are turned; `<` and `<=` differ in the boundary, and are
  turned where they are no condition by themselves
* `not` goes; `+` and `-`, `*` and `//`, `any` and `all`, `min` and `max` change places
* numbers are one more and one less, True is False, strings and bytes are others; of a regular
  expression the end `\\Z` goes, and a repetition takes one more or one less
* a statement goes: `raise`, a call, an assignment to an attribute or element, `continue`, `break`,
  `with` (its body stays), what stands below `finally`; `return` gives None
* an exception is not caught, a case never matches, a named argument is not given

What is not:

* prose. A string with a space in it is for people, and so is all that is put into it, added to
  it or joined by it, and the argument `hint`. What a caller can decide by is no prose: the class
  of an error, and its attributes, which are strings without a space, numbers and names.
* annotations, decorators, docstrings, imports, `__all__`, and `assert`, which says what cannot be
"""

import ast
import copy
import re
from collections import Counter
from dataclasses import dataclass

COMPARISONS = {
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
NAMES = {"any": "all", "all": "any", "min": "max", "max": "min"}
NO_FACTS = {"hint", "what"}  # named arguments that are for people
SHOWN = 90  # characters of a source text in a name


@dataclass(frozen=True)
class Mutant:
    """One thing wrong.

    Attributes:
        name: scope, what stood there and what stands there now; the same after changes elsewhere.
        function: qualified name and first line of the outermost function that is changed; None
            if something is changed that is executed when the module is imported.
        lines: a test that reaches none of them cannot notice it.
        path: to the changed node, field by field.
        node: in its place.
    """

    name: str
    function: tuple[str, int] | None
    lines: range
    path: tuple
    node: ast.AST

    def compile(self, source, filename):
        """The code of the whole module."""
        return compile(self.tree(source), filename, "exec", dont_inherit=True)

    def tree(self, source):
        """The whole module."""
        tree = ast.parse(source)
        at = tree
        for field, index in self.path[:-1]:
            at = getattr(at, field) if index is None else getattr(at, field)[index]
        field, index = self.path[-1]
        if index is None:
            setattr(at, field, self.node)
        else:
            getattr(at, field)[index] = self.node
        return ast.fix_missing_locations(tree)


def mutants_of(source):
    """All of them, in the order of the source."""
    maker = _Maker()
    maker.body(ast.parse(source), (), _Scope())
    return maker.found


@dataclass(frozen=True)
class _Scope:
    name: str = ""
    function: tuple[str, int] | None = None
    lines: range = range(0)
    statement: str = ""


def _is_prose(node):
    match node:
        case ast.Constant(value=str(text)):
            return " " in text
        case ast.JoinedStr():
            return any(_is_prose(one) for one in node.values)
        case ast.BinOp(op=ast.Add()):
            return _is_prose(node.left) or _is_prose(node.right)
        case ast.Call(func=ast.Attribute(value=text, attr="join")):
            return _is_prose(text)
    return False


def _is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_skipped(statement):
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Pass():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
    return _is_docstring(statement)


def _number(node):
    """The value of an expression of nothing but numbers, such as 4 * 1024; None for another."""
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int(value)):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=one) if (value := _number(one)) is not None:
            return -value
        case ast.BinOp(left=left, right=right, op=ast.Mult() | ast.LShift() | ast.Pow()):
            values = _number(left), _number(right)
            if None not in values:
                return eval(ast.unparse(node))  # noqa: S307  # numbers of our own source
    return None


def _without(values, index):
    return [*values[:index], *values[index + 1 :]]


def _with(node, **fields):
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _expressions(text):
    """A regular expression with its end open, or a repetition that takes one more or less."""
    if text.endswith("\\Z"):
        yield text.removesuffix("\\Z")
    for found in re.finditer(r"\{(\d+)(?:,(\d+))?\}|(?<=\])[*+]", text):
        if found[0] in "*+":
            bounds = ["+" if found[0] == "*" else "*"]
        elif found[2] is None:
            bounds = [f"{{{int(found[1]) + 1}}}", f"{{{max(int(found[1]) - 1, 0)}}}"]
        else:
            low, high = int(found[1]), int(found[2])
            bounds = [f"{{{low},{high + 1}}}", f"{{{low},{high - 1}}}", f"{{{low + 1},{high}}}"]
            bounds += [f"{{{low - 1},{high}}}"] if low else []
        for bound in bounds:
            yield text[: found.start()] + bound + text[found.end() :]


def _of_expression(node, *, is_condition):
    """What may stand in the place of an expression, its own parts left alone."""
    if (value := _number(node)) is not None:
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
        return
    if is_condition and not isinstance(node, ast.Constant):
        yield ast.Constant(value=True)
        yield ast.Constant(value=False)
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(value=not value)
        case ast.Constant(value=str(value)):
            yield ast.Constant("XX" + value)
            for text in _expressions(value):
                yield ast.Constant(text)
        case ast.Constant(value=bytes(value)):
            yield ast.Constant(b"XX" + value)
        case ast.JoinedStr(values=values):
            yield ast.JoinedStr([ast.Constant("XX"), *values])
            for index, one in enumerate(values):
                if isinstance(one, ast.Constant):
                    for text in _expressions(one.value):
                        changed = [*values[:index], ast.Constant(text), *values[index + 1 :]]
                        yield ast.JoinedStr(changed)
        case ast.BoolOp(op=op, values=values):
            yield _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
            for index in range(len(values)):
                rest = _without(values, index)
                yield rest[0] if len(rest) == 1 else _with(node, values=rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            if not is_condition:
                yield operand
        case ast.Compare(ops=ops):
            for index, op in enumerate(ops):
                others = COMPARISONS[type(op)]
                if is_condition and len(ops) == 1:
                    # Always and never are told apart already: what is left is the boundary.
                    others = others[:-1]
                for other in others:
                    yield _with(node, ops=[*ops[:index], other(), *ops[index + 1 :]])
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            yield _with(node, op=ARITHMETIC[type(op)]())
        case ast.Call(func=ast.Name(id=name)) if name in NAMES:
            yield _with(node, func=ast.Name(NAMES[name], ast.Load()))
    if isinstance(node, ast.Call):
        for index, keyword in enumerate(node.keywords):
            if keyword.arg is not None and keyword.arg not in NO_FACTS:
                yield _with(node, keywords=_without(node.keywords, index))


def _of_statement(node):
    """What may stand in the place of a statement, its own parts left alone."""
    match node:
        case ast.Raise() | ast.Continue() | ast.Break() | ast.AugAssign():
            yield ast.Pass()
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Delete(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Return(value=value) if value is not None and ast.unparse(value) != "None":
            yield ast.Return(ast.Constant(None))
        case ast.With(items=items, body=body) if not any(one.optional_vars for one in items):
            yield ast.If(ast.Constant(value=True), body, [])
        case ast.Try(finalbody=[_, *_]):
            yield _with(node, finalbody=[ast.Pass()])


class _Maker:
    def __init__(self):
        self.found = []
        self._names = Counter()

    def body(self, node, path, scope, field="body"):
        for index, statement in enumerate(getattr(node, field, [])):
            if not _is_skipped(statement):
                is_all = isinstance(node, ast.If) and len(node.body) == 1 and not node.orelse
                self.statement(statement, (*path, (field, index)), scope, is_all=is_all)

    def statement(self, node, path, scope, *, is_all=False):
        """Those of a statement; `is_all`: it goes already where its condition is never true."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.definition(node, path, scope)
            return
        head = ast.unparse(node).partition("\n")[0]
        below = getattr(node, "body", None) or getattr(node, "cases", None)
        first = getattr(below[0], "lineno", None) or below[0].pattern.lineno if below else None
        end = node.end_lineno if first is None else max(first - 1, node.lineno)
        scope = _Scope(scope.name, scope.function, range(node.lineno, end + 1), head)
        if not is_all:
            for other in _of_statement(node):
                self.add(node, other, path, scope)
        for field, value in ast.iter_fields(node):
            if field in {"body", "orelse", "finalbody"}:
                self.body(node, path, scope, field)
            elif field == "handlers":
                for index, handler in enumerate(value):
                    self.handler(handler, (*path, (field, index)), scope)
            elif field == "cases":
                for index, case in enumerate(value):
                    self.case(case, (*path, (field, index)), scope)
            elif field != "annotation":
                self.field(node, field, value, path, scope)

    def definition(self, node, path, scope):
        name = f"{scope.name}.{node.name}".lstrip(".")
        if isinstance(node, ast.ClassDef):
            self.body(node, path, _Scope(name, scope.function))
            return
        # Defaults are made where the function is.
        there = _Scope(name, scope.function, range(node.lineno, node.body[0].lineno), "defaults")
        for field in ("defaults", "kw_defaults"):
            values = getattr(node.args, field)
            self.field(node.args, field, values, (*path, ("args", None)), there)
        first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        self.body(node, path, _Scope(name, scope.function or (name, first)))

    def handler(self, node, path, scope):
        end = max(node.body[0].lineno - 1, node.lineno)
        scope = _Scope(scope.name, scope.function, range(node.lineno, end + 1), "except")
        if isinstance(node.type, ast.Tuple):
            for index in range(len(node.type.elts)):
                fewer = _with(node.type, elts=_without(node.type.elts, index))
                self.add(node.type, fewer, (*path, ("type", None)), scope)
        elif node.type is not None:
            self.add(node.type, ast.Tuple([], ast.Load()), (*path, ("type", None)), scope)
        self.body(node, path, scope)

    def case(self, node, path, scope):
        line = node.pattern.lineno
        scope = _Scope(scope.name, scope.function, range(line, line + 1), "case")
        never = ast.match_case(node.pattern, ast.Constant(value=False), node.body)
        self.add(node.pattern, never, path, scope, after="never")
        if node.guard is not None:
            self.expression(node.guard, (*path, ("guard", None)), scope, is_condition=True)
        self.body(node, path, scope)

    def field(self, node, field, value, path, scope):
        is_condition = field == "test" or (field == "ifs" and isinstance(node, ast.comprehension))
        for index, one in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(one, ast.AST):
                self.expression(one, (*path, (field, index)), scope, is_condition=is_condition)

    def expression(self, node, path, scope, *, is_condition=False):
        if isinstance(node, ast.expr_context | ast.operator | ast.arguments):
            return
        if _is_prose(node) or (isinstance(node, ast.keyword) and node.arg in NO_FACTS):
            return
        for other in _of_expression(node, is_condition=is_condition):
            if not (is_condition and scope.statement.startswith("while") and _is(other, True)):
                self.add(node, other, path, scope)
        if _number(node) is not None:
            return
        for field, value in ast.iter_fields(node):
            if isinstance(node, ast.Call) and _text(node.func) == "cast" and field == "args":
                self.expression(value[1], (*path, (field, 1)), scope)  # the first is a type
                continue
            if not (isinstance(node, ast.JoinedStr) and field == "values"):
                self.field(node, field, value, path, scope)
                continue
            for index, one in enumerate(value):
                if isinstance(one, ast.FormattedValue):
                    inner = (*path, (field, index), ("value", None))
                    self.expression(one.value, inner, scope)

    def add(self, node, other, path, scope, *, after=None):
        before = _text(node)
        if isinstance(node, ast.Call) and isinstance(other, ast.Call):
            gone = {one.arg for one in node.keywords} - {one.arg for one in other.keywords}
            after = f"without {gone.pop()}" if gone else None
        name = f"{scope.name or 'module'}: {before} -> {after or _text(other)}"
        if len(before) < 30 and before != scope.statement:
            name += f" in {_shown(scope.statement)}"
        self._names[name] += 1
        if self._names[name] > 1:
            name += f" ({self._names[name]})"
        self.found.append(Mutant(name, scope.function, scope.lines, path, other))


def _is(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def _text(node):
    if isinstance(node, ast.With | ast.If | ast.Try):
        return _shown(ast.unparse(ast.fix_missing_locations(node)).partition("\n")[0])
    return _shown(ast.unparse(node))


def _shown(text):
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}..{text[-SHOWN // 2 :]}"
