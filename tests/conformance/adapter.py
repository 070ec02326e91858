"""Runs the tests of one scenario of the recovery profile, for an outside conformance suite.

    python tests/conformance/adapter.py CR-DURABLE-001 < request.json

Reads a JSON object from standard input, runs the tests that docs/recovery.md binds to the scenario in this fresh
process, and prints one JSON object: `scenario_id`, `passed`, `native_tests`. Diagnostics go to standard error. The exit
status is 0 if the scenario passed, 1 if not, 2 if the request was wrong.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "recovery.md"
_ROW = re.compile(r"\| (CR-[A-Z]+-\d{3}) \| `(tests/[^`]+::test_\w+)` \|")


def scenarios() -> dict[str, list[str]]:
    """The scenarios and their tests, as the table of docs/recovery.md names them."""
    found: dict[str, list[str]] = {}
    for scenario_id, test in _ROW.findall(TABLE.read_text(encoding="utf-8")):
        found.setdefault(scenario_id, []).append(test)
    return found


class Results:
    """A pytest plugin: which tests ran, and whether each of them really passed."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        test = report.nodeid.split("[")[0]
        if report.when == "call" and report.outcome == "passed":
            self.passed.add(test)
        elif report.outcome != "passed":  # a skipped test confirms nothing
            self.failed.add(test)


def run(tests: list[str], root: Path = ROOT) -> bool:
    """True if every one of the tests, named from the root, ran and passed."""
    import pytest

    results = Results()
    status = pytest.main(["-q", "--rootdir", str(root), *(str(root / test) for test in tests)], plugins=[results])
    return status == 0 and not results.failed and results.passed == set(tests)


def main(arguments: list[str]) -> int:
    tests = scenarios().get(arguments[0], []) if len(arguments) == 1 else []
    if not tests:
        print(f"usage: adapter.py SCENARIO_ID, one of {', '.join(scenarios())}", file=sys.stderr)
        return 2
    if not isinstance(json.loads(sys.stdin.read() or "null"), dict):
        print("standard input must hold a JSON object", file=sys.stderr)
        return 2
    # Only the response goes to standard output, not what the tests and their children print.
    answers = os.dup(1)
    os.dup2(2, 1)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    passed = run(tests)
    answer = {"scenario_id": arguments[0], "passed": passed, "native_tests": tests}
    os.write(answers, json.dumps(answer).encode() + b"\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
