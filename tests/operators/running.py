"""How the tests of `cycles run` start it: the provider it forwards to, the program it runs, what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cycles.testing import FakeProvider
from tests.operators.kit import ROOT, Ran, environment

USED = {"tokens_input": 1000, "tokens_output": 100}
VENV = Path(sys.prefix)
PACKAGES = {"openai": "openai", "anthropic": "anthropic", "google": "google.genai"}
GPT_4O = 350_000
"""Microcents of that usage: 1,000 x 250 and 100 x 1,000."""
VARIABLES = {
    "OPENAI_BASE_URL": "/openai/v1",
    "OPENAI_API_BASE": "/openai/v1",
    "OPENAI_HOST": "/openai",
    "ANTHROPIC_BASE_URL": "/anthropic",
    "ANTHROPIC_API_BASE": "/anthropic",
    "ANTHROPIC_API_URL": "/anthropic",
    "GOOGLE_GEMINI_BASE_URL": "/gemini",
    "GEMINI_API_BASE": "/gemini",
    "GOOGLE_VERTEX_BASE_URL": "/vertex",
    "ANTHROPIC_VERTEX_BASE_URL": "/vertex/v1",
    "GROQ_BASE_URL": "/groq",
    "GROQ_API_BASE": "/groq/openai/v1",
    "MISTRAL_BASE_URL": "/mistral/v1",
    "MISTRAL_API_BASE": "/mistral/v1",
    "XAI_API_BASE": "/xai/v1",
    "OPENROUTER_API_BASE": "/openrouter/api/v1",
    "DEEPSEEK_API_BASE": "/deepseek",
}
"""What each variable has behind the address of the proxy."""


def far_from_midnight() -> str:
    """Return a time zone in which no day ends during a test."""
    return "UTC" if datetime.now(UTC).hour < 20 else "Pacific/Kiritimati"  # 14 hours ahead of UTC


def upstreams(provider: FakeProvider) -> list[str]:
    urls = {"openai": provider.openai_url, "anthropic": provider.url, "gemini": provider.url}
    return [part for name, url in urls.items() for part in ("--upstream", f"{name}={url}")]


def agent(name: str, python: str = sys.executable) -> list[str]:
    return ["--", python, "-m", "tests.operators.agents", name]


def summary(ran: Ran) -> Any:
    return json.loads(ran.err.splitlines()[-1])


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cycles", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        **options,
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()
