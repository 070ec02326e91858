"""Write the lists of endpoints of two pages from the files of the providers: ``python -m tests.providers.tables``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cycles.providers._provider import PROVIDERS, provider_named

DOCS = Path(__file__).parents[2] / "docs"
OWN = ("openai", "anthropic", "google")
PAGES = {
    DOCS / "providers.md": OWN,
    DOCS / "more-providers.md": tuple(name for name in PROVIDERS if name not in OWN),
}
"""The pages, each with its providers."""
TITLES = {"openai": "OpenAI"}
METERED = "(in brackets the members that limit the output):"
FREE = "`*` being one part of a path and `**` any number:"


def title(name: str) -> str:
    """Return how the page writes a provider's name."""
    return TITLES.get(name, name.capitalize())


def metered(names: Iterable[str]) -> str:
    """Return the list of metered endpoints, each with the members that limit its output in brackets."""
    lines = []
    for name in names:
        rows: dict[str, dict[str, list[str]]] = {}
        for path, endpoint in provider_named(name).metered.items():
            limits = ", ".join(f"`{limit}`" for limit in endpoint.limits)
            rows.setdefault(endpoint.action, {}).setdefault(limits, []).append(f"`{path}`")
        for action, paths in rows.items():
            groups = [", ".join(found) + (f" ({limits})" if limits else "") for limits, found in paths.items()]
            lines.append(f"- {title(name)} `{action}`: {'; '.join(groups)}")
    return "\n".join(lines) + "\n"


def free(names: Iterable[str]) -> str:
    """Return the list of free requests of these providers."""
    lines = []
    for name in names:
        if paths := provider_named(name).free:
            lines.append(f"- {title(name)}: {', '.join(f'`{path}`' for path in paths)}")
    return "\n".join(lines) + "\n"


def with_tables(page: str, names: tuple[str, ...]) -> str:
    """Return the page with both lists as they are now."""
    for before, items in ((METERED, metered(names)), (FREE, free(names))):
        page = re.sub(rf"(?<={re.escape(before)}\n\n)(?:- .*\n)+", items.replace("\\", r"\\"), page)
    return page


if __name__ == "__main__":
    for path, providers in PAGES.items():
        path.write_text(with_tables(path.read_text("utf-8"), providers), "utf-8")
