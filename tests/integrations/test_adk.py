"""Google ADK: guarded models and tools in real runners: sums, denials, caps, failures, streams, concurrency."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

import cycles
from cycles.testing import FakeProvider
from tests.integrations.conftest import Ledger, settled
from tests.support.waiting import set_by

pytest.importorskip("google.adk", reason="google-adk is not installed: run make test-integrations")

from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.models import BaseLlm, Gemini
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types

from cycles.integrations.adk import CyclesPlugin, guard

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]

TOKENS = cycles.tokens
Use: Any = types.GenerateContentResponseUsageMetadata


def says(*parts: Any, partial: bool = False, tokens: tuple[int, int] | None = (10, 5), **usage: int) -> LlmResponse:
    made = [types.Part(text=part) if isinstance(part, str) else part for part in parts]
    used = None
    if tokens is not None:
        used = Use(prompt_token_count=tokens[0], candidates_token_count=tokens[1], **usage)
    content = types.Content(role="model", parts=made)
    return LlmResponse(content=content, usage_metadata=used, partial=partial or None)


def calls(name: str, **args: Any) -> Any:
    return types.Part(function_call=types.FunctionCall(name=name, args=args))


class Model(BaseLlm):
    """A model that returns what it was told; a stream has a chunk for each word, then the whole response."""

    model: str = "small-model"
    replies: list[Any]
    asked: list[Any]

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        self.asked.append(llm_request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, BaseException):
            raise reply
        for word in reply.content.parts[0].text.split() if stream and reply.content.parts[0].text else ():
            if word == "BREAK":
                raise ConnectionError("the model broke off")
            yield says(word, partial=True, tokens=None)
            await asyncio.sleep(0)
        yield reply


def search(query: str) -> dict[str, str]:
    """Search."""
    if query == "fail":
        raise RuntimeError("no network at tenant:acme")
    return {"found": query}


def delete(path: str) -> str:
    """Delete."""
    return "deleted"


def model_of(*replies: Any) -> Model:
    return Model(replies=list(replies), asked=[])


async def run(model: Any, *plugins: Any, streamed: bool = False, tools: Any = (search, delete)) -> list[Any]:
    return await run_agent(LlmAgent(name="helper", model=model, tools=list(tools)), *plugins, streamed=streamed)


async def run_agent(agent: Any, *plugins: Any, streamed: bool = False) -> list[Any]:
    runner = InMemoryRunner(agent=agent, app_name="app", plugins=list(plugins))
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    config = RunConfig(streaming_mode=StreamingMode.SSE if streamed else StreamingMode.NONE)
    message = types.Content(role="user", parts=[types.Part(text="hello")])
    events = runner.run_async(user_id="u", session_id=session.id, new_message=message, run_config=config)
    return [event async for event in events]


def words(events: list[Any]) -> list[str]:
    parts = [part for event in events for part in event.content.parts if not event.partial]
    return [part.text for part in parts if part.text]


def results(events: list[Any]) -> list[Any]:
    parts = [part for event in events if event.content for part in event.content.parts]
    return [part.function_response.response for part in parts if part.function_response]


@pytest.fixture
def guarded(client: cycles.Cycles) -> Callable[..., Any]:
    def guarded(model: Any, **options: Any) -> Any:
        return guard(model, client, **{"model_budget": TOKENS(100), **options})

    return guarded


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_each_model_call_and_each_tool_call_is_charged(
    streamed: bool, guarded: Any, client: cycles.Cycles, ledger: Ledger
) -> None:
    model = model_of(says(calls("search", query="x")), says("all done", tokens=(20, 5)))
    plugin = CyclesPlugin(client, tool_budget={"search": TOKENS(3)}, subject=lambda call: {"agent": call.agent})
    events = await run(guarded(model), plugin, streamed=streamed)
    assert words(events) == ["all done"]
    assert results(events) == [{"found": "x"}]
    assert ledger.spent() == 15 + 3 + 25
    assert [(row.action.kind, row.action.name, row.subject.agent) for row in ledger.rows()] == [
        ("llm.completion", "small-model", None),
        ("tool.call", "search", "helper"),
        ("llm.completion", "small-model", None),
    ]


async def test_each_agent_of_a_team_draws_on_its_own_budget(
    streamed: bool, guarded: Any, server: cycles.EmbeddedServer, client: cycles.Cycles, ledger: Ledger
) -> None:
    def own(call: Any) -> dict[str, str]:
        return {"agent": call.agent}

    for name in ("helper", "writer"):
        server.ledger.set_budget(f"tenant:acme/agent:{name}", TOKENS(1_000))
    handing_on, searching = says(calls("transfer_to_agent", agent_name="writer")), says(calls("search", query="x"))
    written = guarded(model_of(searching, says("written", tokens=(20, 5))), subject=own)
    writer = LlmAgent(name="writer", description="It writes.", model=written, tools=[search])
    helper = LlmAgent(name="helper", model=guarded(model_of(handing_on), subject=own), sub_agents=[writer])
    plugin = CyclesPlugin(client, tool_budget={"search": TOKENS(3)}, subject=own)
    assert words(await run_agent(helper, plugin, streamed=streamed))[-1] == "written"
    assert [(row.action.name, row.subject.agent) for row in ledger.rows()] == [
        ("small-model", "helper"),
        ("small-model", "writer"),
        ("search", "writer"),
        ("small-model", "writer"),
    ]
    assert ledger.spent(scope="tenant:acme/agent:helper") == 15
    assert ledger.spent(scope="tenant:acme/agent:writer") == 15 + 3 + 25


async def test_an_agent_whose_budget_is_used_up_is_denied_alone(guarded: Any, ledger: Ledger) -> None:
    def own(call: Any) -> dict[str, str]:
        return {"agent": call.agent}

    model = guarded(model_of(says("done")), subject=own)
    with pytest.raises(cycles.BudgetExceededError):
        await run_agent(LlmAgent(name="poor", model=model))
    assert words(await run_agent(LlmAgent(name="helper", model=model))) == ["done"]
    assert ledger.spent() == 15


async def test_prices_get_all_counts(guarded: Any, ledger: Ledger) -> None:
    book = cycles.PriceBook({"small-model": cycles.Price(input="1", output="10", cached_input="0.1")})
    reply = says("done", tokens=(1_000, 20), cached_content_token_count=600, thoughts_token_count=30)
    await run(guarded(model_of(reply), model_budget=cycles.usd(1), model_actual=book))
    assert ledger.spent("USD_MICROCENTS") == 400 * 100 + 600 * 10 + 50 * 1_000


@pytest.mark.usefixtures("closed_http_clients")
async def test_a_known_client_is_metered(
    streamed: bool, guarded: Any, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    used = {"promptTokenCount": 1_000, "candidatesTokenCount": 300, "totalTokenCount": 1_300}
    parts = {"content": {"role": "model", "parts": [{"text": "Hello there"}]}, "finishReason": "STOP"}
    grounded = {"candidates": [{**parts, "groundingMetadata": {"webSearchQueries": ["a", "b"]}}]}
    with FakeProvider() as provider:
        provider.reply(text="Hello there", extra={"usageMetadata": used, **({} if streamed else grounded)})
        original = Gemini(model="gemini-2.5-flash", base_url=provider.google_url)
        options = {"model_budget": cycles.usd(1), "model_actual": cycles.PriceBook.genai()}
        model = guarded(original, **options)
        assert isinstance(model, Gemini)
        assert words(await run(model, streamed=streamed, tools=())) == ["Hello there"]
    assert ledger.spent("USD_MICROCENTS") == 105_000 + (0 if streamed else 3_500_000)
    assert not hasattr(type(original.api_client), "_cycles_meter")


async def test_without_usage_the_estimate_is_committed(guarded: Any, ledger: Ledger) -> None:
    await run(guarded(model_of(says("done", tokens=None))))
    assert ledger.spent() == 100
    assert ledger.metadata() == [{"actual_source": "estimate"}]


async def test_thirty_runs_in_parallel(guarded: Any, client: cycles.Cycles, ledger: Ledger) -> None:
    plugin = CyclesPlugin(client, tool_budget=TOKENS(3))
    replies = says(calls("search", query="x")), says("done")
    await asyncio.gather(*(run(guarded(model_of(*replies)), plugin, streamed=bool(n % 2)) for n in range(30)))
    assert ledger.spent() == 30 * (15 + 3 + 15)


async def test_structured_output_is_charged(guarded: Any, ledger: Ledger) -> None:
    from pydantic import BaseModel

    class Answer(BaseModel):
        number: int

    agent = LlmAgent(name="helper", model=guarded(model_of(says('{"number": 4}'))), output_schema=Answer)
    events = await run_agent(agent)
    assert Answer.model_validate_json(words(events)[0]).number == 4
    assert ledger.spent() == 15


async def test_a_denied_model_call_raises_by_default(streamed: bool, guarded: Any, ledger: Ledger) -> None:
    model = model_of(says("done"))
    with pytest.raises(cycles.BudgetExceededError, match="Do not try it again"):
        await run(guarded(model, model_budget=TOKENS(2_000_000)), streamed=streamed)
    assert model.asked == []
    assert ledger.spent() == 0


@pytest.mark.parametrize("on_denied", ["message", lambda error, call: f"no money for {call.model}"])
async def test_a_denied_model_call_can_be_a_message(
    streamed: bool, on_denied: Any, guarded: Any, ledger: Ledger
) -> None:
    model = model_of(says("done"))
    events = await run(guarded(model, model_budget=TOKENS(2_000_000), on_denied=on_denied), streamed=streamed)
    [text] = words(events)
    assert ("no money for small-model" if callable(on_denied) else "BUDGET_EXCEEDED") in text
    assert events[-1].custom_metadata["cycles_denied"] == "BUDGET_EXCEEDED"
    assert "acme" not in text
    assert model.asked == []
    assert ledger.spent() == 0


@pytest.mark.parametrize("on_denied", [None, lambda error, call: f"no money for {call.name}"])
async def test_a_denied_tool_call_is_an_error_for_the_model(
    on_denied: Any, client: cycles.Cycles, ledger: Ledger
) -> None:
    plugin = CyclesPlugin(client, tool_budget=TOKENS(2_000_000), on_denied=on_denied)
    [result] = results(await run(model_of(says(calls("search", query="x")), says("done")), plugin))
    assert ("no money for search" if on_denied else "BUDGET_EXCEEDED") in result["error"]
    assert ledger.spent() == 0


async def test_a_denied_tool_call_can_raise(client: cycles.Cycles) -> None:
    plugin = CyclesPlugin(client, tool_budget=TOKENS(2_000_000), on_denied="raise")
    with pytest.raises(cycles.BudgetExceededError):
        await run(model_of(says(calls("search", query="x"))), plugin)


async def test_caps_limit_the_request_on_a_copy(guarded: Any, server: Any, client: Any, ledger: Ledger) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1_000), caps={"max_tokens": 7, "tool_denylist": ["delete"]})
    model = model_of(says(calls("delete", path="/")), says("done"))
    events = await run(guarded(model), CyclesPlugin(client, tool_budget=TOKENS(5)))
    config = model.asked[0].config
    assert config.max_output_tokens == 7
    assert [each.name for tool in config.tools for each in tool.function_declarations] == ["search"]
    assert "TOOL_NOT_ALLOWED" in results(events)[0]["error"]
    assert ledger.spent() == 30


async def test_failed_calls_are_released(streamed: bool, guarded: Any, client: cycles.Cycles, ledger: Ledger) -> None:
    with pytest.raises(ConnectionError):
        await run(guarded(model_of(ConnectionError("down"))), streamed=streamed)
    await run(guarded(model_of(LlmResponse(error_code="500", error_message="down"))), tools=())
    with pytest.raises(RuntimeError, match="no network"):
        plugin = CyclesPlugin(client, tool_budget=TOKENS(5))
        await run(model_of(says(calls("search", query="fail"))), plugin)
    assert ledger.spent() == 0


async def test_a_stream_that_breaks_off_costs_what_was_made(guarded: Any, ledger: Ledger) -> None:
    with pytest.raises(ConnectionError):
        await run(guarded(model_of(says("one two BREAK"))), streamed=True)
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == [{"actual_source": "estimate", "outcome": "error"}]


async def test_a_stream_that_is_left_early_costs_what_was_made(guarded: Any, client: Any, ledger: Ledger) -> None:
    model = guarded(model_of(says("one " * 50)))
    stream = model.generate_content_async(LlmRequest(model="small-model"), stream=True)
    async for _ in stream:
        break
    await stream.aclose()
    await settled(client)
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == [{"actual_source": "estimate", "outcome": "closed"}]


async def test_a_cancelled_call_costs_its_prompt(guarded: Any, client: cycles.Cycles, ledger: Ledger) -> None:
    called = asyncio.Event()

    class Waiting(Model):
        async def generate_content_async(self, llm_request: Any, stream: bool = False) -> AsyncGenerator[Any, None]:
            called.set()
            await asyncio.Event().wait()
            yield says("never")

    task = asyncio.create_task(run(guarded(Waiting(replies=[], asked=[]))))
    await set_by(task, called)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(client)
    assert ledger.spent() < 100
    assert ledger.metadata() == [{"actual_source": "estimate", "outcome": "closed"}]


async def test_the_model_itself_is_not_changed(guarded: Any, ledger: Ledger) -> None:
    model = model_of(says("done"))
    copied = guarded(model)
    assert isinstance(copied, Model)
    assert copied.model_dump() == model.model_dump()
    await run(model)
    assert ledger.rows() == []


async def test_a_live_connection_is_rejected(guarded: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="live connection"):
        guarded(model_of(says("done"))).connect(LlmRequest())


def test_wrong_values_are_rejected_when_the_object_is_made(guarded: Any, client: cycles.Cycles) -> None:
    model = model_of(says("done"))
    with pytest.raises(TypeError, match="unknown option 'ttl'"):
        guarded(model, ttl=5)
    with pytest.raises(cycles.InvalidRequestError, match="guarded already"):
        guarded(guarded(model))
    with pytest.raises(cycles.InvalidRequestError, match="must be a BaseLlm"):
        guarded(search)
    with pytest.raises(cycles.InvalidRequestError, match=r"a name that it knows: .*no-such-model"):
        guarded("no-such-model")
    wrong: Any
    for wrong in ({"model_budget": None}, {"model_budget": 5}, {"on_denied": "ignore"}, {"ttl_ms": -1}):
        with pytest.raises(cycles.InvalidRequestError):
            guarded(model, **wrong)
    with pytest.raises(cycles.InvalidRequestError, match=r"tool_actual must take \(call, result\)"):
        CyclesPlugin(client, tool_budget=TOKENS(1), tool_actual=lambda one: TOKENS(1))  # type: ignore[misc, arg-type]
    assert isinstance(guarded("gemini-2.5-flash"), Gemini)


def test_without_the_library_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['google.adk'] = None\n"
        "try:\n    import cycles.integrations.adk\nexcept ImportError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'cycles-sdk[adk]'" in told
