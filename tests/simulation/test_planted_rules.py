"""The simulations of calls, fleets and chunks find planted faults; ten thousand other records change no chunk."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.simulation import calls_planted, chunk_fleet, chunk_planted, fleet_planted

PLANTED = [(module, plant) for module in (calls_planted, fleet_planted, chunk_planted) for plant in module.PLANTED]


@pytest.mark.parametrize(("module", "plant"), PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_a_planted_fault_is_found(module: ModuleType, plant: Any) -> None:
    assert module.seeds_until_found(plant) is not None


@pytest.mark.parametrize("seed", range(3))
def test_more_than_ten_thousand_other_records_change_nothing(seed: int) -> None:
    assert chunk_fleet.run(seed, others=10_001) is None
