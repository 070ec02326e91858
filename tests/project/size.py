"""How much there is to read, as figures with limits: code lines, files of a warm call, and what hides a circle.

``make size`` prints each figure with its limit and its target, and fails if a figure is beyond its limit. The limits
are in `size_limits.toml`. Engine means the seven packages of `ENGINE`.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
LIMITS: Final = Path(__file__).with_name("size_limits.toml")
ENGINE: Final = ("_core", "_flows", "_drivers", "_journal", "_client", "_http", "_wire")
OPERATORS_PARTS: Final = ("embedded/dashboard/", "embedded/admin", "embedded/webhook")
"""Dashboard, admin plane and webhooks of the development server."""
_NO_CODE: Final = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


class Lines(NamedTuple):
    """How many lines with code and how many comments a source has."""

    code: int
    comments: int


@dataclass
class Hidden:
    """The ways in which a file can hide that two modules need each other."""

    any_aliases: list[str] = field(default_factory=list)
    casts: list[str] = field(default_factory=list)
    late_callbacks: list[str] = field(default_factory=list)
    not_implemented: list[str] = field(default_factory=list)
    execs: list[str] = field(default_factory=list)


class Figure(NamedTuple):
    """One row of the table. A figure with `at_least` must not be below its limit; others must not be above it."""

    name: str
    now: float
    limit: float
    target: float
    at_least: bool

    @property
    def is_kept(self) -> bool:
        """Whether the figure is within its limit."""
        return self.now >= self.limit if self.at_least else self.now <= self.limit


def lines_of(source: str) -> Lines:
    """Count the lines with a token that is neither comment nor docstring, and the comments."""
    # A string that is a statement documents what stands above it: a module, a class, a function, an attribute.
    docstrings = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    code: set[int] = set()
    comments = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments += 1
        elif token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    return Lines(len(code - docstrings), comments)


def hidden_in(source: str, own_names: frozenset[str]) -> Hidden:
    """Find what hides a circle. `own_names`: the classes and aliases of the engine."""
    found = Hidden()
    for node in ast.walk(ast.parse(source)):
        at = f"line {getattr(node, 'lineno', 0)}"
        match node:
            case ast.Assign(value=ast.Name("Any")) | ast.AnnAssign(value=ast.Name("Any")):
                found.any_aliases.append(at)
            case ast.Call(func=ast.Name("cast"), args=[kind, *_]) if _names(kind) & own_names:
                found.casts.append(at)
            case ast.AnnAssign(target=ast.Attribute(ast.Name("self"), name), annotation=kind, value=value):
                # A public attribute that begins without the function that another module sets later.
                is_later = isinstance(value, ast.Constant | ast.Lambda)
                if not name.startswith("_") and is_later and "Callable" in _names(kind):
                    found.late_callbacks.append(f"{at}: {name}")
            case ast.Raise(exc=ast.Name("NotImplementedError") | ast.Call(func=ast.Name("NotImplementedError"))):
                found.not_implemented.append(at)
            case ast.Call(func=ast.Name("exec")):
                found.execs.append(at)
            case _:
                pass
    return found


def _names(node: ast.expr) -> set[str]:
    """Return the names in an annotation, also if it is written as a string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def defined_in(source: str) -> Iterator[str]:
    """Yield the names of the classes and aliases at the top of a module."""
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(name)]) if name.lstrip("_")[:1].isupper() and not name.isupper():
                yield name
            case _:
                pass


def members_of(source: str, protocol: str) -> int:
    """Count the members of a protocol, with those of its bases in the module; 0 if the module has no such class."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == protocol:
            own = sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign) for each in node.body)
            return own + sum(members_of(source, base.id) for base in node.bases if isinstance(base, ast.Name))
    return 0


_PUBLIC: Final = frozenset({"_replace", "_asdict", "_fields", "_make"})


def private_reads(source: str) -> int:
    """Count the accesses to private attributes of other objects; those of named tuples are public."""
    return sum(
        isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in _PUBLIC
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        for node in ast.walk(ast.parse(source))
    )


def warm_calls() -> dict[str, tuple[int, int]]:
    """Return files and function calls of each warm call, measured in a process with nothing else in it."""
    command = [sys.executable, "-m", "tests.project.warm_calls"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)
    rows = (line.split("\t") for line in ran.stdout.splitlines())
    return {name: (int(files), int(calls)) for name, files, calls in rows}


def measured() -> dict[str, float]:
    """Return every figure by its name in `size_limits.toml`."""
    package = ROOT / "cycles"
    sources = {str(path.relative_to(package)): path.read_text("utf-8") for path in sorted(package.rglob("*.py"))}
    engine = {name: source for name, source in sources.items() if name.partition("/")[0] in ENGINE}
    lines = {name: lines_of(source) for name, source in sources.items()}
    code = Counter[str]()
    for name, counted in lines.items():
        code[name.partition("/")[0]] += counted.code
    operators_parts = sum(counted.code for name, counted in lines.items() if name.startswith(OPERATORS_PARTS))
    engine_code = sum(code[name] for name in ENGINE)
    comments = sum(lines[name].comments for name in engine)
    names = Counter(Path(name).name for name in engine)
    own_names = frozenset(name for source in engine.values() for name in defined_in(source))
    hidden = [hidden_in(source, own_names) for source in engine.values()]
    tests = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]
    figures: dict[str, float] = {
        "code lines: engine": engine_code,
        **{f"code lines: {name}": code[name] for name in ENGINE},
        "code lines: cycles": code.total(),
        "code lines: cycles without operators' parts": code.total() - operators_parts,
        "comments per 100 code lines: engine": round(100 * comments / engine_code, 1),
        "base names used three times": sum(n >= 3 for name, n in names.items() if name != "__init__.py"),
        "files at the top of _core": sum(name.startswith("_core/") and name.count("/") == 1 for name in engine) - 1,
        "members: Io": members_of(sources["_flows/io.py"], "Io"),
        "members: BackgroundQueue": members_of(sources["_flows/io.py"], "BackgroundQueue"),
        "Any aliases": sum(len(each.any_aliases) for each in hidden),
        "casts to own types": sum(len(each.casts) for each in hidden),
        "late callbacks": sum(len(each.late_callbacks) for each in hidden),
        "NotImplementedError": sum(len(each.not_implemented) for each in hidden),
        "exec": sum(len(each.execs) for each in hidden),
        "private attributes in tests": sum(map(private_reads, tests)),
    }
    warm = warm_calls()
    figures |= {f"files: {name}": files for name, (files, _) in warm.items()}
    return {**figures, "calls: commit": warm["commit"][1]}


def compared(now: dict[str, float], limits: dict[str, dict[str, float]]) -> list[Figure]:
    """Return the table.

    Raises:
        ValueError: A figure has no limit, or a limit has no figure.
    """
    if now.keys() != limits.keys():
        raise ValueError(f"figures and limits differ: {', '.join(sorted(now.keys() ^ limits.keys()))}")
    return [
        Figure(name, value, limits[name]["limit"], limits[name]["target"], bool(limits[name].get("at_least")))
        for name, value in now.items()
    ]


def main(limits: Path = LIMITS) -> int:
    """Print the table; return 1 if a figure is beyond its limit."""
    figures = compared(measured(), tomllib.loads(limits.read_text("utf-8")))
    print(f"{'figure':46} {'now':>8} {'limit':>8} {'target':>8}")
    for each in figures:
        mark = "" if each.is_kept else f"  {'below' if each.at_least else 'above'} its limit"
        print(f"{each.name:46} {each.now:8,g} {each.limit:8,g} {each.target:8,g}{mark}")
    return int(not all(each.is_kept for each in figures))


if __name__ == "__main__":
    sys.exit(main())
