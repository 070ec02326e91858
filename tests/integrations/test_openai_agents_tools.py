"""The guarded tools of the OpenAI Agents SDK in real runs: sums, denials, caps, failures."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger

pytest.importorskip("agents", reason="openai-agents is not installed: run make test-integrations")

from agents import (
    AgentsException,
    function_tool,
)

from cycles.integrations.openai_agents import guard_tool
from tests.integrations.agents_models import SEARCH, TOKENS, Fake, outputs, run_agent, says, search

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("on_denied", [None, "message", lambda error, query: f"no {query}"])
async def test_a_denied_tool_call_becomes_a_result(client: cycles.Cycles, ledger: Ledger, on_denied: Any) -> None:
    tool = function_tool(guard_tool(client, tool_budget=TOKENS(2_000_000), on_denied=on_denied)(search))
    [text] = outputs(await run_agent(Fake(says("", SEARCH), says()), tool))
    assert text == "no x" if callable(on_denied) else "BUDGET_EXCEEDED" in text
    assert "acme" not in text
    assert ledger.spent() == 0


async def test_a_denied_tool_call_can_raise(client: cycles.Cycles) -> None:
    guard = guard_tool(client, tool_budget=TOKENS(2_000_000), on_denied="raise")
    for tool in (function_tool(guard(search), failure_error_function=None), guard(function_tool(search))):
        with pytest.raises(cycles.BudgetExceededError) as raised:
            await run_agent(Fake(says("", SEARCH)), tool)
        assert isinstance(raised.value, AgentsException)
        assert raised.value.code == "BUDGET_EXCEEDED"
        for copied in (copy.copy(raised.value), pickle.loads(pickle.dumps(raised.value))):
            assert type(copied) is cycles.BudgetExceededError


async def test_a_tool_that_the_caps_forbid_is_not_called(
    client: cycles.Cycles, server: cycles.EmbeddedServer, ledger: Ledger
) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"tool_denylist": ["search"]})
    tool = function_tool(guard_tool(client, tool_budget=TOKENS(5))(search))
    [text] = outputs(await run_agent(Fake(says("", SEARCH), says()), tool))
    assert "TOOL_NOT_ALLOWED" in text
    assert ledger.spent() == 0


async def test_a_failed_tool_call_is_released(client: cycles.Cycles, ledger: Ledger) -> None:
    fails = says("", ("search", '{"query": "fail"}'))
    result = await run_agent(Fake(fails, says()), function_tool(guard_tool(client, tool_budget=TOKENS(3))(search)))
    assert len(outputs(result)) == 1
    assert ledger.spent() == 0
    await run_agent(Fake(fails, says()), guard_tool(client, tool_budget=TOKENS(3))(function_tool(search)))
    assert ledger.spent() == 3, "around a finished tool, its failure is a result"


async def test_the_cost_of_a_tool_is_that_of_its_arguments_and_result(client: cycles.Cycles, ledger: Ledger) -> None:
    async def lookup(key: str, deep: bool = False) -> str:
        return key * 3

    guard = guard_tool(
        client,
        tool_budget=lambda key, deep: TOKENS(9),
        tool_actual=lambda key, deep, result: TOKENS(len(result)),
        name="find",
    )
    guarded = guard(lookup)
    await run_agent(Fake(says("", ("lookup", '{"key": "ab", "deep": true}')), says()), function_tool(guarded))
    assert await guarded("abc", deep=False) == "abcabcabc"
    assert ledger.spent() == 6 + 9
    assert {row.action.name for row in ledger.rows()} == {"find"}


async def test_a_finished_tool_passes_its_context(client: cycles.Cycles, ledger: Ledger) -> None:
    seen: list[str] = []

    def budget(context: Any) -> cycles.Amount:
        seen.append(context.tool_name)
        return TOKENS(4)

    tool = guard_tool(client, tool_budget=budget)(function_tool(search))
    await run_agent(Fake(says("", SEARCH), says()), tool)
    assert seen == ["search"]
    assert ledger.spent() == 4


async def test_spend_of_a_tool_is_committed_although_it_raises(client: cycles.Cycles, ledger: Ledger) -> None:
    def pay(amount: int) -> str:
        guard = cycles.current_guard()
        assert guard is not None
        guard.spend(TOKENS(amount))
        raise RuntimeError("paid, then failed")

    tool = function_tool(guard_tool(client, tool_budget=TOKENS(9))(pay))
    await run_agent(Fake(says("", ("pay", '{"amount": 4}')), says()), tool)
    assert ledger.spent() == 4


async def test_repeated_call_ids_are_charged_each_time(client: cycles.Cycles, ledger: Ledger) -> None:
    guarded = guard_tool(client, tool_budget=TOKENS(3))(search)
    for _ in range(2):
        await run_agent(Fake(says("", SEARCH, call_id="same"), says()), function_tool(guarded))
    assert ledger.spent() == 6
