"""Run the tests on free-threaded builds of Python (3.13t, 3.14t), on each that is installed.

`make test-free-threaded` runs this. Tests that need a package without a file for such a build are left out, and the run
says which. The simulation is left out too: its greenlets crash there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from release.steps import ROOT, ReleaseError, uv

INTERPRETERS: Final = ("python3.13t", "python3.14t")
# What the tests of SUITE import.
TOOLS: Final = (
    *("aiohttp", "anyio", "build", "click", "django", "editables", "fastapi", "genai-prices", "hatchling"),
    *("httpx-aiohttp", "hypothesis", "jsonschema", "pydantic", "pytest", "pytest-timeout", "pytest-xdist"),
    *("pyyaml", "rich", "ruamel.yaml", "starlette", "sybil", "uvicorn"),
)
SUITE: Final = (
    *("tests/admin", "tests/client", "tests/conformance", "tests/contract", "tests/core", "tests/embedded"),
    *("tests/guards", "tests/http", "tests/journal", "tests/lease", "tests/performance", "tests/pools"),
    *("tests/recovery", "tests/stores", "tests/webhooks"),
)
# Packages that have compiled parts, and the tests that need them.
OPTIONAL: Final = {
    "cryptography": ("tests/evidence",),
    "schemathesis": ("tests/embedded/test_schemathesis.py",),
}


def main(folder: Path) -> int:
    """Run the tests on each interpreter, in environments in `folder`. Return 1 if a test fails on one of them."""
    failed = False
    for name in INTERPRETERS:
        if shutil.which(name) is None:
            print(f"{name}: not found, skipped", flush=True)
        else:
            failed |= run_on(name, folder / name) != 0
    return int(failed)


def run_on(interpreter: str, folder: Path) -> int:
    """Make the environment of one interpreter, run the tests without the GIL, and return their exit status."""
    uv("venv", "--clear", "--python", interpreter, str(folder))
    python = folder / "bin" / "python"
    uv("pip", "install", "-e", ".", python=python)
    # Without a compiler: the newest versions that have files for this build.
    uv("pip", "install", "--only-binary", ":all:", *TOOLS, python=python)
    chosen = list(SUITE)
    for package, tests in OPTIONAL.items():
        try:
            uv("pip", "install", "--only-binary", ":all:", package, python=python)
        except ReleaseError:
            print(f"{interpreter}: no file of {package} for this build, so without {' '.join(tests)}", flush=True)
            chosen += [f"--ignore={path}" for path in tests]
        else:
            chosen += [path for path in tests if not path.startswith(SUITE)]
    command = [str(python), "-X", "gil=0", "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *chosen]
    return subprocess.call(command, cwd=ROOT, env={**os.environ, "PYTHON_GIL": "0"})


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except ReleaseError as problem:
        sys.exit(f"release: {problem}")
