"""The OpenAI Agents SDK, LangChain and FastMCP under guards, with stand-ins of these libraries.

The libraries themselves are in `make test-integrations`.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.responses import Response, ResponseCompletedEvent
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails, ResponseUsage

import cycles
from tests.integrations.conftest import Ledger
from tests.integrations.stand_ins import PAID, ask, imported_with, module, named, noted, real_client

BOOK = cycles.PriceBook({"m": cycles.Price("1", "10")})
OTHER = cycles.PriceBook({"other": cycles.Price("1", "10")})
ONE = cycles.usd(1)
EXACT = 1_000 * 100 + 300 * 1_000
TOO_MUCH = cycles.usd(1_000)


def spent(ledger: Ledger) -> int:
    return ledger.spent("USD_MICROCENTS")


def capped(ledger: Ledger, **caps: Any) -> None:
    ledger.server.ledger.set_budget("tenant:acme", cycles.usd(100), caps=caps)


# --- OpenAI Agents SDK ------------------------------------------------------------------------------------------------


@dataclass
class ModelSettings:
    max_tokens: int | None = None
    tool_choice: Any = None


@dataclass
class ModelResponse:
    output: list[Any]
    usage: Any
    response_id: str | None


class AgentsModel:
    """A `Model` of the SDK, which notes how it was called."""

    model = "m"

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[tuple[Any, ...]] = []
        self.closed: list[Any] = []

    async def get_response(self, *given: Any, **more: Any) -> Any:
        self.calls.append(given)
        [outcome] = self.outcomes
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def stream_response(self, *given: Any, **more: Any) -> AsyncIterator[Any]:
        self.calls.append(given)
        for outcome in self.outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome

    def get_retry_advice(self, request: Any) -> str:
        return "again"

    async def close(self) -> None:
        self.closed.append("model")

    async def _cleanup_on_run_end(self, owner: object) -> None:
        self.closed.append(owner)


class Provider:
    def __init__(self, model: AgentsModel) -> None:
        self.model = model
        self.extra = "of the provider"
        self.closed = False

    def get_model(self, name: str | None) -> AgentsModel:
        return self.model

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class FunctionTool:
    name: str
    on_invoke_tool: Any
    made: list[str] = field(default_factory=list)


class AgentsException(Exception):
    """The base of the errors that the runner passes on."""


@pytest.fixture
def agents() -> Iterator[Any]:
    yield from imported_with(
        "openai_agents",
        module(
            "agents",
            Model=AgentsModel,
            ModelProvider=Provider,
            MultiProvider=lambda: Provider(AgentsModel()),
            ModelResponse=ModelResponse,
            ModelSettings=ModelSettings,
            Usage=SimpleNamespace,
            AgentsException=AgentsException,
            FunctionTool=FunctionTool,
        ),
        module("agents.models"),
        module("agents.models.fake_id", FAKE_RESPONSES_ID="fake"),
        parts=("_openai_agents_reading", "_openai_agents_tools"),
    )


def answered() -> ModelResponse:
    return ModelResponse([], SimpleNamespace(input_tokens=1_000, output_tokens=300), None)


def completed() -> ResponseCompletedEvent:
    usage = ResponseUsage(
        input_tokens=1_000,
        output_tokens=300,
        total_tokens=1_300,
        input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
    )
    response = Response.model_construct(id="r", model="m", usage=usage, output=[])
    return ResponseCompletedEvent.model_construct(response=response, sequence_number=0, type="response.completed")


class Agent:
    """Calls a guarded model as the runner does."""

    def __init__(self, integration: Any, client: cycles.Cycles, model: AgentsModel, **options: Any) -> None:
        given = {"client": client, "model_budget": ONE, "model_actual": BOOK, **options}
        self.model = integration.GuardedModel(model, **given)

    def run(self, *, streamed: bool, schema: Any = None, tools: Any = (), **settings: Any) -> Any:
        given = ("be good", "hi", ModelSettings(**settings), list(tools), schema)

        async def run() -> Any:
            if not streamed:
                return await self.model.get_response(*given)
            return [event async for event in self.model.stream_response(*given)]

        return asyncio.run(run())


STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@STREAMED
def test_agents_a_call_is_charged_what_it_reports(agents: Any, client: Any, ledger: Ledger, streamed: bool) -> None:
    delta = SimpleNamespace(type="response.output_text.delta", delta="one")
    model = AgentsModel(delta, completed()) if streamed else AgentsModel(answered())
    found = Agent(agents, client, model).run(streamed=streamed)
    assert (found if streamed else [found]) == model.outcomes
    assert spent(ledger) == EXACT
    assert [row.action.name for row in ledger.rows()] == ["m"]
    assert model.calls == [("be good", "hi", ModelSettings(), [], None)]


@STREAMED
def test_agents_the_client_of_a_known_model_reports_what_a_call_costs(
    agents: Any, client: Any, ledger: Ledger, streamed: bool
) -> None:
    class Asking(AgentsModel):
        async def get_response(self, *given: Any, **more: Any) -> Any:
            ask(vars(self)["_client"])
            return await super().get_response(*given, **more)

        async def stream_response(self, *given: Any, **more: Any) -> AsyncIterator[Any]:
            ask(vars(self)["_client"])
            yield completed()

    model = named(Asking, "agents", "OpenAIResponsesModel")(answered())
    with real_client() as llm:
        vars(model)["_client"] = llm
        Agent(agents, client, model).run(streamed=streamed)
        assert vars(model)["_client"] is llm
    assert (spent(ledger), len(ledger.rows())) == (PAID, 1)


@STREAMED
def test_agents_a_call_that_is_not_guarded_passes(agents: Any, client: Any, ledger: Ledger, streamed: bool) -> None:
    model = AgentsModel(completed()) if streamed else AgentsModel(answered())
    assert Agent(agents, client, model, model_budget=lambda call: None).run(streamed=streamed)
    assert (ledger.rows(), len(model.calls)) == ([], 1)


@STREAMED
def test_agents_a_denied_call_is_a_message_or_raises(agents: Any, client: Any, ledger: Ledger, streamed: bool) -> None:
    model = AgentsModel(answered())
    told = Agent(agents, client, model, model_budget=TOO_MUCH, on_denied="message")
    found = told.run(streamed=streamed)
    output = found[0].response.output if streamed else found.output
    assert "does not allow" in output[0].content[0].text
    structured = SimpleNamespace(is_plain_text=lambda: False)
    with pytest.raises(cycles.BudgetExceededError):
        told.run(streamed=streamed, schema=structured)
    assert "does not allow" in str(told.run(streamed=streamed, schema=SimpleNamespace(is_plain_text=lambda: True)))
    with pytest.raises(cycles.BudgetExceededError):
        Agent(agents, client, model, model_budget=TOO_MUCH).run(streamed=streamed)
    assert model.calls == []


@STREAMED
def test_agents_caps_lower_the_limit_and_remove_tools(agents: Any, client: Any, ledger: Ledger, streamed: bool) -> None:
    capped(ledger, max_tokens=50, tool_denylist=["bad"])
    model = AgentsModel(completed()) if streamed else AgentsModel(answered())
    good, bad = SimpleNamespace(name="good"), SimpleNamespace(name="bad")
    agent = Agent(agents, client, model)
    agent.run(streamed=streamed, tools=[good, bad], max_tokens=90, tool_choice="bad")
    agent.run(streamed=streamed, tools=[good], max_tokens=20, tool_choice="required")
    agent.run(streamed=streamed, tools=[bad], tool_choice="auto")
    assert [call[2:4] for call in model.calls] == [
        (ModelSettings(50, None), [good]),
        (ModelSettings(20, "required"), [good]),
        (ModelSettings(50, "auto"), []),
    ]


def test_agents_a_stream_that_fails_or_breaks_off(agents: Any, client: Any, ledger: Ledger) -> None:
    failed = SimpleNamespace(type="response.failed", response=SimpleNamespace(usage=None))
    assert Agent(agents, client, AgentsModel(failed)).run(streamed=True) == [failed]
    assert [row.status for row in ledger.rows()] == ["RELEASED"]
    delta = SimpleNamespace(type="response.output_text.delta", delta="one two")
    with pytest.raises(ConnectionError):
        Agent(agents, client, AgentsModel(delta, ConnectionError())).run(streamed=True)
    assert ledger.metadata() == [{"outcome": "error", "actual_source": "estimate"}]


@pytest.mark.parametrize(
    ("event", "is_text"),
    [
        ({"type": "response.output_text.delta", "delta": "x" * 3_000}, True),
        ({"type": "response.function_call_arguments.delta", "delta": "x" * 3_000}, True),
        ({"type": "response.audio.transcript.delta", "delta": "x" * 3_000}, True),
        ({"type": "response.audio.delta", "delta": "x" * 3_000}, False),
        ({"type": "response.output_audio.delta", "delta": "x" * 3_000}, False),
        ({"type": "response.other.delta", "delta": {"text": "x" * 3_000}}, False),
    ],
    ids=["text", "arguments", "transcript", "audio", "output audio", "no string"],
)
def test_agents_the_text_of_a_stream_that_breaks_off_is_counted_and_its_audio_is_not(
    agents: Any, client: Any, ledger: Ledger, event: dict[str, Any], is_text: bool
) -> None:
    words = SimpleNamespace(type="response.output_text.delta", delta="one")
    with pytest.raises(ConnectionError):
        Agent(agents, client, AgentsModel(words, SimpleNamespace(**event), ConnectionError())).run(streamed=True)
    assert (spent(ledger) > 1_000 * 1_000) == is_text
    assert spent(ledger) > 1_000


def test_agents_a_response_without_usage_costs_its_estimate(agents: Any, client: Any, ledger: Ledger) -> None:
    nothing = ModelResponse([], SimpleNamespace(input_tokens=0, output_tokens=0), None)
    Agent(agents, client, AgentsModel(nothing)).run(streamed=False)
    assert spent(ledger) == ONE.amount
    assert ledger.metadata() == [{"actual_source": "estimate"}]


@pytest.mark.parametrize(("counts", "charged"), [((1_000, 0), 1_000 * 100), ((0, 300), 300 * 1_000)])
def test_agents_usage_of_one_kind_is_reported(
    agents: Any, client: Any, ledger: Ledger, counts: Any, charged: int
) -> None:
    reported = ModelResponse([], SimpleNamespace(input_tokens=counts[0], output_tokens=counts[1]), None)
    Agent(agents, client, AgentsModel(reported), name="other", model_actual=OTHER).run(streamed=False)
    assert spent(ledger) == charged
    assert [row.action.name for row in ledger.rows()] == ["other"]


def test_agents_a_denied_call_with_a_named_schema_raises(agents: Any, client: Any) -> None:
    guarded = Agent(agents, client, AgentsModel(answered()), model_budget=TOO_MUCH, on_denied="message").model
    schema = SimpleNamespace(is_plain_text=lambda: False)
    with pytest.raises(cycles.BudgetExceededError):
        asyncio.run(guarded.get_response("be good", "hi", ModelSettings(), [], output_schema=schema))


def test_agents_a_guarded_model_is_the_model_otherwise(agents: Any, client: Any) -> None:
    model = AgentsModel(answered())
    guarded = Agent(agents, client, model, name="other").model
    assert isinstance(guarded, AgentsModel)
    assert guarded.outcomes is model.outcomes
    own = SimpleNamespace(error=cycles.InvalidRequestError("no"))
    advice: list[Any] = [guarded.get_retry_advice(own), guarded.get_retry_advice(SimpleNamespace(error=None))]
    assert advice == [None, "again"]
    cleanup = inspect.getattr_static(type(guarded), "_cleanup_on_run_end")

    async def close() -> None:
        await guarded.close()
        await cleanup(guarded, "run")

    asyncio.run(close())
    assert model.closed == ["model", "run"]
    assert copy.copy(guarded).outcomes is model.outcomes
    with pytest.raises(cycles.InvalidRequestError, match="must be a Model"):
        agents.GuardedModel("m", model_budget=ONE)


def test_agents_a_provider_guards_each_model(agents: Any, client: Any, ledger: Ledger) -> None:
    inner = Provider(AgentsModel(answered()))
    provider = agents.GuardedProvider(client, provider=inner, model_budget=ONE, model_actual=BOOK)
    asyncio.run(provider.get_model("named").get_response(None, "hi", ModelSettings(), []))
    asyncio.run(provider.get_model(None).get_response(None, "hi", ModelSettings(), []))
    assert sorted(row.action.name for row in ledger.rows()) == ["m", "named"]
    assert provider.extra == "of the provider"
    asyncio.run(provider.aclose())
    assert inner.closed
    with pytest.raises(cycles.InvalidRequestError, match="must be a ModelProvider"):
        agents.GuardedProvider(client, provider="p", model_budget=ONE)


@pytest.mark.parametrize("kind", ["sync", "async", "tool"])
def test_agents_a_tool_is_charged_denied_and_unguarded(agents: Any, client: Any, ledger: Ledger, kind: str) -> None:
    ran: list[Any] = []

    def work(n: int, unit: str = "cents") -> int:
        ran.append((n, unit))
        return n

    async def work_async(n: int, unit: str = "cents") -> int:
        return work(n, unit)

    async def invoke(context: Any, arguments: str) -> int:
        return work(int(arguments))

    def call(**options: Any) -> Any:
        guard_tool = agents.guard_tool(client, name="tool", **options)
        if kind == "tool":
            return asyncio.run(guard_tool(FunctionTool("tool", invoke)).on_invoke_tool("context", "7"))
        return guard_tool(work)(7) if kind == "sync" else asyncio.run(guard_tool(work_async)(7))

    takes_two = kind == "tool"
    budget = (lambda context: ONE) if takes_two else (lambda n, unit: ONE)
    actual = (lambda context, result: cycles.usd("0.5")) if takes_two else (lambda n, unit, result: cycles.usd("0.5"))
    assert call(tool_budget=budget, tool_actual=actual) == 7
    assert spent(ledger) == cycles.usd("0.5").amount
    assert [(row.action.kind, row.action.name) for row in ledger.rows()] == [("tool.call", "tool")]
    assert call(tool_budget={"other": ONE}) == 7
    assert "does not allow" in call(tool_budget=TOO_MUCH)
    with pytest.raises(cycles.BudgetExceededError) as raised:
        call(tool_budget=TOO_MUCH, on_denied="raise")
    assert isinstance(raised.value, AgentsException), "the runner passes these on"
    assert vars(raised.value)["run_data"] is None, "as the runner finds it, which sets it"
    assert (len(ran), len(ledger.rows())) == (2, 1)
    with pytest.raises(cycles.InvalidRequestError, match="must take"):
        call(tool_budget=ONE, tool_actual=lambda: ONE)
    with pytest.raises(cycles.InvalidRequestError, match="needs a function"):
        agents.guard_tool(client, tool_budget=ONE)("no tool")


@pytest.mark.parametrize("is_async", [False, True])
def test_agents_callables_of_a_tool_get_each_argument(agents: Any, client: Any, ledger: Ledger, is_async: bool) -> None:
    """Also those that have names only, in the order of the function, with the defaults."""
    seen: list[Any] = []

    def work(n: int, *more: int, unit: str, by: str = "day") -> int:
        return n

    async def work_async(n: int, *more: int, unit: str, by: str = "day") -> int:
        return n

    def actual(*call: Any) -> cycles.Amount:
        seen.append(call)
        return cycles.usd("0.5")

    def budget(*call: Any) -> cycles.Amount:
        seen.append(call)
        return ONE

    guarded = agents.guard_tool(client, tool_budget=budget, tool_actual=actual)
    result = guarded(work_async if is_async else work)(7, 8, by="hour", unit="cents")
    assert (asyncio.run(result) if is_async else result) == 7
    assert seen == [(7, 8, "cents", "hour"), (7, 8, "cents", "hour", 7)]
    assert spent(ledger) == cycles.usd("0.5").amount


def test_agents_a_guarded_tool_is_a_copy(agents: Any, client: Any, ledger: Ledger) -> None:
    async def invoke(context: Any, arguments: str) -> str:
        return arguments

    tool = FunctionTool("tool", invoke)
    guarded = agents.guard_tool(client, tool_budget=ONE)(tool)
    assert tool.on_invoke_tool is invoke
    assert (type(guarded), guarded.name, guarded is tool) == (FunctionTool, "tool", False)
    assert asyncio.run(tool.on_invoke_tool("context", "free")) == "free"
    assert ledger.rows() == []
    assert asyncio.run(guarded.on_invoke_tool("context", "paid")) == "paid"
    assert [row.action.name for row in ledger.rows()] == ["tool"]


# --- LangChain --------------------------------------------------------------------------------------------------------


class AIMessage(SimpleNamespace):
    def __init__(self, content: Any = "", **members: Any) -> None:
        given = {"usage_metadata": None, "response_metadata": {}, "id": None, "text": content, **members}
        super().__init__(content=content, **given)


class ToolMessage(SimpleNamespace):
    def __init__(self, content: str, **members: Any) -> None:
        super().__init__(content=content, **members)


class AgentMiddleware:
    def __class_getitem__(cls, item: Any) -> Any:
        return cls


@dataclass
class ModelRequest:
    """What a middleware gets; `override` returns a copy."""

    model: Any = field(default_factory=lambda: SimpleNamespace(model_name="m"))
    system_prompt: str | None = None
    messages: list[Any] = field(default_factory=list)
    tools: list[Any] = field(default_factory=list)
    tool_choice: Any = "any"
    model_settings: dict[str, Any] = field(default_factory=dict)

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def override(self, **changes: Any) -> ModelRequest:
        made = copy.copy(self)
        made.__dict__.update(changes)
        return made


@pytest.fixture
def handlers() -> list[Any]:
    """The context variables whose callbacks LangChain adds to those of each model call, and whether they inherit."""
    return []


@pytest.fixture
def langchain(handlers: list[Any]) -> Iterator[Any]:
    yield from imported_with(
        "langchain",
        module("langchain"),
        module("langchain.agents"),
        module("langchain.agents.middleware", AgentMiddleware=AgentMiddleware, ModelRequest=ModelRequest),
        module("langchain_core"),
        module("langchain_core.messages", AIMessage=AIMessage, ToolMessage=ToolMessage),
        module("langchain_core.callbacks", BaseCallbackHandler=object),
        module("langchain_core.tracers"),
        module(
            "langchain_core.tracers.context",
            register_configure_hook=lambda variable, inheritable: handlers.append((variable, inheritable)),
        ),
        module("cycles.integrations._langchain_guard", guard=None),
        parts=("_langchain_reading",),
    )


def reported(**details: Any) -> AIMessage:
    return AIMessage("one", usage_metadata={"input_tokens": 1_000, "output_tokens": 300, **details}, id="1")


class Middleware:
    """Calls a middleware as an agent does, sync or async."""

    def __init__(self, integration: Any, client: cycles.Cycles, *, is_async: bool, **options: Any) -> None:
        given = {"model_budget": ONE, "model_actual": BOOK, "tool_budget": ONE, **options}
        self.made = integration.CyclesMiddleware(client, **given)
        self.is_async = is_async
        self.seen: list[Any] = []

    def call(self, what: str, request: Any, outcome: Any) -> Any:
        def handler(given: Any) -> Any:
            self.seen.append(given)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        async def ahandler(given: Any) -> Any:
            return handler(given)

        if self.is_async:
            return asyncio.run(getattr(self.made, f"awrap_{what}_call")(request, ahandler))
        return getattr(self.made, f"wrap_{what}_call")(request, handler)


IS_ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
TOOL: Any = SimpleNamespace(tool_call={"name": "search", "id": "c1"})


@IS_ASYNC
def test_langchain_a_model_call_is_charged_what_it_reports(
    langchain: Any, client: Any, ledger: Ledger, is_async: bool
) -> None:
    middleware, request = Middleware(langchain, client, is_async=is_async), ModelRequest()
    message = reported()
    message.response_metadata = {"model_name": "m"}
    assert middleware.call("model", request, message) is message
    assert spent(ledger) == EXACT
    assert [(row.action.kind, row.action.name) for row in ledger.rows()] == [("llm.completion", "m")]
    with pytest.raises(ValueError, match="wrong"):
        middleware.call("model", request, ValueError("wrong"))
    assert [row.status for row in ledger.rows()].count("RELEASED") == 1


@IS_ASYNC
def test_langchain_a_tool_call_is_charged_released_and_denied(
    langchain: Any, client: Any, ledger: Ledger, is_async: bool
) -> None:
    actual = {"tool_actual": lambda request, result: cycles.usd("0.5")}
    middleware = Middleware(langchain, client, is_async=is_async, **actual)
    assert middleware.call("tool", TOOL, "found") == "found"
    assert spent(ledger) == cycles.usd("0.5").amount
    middleware.call("tool", TOOL, ToolMessage("failed", status="error"))
    assert [row.status for row in ledger.rows()].count("RELEASED") == 1
    poor = Middleware(langchain, client, is_async=is_async, tool_budget=TOO_MUCH)
    told = poor.call("tool", TOOL, "found")
    assert ("does not allow" in told.content, told.tool_call_id, told.name, told.status) == (
        True,
        "c1",
        "search",
        "error",
    )
    assert poor.seen == []
    free = Middleware(
        langchain, client, is_async=is_async, tool_budget={"other": ONE}, model_budget=None, model_actual=None
    )
    assert (free.call("tool", TOOL, "found"), free.call("model", ModelRequest(), "text")) == ("found", "text")
    assert len(ledger.rows()) == 2


@IS_ASYNC
def test_langchain_a_denied_model_call_is_a_message_or_raises(
    langchain: Any, client: Any, ledger: Ledger, is_async: bool
) -> None:
    told = Middleware(langchain, client, is_async=is_async, model_budget=TOO_MUCH, on_denied="message")
    message = told.call("model", ModelRequest(), reported())
    assert ("does not allow" in message.content, message.response_metadata) == (
        True,
        {"cycles_denied": "BUDGET_EXCEEDED"},
    )
    with pytest.raises(cycles.BudgetExceededError):
        Middleware(langchain, client, is_async=is_async, model_budget=TOO_MUCH).call("model", ModelRequest(), None)


@IS_ASYNC
def test_langchain_the_client_of_a_known_model_reports_what_a_call_costs(
    langchain: Any, client: Any, ledger: Ledger, is_async: bool
) -> None:
    middleware = Middleware(langchain, client, is_async=is_async)
    with real_client() as llm:
        model = named(SimpleNamespace, "langchain_openai", "BaseChatOpenAI")(root_client=llm, model="m")

        def handler(request: Any) -> Any:
            ask(request.model.root_client)
            return reported()

        async def later(request: Any) -> Any:
            return handler(request)

        if is_async:
            asyncio.run(middleware.made.awrap_model_call(ModelRequest(model=model), later))
        else:
            middleware.made.wrap_model_call(ModelRequest(model=model), handler)
        assert model.root_client is llm
    assert (spent(ledger), len(ledger.rows())) == (PAID, 1)


@IS_ASYNC
def test_langchain_caps_lower_the_limit_and_remove_tools(
    langchain: Any, client: Any, ledger: Ledger, is_async: bool
) -> None:
    capped(ledger, max_tokens=50, tool_denylist=["bad"])
    middleware = Middleware(langchain, client, is_async=is_async, max_tokens_setting="limit")
    request = ModelRequest(tools=[{"name": "good"}, {"name": "bad"}], model_settings={"limit": 90, "own": 1})
    middleware.call("model", request, reported())
    middleware.call("model", ModelRequest(tools=[{"name": "good"}], model_settings={"limit": 20}), reported())
    [first, second] = middleware.seen
    assert (first.tools, first.tool_choice, first.model_settings) == ([{"name": "good"}], None, {"limit": 50, "own": 1})
    assert (second.tools, second.tool_choice, second.model_settings) == ([{"name": "good"}], "any", {"limit": 20})
    assert request.model_settings == {"limit": 90, "own": 1}, "the request of the agent stays"


def test_langchain_caps_know_each_form_of_a_tool(langchain: Any, client: Any, ledger: Ledger) -> None:
    capped(ledger, tool_denylist=["bad"])
    middleware = Middleware(langchain, client, is_async=False)
    good: list[Any] = [
        SimpleNamespace(name="good"),
        {"name": "good", "type": "bad"},
        {"type": "function", "function": {"name": "good"}},
        {"type": "web_search"},
        {"type": "web_search", "name": None, "function": None},
        {"type": "function", "function": {}},
        {},
    ]
    bad: list[Any] = [
        SimpleNamespace(name="bad"),
        {"name": "bad", "type": "function"},
        {"type": "function", "function": {"name": "bad"}},
        {"type": "bad"},
    ]
    middleware.call("model", ModelRequest(tools=[*bad, *good]), reported())
    [seen] = middleware.seen
    assert (seen.tools, seen.tool_choice) == (good, None)


def test_langchain_details_of_the_usage_are_read_of_every_message(langchain: Any, client: Any, ledger: Ledger) -> None:
    seen: list[cycles.Usage] = []
    actual = {"model_actual": noted(seen, ONE)}
    middleware = Middleware(langchain, client, is_async=False, **actual)
    details = {
        "input_token_details": {"cache_read": 400, "ephemeral_1h_input_tokens": 30, "ephemeral_5m_input_tokens": 20},
        "output_token_details": {"flex_reasoning": 100, "audio": 5},
    }
    both = SimpleNamespace(result=[reported(**details), AIMessage("no usage"), reported()])
    both.result[2].id = "2"
    middleware.call("model", ModelRequest(), SimpleNamespace(model_response=both))
    assert dict(seen[-1].counts) == {
        "tokens_input": 2_000,
        "tokens_output": 600,
        "tokens_cached_input": 400,
        "tokens_cache_write": 50,
        "tokens_cache_write_1h": 30,
        "tokens_output_audio": 5,
        "tokens_reasoning": 100,
    }
    assert [dict(each.context) for each in seen[-1].responses()] == [{"service_tier": "flex"}, {}]


@pytest.mark.parametrize(
    ("details", "counts", "tier"),
    [
        ({"cache_read": 5, "flex_cache_read": 3}, {"tokens_cached_input": 8}, "flex"),
        ({"priority_cache_read": 3}, {"tokens_cached_input": 3}, "priority"),
        ({"flex_cache_creation": 4}, {"tokens_cache_write": 4}, "flex"),
        ({"cache_creation": 9, "priority_cache_creation": 4}, {"tokens_cache_write": 13}, "priority"),
        (
            {"cache_creation": 9, "ephemeral_1h_input_tokens": 4},
            {"tokens_cache_write": 9, "tokens_cache_write_1h": 4},
            None,
        ),
        (
            {"cache_creation": 0, "ephemeral_1h_input_tokens": 4},
            {"tokens_cache_write": 4, "tokens_cache_write_1h": 4},
            None,
        ),
        ({"audio": 6, "cache_read": None}, {"tokens_input_audio": 6}, None),
    ],
)
def test_langchain_counts_of_each_tier_are_added_up(
    langchain: Any, client: Any, ledger: Ledger, details: dict[str, Any], counts: dict[str, int], tier: str | None
) -> None:
    seen: list[cycles.Usage] = []
    middleware = Middleware(langchain, client, is_async=False, model_actual=noted(seen, ONE))
    middleware.call("model", ModelRequest(), reported(input_token_details=details))
    assert dict(seen[-1].counts) == {"tokens_input": 1_000, "tokens_output": 300, **counts}
    [response] = seen[-1].responses()
    assert dict(response.context) == ({} if tier is None else {"service_tier": tier})


TEXT = "one two three four five six"
STREAMED_PARTS: dict[str, Any] = {
    "token": TEXT,
    "chunk": AIMessage(TEXT),
    "tool-call": AIMessage("", tool_call_chunks=[{"args": TEXT}, {"args": None}]),
    "thoughts": AIMessage([{"type": "text", "text": "x"}, {"type": "thinking", "thinking": TEXT}, TEXT], text=""),
    "reasoning": {"event": "content-block-delta", "delta": {"reasoning": TEXT}},
    "text": {"event": "content-block-delta", "delta": {"text": TEXT, "args": TEXT}},
    "args": {"event": "content-block-delta", "delta": {"text": None, "args": TEXT}},
}
"""Parts of streams that carry the same text."""


def streamed_call(
    integration: Any, client: Any, handlers: list[Any], *parts: Any, error: Any = ConnectionError, **request: Any
) -> None:
    """Break off a model call that streams these parts, as LangChain reports them to its callbacks."""
    [(variable, inheritable)] = handlers
    assert (inheritable, variable.get()) == (True, None)
    middleware = integration.CyclesMiddleware(client, model_budget=ONE, model_actual=BOOK)

    def handler(_: Any) -> Any:
        callbacks = variable.get()
        assert callbacks.run_inline
        for part in parts:
            if isinstance(part, dict):
                callbacks.on_stream_event(part, run_id="r")
            elif isinstance(part, str):
                callbacks.on_llm_new_token(part, run_id="r")
            else:
                callbacks.on_llm_new_token("not this", chunk=SimpleNamespace(message=part), run_id="r")
        raise error

    with pytest.raises(error):
        middleware.wrap_model_call(ModelRequest(**request), handler)
    assert variable.get() is None


@pytest.mark.parametrize("part", STREAMED_PARTS.values(), ids=STREAMED_PARTS)
def test_langchain_a_stream_that_breaks_off_costs_its_text(
    langchain: Any, client: Any, ledger: Ledger, handlers: list[Any], part: Any
) -> None:
    streamed_call(langchain, client, handlers, part)
    tokens_of_text = -(-len(TEXT) // 3)
    assert spent(ledger) // 1_000 == tokens_of_text
    assert ledger.metadata() == [{"outcome": "error", "actual_source": "estimate"}]


def test_langchain_what_a_stream_reports_without_text(
    langchain: Any, client: Any, ledger: Ledger, handlers: list[Any]
) -> None:
    other = {"event": "message-start", "delta": {"text": TEXT}}
    streamed_call(langchain, client, handlers, AIMessage(""), other)
    assert [row.status for row in ledger.rows()] == ["RELEASED"], "nothing was made"
    last = reported()
    last.response_metadata = {"model_name": "m"}
    streamed_call(langchain, client, handlers, TEXT, last)
    assert (spent(ledger), ledger.metadata()) == (EXACT, [{"outcome": "error"}])


@pytest.mark.parametrize("part", ["", {"event": "message-start"}], ids=["token", "event"])
def test_langchain_a_stream_that_is_left_before_its_text_costs_its_prompt(
    langchain: Any, client: Any, ledger: Ledger, handlers: list[Any], part: Any
) -> None:
    def cost(**request: Any) -> int:
        before = spent(ledger)
        streamed_call(langchain, client, handlers, part, error=asyncio.CancelledError, **request)
        return spent(ledger) - before

    hi, more = AIMessage("hi"), AIMessage("more " * 90)
    short = cost(messages=[hi])
    assert 0 < short < ONE.amount
    assert cost(messages=[hi, more]) > short
    assert cost(messages=[hi], system_prompt="good " * 90) > short
    assert cost(messages=[hi], model=SimpleNamespace(model_name="", model=5, model_id="m")) == short


def test_langchain_the_setting_of_the_limit_is_a_name(langchain: Any, client: Any) -> None:
    for wrong in ("", 5):
        with pytest.raises(cycles.InvalidRequestError, match=f"max_tokens_setting must be a name, got {wrong!r}"):
            Middleware(langchain, client, is_async=False, max_tokens_setting=wrong)


def test_langchain_names_of_models(langchain: Any, client: Any, ledger: Ledger) -> None:
    middleware = Middleware(langchain, client, is_async=False)
    of_names: list[dict[str, Any]] = [
        {"_llm_type": "kind"},
        {"_llm_type": "kind", "model": "m"},
        {"_llm_type": "kind", "model": "m", "model_name": "named"},
        {"_llm_type": "kind", "model_id": "id"},
        {"model_id": "id", "model": "m"},
        {"model_name": "", "model": None, "model_id": 5, "_llm_type": "kind"},
        {},
    ]
    for names in of_names:
        middleware.call("model", ModelRequest(model=SimpleNamespace(**names)), reported())
    expected = ["kind", "m", "named", "id", "m", "kind", "SimpleNamespace"]
    assert [row.action.name for row in ledger.rows()] == expected


# --- FastMCP ----------------------------------------------------------------------------------------------------------


class ToolError(Exception):
    """What a tool of FastMCP raises for its caller."""


class ToolResult(SimpleNamespace):
    """The result of a tool."""


class Token:
    claims: dict[str, Any] | None = None


@pytest.fixture
def token() -> Token:
    return Token()


@pytest.fixture
def fastmcp(token: Token) -> Iterator[Any]:
    class Context:
        def __class_getitem__(cls, item: Any) -> Any:
            return cls

    yield from imported_with(
        "fastmcp",
        module("fastmcp"),
        module("fastmcp.server"),
        module("fastmcp.server.middleware", Middleware=object, MiddlewareContext=Context),
        module("fastmcp.server.dependencies", get_access_token=lambda: None if token.claims is None else token),
        module("fastmcp.exceptions", ToolError=ToolError),
        module("fastmcp.tools", ToolResult=ToolResult),
    )


def tool_call(integration: Any, client: Any, outcome: Any, **options: Any) -> Any:
    """Call the tool `search` through the middleware."""
    middleware = integration.CyclesMiddleware(client, **{"tool_budget": ONE, **options})
    context = SimpleNamespace(message=SimpleNamespace(name="search"))

    async def call_next(given: Any) -> Any:
        assert given is context
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return asyncio.run(middleware.on_call_tool(context, call_next))


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (ToolResult(), "COMMITTED"),
        (ToolResult(is_error=True), "RELEASED"),
        (ToolResult(input_required=1), "RELEASED"),
        ("a task that runs later", "RELEASED"),
    ],
    ids=["done", "error", "question", "task"],
)
def test_fastmcp_a_call_is_charged_if_its_work_is_done(
    fastmcp: Any, client: Any, ledger: Ledger, result: Any, status: str
) -> None:
    assert tool_call(fastmcp, client, result, tool_actual=lambda context, result: cycles.usd("0.5")) is result
    assert [(row.status, row.action.name) for row in ledger.rows()] == [(status, "search")]
    assert spent(ledger) == (cycles.usd("0.5").amount if status == "COMMITTED" else 0)


def test_fastmcp_a_denial_is_an_error_for_the_caller(fastmcp: Any, client: Any, ledger: Ledger) -> None:
    with pytest.raises(ToolError, match="does not allow"):
        tool_call(fastmcp, client, ToolResult(), tool_budget=TOO_MUCH)
    with pytest.raises(cycles.BudgetExceededError):
        tool_call(fastmcp, client, ToolResult(), tool_budget=TOO_MUCH, on_denied="raise")
    tool_call(fastmcp, client, ToolResult(), tool_budget={"other": ONE})
    assert ledger.rows() == []


@pytest.mark.parametrize(
    ("operation", "says"), [("reserve", "cannot be checked now"), ("commit", "could not be settled")]
)
def test_fastmcp_an_error_of_the_server_is_told_without_its_cause(
    fastmcp: Any, client: Any, ledger: Ledger, operation: str, says: str
) -> None:
    body = {"error": "INVALID_REQUEST", "message": "secret of the server", "request_id": "r"}
    ledger.server.faults.status(operation, 400, body=body, times=None)
    with pytest.raises(ToolError, match=says) as raised:
        tool_call(fastmcp, client, ToolResult())
    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_fastmcp_a_tool_whose_own_call_failed_is_not_tried_again(fastmcp: Any, client: Any) -> None:
    with pytest.raises(ToolError, match="could not be settled"):
        tool_call(fastmcp, client, cycles.TransportError("a call of the tool"))


@pytest.mark.parametrize("value", ["", 0, False, None, "a b", ["a"], "x" * 129])
def test_fastmcp_a_verified_claim_that_is_no_name_is_an_error_and_not_left_out(
    fastmcp: Any, client: Any, ledger: Ledger, token: Token, value: object
) -> None:
    token.claims = {"org": value, "sub": "user"}
    for claims in ({"org": "workspace", "sub": "agent"}, {"org": "dimensions.org", "sub": "agent"}):
        with pytest.raises(ToolError, match="cannot be identified"):
            tool_call(fastmcp, client, ToolResult(), claims=claims)
    assert ledger.rows() == []


def test_fastmcp_claims_are_levels_and_the_option_overrides_them(
    fastmcp: Any, client: Any, ledger: Ledger, token: Token
) -> None:
    options: Any = {
        "claims": {"org": "workspace", "sub": "agent", "none": "app"},
        "subject": lambda context: {"agent": "own"},
    }
    token.claims = {"org": "acme", "sub": "user"}
    tool_call(fastmcp, client, ToolResult(), **options)
    [row] = ledger.rows()
    assert (row.subject.workspace, row.subject.agent, row.subject.app) == ("acme", "own", None)
    token.claims = {"org": "not a level!"}
    with pytest.raises(ToolError, match="cannot be identified"):
        tool_call(fastmcp, client, ToolResult(), **options)
    token.claims = None
    tool_call(fastmcp, client, ToolResult(), **options)
    assert [row.subject.workspace for row in ledger.rows()].count(None) == 1
