"""The pages hang together: links lead somewhere, headings they name are there, every page can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [link for link in LINK.findall(prose) if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def resolves(page: Path, link: str) -> bool:
    """Return whether a link leads to a file, and to a heading of it if it names one."""
    path, _, heading = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not heading or heading in anchors(target))


def test_the_pages_have_links() -> None:
    assert sum(len(links(page)) for page in PAGES) > 200


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_every_link_of_the_pages_resolves(page: Path) -> None:
    assert [link for link in links(page) if not resolves(page, link)] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached = {ROOT / "README.md"}
    left = list(reached)
    while left:
        page = left.pop()
        found = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)} & set(PAGES)
        left += found - reached
        reached |= found
    assert set(PAGES) <= reached, f"no link to {sorted(page.name for page in set(PAGES) - reached)}"


def test_the_page_for_users_of_runcycles_maps_every_name_of_its_api() -> None:
    page = (ROOT / "docs" / "from-runcycles.md").read_text()
    names = (Path(__file__).parent / "runcycles_api.txt").read_text().splitlines()[1:]
    assert len(names) > 150
    assert [name for name in names if not re.search(rf"\b{name}\b", page)] == []
