"""The tables of docs/providers.md are those of the code."""

from __future__ import annotations

import inspect

import cycles
from cycles.providers import ReserveOptions, guard
from tests.providers.tables import PAGE, free, metered, with_tables


def test_the_tables_are_those_of_the_files() -> None:
    page = PAGE.read_text("utf-8")
    assert metered() in page
    assert free() in page
    assert with_tables(page) == page, "run python -m tests.providers.tables"


def test_the_options_of_reserve_are_those_of_guard() -> None:
    own = set(inspect.signature(guard).parameters) | {"self"}
    reserve = set(inspect.signature(cycles.Cycles.reserve).parameters) - own
    assert reserve <= set(ReserveOptions.__annotations__), "a new option of reserve is missing in ReserveOptions"
