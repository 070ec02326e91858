"""What the checks share: running commands, copying the sources that git knows, and the extras of the project."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
# Extras that users install. The others are for developers of this project.
DEVELOPMENT: Final = {"dev", "docs", "release"}
# A date before which no file of the project was made, so that an archive does not depend on when it was built.
EPOCH: Final = "1767225600"


class ReleaseError(Exception):
    """A check failed. The message says what, and what to do."""


def run(command: list[str], *, cwd: Path = ROOT, variables: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed.

    Raises:
        ReleaseError: The command failed. The message has its output.
    """
    ran = subprocess.run(command, cwd=cwd, env={**os.environ, **(variables or {})}, capture_output=True, text=True)
    if ran.returncode:
        raise ReleaseError(f"`{' '.join(command)}` ended with status {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def uv(*arguments: str, python: Path | None = None, cwd: Path = ROOT) -> str:
    """Run uv, which installs fast and can resolve the lowest versions; with `python`, in that environment."""
    where = ["--python", str(python)] if python else []
    return run([sys.executable, "-m", "uv", "--quiet", *arguments, *where], cwd=cwd)


def environment(folder: Path) -> Path:
    """Make a fresh environment in `folder` with the interpreter that runs this check, and return its Python."""
    uv("venv", "--clear", "--python", sys.executable, str(folder))
    return folder / "bin" / "python"


def sources(target: Path) -> Path:
    """Copy the files that git knows into `target`: a build sees nothing else."""
    for name in filter(None, run(["git", "ls-files", "-z"]).split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def build(source: Path, out: Path) -> dict[str, str]:
    """Build the sdist and the wheel of `source` into `out`, and return the SHA-256 of each file."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    run(command, variables={"SOURCE_DATE_EPOCH": EPOCH})
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def extras() -> list[str]:
    """Return the extras that users install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(set(project["optional-dependencies"]) - DEVELOPMENT)
