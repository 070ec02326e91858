"""The small faults that one source file can have: each replaces a piece of its text.

A mutant changes a comparison, a constant, an operator or a condition, removes a call, an `await`, a lock or what an
`except` catches, or exchanges two statements. Strings, annotations and decorators stay: messages are no behaviour.
So do options by which a call only checks its arguments, or takes one more that no caller passes.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

_COMPARISONS: Final = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_OPERATORS: Final = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
    ast.Mod: ("%", "*"),
}
_LOCK: Final = re.compile(r"lock|mutex|condition|sooner|more\b", re.IGNORECASE)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_OPTIONS: Final = frozenset({("zip", "strict"), ("field", "init")})
_SIMPLE: Final = (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)  # statements that may be exchanged


class Mutant(NamedTuple):
    """One fault.

    `path` is relative to the project. `first` and `last` are the lines of the text that changes, from 1.
    """

    path: str
    kind: str
    first: int
    last: int
    source: str
    mutated: str
    statement: tuple[int, int]
    """The first and last line of the statement around it, or of the head of an `if`, `with`, `for`..."""
    in_function: bool
    """Whether it runs when a function is called; False for code that runs at import."""

    @property
    def change(self) -> tuple[str, str]:
        """Return the changed lines before and after, without indentation: what identifies the mutant in lists."""
        before, after = self.source.splitlines(), self.mutated.splitlines()
        pairs = [
            (before[old_first:old_last], after[new_first:new_last])
            for tag, old_first, old_last, new_first, new_last in difflib.SequenceMatcher(
                None, before[self.first - 1 : self.last], after[self.first - 1 : self.last], autojunk=False
            ).get_opcodes()
            if tag != "equal"
            for old_first, old_last, new_first, new_last in [
                (each + self.first - 1 for each in (old_first, old_last, new_first, new_last))
            ]
        ]
        old = [line.strip() for lines, _ in pairs for line in lines]
        new = [line.strip() for _, lines in pairs for line in lines]
        return " / ".join(old), " / ".join(new)

    @property
    def is_valid(self) -> bool:
        """Whether its text is valid Python."""
        try:
            compile(self.mutated, self.path, "exec", dont_inherit=True)
        except SyntaxError:
            return False
        return True

    @property
    def diff(self) -> str:
        """Return the fault as a diff."""
        before, after = self.source.splitlines(keepends=True), self.mutated.splitlines(keepends=True)
        return "".join(difflib.unified_diff(before, after, f"a/{self.path}", f"b/{self.path}", n=2))


class _Edit(NamedTuple):
    """A replacement of a piece of the source, given in bytes."""

    kind: str
    start: int
    end: int
    new: bytes


class _Text:
    """A source whose nodes can be found as bytes: `ast` counts columns in bytes of UTF-8."""

    def __init__(self, source: str) -> None:
        self.bytes = source.encode()
        self._starts = [0]
        for line in self.bytes.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def start(self, node: ast.expr | ast.stmt) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def of(self, node: ast.expr | ast.stmt) -> bytes:
        return self.bytes[self.start(node) : self.end(node)]

    def line(self, position: int) -> int:
        return self.bytes.count(b"\n", 0, position) + 1


def mutants_of(path: str, source: str) -> list[Mutant]:
    """Return every mutant of a source, in the order of its text. Each is valid Python."""
    return [mutant for mutant in unchecked_mutants(path, source) if mutant.is_valid]


def unchecked_mutants(path: str, source: str) -> list[Mutant]:
    """As `mutants_of`; a few are not valid Python, which costs more to find out than all the rest."""
    text, tree = _Text(source), ast.parse(source)
    found: list[Mutant] = []
    for node, statement, in_function in _nodes(tree, (1, 1), False):
        for edit in _edits(node, text):
            mutated = (text.bytes[: edit.start] + edit.new + text.bytes[edit.end :]).decode()
            first, last = text.line(edit.start), text.line(edit.end)
            # Exchanged statements are found at the statement around them, which may be the head of their function.
            is_inside = isinstance(node, _FUNCTIONS) and edit.start >= text.start(node.body[0])
            around = (first, last) if is_inside else statement
            found.append(Mutant(path, edit.kind, first, last, source, mutated, around, in_function or is_inside))
    return sorted(found, key=lambda mutant: (mutant.first, mutant.last, mutant.kind, mutant.mutated))


def _nodes(
    node: ast.AST, statement: tuple[int, int], in_function: bool
) -> Iterator[tuple[ast.AST, tuple[int, int], bool]]:
    """Yield the nodes that may change, each with the lines of the statement around it."""
    if isinstance(node, ast.stmt):
        body = getattr(node, "body", None)
        statement = node.lineno, max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
    yield node, statement, in_function
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases", "keywords") and not isinstance(
            node, ast.Call
        ):
            continue
        is_body = name == "body" and isinstance(node, _FUNCTIONS)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _stays(child) and not _is_option(node, child):
                yield from _nodes(child, statement, in_function or is_body)


def _stays(node: ast.AST) -> bool:
    """Return whether nothing in a node may change: texts, and what only type checkers read."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    if isinstance(node, ast.ClassDef):
        return any("Protocol" in ast.unparse(base) for base in node.bases)
    return isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom)


def _is_option(call: ast.AST, argument: ast.AST) -> bool:
    if not isinstance(call, ast.Call) or not isinstance(argument, ast.keyword):
        return False
    return (ast.unparse(call.func).rpartition(".")[2], argument.arg) in _OPTIONS


def _edits(node: ast.AST, text: _Text) -> Iterator[_Edit]:
    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for before, operator, after in zip([left, *comparators], ops, comparators, strict=False):
                yield from _between("comparison", text, before, after, *_COMPARISONS[type(operator)])
        case ast.BoolOp(op=operator, values=values):
            names = ("and", "or") if isinstance(operator, ast.And) else ("or", "and")
            for before, after in pairwise(values):
                yield from _between("operator", text, before, after, *names)
        case ast.BinOp(left=before, op=operator, right=after) if type(operator) in _OPERATORS:
            yield from _between("operator", text, before, after, *_OPERATORS[type(operator)])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield _Edit("operator", text.start(node), text.end(node), b"(" + text.of(operand) + b")")
        case ast.Constant(value=bool(value)):
            yield _Edit("constant", text.start(node), text.end(node), str(not value).encode())
        case ast.Constant(value=int(value)):
            yield _Edit("constant", text.start(node), text.end(node), str(value + 1).encode())
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield _Edit("branch", text.start(test), text.end(test), b"(not (" + text.of(test) + b"))")
        case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())):
            yield _Edit("call", text.start(node), text.end(node), b"pass")
        case ast.Await(value=value):
            yield _Edit("await", text.start(node), text.end(node), b"(" + text.of(value) + b")")
        case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
            if any(item.optional_vars is None and _LOCK.search(ast.unparse(item.context_expr)) for item in items):
                colon = text.bytes.rindex(b":", text.start(node), text.start(body[0]))
                yield _Edit("lock", text.start(node), colon, b"if True")
        case ast.ExceptHandler(type=ast.expr() as caught):
            yield _Edit("except", text.start(caught), text.end(caught), b"()")
        case _:
            pass
    is_making = isinstance(node, ast.FunctionDef) and node.name == "__init__"  # no other thread sees the object yet
    for name in ("body", "orelse", "finalbody"):
        statements = getattr(node, name, None)
        if isinstance(statements, list) and not isinstance(node, ast.Module | ast.ClassDef):
            for first, second in pairwise(statements):
                if _order_matters(first, second, is_making=is_making):
                    yield from _exchanged(text, first, second)


def _between(kind: str, text: _Text, before: ast.expr, after: ast.expr, old: str, new: str) -> Iterator[_Edit]:
    """Replace the operator between two operands, around which parentheses and comments may stand."""
    start, end = text.end(before), text.start(after)
    pattern = rb"\s+".join(re.escape(word.encode()) for word in old.split())
    if found := re.search(pattern, text.bytes[start:end]):
        yield _Edit(kind, start + found.start(), start + found.end(), new.encode())


def _order_matters(first: ast.stmt, second: ast.stmt, *, is_making: bool) -> bool:
    """Return whether one statement reads what the other one sets, or others may see both."""
    if _written(first) & _read(second) or _written(second) & _read(first):
        return True
    return not is_making and _is_seen(first) and _is_seen(second)


def _written(statement: ast.stmt) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(statement) if isinstance(getattr(node, "ctx", None), ast.Store)}


def _read(statement: ast.stmt) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(statement) if isinstance(getattr(node, "ctx", None), ast.Load)}


def _is_seen(statement: ast.stmt) -> bool:
    """Return whether a statement calls something, or sets an attribute or an item."""
    stores = (node for node in ast.walk(statement) if isinstance(getattr(node, "ctx", None), ast.Store | ast.Del))
    return isinstance(statement, ast.Expr) or any(isinstance(node, ast.Attribute | ast.Subscript) for node in stores)


def _exchanged(text: _Text, first: ast.stmt, second: ast.stmt) -> Iterator[_Edit]:
    """Exchange two statements that stand below each other."""
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    if is_docstring or not isinstance(first, _SIMPLE) or not isinstance(second, _SIMPLE):
        return
    start, end = text.start(first), text.end(second)
    between = text.bytes[text.end(first) : text.start(second)]
    if between.strip() == b"":  # no comment and no semicolon
        yield _Edit("order", start, end, text.of(second) + between + text.of(first))
