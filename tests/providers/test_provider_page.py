"""The tables of docs/providers.md are those of the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import cycles
from cycles.providers import ReserveOptions, guard
from cycles.providers._endpoints import FREE, METERED

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text(encoding="utf-8")
NAMES = {"OpenAI": "openai", "Anthropic": "anthropic", "Google": "google"}


def test_the_metered_endpoints() -> None:
    rows = re.findall(r"^\| (OpenAI|Anthropic|Google) \| `([^`]+)` \| `(llm\.\w+)` \| ?(.*?) ?\|$", PAGE, re.M)
    printed = {(NAMES[who], path): (kind, tuple(re.findall(r"`([^`]+)`", limits))) for who, path, kind, limits in rows}
    assert printed == {
        (provider, path): (endpoint.action, endpoint.limits)
        for provider, endpoints in METERED.items()
        for path, endpoint in endpoints.items()
    }


def test_the_free_endpoints() -> None:
    rows = re.findall(r"^\| (OpenAI|Anthropic|Google) \| (`[^|]*`) \|$", PAGE, re.M)
    assert {NAMES[who]: tuple(re.findall(r"`([^`]+)`", paths)) for who, paths in rows} == FREE


def test_the_options_of_reserve_are_those_of_guard() -> None:
    own = set(inspect.signature(guard).parameters) | {"self"}
    reserve = set(inspect.signature(cycles.Cycles.reserve).parameters) - own
    assert reserve <= set(ReserveOptions.__annotations__), "a new option of reserve is missing in ReserveOptions"
