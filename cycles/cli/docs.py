"""`cycles docs`: the pages that are shipped in the package, for use without a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click
from rich.markdown import Markdown

import cycles
from cycles._errors import did_you_mean
from cycles.cli import _frame as frame
from cycles.cli._frame import Cli

_PACKAGE: Final = Path(cycles.__file__).parent
SKILL: Final = "SKILL"
_COMMENT: Final = re.compile(r"<!--.*?-->\n*", re.DOTALL)
"""Instructions for the tests of the pages."""


@frame.command("docs", settings=False)
@click.argument("page", required=False)
def command(cli: Cli, page: str | None) -> None:
    """Print a page of the documentation, or the list of pages. SKILL is for coding assistants."""
    found = pages()
    if page is None:
        titles = {name: _title(path) for name, path in found.items()}
        if cli.out.json:
            cli.out.document({"pages": [{"name": name, "title": title} for name, title in titles.items()]})
        else:
            cli.out.table(("page", "title"), titles.items())
        return
    name = page.removesuffix(".md").removeprefix("docs/")
    if name not in found:
        raise cycles.InvalidRequestError(
            f"there is no page {page!r:.80}; cycles docs lists them{did_you_mean(name, found)}"
        )
    text = found[name].read_text("utf-8")
    if cli.out.json:
        cli.out.document({"name": name, "title": _title(found[name]), "text": text})
    elif cli.out.is_terminal:
        cli.out.draw(Markdown(_COMMENT.sub("", text)))
    else:
        click.echo(text, nl=False)


def pages() -> dict[str, Path]:
    """Return the pages by name: those in the wheel, or those of the checkout."""
    shipped = _PACKAGE / "_docs"
    root = shipped if shipped.is_dir() else _PACKAGE.parent / "docs"
    found = {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.md"))}
    return {SKILL: _PACKAGE / "SKILL.md", **{name.replace("\\", "/"): path for name, path in found.items()}}


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return next((row[2:].strip() for row in lines if row.startswith("# ")), path.stem)
