"""The workers of pytest-xdist leave out reports (`tests/conftest.py`), but none of a test, a failure or an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

@pytest.fixture
def bad_start():
    raise ValueError("before the test")

@pytest.fixture
def bad_end():
    yield
    raise ValueError("after the test")

def test_passes(): pass
def test_fails(): assert 1 == 2
def test_skips(): pytest.skip("not here")
def test_has_no_start(bad_start): pass
def test_has_no_end(bad_end): pass

@pytest.mark.xfail(strict=True)
def test_fails_as_expected(): assert 1 == 2

@pytest.mark.skip(reason="never")
def test_is_left_out(): pass
"""


@pytest.mark.parametrize(
    "options", [[], ["-n", "1"], ["-n", "1", "--durations", "9"]], ids=["here", "worker", "durations"]
)
def test_every_outcome_is_reported(tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "test_outcomes.py"
    file.write_text(TESTS, "utf-8")
    plugins = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *plugins,
        "--rootdir",
        str(tmp_path),
        "-c",
        "pyproject.toml",
        *options,
        str(file),
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "1 failed, 2 passed, 2 skipped, 1 xfailed, 2 errors" in ran.stdout
    assert "before the test" in ran.stdout
    assert "after the test" in ran.stdout
