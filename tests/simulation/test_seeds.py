"""The simulation as a tool: a seed decides everything, features are drawn, and a planted fault is found."""

from __future__ import annotations

import pytest
from attrs import evolve

from tests.simulation import checks, planted, run
from tests.simulation.planted_faults import FAULTS
from tests.simulation.swarm import FAILING_DISKS, FEATURES, FIRST_FEATURES, Swarm, table
from tests.simulation.test_simulation import ROOT, python, simulate


def test_the_exit_status_of_a_few_seeds_says_whether_one_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {1: run.Result(1, ["lost 5"], [], 0, 0, 0, 0, 0, False), 2: run.Result(2, [], [], 0, 0, 0, 0, 0, False)}
    monkeypatch.setattr(run, "warm_up", lambda: None)
    monkeypatch.setattr(run, "run_isolated", lambda seed, *, swarms: results[seed])
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert run.main(["--seed", "1", "2"]) == 1
    assert run.main(["--seed", "2"]) == 0


def test_a_seed_always_does_the_same() -> None:
    first, second = simulate("--seed", "3", "14", "23").stdout, simulate("--seed", "3", "14", "23").stdout
    assert first == second
    assert first.count("all faults end") == 3


AFTER_OTHERS = """
from tests.simulation import run

run.warm_up()
for result in run.run_batch(range(20, 26)):
    alone = run.run_isolated(result.seed)
    assert (result.trace, result.steps) == (alone.trace, alone.steps), result.seed
print("the same")
"""


def test_a_seed_does_the_same_after_others_in_one_process() -> None:
    ran = python("-c", AFTER_OTHERS)
    assert (ran.stdout, ran.stderr) == ("the same\n", "")


def test_a_seed_draws_its_features_and_reports_which_mattered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(name in Swarm(seed) for seed in range(400) for name in FAILING_DISKS)
    monkeypatch.setenv("SIMULATE_FAILING_DISKS", "1")
    swarms = [Swarm(seed) for seed in range(400)]
    plain = [swarm for swarm in swarms if swarm.plain]
    assert 20 < len(plain) < 80
    assert all(swarm.on == [] for swarm in plain)
    for name in FEATURES:
        assert 40 < sum(name in swarm for swarm in swarms) < 360, name
    assert len({swarm.weight("kill") for swarm in swarms}) == 4
    swarm = Swarm(0, drawn=False)
    assert (swarm.on, swarm.mattered) == ([*FIRST_FEATURES], [])
    swarm.matters("kill")
    results = [run.Result(0, [], [], 0, 0, 0, 0, 0, False, swarm.on, swarm.mattered)] * 3
    rows = {line[:22].strip(): line[22:].split() for line in table(results).splitlines()}
    assert rows["feature"] == ["on", "mattered"]
    assert (rows["kill"], rows["fork"], rows["none"]) == (["3", "3"], ["3", "0"], ["0"])


def test_a_failing_seed_prints_what_happened_and_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "allowed", lambda op: {-1})
    printed = run.report(run.run_isolated(3, swarms=False))
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


@pytest.mark.timeout(900)
def test_a_planted_fault_is_found() -> None:
    fault = next(fault for fault in FAULTS if fault.name == "each attempt of an event has another key")
    seeds, found = planted.seeds_until_found(evolve(fault, most=60))
    assert seeds is not None
    assert "is sent before its record is saved" in found
