"""`llms.txt` and `llms-full.txt`: the pages of the site for coding assistants, made from the same sources.

`llms.txt` lists the pages with their first sentence, as https://llmstxt.org describes. `llms-full.txt` contains them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from website import pages

_START: Final = "> Cycles limits what AI agents can spend: reserve an estimate, act, commit the cost or release it."


def write(copied: Path, site: Path) -> None:
    """Write both files, and the Markdown of each page beside its HTML, into the folder `site`."""
    listing, contents = [f"# Cycles for Python\n\n{_START}\n"], []
    for section, listed in {"Overview": [("Overview", pages.FIRST)], **pages.sections()}.items():
        lines = []
        for title, page in listed:
            text = (copied / page).read_text(encoding="utf-8")
            lines.append(f"- [{title}]({page}): {first_sentence(text)}")
            contents.append(f"<!-- {page} -->\n\n{_without_hidden_code(text).strip()}\n")
            (site / page).parent.mkdir(parents=True, exist_ok=True)
            (site / page).write_text(_without_hidden_code(text), encoding="utf-8")
        listing.append(f"## {section}\n\n" + "\n".join(lines) + "\n")
    for skill in (pages.ROOT / "cycles").rglob("SKILL.md"):
        contents.insert(0, f"<!-- SKILL.md -->\n\n{skill.read_text(encoding='utf-8').strip()}\n")
        (site / "SKILL.md").write_text(skill.read_text(encoding="utf-8"), encoding="utf-8")
    (site / "llms.txt").write_text("\n".join(listing), encoding="utf-8")
    (site / "llms-full.txt").write_text("\n".join(contents), encoding="utf-8")


def first_sentence(text: str) -> str:
    """Return the first sentence of a page's first paragraph, on one line and without Markdown links."""
    prose = re.sub(r"<!--.*?-->|^```.*?^```|^#.*?$|^!\[.*?$", "", text, flags=re.MULTILINE | re.DOTALL).strip()
    paragraph = " ".join(prose.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.:!?]) (?=[A-Z*`])", paragraph)[0]
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", sentence)


def _without_hidden_code(text: str) -> str:
    return re.sub(r"<!-- invisible-code.*?-->\n*", "", text, flags=re.DOTALL)
