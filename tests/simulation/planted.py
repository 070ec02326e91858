"""Planted faults: small changes of the real code that the simulation must find. Run with `make simulate-planted`.

Each fault is a search and a replacement in one file. The runner copies the package, applies one fault, and runs seeds
until one fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.simulation.planted_defect_faults import DEFECT_FAULTS
from tests.simulation.planted_faults import FAULTS, Fault
from tests.simulation.planted_feature_faults import FEATURE_FAULTS
from tests.simulation.planted_pool_faults import POOL_FAULTS
from tests.simulation.planted_sdk_faults import SDK_FAULTS

ROOT: Final = Path(__file__).parents[2]
CHUNK: Final = 40


def apply(fault: Fault, folder: Path) -> None:
    """Apply a fault to a copy of the project.

    Raises:
        ValueError: the text of the fault does not occur exactly once, because the code has changed.
    """
    path = folder / fault.file
    text = path.read_text("utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: its text occurs {text.count(fault.old)} times in {fault.file}; adapt it")
    path.write_text(text.replace(fault.old, fault.new), "utf-8")


def seeds_until_found(fault: Fault) -> tuple[int | None, str]:
    """Return how many seeds ran until one failed (None: none of `fault.most` did), and what the first one found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for package in ("cycles", "cycles_client"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("simulation", "support"):
            shutil.copytree(ROOT / "tests" / part, folder / "tests" / part)
        shutil.copy(ROOT / "tests" / "__init__.py", folder / "tests" / "__init__.py")
        apply(fault, folder)
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(folder)}
        if fault.disks:
            environment["SIMULATE_FAILING_DISKS"] = "1"
        for first in range(0, fault.most, CHUNK):
            command = [sys.executable, "-m", "tests.simulation.run", "--first", str(first), "--seeds", str(CHUNK)]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            found = re.search(r"^seed (\d+) failed:\n  (.*)", done.stdout, flags=re.MULTILINE)
            if found:
                return int(found[1]) + 1, found[2]
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["the run failed"])[-1]
                if last.startswith(("ModuleNotFoundError", "ImportError")):  # every fault would count as found
                    raise RuntimeError(f"the copy of the project is not complete: {last}")
                return first + 1, last
    return None, ""


def main() -> int:
    """Run every fault, or those whose name contains the argument. Return 1 if one is not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted")
    parser.add_argument("name", nargs="?", default="")
    options = parser.parse_args()
    missed = 0
    for fault in (*FAULTS, *POOL_FAULTS, *FEATURE_FAULTS, *DEFECT_FAULTS, *SDK_FAULTS):
        if options.name not in fault.name:
            continue
        seeds, what = seeds_until_found(fault)
        missed += seeds is None
        print(f"{'missed' if seeds is None else f'{seeds:4} seeds':10}  {fault.name}: {what[:110]}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
