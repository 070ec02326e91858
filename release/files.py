"""Make the files of a release in `dist/`: sdist, wheel, bill of materials, licences, checksums.

`make release-files` runs this, and the workflow of a release too.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from release.package import same_bytes
from release.steps import ROOT, ReleaseError, environment, extras, run, uv

DIST: Final = ROOT / "dist"


def main() -> int:
    """Make all files, name them, and return an exit status."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for built in same_bytes(folder).iterdir():
            shutil.copy(built, DIST / built.name)
        [wheel] = DIST.glob("*.whl")
        python = environment(folder / "all")
        uv("pip", "install", f"{wheel}[{','.join(extras())}]", python=python)
        _bill_of_materials(python)
        _licences(python)
    print("\n".join(str(path.relative_to(ROOT)) for path in sorted(DIST.iterdir())))
    return 0


def _bill_of_materials(python: Path) -> None:
    """Write what is installed with every extra as a CycloneDX document."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--of", "JSON"]
    run([*command, "--pyproject", str(ROOT / "pyproject.toml"), "-o", str(DIST / "sbom.json"), str(python)])


def _licences(python: Path) -> None:
    """Write the licence of each package. A package without one fails."""
    command = [sys.executable, "-m", "piplicenses", "--python", str(python), "--from", "mixed", "--format", "json"]
    listed = json.loads(run([*command, "--with-urls"]))
    (DIST / "licenses.md").write_text("\n".join(_table(listed)) + "\n", encoding="utf-8")


def _table(listed: list[dict[str, str]]) -> Iterator[str]:
    yield "| package | version | licence |"
    yield "|---|---|---|"
    for package in sorted(listed, key=lambda found: found["Name"].lower()):
        if package["License"] in ("", "UNKNOWN"):
            raise ReleaseError(f"{package['Name']} {package['Version']} names no licence: read its files, then decide")
        licence = " ".join(package["License"].split())[:80]
        yield f"| {package['Name']} | {package['Version']} | {licence} |"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReleaseError as problem:
        sys.exit(f"release: {problem}")
