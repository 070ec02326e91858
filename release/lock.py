"""Resolve the development requirements: `requirements/dev.txt` with hashes, `constraints.txt` with versions only.

`make lock` runs this. Both files are for every supported Python: pip ignores the lines of the others.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from release.steps import ROOT, ReleaseError, uv

LOCK: Final = ROOT / "requirements" / "dev.txt"
CONSTRAINTS: Final = ROOT / "constraints.txt"
_HEAD: Final = "# Made by `make lock` from pyproject.toml. Do not edit.\n"


def main() -> int:
    """Write both files, and return an exit status."""
    LOCK.parent.mkdir(exist_ok=True)
    LOCK.write_text(_HEAD + resolved(), encoding="utf-8")
    CONSTRAINTS.write_text(_HEAD + without_hashes(LOCK.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{LOCK.relative_to(ROOT)} and {CONSTRAINTS.name}: {len(pins(LOCK))} packages")
    return 0


def resolved() -> str:
    """Return the newest versions that `pyproject.toml` allows, with the hashes of their files."""
    options = ["--universal", "--generate-hashes", "--python-version", "3.11", "--no-header", "--no-annotate"]
    return uv("pip", "compile", *options, "--extra", "dev", "--no-emit-package", "cycles-sdk", "pyproject.toml")


def without_hashes(lock: str) -> str:
    """Return the lines of a lock without hashes, comments and continuation marks."""
    lines = (re.sub(r"\s*\\$", "", line) for line in lock.splitlines() if re.match(r"[A-Za-z]", line))
    return "\n".join(lines) + "\n"


def pins(path: Path) -> list[str]:
    """Return the pinned packages of a file, in lower case, with version and marker."""
    return [line.lower() for line in without_hashes(path.read_text(encoding="utf-8")).splitlines()]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReleaseError as problem:
        sys.exit(f"release: {problem}")
