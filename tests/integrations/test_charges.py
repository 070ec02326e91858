"""The integrations charge what a guarded client charges for the same response, whole and streamed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

import cycles
from cycles.providers import guard
from cycles.testing import FakeProvider

if not any(map(find_spec, ("langchain", "pydantic_ai", "fastmcp", "agents", "litellm", "agent_framework"))):
    pytest.skip("no framework is installed: run make test-integrations", allow_module_level=True)

BOOK = cycles.PriceBook.genai()
BUDGET = cycles.usd(5)
SDK_WARNINGS = ("ignore::DeprecationWarning", "ignore::UserWarning")
pytestmark = [pytest.mark.usefixtures("closed_http_clients"), *map(pytest.mark.filterwarnings, SDK_WARNINGS)]


def priced(_: Any = None) -> Any:
    return {"model_budget": BUDGET, "model_actual": BOOK}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


def run_langchain(model: Any, client: cycles.Cycles, *, streamed: bool = False) -> None:
    pytest.importorskip("langchain")
    from langchain.agents import create_agent

    from cycles.integrations.langchain import CyclesMiddleware

    agent: Any = create_agent(model, [], middleware=[CyclesMiddleware(client, **priced())])
    messages: Any = {"messages": [("user", "hi")]}
    if streamed:
        for _ in agent.stream(messages, stream_mode="messages"):
            pass
    else:
        agent.invoke(messages)


async def arun_langchain(model: Any, client: cycles.Cycles, *, streamed: bool = False) -> None:
    from langchain.agents import create_agent

    from cycles.integrations.langchain import CyclesMiddleware

    agent: Any = create_agent(model, [], middleware=[CyclesMiddleware(client, **priced())])
    messages: Any = {"messages": [("user", "hi")]}
    if streamed:
        async for _ in agent.astream(messages, stream_mode="messages"):
            pass
    else:
        await agent.ainvoke(messages)


async def arun_pydantic(model: Any, client: cycles.Cycles, *, streamed: bool = False) -> None:
    from pydantic_ai import Agent

    from cycles.integrations.pydantic_ai import CyclesCapability

    agent: Any = Agent(model, capabilities=[CyclesCapability(client, **priced())])
    if streamed:
        async with agent.run_stream("hi") as result:
            async for _ in result.stream_text():
                pass
    else:
        await agent.run("hi")


async def arun_agents(model: Any, client: cycles.Cycles, *, streamed: bool = False) -> None:
    from agents import Agent, RunConfig, Runner

    from cycles.integrations.openai_agents import GuardedModel

    guarded = GuardedModel(model, client=client, **priced())
    agent: Any = Agent("a", model=guarded)
    config = RunConfig(tracing_disabled=True)
    if streamed:
        async for _ in Runner.run_streamed(agent, "hi", run_config=config).stream_events():
            pass
    else:
        await Runner.run(agent, "hi", run_config=config)


async def arun_guarded_langchain(model: Any, client: cycles.Cycles, *, streamed: bool = False) -> None:
    from cycles.integrations.langchain import guard as guard_model

    guarded = guard_model(model, client=client, prices=BOOK)
    if streamed:
        async for _ in guarded.astream("hi"):
            pass
    else:
        await guarded.ainvoke("hi")


async def arun_litellm(model: Any, client: cycles.Cycles, *, streamed: bool = False) -> None:
    import litellm

    from cycles.integrations.litellm import install

    arguments: Any = {**model, "stream": streamed}
    installed = install(client, **priced())
    try:
        function = litellm.aresponses if "input" in arguments else litellm.acompletion
        response: Any = await function(**arguments)
        if streamed:
            async for _ in response:
                pass
    finally:
        installed.remove()


async def arun_adk(model: Any, client: cycles.Cycles, *, streamed: bool = False) -> None:
    from google.adk.models.llm_request import LlmRequest
    from google.genai import types

    from cycles.integrations.adk import guard as guard_model

    hi = types.Content(role="user", parts=[types.Part(text="hi")])
    request = LlmRequest(model=model.model, contents=[hi])
    async for _ in guard_model(model, client, **priced()).generate_content_async(request, stream=streamed):
        pass


async def arun_agent_framework(model: Any, client: cycles.Cycles, *, streamed: bool = False) -> None:
    from agent_framework import Agent

    from cycles.integrations.agent_framework import CyclesChatMiddleware

    agent: Any = Agent(client=model, middleware=[CyclesChatMiddleware(client, **priced())])
    if streamed:
        async for _ in agent.run("hi", stream=True):
            pass
    else:
        await agent.run("hi")


# --- models of each framework, by the API that they use

OPENAI, CLAUDE, GEMINI = "gpt-5", "claude-sonnet-4-5", "gemini-2.5-flash"


def langchain_model(api: str, provider: FakeProvider, name: str, stream_usage: bool | None = None) -> Any:
    if api == "messages":
        chat = pytest.importorskip("langchain_anthropic").ChatAnthropic
        return chat(model=name, api_key="k", base_url=provider.anthropic_url, max_retries=0)
    if api == "gemini":
        chat = pytest.importorskip("langchain_google_genai").ChatGoogleGenerativeAI
        return chat(model=name, api_key="k", base_url=provider.google_url, max_retries=0)
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    whether = {"use_responses_api": api == "responses", "stream_usage": stream_usage}
    return chat(model=name, api_key="k", base_url=provider.openai_url, max_retries=0, **whether)


def pydantic_model(api: str, provider: FakeProvider, name: str) -> Any:
    pytest.importorskip("pydantic_ai")
    if api == "messages":
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        anthropic: Any = pytest.importorskip("anthropic")
        llm = anthropic.AsyncAnthropic(api_key="k", base_url=provider.anthropic_url, max_retries=0)
        return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=llm))
    if api == "gemini":
        genai: Any = pytest.importorskip("google.genai")
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.providers.google import GoogleProvider

        llm = genai.Client(api_key="k", http_options={"base_url": provider.google_url})
        return GoogleModel(name, provider=GoogleProvider(client=llm))
    openai: Any = pytest.importorskip("openai")
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    llm = openai.AsyncOpenAI(api_key="k", base_url=provider.openai_url, max_retries=0)
    made = OpenAIResponsesModel if api == "responses" else OpenAIChatModel
    return made(name, provider=OpenAIProvider(openai_client=llm))


def agents_model(api: str, provider: FakeProvider, name: str) -> Any:
    agents: Any = pytest.importorskip("agents")
    openai: Any = pytest.importorskip("openai")
    llm = openai.AsyncOpenAI(api_key="k", base_url=provider.openai_url, max_retries=0)
    if api == "responses":
        return agents.OpenAIResponsesModel(name, llm)
    if api == "chat":
        return agents.OpenAIChatCompletionsModel(name, llm)
    pytest.skip("the Agents SDK has only the APIs of OpenAI")


def unknown_langchain_model(api: str, provider: FakeProvider, name: str) -> Any:
    """Return a model whose client cannot be reached: it has the messages of a real one."""
    inner = langchain_model(api, provider, name, stream_usage=True)
    from langchain_core.language_models import BaseChatModel

    class Unknown(BaseChatModel):
        model: str = name

        @property
        def _llm_type(self) -> str:
            return "unknown"

        def _get_ls_params(self, *args: Any, **options: Any) -> Any:
            return inner._get_ls_params(*args, **options)

        def _generate(self, *args: Any, **options: Any) -> Any:
            return inner._generate(*args, **options)

        def _stream(self, *args: Any, **options: Any) -> Any:
            return inner._stream(*args, **options)

    return Unknown()


def litellm_model(api: str, provider: FakeProvider, name: str) -> Any:
    pytest.importorskip("litellm")
    of, url = {
        "messages": ("anthropic", provider.anthropic_url),
        "gemini": ("gemini", provider.google_url),
    }.get(api, ("openai", provider.openai_url))
    asked = {"input": "hi"} if api == "responses" else {"messages": [{"role": "user", "content": "hi"}]}
    return {"model": f"{of}/{name}", "api_base": url, "api_key": "k", "max_retries": 0, **asked}


def adk_model(api: str, provider: FakeProvider, name: str) -> Any:
    models: Any = pytest.importorskip("google.adk.models")
    if api == "gemini":
        genai: Any = pytest.importorskip("google.genai")
        made = models.Gemini(model=name)
        made.__dict__["api_client"] = genai.Client(api_key="k", http_options={"base_url": provider.google_url})
        return made
    if api == "messages":
        anthropic: Any = pytest.importorskip("anthropic")
        from google.adk.models.anthropic_llm import AnthropicLlm

        made = AnthropicLlm(model=name)
        llm = anthropic.AsyncAnthropic(api_key="k", base_url=provider.anthropic_url, max_retries=0)
        made.__dict__["_anthropic_client"] = llm
        return made
    pytest.skip("the models of OpenAI in ADK are those of LiteLLM")


def guarded_agent_framework_client(api: str, provider: FakeProvider, name: str) -> Any:
    """Return a client of Agent Framework whose SDK client the user has guarded."""
    made = agent_framework_client(api, provider, name)
    of_api = {"messages": "anthropic_client", "gemini": "_genai_client"}.get(api, "client")
    setattr(made, of_api, guard(getattr(made, of_api), prices=BOOK))
    return made


def agent_framework_client(api: str, provider: FakeProvider, name: str) -> Any:
    pytest.importorskip("agent_framework")
    if api == "messages":
        anthropic: Any = pytest.importorskip("anthropic")
        chat = pytest.importorskip("agent_framework_anthropic").AnthropicClient
        llm = anthropic.AsyncAnthropic(api_key="k", base_url=provider.anthropic_url, max_retries=0)
        return chat(model=name, anthropic_client=llm)
    if api == "gemini":
        genai: Any = pytest.importorskip("google.genai")
        chat = pytest.importorskip("agent_framework_gemini").GeminiChatClient
        return chat(model=name, client=genai.Client(api_key="k", http_options={"base_url": provider.google_url}))
    openai: Any = pytest.importorskip("openai")
    clients: Any = pytest.importorskip("agent_framework_openai")
    llm = openai.AsyncOpenAI(api_key="k", base_url=provider.openai_url, max_retries=0)
    chat = clients.OpenAIChatClient if api == "responses" else clients.OpenAIChatCompletionClient
    return chat(model=name, async_client=llm)


FRAMEWORKS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "langchain": (langchain_model, arun_langchain),
    "pydantic_ai": (pydantic_model, arun_pydantic),
    "openai_agents": (agents_model, arun_agents),
    "langchain guard": (langchain_model, arun_guarded_langchain),
    "langchain unknown": (unknown_langchain_model, arun_guarded_langchain),
    "litellm": (litellm_model, arun_litellm),
    "adk": (adk_model, arun_adk),
    "agent_framework": (agent_framework_client, arun_agent_framework),
    "agent_framework, guarded client": (guarded_agent_framework_client, arun_agent_framework),
}


def body(usage: Any, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hello there", "refusal": None}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    base = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": OPENAI, "choices": choices}
    return {**base, "usage": usage, **more}


def chunks(usage: Any, **more: Any) -> bytes:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": OPENAI, **more}
    delta = {"index": 0, "delta": {"role": "assistant", "content": "Hello there"}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events = [{**base, "choices": [delta]}, {**base, "choices": [last]}, {**base, "choices": [], "usage": usage}]
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events) + b"data: [DONE]\n\n"


try:
    from agents.exceptions import ModelBehaviorError as ENDED_EARLY  # of a response that was truncated
except ImportError:
    ENDED_EARLY = RuntimeError  # type: ignore[misc, assignment]

USED = {"tokens_input": 1000, "tokens_output": 300}
GROUNDED = {
    "candidates": [
        {
            "content": {"role": "model", "parts": [{"text": "Hello there"}]},
            "finishReason": "STOP",
            "groundingMetadata": {"webSearchQueries": ["a", "b"]},
        }
    ]
}


def gemini(**usage: Any) -> dict[str, Any]:
    return {"usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 300, "totalTokenCount": 1300, **usage}}


# API, name, options of the reply; `usage`: a raw one of chat completions, which has other bodies whole and streamed
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("chat", "plain", {"usage": USED}),
    ("chat", "cached", {"usage": {**USED, "tokens_cached_input": 800}}),
    ("chat", "cache write", {"usage": {**USED, "tokens_cached_input": 100, "tokens_cache_write": 300}}),
    ("chat", "reasoning", {"usage": {**USED, "tokens_reasoning": 200}}),
    ("chat", "audio", {"usage": {**USED, "tokens_input_audio": 400, "tokens_output_audio": 90}, "model": "gpt-audio"}),
    ("chat", "priority", {"usage": USED, "extra": {"service_tier": "priority"}}),
    ("chat", "flex", {"usage": USED, "extra": {"service_tier": "flex"}}),
    ("chat", "another model", {"usage": USED, "model": "gpt-5-mini"}),
    ("chat", "no input reported", {"raw": {"prompt_tokens": 0, "completion_tokens": 300, "total_tokens": 300}}),
    ("chat", "long context", {"usage": {"tokens_input": 300_000, "tokens_output": 300}, "model": "gpt-5.4"}),
    ("responses", "plain", {"usage": USED}),
    (
        "responses",
        "priority, cached, searches",
        {"usage": {**USED, "tokens_cached_input": 200, "web_searches": 2}, "extra": {"service_tier": "priority"}},
    ),
    ("responses", "file searches", {"usage": {**USED, "file_searches": 3}}),
    ("responses", "reasoning", {"usage": {**USED, "tokens_reasoning": 250}}),
    ("responses", "images", {"usage": {**USED, "tokens_input_image": 700}}),
    ("responses", "truncated", {"usage": USED, "truncated": True}),
    ("messages", "plain", {"usage": USED}),
    (
        "messages",
        "caches of 5 min and 1 h",
        {
            "usage": {
                "tokens_input": 3700,
                "tokens_cached_input": 2000,
                "tokens_cache_write": 700,
                "tokens_cache_write_1h": 400,
                "tokens_output": 500,
            }
        },
    ),
    ("messages", "searches", {"usage": {**USED, "web_searches": 2}}),
    (
        "messages",
        "only written for 1 h",
        {"usage": {**USED, "tokens_cache_write": 1000, "tokens_cache_write_1h": 1000}},
    ),
    ("gemini", "plain", {"usage": USED}),
    ("gemini", "thoughts", {"extra": gemini(thoughtsTokenCount=200, totalTokenCount=1500)}),
    ("gemini", "cached", {"extra": gemini(cachedContentTokenCount=600)}),
    (
        "gemini",
        "audio",
        {
            "extra": gemini(
                promptTokensDetails=[
                    {"modality": "AUDIO", "tokenCount": 900},
                    {"modality": "TEXT", "tokenCount": 100},
                ]
            )
        },
    ),
    ("gemini", "searches", {"extra": {**gemini(), **GROUNDED}}),
]
NAMES = {"chat": OPENAI, "responses": OPENAI, "messages": CLAUDE, "gemini": GEMINI}


def reply(provider: FakeProvider, options: dict[str, Any], *, streamed: bool) -> None:
    options = dict(options)
    if (usage := options.pop("raw", None)) is not None:
        options["body"] = chunks(usage) if streamed else body(usage)
    provider.reply(text="Hello there", **options)


def repeated(api: str, provider: FakeProvider, client: cycles.Cycles, *, streamed: bool) -> None:
    """Send the last request again, with a guarded client."""
    sent = provider.requests[-1]
    options: Any = {"client": client, "prices": BOOK, "max_output_tokens": 5_000}
    if api == "gemini":
        genai: Any = pytest.importorskip("google.genai")
        llm = guard(genai.Client(api_key="k", http_options={"base_url": provider.google_url}), **options)
        call = llm.models.generate_content_stream if streamed else llm.models.generate_content
        arguments: dict[str, Any] = {"model": GEMINI, "contents": "hi"}
    elif api == "messages":
        anthropic: Any = pytest.importorskip("anthropic")
        llm = guard(anthropic.Anthropic(api_key="k", base_url=provider.anthropic_url), **options)
        call, arguments = llm.messages.create, {**sent.body, "max_tokens": 5_000}
    else:
        openai: Any = pytest.importorskip("openai")
        llm = guard(openai.OpenAI(api_key="k", base_url=provider.openai_url), **options)
        call, arguments = (llm.responses if api == "responses" else llm.chat.completions).create, sent.body
    with contextlib.closing(llm):
        response = call(**arguments)
        if streamed or (api != "gemini" and sent.body.get("stream")):
            for _ in response:
                pass


def commits(server: cycles.EmbeddedServer) -> list[tuple[int, dict[str, Any]]]:
    bodies = [request.json for request in server.requests.of("commit")]
    return [(body["actual"]["amount"], body.get("metadata", {})) for body in bodies]


def held(server: cycles.EmbeddedServer) -> int:
    reserved = server.ledger.balance("tenant:acme", unit="USD_MICROCENTS").reserved
    return 0 if reserved is None else reserved.amount


REPORTED = ("langchain unknown", "litellm", "agent_framework")
"""Frameworks whose client cannot be replaced: what they report is priced."""
UNREPORTED = {
    ("langchain unknown", "chat", "no input reported"),  # 0 is no count there, so the prompt is estimated
    ("langchain unknown", "gemini", "audio"),
    ("langchain unknown", "messages", "searches", "streamed"),
    ("langchain unknown", "messages", "caches of 5 min and 1 h", "streamed"),
    ("langchain unknown", "messages", "only written for 1 h", "streamed"),
    ("agent_framework", "chat", "priority", "whole"),
    ("agent_framework", "chat", "flex", "whole"),
}
"""What a framework drops of a response, so that no hook can price it."""


@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("api", "case", "options"), CASES, ids=[f"{api} {case}" for api, case, _ in CASES])
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_an_integration_charges_what_a_guarded_client_charges(
    framework: str,
    api: str,
    case: str,
    options: dict[str, Any],
    streamed: bool,
    provider: FakeProvider,
    server: cycles.EmbeddedServer,
    client: cycles.Cycles,
) -> None:
    make, run = FRAMEWORKS[framework]
    model = make(api, provider, NAMES[api])
    reply(provider, options, streamed=streamed)
    with contextlib.suppress(ENDED_EARLY):
        await run(model, client, streamed=streamed)
    reply(provider, options, streamed=streamed)
    repeated(api, provider, client, streamed=streamed)
    by_framework, by_client = commits(server)
    assert held(server) == 0
    if {(framework, api, case), (framework, api, case, "streamed" if streamed else "whole")} & UNREPORTED:
        assert by_framework[0] != by_client[0], "the framework reports it now"
        return
    by_framework[1].pop("outcome", None)  # the Agents SDK raises for a response that is truncated
    if framework in REPORTED:
        assert by_framework[0] == by_client[0]
        assert "actual_source" not in by_framework[1]
    else:
        assert by_framework == by_client
    assert by_framework[0] > 0


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", NAMES)
def test_a_sync_agent_of_langchain_charges_the_same(
    api: str, streamed: bool, provider: FakeProvider, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    options = {"usage": {**USED, "tokens_cached_input": 500}}
    reply(provider, options, streamed=streamed)
    run_langchain(langchain_model(api, provider, NAMES[api]), client, streamed=streamed)
    reply(provider, options, streamed=streamed)
    repeated(api, provider, client, streamed=streamed)
    by_framework, by_client = commits(server)
    assert by_framework == by_client
    assert by_client[0] > 0


def guarded_openai(provider: FakeProvider, client: cycles.Cycles) -> tuple[Any, Any]:
    """Return a chat model of LangChain whose clients the user has guarded, and its sync client."""
    openai: Any = pytest.importorskip("openai")
    model = langchain_model("chat", provider, OPENAI)
    llm = guard(openai.OpenAI(api_key="k", base_url=provider.openai_url), client=client, prices=BOOK)
    model.root_client, model.client = llm, llm.chat.completions
    return model, llm


def test_a_request_of_a_guarded_client_in_a_guarded_call_is_paid_once(
    provider: FakeProvider, server: cycles.EmbeddedServer, client: cycles.Cycles, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = guarded_openai(provider, client)
    for _ in range(2):
        provider.reply(usage=USED)
        run_langchain(model, client)
    assert commits(server) == [(425_000, {})] * 2
    assert len(server.requests.of("reserve")) == 2
    assert [record.levelname for record in caplog.records if "so that call pays" in record.message] == ["WARNING"]


def test_a_guarded_client_in_a_tool_of_a_guarded_agent_pays_itself(
    provider: FakeProvider, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    pytest.importorskip("langchain")
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    from cycles.integrations.langchain import CyclesMiddleware

    openai: Any = pytest.importorskip("openai")
    llm = guard(openai.OpenAI(api_key="k", base_url=provider.openai_url), client=client, prices=BOOK)

    @tool
    def ask(question: str) -> str:
        """Ask another model."""
        llm.chat.completions.create(model=OPENAI, messages=[{"role": "user", "content": question}], max_tokens=400)
        return "answered"

    middleware = CyclesMiddleware(client, **priced(), tool_budget=cycles.usd(1), tool_actual=cycles.usd("0.01"))
    agent: Any = create_agent(langchain_model("chat", provider, OPENAI), [ask], middleware=[middleware])
    provider.reply(usage=USED, tool_calls=[("ask", {"question": "why"})]).reply(usage=USED, times=2)
    agent.invoke({"messages": [("user", "hi")]})
    assert sorted(amount for amount, _ in commits(server)) == [425_000, 425_000, 425_000, 1_000_000]


@pytest.mark.anyio
async def test_two_requests_of_one_call_at_the_same_time_are_both_charged(
    provider: FakeProvider, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    pytest.importorskip("langchain")
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, ChatResult

    openai: Any = pytest.importorskip("openai")
    llm = guard(openai.AsyncOpenAI(api_key="k", base_url=provider.openai_url), client=client, prices=BOOK)
    first_has_ended = threading.Event()

    async def ask(question: str) -> None:
        hi: Any = [{"role": "user", "content": question}]
        await llm.chat.completions.create(model=OPENAI, messages=hi, max_completion_tokens=400)
        first_has_ended.set()

    class Two(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "two"

        def _generate(self, *args: Any, **options: Any) -> Any:
            raise NotImplementedError

        async def _agenerate(self, *args: Any, **options: Any) -> ChatResult:
            await asyncio.gather(ask("why"), ask("how"))
            return ChatResult(generations=[ChatGeneration(message=AIMessage("done"))])

    provider.reply(usage=USED).reply(usage=USED, gate=first_has_ended)
    await arun_langchain(Two(), client)
    assert commits(server) == [(850_000, {})]


@pytest.mark.parametrize("api", NAMES)
def test_the_model_of_the_caller_and_its_clients_are_not_changed(
    api: str, provider: FakeProvider, client: cycles.Cycles
) -> None:
    pytest.importorskip("langchain")
    from cycles.integrations.langchain import guard as guard_model

    model = langchain_model(api, provider, NAMES[api])
    clients = [model._client, model._async_client] if api == "messages" else []
    before = dict(vars(model))
    run_langchain(model, client)
    assert guard_model(model, client=client, prices=BOOK) is not model
    assert vars(model) == before
    assert all(vars(model)[name] is value for name, value in before.items())
    assert not any(hasattr(type(each), "_cycles_meter") for each in [*before.values(), *clients])


@pytest.mark.parametrize("api", NAMES)
def test_a_guarded_chat_model_reserves_each_of_its_requests(
    api: str, provider: FakeProvider, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    pytest.importorskip("langchain")
    from cycles.integrations.langchain import guard as guard_model

    original = langchain_model(api, provider, NAMES[api])
    model = guard_model(original, client=client, prices=BOOK, max_output_tokens=2_000)
    assert isinstance(model, type(original))
    provider.reply(usage=USED, times=2)
    model.invoke("hi")
    for _ in model.bind_tools([]).stream("hi"):
        pass
    (first, _), (second, _) = commits(server)
    assert first == second > 0
    assert len(server.requests.of("reserve")) == 2
    original.invoke("hi")
    assert len(server.requests.of("reserve")) == 2


@pytest.mark.parametrize("api", NAMES)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_string_of_a_denial_of_a_guarded_chat_model_shows_nothing(
    api: str, streamed: bool, provider: FakeProvider, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    pytest.importorskip("langchain")
    from cycles.integrations.langchain import guard as guard_model

    model = guard_model(langchain_model(api, provider, NAMES[api]), client=client, prices=BOOK, wait=0)
    server.ledger.set_budget("tenant:acme", cycles.usd_microcents(7))
    with pytest.raises(cycles.BudgetExceededError) as raised:
        list(model.stream("hi")) if streamed else model.invoke("hi")
    assert str(raised.value) == (
        "The budget does not allow this call (BUDGET_EXCEEDED). Do not try it again; continue without it."
    )
    assert "acme" in "".join(raised.value.__notes__)
    assert raised.value.code == "BUDGET_EXCEEDED"
    assert provider.requests == []


@pytest.mark.anyio
async def test_a_guarded_chat_model_is_paid_once_inside_the_middleware(
    provider: FakeProvider, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    pytest.importorskip("langchain")
    from cycles.integrations.langchain import guard as guard_model

    model = guard_model(langchain_model("chat", provider, OPENAI), client=client, prices=BOOK)
    provider.reply(usage=USED)
    await arun_langchain(model, client, streamed=True)
    assert commits(server) == [(425_000, {})]
    assert len(server.requests.of("reserve")) == 1


def test_what_is_no_chat_model_cannot_be_guarded(provider: FakeProvider, client: cycles.Cycles) -> None:
    pytest.importorskip("langchain")
    from cycles.integrations.langchain import guard as guard_model

    with pytest.raises(cycles.InvalidRequestError, match="must be a chat model"):
        guard_model("gpt-5")  # type: ignore[type-var]
    model = langchain_model("chat", provider, OPENAI)
    with pytest.raises(cycles.InvalidRequestError, match="wait must be seconds"):
        guard_model(model, wait=-1)
    with pytest.raises(cycles.InvalidRequestError, match="guarded already"):
        guard_model(guard_model(model, client=client, prices=BOOK))
    assert provider.requests == []


def test_a_model_whose_client_is_unknown_is_priced_by_what_it_reports(
    server: cycles.EmbeddedServer, client: cycles.Cycles, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.integrations.langchain_models import Model, says

    caplog.set_level("INFO")
    reported = {
        "input_tokens": 3_700,
        "output_tokens": 500,
        "total_tokens": 4_200,
        "input_token_details": {
            "cache_read": 2_000,
            "cache_creation": 0,
            "ephemeral_5m_input_tokens": 300,
            "ephemeral_1h_input_tokens": 400,
        },
    }
    claude = says("done", tokens=reported)
    claude.response_metadata = {"model_name": CLAUDE}
    tiers = {
        "input_tokens": 1_000,
        "output_tokens": 300,
        "total_tokens": 1_300,
        "input_token_details": {"priority": 800, "priority_cache_read": 200},
        "output_token_details": {"priority": 300},
    }
    openai = says("done", tokens=tiers)
    openai.response_metadata = {"model_name": OPENAI}

    class Strange(Model):
        """A class that no other test has reported: each is reported once for a process."""

    model = Strange(replies=[claude, openai])
    for _ in range(2):
        run_langchain(model, client)
    (first, _), (second, _) = commits(server)
    assert first == 1_000 * 300 + 2_000 * 30 + 300 * 375 + 400 * 600 + 500 * 1_500
    assert second == 800 * 250 + 200 * 25 + 300 * 2_000
    assert [record.message for record in caplog.records if "is unknown" in record.message] == [
        f"the client of model class {__name__}.{Strange.__qualname__} is unknown: "
        "its calls are priced by what the framework reports"
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_response_that_breaks_off_costs_what_was_made(
    framework: str, provider: FakeProvider, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    make, run = FRAMEWORKS[framework]
    provider.reply(text="one two three four five", usage=USED, drop_after=4)
    with pytest.raises(Exception) as raised:
        await run(make("chat", provider, OPENAI), client, streamed=True)
    assert not isinstance(raised.value, cycles.CyclesError)
    ((amount, metadata),) = commits(server)
    assert amount > 0
    assert metadata == {"actual_source": "estimate", "outcome": "error"}
    assert held(server) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_an_error_response_is_not_paid(
    framework: str, provider: FakeProvider, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    make, run = FRAMEWORKS[framework]
    provider.reply(status=400)
    with pytest.raises(Exception):  # noqa: B017 - each framework has its own
        await run(make("chat", provider, OPENAI), client)
    assert commits(server) == []
    assert len(server.requests.of("release")) == 1
    assert held(server) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_the_string_of_a_denial_has_nothing_private(
    framework: str, provider: FakeProvider, tmp_path: Any
) -> None:
    make, run = FRAMEWORKS[framework]
    server = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd("0.01")})
    with contextlib.closing(server), server.client(tenant="acme", journal_dir=tmp_path) as client:
        with pytest.raises(cycles.BudgetExceededError) as raised:
            await run(make("chat", provider, OPENAI), client)
        text = str(raised.value)
    assert text == "The budget does not allow this call (BUDGET_EXCEEDED). Do not try it again; continue without it."
    assert raised.value.message != text
    assert any("acme" in note for note in raised.value.__notes__)
    assert provider.requests == []


def test_a_tool_actual_with_other_parameters_is_rejected_when_the_object_is_made() -> None:
    def one(result: Any) -> Any:
        return result

    def two(request: Any, result: Any) -> Any:
        return result

    made: list[Callable[[Any], Any]] = []
    with contextlib.suppress(ImportError):
        from cycles.integrations.langchain import CyclesMiddleware

        made.append(lambda actual: CyclesMiddleware(tool_budget=BUDGET, tool_actual=actual))
    with contextlib.suppress(ImportError):
        from cycles.integrations.pydantic_ai import CyclesCapability

        made.append(lambda actual: CyclesCapability(tool_budget=BUDGET, tool_actual=actual))
    with contextlib.suppress(ImportError):
        from cycles.integrations import fastmcp

        made.append(lambda actual: fastmcp.CyclesMiddleware(tool_budget=BUDGET, tool_actual=actual))
    with contextlib.suppress(ImportError):
        from cycles.integrations.openai_agents import guard_tool

        made.append(lambda actual: guard_tool(tool_budget=BUDGET, tool_actual=actual)(lambda first: first))
    if not made:
        pytest.skip("no framework is installed")
    for make in made:
        make(two)
        make(max)  # some built-in functions have no signature
        with pytest.raises(cycles.InvalidRequestError, match=r"tool_actual must take \(\w+, result\)"):
            make(one)
