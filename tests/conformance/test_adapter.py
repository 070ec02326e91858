"""The adapter: every scenario is bound to tests that exist, and a failing one is not a pass."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.adapter import ROOT, SCENARIOS as BOUND

SCENARIOS = [
    *(f"CR-CORE-{number:03}" for number in range(1, 5)),
    *(f"CR-DURABLE-{number:03}" for number in range(1, 8)),
    "CR-BOUNDARY-001",
]


def call_adapter(*arguments: str, stdin: str = "{}") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tests/conformance/adapter.py", *arguments]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=300)


def test_every_scenario_is_bound_to_tests_that_exist() -> None:
    assert sorted(BOUND) == sorted(SCENARIOS)
    for tests in BOUND.values():
        for test in tests:
            path, _, name = test.partition("::")
            functions = {
                node.name
                for node in ast.walk(ast.parse((ROOT / path).read_text()))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            assert name in functions, test


def test_a_scenario_that_passes_says_so_and_nothing_else() -> None:
    done = call_adapter("CR-BOUNDARY-001", stdin='{"profile": "0.3"}')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "scenario_id": "CR-BOUNDARY-001",
        "passed": True,
        "native_tests": BOUND["CR-BOUNDARY-001"],
    }


def test_a_test_that_fails_or_is_skipped_or_is_missing_is_no_pass(tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): raise OSError\n"
        "@pytest.mark.skip\n"
        "def test_skipped(): pass\n"
    )
    program = (
        "import sys; from pathlib import Path; from tests.conformance.adapter import run;"
        "root = Path(sys.argv[1]);"
        "verdicts = [run([f'test_it.py::test_{name}'], root) for name in ('good', 'bad', 'skipped', 'missing')];"
        "sys.exit(verdicts != [True, False, False, False])"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("arguments", "stdin"), [([], "{}"), (["CR-CORE-999"], "{}"), (["CR-CORE-001"], "[]")])
def test_a_document_that_is_no_request_is_rejected(arguments: list[str], stdin: str) -> None:
    done = call_adapter(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr
