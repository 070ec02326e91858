"""Caps: an allow list wins, names are exact, empty lists restrict nothing.

See `docs/protocol/decisions-and-caps.md#tool-lists`.
"""

from __future__ import annotations

from typing import Any

import pytest

from cycles._core.results import Caps
from cycles._core.values import caps as rules
from cycles._errors import InvalidRequestError, StepsExhaustedError, ToolNotAllowedError


@pytest.mark.parametrize(
    ("caps", "allowed", "refused"),
    [
        (None, ["anything"], []),
        (Caps(), ["anything"], []),
        (Caps(tool_allowlist=[], tool_denylist=[]), ["anything"], []),
        (Caps(tool_allowlist=["search"]), ["search"], ["Search", "shell", ""]),
        (Caps(tool_denylist=["shell"]), ["search", "Shell"], ["shell"]),
        (Caps(tool_allowlist=["shell"], tool_denylist=["shell"]), ["shell"], ["search"]),
        (Caps(tool_allowlist=[], tool_denylist=["shell"]), ["search"], ["shell"]),
    ],
)
def test_tools(caps: Caps | None, allowed: list[str], refused: list[str]) -> None:
    assert rules.filter_tools(caps, allowed + refused) == allowed
    for name in refused:
        with pytest.raises(ToolNotAllowedError, match="caps of the reservation do not allow") as caught:
            rules.require_tool(caps, name)
        assert caught.value.tool == name
    for name in allowed:
        rules.require_tool(caps, name)


@pytest.mark.parametrize(("number", "end"), [(8, "'tool-7'"), (9, "'tool-7', ...")])
def test_the_error_lists_the_first_eight_tools(number: int, end: str) -> None:
    caps = Caps(tool_allowlist=[f"tool-{each}" for each in range(number)])
    with pytest.raises(ToolNotAllowedError) as caught:
        rules.require_tool(caps, "shell")
    assert f"'tool-0', 'tool-1', 'tool-2', 'tool-3', 'tool-4', 'tool-5', 'tool-6', {end}" in str(caught.value)
    assert (", ..." in str(caught.value)) == (number > 8)


def search() -> None: ...


def shell() -> None: ...


@pytest.mark.parametrize(
    "tools",
    [
        ["search", "shell"],
        [search, shell],
        [{"name": "search", "input_schema": {}}, {"name": "shell"}],
        [{"type": "function", "function": {"name": "search"}}, {"type": "function", "function": {"name": "shell"}}],
        [{"name": "search", "function": {"name": "shell"}}, {"name": "shell", "function": {"name": "search"}}],
        [{"name": "search", "function": shell}, {"name": "shell", "function": {"description": "search"}}],
    ],
)
def test_tool_descriptions_of_model_sdks_are_filtered_by_their_names(tools: list[Any]) -> None:
    assert rules.filter_tools(Caps(tool_denylist=["shell"]), tools) == tools[:1]


def test_a_tool_without_a_name_needs_a_reader() -> None:
    with pytest.raises(InvalidRequestError, match="pass name="):
        rules.filter_tools(Caps(tool_denylist=["shell"]), [{"id": "shell"}])
    assert rules.filter_tools(Caps(tool_denylist=["shell"]), [{"id": "shell"}], lambda tool: tool["id"]) == []


@pytest.mark.parametrize(
    ("cap", "default", "asked"),
    [(500, 1024, 500), (500, 100, 100), (500, None, 500), (None, 1024, 1024), (None, None, None), (0, 5, 0)],
)
def test_max_tokens_is_the_smaller_of_cap_and_default(cap: int | None, default: int | None, asked: int | None) -> None:
    assert rules.max_tokens(Caps(max_tokens=cap), default) == asked
    assert rules.max_tokens(None, default) == default


def test_steps_are_counted_and_end() -> None:
    caps = Caps(max_steps_remaining=2)
    assert [rules.next_step(caps, 0), rules.next_step(caps, 1)] == [1, 2]
    with pytest.raises(StepsExhaustedError, match="all 2 are used") as caught:
        rules.next_step(caps, 2)
    assert caught.value.limit == 2
    assert rules.next_step(None, 10_000) == 10_001


@pytest.mark.parametrize(("caps", "ms"), [(None, 0), (Caps(), 0), (Caps(cooldown_ms=250), 250)])
def test_cooldown(caps: Caps | None, ms: int) -> None:
    assert rules.cooldown_ms(caps) == ms
