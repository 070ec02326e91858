"""The LangChain middleware in real agents: sums, denials, caps, failures, streams, concurrency."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger
from tests.support.waiting import set_by

pytest.importorskip("langchain", reason="langchain is not installed: run make test-integrations")

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from cycles.integrations.langchain import CyclesMiddleware
from tests.integrations.langchain_models import TOKENS, Model, SlowModel, says, usage

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]


@tool
def search(query: str) -> str:
    """Search."""
    if query == "fail":
        raise RuntimeError("no network at tenant:acme")
    return f"found {query}"


@tool
def delete(path: str) -> str:
    """Delete."""
    return "deleted"


Run = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest, client: cycles.Cycles) -> Run:
    """Run an agent with the middleware, both ways, and return its messages."""

    async def run(
        model: Any, *, tools: Any = (search, delete), response_format: Any = None, **options: Any
    ) -> list[Any]:
        middleware = CyclesMiddleware(client, **options)
        agent: Any = create_agent(model, list(tools), middleware=[middleware])
        question = {"messages": [("user", "hello")]}
        result = await (
            agent.ainvoke(question) if request.param == "async" else asyncio.to_thread(agent.invoke, question)
        )
        return list(result["messages"])

    return run


async def test_each_model_call_and_each_tool_call_is_charged(run: Run, ledger: Ledger) -> None:
    model = Model(replies=[says("", ("search", {"query": "x"})), says(tokens=usage(20, 5))])
    messages = await run(model, model_budget=TOKENS(100), tool_budget={"search": TOKENS(3)})
    assert [type(each).__name__ for each in messages[1:]] == ["AIMessage", "ToolMessage", "AIMessage"]
    assert ledger.spent() == 15 + 3 + 25
    rows = ledger.rows()
    assert [(row.action.kind, row.action.name) for row in rows] == [
        ("llm.completion", "small-model"),
        ("tool.call", "search"),
        ("llm.completion", "small-model"),
    ]


async def test_prices_get_all_counts_and_the_model_that_responded(run: Run, ledger: Ledger) -> None:
    seen: list[Any] = []

    def price(used: cycles.Usage) -> cycles.Amount:
        seen.append((used.tokens_input, used.tokens_output, used.model_version))
        return cycles.usd("0.02")

    reply = says(tokens=usage(10, 5, cache_read=4, cache_creation=2))
    reply.response_metadata["model_name"] = "small-model-2026"
    await run(Model(replies=[reply]), model_budget=cycles.usd(1), model_actual=price)
    assert ledger.spent("USD_MICROCENTS") == 2_000_000
    assert set(seen) == {(10, 5, "small-model-2026")}


async def test_without_usage_the_estimate_is_committed(run: Run, ledger: Ledger) -> None:
    await run(Model(replies=[AIMessage("done")]), model_budget=TOKENS(70))
    assert ledger.spent() == 70
    assert ledger.metadata() == [{"actual_source": "estimate"}]


async def test_budgets_and_actuals_may_be_callables(run: Run, ledger: Ledger) -> None:
    model = Model(replies=[says("", ("search", {"query": "four"})), says()])
    await run(
        model,
        model_budget=lambda request: TOKENS(40) if len(request.messages) == 1 else None,
        tool_budget=lambda request: TOKENS(9),
        tool_actual=lambda request, result: TOKENS(len(result.content)),
    )
    assert ledger.spent() == 15 + len("found four")


async def test_a_denied_model_call_raises_by_default(run: Run, ledger: Ledger) -> None:
    model = Model(replies=[says()])
    with pytest.raises(cycles.BudgetExceededError):
        await run(model, model_budget=TOKENS(2_000_000))
    assert ledger.spent() == 0
    assert model.asked == []


@pytest.mark.parametrize("on_denied", ["message", lambda error: "no money for this"])
async def test_a_denied_model_call_becomes_a_message_that_ends_the_agent(
    run: Run, ledger: Ledger, on_denied: Any
) -> None:
    messages = await run(Model(replies=[says()]), model_budget=TOKENS(2_000_000), on_denied=on_denied)
    assert messages[-1].response_metadata["cycles_denied"] == "BUDGET_EXCEEDED"
    assert messages[-1].tool_calls == []
    assert messages[-1].text == "no money for this" if callable(on_denied) else "BUDGET_EXCEEDED" in messages[-1].text
    assert not {"acme", "2,000,000", "127.0.0.1"} & set(messages[-1].text.split())
    assert ledger.spent() == 0


async def test_a_denied_tool_call_becomes_an_error_message(run: Run, ledger: Ledger) -> None:
    model = Model(replies=[says("", ("search", {"query": "x"})), says()])
    messages = await run(model, tool_budget=TOKENS(2_000_000))
    [answer] = [each for each in messages if isinstance(each, ToolMessage)]
    assert (answer.status, answer.tool_call_id, answer.name) == ("error", "call-1", "search")
    assert "acme" not in answer.text
    assert ledger.spent() == 0


async def test_a_denied_tool_call_can_raise(run: Run) -> None:
    with pytest.raises(cycles.BudgetExceededError):
        await run(
            Model(replies=[says("", ("search", {"query": "x"}))]), tool_budget=TOKENS(2_000_000), on_denied="raise"
        )


async def test_an_outage_is_raised_and_nothing_runs(run: Run, server: cycles.EmbeddedServer) -> None:
    server.faults.status("reserve", 500, times=None)
    model = Model(replies=[says()])
    with pytest.raises(cycles.ServerError):
        await run(model, model_budget=TOKENS(10), on_denied="message")
    assert model.asked == []


async def test_caps_limit_the_request_on_a_copy(run: Run, server: cycles.EmbeddedServer, ledger: Ledger) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"max_tokens": 7, "tool_denylist": ["delete"]})
    model = Model(replies=[says()])
    await run(model, model_budget=TOKENS(20))
    assert model.asked[0]["max_tokens"] == 7
    assert model.asked[0]["tools"] == ["search"]
    assert ledger.spent() == 15


async def test_a_tool_that_the_caps_forbid_is_not_called(
    run: Run, server: cycles.EmbeddedServer, ledger: Ledger
) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"tool_denylist": ["delete"]})
    messages = await run(Model(replies=[says("", ("delete", {"path": "/"})), says()]), tool_budget=TOKENS(5))
    assert [each.status for each in messages if isinstance(each, ToolMessage)] == ["error"]
    assert "TOOL_NOT_ALLOWED" in next(each.text for each in messages if isinstance(each, ToolMessage))
    assert ledger.spent() == 0


async def test_no_step_left_is_a_denial(run: Run, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"max_steps_remaining": 0})
    with pytest.raises(cycles.StepsExhaustedError):
        await run(Model(replies=[says()]), model_budget=TOKENS(5))


async def test_a_failed_call_is_released(run: Run, ledger: Ledger) -> None:
    with pytest.raises(ConnectionError):
        await run(Model(replies=[ConnectionError("down")]), model_budget=TOKENS(5))
    with pytest.raises(RuntimeError):
        await run(Model(replies=[says("", ("search", {"query": "fail"}))]), tool_budget=TOKENS(5))
    assert ledger.spent() == 0


async def test_spend_of_a_tool_is_committed_although_it_raises(run: Run, ledger: Ledger) -> None:
    @tool
    def pay(amount: int) -> str:
        """Pay."""
        guard = cycles.current_guard()
        assert guard is not None
        guard.spend(TOKENS(amount))
        raise RuntimeError("paid, then failed")

    with pytest.raises(RuntimeError):
        await run(Model(replies=[says("", ("pay", {"amount": 4}))]), tools=[pay], tool_budget=TOKENS(9))
    assert ledger.spent() == 4


async def test_an_interrupted_tool_is_released_and_reserved_again(client: cycles.Cycles, ledger: Ledger) -> None:
    @tool
    def ask(question: str) -> str:
        """Ask a person."""
        return str(interrupt(question))

    middleware = CyclesMiddleware(client, tool_budget=TOKENS(6))
    model = Model(replies=[says("", ("ask", {"question": "may I?"})), says()])
    agent: Any = create_agent(model, [ask], middleware=[middleware], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    result = await agent.ainvoke({"messages": [("user", "go")]}, config)
    assert "__interrupt__" in result
    assert ledger.spent() == 0
    await agent.ainvoke(Command(resume="yes"), config)
    assert ledger.spent() == 6


async def test_repeated_call_ids_are_charged_each_time(run: Run, ledger: Ledger) -> None:
    call = says("", ("search", {"query": "x"}), call_id="same")
    await run(Model(replies=[call, call, says()]), tool_budget=TOKENS(3))
    assert ledger.spent() == 6


async def test_a_stream_that_is_read_to_its_end_is_charged_as_reported(client: cycles.Cycles, ledger: Ledger) -> None:
    agent: Any = create_agent(SlowModel(replies=[says("one two three")]), [], middleware=[_models(client)])
    async for _ in agent.astream({"messages": [("user", "hi")]}, stream_mode="messages"):
        pass
    for _ in agent.stream({"messages": [("user", "hi")]}, stream_mode="messages"):
        pass
    assert ledger.spent() == 30


async def test_a_stream_that_breaks_off_is_charged_for_what_was_made(client: cycles.Cycles, ledger: Ledger) -> None:
    for asynchronous in (True, False):
        agent: Any = create_agent(SlowModel(replies=[says("one two BREAK")]), [], middleware=[_models(client)])
        with pytest.raises(ConnectionError):
            if asynchronous:
                async for _ in agent.astream({"messages": [("user", "hi")]}, stream_mode="messages"):
                    pass
            else:
                for _ in agent.stream({"messages": [("user", "hi")]}, stream_mode="messages"):
                    pass
    assert ledger.spent() > 0
    assert ledger.metadata() == [{"actual_source": "estimate", "outcome": "error"}] * 2


async def test_a_cancelled_model_call_is_released(client: cycles.Cycles, ledger: Ledger) -> None:
    called = asyncio.Event()

    class Waiting(Model):
        async def _agenerate(self, *_: Any, **options: Any) -> Any:
            called.set()
            await asyncio.Event().wait()

    agent: Any = create_agent(Waiting(replies=[says()]), [], middleware=[_models(client)])
    task = asyncio.create_task(agent.ainvoke({"messages": [("user", "hi")]}))
    await set_by(task, called)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ledger.spent() == 0


async def test_thirty_agents_at_once(client: cycles.Cycles, ledger: Ledger) -> None:
    middleware = CyclesMiddleware(client, model_budget=TOKENS(100), tool_budget=TOKENS(3), subject=lambda request: None)
    replies = [says("", ("search", {"query": "x"})), says()]
    agents = [create_agent(Model(replies=[*replies], asked=[]), [search], middleware=[middleware]) for _ in range(30)]
    question: Any = {"messages": [("user", "hi")]}
    await asyncio.gather(*(agent.ainvoke(question) for agent in agents))
    assert ledger.spent() == 30 * (15 + 3 + 15)


def _models(client: cycles.Cycles) -> CyclesMiddleware:
    return CyclesMiddleware(client, model_budget=TOKENS(1000))


def test_wrong_options_are_rejected_when_the_middleware_is_made(client: cycles.Cycles) -> None:
    with pytest.raises(TypeError, match="unknown option 'ttl'"):
        CyclesMiddleware(client, model_budget=TOKENS(1), ttl=5)  # type: ignore[call-arg]
    for wrong in ({"model_budget": 5}, {"tool_budget": {"search": 5}}, {"on_denied": "ignore"}, {"ttl_ms": -1}):
        with pytest.raises(cycles.InvalidRequestError):
            CyclesMiddleware(client, **wrong)  # type: ignore[arg-type]


def test_without_the_library_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['langchain'] = None\n"
        "try:\n    import cycles.integrations.langchain\nexcept ImportError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'cycles-sdk[langchain]'" in told
