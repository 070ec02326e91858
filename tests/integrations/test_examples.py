"""Each example agent runs and shows a denial."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integrations.redis_server import redis_server

FOLDER = Path(__file__).parents[2] / "examples" / "integrations"
FRAMEWORKS = {
    "adk_agent": "google.adk",
    "agent_framework_agent": "agent_framework",
    "fastmcp_server": "fastmcp",
    "langchain_agent": "langchain",
    "litellm_agent": "litellm",
    "openai_agents_agent": "agents",
    "pydantic_ai_agent": "pydantic_ai",
}
OTHERS = {
    "celery_agent": ("celery", ["summary: The long tex", "spent: 24 tokens"]),
    "dramatiq_agent": ("dramatiq", ["denied: the message waits", "spent: 54 tokens"]),
    "fastapi_agent": ("fastapi", ["request 2: 200", "request 3: 402", "BUDGET_EXCEEDED", "spent: 18 tokens of 30"]),
    "flask_agent": ("flask", ["request 2: 200", "request 3: 402", "BUDGET_EXCEEDED", "spent: 18 tokens of 30"]),
    "mcp_agent": ("mcp.server.mcpserver", ["ledgers: searched for 0.015USD", "budgets: not searched, BUDGET_EXCEEDED"]),
    "opentelemetry_agent": ("opentelemetry.sdk", ["agent run", "  cycles.guard committed", "    cycles.reserve"]),
    "rq_agent": ("rq", ["summary: The long tex", "spent: 24 tokens"]),
}
"""Examples without a loop of an agent: their library, and what they print."""


def output_of(example: str, library: str, directory: Path, *arguments: str) -> str:
    """Return what an example prints; skip the test if its library is not installed."""
    pytest.importorskip(library, reason=f"{library} is not installed: run make test-integrations")
    command = [sys.executable, "-W", "ignore", str(FOLDER / f"{example}.py"), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=directory, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_every_example_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} <= {*FRAMEWORKS, *OTHERS}


@pytest.mark.parametrize("example", FRAMEWORKS)
def test_the_example_runs_until_its_budget_is_used_up(example: str, tmp_path: Path) -> None:
    if not (FOLDER / f"{example}.py").exists():
        pytest.skip(f"{example} does not exist")
    printed = output_of(example, FRAMEWORKS[example], tmp_path)
    assert "run 1: " in printed
    assert "BUDGET_EXCEEDED" in printed


@pytest.mark.parametrize("example", OTHERS)
def test_the_example_prints_what_it_did(example: str, tmp_path: Path) -> None:
    library, lines = OTHERS[example]
    assert lines
    if example == "rq_agent":
        pytest.importorskip("redis")
        with redis_server(tmp_path) as url:
            printed = output_of(example, library, tmp_path, url)
    else:
        printed = output_of(example, library, tmp_path)
    for line in lines:
        assert line in printed
