"""Pydantic AI under guards, with stand-ins of the library: what is sent, charged, and read of its responses.

The library itself is in `make test-integrations`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

import pytest

import cycles
from tests.integrations.conftest import Ledger
from tests.integrations.stand_ins import PAID, ask, imported_with, module, named, real_client

PRICE = cycles.Price("1", "10", cached_input="0.1", cache_write="1.25", cache_write_1h="2")
BOOK = cycles.PriceBook({"m": PRICE, "served": cycles.Price("2", "20")})
ONE = cycles.usd(1)
EXACT = 10 * 100 + 5 * 1_000
TOO_MUCH = cycles.usd(1_000)
T = TypeVar("T")


@dataclass
class TextPart:
    content: str


@dataclass
class ToolCallPart:
    args: Any


@dataclass
class ModelResponse:
    parts: list[Any] = field(default_factory=list)
    usage: Any = None
    model_name: str | None = None
    state: str = "complete"
    provider_response_id: str | None = None
    metadata: Any = None


@dataclass
class ModelRequestParameters:
    function_tools: list[Any] = field(default_factory=list)
    native_tools: list[Any] = field(default_factory=list)
    output_tools: list[Any] = field(default_factory=list)
    output_mode: str = "text"
    allow_text_output: bool = True


@dataclass
class ModelRequestContext:
    model: Any
    messages: list[Any]
    model_settings: Any
    model_request_parameters: ModelRequestParameters


@dataclass
class CompletedStreamedResponse:
    """A stream of a response that is known."""

    response: ModelResponse
    model_request_parameters: Any
    replay_events: bool

    def get(self) -> ModelResponse:
        return self.response


class Model:
    """A model which returns its reply, or raises it, and notes how it was called."""

    def __init__(self, reply: Any = None, *, settings: Any = None, breaks: Any = None) -> None:
        self.reply, self.settings, self.breaks = reply, settings, breaks
        self.model_name = "m"
        self.asked: list[Any] = []
        self.closed = 0

    async def request(self, messages: Any, settings: Any, parameters: Any) -> Any:
        self.asked.append((messages, settings, parameters))
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    async def compact_messages(self, context: Any, *, instructions: Any = None) -> Any:
        self.asked.append((instructions, context.model_settings, context.model_request_parameters))
        return self.reply

    @asynccontextmanager
    async def request_stream(
        self, messages: Any, settings: Any, parameters: Any, run_context: Any = None
    ) -> AsyncGenerator[Any]:
        self.asked.append((messages, settings, parameters))
        if isinstance(self.reply, Exception):
            raise self.reply
        assert run_context == "run"
        try:
            yield SimpleNamespace(get=lambda: self.reply)
        finally:
            self.closed += 1
        if self.breaks is not None:
            raise self.breaks


class WrapperModel(Model):
    def __init__(self, wrapped: Any) -> None:
        self.wrapped = Model() if isinstance(wrapped, str) else wrapped
        self.model_name = self.wrapped.model_name


class ToolFailed(Exception):
    """What a tool raises for the model."""


class Generically(Generic[T]):
    """A generic class of the library."""


@pytest.fixture
def pydantic_ai() -> Iterator[Any]:
    yield from imported_with(
        "pydantic_ai",
        module(
            "pydantic_ai.capabilities",
            AbstractCapability=Generically,
            BatchModelRequests="batches",
            CapabilityOrdering=SimpleNamespace,
        ),
        module("pydantic_ai.exceptions", ToolFailed=ToolFailed),
        module("pydantic_ai.messages", ModelResponse=ModelResponse, TextPart=TextPart),
        module(
            "pydantic_ai.models",
            CompletedStreamedResponse=CompletedStreamedResponse,
            Model=Model,
            ModelRequestContext=ModelRequestContext,
            ModelRequestParameters=ModelRequestParameters,
        ),
        module("pydantic_ai.models.wrapper", WrapperModel=WrapperModel),
        module("pydantic_ai.tools", RunContext=Generically),
        parts=("_pydantic_ai_model", "_pydantic_ai_reading"),
    )


def used(tokens_input: int = 10, tokens_output: int = 5, **counts: Any) -> Any:
    return SimpleNamespace(input_tokens=tokens_input, output_tokens=tokens_output, **counts)


def says(text: str = "one two three", **members: Any) -> ModelResponse:
    return ModelResponse(**{"parts": [TextPart(text)], "usage": used(), "model_name": "m", **members})


MESSAGES = [SimpleNamespace(parts=[TextPart("hi")])]


class Agent:
    """Calls a guarded model as an agent does."""

    def __init__(self, integration: Any, client: cycles.Cycles, model: Any, **options: Any) -> None:
        self.inner = model if isinstance(model, Model) else Model(model)
        given = {"model_budget": ONE, "model_actual": BOOK, **options}
        self.model = integration.GuardedModel(self.inner, client, **given)

    def run(self, how: str = "request", settings: Any = None, messages: Any = MESSAGES, **parameters: Any) -> Any:
        """Request, stream, or compact messages; return the response."""
        given = messages, settings, ModelRequestParameters(**parameters)

        async def run() -> Any:
            if how == "request":
                return await self.model.request(*given)
            if how == "compact":
                context = ModelRequestContext(self.model, *given)
                return await self.model.compact_messages(context, instructions="short")
            async with self.model.request_stream(*given, "run") as stream:
                if how == "leave":
                    raise ZeroDivisionError
                return stream.get()

        return asyncio.run(run())


WAYS = pytest.mark.parametrize("how", ["request", "stream", "compact"])


@pytest.fixture
def spent(ledger: Ledger) -> Any:
    return lambda: ledger.spent("USD_MICROCENTS")


@WAYS
def test_a_request_is_charged_what_it_reports(
    pydantic_ai: Any, client: Any, ledger: Ledger, spent: Any, how: str
) -> None:
    reply = says()
    agent = Agent(pydantic_ai, client, reply, subject=lambda request: {"agent": request.messages[0].parts[0].content})
    assert agent.run(how, {"own": 1}) is reply
    first = "short" if how == "compact" else MESSAGES
    assert agent.inner.asked == [(first, {"own": 1}, ModelRequestParameters())]
    assert (spent(), ledger.metadata()) == (EXACT, [{}])
    assert [(row.action.kind, row.action.name, row.subject.agent) for row in ledger.rows()] == [
        ("llm.completion", "m", "hi")
    ]


@pytest.mark.parametrize(
    ("reply", "cost"),
    [
        (
            says(usage=used(1_000, cache_read_tokens=500, cache_write_tokens=300, cache_write_1h_tokens=100)),
            200 * 100 + 500 * 10 + 200 * 125 + 100 * 200 + 5_000,
        ),
        (says(model_name="served"), 2 * EXACT),
        (says(usage=used(0, 5)), 5_000),
        (says(usage=used(10, 0)), 1_000),
        (says(usage=used(0, 0)), ONE.amount),
    ],
    ids=["caches", "model", "output", "input", "zeros"],
)
def test_counts_and_the_model_are_priced(pydantic_ai: Any, client: Any, spent: Any, reply: Any, cost: int) -> None:
    Agent(pydantic_ai, client, reply).run()
    assert spent() == cost


def test_all_counts_are_read(pydantic_ai: Any, client: Any) -> None:
    seen: list[Any] = []

    def actual(usage: cycles.Usage) -> cycles.Amount:
        seen.append(dict(usage.counts))
        return ONE

    more = {"output_reasoning_tokens": 2, "input_audio_tokens": 6, "cache_audio_read_tokens": 3}
    counts = used(cache_read_tokens=4, output_audio_tokens=1, cache_write_tokens=None, **more)
    Agent(pydantic_ai, client, says(usage=counts), model_actual=actual).run()
    assert seen[-1] == {
        "tokens_input": 10,
        "tokens_output": 5,
        "tokens_cached_input": 4,
        "tokens_reasoning": 2,
        "tokens_input_audio": 6,
        "tokens_cached_input_audio": 3,
        "tokens_output_audio": 1,
    }


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (says(state="suspended", usage=used(0, 0)), "RELEASED"),
        (says(state="suspended", usage=used(0, 5)), "COMMITTED"),
        (says(state="suspended", usage=used(5, 0)), "COMMITTED"),
        (says(usage=used(0, 0)), "COMMITTED"),
    ],
    ids=["suspended", "output", "input", "complete"],
)
def test_a_response_that_continues_later_is_free_until_it_reports(
    pydantic_ai: Any, client: Any, ledger: Ledger, reply: Any, status: str
) -> None:
    assert Agent(pydantic_ai, client, reply).run() is reply
    assert [row.status for row in ledger.rows()] == [status]


@WAYS
def test_a_request_that_is_not_guarded_passes(pydantic_ai: Any, client: Any, ledger: Ledger, how: str) -> None:
    agent = Agent(pydantic_ai, client, says(), model_budget=lambda request: None)
    assert agent.run(how) == says()
    assert (len(agent.inner.asked), ledger.rows()) == (1, [])


@WAYS
def test_a_request_that_fails_is_released(pydantic_ai: Any, client: Any, ledger: Ledger, how: str) -> None:
    class Failing(Model):
        async def compact_messages(self, context: Any, *, instructions: Any = None) -> Any:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        Agent(pydantic_ai, client, Failing(ConnectionError())).run(how)
    assert [row.status for row in ledger.rows()] == ["RELEASED"]


@pytest.mark.parametrize("state", ["incomplete", "interrupted"])
def test_a_stream_that_ended_early_costs_its_prompt_and_what_was_written(
    pydantic_ai: Any, client: Any, ledger: Ledger, state: str
) -> None:
    def cost(*parts: Any, messages: Any = MESSAGES, usage: Any = None, **settings: Any) -> int:
        before = ledger.spent("USD_MICROCENTS")
        reply = ModelResponse(list(parts), usage or used(0, 0), "m", state)
        Agent(pydantic_ai, client, reply).run("stream", settings, messages=messages)
        return ledger.spent("USD_MICROCENTS") - before

    small = cost(TextPart("one two three"))
    assert 0 < small < ONE.amount
    assert cost(TextPart("one two three " * 20)) > small
    assert cost(TextPart("one two three"), ToolCallPart({"q": "x" * 90})) > small
    long = [SimpleNamespace(parts=[TextPart("hi"), ToolCallPart("x" * 900)])]
    assert cost(TextPart("one two three"), messages=long) > small
    told = [SimpleNamespace(parts=[TextPart("hi")], instructions="good " * 200)]
    assert cost(TextPart("one two three"), messages=told) > small
    assert cost(TextPart("one two three"), messages=[*told, *MESSAGES]) < cost(
        TextPart("one two three"), messages=[*MESSAGES, *told]
    ), "the instructions of the last message hold"
    assert cost(TextPart("one two three"), max_tokens=2) < small
    assert cost(TextPart("one two three " * 20), usage=used()) > EXACT, "more was written than is reported so far"
    guessed = {"outcome": "closed", "actual_source": "estimate"}
    assert ledger.metadata() == [guessed] * 9


def test_a_stream_whose_block_fails_costs_what_its_response_has_so_far(
    pydantic_ai: Any, client: Any, ledger: Ledger
) -> None:
    early = says("one two three", state="interrupted", usage=used(0, 0))
    agents = [Agent(pydantic_ai, client, reply) for reply in (early, says())]
    for agent in agents:
        with pytest.raises(ZeroDivisionError):
            agent.run("leave")
    assert [agent.inner.closed for agent in agents] == [1, 1]
    guessed, exact = ledger.metadata()
    assert guessed == {"outcome": "error", "actual_source": "estimate"}
    assert exact == {"outcome": "error"}
    assert EXACT < ledger.spent("USD_MICROCENTS") < ONE.amount


@pytest.mark.parametrize(("error", "is_paid"), [(asyncio.CancelledError(), True), (ConnectionError(), False)])
def test_a_stream_that_is_cancelled_while_it_opens_costs_its_prompt(
    pydantic_ai: Any, client: Any, ledger: Ledger, spent: Any, error: BaseException, is_paid: bool
) -> None:
    """The provider may have begun its response; a connection that failed has none."""

    class Opening(Model):
        @asynccontextmanager
        async def request_stream(self, *given: Any) -> AsyncGenerator[Any]:
            raise error
            yield

    with pytest.raises(type(error)):
        Agent(pydantic_ai, client, Opening()).run("stream")
    assert (0 < spent() < 10_000) == is_paid
    assert [row.status for row in ledger.rows()] == ["COMMITTED" if is_paid else "RELEASED"]


def test_a_stream_that_fails_while_it_closes_costs_what_it_reported(
    pydantic_ai: Any, client: Any, ledger: Ledger, spent: Any
) -> None:
    with pytest.raises(ConnectionError):
        Agent(pydantic_ai, client, Model(says(), breaks=ConnectionError())).run("stream")
    assert (spent(), ledger.metadata()) == (EXACT, [{"outcome": "error"}])


@pytest.mark.parametrize("how", ["request", "stream"])
def test_a_denied_request_raises_or_is_a_message(pydantic_ai: Any, client: Any, spent: Any, how: str) -> None:
    strict = Agent(pydantic_ai, client, says(), model_budget=TOO_MUCH)
    with pytest.raises(cycles.BudgetExceededError):
        strict.run(how)
    told = Agent(pydantic_ai, client, says(), model_budget=TOO_MUCH, on_denied="message")
    found = told.run(how)
    [part] = found.parts
    assert ("does not allow" in part.content, found.model_name, found.metadata) == (
        True,
        "m",
        {"cycles_denied": "BUDGET_EXCEEDED"},
    )
    no_text: Any
    for no_text in ({"allow_text_output": False}, {"output_mode": "tool"}, {"output_tools": ["answer"]}):
        with pytest.raises(cycles.BudgetExceededError):
            told.run(how, **no_text)
    assert (strict.inner.asked, told.inner.asked, spent()) == ([], [], 0)


def test_a_denied_stream_replays_its_message(pydantic_ai: Any, client: Any) -> None:
    model = Agent(pydantic_ai, client, says(), model_budget=TOO_MUCH, on_denied="message").model
    parameters = ModelRequestParameters()

    async def stream() -> Any:
        async with model.request_stream(MESSAGES, None, parameters, "run") as opened:
            return opened

    opened = asyncio.run(stream())
    assert (opened.model_request_parameters, opened.replay_events) == (parameters, True)


def test_a_denied_compaction_and_a_batch_raise(pydantic_ai: Any, client: Any) -> None:
    agent = Agent(pydantic_ai, client, says(), model_budget=TOO_MUCH, on_denied="message")
    with pytest.raises(cycles.BudgetExceededError):
        agent.run("compact")
    with pytest.raises(cycles.InvalidRequestError, match="cannot guard a batch of m: add CyclesCapability"):
        asyncio.run(agent.model.batch_create([]))
    assert agent.inner.asked == []


@WAYS
def test_caps_lower_the_limit_and_remove_tools(pydantic_ai: Any, client: Any, ledger: Ledger, how: str) -> None:
    ledger.server.ledger.set_budget(
        "tenant:acme", cycles.usd(100), caps={"max_tokens": 50, "tool_denylist": ["bad", "web"]}
    )
    good, bad = SimpleNamespace(name="good"), SimpleNamespace(name="bad")
    web, code = SimpleNamespace(kind="web"), SimpleNamespace(kind="code")
    settings = {"max_tokens": 90, "tool_choice": "required", "own": 1}
    agent = Agent(pydantic_ai, client, Model(says(), settings={"max_tokens": 30}))
    agent.run(how, settings, function_tools=[good, bad], native_tools=[code])
    agent.run(how, {"tool_choice": "auto"}, function_tools=[good], native_tools=[web, code])
    agent.run(how, {"max_tokens": True, "tool_choice": "required"}, function_tools=[good])
    agent.run(how)
    assert [each[1] for each in agent.inner.asked] == [
        {"max_tokens": 50, "tool_choice": None, "own": 1},
        {"max_tokens": 30, "tool_choice": "auto"},
        {"max_tokens": 50, "tool_choice": "required"},
        {"max_tokens": 30},
    ]
    sent = [each[2] for each in agent.inner.asked]
    assert [(each.function_tools, each.native_tools) for each in sent] == [
        ([good], [code]),
        ([good], [code]),
        ([good], []),
        ([], []),
    ]
    assert settings == {"max_tokens": 90, "tool_choice": "required", "own": 1}, "those of the caller stay"


@WAYS
def test_the_client_of_a_known_model_reports_what_a_request_costs(
    pydantic_ai: Any, client: Any, ledger: Ledger, spent: Any, how: str
) -> None:
    class Asking(Model):
        def __init__(self, llm: Any) -> None:
            super().__init__(says())
            self._provider = named(SimpleNamespace, "pydantic_ai", "Provider")(_client=llm)

        async def request(self, *given: Any) -> Any:
            ask(vars(self._provider)["_client"])
            return await super().request(*given)

        async def compact_messages(self, context: Any, *, instructions: Any = None) -> Any:
            ask(vars(self._provider)["_client"])
            return await super().compact_messages(context, instructions=instructions)

        def request_stream(self, *given: Any) -> Any:
            ask(vars(self._provider)["_client"])
            return super().request_stream(*given)

    with real_client() as llm:
        agent = Agent(pydantic_ai, client, named(Asking, "pydantic_ai", "Model")(llm))
        assert agent.run(how) == says()
    assert (spent(), len(ledger.rows())) == (PAID, 1)


def test_what_is_no_model_is_rejected(pydantic_ai: Any, client: Any) -> None:
    assert pydantic_ai.GuardedModel("m", client, model_budget=ONE).model_name == "m"
    with pytest.raises(cycles.InvalidRequestError, match="must be a Model of Pydantic AI or its name, got 5"):
        pydantic_ai.GuardedModel(5, client, model_budget=ONE)


# --- The capability ---------------------------------------------------------------------------------------------------


def call_tool(integration: Any, client: Any, outcome: Any = "found", **options: Any) -> Any:
    """Call the tool `search` through the capability."""
    capability = integration.CyclesCapability(client, **{"tool_budget": ONE, **options})

    async def handler(args: Any) -> Any:
        assert args == {"q": 1}
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    context, call = SimpleNamespace(deps="bot"), SimpleNamespace(tool_name="search")
    given = {"call": call, "tool_def": None, "args": {"q": 1}, "handler": handler}
    return asyncio.run(capability.wrap_tool_execute(context, **given))


def test_a_tool_call_is_charged_denied_and_passes(pydantic_ai: Any, client: Any, ledger: Ledger) -> None:
    options: Any = {
        "tool_actual": lambda call, result: cycles.usd("0.5") if call.args == {"q": 1} else ONE,
        "subject": lambda call: {"agent": call.context.deps},
    }
    assert call_tool(pydantic_ai, client, **options) == "found"
    assert ledger.spent("USD_MICROCENTS") == cycles.usd("0.5").amount
    [row] = ledger.rows()
    assert (row.action.kind, row.action.name, row.subject.agent) == ("tool.call", "search", "bot")
    with pytest.raises(ToolFailed, match="does not allow") as raised:
        call_tool(pydantic_ai, client, tool_budget=TOO_MUCH)
    assert raised.value.__suppress_context__
    with pytest.raises(cycles.BudgetExceededError):
        call_tool(pydantic_ai, client, tool_budget=TOO_MUCH, on_denied="raise")
    assert call_tool(pydantic_ai, client, tool_budget={"other": ONE}) == "found"
    assert len(ledger.rows()) == 1
    with pytest.raises(ConnectionError):
        call_tool(pydantic_ai, client, ConnectionError())
    assert [row.status for row in ledger.rows()] == ["COMMITTED", "RELEASED"]


def test_the_capability_guards_models_of_agents(pydantic_ai: Any, client: Any, spent: Any) -> None:
    tools_only = pydantic_ai.CyclesCapability(client, tool_budget=ONE)
    assert tools_only.get_wrapper_model(Model()) is None
    free = pydantic_ai.CyclesCapability(client, model_budget=cycles.usd(0))
    assert isinstance(free.get_wrapper_model(Model()), pydantic_ai.GuardedModel), "it is paid if it costs something"
    both = pydantic_ai.CyclesCapability(client, model_budget=ONE, model_actual=BOOK)
    assert both.get_ordering().wraps == ["batches"]
    guarded = both.get_wrapper_model(Model(says()))
    assert isinstance(guarded, pydantic_ai.GuardedModel)
    asyncio.run(guarded.request(MESSAGES, None, ModelRequestParameters()))
    assert spent() == EXACT
