"""Run the tests in short form with the lowest version of every dependency that `pyproject.toml` allows.

`make test-lowest` runs this. Integrations and provider clients have the same test in their own targets. First it checks
that every extra can be installed in its lowest versions together with the lowest ones of the package itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

from release.steps import ROOT, ReleaseError, environment, run, uv

EXTRAS: Final = "aiohttp,cli,embedded,evidence,fastapi,openai"
TOOLS: Final = ("anyio", "build", "django", "greenlet", "hatchling", "hypothesis", "jsonschema", "pytest")
MORE_TOOLS: Final = ("pytest-timeout", "pytest-xdist", "ruamel.yaml", "schemathesis", "sybil")
# What touches the dependencies: httpx, attrs, dateutil, platformdirs, and those of the extras.
SHORT: Final = ("tests/client", "tests/core", "tests/evidence", "tests/http", "tests/journal")


FOR_DEVELOPMENT: Final = frozenset({"dev", "docs", "release"})


def main(folder: Path) -> int:
    """Install the lowest versions in `folder`, list them, run the tests, and return their exit status."""
    check_extras()
    python = environment(folder)
    uv("pip", "install", "--resolution", "lowest-direct", "-e", f".[{EXTRAS}]", python=python)
    uv("pip", "install", *TOOLS, *MORE_TOOLS, python=python)
    print("the lowest versions:", " ".join(_versions(python)), flush=True)
    return subprocess.call([str(python), "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *SHORT], cwd=ROOT)


def extras() -> list[str]:
    """Return the extras that users install."""
    return [name for name in _project()["optional-dependencies"] if name not in FOR_DEVELOPMENT]


def lowest_of(extra: str) -> list[str]:
    """Return the lowest version of each package that the package itself and one of its extras need, as pins."""
    project, left = _project(), [f"cycles-sdk[{extra}]"]
    needed = list(project["dependencies"])
    while left:
        for name in re.findall(r"[\w-]+", left.pop().partition("[")[2]):
            for requirement in project["optional-dependencies"][name]:
                (left if requirement.startswith("cycles-sdk[") else needed).append(requirement)
    lowest: dict[str, tuple[int, ...]] = {}
    for requirement in needed:
        name, version = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<.*)?", requirement).groups()  # type: ignore[union-attr]
        lowest[name] = max(lowest.get(name, (0,)), tuple(int(part) for part in version.split(".")))
    return [f"{name}=={'.'.join(map(str, version))}" for name, version in lowest.items()]


def check_extras() -> None:
    """Check that the lowest versions of each extra and of the package itself can be installed together.

    Raises:
        ReleaseError: Some cannot; the message has the extra.
    """
    for extra in extras():
        pins = lowest_of(extra)
        command = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--no-header",
            "--python-version",
            "3.11",
            "-",
        ]
        solved = subprocess.run(command, input="\n".join(pins), capture_output=True, text=True, check=False)
        if solved.returncode:
            raise ReleaseError(f"the extra {extra} cannot be installed in its lowest versions, {pins}: {solved.stderr}")
        print(f"{extra}: {' '.join(pins)}", flush=True)


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _versions(python: Path) -> list[str]:
    listed = run([sys.executable, "-m", "uv", "pip", "freeze", "--python", str(python)])
    wanted = ("attrs", "click", "cryptography", "fastapi", "h11", "httpx", "openai", "platformdirs", "python-dateutil")
    return [line for line in listed.split() if line.partition("==")[0] in (*wanted, "rich", "uvicorn", "genai-prices")]


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except ReleaseError as problem:
        sys.exit(f"release: {problem}")
