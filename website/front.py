"""The line of the first page with the version and the addresses of the source and of its issues."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

from cycles import __version__
from website.errors import BuildError
from website.pages import ROOT

PLACE: Final = "<!-- version, source and issues -->"
_NO_ADDRESS: Final = "cycles.example"  # RELEASING.md says when it is replaced


def fill(page: Path) -> None:
    """Put the line into a copy of the first page.

    Raises:
        BuildError: The page has no place for it.
    """
    text = page.read_text(encoding="utf-8")
    if PLACE not in text:
        raise BuildError(f"docs/{page.name} has no line {PLACE}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page.write_text(text.replace(PLACE, line(__version__, project["urls"])), encoding="utf-8")


def line(version: str, urls: dict[str, str]) -> str:
    """Return the line. Addresses that lead nowhere are no links."""
    state = f"Version {version}, Apache License 2.0, Python 3.11 to 3.14, on Linux, macOS and Windows."
    if _NO_ADDRESS in urls["Source"]:
        return f"{state} No release is published yet: source and issues are where you have the clone from."
    return f"{state} [Source]({urls['Source']}), [issues]({urls['Issues']})."
