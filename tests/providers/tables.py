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
    """Return the table of metered endpoints."""
    lines = ["| provider | endpoint | action kind | output limit |", "|---|---|---|---|"]
    for name in PROVIDERS:
        for path, endpoint in provider_named(name).metered.items():
            limits = ", ".join(f"`{limit}`" for limit in endpoint.limits)
            lines.append(f"| {title(name)} | `{path}` | `{endpoint.action}` | {limits + ' ' if limits else ''}|")
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
