"""The benchmarks import private modules inside functions, where no import of the module finds a renamed one."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

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
