"""Collect every message of the SDK from its source, and print them as one page, grouped by class.

`python -m tests.support.messages` prints the page. A message is the text of an exception, a warning, a log record or
an event. Placeholders are shown in braces. A message that is built in steps is shown once for each way to build it.
"""

from __future__ import annotations

import ast
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from attrs import field, frozen

PACKAGE = Path(__file__).parents[2] / "cycles"
POSITIONS = {"ApiError": 1, "ExchangeError": 1, "JournalIssue": 1, "NotADirectoryError": 1, "HTTPException": 1}
"""Position of the message among the arguments of an error. It is the first argument of every other error."""
SCHEMA = PACKAGE / "_core" / "messages" / "schema.py"
"""Its functions return what is wrong with a member of a request; the place of the member is put before it."""
TEXT_FIELDS = ("message", "hint", "detail", "why")
"""Fields and arguments that hold a message or a part of one."""
OF_QUEUES = ("Denied", "Ignore", "_Rejected", "Retry")
"""Exceptions by which task queues are controlled; they carry an error of the SDK, or a note for the worker's log."""
TO_MODELS = ("ToolError", "ToolFailed")
"""Exceptions of frameworks whose text a model reads: sentences, without a value that a model may repeat."""
LOG_METHODS = ("debug", "info", "warning", "error", "exception", "critical")
WAYS = 40
"""Maximum number of variants of one message: more would be a table, which the page shows as a placeholder."""
DEPTH = 4
TEXT_EXPRESSIONS = ast.Constant | ast.JoinedStr | ast.IfExp | ast.BoolOp | ast.Call
Function = ast.FunctionDef | ast.AsyncFunctionDef


@frozen(order=True)
class Message:
    """One way to build one message."""

    kind: str
    text: str
    place: str = field(order=False)

    @property
    def is_forwarded(self) -> bool:
        """True if the message has no words of its own: it repeats a text that another place built."""
        return self.text.startswith("{") and self.text.find("}") == len(self.text) - 1


@frozen
class Module:
    path: Path
    tree: ast.Module
    parents: dict[ast.AST, ast.AST]

    def place(self, node: ast.AST) -> str:
        return f"cycles/{self.path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"

    def enclosing(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield the functions and classes around a node, from the inside, and the module."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, (*Function.__args__, ast.ClassDef, ast.Module)):
                yield node


def read_modules() -> list[Module]:
    modules = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        modules.append(Module(path, tree, parents))
    return modules


def name_of(function: ast.expr) -> str:
    """Return the last part of a dotted name, without leading underscores."""
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""


class Collector:
    """Finds the messages of all modules and builds their texts."""

    def __init__(self) -> None:
        self.modules = read_modules()
        self.calls: dict[str, list[tuple[Module, ast.Call]]] = defaultdict(list)
        self.functions: dict[str, list[tuple[Module, Function]]] = defaultdict(list)
        self.fields: dict[str, list[str]] = {}
        for module in self.modules:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Call):
                    self.calls[name_of(node.func)].append((module, node))
                    if name_of(node.func) == "partial" and node.args:  # the call that is made later
                        later = ast.copy_location(ast.Call(node.args[0], node.args[1:], node.keywords), node)
                        module.parents[later] = node
                        self.calls[name_of(node.args[0])].append((module, later))
                elif isinstance(node, Function):
                    self.functions[node.name].append((module, node))
                elif isinstance(node, ast.ClassDef):
                    self.fields[node.name] = fields_of(node)

    def messages(self) -> list[Message]:
        """Return all messages, sorted by class and text."""
        found: set[Message] = set()
        for module in self.modules:
            for node in ast.walk(module.tree):
                for kind, text in self.texts_at(module, node):
                    ways = self.build(module, text, DEPTH)
                    found.update(Message(kind, way, module.place(node)) for way in ways)
        return sorted(found)

    def raises_without_message(self) -> list[str]:
        """Return the `raise` statements whose messages are not on the page."""
        missing = []
        for module in self.modules:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Raise) and node.exc is not None and not self.is_covered(node.exc, set()):
                    missing.append(f"{module.place(node)} {ast.unparse(node)}")
        return missing

    def is_covered(self, error: ast.expr, seen: set[str]) -> bool:
        """True if an expression is an error whose message is on the page.

        A name is an error that another statement created or caught. A call of a function is covered if the function
        creates such an error.
        """
        if isinstance(error, ast.IfExp):
            return self.is_covered(error.body, seen) and self.is_covered(error.orelse, seen)
        error = error.value if isinstance(error, ast.Await) else error
        name = kind_of(error) if isinstance(error, ast.Call) else ""
        if isinstance(error, ast.Name | ast.Attribute):
            return name_of(error) == "NotImplementedError" or not is_error(name_of(error))
        if is_error(name) and isinstance(error, ast.Call):
            return argument(error, POSITIONS.get(name, 0), "message") is not None
        if name in {"SystemExit", *OF_QUEUES, *TO_MODELS} or name in seen:
            return name in {"SystemExit", *OF_QUEUES, *TO_MODELS}
        for _, function in self.functions[name]:
            returns = [step for step in ast.walk(function) if isinstance(step, ast.Return)]
            values = [step.value for step in returns if step.value is not None]
            if values and all(self.is_covered(value, seen | {name}) for value in values):
                return True
        return False

    def texts_at(self, module: Module, node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
        """Yield class and expression of the messages that a node creates."""
        if isinstance(node, Function) and node.name == "text":
            owner = next(module.enclosing(node))
            for step in ast.walk(node):
                if isinstance(step, ast.Return) and step.value is not None and isinstance(owner, ast.ClassDef):
                    yield f"event {owner.name}", step.value
        if module.path == SCHEMA and isinstance(node, ast.Yield) and isinstance(node.value, ast.JoinedStr):
            yield "problem of a request", ast.JoinedStr([ast.Constant("{member}"), *node.value.values])
        if not isinstance(node, ast.Call):
            return
        kind = kind_of(node)
        if is_error(kind):
            text = argument(node, POSITIONS.get(kind, 0), "message")
            if text is not None:
                code = node.args[0] if kind == "ApiError" else None
                yield f"{kind} {code.value!s}" if isinstance(code, ast.Constant) else kind, text
        elif kind == "warn" and node.args:
            yield f"warning {ast.unparse(node.args[1]) if len(node.args) > 1 else 'UserWarning'}", node.args[0]
        elif kind in LOG_METHODS and node.args and is_logger(node.func):
            yield f"log record ({kind})", node.args[0]
        elif kind == "log" and len(node.args) > 1 and is_logger(node.func):
            yield "log record", node.args[1]
        elif ast.unparse(node.func) == "self._report" and len(node.args) == 1 and not is_error(kind_of_argument(node)):
            yield "detail of JournalProblem", node.args[0]
        for name in TEXT_FIELDS[is_error(kind) :]:
            fields = self.fields.get(kind, [])
            text = argument(node, fields.index(name) if name in fields else len(node.args), name)
            if text is not None:
                yield f"{name} of {kind}", text

    def build(self, module: Module, text: ast.expr, depth: int) -> list[str]:
        """Return every way to build a text, with placeholders for what only a run can know."""
        ways: list[str] = []
        if isinstance(text, ast.Constant):
            return [text.value] if isinstance(text.value, str) else []
        if isinstance(text, ast.JoinedStr):
            ways = self.join(module, text.values, depth)
        elif isinstance(text, ast.FormattedValue):
            ways = self.fill(module, text, depth)
        elif isinstance(text, ast.BinOp) and isinstance(text.op, ast.Add):
            ways = self.join(module, [text.left, text.right], depth)
        elif isinstance(text, ast.IfExp):
            ways = self.build(module, text.body, depth) + self.build(module, text.orelse, depth)
        elif isinstance(text, ast.BoolOp):
            ways = [way for value in text.values for way in self.build(module, value, depth)]
        elif isinstance(text, ast.Name) and depth:
            ways = self.values(module, text, depth - 1)
        elif isinstance(text, ast.Call) and depth:
            ways = self.returned(module, text, depth - 1)
        return ways[:WAYS] or [f"{{{ast.unparse(text)}}}"]

    def join(self, module: Module, parts: list[ast.expr], depth: int) -> list[str]:
        choices = [self.build(module, part, depth) for part in parts]
        return ["".join(way) for way in itertools.islice(itertools.product(*choices), WAYS)]

    def fill(self, module: Module, part: ast.FormattedValue, depth: int) -> list[str]:
        """Return the texts that a placeholder can hold if they are all in the source, else the placeholder."""
        if part.conversion == -1 and part.format_spec is None and not isinstance(part.value, ast.Call):
            ways = self.build(module, part.value, depth - 1) if depth else []
            if ways and not any(Message("", way, "").is_forwarded for way in ways):
                return ways
        return [ast.unparse(ast.JoinedStr([part]))[2:-1]]

    def values(self, module: Module, name: ast.Name, depth: int) -> list[str]:
        """Return what a variable or a parameter can be."""
        for owner in module.enclosing(name):
            if isinstance(owner, ast.ClassDef):
                continue
            if isinstance(owner, Function):
                names = [arg.arg for arg in (*owner.args.posonlyargs, *owner.args.args, *owner.args.kwonlyargs)]
                if name.id in names:
                    return self.passed(module, owner, names, name.id, depth) if name.id not in ("self", "cls") else []
            if any(isinstance(node, ast.Name) and node.id == name.id and is_stored(node) for node in ast.walk(owner)):
                return [way for value in assigned(owner, name.id) for way in self.build(module, value, depth)]
        return []

    def passed(self, home: Module, function: Function, names: list[str], name: str, depth: int) -> list[str]:
        """Return what the callers of a function pass for one parameter: those of its module if there are any."""
        position = names.index(name) - (names[0] in ("self", "cls"))
        calls = self.calls[function.name]
        ways: list[str] = []
        for module, call in [pair for pair in calls if pair[0] is home] or calls:
            value = argument(call, position, name)
            ways += [] if value is None else self.build(module, value, depth)
        return ways

    def returned(self, module: Module, call: ast.Call, depth: int) -> list[str]:
        """Return what a function of the package returns, or a table lookup, if these are texts."""
        ways: list[str] = []
        if isinstance(call.func, ast.Attribute) and call.func.attr == "get" and isinstance(call.func.value, ast.Name):
            tables = [table for table in assigned(module.tree, call.func.value.id) if isinstance(table, ast.Dict)]
            return [way for table in tables for value in table.values for way in self.build(module, value, depth)]
        found = self.functions[name_of(call.func)]
        for home, function in [pair for pair in found if pair[0] is module] or found[:1]:
            for step in ast.walk(function):
                if isinstance(step, ast.Return) and isinstance(step.value, TEXT_EXPRESSIONS):
                    ways += self.build(home, step.value, depth)
        return ways


def fields_of(owner: ast.ClassDef) -> list[str]:
    """Return the names of the annotated fields of a class, in the order of its constructor."""
    steps = [step for step in owner.body if isinstance(step, ast.AnnAssign)]
    return [name_of(step.target) for step in steps if "ClassVar" not in ast.unparse(step.annotation)]


def is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def assigned(owner: ast.AST, name: str) -> Iterator[ast.expr]:
    """Yield the values that are assigned to a variable directly in a function or a module."""
    for node in ast.walk(owner):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            for target in targets:
                if isinstance(target, ast.Name) and target.id == name:
                    yield node.value


def argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    """Return the argument of a call by its name or its position."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if len(call.args) > position else None


def kind_of_argument(call: ast.Call) -> str:
    """Return the name of the function whose result is the first argument; empty if it is none."""
    first = call.args[0]
    return kind_of(first) if isinstance(first, ast.Call) else ""


def kind_of(call: ast.Call) -> str:
    """Return the class that a call creates. A class in the variable `kind` that takes a status is a `ProtocolError`."""
    name = name_of(call.func)
    is_variable = name == "kind" and any(keyword.arg == "status" for keyword in call.keywords)
    return "ProtocolError" if is_variable else name


def is_logger(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and "log" in name_of(function.value).lower()


def is_error(name: str) -> bool:
    ends = ("Error", "Exception", "Warning", "JournalIssue", "ReadTimeout", "BadParameter")
    return name.endswith(ends) and name[:1].isupper() and name not in TO_MODELS


def page(messages: list[Message]) -> str:
    """Return all messages as one page, grouped by class."""
    lines = []
    for kind, group in itertools.groupby(messages, key=lambda message: message.kind):
        lines += ["", kind]
        lines += [f"  {message.text}    [{message.place}]" for message in group]
    return "\n".join(lines[1:])


if __name__ == "__main__":
    print(page(Collector().messages()))
