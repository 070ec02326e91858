"""Links from the first use of a word on a page to its entry in the glossary.

The entries are the headings of `docs/glossary.md`. The links are made in the copies of the pages, so that the text of a
page stays easy to read and no author has to know which use is the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PAGE: Final = "glossary.md"
WITHOUT: Final = (PAGE, "changes.md", "contributing.md", "releasing.md", "security.md")
"""Copied pages in which no word is linked: the glossary, and pages for those who know the words."""

_NO_PROSE: Final = re.compile(
    r"^```.*?^```[ \t]*$"  # code
    r"|^#.*?$|^\|.*?$|^!!!.*?$|^:::.*?$"  # headings, tables, boxes, entries of the reference
    r"|^(?:    |\t).*?$"
    r"|<!--.*?-->|<[^>\n]+>"
    r"|!?\[[^\]]*\]\([^)]*\)"  # links, which may have line breaks
    r"|`[^`]*`",
    re.MULTILINE | re.DOTALL,
)


def terms(glossary: str) -> dict[str, str]:
    """Return the words of the glossary in lower case, each with the anchor of its entry."""
    headings = re.findall(r"^## (.+)$", glossary, re.MULTILINE)
    return {heading.lower(): re.sub(r"[^a-z0-9]+", "-", heading.lower()) for heading in headings}


def link_all(pages: Path) -> None:
    """Link the first use of each word on each page of this folder."""
    words = terms((pages / PAGE).read_text(encoding="utf-8"))
    for page in sorted(pages.rglob("*.md")):
        name = page.relative_to(pages)
        if str(name) not in WITHOUT and name.parts[0] != "api":
            up = "../" * (len(name.parts) - 1)
            page.write_text(linked(page.read_text(encoding="utf-8"), words, up + PAGE), encoding="utf-8")


def linked(text: str, words: dict[str, str], glossary: str) -> str:
    """Return the text of a page in which the first use of each word is a link.

    Args:
        text: Markdown.
        words: Words in lower case, each with the anchor of its entry.
        glossary: The link to the glossary from this page.
    """
    left = dict(words)
    return "".join(_linked_part(part, left, glossary) if is_prose else part for is_prose, part in _parts(text))


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the text in parts, each with whether it is prose."""
    end = 0
    for other in _NO_PROSE.finditer(text):
        yield True, text[end : other.start()]
        yield False, other[0]
        end = other.end()
    yield True, text[end:]


def _linked_part(prose: str, left: dict[str, str], glossary: str) -> str:
    """Return the prose with links, and remove the linked words from `left`."""

    def link(found: re.Match[str]) -> str:
        anchor = left.pop(" ".join(found["word"].lower().split()), None)
        return found[0] if anchor is None else f"[{found[0]}]({glossary}#{anchor})"

    if not left:
        return prose
    word = "|".join(re.escape(each).replace(r"\ ", r"\s") for each in sorted(left, key=len, reverse=True))
    return re.sub(rf"(?<![\w-])(?P<word>{word})s?(?![\w-])", link, prose, flags=re.IGNORECASE)
