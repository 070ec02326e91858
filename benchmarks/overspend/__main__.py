"""Run each tool in each case, write the figures, and fail if a figure of this project got worse.

`make overspend TOOLS=G,C CASES=parallel,lost` runs some of them. The exit code is 1 if a figure of this project is
worse than in `kept.json`, and 2 for an unknown tool or case. ``--quick`` makes one call of each adapter that is cheap
to install.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.overspend import environments, page
from benchmarks.overspend.cases import CASES, Case
from benchmarks.overspend.cell import Cell, measure
from benchmarks.overspend.tools import TOOLS, Tool

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "benchmarks" / "overspend" / "results.json"
KEPT: Final = ROOT / "benchmarks" / "overspend" / "kept.json"
PAGE: Final = ROOT / "docs" / "overspend.md"
CORES: Final = 2
"""Cores for each cell that is measured at the same time."""
CLOCK_TICK: Final = 1.0
"""A microcent: what floating point may add to a sum."""


def chosen(given: str, known: Mapping[str, Any], what: str) -> list[str]:
    """Return the names of a list with commas; all if it is empty.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    by_fold = {name.casefold(): name for name in known}
    names = [name.strip() for name in given.split(",") if name.strip()]
    if unknown := [name for name in names if name.casefold() not in by_fold]:
        raise ValueError(f"unknown {what} {', '.join(unknown)}: use {', '.join(known)}")
    return [by_fold[name.casefold()] for name in names] or list(known)


def worse(kept: Mapping[str, Any], cells: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Return a line for each figure of a column of this project that is above what was kept."""
    lines = []
    for key, limits in kept.items():
        for case, limit in limits.items():
            if key not in cells or case not in cells[key]:
                continue
            cell = cells[key][case]
            if cell.note:
                lines.append(f"{key} {case}: no figures: {cell.note}")
                continue
            for name, most in limit.items():
                now = getattr(cell, name)
                if now is None or now > most + CLOCK_TICK * (name in ("overspend", "lost")):
                    lines.append(f"{key} {case}: {name} is {now}, it was at most {most}")
    return lines


def quick(tool: Tool) -> Case:
    """Return one call, to test the bank and an adapter."""
    return replace(CASES["parallel"], calls=1, wanted=1, plan={"delay_s": 0})


def run(
    tools: Sequence[str], cases: Sequence[str], is_quick: bool, writes_to: Path | None
) -> dict[str, dict[str, Cell]]:
    """Measure the cells, print a line for each, and save each at once if there is a file for them."""
    made = environments.made({TOOLS[key].environment for key in tools} | {"cycles"})
    cells: dict[str, dict[str, Cell]] = {key: {} for key in tools}
    wanted = [(name, key) for name in (["one call"] if is_quick else cases) for key in tools]

    def timed(name: str, key: str) -> tuple[str, str, Cell, float]:
        tool, ours = TOOLS[key], made["cycles"]
        case = quick(tool) if is_quick else CASES[name]
        environment, started = made[tool.environment], time.monotonic()
        if isinstance(environment, Path) and isinstance(ours, Path):
            cell = measure(tool, case, str(environment), str(ours))
        else:  # why it cannot be installed
            cell = Cell(note=str(environment if isinstance(ours, Path) else ours))
        return name, key, cell, time.monotonic() - started

    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // CORES)) as pool:
        for name, key, cell, seconds in pool.map(timed, *zip(*wanted, strict=True)):
            cells[key][name] = cell
            if writes_to is not None:
                page.save(writes_to, {key: {name: cell}})
            said = cell.note or cell.errors[:1] or ""
            print(f"{name:10} {key}  {page.text_of(cell):24} {seconds:5.1f} s  {said}", flush=True)
    return cells


def failed_calls(cells: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Return a line for each quick call that was not billed once and counted exactly."""
    lines = []
    for key, by_case in cells.items():
        for cell in by_case.values():
            counted = cell.bill if key == "N" else cell.counted
            if cell.note or cell.bill != 5_250_000 or counted != cell.bill or cell.discarded:
                lines.append(f"{key}: one call: {cell}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="make overspend", description=__doc__)
    parser.add_argument("--tools", default="")
    parser.add_argument("--cases", default="")
    parser.add_argument("--quick", action="store_true", help="one call of each adapter that is cheap to install")
    parser.add_argument("--write", action="store_true", help="write the figures and docs/overspend.md")
    given = parser.parse_args(arguments)
    try:
        tools, cases = chosen(given.tools, TOOLS, "tool"), chosen(given.cases, CASES, "case")
    except ValueError as problem:
        print(f"overspend: {problem}", file=sys.stderr)
        return 2
    if given.quick and not given.tools:
        tools = [key for key in tools if TOOLS[key].quick]
    started = time.monotonic()
    writes = given.write and not given.quick
    cells = run(tools, cases, given.quick, RESULTS if writes else None)
    print(f"{sum(map(len, cells.values()))} cells in {(time.monotonic() - started) / 60:.1f} min")
    lines = failed_calls(cells) if given.quick else worse(json.loads(KEPT.read_text()), cells)
    if writes:
        page.write(PAGE, RESULTS)
    for line in lines:
        print(f"overspend: worse: {line}", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
