"""Simulated chunks that several workers know keep every invariant."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation import chunk_fleet
from tests.support.short import fewer

# Seeds that once found a fault: a task that settled an earlier sum than the one taken since; a record that the store
# had lost and two clients put again; a record that was taken again before its earlier task had ended; a settled sum
# that replaced a larger one; a rest that was charged beside the whole sum.
KEPT = (97, 248, 528, 605, 678, 682, 3529)
# A file that was not read again once the store had a settled sum; a rest that was charged beside a whole sum.
KEPT_WITH_OUTAGES = (5930, 6150)


def test_a_thousand_chunks_keep_every_invariant() -> None:
    broken = {seed: problem for seed in range(fewer(1_000, 15)) if (problem := chunk_fleet.run(seed)) is not None}
    assert broken == {}


def test_chunks_in_outages_keep_every_invariant() -> None:
    broken = {
        seed: problem for seed in range(fewer(500, 15)) if (problem := chunk_fleet.run(seed, outages=True)) is not None
    }
    assert broken == {}


@pytest.mark.parametrize("seed", KEPT_WITH_OUTAGES)
def test_a_seed_with_outages_that_once_found_a_fault(seed: int) -> None:
    assert chunk_fleet.run(seed, outages=True) is None


@pytest.mark.parametrize("seed", KEPT)
def test_a_seed_that_once_found_a_fault(seed: int) -> None:
    assert chunk_fleet.run(seed) is None


def test_a_seed_decides_everything() -> None:
    def ledger(seed: int) -> tuple[Any, ...]:
        fleet = chunk_fleet.ChunkFleet(seed)
        for _ in range(chunk_fleet.STEPS):
            fleet.happen()
        for worker in fleet.workers:
            worker.stop()
        return fleet.spent, fleet.ledger.committed, fleet.ledger.events, fleet.clock.ms

    assert ledger(7) == ledger(7)
    assert ledger(7) != ledger(8)
