"""The public names: what type checkers read and what is loaded are the same, and all of it is there."""

from __future__ import annotations

import ast
import pickle
import pickletools
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Final

import pytest

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


def loaded_alone(program: str) -> str:
    """What a fresh interpreter prints, so that no other test has already used a public name."""
    return subprocess.check_output([sys.executable, "-W", "error", "-c", program], text=True)


def test_public_names_are_members_of_cycles_also_before_they_are_used_through_it() -> None:
    program = """
import importlib, cycles
for home, names in cycles._HOMES.items():
    module = importlib.import_module(home)
    named = [(f"{home}.{name}", getattr(module, name)) for name in names]
    print(*(name for name, value in named if hasattr(value, "__name__") and value.__module__ != "cycles"))
"""
    assert loaded_alone(program).split() == []


def test_a_traceback_names_the_error_by_its_public_name() -> None:
    error = cycles.BudgetExceededError("too expensive")
    assert traceback.format_exception_only(error) == ["cycles.BudgetExceededError: too expensive\n"]


PICKLED: Final = {
    "amount": cycles.usd("0.05"),
    "subject": cycles.Subject(tenant="acme"),
    "error": cycles.BudgetExceededError("no", code="BUDGET_EXCEEDED", status=409, details={"scope": "tenant:acme"}),
    "config": cycles.Config(base_url="http://localhost", api_key="k"),
}


@pytest.mark.parametrize("value", PICKLED.values(), ids=PICKLED)
def test_a_pickle_names_public_classes_by_their_public_name(value: object) -> None:
    dumped = pickle.dumps(value, protocol=4)
    strings = [argument for opcode, argument, _ in pickletools.genops(dumped) if isinstance(argument, str)]
    is_error = isinstance(value, Exception)
    assert strings[:2] == (["cycles._errors", "_rebuild"] if is_error else ["cycles", type(value).__name__])
    assert "cycles._core" not in dumped.decode("latin-1")
    assert repr(pickle.loads(dumped)) == repr(value)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent / "pickles_0_1_0").glob("*.pickle")), ids=lambda p: p.stem
)
def test_pickles_of_the_last_release_load(path: Path) -> None:
    loaded = pickle.loads(path.read_bytes())
    value = PICKLED[path.stem]
    assert type(loaded) is type(value)
    assert str(loaded) == str(value)


@pytest.mark.parametrize("old", ["Capped", "Flushed", "GuardForgotten", "JournalTrouble", "LateBeat", "ValuesLeftOut"])
def test_event_names_of_0_1_0_are_gone(old: str) -> None:
    assert not hasattr(cycles.events, old)
    assert not hasattr(cycles.events.ActualFailed(estimate=cycles.usd(1), detail="KeyError"), "why")
    assert not hasattr(cycles.Settlement(status="committed", actual=cycles.usd(2)), "capped")
