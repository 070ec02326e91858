"""Find assertions that cannot fail, or hardly: `python -m tests.project.assertions` lists them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

TESTS: Final = Path(__file__).parents[1]
_CHECKS: Final = frozenset({"raises", "warns", "fail", "wait_for", "until"})
"""Names of calls that fail a test too."""
_NEVER_NEGATIVE: Final = ("len(", "latency", "elapsed", "duration", "count", "_ms", "seconds", ".took")


class Weak(NamedTuple):
    """One assertion that hardly fails."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(TESTS.parent)}:{self.line}: {self.reason}"


def weak_assertions(path: Path) -> Iterator[Weak]:
    """Yield the assertions of one file of tests that hardly fail, and its real sleeps."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    helpers = {each.name for each in functions if any(isinstance(node, ast.Assert) for node in ast.walk(each))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and (reason := _reason(node.test)):
            yield Weak(path, node.lineno, reason)
        elif isinstance(node, ast.Call) and _sleeps(node):
            yield Weak(path, node.lineno, "sleeps in real time")
    for function in functions:
        if function.name.startswith("test_") and (line := _Function(function, helpers).may_check_nothing()):
            yield Weak(path, line, f"{function.name} checks only in a loop that may be empty, or under an if")


def _reason(test: ast.expr) -> str | None:
    """Return why this condition is nearly always true."""
    # `not a or b` says that b follows from a.
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or) and not _is_negative(test.values[0]):
        return "an `or`: name the one result that is expected"
    if isinstance(test, ast.JoinedStr | ast.Tuple) or (isinstance(test, ast.Constant) and test.value):
        return "always true"
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        left, operator, right = test.left, test.ops[0], test.comparators[0]
        low = right if isinstance(operator, ast.GtE) else left if isinstance(operator, ast.LtE) else None
        if isinstance(low, ast.Constant) and low.value == 0:
            measured = ast.unparse(left if low is right else right)
            if any(word in measured for word in _NEVER_NEGATIVE):
                return "a count or a time is never below 0"
    return None


def _is_negative(test: ast.expr) -> bool:
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.NotIn | ast.IsNot)
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _sleeps(call: ast.Call) -> bool:
    """Return whether a call sleeps for some time; 0 lets only others run."""
    if ast.unparse(call.func) not in ("time.sleep", "asyncio.sleep", "sleep") or not call.args:
        return False
    seconds = call.args[0]
    return not (isinstance(seconds, ast.Constant) and seconds.value == 0)


class _Function:
    """One test: which of its statements run in any case."""

    def __init__(self, function: ast.FunctionDef | ast.AsyncFunctionDef, helpers: set[str]) -> None:
        self._body = function.body
        self._helpers = helpers
        self._values = {
            target.id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }

    def may_check_nothing(self) -> int | None:
        """Return the line of the first assertion, if none of the checks is sure to run."""
        first: int | None = None
        for statement, is_sure in self._statements(self._body, sure=True):
            for node in _own_nodes(statement):
                if is_sure and self._is_check(node):
                    return None
                if isinstance(node, ast.Assert):
                    first = first or node.lineno
        return first

    def _is_check(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Assert):
            return True
        if not isinstance(node, ast.Call):
            return False
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name in _CHECKS or name in self._helpers or name.startswith(("assert", "check", "expect"))

    def _statements(self, body: list[ast.stmt], *, sure: bool) -> Iterator[tuple[ast.stmt, bool]]:
        """Yield each statement, and whether it runs in any case."""
        for statement in body:
            yield statement, sure
            if isinstance(statement, ast.With | ast.AsyncWith | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._statements(statement.body, sure=sure)
            elif isinstance(statement, ast.Try):
                yield from self._statements([*statement.body, *statement.finalbody], sure=sure)
                for handler in statement.handlers:
                    yield from self._statements(handler.body, sure=False)
            elif isinstance(statement, ast.For | ast.AsyncFor):
                yield from self._statements(statement.body, sure=sure and self._is_filled(statement.iter))
            elif isinstance(statement, ast.While):
                yield from self._statements(statement.body, sure=sure and isinstance(statement.test, ast.Constant))
            elif isinstance(statement, ast.If):
                # With an else, a check in one branch counts.
                yield from self._statements(statement.body, sure=sure and bool(statement.orelse))
                yield from self._statements(statement.orelse, sure=False)

    def _is_filled(self, over: ast.expr | None) -> bool:
        """Return whether a loop has a first round: over a literal, a range, or a constant."""
        if isinstance(over, ast.Tuple | ast.List | ast.Set | ast.Dict):
            return True
        if isinstance(over, ast.Name):
            return over.id.isupper() or self._is_filled(self._values.pop(over.id, None))
        if isinstance(over, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            return not over.generators[0].ifs and self._is_filled(over.generators[0].iter)
        if isinstance(over, ast.Attribute):
            return over.attr.isupper()
        if isinstance(over, ast.Call):
            if isinstance(over.func, ast.Attribute) and over.func.attr in ("items", "values", "keys"):
                return self._is_filled(over.func.value)
            if any(keyword.arg == "strict" for keyword in over.keywords):
                return True
            name = ast.unparse(over.func)
            return name in ("range", "itertools.count") or (
                name in ("enumerate", "zip", "reversed", "sorted", "list")
                and all(self._is_filled(each) for each in (over.args if name == "zip" else over.args[:1]))
            )
        return False


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the parts of a statement but for the statements inside it."""
    yield statement
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, ast.stmt | ast.excepthandler):
            yield from ast.walk(child)


def files() -> list[Path]:
    """Return the files of tests."""
    return sorted(TESTS.rglob("test_*.py"))


def main() -> int:
    """Print each. Return 1 if there is one."""
    found = [weak for path in files() for weak in weak_assertions(path)]
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
