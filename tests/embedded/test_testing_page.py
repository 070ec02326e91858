"""Run the agent and the test of docs/testing.md as one file."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

import pytest

from .process import ROOT

pytest_plugins = ["pytester"]


def test_the_agent_and_the_test_of_the_page_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    agent, test = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]
    model = "import types\ndef call_model(text, max_tokens): return types.SimpleNamespace(text=text)\n"
    pytester.makepyfile(model + agent + test)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    installed = any(entry.value == "cycles.embedded.pytest_plugin" for entry in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "cycles.embedded.pytest_plugin"]
    pytester.runpytest_subprocess(*plugin, "--strict-markers", "-W", "error").assert_outcomes(passed=1)
    assert len([line for line in test.splitlines() if line.strip()]) <= 10
