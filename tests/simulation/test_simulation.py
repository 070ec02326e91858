"""Seeds of the simulation: those that failed once, and a range of new ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.short import IS_SHORT, fewer

ROOT = Path(__file__).parents[2]
SEEDS_PER_TEST = fewer(100, 33)
KNOWN_EACH = 44 if IS_SHORT else 1
PARTS = 2
SINCE_SWARMS = "# With swarms:"


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run seeds in a process of their own."""
    return python("-m", "tests.simulation.run", *arguments)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a fixed order of sets, so that each seed always does the same."""
    command = [sys.executable, *arguments]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def known_seeds(*, swarms: bool) -> list[str]:
    """Return the seeds of seeds.txt, from before swarms or since."""
    before, _, since = (Path(__file__).parent / "seeds.txt").read_text("utf-8").partition(SINCE_SWARMS)
    lines = (since if swarms else before).splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")][::KNOWN_EACH]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 2 * SEEDS_PER_TEST, SEEDS_PER_TEST))
def test_nothing_is_lost_or_charged_twice(first: int) -> None:
    done = simulate("--first", str(first), "--seeds", str(SEEDS_PER_TEST), "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS_PER_TEST} seeds" in done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS + 1))
def test_no_seed_that_failed_once_fails_again(part: int) -> None:
    swarms = part == PARTS
    seeds = known_seeds(swarms=True) if swarms else known_seeds(swarms=False)[part::PARTS]
    done = simulate("--seed", *seeds, *([] if swarms else ["--without-swarms"]))
    failed = [line for line in done.stdout.splitlines() if " failed:" in line]
    assert done.returncode == 0, f"{failed}\n{done.stdout[-20_000:]}{done.stderr}"
    assert re.findall(r"^seed (\d+) passed: ", done.stdout, re.MULTILINE) == seeds
