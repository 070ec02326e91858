"""Google ADK under guards, with stand-ins of the library: what is sent, charged, and read of its responses.

The library itself is in `make test-integrations`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

import cycles
from tests.integrations.conftest import Ledger
from tests.integrations.stand_ins import PAID, ask, imported_with, module, named, real_client

PRICE = cycles.Price("1", "10", cached_input="0.1", per_call={"web_searches": "0.01"})
BOOK = cycles.PriceBook({"m": PRICE, "served": cycles.Price("2", "20")})
ONE = cycles.usd(1)
EXACT = 10 * 100 + 5 * 1_000
TOO_MUCH = cycles.usd(1_000)


class Kept(BaseModel):
    """A model of the library: it has aliases, as the wire has them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Part(Kept):
    text: str | None = None
    function_call: Any = None


class Content(Kept):
    role: str = "model"
    parts: list[Part] | None = None


class Tool(Kept):
    function_declarations: list[Any] | None = None


class Config(Kept):
    system_instruction: Any = None
    max_output_tokens: int | None = None
    tools: list[Any] | None = None
    labels: dict[str, str] | None = None


class LlmRequest(BaseModel):
    model: str | None = None
    contents: list[Content] = []
    config: Config = Config()


class Used(Kept):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    cached_content_token_count: int | None = None
    thoughts_token_count: int | None = None


class Grounding(Kept):
    web_search_queries: list[str] | None = None


class LlmResponse(BaseModel):
    content: Content | None = None
    usage_metadata: Used | None = None
    grounding_metadata: Grounding | None = None
    model_version: str | None = None
    partial: bool | None = None
    error_code: str | None = None
    custom_metadata: dict[str, Any] | None = None


class BaseLlm(BaseModel):
    model: str

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        raise AssertionError
        yield

    def connect(self, llm_request: LlmRequest) -> Any:
        raise AssertionError("no live connection is opened")


class Model(BaseLlm):
    """A model which notes its requests, and yields or raises its replies."""

    model: str = "m"
    replies: list[Any] = []
    asked: list[Any] = []

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        self.asked.append((llm_request, stream))
        for reply in self.replies:
            if isinstance(reply, Exception):
                raise reply
            yield reply


def new_llm(name: str) -> Model:
    if name != "m":
        raise ValueError(f"Model {name} not found.")
    return Model()


class BasePlugin:
    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture
def adk() -> Iterator[Any]:
    types = SimpleNamespace(Content=Content, Part=Part)
    yield from imported_with(
        "adk",
        module("google.adk"),
        module("google.adk.models", BaseLlm=BaseLlm, LLMRegistry=SimpleNamespace(new_llm=new_llm)),
        module("google.adk.models.llm_request", LlmRequest=LlmRequest),
        module("google.adk.models.llm_response", LlmResponse=LlmResponse),
        module("google.adk.plugins.base_plugin", BasePlugin=BasePlugin),
        module("google.genai", types=types),
        parts=("_adk_reading",),
    )


def says(text: str = "one two", **members: Any) -> LlmResponse:
    used = Used(prompt_token_count=10, candidates_token_count=5)
    content = Content(parts=[Part(text=text)])
    return LlmResponse(**{"content": content, "usage_metadata": used, **members})


def chunk(*parts: Part) -> LlmResponse:
    return LlmResponse(content=Content(parts=list(parts)), partial=True)


class Agent:
    """Guards a model, and calls it as a runner does."""

    def __init__(self, integration: Any, client: cycles.Cycles, *replies: Any, **options: Any) -> None:
        self.original = Model(replies=list(replies), asked=[])
        given = {"model_budget": ONE, "model_actual": BOOK, **options}
        self.model = integration.guard(self.original, client, **given)

    def run(self, request: LlmRequest | None = None, *, streamed: bool = False, leave: int = 99) -> list[Any]:
        """Return the responses; leave the stream after some of them."""

        async def run() -> list[Any]:
            found: list[Any] = []
            stream = self.model.generate_content_async(request or asking(), streamed)
            async for each in stream:
                found.append(each)
                if len(found) == leave:
                    break
            await stream.aclose()
            return found

        return asyncio.run(run())


def asking(text: str = "hi", **config: Any) -> LlmRequest:
    return LlmRequest(model="m", contents=[Content(role="user", parts=[Part(text=text)])], config=Config(**config))


@pytest.fixture
def spent(ledger: Ledger) -> Any:
    return lambda: ledger.spent("USD_MICROCENTS")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_call_is_charged_what_it_reports(adk: Any, client: Any, ledger: Ledger, spent: Any, streamed: bool) -> None:
    replies = [chunk(Part(text="one ")), says()] if streamed else [says()]
    agent = Agent(adk, client, *replies, subject=lambda call: {"agent": call.agent})
    request = asking(labels={"adk_agent_name": "bot"})
    assert agent.run(request, streamed=streamed) == replies
    assert agent.original.asked == [(request, streamed)]
    assert spent() == EXACT
    assert [(row.action.name, row.subject.agent) for row in ledger.rows()] == [("m", "bot")]
    assert ledger.metadata() == [{}]


@pytest.mark.parametrize(
    ("members", "cost"),
    [
        (
            {
                "usage_metadata": Used(
                    prompt_token_count=1_000,
                    candidates_token_count=20,
                    cached_content_token_count=600,
                    thoughts_token_count=30,
                )
            },
            400 * 100 + 600 * 10 + 50 * 1_000,
        ),
        ({"grounding_metadata": Grounding(web_search_queries=["a", "b"])}, EXACT + 2 * 1_000_000),
        ({"model_version": "served"}, 2 * EXACT),
    ],
    ids=["counts", "searches", "version"],
)
def test_counts_searches_and_the_version_are_priced(adk: Any, client: Any, spent: Any, members: Any, cost: int) -> None:
    Agent(adk, client, says(**members)).run()
    assert spent() == cost


def test_the_name_of_the_request_is_that_of_the_call_and_of_its_price(adk: Any, client: Any, ledger: Ledger) -> None:
    seen: list[Any] = []

    def budget(call: Any) -> cycles.Amount:
        seen.append((call.model, call.stream, call.agent))
        return ONE

    agent = Agent(adk, client, says(), model_budget=budget)
    agent.run(LlmRequest(model="served"), streamed=True)
    agent.run(LlmRequest())
    assert seen == [("served", True, None), ("m", False, None)]
    assert ledger.spent("USD_MICROCENTS") == 2 * EXACT + EXACT
    assert Agent(adk, client, says(), model_budget=lambda call: None).run() == [says()]
    assert len(ledger.rows()) == 2


def test_a_stream_without_a_count_costs_its_estimate(adk: Any, client: Any, ledger: Ledger, spent: Any) -> None:
    Agent(adk, client, says(usage_metadata=None)).run()
    assert (spent(), ledger.metadata()) == (ONE.amount, [{"actual_source": "estimate"}])


def test_counts_of_a_chunk_are_not_complete(adk: Any, client: Any, ledger: Ledger) -> None:
    broken = ConnectionError()
    for partial in (True, None):
        with pytest.raises(ConnectionError):
            Agent(adk, client, says(partial=partial), broken).run(streamed=True)
    guessed = {"outcome": "error", "actual_source": "estimate"}
    assert ledger.metadata() == [guessed, {"outcome": "error"}]


def test_a_stream_that_is_left_costs_its_prompt_and_what_was_written(adk: Any, client: Any, ledger: Ledger) -> None:
    def cost(*replies: LlmResponse, request: LlmRequest | None = None) -> int:
        before = ledger.spent("USD_MICROCENTS")
        Agent(adk, client, *replies, says()).run(request, streamed=True, leave=len(replies))
        return ledger.spent("USD_MICROCENTS") - before

    text, called = Part(text="one two three four five"), Part(function_call=SimpleNamespace(args={"q": "x" * 40}))
    small = cost(chunk(text))
    assert 0 < small < ONE.amount
    assert cost(chunk(text, called)) > cost(chunk(text, Part())) >= small
    assert cost(chunk(text), LlmResponse(partial=True), chunk(text)) > small
    assert cost(chunk(text), says(text.text or "", usage_metadata=None)) == small, "the last one repeats the text"
    assert cost(chunk(text), request=asking("hi " * 90)) > small
    assert cost(chunk(text), request=asking(max_output_tokens=2)) < small
    assert cost(chunk(text), request=asking(system_instruction="good " * 90)) > small
    assert {each["outcome"] for each in ledger.metadata()} == {"closed"}


@pytest.mark.parametrize(
    ("failed", "status"),
    [
        (LlmResponse(error_code="500"), "RELEASED"),
        (says(error_code="MAX_TOKENS"), "COMMITTED"),
        (LlmResponse(), "COMMITTED"),
    ],
    ids=["failed", "paid", "empty"],
)
def test_a_response_that_only_reports_a_failure_is_free(
    adk: Any, client: Any, ledger: Ledger, failed: Any, status: str
) -> None:
    assert Agent(adk, client, failed).run() == [failed]
    assert [row.status for row in ledger.rows()] == [status]


def test_a_denied_call_raises_or_is_a_message(adk: Any, client: Any, spent: Any) -> None:
    agent = Agent(adk, client, says(), model_budget=TOO_MUCH)
    with pytest.raises(cycles.BudgetExceededError):
        agent.run()
    told = Agent(adk, client, says(), model_budget=TOO_MUCH, on_denied=lambda error, call: f"no money for {call.model}")
    [found] = told.run()
    assert found.content == Content(role="model", parts=[Part(text="no money for m")])
    assert found.custom_metadata == {"cycles_denied": "BUDGET_EXCEEDED"}
    assert (agent.original.asked, told.original.asked, spent()) == ([], [], 0)


def test_caps_lower_the_limit_and_remove_tools_on_a_copy(adk: Any, client: Any, ledger: Ledger) -> None:
    ledger.server.ledger.set_budget("tenant:acme", cycles.usd(100), caps={"max_tokens": 50, "tool_denylist": ["bad"]})
    good, bad = SimpleNamespace(name="good"), SimpleNamespace(name="bad")
    hosted = SimpleNamespace(google_search={})
    request = asking(max_output_tokens=90, tools=[Tool(function_declarations=[good, bad]), hosted, Tool()])
    before = request.model_copy(deep=True)
    agent = Agent(adk, client, says())
    agent.run(request)
    agent.run(asking(max_output_tokens=20))
    agent.run(asking())
    configs = [asked.config for asked, _ in agent.original.asked]
    assert [config.max_output_tokens for config in configs] == [50, 20, 50]
    assert configs[0].tools == [Tool(function_declarations=[good]), hosted, Tool()]
    assert [config.tools for config in configs[1:]] == [None, None]
    assert request == before


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_client_of_a_known_model_reports_what_a_call_costs(
    adk: Any, client: Any, ledger: Ledger, spent: Any, streamed: bool
) -> None:
    class Asking(Model):
        api_client: Any = None

        async def generate_content_async(
            self, llm_request: LlmRequest, stream: bool = False
        ) -> AsyncGenerator[LlmResponse, None]:
            ask(self.api_client)
            yield says()

    agent = Agent(adk, client)
    with real_client() as llm:
        agent.original = named(Asking, "google.adk", "Gemini")(api_client=llm)
        agent.model = adk.guard(agent.original, client, model_budget=ONE, model_actual=BOOK)
        assert agent.run(streamed=streamed) == [says()]
        assert vars(agent.original)["api_client"] is llm
    assert (spent(), len(ledger.rows())) == (PAID, 1)


def test_a_guarded_model_is_a_copy_of_the_same_class(adk: Any, client: Any) -> None:
    agent = Agent(adk, client, says())
    cls = type(agent.model)
    assert isinstance(agent.model, Model)
    assert (cls.__name__, cls.__module__) == ("Model", Model.__module__)
    assert (type(agent.original), agent.model.model_dump()) == (Model, agent.original.model_dump())
    with pytest.raises(cycles.InvalidRequestError, match="a live connection of m cannot be metered"):
        agent.model.connect(LlmRequest())
    assert isinstance(adk.guard("m", client, model_budget=ONE), Model)
    with pytest.raises(cycles.InvalidRequestError, match="a name that it knows: Model x not found"):
        adk.guard("x", client, model_budget=ONE)
    with pytest.raises(cycles.InvalidRequestError, match="must be a BaseLlm of ADK or its name, got 5"):
        adk.guard(5, client, model_budget=ONE)
    with pytest.raises(cycles.InvalidRequestError, match="this Model is guarded already"):
        adk.guard(agent.model, client, model_budget=ONE)


# --- Tools ------------------------------------------------------------------------------------------------------------


class BaseTool:
    """A tool which returns its result, or raises it."""

    def __init__(self, name: str, result: Any) -> None:
        self.name, self.result = name, result
        self.ran: list[Any] = []

    async def run_async(self, *, args: dict[str, Any], tool_context: Any) -> Any:
        self.ran.append((args, tool_context.agent_name))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def call_tool(integration: Any, client: Any, tool: BaseTool, **options: Any) -> Any:
    """Call a tool as ADK does after its model has asked for it."""
    plugin = integration.CyclesPlugin(client, **{"tool_budget": ONE, **options})
    tools = {"search": tool}
    request = SimpleNamespace(tools_dict=tools)

    async def call() -> Any:
        await plugin.before_model_callback(callback_context=None, llm_request=request)
        guarded = tools["search"]
        await plugin.before_model_callback(callback_context=None, llm_request=request)
        assert tools["search"] is guarded, "it is guarded once"
        assert (isinstance(guarded, BaseTool), guarded is tool, type(guarded).__name__) == (True, False, "BaseTool")
        return await guarded.run_async(args={"q": 1}, tool_context=SimpleNamespace(agent_name="bot"))

    assert plugin.name == "cycles"
    return asyncio.run(call())


@pytest.mark.parametrize(
    ("result", "status"),
    [({"found": 1}, "COMMITTED"), ("found", "COMMITTED"), ({"error": ""}, "COMMITTED"), ({"error": "no"}, "RELEASED")],
    ids=["found", "text", "no-error", "error"],
)
def test_a_tool_call_is_charged_unless_it_reports_an_error(
    adk: Any, client: Any, ledger: Ledger, result: Any, status: str
) -> None:
    tool = BaseTool("search", result)
    actual = {"tool_actual": lambda call, result: cycles.usd("0.5"), "subject": lambda call: {"agent": call.agent}}
    assert call_tool(adk, client, tool, **actual) == result
    assert tool.ran == [({"q": 1}, "bot")]
    [row] = ledger.rows()
    assert (row.status, row.action.kind, row.action.name, row.subject.agent) == (status, "tool.call", "search", "bot")
    assert ledger.spent("USD_MICROCENTS") == (cycles.usd("0.5").amount if status == "COMMITTED" else 0)


def test_a_tool_call_is_denied_fails_and_passes(adk: Any, client: Any, ledger: Ledger) -> None:
    tool = BaseTool("search", {"found": 1})
    denied = call_tool(adk, client, tool, tool_budget=TOO_MUCH)
    assert "does not allow" in denied.pop("error")
    assert denied == {}
    with pytest.raises(cycles.BudgetExceededError):
        call_tool(adk, client, tool, tool_budget=TOO_MUCH, on_denied="raise")
    assert tool.ran == []
    assert call_tool(adk, client, tool, tool_budget={"other": ONE}) == {"found": 1}
    assert (len(tool.ran), ledger.rows()) == (1, [])
    with pytest.raises(ConnectionError):
        call_tool(adk, client, BaseTool("search", ConnectionError()))
    assert [row.status for row in ledger.rows()] == ["RELEASED"]
