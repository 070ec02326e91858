"""Write the tables of docs/providers.md from the files of the providers: ``python -m tests.providers.tables``."""

from __future__ import annotations

import re
from pathlib import Path

from cycles.providers._provider import PROVIDERS, provider_named

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
TITLES = {"openai": "OpenAI"}


def title(name: str) -> str:
    """Return how the page writes a provider's name."""
    return TITLES.get(name, name.capitalize())


def metered() -> str:
    """Return the table of metered endpoints, each with the members that are its output limit in brackets."""
    lines = ["| provider | action kind | endpoints (output limit) |", "|---|---|---|"]
    for name in PROVIDERS:
        rows: dict[str, dict[str, list[str]]] = {}
        for path, endpoint in provider_named(name).metered.items():
            limits = ", ".join(f"`{limit}`" for limit in endpoint.limits)
            rows.setdefault(endpoint.action, {}).setdefault(limits, []).append(f"`{path}`")
        for action, paths in rows.items():
            cells = [", ".join(found) + (f" ({limits})" if limits else "") for limits, found in paths.items()]
            lines.append(f"| {title(name)} | `{action}` | {'; '.join(cells)} |")
    return "\n".join(lines) + "\n"


def free() -> str:
    """Return the table of free requests."""
    lines = ["| provider | free |", "|---|---|"]
    for name in PROVIDERS:
        if paths := provider_named(name).free:
            lines.append(f"| {title(name)} | {', '.join(f'`{path}`' for path in paths)} |")
    return "\n".join(lines) + "\n"


def with_tables(page: str) -> str:
    """Return the page with both tables as they are now."""
    for table in (metered(), free()):
        head = re.escape(table.split("\n", 1)[0])
        page = re.sub(rf"^{head}\n(?:\|.*\n)*", table.replace("\\", r"\\"), page, flags=re.MULTILINE)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
