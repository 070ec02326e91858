"""Run the tests in short form with the lowest version of every dependency that `pyproject.toml` allows.

`make test-lowest` runs this. Integrations and provider clients have the same test in their own targets.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from release.steps import ROOT, ReleaseError, environment, run, uv

EXTRAS: Final = "aiohttp,cli,embedded,evidence,fastapi,openai"
TOOLS: Final = ("anyio", "build", "django", "greenlet", "hatchling", "hypothesis", "jsonschema", "pytest")
MORE_TOOLS: Final = ("pytest-timeout", "pytest-xdist", "ruamel.yaml", "schemathesis", "sybil")
# What touches the dependencies: httpx, attrs, dateutil, platformdirs, and those of the extras.
SHORT: Final = ("tests/client", "tests/core", "tests/evidence", "tests/http", "tests/journal")


def main(folder: Path) -> int:
    """Install the lowest versions in `folder`, list them, run the tests, and return their exit status."""
    python = environment(folder)
    uv("pip", "install", "--resolution", "lowest-direct", "-e", f".[{EXTRAS}]", python=python)
    uv("pip", "install", *TOOLS, *MORE_TOOLS, python=python)
    print("the lowest versions:", " ".join(_versions(python)), flush=True)
    return subprocess.call([str(python), "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile", *SHORT], cwd=ROOT)


def _versions(python: Path) -> list[str]:
    listed = run([sys.executable, "-m", "uv", "pip", "freeze", "--python", str(python)])
    wanted = ("attrs", "click", "cryptography", "fastapi", "h11", "httpx", "openai", "platformdirs", "python-dateutil")
    return [line for line in listed.split() if line.partition("==")[0] in (*wanted, "rich", "uvicorn", "genai-prices")]


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except ReleaseError as problem:
        sys.exit(f"release: {problem}")
