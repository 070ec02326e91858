"""Build the site into `build/site`: copy the pages, make the reference, run the commands, check the result.

The build fails on a broken link, a page that no section lists, a public name without a docstring or a rule, a command
whose output cannot be made, and a file that would load something from another origin.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from website import assistants, diagrams, front, glossary, outputs, pages, reference
from website.errors import BuildError
from website.pages import ROOT

BUILD: Final = ROOT / "build" / "docs"
_ELSEWHERE: Final = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?:https?:)?//[^\"]+\"")


def main(arguments: list[str] | None = None) -> int:
    """Build the site, and return an exit status."""
    parser = argparse.ArgumentParser(prog="python -m website", description="Build the documentation site.")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site", help="where the site is written")
    parser.add_argument("--renew-outputs", action="store_true", help="run the commands of docs/ and renew their output")
    options = parser.parse_args(arguments)
    try:
        if options.renew_outputs:
            print(f"renewed: {', '.join(outputs.renew()) or 'nothing changed'}")
            return 0
        build(options.output)
    except BuildError as problem:
        print(f"website: {problem}", file=sys.stderr)
        return 1
    print(f"website: {options.output / 'index.html'}")
    return 0


def build(output: Path, work: Path = BUILD) -> None:
    """Build the site into the folder `output`, with copies of the pages in the folder `work`.

    Raises:
        BuildError: The site is not whole. The message says what to change.
    """
    if work.exists():
        shutil.rmtree(work)
    copied = work / "pages"
    copied.mkdir(parents=True)
    pages.check()
    diagrams.check()
    pages.copy_all(copied)
    front.fill(copied / pages.FIRST)
    glossary.link_all(copied)
    outputs.fill(copied)
    titles = reference.write(copied / "api")
    shutil.copytree(ROOT / "website" / "assets", copied / "assets", dirs_exist_ok=True)
    configuration = work / "zensical.toml"
    configuration.write_text(_configuration(titles), encoding="utf-8")
    _generate(configuration)
    site = work / "site"
    _use_own_worker(site)
    _check_reference(site / "api")
    assistants.write(copied, site)
    _check_origins(site)
    if output.exists():
        shutil.rmtree(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(site, output)


def _configuration(reference_titles: dict[str, str]) -> str:
    sections: list[Any] = [{"Home": pages.FIRST}]
    for section, listed in pages.sections().items():
        entries: list[Any] = [{title: page} for title, page in listed]
        if section == "Reference":
            entries = [{title: f"api/{page}"} for page, title in reference_titles.items()] + entries
        sections.append({section: entries})
    template = (ROOT / "website" / "zensical.toml").read_text(encoding="utf-8")
    return template.replace('"NAV"', _toml(sections)).replace('"PATHS"', json.dumps(str(ROOT)))


def _toml(value: Any) -> str:
    """Return strings, lists and tables of the navigation as TOML on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value)


def _generate(configuration: Path) -> None:
    """Run the generator of the site. It fails on every warning, such as a link that leads nowhere."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(configuration)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ran.returncode:
        told = re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout + ran.stderr)
        raise BuildError(f"the generator rejected the pages in {configuration.parent / 'pages'}:\n{told}")


def _use_own_worker(site: Path) -> None:
    """Let the search of pages that are opened as files use the copy of iframe-worker in `assets/`.

    Browsers start no worker from a file, so the generator loads this small script from another origin.
    """
    for page in site.rglob("*.html"):
        own = "../" * len(page.relative_to(site).parent.parts) + "assets/iframe-worker/shim.js"
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace("https://unpkg.com/iframe-worker/shim", own), encoding="utf-8")


def _check_reference(pages: Path) -> None:
    contents = "\n".join(page.read_text(encoding="utf-8") for page in sorted(pages.rglob("*.html")))
    if gone := list(reference.missing(contents)):
        raise BuildError(f"the reference does not show {', '.join(gone)}: see website/griffe_operations.py")
    names = sum(len(names) for names in reference.names_by_page().values())
    if contents.count("<p>Rule: <a ") < names:
        raise BuildError("the reference has names without the rule that they follow: see website/rules.py")


def _check_origins(site: Path) -> None:
    for page in sorted(site.rglob("*.html")):
        found = _ELSEWHERE.search(page.read_text(encoding="utf-8"))
        if found:
            raise BuildError(f"{page.relative_to(site)} loads from another origin: {found[0]}")
