"""Which pages the site has, of which kind each is, and how they are copied for the generator of the site."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from website.errors import BuildError

ROOT: Final = Path(__file__).parents[1]

# Kind of page -> (title, page). A page is titled as a user names the task.
SECTIONS: Final[dict[str, list[tuple[str, str]]]] = {
    "Tutorial": [
        ("From nothing to a guarded agent", "tutorial.md"),
    ],
    "How-to guides": [
        ("Deny before money is spent", "scripts.md"),
        ("Guard a service", "services.md"),
        ("Guard a stream", "streaming.md"),
        ("Guard an OpenAI, Anthropic or Gemini client", "providers.md"),
        ("Keep prices right", "prices.md"),
        ("Guard long work", "heartbeat.md"),
        ("Guard thousands of small calls", "pools.md"),
        ("Choose options of the client", "client.md"),
        ("Run workers that may die", "recovery.md"),
        ("Share the journal of a fleet", "fleets.md"),
        ("Test your agent", "testing.md"),
        ("Run any program under a budget", "run-under-a-budget.md"),
        ("Share a budget among sub-agents", "sub-agents.md"),
        ("Use the whole budget, and not more", "exact-budgets.md"),
        ("Warn and ask before a budget is used up", "soft-limits.md"),
        ("See and repair from the command line", "command-line.md"),
        ("Compare the ledger with the bill", "reconcile.md"),
        ("Watch budgets in a browser", "dashboard.md"),
        ("From the built-in server to production", "production.md"),
        ("Introduce budgets step by step", "rollout.md"),
        ("Watch events and logs", "events.md"),
        ("Receive webhooks", "webhooks.md"),
        ("Verify signed evidence", "evidence.md"),
        ("Manage tenants, budgets and keys", "admin.md"),
        ("Use a new protocol version", "regenerating.md"),
        ("Move from runcycles", "from-runcycles.md"),
    ],
    "Integrations": [],  # every page of docs/integrations/, under its own title
    "Explanations": [
        ("Leases, settlement and money", "explanations.md"),
        ("What happens when something fails", "failures.md"),
        ("What other clients do at each failure", "comparison.md"),
        ("How fast it is", "performance.md"),
        ("How we test", "how-we-test.md"),
        ("Architecture", "architecture.md"),
    ],
    "Reference": [
        ("The protocol", "protocol.md"),
        ("Amounts and subjects", "protocol/amounts-and-subjects.md"),
        ("Decisions and caps", "protocol/decisions-and-caps.md"),
        ("Guards", "protocol/guards.md"),
        ("Heartbeat", "protocol/heartbeat.md"),
        ("Settlement", "protocol/settlement.md"),
        ("Idempotency", "protocol/idempotency.md"),
        ("Responses", "protocol/responses.md"),
        ("The embedded server", "protocol/server.md"),
    ],
    "Project": [
        ("Changes", "changes.md"),
        ("Contributing", "contributing.md"),
        ("Security", "security.md"),
        ("Releasing", "releasing.md"),
    ],
}

# Page of the repository's root -> its name in the site.
ROOT_PAGES: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "RELEASING.md": "releasing.md",
}

_LINK: Final = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)((?:#[^)]*)?\))")
_FENCE: Final = re.compile(r"(^```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, list[tuple[str, str]]]:
    """Return the sections with the pages of `docs/integrations/`."""
    found = sorted(
        (ROOT / "docs" / "integrations").glob("*.md"), key=lambda page: (page.name != "README.md", page.name)
    )
    titled = [(page.read_text(encoding="utf-8").split("\n")[0].strip("# "), page) for page in found]
    return {**SECTIONS, "Integrations": [(title, f"integrations/{page.name}") for title, page in titled]}


def listed() -> list[str]:
    """Return the pages of all sections, in the order of the site."""
    return [page for pages in sections().values() for _, page in pages]


def unlisted() -> list[str]:
    """Return the pages below `docs/` that no section lists."""
    found = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    return sorted(found - set(listed()))


def check() -> None:
    """Check that the sections list every page, and only pages.

    Raises:
        BuildError: A page is not listed, or a listed page does not exist.
    """
    if left := unlisted():
        raise BuildError(f"no section lists {', '.join(left)}: add them to SECTIONS in website/pages.py")
    gone = [page for page in listed() if page not in ROOT_PAGES.values() and not (ROOT / "docs" / page).exists()]
    if gone:
        raise BuildError(f"SECTIONS in website/pages.py lists pages that do not exist: {', '.join(gone)}")


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
