"""Each example agent runs and shows a denial."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "integrations").glob("*.py"))
FRAMEWORKS = {
    "fastmcp_server": "fastmcp",
    "langchain_agent": "langchain",
    "openai_agents_agent": "agents",
    "pydantic_ai_agent": "pydantic_ai",
}


@pytest.mark.parametrize("example", [pytest.param(path, id=path.stem) for path in EXAMPLES])
def test_the_example_runs_until_its_budget_is_used_up(example: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec(FRAMEWORKS[example.stem]) is None:
        pytest.skip(f"{FRAMEWORKS[example.stem]} is not installed: run make test-integrations")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(example)], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert "run 1: " in ran.stdout
    assert "BUDGET_EXCEEDED" in ran.stdout
