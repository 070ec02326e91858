"""The capability and the guarded model of Pydantic AI in real agents: sums, denials, caps, failures, streams."""

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

pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed: run make test-integrations")

from pydantic_ai import Agent, ModelRetry
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.messages import ToolReturnPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import DeferredToolRequests

from cycles.integrations.pydantic_ai import CyclesCapability, GuardedModel, ToolCall
from tests.integrations.pydantic_models import TOKENS, Fake, says

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]


def search(query: str) -> str:
    if query == "fail":
        raise RuntimeError("no network at tenant:acme")
    return f"found {query}"


SEARCH = ("search", {"query": "x"})
Run = Callable[..., Any]


@pytest.fixture(params=["response", "stream"])
def run(request: pytest.FixtureRequest, client: cycles.Cycles) -> Run:
    """Run an agent with the capability, both ways, and return its result."""

    async def run(fake: Fake, *, tools: Any = (), output_type: Any = str, settings: Any = None, **options: Any) -> Any:
        capability = CyclesCapability(client, **options)
        agent: Any = Agent(
            fake.model, tools=list(tools), output_type=output_type, capabilities=[capability], model_settings=settings
        )
        if request.param == "response":
            return (await agent.run("hello")).output
        async with agent.run_stream("hello") as result:
            return (await result.get_output()).strip()

    return run


async def run_agent(client: cycles.Cycles, fake: Fake, *tools: Any, output_type: Any = str, **options: Any) -> Any:
    agent: Any = Agent(
        fake.model, tools=list(tools), output_type=output_type, capabilities=[CyclesCapability(client, **options)]
    )
    return await agent.run("hello")


def returns(result: Any) -> list[ToolReturnPart]:
    """Return what the model read as results of tools."""
    parts = [part for message in result.all_messages() for part in message.parts]
    return [part for part in parts if isinstance(part, ToolReturnPart)]


async def test_each_request_and_each_tool_call_is_charged(client: cycles.Cycles, ledger: Ledger) -> None:
    fake = Fake(says("", SEARCH), says("done", tokens=(20, 5)))
    result = await run_agent(client, fake, search, model_budget=TOKENS(100), tool_budget={"search": TOKENS(3)})
    assert [part.content for part in returns(result)] == ["found x"]
    assert ledger.spent() == 15 + 3 + 25
    assert [(row.action.kind, row.action.name) for row in ledger.rows()] == [
        ("llm.completion", "small-model"),
        ("tool.call", "search"),
        ("llm.completion", "small-model"),
    ]


async def test_a_blocking_run_is_guarded(client: cycles.Cycles, ledger: Ledger) -> None:
    agent: Any = Agent(Fake(says()).model, capabilities=[CyclesCapability(client, model_budget=TOKENS(100))])

    def blocking_run() -> None:
        agent.run_sync("hello")
        asyncio.get_event_loop().close()  # run_sync makes one for the thread and leaves it open

    await asyncio.to_thread(blocking_run)
    assert ledger.spent() == 15


async def test_a_guarded_model_is_a_model(client: cycles.Cycles, ledger: Ledger) -> None:
    model = GuardedModel(Fake(says()).model, client, model_budget=TOKENS(100))
    assert model.model_name == "small-model"
    await Agent(model).run("hello")
    assert ledger.spent() == 15


async def test_prices_get_all_counts_and_the_model(client: cycles.Cycles, ledger: Ledger) -> None:
    seen: list[Any] = []

    def price(used: cycles.Usage) -> cycles.Amount:
        seen.append((used.tokens_input, used.tokens_output, used.tokens_cached_input, used.model_version))
        return cycles.usd("0.02")

    reply = says(cache_read_tokens=4, cache_write_tokens=2)
    await run_agent(client, Fake(reply), model_budget=cycles.usd(1), model_actual=price)
    assert ledger.spent("USD_MICROCENTS") == 2_000_000
    assert set(seen) == {(10, 5, 4, "small-model")}


async def test_a_budget_of_none_is_not_guarded(run: Run, ledger: Ledger) -> None:
    seen: list[Any] = []

    def budget(request: Any) -> None:
        seen.append(request.model.model_name)

    assert await run(Fake(says()), model_budget=budget) == "done"
    assert seen == ["small-model"]
    assert ledger.rows() == []


async def test_a_denied_request_raises_by_default(run: Run, ledger: Ledger) -> None:
    fake = Fake(says())
    with pytest.raises(cycles.BudgetExceededError):
        await run(fake, model_budget=TOKENS(2_000_000))
    assert ledger.spent() == 0
    assert fake.asked == []


@pytest.mark.parametrize("on_denied", ["message", lambda error: "no money for this"])
async def test_a_denied_request_becomes_a_message(run: Run, ledger: Ledger, on_denied: Any) -> None:
    text = await run(Fake(says()), model_budget=TOKENS(2_000_000), on_denied=on_denied)
    assert text == "no money for this" if callable(on_denied) else "BUDGET_EXCEEDED" in text
    assert "acme" not in text
    assert ledger.spent() == 0


async def test_a_denial_raises_if_the_output_is_structured(run: Run) -> None:
    with pytest.raises(cycles.BudgetExceededError):
        await run(Fake(says()), model_budget=TOKENS(2_000_000), on_denied="message", output_type=list[int])


@pytest.mark.parametrize("on_denied", [None, "message", lambda error, call: f"no {call.args['query']}"])
async def test_a_denied_tool_call_is_a_failed_result(client: cycles.Cycles, ledger: Ledger, on_denied: Any) -> None:
    fake = Fake(says("", SEARCH), says())
    result = await run_agent(client, fake, search, tool_budget=TOKENS(2_000_000), on_denied=on_denied)
    [part] = returns(result)
    assert part.outcome == "failed"
    assert part.content == "no x" if callable(on_denied) else "BUDGET_EXCEEDED" in str(part.content)
    assert "acme" not in str(part.content)
    assert ledger.spent() == 0


async def test_a_denied_tool_call_can_raise(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.BudgetExceededError):
        await run_agent(client, Fake(says("", SEARCH)), search, tool_budget=TOKENS(2_000_000), on_denied="raise")


async def test_an_outage_is_raised_and_nothing_runs(
    run: Run, client: cycles.Cycles, server: cycles.EmbeddedServer
) -> None:
    server.faults.status("reserve", 500, times=None)
    fake = Fake(says("", SEARCH))
    with pytest.raises(cycles.ServerError):
        await run(fake, model_budget=TOKENS(10), on_denied="message")
    assert fake.asked == []
    with pytest.raises(cycles.ServerError):
        await run_agent(client, fake, search, tool_budget=TOKENS(3))


async def test_caps_limit_the_request_on_a_copy(run: Run, server: cycles.EmbeddedServer, ledger: Ledger) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"max_tokens": 7, "tool_denylist": ["delete"]})

    def delete(path: str) -> str:
        return "deleted"

    settings: ModelSettings = {"max_tokens": 50}
    fake = Fake(says())
    await run(fake, model_budget=TOKENS(200), tools=[search, delete], settings=settings)
    [asked] = fake.asked
    assert asked.model_settings["max_tokens"] == 7
    assert [tool.name for tool in asked.function_tools] == ["search"]
    assert settings == {"max_tokens": 50}
    assert ledger.spent() > 0


async def test_a_forced_tool_choice_is_reset_if_tools_were_removed(
    client: cycles.Cycles, server: cycles.EmbeddedServer
) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"tool_denylist": ["search"]})
    fake = Fake(says())
    model = GuardedModel(fake.model, client, model_budget=TOKENS(20))
    tools = [tool.tool_def for tool in Agent(tools=[search])._function_toolset.tools.values()]
    await model.request([], {"tool_choice": "required"}, ModelRequestParameters(function_tools=tools))
    assert fake.asked[0].model_settings["tool_choice"] is None


async def test_a_tool_that_the_caps_forbid_is_not_called(
    client: cycles.Cycles, server: cycles.EmbeddedServer, ledger: Ledger
) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"tool_denylist": ["search"]})
    [part] = returns(await run_agent(client, Fake(says("", SEARCH), says()), search, tool_budget=TOKENS(5)))
    assert "TOOL_NOT_ALLOWED" in str(part.content)
    assert ledger.spent() == 0


async def test_no_step_left_is_a_denial(run: Run, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"max_steps_remaining": 0})
    with pytest.raises(cycles.StepsExhaustedError):
        await run(Fake(says()), model_budget=TOKENS(5))


async def test_a_failed_call_is_released(run: Run, client: cycles.Cycles, ledger: Ledger) -> None:
    with pytest.raises(ConnectionError):
        await run(Fake(ConnectionError("down")), model_budget=TOKENS(5))
    with pytest.raises(RuntimeError):
        await run_agent(client, Fake(says("", ("search", {"query": "fail"}))), search, tool_budget=TOKENS(5))
    assert ledger.spent() == 0


async def test_a_retry_and_an_approval_pass_and_are_released(client: cycles.Cycles, ledger: Ledger) -> None:
    tries: list[int] = []

    def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ModelRetry("again")
        return "worked"

    def ask() -> str:
        raise ApprovalRequired

    calls = Fake(says("", ("flaky", {})), says("", ("flaky", {})), says())
    await run_agent(client, calls, flaky, tool_budget=TOKENS(6))
    assert ledger.spent() == 6
    types = [str, DeferredToolRequests]
    result = await run_agent(client, Fake(says("", ("ask", {}))), ask, tool_budget=TOKENS(6), output_type=types)
    assert [call.tool_name for call in result.output.approvals] == ["ask"]
    assert ledger.spent() == 6


async def test_the_cost_of_a_tool_is_that_of_its_arguments_and_result(client: cycles.Cycles, ledger: Ledger) -> None:
    seen: list[ToolCall] = []

    def budget(call: ToolCall) -> cycles.Amount:
        seen.append(call)
        return TOKENS(9)

    fake = Fake(says("", SEARCH), says("", ("search", {"wrong": 1})), says())
    await run_agent(client, fake, search, tool_budget=budget, tool_actual=lambda call, result: TOKENS(len(result)))
    assert [(call.name, call.args, call.context.tool_name) for call in seen] == [("search", {"query": "x"}, "search")]
    assert ledger.spent() == len("found x"), "invalid calls cost nothing"


async def test_spend_of_a_tool_is_committed_although_it_raises(client: cycles.Cycles, ledger: Ledger) -> None:
    def pay(amount: int) -> str:
        guard = cycles.current_guard()
        assert guard is not None
        guard.spend(TOKENS(amount))
        raise RuntimeError("paid, then failed")

    with pytest.raises(RuntimeError):
        await run_agent(client, Fake(says("", ("pay", {"amount": 4}))), pay, tool_budget=TOKENS(9))
    assert ledger.spent() == 4


async def test_repeated_call_ids_are_charged_each_time(client: cycles.Cycles, ledger: Ledger) -> None:
    call = says("", SEARCH)
    await run_agent(client, Fake(call, call, says()), search, tool_budget=TOKENS(3))
    assert ledger.spent() == 6


async def test_a_stream_is_charged_as_it_reports(client: cycles.Cycles, ledger: Ledger) -> None:
    agent: Any = Agent(Fake(says("one two")).model, capabilities=[CyclesCapability(client, model_budget=TOKENS(1000))])
    async with agent.run_stream("hello") as result:
        await result.get_output()
        used = result.usage if not callable(result.usage) else result.usage()
    assert ledger.spent() == used.input_tokens + used.output_tokens > 0
    assert ledger.metadata() == [{}]


@pytest.mark.parametrize(("text", "outcome"), [("one two " + "more " * 200, "closed"), ("one two BREAK", "error")])
async def test_a_stream_that_ends_early_is_charged_for_what_was_made(
    client: cycles.Cycles, ledger: Ledger, text: str, outcome: str
) -> None:
    model = GuardedModel(Fake(says(text)).model, client, model_budget=TOKENS(1000))
    try:
        async with model.request_stream([], None, ModelRequestParameters()) as stream:
            async for _ in stream:
                if outcome == "closed":
                    break
    except ConnectionError:
        assert outcome == "error"
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == [{"actual_source": "estimate", "outcome": outcome}]


async def test_a_cancelled_request_is_released(client: cycles.Cycles, ledger: Ledger) -> None:
    called = asyncio.Event()

    async def wait() -> None:
        called.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(run_agent(client, Fake(wait), model_budget=TOKENS(5)))
    await set_by(task, called)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ledger.spent() == 0


async def test_thirty_agents_at_once(client: cycles.Cycles, ledger: Ledger) -> None:
    capability = CyclesCapability(client, model_budget=TOKENS(100), tool_budget=TOKENS(3))
    agents: list[Any] = [
        Agent(Fake(says("", SEARCH), says()).model, tools=[search], capabilities=[capability]) for _ in range(30)
    ]
    await asyncio.gather(*(agent.run("hello") for agent in agents))
    assert ledger.spent() == 30 * (15 + 3 + 15)


def test_wrong_options_are_rejected_when_the_object_is_made(client: cycles.Cycles) -> None:
    with pytest.raises(TypeError, match="unknown option 'ttl'"):
        CyclesCapability(client, model_budget=TOKENS(1), ttl=5)  # type: ignore[call-arg]
    wrongs: list[dict[str, Any]] = [
        {"model_budget": 5}, {"tool_budget": {"search": 5}}, {"on_denied": "ignore"}, {"ttl_ms": -1}
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(cycles.InvalidRequestError):
            CyclesCapability(client, **wrong)
    with pytest.raises(cycles.InvalidRequestError):
        GuardedModel(5, client, model_budget=TOKENS(1))  # type: ignore[arg-type]


def test_without_the_library_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['pydantic_ai'] = None\n"
        "try:\n    import cycles.integrations.pydantic_ai\nexcept ImportError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'cycles-sdk[pydantic-ai]'" in told
