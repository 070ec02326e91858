"""The benchmarks use private modules and members inside functions, where no import of them finds a renamed one."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import cycles
from benchmarks import decorator
from benchmarks.floors import KEY

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.name)
def test_every_name_of_cycles_that_a_benchmark_imports_exists(path: Path) -> None:
    imports = [
        (node.module or "", alias.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cycles")
        for alias in node.names
    ]
    assert [name for module, name in imports if not hasattr(importlib.import_module(module), name)] == []


def test_the_decorator_is_measured_without_a_server() -> None:
    budgets = {"tenant:acme": [cycles.usd(1_000)]}
    with cycles.EmbeddedServer(budgets, api_keys={KEY: "acme"}) as server, server.listen() as url:
        measured = decorator.measure(int(url.rpartition(":")[2]), calls=1, rounds=1)
        assert len(server.requests.of("reserve")) == 2  # one to connect, and one whose reply is kept
    assert set(measured) == {"guard", "decorator", "with callables"}
