"""Look up which requests are metered, which are free, and which cost money that cannot be metered.

Only POST requests can cost money. A POST that is in no table counts as unmetered, so that a new paid endpoint is
rejected and not passed through. The tables are those of the providers' modules.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from cycles.providers._provider import Endpoint, provider_named

_MOST_PATHS: Final = 256
"""How many paths are kept with what they are; those with ids are many."""


def _pattern(path: str) -> re.Pattern[str]:
    wild = {"/**": "(?:/.*)?", "**": ".*", "*": "[^/]+"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in re.split(r"(/\*\*|\*\*|\*)", path)))


@cache
def _patterns(paths: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(_pattern(path) for path in paths)


def normalized(path: str) -> str:
    """Return a request's path without host, query and closing slash."""
    # `urlsplit` takes the word before a colon for a scheme: Gemini has paths like files:register.
    name = urlsplit(path).path if "://" in path else re.split("[?#]", path, maxsplit=1)[0]
    return name.rstrip("/") or "/"


def stored_response(provider: str, path: str) -> str | None:
    """Return the id of the response made in the background that a request retrieves, cancels or deletes, or None.

    Args:
        provider: Whose SDK sends it.
        path: As the SDK has it, before it adds deployments or regions.
    """
    of = provider_named(provider)
    name = of.path(normalized(path))
    for base, endpoint in of.metered.items():
        if endpoint.background is not None and name.startswith(f"{base}/"):
            found, _, operation = name.removeprefix(f"{base}/").partition("/")
            if operation in ("", "cancel"):
                return unquote(found)
    return None


def find(provider: str, method: str, path: str) -> Endpoint | Literal["free", "unmetered"]:
    """Return the metered endpoint of a request, or what else it is.

    Args:
        provider: Whose SDK sends it.
        method: HTTP method, in any case.
        path: As the SDK has it, before it adds deployments or regions.
    """
    if method.upper() != "POST":
        return "free"
    return _found(provider, normalized(path))


@lru_cache(_MOST_PATHS)
def _found(provider: str, path: str) -> Endpoint | Literal["free", "unmetered"]:
    of = provider_named(provider)
    name = of.path(path)
    endpoint = of.metered.get(name) or of.metered.get("".join(name.rpartition(":")[1:]))  # `:verb` of Google's paths
    if endpoint is not None:
        return endpoint
    return "free" if any(pattern.fullmatch(name) for pattern in _patterns(of.free)) else "unmetered"
