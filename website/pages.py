"""Which pages the site has, in which group each is, and how they are copied for the generator of the site."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from website.errors import BuildError

ROOT: Final = Path(__file__).parents[1]

# Group of the navigation -> its pages. The title of a page is its heading.
SECTIONS: Final[dict[str, list[str]]] = {
    "Start": [
        "run-under-a-budget.md",
        "install.md",
        "tutorial.md",
        "explanations.md",
        "glossary.md",
    ],
    "Guard your code": [
        "providers.md",
        "more-providers.md",
        "scripts.md",
        "services.md",
        "streaming.md",
        "heartbeat.md",
        "pools.md",
        "sub-agents.md",
        "exact-budgets.md",
        "soft-limits.md",
        "prices.md",
        "media.md",
        "client.md",
        "testing.md",
    ],
    "Integrations": [],  # every page of docs/integrations/
    "Operate": [
        "command-line.md",
        "dashboard.md",
        "production.md",
        "rollout.md",
        "recovery.md",
        "failures.md",
        "fleets.md",
        "reconcile.md",
        "admin.md",
        "events.md",
        "webhooks.md",
        "evidence.md",
    ],
    "Reference": [
        "protocol.md",
        "protocol/amounts-and-subjects.md",
        "protocol/decisions-and-caps.md",
        "protocol/guards.md",
        "protocol/heartbeat.md",
        "protocol/settlement.md",
        "protocol/idempotency.md",
        "protocol/responses.md",
        "protocol/server.md",
    ],
    "How it is built": [
        "comparison.md",
        "overspend.md",
        "performance.md",
        "how-we-test.md",
        "architecture.md",
        "regenerating.md",
        "from-runcycles.md",
    ],
    "Project": [
        "changes.md",
        "contributing.md",
        "security.md",
        "releasing.md",
    ],
}

# Page of the repository's root -> its name in the site.
ROOT_PAGES: Final = {
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "RELEASING.md": "releasing.md",
}

FIRST: Final = "index.md"

_LINK: Final = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)((?:#[^)]*)?\))")
_FENCE: Final = re.compile(r"(^```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, list[tuple[str, str]]]:
    """Return the groups of the navigation, each with the titles and names of its pages."""
    found = sorted(
        (ROOT / "docs" / "integrations").glob("*.md"), key=lambda page: (page.name != "README.md", page.name)
    )
    groups = {**SECTIONS, "Integrations": [f"integrations/{page.name}" for page in found]}
    return {group: [(title(page), page) for page in listed] for group, listed in groups.items()}


def title(page: str) -> str:
    """Return the heading of a page of the site.

    Raises:
        BuildError: The page does not exist.
    """
    source = next((ROOT / name for name, copied in ROOT_PAGES.items() if copied == page), ROOT / "docs" / page)
    if not source.exists():
        raise BuildError(f"SECTIONS in website/pages.py lists a page that does not exist: {page}")
    return source.read_text(encoding="utf-8").partition("\n")[0].strip("# ")


def listed() -> list[str]:
    """Return the pages of all groups, in the order of the site."""
    return [page for pages in sections().values() for _, page in pages]


def unlisted() -> list[str]:
    """Return the pages below `docs/` that no group lists. The first page of the site is in none."""
    found = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    return sorted(found - set(listed()) - {FIRST})


def check() -> None:
    """Check that the groups list every page, and only pages.

    Raises:
        BuildError: A page is not listed, or a listed page does not exist.
    """
    if left := unlisted():
        raise BuildError(f"no group lists {', '.join(left)}: add them to SECTIONS in website/pages.py")


def copy_all(target: Path) -> None:
    """Copy every page and picture into `target`, with links that lead to the copies."""
    for page in sorted((ROOT / "docs").rglob("*")):
        if page.is_file():
            _copy(page, target / page.relative_to(ROOT / "docs"), target)
    for name, copied in ROOT_PAGES.items():
        _copy(ROOT / name, target / copied, target)


def _copy(page: Path, copied: Path, target: Path) -> None:
    copied.parent.mkdir(parents=True, exist_ok=True)
    if page.suffix == ".md":
        text = page.read_text(encoding="utf-8")
        copied.write_text("".join(_with_links(text, page, copied, target)), encoding="utf-8")
    else:
        shutil.copy(page, copied)


def _with_links(text: str, page: Path, copied: Path, target: Path) -> Iterator[str]:
    for part in _FENCE.split(text):
        yield part if part.startswith("```") else _LINK.sub(lambda link: _moved(link, page, copied, target), part)


def _moved(link: re.Match[str], page: Path, copied: Path, target: Path) -> str:
    """Return a link to the copy of what it leads to. A file outside of the pages is copied too."""
    opening, path, rest = link.groups()
    if re.match(r"[a-z]+:", path):
        return link[0]
    aim = (page.parent / path).resolve()
    inside = str(aim.relative_to(ROOT))
    if inside in ROOT_PAGES:
        moved = target / ROOT_PAGES[inside]
    elif aim.is_relative_to(ROOT / "docs"):
        moved = target / aim.relative_to(ROOT / "docs")
    else:
        moved = target / "files" / f"{inside}.txt" if aim.suffix != ".png" else target / "files" / inside
        moved.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(aim, moved)
    return f"{opening}{_relative(moved, copied.parent)}{rest}"


def _relative(path: Path, folder: Path) -> str:
    up = 0
    while not path.is_relative_to(folder):
        folder, up = folder.parent, up + 1
    return "../" * up + path.relative_to(folder).as_posix()
