"""Save the figures of the comparison and write `docs/overspend.md`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.overspend import environments
from benchmarks.overspend.cases import CASES, USD
from benchmarks.overspend.cell import Cell
from benchmarks.overspend.tools import TOOLS

MARK: Final = "<!-- results -->"


def text_of(cell: Cell) -> str:
    """Return a cell as the table has it: the bill, what was counted, and what was denied."""
    if cell.note:
        return "-" if cell.note == "-" else ""
    counted = "" if cell.counted is None else "=" if cell.lost == 0 else f":{_usd(cell.counted)}"
    return _usd(cell.bill) + counted + (f" -{cell.denied}" if cell.denied else "")


def _usd(microcents: float) -> str:
    return f"{microcents / USD:.3f}".removeprefix("0").rstrip("0").rstrip(".") or "0"


def save(path: Path, cells: Mapping[str, Mapping[str, Cell]]) -> None:
    """Write the figures as JSON; those of other cells that are there stay."""
    saved: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for key, by_case in cells.items():
        for case, cell in by_case.items():
            kept = {name: value for name, value in cell.to_json().items() if name != "errors"}
            saved.setdefault(key, {})[case] = kept | {"commit": commit()}
    ordered = {key: {case: saved[key][case] for case in CASES if case in saved[key]} for key in TOOLS if key in saved}
    path.write_text(json.dumps(ordered, indent=1) + "\n")


def commit() -> str:
    """Return the latest commit that has changed the package, with `+` if its files were changed since."""
    commands = (["log", "-1", "--abbrev=8", "--format=%h"], ["status", "--porcelain"])
    given: dict[str, Any] = {"cwd": environments.ROOT, "capture_output": True, "text": True, "check": False}
    at, changed = (subprocess.run(["git", *command, "--", "cycles"], **given).stdout for command in commands)
    return str(at).strip() + ("+" if changed else "")


def write(path: Path, results: Path) -> None:
    """Put the table, the discarded responses and the configuration into the page, after its mark."""
    saved = {
        key: {case: Cell(**cell) for case, cell in by_case.items()}
        for key, by_case in json.loads(results.read_text()).items()
    }
    begin = path.read_text().partition(MARK)[0]
    path.write_text(f"{begin}{MARK}\n\n{table(saved)}\n{notes(saved)}\n{configurations()}")


def table(cells: Mapping[str, Mapping[str, Cell]]) -> str:
    """Return the table of all cells."""
    keys = [key for key in TOOLS if key in cells and any(not cell.note for cell in cells[key].values())]
    rows = [f"| case | {' | '.join(keys)} |", f"|---|{'--:|' * len(keys)}"]
    for case in CASES:
        if any(case in cells[key] for key in keys):
            rows.append(f"| `{case}` | {' | '.join(text_of(cells[key].get(case, Cell(note='?'))) for key in keys)} |")
    return "\n".join(rows) + "\n"


def notes(cells: Mapping[str, Mapping[str, Cell]]) -> str:
    """Return what the table has no room for: discarded responses, and cells without figures."""
    lines = []
    for case in CASES:
        found = [
            f"{key} {by_case[case].discarded}"
            for key, by_case in cells.items()
            if case in by_case and by_case[case].discarded
        ]
        if found:
            lines.append(f"- Discarded in `{case}`: {', '.join(found)}.")
    for key, by_case in cells.items():
        failed: dict[str, list[str]] = {}
        for case, cell in by_case.items():
            if cell.note not in ("", "-"):
                failed.setdefault(cell.note, []).append(case)
        lines += [
            f"- {key} {', '.join(f'`{case}`' for case in cases) if len(cases) < len(by_case) else ''}: {note}."
            for note, cases in failed.items()
        ]
    for tool in TOOLS.values():
        run = cells.get(tool.key, {})
        absent = [case for case in CASES if case not in (*run, *tool.without)]
        if absent:
            lines.append(f"- {tool.key} {', '.join(f'`{case}`' for case in absent) if run else ''}: not run.")
    lines += _commits(cells)
    return "\n".join(line.replace(" :", ":") for line in lines) + "\n"


def _commits(cells: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Return a line for each commit at which columns of this project were measured."""
    found: dict[str, list[str]] = {}
    for key in (key for key in cells if TOOLS[key].is_ours):
        measured = {case: cell.commit or "an earlier commit" for case, cell in cells[key].items() if not cell.note}
        for at in dict.fromkeys(measured.values()):
            cases = [f"`{case}`" for case in measured if measured[case] == at]
            found.setdefault(at, []).append(key if len(cases) == len(measured) else f"{key} {', '.join(cases)}")
    return [f"- Measured at {at}: {'; '.join(columns)}." for at, columns in found.items()]


def configurations() -> str:
    """Return the table of tools and that of cases."""
    rows = ["## Tools", "", "| key | tool and versions | configuration |", "|---|---|---|"]
    for tool in TOOLS.values():
        pinned = environments.versions(tool.environment)
        rows.append(f"| {tool.key} | {tool.name}: {pinned} | {tool.configuration} |")
    rows += ["", "## Cases", "", "| case | what happens | calls that fit |", "|---|---|--:|"]
    rows += [f"| `{case.name}` | {case.title} | {case.wanted} |" for case in CASES.values()]
    return "\n".join(rows) + "\n"
