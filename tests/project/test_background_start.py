"""The suite passes if the shell that started it ignores SIGINT, as it does for `nohup` and for `&` in a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform == "win32", reason="has no such shell")
def test_tests_of_interrupts_pass_in_the_background() -> None:
    tests = "tests/guards/test_death.py -k interrupt"
    command = f"trap '' INT; exec {sys.executable} -m pytest -q -p no:xdist {tests}"
    ran = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout
