"""Microsoft Agent Framework under guards, with stand-ins of the library: what is sent, charged, and read of responses.

The library itself is in `make test-integrations`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger
from tests.integrations.stand_ins import imported_with, module

PRICE = cycles.Price("1", "10", cached_input="0.1", cache_write="1.25", per_call={"web_searches": "0.01"})
BOOK = cycles.PriceBook({"m": PRICE, "served": cycles.Price("2", "20")})
ONE = cycles.usd(1)
EXACT = 10 * 100 + 5 * 1_000
TOO_MUCH = cycles.usd(1_000)
USED = {"input_token_count": 10, "output_token_count": 5, "total_token_count": 15}


class Content(SimpleNamespace):
    """A part of a message: text, a call of a function, or usage."""

    @classmethod
    def from_text(cls, text: str) -> Content:
        return cls(type="text", text=text)


class Message:
    def __init__(self, role: str, contents: list[Any]) -> None:
        self.role, self.contents = role, contents
        self.text = " ".join(part.text for part in contents if part.type == "text")


class ChatResponse(SimpleNamespace):
    def __init__(self, **members: Any) -> None:
        super().__init__(**{"usage_details": None, "raw_representation": None, "model": None, **members})

    @classmethod
    def from_updates(cls, updates: list[Any]) -> ChatResponse:
        return cls(messages=[Message("assistant", [part for each in updates for part in each.contents])])


class ChatResponseUpdate(SimpleNamespace):
    def __init__(self, **members: Any) -> None:
        super().__init__(**{"contents": [], "raw_representation": None, "model": None, **members})


class ResponseStream:
    """A stream, and what makes the whole response of the updates that were read."""

    def __init__(self, updates: Any, finalizer: Any) -> None:
        self.updates, self.finalizer = updates, finalizer
        self.read: list[Any] = []

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for update in self.updates:
            self.read.append(update)
            yield update

    async def aclose(self) -> None:
        await self.updates.aclose()

    async def get_final_response(self) -> Any:
        found = self.finalizer(self.read)
        return await found if inspect.isawaitable(found) else found


class MiddlewareFailure(Exception):
    """The base of the errors that end a run."""


@pytest.fixture
def framework() -> Iterator[Any]:
    yield from imported_with(
        "agent_framework",
        module(
            "agent_framework",
            ChatContext=SimpleNamespace,
            ChatMiddleware=object,
            ChatResponse=ChatResponse,
            ChatResponseUpdate=ChatResponseUpdate,
            Content=Content,
            FunctionInvocationContext=SimpleNamespace,
            FunctionMiddleware=object,
            Message=Message,
            MiddlewareFailure=MiddlewareFailure,
            ResponseStream=ResponseStream,
        ),
        parts=("_agent_framework_reading",),
    )


def text(written: str) -> Any:
    return ChatResponseUpdate(contents=[Content.from_text(written)])


def usage(counts: Any = USED, **members: Any) -> Any:
    return ChatResponseUpdate(contents=[Content(type="usage", usage_details=counts)], **members)


def whole(counts: Any = USED, **members: Any) -> ChatResponse:
    return ChatResponse(**{"messages": [Message("assistant", [])], "usage_details": counts, **members})


class Client:
    """What calls the chat middleware as the framework does."""

    model = "m"

    def __init__(self, integration: Any, client: cycles.Cycles, **options: Any) -> None:
        given = {"model_budget": ONE, "model_actual": BOOK, **options}
        self.middleware = integration.CyclesChatMiddleware(client, **given)
        self.asked: list[Any] = []
        self.closed = 0

    def run(self, *replies: Any, stream: bool = False, leave: int = 99, **members: Any) -> Any:
        """Return the response; that of a stream has the updates that were read as `read`."""
        given = {"client": self, "options": None, "messages": [Message("user", [Content.from_text("hi")])]}
        self.context = SimpleNamespace(**{**given, "stream": stream, "result": None, **members})
        return asyncio.run(self.streamed(replies, leave) if stream else self.whole(replies[0]))

    async def whole(self, reply: Any) -> Any:
        async def call_next() -> None:
            self.asked.append(self.context.options)
            if isinstance(reply, BaseException):
                raise reply
            self.context.result = reply

        await self.middleware.process(self.context, call_next)
        return self.context.result

    async def streamed(self, replies: Any, leave: int) -> Any:
        async def updates() -> AsyncIterator[Any]:
            try:
                for reply in replies:
                    if isinstance(reply, Exception):
                        raise reply
                    yield reply
            finally:
                self.closed += 1

        async def call_next() -> None:
            self.asked.append(self.context.options)
            self.context.result = ResponseStream(updates(), lambda read: ChatResponse(messages="whole", read=read))

        await self.middleware.process(self.context, call_next)
        stream = self.context.result
        found: list[Any] = []
        async for update in stream:
            found.append(update)
            if len(found) == leave:
                await stream.aclose()
                return found
        assert self.closed == len(self.asked)
        response = await stream.get_final_response()
        response.read = found
        return response


@pytest.fixture
def spent(ledger: Ledger) -> Any:
    return lambda: ledger.spent("USD_MICROCENTS")


def test_a_whole_response_is_charged_what_it_reports(framework: Any, client: Any, ledger: Ledger, spent: Any) -> None:
    reply = whole()
    caller = Client(framework, client, subject=lambda context: {"agent": context.messages[0].text})
    assert caller.run(reply, options={"max_tokens": 9}) is reply
    assert (spent(), ledger.metadata(), caller.asked) == (EXACT, [{}], [{"max_tokens": 9}])
    assert [(row.action.kind, row.action.name, row.subject.agent) for row in ledger.rows()] == [
        ("llm.completion", "m", "hi")
    ]


def test_a_stream_is_charged_what_it_reports(framework: Any, client: Any, ledger: Ledger, spent: Any) -> None:
    last = ChatResponseUpdate(contents=[Content(type="data"), Content(type="usage", usage_details=USED)])
    updates = [text("one "), text("two"), last]
    response = Client(framework, client).run(*updates, stream=True)
    assert response.read == updates
    assert response.messages == "whole", "the stream of the client makes it"
    assert (spent(), ledger.metadata()) == (EXACT, [{}])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("counts", "cost"),
    [
        ({"input_token_count": 1_000, "cache_read_input_token_count": 600}, 400 * 100 + 600 * 10),
        ({"input_token_count": 600, "cache_read_input_token_count": 600}, 600 * 10),
        (
            {"input_token_count": 100, "cache_read_input_token_count": 60, "cache_creation_input_token_count": 50},
            100 * 100 + 60 * 10 + 50 * 125,
        ),
        (
            {"input_token_count": 100, "cache_read_input_token_count": 60, "total_token_count": 180},
            100 * 100 + 60 * 10,
        ),
        ({"input_token_count": 100, "cache_read_input_token_count": 60, "total_token_count": 120}, 4_000 + 600),
        ({"input_token_count": 100, "cache_read_input_token_count": True}, 100 * 100),
    ],
    ids=["part", "all", "beside", "beside-by-total", "part-by-total", "no-number"],
)
def test_cached_input_is_a_part_of_the_input_or_beside_it(
    framework: Any, client: Any, spent: Any, stream: bool, counts: Any, cost: int
) -> None:
    counts = {"output_token_count": 20, **counts}
    Client(framework, client).run(usage(counts) if stream else whole(counts), stream=stream)
    assert spent() == cost + 20 * 1_000


def test_all_counts_are_read(framework: Any, client: Any) -> None:
    seen: list[Any] = []

    def actual(used: cycles.Usage) -> cycles.Amount:
        seen.append(dict(used.counts))
        return ONE

    more = {"reasoning_output_token_count": 2, "prompt/audio_tokens": 3, "completion/audio_tokens": 1}
    Client(framework, client, model_actual=actual).run(whole({**USED, **more}))
    assert seen[-1] == {
        "tokens_input": 10,
        "tokens_output": 5,
        "tokens_reasoning": 2,
        "tokens_input_audio": 3,
        "tokens_output_audio": 1,
    }


def test_the_model_of_the_response_is_priced(framework: Any, client: Any, spent: Any) -> None:
    Client(framework, client).run(whole(model="served"))
    Client(framework, client).run(text("one"), usage(model="served"), stream=True)
    assert spent() == 4 * EXACT


def test_the_response_of_the_sdk_is_read_if_the_framework_has_kept_it(framework: Any, client: Any, spent: Any) -> None:
    of_sdk = type("Message", (SimpleNamespace,), {"__module__": "anthropic.types"})
    tools = SimpleNamespace(web_search_requests=2)
    used = SimpleNamespace(input_tokens=30, output_tokens=2, server_tool_use=tools)
    raw = of_sdk(type="message", id="1", model="m", usage=used, content=[])
    Client(framework, client).run(whole(raw_representation=raw))
    assert spent() == 30 * 100 + 2 * 1_000 + 2 * 1_000_000
    other = type("Message", (SimpleNamespace,), {"__module__": "other.types"})
    Client(framework, client).run(whole(raw_representation=other(usage=used)))
    assert spent() == 30 * 100 + 2 * 1_000 + 2 * 1_000_000 + EXACT


def test_counts_are_complete_only_at_the_end_of_a_stream(framework: Any, client: Any, ledger: Ledger) -> None:
    start = SimpleNamespace(type="message_start")
    beside = ChatResponseUpdate(contents=[Content(type="usage", usage_details=USED), Content.from_text("one")])
    for last in (usage(raw_representation=start), beside, usage({}), usage()):
        with pytest.raises(ConnectionError):
            Client(framework, client).run(text("one"), last, ConnectionError(), stream=True)
    guessed = {"outcome": "error", "actual_source": "estimate"}
    assert ledger.metadata() == [guessed, guessed, guessed, {"outcome": "error"}]


def test_a_stream_that_is_left_is_closed_and_costs_what_was_written(
    framework: Any, client: Any, ledger: Ledger
) -> None:
    def cost(*contents: Any, **members: Any) -> int:
        before = ledger.spent("USD_MICROCENTS")
        caller = Client(framework, client)
        caller.run(ChatResponseUpdate(contents=list(contents)), usage(), stream=True, leave=1, **members)
        assert caller.closed == 1
        return ledger.spent("USD_MICROCENTS") - before

    small = cost(Content.from_text("one two three"))
    assert 0 < small < ONE.amount
    assert cost(Content(type="text_reasoning", text="one two three")) == small
    assert cost(Content(type="function_call", arguments="x" * 90)) > small
    assert cost(Content(type="function_call", arguments=None), Content(type="text", text=None)) <= small
    assert cost(Content(type="data", uri="x" * 90), Content.from_text("one two three")) == small
    assert cost(Content.from_text("one two three"), options={"instructions": "good " * 90}) > small
    assert cost(Content.from_text("one two three"), options={"max_tokens": 2}) < small
    assert cost(Content.from_text("one two three"), messages=[Message("user", [Content.from_text("hi " * 90)])]) > small
    assert {each["outcome"] for each in ledger.metadata()} == {"closed"}


def test_a_call_whose_connection_broke_costs_its_estimate(framework: Any, client: Any, ledger: Ledger) -> None:
    with pytest.raises(asyncio.CancelledError):
        Client(framework, client).run(asyncio.CancelledError())
    assert ledger.metadata() == [{"outcome": "error", "attempts": 1, "actual_source": "estimate"}]
    assert ledger.spent("USD_MICROCENTS") == ONE.amount
    with pytest.raises(ValueError, match="wrong"):
        Client(framework, client).run(ValueError("wrong"))
    assert [row.status for row in ledger.rows()] == ["COMMITTED", "RELEASED"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_denied_call_raises_or_is_a_message(framework: Any, client: Any, spent: Any, stream: bool) -> None:
    caller = Client(framework, client, model_budget=TOO_MUCH)
    with pytest.raises(cycles.BudgetExceededError):
        caller.run(usage(), stream=stream)
    told = Client(framework, client, model_budget=TOO_MUCH, on_denied="message")
    response = told.run(usage(), stream=stream)
    [message] = response.messages
    assert (message.role, "does not allow" in message.text) == ("assistant", True)
    marked = response.read[0] if stream else response
    assert marked.additional_properties == {"cycles_denied": "BUDGET_EXCEEDED"}
    assert (caller.asked, told.asked, spent()) == ([], [], 0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_call_that_is_not_guarded_passes(framework: Any, client: Any, ledger: Ledger, stream: bool) -> None:
    caller = Client(framework, client, model_budget=lambda context: None)
    assert caller.run(usage() if stream else whole(), stream=stream) is not None
    assert (len(caller.asked), ledger.rows()) == (1, [])


def test_the_name_of_the_model_is_that_of_the_options_or_of_the_client(
    framework: Any, client: Any, ledger: Ledger
) -> None:
    caller = Client(framework, client)
    nameless = type("Nameless", (), {"model": 5, "model_id": "served"})()
    for options in ({"model": "served", "model_id": "m"}, {"model_id": "served"}, {"model": ""}):
        caller.run(whole(), options=options)
    for of_client in (nameless, object()):
        caller.run(whole(None), client=of_client)
    assert [row.action.name for row in ledger.rows()] == ["served", "served", "m", "served", "object"]
    assert ledger.spent("USD_MICROCENTS") == 5 * EXACT + 2 * ONE.amount


def test_caps_lower_the_limit_and_remove_tools(framework: Any, client: Any, ledger: Ledger) -> None:
    ledger.server.ledger.set_budget("tenant:acme", cycles.usd(100), caps={"max_tokens": 50, "tool_denylist": ["bad"]})
    good, bad = SimpleNamespace(name="good"), {"type": "function", "function": {"name": "bad"}}
    given: list[Any] = [
        {"max_tokens": 90, "tools": [good, bad], "tool_choice": "required", "own": 1},
        {"max_tokens": 20, "tools": (good,), "tool_choice": "required"},
        {"max_tokens": True, "tools": bad, "tool_choice": "required"},
        None,
    ]
    caller = Client(framework, client)
    for options in given:
        caller.run(whole(), options=options)
    assert caller.asked == [
        {"max_tokens": 50, "tools": [good], "tool_choice": "auto", "own": 1},
        {"max_tokens": 20, "tools": (good,), "tool_choice": "required"},
        {"max_tokens": 50, "tools": [], "tool_choice": None},
        {"max_tokens": 50},
    ]
    assert given[0] == {"max_tokens": 90, "tools": [good, bad], "tool_choice": "required", "own": 1}


# --- Tools ------------------------------------------------------------------------------------------------------------


def call_tool(integration: Any, client: Any, outcome: Any, **options: Any) -> Any:
    """Call the tool `search` through the middleware; return its context."""
    middleware = integration.CyclesFunctionMiddleware(client, **{"tool_budget": ONE, **options})
    context = SimpleNamespace(function=SimpleNamespace(name="search"), result=None, ran=0)

    async def call_next() -> None:
        context.ran += 1
        if isinstance(outcome, Exception):
            raise outcome
        context.result = outcome

    asyncio.run(middleware.process(context, call_next))
    return context


def test_a_tool_call_is_charged_denied_and_passes(framework: Any, client: Any, ledger: Ledger) -> None:
    actual = {"tool_actual": lambda context, result: cycles.usd("0.5") if result == "found" else ONE}
    assert call_tool(framework, client, "found", **actual).result == "found"
    assert ledger.spent("USD_MICROCENTS") == cycles.usd("0.5").amount
    assert [(row.action.kind, row.action.name) for row in ledger.rows()] == [("tool.call", "search")]
    denied = call_tool(framework, client, "found", tool_budget=TOO_MUCH)
    assert ("does not allow" in denied.result, denied.ran) == (True, 0)
    free = call_tool(framework, client, "found", tool_budget={"other": ONE})
    assert (free.result, free.ran, len(ledger.rows())) == ("found", 1, 1)


def test_errors_before_a_tool_runs_end_the_run_and_stay_the_same(framework: Any, client: Any, ledger: Ledger) -> None:
    with pytest.raises(cycles.BudgetExceededError, match="does not allow") as denied:
        call_tool(framework, client, "found", tool_budget=TOO_MUCH, on_denied="raise")
    assert isinstance(denied.value, MiddlewareFailure)
    assert (type(denied.value).__name__, type(denied.value).__module__) == (
        "BudgetExceededError",
        cycles.BudgetExceededError.__module__,
    )
    assert denied.value.code == "BUDGET_EXCEEDED"
    assert type(denied.value.__cause__) is cycles.BudgetExceededError
    own = cycles.InvalidRequestError("of the tool")
    with pytest.raises(cycles.InvalidRequestError) as raised:
        call_tool(framework, client, own)
    assert raised.value is own, "the framework shows the model that the tool has failed"
    assert [row.status for row in ledger.rows()] == ["RELEASED"]
