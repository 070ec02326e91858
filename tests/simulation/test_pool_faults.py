"""The planted faults of pools fit the code, so that `make simulate-planted` can run them."""

from __future__ import annotations

from tests.simulation.planted import ROOT
from tests.simulation.planted_pool_faults import POOL_FAULTS


def test_each_planted_fault_of_pools_still_fits_the_code() -> None:
    assert len({fault.name for fault in POOL_FAULTS}) == len(POOL_FAULTS) >= 8
    for fault in POOL_FAULTS:
        text = (ROOT / fault.file).read_text("utf-8")
        assert text.count(fault.old) == 1, f"{fault.name}: adapt it to the code of {fault.file}"
        compile(text.replace(fault.old, fault.new), fault.file, "exec")
