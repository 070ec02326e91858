"""Where functions use what a line sets at import: the tests that run these lines can see a fault in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def uses_of(path: str, source: str, line: int) -> set[tuple[str, int]]:
    """Return the paths and lines of the uses of a constant, a table or a field; of a default, the body of its function.

    Args:
        path: Of the module, relative to the project.
        source: Its text.
        line: Of the code that runs at import.
    """
    found: set[tuple[str, int]] = set()
    waiting = [ast.parse(source).body]
    names: set[str] = set()
    while waiting:
        for statement in waiting.pop():
            if statement.lineno <= line <= (statement.end_lineno or line):
                if isinstance(statement, _FUNCTIONS):
                    names |= {statement.name} if not isinstance(statement, ast.Lambda) else set()
                    found |= {(path, each) for each in range(statement.body[0].lineno, (statement.end_lineno or 0) + 1)}
                elif inner := _blocks(statement):
                    waiting += inner
                else:
                    names |= _set_by(statement)
    done: set[str] = set()
    stem = Path(path).stem
    while names:
        done.add(name := names.pop())
        for other, text in _sources(ROOT).items():
            if other == path or stem in text:
                uses, derived = _index(ROOT, other)
                found |= {(other, each) for each in uses.get(name, ())}
                names |= derived.get(name, set()) - done
    return found


def _blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    return [block for name in ("body", "orelse", "handlers", "finalbody") if (block := getattr(statement, name, None))]


def _set_by(statement: ast.stmt) -> set[str]:
    """Return the names that a statement sets, or else those that it reads, such as a table that it extends."""
    names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return {node.id for node in names if isinstance(node.ctx, ast.Store)} or {node.id for node in names}


@cache
def _sources(root: Path) -> dict[str, str]:
    paths = sorted((root / "cycles").rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in paths}


@cache
def _index(root: Path, path: str) -> tuple[dict[str, set[int]], dict[str, set[str]]]:
    """Return which lines of functions use a name, and what is set with it at import."""
    uses: dict[str, set[int]] = {}
    derived: dict[str, set[str]] = {}
    for statement, names in _at_import(ast.parse(_sources(root)[path]).body):
        sets = _set_by(statement) if isinstance(statement, ast.Assign | ast.AnnAssign) else set()
        for name, line, in_function in names:
            if in_function:
                uses.setdefault(name, set()).add(line)
            else:
                derived.setdefault(name, set()).update(sets - {name})
    return uses, derived


def _at_import(block: Sequence[ast.stmt]) -> Iterator[tuple[ast.stmt, list[tuple[str, int, bool]]]]:
    """Yield each statement that runs at import, with the names in it, their lines, and whether a function uses them."""
    for statement in block:
        if not isinstance(statement, _FUNCTIONS) and (inner := _blocks(statement)):
            for each in inner:
                yield from _at_import(each)
        elif not isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement, list(_names(statement, in_function=False))


def _names(node: ast.AST, *, in_function: bool) -> Iterator[tuple[str, int, bool]]:
    in_function = in_function or isinstance(node, _FUNCTIONS)
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno, in_function
    for child in ast.iter_child_nodes(node):
        yield from _names(child, in_function=in_function)
