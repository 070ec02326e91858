"""Run the commands whose output the pages show.

A page marks the output of a command: `<!-- output: COMMAND -->` stands directly before a `text` block. The build runs
the command and shows what it printed now. `make docs-outputs` writes that into the pages themselves, for readers who
read the pages without the site. Each page has an embedded server and an empty home folder, as in its tests.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import cycles
from website.errors import BuildError
from website.pages import ROOT

_MARKED: Final = re.compile(r"(<!-- output: (?P<command>.+?) -->\n\n?```text\n)(?P<shown>.*?)(^```$)", re.M | re.S)


def fill(pages: Path) -> None:
    """Put the output of each marked command into the copied pages."""
    for page in sorted(pages.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if _MARKED.search(text):
            page.write_text(with_outputs(text, page), encoding="utf-8")


def renew() -> list[str]:
    """Put the output of each marked command into the pages of the repository; return the pages that changed."""
    changed = []
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        text = page.read_text(encoding="utf-8")
        if _MARKED.search(text) and (renewed := with_outputs(text, page)) != text:
            page.write_text(renewed, encoding="utf-8")
            changed.append(str(page.relative_to(ROOT)))
    return changed


def with_outputs(text: str, page: Path) -> str:
    """Return the text of a page with the output that its commands print now.

    Raises:
        BuildError: A command failed.
    """
    with _surroundings() as variables:
        return _MARKED.sub(lambda marked: f"{marked[1]}{_run(marked['command'], variables, page)}{marked[4]}", text)


def _run(command: str, variables: dict[str, str], page: Path) -> str:
    words, environment = shlex.split(command), dict(variables)
    while "=" in words[0]:  # a variable for this command only, or "NAME=" for a command without it
        name, _, value = words.pop(0).partition("=")
        environment |= {name: value}
        if not value:
            del environment[name]
    if words[0] in ("cycles", "python"):
        words = [sys.executable, *(["-m", "cycles"] if words[0] == "cycles" else []), *words[1:]]
    words = [str(ROOT / word) if word.endswith(".py") and (ROOT / word).exists() else word for word in words]
    ran = subprocess.run(words, env=environment, cwd=variables["HOME"], capture_output=True, text=True, timeout=240)
    if ran.returncode not in (0, 1):
        raise BuildError(f"{page.name}: `{command}` ended with status {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    printed = (ran.stdout + ran.stderr).strip() + "\n"
    return printed.replace(variables["CYCLES_BASE_URL"], "http://127.0.0.1:7878").replace(variables["HOME"], "~")


def _spend_something(client: cycles.Cycles) -> None:
    for spent in ("0.42", "0.31", "0.50"):
        action = ("llm.completion", "gpt-4o")
        with client.reserve(cycles.usd(1), action=action, subject={"agent": "researcher"}) as guard:
            guard.commit(cycles.usd(spent))


@contextmanager
def _surroundings() -> Iterator[dict[str, str]]:
    """Yield the environment of a page's commands: a server with budgets, and an empty home folder."""
    budgets = {"tenant:acme": cycles.usd(10), "tenant:acme/agent:researcher": cycles.usd(2)}
    server = cycles.EmbeddedServer(budgets=budgets)
    with tempfile.TemporaryDirectory() as home, server.listen(port=0) as url:
        with cycles.Cycles(base_url=url, api_key=server.api_key, tenant="acme", journal=False) as client:
            _spend_something(client)
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith("CYCLES_")},
            "HOME": home,
            "XDG_STATE_HOME": home,
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "CYCLES_BASE_URL": url,
            "CYCLES_API_KEY": server.api_key,
            "CYCLES_TENANT": "acme",
        }
    server.close()
