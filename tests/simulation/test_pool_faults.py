"""The planted faults of pools, and of the features of swarms, fit the code."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.simulation.planted import ROOT
from tests.simulation.planted_defect_faults import DEFECT_FAULTS
from tests.simulation.planted_faults import Fault
from tests.simulation.planted_feature_faults import FEATURE_FAULTS
from tests.simulation.planted_pool_faults import POOL_FAULTS
from tests.simulation.planted_sdk_faults import SDK_FAULTS

ALL = {"pools": POOL_FAULTS, "features": FEATURE_FAULTS, "defects": DEFECT_FAULTS, "SDKs": SDK_FAULTS}


@pytest.mark.parametrize("faults", ALL.values(), ids=ALL)
def test_each_planted_fault_still_fits_the_code(faults: Sequence[Fault]) -> None:
    assert len({fault.name for fault in faults}) == len(faults) >= 2
    for fault in faults:
        text = (ROOT / fault.file).read_text("utf-8")
        assert text.count(fault.old) == 1, f"{fault.name}: adapt it to the code of {fault.file}"
        compile(text.replace(fault.old, fault.new), fault.file, "exec")
