"""Run the benchmarks: `python -m benchmarks [--quick] [--only sync,async,...] [--json FILE] [--write]`.

`--figures FILE ...` shows, or writes, what earlier runs have measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import process, sibling, suite
from benchmarks.report import text

README = Path(__file__).with_name("README.md")
MARK = "<!-- results -->"


def main() -> None:
    """Measure the selected groups and print the report."""
    options = _options()
    if options.figures:
        _show(_together([json.loads(path.read_text()) for path in options.figures]), options)
        return
    scale = suite.Scale(options.quick)
    results: dict[str, Any] = {"machine": suite.machine() | {"rounds": scale.rounds}, "notes": [], "series": {}}
    if not sibling.IS_HERE:
        results["notes"].append(sibling.MISSING)
    with process.stub() as port, tempfile.TemporaryDirectory(prefix="cycles-bench-") as journal:
        results |= suite.per_call(port, journal)
        if "sync" in options.only:
            _add(results, suite.sync(port, journal, scale, _say))
        if "async" in options.only:
            _add(results, asyncio.run(suite.asynchronous(port, journal, scale, _say)))
        if "pools" in options.only:
            _add(results, suite.pooled(port, journal, scale, _say))
        if "processes" in options.only:
            _add(results, suite.processes(port, journal, scale, _say))
        if "providers" in options.only:
            _add(results, suite.provider_clients(port, scale, _say))
    if "proxy" in options.only:
        _add(results, suite.guard_proxy(scale, _say))
    if "leases" in options.only:
        _add(results, suite.leases(scale, _say))
    if "embedded" in options.only:
        _add(results, suite.embedded(scale, _say))
    results["machine"]["load_after"] = os.getloadavg()[0]
    _show(results, options)


def _show(results: dict[str, Any], options: argparse.Namespace) -> None:
    shown = text(results)
    print(shown)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.write:
        README.write_text(README.read_text().partition(MARK)[0] + MARK + "\n\n" + shown)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run with rough figures, to try a change")
    parser.add_argument(
        "--only",
        default="sync,async,pools,processes,providers,proxy,leases,embedded",
        type=lambda given: given.split(","),
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--figures", type=Path, nargs="+", help="measure nothing: show what these files have, together")
    parser.add_argument("--write", action="store_true", help="keep the results in benchmarks/README.md")
    return parser.parse_args()


def _together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of runs that measured different groups one after the other on the same machine."""
    whole: dict[str, Any] = {"notes": [], "series": {}}
    for part in parts:
        _add(whole, {**part, "notes": list(dict.fromkeys([*whole["notes"], *part["notes"]]))})
    whole["machine"] = parts[0]["machine"] | {"load_after": parts[-1]["machine"]["load_after"]}
    return whole


def _add(results: dict[str, Any], more: dict[str, Any]) -> None:
    results["series"] |= more.pop("series", {})
    results |= more


def _say(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
