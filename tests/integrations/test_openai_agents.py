"""The guarded models of the OpenAI Agents SDK in real runs: sums, denials, caps, failures, streams."""

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

pytest.importorskip("agents", reason="openai-agents is not installed: run make test-integrations")

from agents import (
    Agent,
    ModelSettings,
    RunConfig,
    Runner,
    function_tool,
)

from cycles.integrations.openai_agents import GuardedModel, GuardedProvider, ModelCall, guard_tool
from tests.integrations.agents_models import SEARCH, TOKENS, Fake, Provider, outputs, run_agent, says, search

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]


Run = Callable[..., Any]


@pytest.fixture(params=["response", "stream"])
def run(request: pytest.FixtureRequest, client: cycles.Cycles) -> Run:
    """Run an agent whose models are guarded, both ways, and return its output."""

    async def run(
        model: Fake, *, tools: Any = (), settings: Any = None, output_type: Any = None, **options: Any
    ) -> Any:
        provider = GuardedProvider(client, provider=Provider(model), **options)
        agent = Agent(
            name="a",
            model="small-model",
            tools=list(tools),
            output_type=output_type,
            model_settings=settings or ModelSettings(),
        )
        config = RunConfig(model_provider=provider, tracing_disabled=True)
        if request.param == "response":
            return (await Runner.run(agent, "hello", run_config=config)).final_output
        result = Runner.run_streamed(agent, "hello", run_config=config)
        async for _ in result.stream_events():
            pass
        return result.final_output

    return run


async def test_each_model_call_is_charged(run: Run, ledger: Ledger) -> None:
    assert await run(Fake(says("done", tokens=(20, 5))), model_budget=TOKENS(100)) == "done"
    assert ledger.spent() == 25
    assert [(row.action.kind, row.action.name) for row in ledger.rows()] == [("llm.completion", "small-model")]


async def test_models_and_tools_are_charged(client: cycles.Cycles, ledger: Ledger) -> None:
    tool = function_tool(guard_tool(client, tool_budget=TOKENS(3))(search))
    model = GuardedModel(Fake(says("", SEARCH), says("done", tokens=(20, 5))), client=client, model_budget=TOKENS(100))
    result = await run_agent(model, tool)
    assert outputs(result) == ["found x"]
    assert ledger.spent() == 15 + 3 + 25
    assert [(row.action.kind, row.action.name) for row in ledger.rows()] == [
        ("llm.completion", "Fake"),
        ("tool.call", "search"),
        ("llm.completion", "Fake"),
    ]


async def test_prices_get_all_counts_and_the_model(client: cycles.Cycles, ledger: Ledger) -> None:
    seen: list[Any] = []

    def price(used: cycles.Usage) -> cycles.Amount:
        seen.append((used.tokens_input, used.tokens_output, used.tokens_cached_input, used.model_version))
        return cycles.usd("0.02")

    reply = says()
    reply.usage.input_tokens_details = reply.usage.input_tokens_details.model_copy(update={"cached_tokens": 4})
    model = GuardedModel(Fake(reply), name="mini", client=client, model_budget=cycles.usd(1), model_actual=price)
    await run_agent(model)
    assert ledger.spent("USD_MICROCENTS") == 2_000_000
    assert seen[-1] == (10, 5, 4, "mini")


async def test_a_stream_is_priced_by_the_model_that_responded(client: cycles.Cycles, ledger: Ledger) -> None:
    seen: list[Any] = []

    def price(used: cycles.Usage) -> cycles.Amount:
        seen.append(used.model_version)
        return cycles.usd("0.02")

    model = GuardedModel(Fake(says()), client=client, model_budget=cycles.usd(1), model_actual=price)
    async for _ in Runner.run_streamed(
        Agent(name="a", model=model), "hello", run_config=RunConfig(tracing_disabled=True)
    ).stream_events():
        pass
    assert ledger.spent("USD_MICROCENTS") == 2_000_000
    assert seen[-1] == "small-model-2026"


async def test_usage_of_zeros_is_not_reported(run: Run, ledger: Ledger) -> None:
    await run(Fake(says(tokens=(0, 0))), model_budget=TOKENS(70))
    assert ledger.spent() == 70
    assert ledger.metadata() == [{"actual_source": "estimate"}]


async def test_a_model_budget_is_called_with_the_call(run: Run, ledger: Ledger) -> None:
    seen: list[ModelCall] = []

    def budget(call: ModelCall) -> None:
        seen.append(call)

    await run(Fake(says()), model_budget=budget)
    assert [(call.model, call.tools) for call in seen] == [("small-model", [])]
    assert ledger.rows() == []


async def test_a_denied_model_call_raises_by_default(run: Run, ledger: Ledger) -> None:
    model = Fake(says())
    with pytest.raises(cycles.BudgetExceededError):
        await run(model, model_budget=TOKENS(2_000_000))
    assert ledger.spent() == 0
    assert model.asked == []


@pytest.mark.parametrize("on_denied", ["message", lambda error: "no money for this"])
async def test_a_denied_model_call_becomes_a_message(run: Run, ledger: Ledger, on_denied: Any) -> None:
    text = await run(Fake(says()), model_budget=TOKENS(2_000_000), on_denied=on_denied)
    assert text == "no money for this" if callable(on_denied) else "BUDGET_EXCEEDED" in text
    assert "acme" not in text
    assert ledger.spent() == 0


async def test_a_denial_raises_if_the_output_is_structured(run: Run) -> None:
    with pytest.raises(cycles.BudgetExceededError):
        await run(Fake(says()), model_budget=TOKENS(2_000_000), on_denied="message", output_type=list[str])


async def test_an_outage_is_raised_and_nothing_runs(
    run: Run, client: cycles.Cycles, server: cycles.EmbeddedServer
) -> None:
    server.faults.status("reserve", 500, times=None)
    model = Fake(says("", SEARCH))
    with pytest.raises(cycles.ServerError):
        await run(model, model_budget=TOKENS(10), on_denied="message")
    assert model.asked == []
    with pytest.raises(cycles.ServerError):
        await run_agent(model, guard_tool(client, tool_budget=TOKENS(3))(function_tool(search)))


async def test_caps_limit_the_request_on_a_copy(run: Run, server: cycles.EmbeddedServer, ledger: Ledger) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"max_tokens": 7, "tool_denylist": ["delete"]})

    def delete(path: str) -> str:
        return "deleted"

    settings = ModelSettings(max_tokens=50, tool_choice="delete")
    model = Fake(says())
    await run(model, model_budget=TOKENS(20), tools=[function_tool(search), function_tool(delete)], settings=settings)
    asked = model.asked[0]
    assert (asked["settings"].max_tokens, asked["settings"].tool_choice, asked["tools"]) == (7, None, ["search"])
    assert (settings.max_tokens, settings.tool_choice) == (50, "delete")
    assert ledger.spent() == 15


async def test_no_step_left_is_a_denial(run: Run, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"max_steps_remaining": 0})
    with pytest.raises(cycles.StepsExhaustedError):
        await run(Fake(says()), model_budget=TOKENS(5))


async def test_a_failed_model_call_is_released(run: Run, ledger: Ledger) -> None:
    with pytest.raises(ConnectionError):
        await run(Fake(ConnectionError("down")), model_budget=TOKENS(5))
    assert ledger.spent() == 0


@pytest.mark.parametrize(("text", "outcome"), [("one two " + "more " * 200, "closed"), ("one two BREAK", "error")])
async def test_a_stream_that_ends_early_is_charged_for_what_was_made(
    client: cycles.Cycles, ledger: Ledger, text: str, outcome: str
) -> None:
    model = GuardedModel(Fake(says(text)), client=client, model_budget=TOKENS(1000))
    stream: Any = model.stream_response("be brief", "hello", ModelSettings(), [], None, [], None)
    try:
        async for event in stream:
            if event.delta == "two" and outcome == "closed":
                break
    except ConnectionError:
        assert outcome == "error"
    await stream.aclose()
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == [{"actual_source": "estimate", "outcome": outcome}]


@pytest.mark.parametrize(
    ("text", "tokens", "spent", "metadata"),
    [
        ("one two FAILS", (10, 5), 15, [{}]),
        ("one two FAILS", (0, 0), None, [{"actual_source": "estimate", "outcome": "error"}]),
        ("FAILS", (0, 0), 0, []),
    ],
    ids=["with usage", "without usage", "before any output"],
)
async def test_a_stream_that_fails_is_charged_for_what_was_made(
    client: cycles.Cycles, ledger: Ledger, text: str, tokens: tuple[int, int], spent: int | None, metadata: Any
) -> None:
    model = GuardedModel(Fake(says(text, tokens=tokens)), client=client, model_budget=TOKENS(1000))
    stream: Any = model.stream_response("be brief", "hello", ModelSettings(), [], None, [], None)
    types = [event.type async for event in stream]
    assert types[-1] == "response.failed"
    assert 0 < ledger.spent() < 100 if spent is None else ledger.spent() == spent
    assert ledger.metadata() == metadata


async def test_a_cancelled_model_call_is_released(client: cycles.Cycles, ledger: Ledger) -> None:
    called = asyncio.Event()

    async def wait() -> None:
        called.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(run_agent(GuardedModel(Fake(wait), client=client, model_budget=TOKENS(5))))
    await set_by(task, called)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ledger.spent() == 0


async def test_thirty_agents_at_once(client: cycles.Cycles, ledger: Ledger) -> None:
    tool = function_tool(guard_tool(client, tool_budget=TOKENS(3))(search))
    models = [Fake(says("", SEARCH), says()) for _ in range(30)]
    await asyncio.gather(
        *(run_agent(GuardedModel(model, client=client, model_budget=TOKENS(100)), tool) for model in models)
    )
    assert ledger.spent() == 30 * (15 + 3 + 15)


async def test_what_is_wrapped_is_closed_and_has_retry_advice(client: cycles.Cycles) -> None:
    inner = Fake(says())
    inner.get_retry_advice = lambda request: "again"  # type: ignore[method-assign,assignment,return-value]
    provider = Provider(inner)
    guarded = GuardedProvider(client, provider=provider, model_budget=TOKENS(1))
    model: Any = guarded.get_model("small-model")
    await model.close()
    await guarded.aclose()
    assert (inner.closed, provider.closed) == (1, 1)

    class Request:
        error: Exception = ConnectionError()

    assert model.get_retry_advice(Request()) == "again"
    Request.error = cycles.InvalidRequestError("ours")
    assert model.get_retry_advice(Request()) is None


def test_wrong_options_are_rejected_when_the_object_is_made(client: cycles.Cycles) -> None:
    with pytest.raises(TypeError, match="unknown option 'ttl'"):
        GuardedProvider(client, model_budget=TOKENS(1), ttl=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unknown option 'ttl'"):
        guard_tool(client, tool_budget=TOKENS(1), ttl=5)  # type: ignore[call-arg]
    wrongs: list[dict[str, Any]] = [{"model_budget": 5}, {"on_denied": "ignore"}, {"ttl_ms": -1}, {"provider": 5}]
    for wrong in wrongs:
        with pytest.raises(cycles.InvalidRequestError):
            GuardedProvider(client, **{"model_budget": TOKENS(1), **wrong})
    for make in (
        lambda: GuardedModel("small-model", model_budget=TOKENS(1)),  # type: ignore[arg-type]
        lambda: guard_tool(client, tool_budget=5),  # type: ignore[arg-type]
        lambda: guard_tool(client, tool_budget=TOKENS(5))("search"),
    ):
        with pytest.raises(cycles.InvalidRequestError):
            make()


def test_without_the_library_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['agents'] = None\n"
        "try:\n    import cycles.integrations.openai_agents\nexcept ImportError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'cycles-sdk[openai-agents]'" in told
