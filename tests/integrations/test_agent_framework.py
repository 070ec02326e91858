"""Microsoft Agent Framework: guarded agents: sums, denials, caps, failures, streams, concurrency."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger, settled
from tests.support.waiting import set_by

pytest.importorskip("agent_framework", reason="agent-framework-core is not installed: run make test-integrations")

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    MiddlewareFailure,
    ResponseStream,
)

from cycles.integrations.agent_framework import CyclesChatMiddleware, CyclesFunctionMiddleware

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]

TOKENS = cycles.tokens
USED = {"input_token_count": 10, "output_token_count": 5, "total_token_count": 15}
Reply = tuple[list[Any], Any]


def says(text: str = "all done", used: Any = USED) -> Reply:
    return [Content.from_text(f"{word} ") for word in text.split()], used


def calls(name: str, **arguments: Any) -> Reply:
    return [Content.from_function_call("call-1", name, arguments=arguments)], USED


class Client(FunctionInvocationLayer, ChatMiddlewareLayer, BaseChatClient):  # type: ignore[type-arg]
    """A chat client that returns what it was told; a stream has an update for each word, then the usage."""

    def __init__(self, *replies: Any) -> None:
        super().__init__()
        self.asked: list[Any] = []
        self.replies, self.model = list(replies), "small-model"

    def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **more: Any) -> Any:
        self.asked.append(options)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if stream:
            return ResponseStream(self.updates(reply), finalizer=ChatResponse.from_updates)
        return self.respond(reply)

    async def updates(self, reply: Any) -> Any:
        if isinstance(reply, BaseException):
            raise reply
        for content in reply[0]:
            if content.text == "BREAK ":
                raise ConnectionError("the model broke off")
            yield ChatResponseUpdate(role="assistant", contents=[content])
            await asyncio.sleep(0)
        if reply[1] is not None:
            yield ChatResponseUpdate(role="assistant", contents=[Content.from_usage(reply[1])])

    async def respond(self, reply: Any) -> Any:
        if isinstance(reply, BaseException):
            raise reply
        return ChatResponse(messages=[Message("assistant", reply[0])], usage_details=reply[1])


def search(query: str) -> str:
    """Search."""
    if query == "fail":
        raise RuntimeError("no network at tenant:acme")
    return f"found {query}"


def delete(path: str) -> str:
    """Delete."""
    return "deleted"


@pytest.fixture(params=["whole", "streamed"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run an agent both ways, and return its response."""

    async def run(client: Any, *middleware: Any, **options: Any) -> Any:
        agent: Any = Agent(client=client, name="helper", tools=[search, delete], middleware=list(middleware))
        if request.param == "whole":
            return await agent.run("hello", **options)
        stream = agent.run("hello", stream=True, **options)
        async for _ in stream:
            pass
        return await stream.get_final_response()

    return run


@pytest.fixture
def models(client: cycles.Cycles) -> Callable[..., Any]:
    return lambda **options: CyclesChatMiddleware(client, **{"model_budget": TOKENS(100), **options})


@pytest.fixture
def tools(client: cycles.Cycles) -> Callable[..., Any]:
    return lambda **options: CyclesFunctionMiddleware(client, **{"tool_budget": TOKENS(3), **options})


def results(response: Any) -> list[Any]:
    return [part.result for message in response.messages for part in message.contents if part.type == "function_result"]


async def test_each_model_call_and_each_tool_call_is_charged(run: Any, models: Any, tools: Any, ledger: Ledger) -> None:
    client = Client(calls("search", query="x"), says("all done", {**USED, "input_token_count": 20}))
    response = await run(client, models(), tools(tool_budget={"search": TOKENS(3)}))
    assert response.text.split() == ["all", "done"]
    assert "found x" in str(results(response))
    assert ledger.spent() == 15 + 3 + 25
    assert [(row.action.kind, row.action.name) for row in ledger.rows()] == [
        ("llm.completion", "small-model"),
        ("tool.call", "search"),
        ("llm.completion", "small-model"),
    ]


@pytest.mark.parametrize(
    ("used", "cost"),
    [
        ({"input_token_count": 1_000, "cache_read_input_token_count": 600}, 400 * 100 + 600 * 10),
        (
            {"input_token_count": 100, "cache_read_input_token_count": 600, "cache_creation_input_token_count": 300},
            100 * 100 + 600 * 10 + 300 * 125,
        ),
    ],
)
async def test_prices_get_all_counts(run: Any, models: Any, ledger: Ledger, used: Any, cost: int) -> None:
    price = cycles.Price(input="1", output="10", cached_input="0.1", cache_write="1.25")
    options = {"model_budget": cycles.usd(1), "model_actual": cycles.PriceBook({"small-model": price})}
    await run(Client(says("done", {**used, "output_token_count": 20})), models(**options))
    assert ledger.spent("USD_MICROCENTS") == cost + 20 * 1_000


async def test_without_usage_the_estimate_is_committed(models: Any, ledger: Ledger) -> None:
    await Agent(client=Client(says("done", None)), middleware=[models()]).run("hello")
    assert ledger.spent() == 100
    assert ledger.metadata() == [{"actual_source": "estimate"}]


async def test_thirty_runs_in_parallel(run: Any, models: Any, tools: Any, ledger: Ledger) -> None:
    middleware = models(), tools()
    await asyncio.gather(*(run(Client(calls("search", query="x"), says()), *middleware) for _ in range(30)))
    assert ledger.spent() == 30 * (15 + 3 + 15)


async def test_structured_output_is_charged(run: Any, models: Any, ledger: Ledger) -> None:
    from pydantic import BaseModel

    class Answer(BaseModel):
        number: int

    response = await run(Client(says('{"number":4}')), models(), options={"response_format": Answer})
    assert response.value.number == 4
    assert ledger.spent() == 15


async def test_a_denied_model_call_raises_by_default(run: Any, models: Any, ledger: Ledger) -> None:
    client = Client(says())
    with pytest.raises(cycles.BudgetExceededError, match="Do not try it again"):
        await run(client, models(model_budget=TOKENS(2_000_000)))
    assert client.asked == []
    assert ledger.spent() == 0


@pytest.mark.parametrize("on_denied", ["message", lambda error, context: "no money"])
async def test_a_denied_model_call_can_be_a_message(run: Any, models: Any, ledger: Ledger, on_denied: Any) -> None:
    client = Client(says())
    response = await run(client, models(model_budget=TOKENS(2_000_000), on_denied=on_denied))
    assert ("no money" if callable(on_denied) else "BUDGET_EXCEEDED") in response.text
    assert "acme" not in response.text
    assert client.asked == []
    assert ledger.spent() == 0


@pytest.mark.parametrize("on_denied", [None, lambda error, context: f"no money for {context.function.name}"])
async def test_a_denied_tool_call_is_a_result(run: Any, tools: Any, ledger: Ledger, on_denied: Any) -> None:
    middleware = tools(tool_budget=TOKENS(2_000_000), on_denied=on_denied)
    response = await run(Client(calls("search", query="x"), says()), middleware)
    assert ("no money for search" if on_denied else "BUDGET_EXCEEDED") in str(results(response))
    assert ledger.spent() == 0


async def test_a_denied_tool_call_can_end_the_run(run: Any, tools: Any, ledger: Ledger) -> None:
    with pytest.raises(cycles.BudgetExceededError) as raised:
        await run(Client(calls("search", query="x"), says()), tools(tool_budget=TOKENS(2_000_000), on_denied="raise"))
    assert isinstance(raised.value, MiddlewareFailure)
    assert "acme" not in str(raised.value)
    assert ledger.spent() == 0


async def test_an_outage_ends_the_run(run: Any, tools: Any, server: cycles.EmbeddedServer) -> None:
    server.faults.status("reserve", 500, times=None)
    with pytest.raises(cycles.ServerError):
        await run(Client(calls("search", query="x"), says()), tools())


async def test_caps_limit_the_request(run: Any, models: Any, tools: Any, server: Any, ledger: Ledger) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1_000), caps={"max_tokens": 7, "tool_denylist": ["delete"]})
    client = Client(calls("delete", path="/"), says())
    response = await run(client, models(), tools())
    assert client.asked[0]["max_tokens"] == 7
    assert [each.name for each in client.asked[0]["tools"]] == ["search"]
    assert "TOOL_NOT_ALLOWED" in str(results(response))
    assert ledger.spent() == 30


async def test_failed_calls_are_released(run: Any, models: Any, tools: Any, ledger: Ledger) -> None:
    with pytest.raises(ConnectionError):
        await run(Client(ConnectionError("down")), models())
    await run(Client(calls("search", query="fail"), says()), tools())
    assert ledger.spent() == 0


async def test_a_stream_that_breaks_off_costs_what_was_made(models: Any, ledger: Ledger) -> None:
    with pytest.raises(ConnectionError):
        async for _ in Agent(client=Client(says("one two BREAK")), middleware=[models()]).run("hello", stream=True):
            pass
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == [{"actual_source": "estimate", "outcome": "error"}]


async def test_a_stream_that_is_left_early_costs_what_was_made(models: Any, client: Any, ledger: Ledger) -> None:
    async def read() -> None:
        async for _ in Agent(client=Client(says("one " * 50)), middleware=[models()]).run("hello", stream=True):
            break

    await read()
    gc.collect()  # some versions have a reference cycle around their streams
    await settled(client)
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == [{"actual_source": "estimate", "outcome": "closed"}]


async def test_a_cancelled_call_costs_its_estimate(models: Any, ledger: Ledger) -> None:
    called = asyncio.Event()

    class Waiting(Client):
        async def respond(self, reply: Any) -> Any:
            called.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(Agent(client=Waiting(says()), middleware=[models()]).run("hello"))
    await set_by(task, called)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [row] = ledger.rows()
    assert row.reserved is not None
    assert ledger.spent() == row.reserved.amount > 0
    assert ledger.metadata() == [{"outcome": "error", "attempts": 1, "actual_source": "estimate"}]


async def test_a_cancelled_stream_costs_what_was_made(models: Any, client: cycles.Cycles, ledger: Ledger) -> None:
    called = asyncio.Event()

    class Waiting(Client):
        async def updates(self, reply: Any) -> Any:
            yield ChatResponseUpdate(role="assistant", contents=reply[0][:1])
            called.set()
            await asyncio.Event().wait()

    async def read() -> None:
        async for _ in Agent(client=Waiting(says()), middleware=[models()]).run("hello", stream=True):
            pass

    task = asyncio.create_task(read())
    await set_by(task, called)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(client)
    assert 0 < ledger.spent() < 100
    assert ledger.metadata() == [{"actual_source": "estimate", "outcome": "closed"}]


async def test_a_guarded_client_inside_is_paid_once(models: Any, client: cycles.Cycles, ledger: Ledger) -> None:
    openai: Any = pytest.importorskip("openai")
    from cycles.testing import FakeProvider

    book = cycles.PriceBook.genai()
    with FakeProvider() as provider:
        original = openai.AsyncOpenAI(api_key="k", base_url=provider.openai_url)
        llm = cycles.providers.guard(original, client=client, prices=book)

        class Asking(Client):
            async def respond(self, reply: Any) -> Any:
                await llm.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "hi"}])
                return await super().respond(reply)

        provider.reply(usage={"tokens_input": 1_000, "tokens_output": 300})
        guards = models(model_budget=cycles.usd(1), model_actual=book)
        await Agent(client=Asking(says()), middleware=[guards]).run("hello")
        await original.close()
    assert ledger.spent("USD_MICROCENTS") == 425_000
    assert len(ledger.rows()) == 1


def test_wrong_values_are_rejected_when_the_object_is_made(models: Any, tools: Any) -> None:
    for make in (models, tools):
        with pytest.raises(TypeError, match="unknown option 'ttl'"):
            make(ttl=5)
        for wrong in ({"on_denied": "ignore"}, {"ttl_ms": -1}):
            with pytest.raises(cycles.InvalidRequestError):
                make(**wrong)
    for budget in (None, 5):
        with pytest.raises(cycles.InvalidRequestError, match="model_budget"):
            models(model_budget=budget)
    with pytest.raises(cycles.InvalidRequestError, match="tool_budget"):
        tools(tool_budget={"search": 5})
    with pytest.raises(cycles.InvalidRequestError, match=r"tool_actual must take \(context, result\)"):
        tools(tool_actual=lambda one: TOKENS(1))


def test_without_the_library_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['agent_framework'] = None\n"
        "try:\n    import cycles.integrations.agent_framework\nexcept ImportError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'cycles-sdk[agent-framework]'" in told
