"""The public names: what type checkers read and what is loaded are the same, and all of it is there."""

from __future__ import annotations

import ast
from pathlib import Path

import cycles


def test_the_stub_and_the_lazy_table_name_the_same_things_from_the_same_places() -> None:
    stub = Path(cycles.__file__).with_suffix(".pyi")
    read = {
        alias.asname: node.module
        for node in ast.parse(stub.read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    }
    defined = {node.name for node in ast.parse(stub.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}
    assert set(read) | defined == set(cycles.__all__)
    homes = {name: module for name, module in read.items() if name not in (*cycles._MODULES, "__version__")}
    assert homes == {name: home for name, home in cycles._HOME_OF.items() if name not in defined}


def test_every_public_name_can_be_had() -> None:
    for name in cycles.__all__:
        assert getattr(cycles, name) is not None
    assert set(cycles.__all__) <= set(dir(cycles))
