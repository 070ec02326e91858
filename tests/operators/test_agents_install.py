"""`tests/agents/install.sh`: what it prints, and how it exits, if it cannot install an agent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.operators.kit import ROOT, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script of the shell")


def _install(tmp_path: Path, names: str) -> subprocess.CompletedProcess[str]:
    """Run it with an npm that fails, and without its pauses."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for program, code in (("npm", "echo npm: no network >&2; exit 7"), ("sleep", "exit 0")):
        path = programs / program
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o755)
    variables = environment(VENV=str(tmp_path), NAMES=names, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
    script = ROOT / "tests" / "agents" / "install.sh"
    return subprocess.run(["sh", str(script)], capture_output=True, text=True, env=variables, timeout=300)


def test_a_package_that_cannot_be_downloaded_ends_the_install(tmp_path: Path) -> None:
    ran = _install(tmp_path, "claude codex")
    assert ran.returncode != 0
    assert ran.stderr.count("npm: no network") == 3
    assert "@anthropic-ai/claude-code@2 failed, try 3 of 3" in ran.stderr
    assert "codex" not in ran.stderr


def test_an_agent_that_does_not_exist_ends_the_install(tmp_path: Path) -> None:
    ran = _install(tmp_path, "nope")
    assert ran.returncode != 0
    assert "there is no agent nope; NAMES may have claude codex gemini aider" in ran.stderr
    assert "try 1" not in ran.stderr
