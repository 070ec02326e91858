"""Collect every message that a user can read: errors, warnings, hints, events and log records of the package.

``python -m tests.project.messages`` (``make messages``) prints them all as one page. Values are shown as ``{name}``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[2] / "cycles"
LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "log"})
TABLES = ("_core/error_hints.py", "_core/schema.py", "_core/outcome.py", "_core/lease/planner.py", "_flows/replay.py")
"""Modules whose strings with a blank become parts of messages elsewhere."""


class Message(NamedTuple):
    """One message: where it is written, the class of the error (or ``event``, ``log``, ``warning``), and the text."""

    path: str
    line: int
    kind: str
    text: str


def collect(package: Path = PACKAGE) -> list[Message]:
    """Return every message of the package, in the order of files and lines."""
    found: list[Message] = []
    for path in sorted(package.rglob("*.py")):
        name = str(path.relative_to(package.parent))
        tree = ast.parse(path.read_text("utf-8"))
        messages = set(_of_module(name, tree))
        if name.endswith(TABLES):
            messages |= set(_parts(name, tree))
        found += sorted(messages, key=lambda message: message.line)
    return found


def _of_module(path: str, tree: ast.Module) -> Iterator[Message]:
    for scope in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))]:
        strings = _assigned(scope)
        for node in _own(scope):
            if isinstance(node, ast.Call):
                yield from _of_call(path, node, strings)
            elif isinstance(node, ast.Return) and getattr(scope, "name", "") == "text" and path.endswith("events.py"):
                yield from _texts(path, "event", node.value, strings)


def _parts(path: str, tree: ast.Module) -> Iterator[Message]:
    """The strings of a module that become parts of messages, without docstrings."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docs | inside:
            text = _alternatives(node, {}, 0)[0]
            if len(text.split()) > 2:
                yield Message(path, node.lineno, "part", text)


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function or module, without those of functions inside it."""
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)


def _assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """The expressions that are assigned to each name in a scope."""
    found: dict[str, list[ast.expr]] = {}
    for node in _own(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
    return found


def _of_call(path: str, call: ast.Call, strings: dict[str, list[ast.expr]]) -> Iterator[Message]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name.endswith("Error") and name[0].isupper() and (call.args or call.keywords):
        first = call.args[0] if call.args else call.keywords[0].value
        if name == "ExchangeError" and len(call.args) > 1:
            first = call.args[1]
        if name == "ApiError" and len(call.args) > 2:
            first = call.args[2]
        yield from _texts(path, name, first, strings)
    elif owner == "warnings" and name == "warn":
        yield from _texts(path, "warning", call.args[0], strings)
    elif name in LOG_METHODS and owner.rpartition(".")[2] in ("logger", "_log", "log"):
        yield from _texts(path, "log", call.args[1 if name == "log" else 0], strings)
    for keyword in call.keywords:
        if keyword.arg in ("detail", "hint"):
            yield from _texts(path, keyword.arg, keyword.value, strings)


def _texts(path: str, kind: str, node: ast.expr | None, strings: dict[str, list[ast.expr]]) -> Iterator[Message]:
    if node is not None and ast.unparse(node) != "None":
        for text in _alternatives(node, strings, 0):
            yield Message(path, node.lineno, kind, text)


def _alternatives(node: ast.expr, strings: dict[str, list[ast.expr]], depth: int) -> list[str]:
    """Return what a string expression can be. A value that is not known here is ``{its expression}``."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        return ["".join(_part(part) for part in node.values)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = (_alternatives(side, strings, depth) for side in (node.left, node.right))
        return [first + second for first in left for second in right]
    if isinstance(node, ast.IfExp):
        return _alternatives(node.body, strings, depth) + _alternatives(node.orelse, strings, depth)
    if isinstance(node, ast.Name) and node.id in strings and depth < 3:
        return [text for value in strings[node.id] for text in _alternatives(value, strings, depth + 1)]
    return [f"{{{ast.unparse(node)}}}"]


def _part(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"  # type: ignore[attr-defined]


def page(messages: list[Message]) -> str:
    """Return the messages as one page of text, file by file."""
    lines: list[str] = []
    path = ""
    for message in messages:
        if message.path != path:
            path = message.path
            lines += ["", path]
        lines.append(f"  {message.line:>4} {message.kind}: {message.text}")
    return "\n".join(lines).strip()


if __name__ == "__main__":
    print(page(collect()))
