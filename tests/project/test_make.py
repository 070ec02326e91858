"""`make test` leaves out the simulation and tests of tools, and shortens others; `make check` does neither."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def commands(*arguments: str) -> str:
    """Return what a target would run, also through further calls of make."""
    # A make around this test passes its own variables on, such as the empty TOOL_TESTS of `make check`.
    passed_on = {"MAKEFLAGS", "MAKEOVERRIDES", "SHORT_TESTS"}
    environment = {name: value for name, value in os.environ.items() if name not in passed_on}
    command = ["make", "-n", *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return ran.stdout


def ignored(*arguments: str, runs: str = "-m pytest") -> list[str]:
    (*_, line) = [line for line in commands(*arguments).splitlines() if runs in line]  # after those of a set-up
    return [word.removeprefix("--ignore=") for word in line.split() if word.startswith("--ignore=")]


def test_make_test_leaves_out_tests_of_tools_that_exist() -> None:
    left_out = ignored("test")
    assert {"tests/website", "tests/mutation", "tests/simulation"} <= set(left_out)
    assert [path for path in left_out if not (ROOT / path).exists()] == []


def test_make_check_runs_every_test() -> None:
    assert ignored("check") == []


def test_the_random_order_has_every_test_or_in_short_form_those_of_make_test() -> None:
    runs = "-m tests.mutation.random_order"
    assert ignored("test-random", runs=runs) == []
    assert ignored("test-random", "SHORT_TESTS=1", runs=runs) == ignored("test")


def test_only_make_test_runs_long_tests_in_short_form() -> None:
    assert "SHORT_TESTS=1" in commands("test")
    assert "SHORT_TESTS" not in commands("check")
