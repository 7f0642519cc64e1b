"""The random mutants: every single small edit that a module admits, made by a machine from its syntax tree.

Comparisons, ``and`` and ``or``, signs, small numbers, and conditions. Assertions, annotations, and the inside
of f-strings stay as they are.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

#: Larger numbers are limits; a test of each to the last digit would only repeat it.
LARGEST_NUMBER: Final = 100

_COMPARISONS: Final[dict[type[ast.cmpop], tuple[str, ...]]] = {
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
}
_OPERATORS: Final[dict[type[ast.operator], tuple[str, str]]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
#: A condition that begins or ends with one of these is negated by another edit already.
_NEGATED_OTHERWISE: Final = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)


@dataclass(frozen=True, order=True)
class Edit:
    """One edit: ``text[start:end]`` of the file becomes ``new``. Positions count characters of the file."""

    file: str
    start: int
    end: int
    new: str

    def applied(self, text: str) -> str:
        """Return the file's text with the edit."""
        return text[: self.start] + self.new + text[self.end :]

    def number(self, text: str) -> int:
        """Return the number of the edited line, from 1."""
        return text.count("\n", 0, self.start) + 1

    def lines(self, text: str) -> tuple[str, str]:
        """Return the edited line and what it becomes, stripped: by these two an equivalent is known."""
        row = self.number(text) - 1
        return text.splitlines()[row].strip(), self.applied(text).splitlines()[row].strip()


def edits_of(file: str, text: str, *, with_async: bool = True) -> list[Edit]:
    """Return every edit of a module, in the file's order. ``with_async``: also of its ``async`` functions."""
    found = {Edit(file, start, end, new) for start, end, new in _Finder(text).edits(with_async=with_async)}
    return sorted(edit for edit in found if _compiles(edit.applied(text)))


def _compiles(text: str) -> bool:
    try:
        compile(text, "edit", "exec")
    except SyntaxError:
        return False
    return True


_Change = tuple[int, int, str]


class _Finder:
    """The edits of one text."""

    def __init__(self, text: str) -> None:
        self._tree = ast.parse(text)
        self._line_starts = [0]
        for line in text.splitlines(keepends=True):
            self._line_starts.append(self._line_starts[-1] + len(line))
        self._lines = text.splitlines(keepends=True)
        self._text = text
        self._tokens = [
            (self._line_starts[token.start[0] - 1] + token.start[1], token.string)
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type in (tokenize.OP, tokenize.NAME, tokenize.NUMBER)
        ]

    def edits(self, *, with_async: bool) -> Iterator[_Change]:
        for node in _editable(self._tree, with_async=with_async):
            match node:
                case ast.Compare():
                    yield from self._comparisons(node)
                case ast.BoolOp():
                    yield from self._junctions(node)
                case ast.BinOp() if type(node.op) in _OPERATORS:
                    yield from self._operator(node.op, self._end(node.left), self._start(node.right))
                case ast.AugAssign() if type(node.op) in _OPERATORS:
                    yield from self._operator(node.op, self._end(node.target), self._start(node.value), "=")
                case ast.UnaryOp(op=ast.Not() | ast.USub()):
                    yield self._start(node), self._start(node.operand, outside=True), ""
                case ast.Constant(value=int() | float()):
                    yield from self._numbers(node)
                case ast.If() | ast.IfExp():
                    yield from self._negated(node.test)
                case ast.comprehension():
                    for test in node.ifs:
                        yield from self._negated(test)

    def _comparisons(self, node: ast.Compare) -> Iterator[_Change]:
        left: ast.expr = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            start, end = self._between(self._end(left), self._start(right))
            for new in _COMPARISONS[type(op)]:
                yield start, end, new
            left = right

    def _junctions(self, node: ast.BoolOp) -> Iterator[_Change]:
        new = "or" if isinstance(node.op, ast.And) else "and"
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield *self._between(self._end(left), self._start(right)), new

    def _operator(self, op: ast.operator, after: int, before: int, suffix: str = "") -> Iterator[_Change]:
        old, new = _OPERATORS[type(op)]
        start, end = self._between(after, before)
        if self._text[start:end] == old + suffix:  # not what joins two strings over lines
            yield start, end, new + suffix

    def _numbers(self, node: ast.Constant) -> Iterator[_Change]:
        value = node.value
        start, end = self._start(node), self._end(node)
        if isinstance(value, bool):
            yield start, end, str(not value)
        elif isinstance(value, int | float) and abs(value) <= LARGEST_NUMBER:
            yield start, end, repr(value + 1)
            if value:
                yield start, end, repr(value - 1)

    def _negated(self, test: ast.expr) -> Iterator[_Change]:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], _NEGATED_OTHERWISE):
            return
        start, end = self._start(test), self._end(test)
        yield start, end, f"not ({self._text[start:end]})"

    def _between(self, after: int, before: int) -> tuple[int, int]:
        """Return where the operator between two operands stands: their brackets, if any, are around it."""
        words = [(at, word) for at, word in self._tokens if after <= at < before and word not in "()"]
        return words[0][0], words[-1][0] + len(words[-1][1])

    def _start(self, node: ast.expr, *, outside: bool = False) -> int:
        at = self._offset(node.lineno, node.col_offset)
        while outside and self._text[at - 1] == "(":  # the operand's own brackets stay
            at -= 1
        return at

    def _end(self, node: ast.expr) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._offset(node.end_lineno, node.end_col_offset)

    def _offset(self, line: int, column: int) -> int:
        """Return the position in characters: the tree counts bytes of UTF-8 in a line."""
        return self._line_starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())


def _editable(node: ast.AST, *, with_async: bool) -> Iterator[ast.AST]:
    """Yield the nodes in which an edit changes what the program does."""
    match node:
        case ast.Assert() | ast.JoinedStr() | ast.arg():
            return
        case ast.AsyncFunctionDef() if not with_async:
            return
        case ast.AnnAssign():
            children: list[ast.AST | None] = [node.value]
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            children = [node.args, *node.body]
        case ast.ClassDef():  # `frozen=True` and `slots=True` forbid; no behaviour depends on them
            children = [*node.body]
        case ast.Call(func=ast.Name(id="isinstance")):
            children = [node.args[0]]  # a union of types follows
        case ast.Assign(value=ast.Subscript(value=ast.Name(id="Literal" | "tuple" | "dict" | "list"))):
            return  # a type
        case ast.Assign(value=ast.BinOp(op=ast.BitOr(), left=ast.Name(), right=ast.Name() | ast.Constant(value=None))):
            return  # a union of types
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case _:
            children = list(ast.iter_child_nodes(node))
    yield node
    for child in children:
        if child is not None:
            yield from _editable(child, with_async=with_async)
