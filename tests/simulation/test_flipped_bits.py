"""Seeds of `flipped_bits`, and the proof that they would find a reader that does not check."""

from __future__ import annotations

from pathlib import Path

import pytest

from cycles._core.settlement import record as records
from tests.simulation import flipped_bits
from tests.support.short import fewer

SEEDS = fewer(60)


def test_no_record_with_flipped_bits_is_charged_with_another_amount(tmp_path: Path) -> None:
    outcomes = [flipped_bits.simulate(seed, tmp_path / str(seed)) for seed in range(SEEDS)]
    problems = [f"seed {seed}: {problem}" for seed, each in enumerate(outcomes) for problem in each.problems]
    assert problems == []
    assert sum(each.quarantined for each in outcomes) > SEEDS // 2
    assert sum(each.charged for each in outcomes) > SEEDS // 4


def test_the_simulation_finds_a_reader_that_does_not_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CHECK", "check of another version")
    found = 0
    for seed in range(SEEDS):
        try:
            found += bool(flipped_bits.simulate(seed, tmp_path / str(seed)).problems)
        except AssertionError as wrong:
            found += "other bytes" in str(wrong)
    assert found > 0
