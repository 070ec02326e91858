"""Seeds of the simulation: those that failed once, and a range of new ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import checks, planted, run
from tests.simulation.planted_faults import FAULTS

ROOT = Path(__file__).parents[2]
SEEDS_PER_TEST = 50


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run seeds in a process with a fixed order of sets, so that each seed always does the same."""
    command = [sys.executable, "-m", "tests.simulation.run", *arguments]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def known_seeds() -> list[str]:
    """Return the seeds of seeds.txt."""
    lines = (Path(__file__).parent / "seeds.txt").read_text("utf-8").splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, 200, SEEDS_PER_TEST))
def test_nothing_is_lost_or_charged_twice(first: int) -> None:
    done = simulate("--first", str(first), "--seeds", str(SEEDS_PER_TEST))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS_PER_TEST} seeds" in done.stdout


@pytest.mark.parametrize("seed", known_seeds())
def test_a_seed_that_failed_once(seed: str) -> None:
    done = simulate("--seed", seed)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_always_does_the_same() -> None:
    for seed in ("3", "14", "23"):
        first, second = simulate("--seed", seed).stdout, simulate("--seed", seed).stdout
        assert first.splitlines()[:-1] == second.splitlines()[:-1]
        assert "all faults end" in first


def test_a_seed_does_the_same_after_others_in_one_process() -> None:
    for result in run.run_batch(range(20, 26)):
        alone = run.run_isolated(result.seed)
        assert (result.trace, result.steps) == (alone.trace, alone.steps)


def test_a_failing_seed_prints_what_happened_and_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "allowed", lambda op: {-1})
    printed = run.report(run.run_isolated(3))
    assert printed is not None
    assert "seed 3 failed" in printed
    assert "expected one of [-1]" in printed
    assert "make simulate SEED=3" in printed
    assert "begins" in printed


def test_each_planted_fault_still_fits_the_code() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) >= 25
    for fault in FAULTS:
        text = (ROOT / fault.file).read_text("utf-8")
        assert text.count(fault.old) == 1, f"{fault.name}: adapt it to the code of {fault.file}"
        compile(text.replace(fault.old, fault.new), fault.file, "exec")


@pytest.mark.timeout(300)
def test_a_planted_fault_is_found() -> None:
    fault = next(fault for fault in FAULTS if fault.name == "each attempt of an event has another key")
    seeds, found = planted.seeds_until_found(fault, most=60)
    assert seeds is not None
    assert "charged" in found
