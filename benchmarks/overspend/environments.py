"""One environment for each tool, below `.venv/overspend`, with the pinned versions of `requirements/`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.overspend import litellm_proxy
from benchmarks.overspend.processes import CellError

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
EXTRAS: Final = "run,openai,anthropic,tokens"
_PIP: Final = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def made(names: Iterable[str]) -> dict[str, Path | str]:
    """Return the interpreter of each environment, or why it cannot be installed."""
    folder = ROOT / os.environ.get("VENV", ".venv") / "overspend"
    found: dict[str, Path | str] = {}
    for name in sorted(names):
        requirements = HERE / "requirements" / f"{name}.txt"
        found[name] = _environment(folder / name, requirements)
        if isinstance(found[name], str):
            print(f"overspend: {name}: {found[name]}", flush=True)
    return found


def _environment(folder: Path, requirements: Path) -> Path | str:
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = requirements.read_text()
    if requirements.stem == "cycles":
        wanted += (ROOT / "pyproject.toml").read_text()
    if requirements.stem == litellm_proxy.ENVIRONMENT:
        wanted += "".join(path.read_text() for path in sorted((HERE / "prisma").iterdir()))
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"setting up {folder}", flush=True)
    commands = [[sys.executable, "-m", "venv", str(folder)], [str(python), *_PIP, "-r", str(requirements)]]
    if requirements.stem == "cycles":
        commands[1] += ["-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[{EXTRAS}]"]
    for command in commands:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if ran.returncode:
            said = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
            return f"cannot be installed: {said[-1][:200]}"
    if requirements.stem == litellm_proxy.ENVIRONMENT:
        try:
            litellm_proxy.prepare(folder)
        except (OSError, subprocess.SubprocessError, CellError) as problem:
            return f"cannot be installed: {problem}"[:300]
    stamp.write_text(wanted)
    return python


def versions(name: str) -> str:
    """Return the pinned versions of an environment."""
    return ", ".join((HERE / "requirements" / f"{name}.txt").read_text().split())
