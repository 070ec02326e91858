"""Draw the diagrams of `docs/diagrams/`: each `.mmd` file becomes an `.svg` beside it.

`python -m website.diagrams` needs npm and Chromium. The pictures are kept in the repository, so that building the site
needs neither; the first line of each names the text it was drawn from, and the build fails if that has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from website.errors import BuildError
from website.pages import ROOT

MERMAID: Final = "@mermaid-js/mermaid-cli@12.2.0"
FOLDER: Final = ROOT / "docs" / "diagrams"


def check() -> None:
    """Check that every picture was drawn from the text beside it.

    Raises:
        BuildError: A picture is missing or older than its text.
    """
    for source in sorted(FOLDER.glob("*.mmd")):
        picture = source.with_suffix(".svg")
        if not picture.exists() or _mark(source) not in picture.read_text(encoding="utf-8"):
            raise BuildError(f"{picture.relative_to(ROOT)} is not drawn from {source.name}: run make diagrams")


def draw() -> None:
    """Draw every diagram with mermaid, in a Chromium that is installed on this machine.

    Raises:
        BuildError: npm or Chromium is missing, or mermaid rejects a diagram.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None or shutil.which("npm") is None:
        raise BuildError("drawing needs npm and Chromium: install the packages npm and chromium")
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "browser.json"
        settings.write_text(json.dumps({"executablePath": browser, "args": ["--no-sandbox"]}))
        variables = {**os.environ, "PUPPETEER_SKIP_DOWNLOAD": "1"}
        _run(["npm", "install", "--silent", "--prefix", folder, MERMAID], variables)
        for source in sorted(FOLDER.glob("*.mmd")):
            picture = source.with_suffix(".svg")
            mermaid = str(Path(folder) / "node_modules" / ".bin" / "mmdc")
            options = ["-p", str(settings), "-i", str(source), "-o", str(picture), "--svgId", source.stem]
            _run([mermaid, *options, "--theme", "neutral"], variables)
            drawn = re.sub(r"@import url\([^)]*\);?", "", picture.read_text(encoding="utf-8"))
            picture.write_text(f"{_mark(source)}\n{drawn}\n", encoding="utf-8")


def _mark(source: Path) -> str:
    return f"<!-- drawn from {source.name}, sha256 {hashlib.sha256(source.read_bytes()).hexdigest()} -->"


def _run(command: list[str], variables: dict[str, str]) -> None:
    ran = subprocess.run(command, env=variables, capture_output=True, text=True)
    if ran.returncode:
        raise BuildError(f"`{' '.join(command)}` failed:\n{ran.stdout}{ran.stderr}")


if __name__ == "__main__":
    try:
        draw()
    except BuildError as problem:
        sys.exit(f"website: {problem}")
