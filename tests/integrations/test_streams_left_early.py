"""Whole agents whose stream is left early, sync and async: what was made is charged, and nothing stays held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger, settled

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]

TOKENS = cycles.tokens
LONG = "one two " + "more " * 200
EARLY = [{"actual_source": "estimate", "outcome": "closed"}]


async def in_thread(function: Callable[[], None]) -> None:
    """Run blocking code as a program does: in a thread with its own event loop, which is closed at the end."""

    def run() -> None:
        function()
        loop = asyncio.get_event_loop_policy().get_event_loop()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    await asyncio.to_thread(run)


def pydantic_agent(client: cycles.Cycles, text: str = LONG) -> Any:
    pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed: run make test-integrations")
    from pydantic_ai import Agent

    from cycles.integrations.pydantic_ai import CyclesCapability
    from tests.integrations.pydantic_models import Fake, says

    return Agent(Fake(says(text)).model, capabilities=[CyclesCapability(client, model_budget=TOKENS(1_000))])


@pytest.mark.parametrize("how", ["leaves", "cancels", "raises"])
async def test_pydantic_ai(client: cycles.Cycles, ledger: Ledger, how: str) -> None:
    async def read() -> None:
        async with pydantic_agent(client).run_stream("hello") as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                if how == "raises":
                    raise ZeroDivisionError
                if how == "cancels":
                    await result.cancel()
                break

    if how == "raises":
        with pytest.raises(ZeroDivisionError):
            await read()
    else:
        await read()
    await settled(client)
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == EARLY


async def test_pydantic_ai_step_by_step(client: cycles.Cycles, ledger: Ledger) -> None:
    agent = pydantic_agent(client)
    async with agent.iter("hello") as run:
        async for node in run:
            if agent.is_model_request_node(node):
                async with node.stream(run.ctx) as stream:
                    async for _ in stream.stream_text(delta=True, debounce_by=None):
                        break
                break
    await settled(client)
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == EARLY


async def test_pydantic_ai_in_blocking_code(client: cycles.Cycles, ledger: Ledger) -> None:
    def read() -> None:
        with pydantic_agent(client).run_stream_sync("hello") as result:
            for _ in result.stream_text(delta=True, debounce_by=None):
                break

    await in_thread(read)
    await settled(client)
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == EARLY


@pytest.mark.parametrize("mode", ["immediate", "after_turn"])
async def test_openai_agents(client: cycles.Cycles, ledger: Ledger, mode: Any) -> None:
    pytest.importorskip("agents", reason="openai-agents is not installed: run make test-integrations")
    from agents import Agent, RunConfig, Runner

    from cycles.integrations.openai_agents import GuardedModel
    from tests.integrations.agents_models import Fake, says

    model = GuardedModel(Fake(says(LONG)), client=client, model_budget=TOKENS(1_000))
    agent = Agent(name="a", model=model)
    result = Runner.run_streamed(agent, "hello", run_config=RunConfig(tracing_disabled=True))
    async for event in result.stream_events():
        if event.type == "raw_response_event" and "two" in str(getattr(event.data, "delta", "")):
            result.cancel(mode=mode)
    await settled(client)
    if mode == "immediate":
        assert 0 < ledger.spent() < 100
        assert ledger.metadata() == EARLY
    else:  # the turn is read to its end
        assert ledger.spent() == 15
        assert ledger.metadata() == [{}]


def langchain_agent(client: cycles.Cycles, model: str = "SlowModel") -> Any:
    pytest.importorskip("langchain", reason="langchain is not installed: run make test-integrations")
    from langchain.agents import create_agent

    from cycles.integrations.langchain import CyclesMiddleware
    from tests.integrations import langchain_models as models

    middleware: Any = CyclesMiddleware(client, model_budget=TOKENS(1_000))
    return create_agent(getattr(models, model)(replies=[models.says(LONG)]), [], middleware=[middleware])


async def test_langchain(client: cycles.Cycles, ledger: Ledger) -> None:
    stream = langchain_agent(client).astream({"messages": [("user", "hi")]}, stream_mode="messages")
    async for chunk, _ in stream:
        if "two" in chunk.text:
            break
    await stream.aclose()
    await settled(client)
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == EARLY


async def test_langchain_events(client: cycles.Cycles, ledger: Ledger) -> None:
    agent = langchain_agent(client)
    try:
        run = await agent.astream_events({"messages": [("user", "hi")]}, version="v3")
    except (NotImplementedError, TypeError):
        pytest.skip("this version of LangGraph has no events of version 3")
    async for event in run:
        if "two" in str(event["params"]["data"][0] if event["method"] == "messages" else ""):
            break
    await run.abort()
    await settled(client)
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == EARLY


async def test_langchain_that_is_left_before_any_text_costs_the_prompt(client: cycles.Cycles, ledger: Ledger) -> None:
    stream = langchain_agent(client, "StuckModel").astream({"messages": [("user", "hi")]}, stream_mode="messages")
    async for _ in stream:
        break  # the first chunk has no text
    await stream.aclose()
    await settled(client)
    assert 0 < ledger.spent() < 10
    assert ledger.metadata() == EARLY


async def test_langchain_in_blocking_code_runs_the_model_call_to_its_end(client: cycles.Cycles, ledger: Ledger) -> None:
    def read() -> None:
        stream = langchain_agent(client).stream({"messages": [("user", "hi")]}, stream_mode="messages")
        for chunk, _ in stream:
            if "two" in chunk.text:
                break
        stream.close()

    await asyncio.to_thread(read)
    await settled(client)
    assert ledger.spent() == 15
    assert ledger.metadata() == [{}]
