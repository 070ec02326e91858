"""LiteLLM under guards, with a stand-in of the library: what is sent, charged, and read of its responses.

The library itself is in `make test-integrations`.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

import cycles
from tests.integrations.conftest import Ledger
from tests.integrations.stand_ins import imported_with, module, noted

BOOK = cycles.PriceBook({"m": cycles.Price("1", "10", cached_input="0.1")})
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
EXACT = 1_000 * 100 + 300 * 1_000
WAYS = pytest.mark.parametrize("how", ["completion", "acompletion"])


def usage_of(**counts: Any) -> Any:
    members = {"prompt_tokens": 1_000, "completion_tokens": 300}
    return SimpleNamespace(**members, prompt_tokens_details=None, completion_tokens_details=None, **counts)


def whole(**members: Any) -> Any:
    message = SimpleNamespace(content="one two")
    choices = [SimpleNamespace(message=message, finish_reason="stop")]
    return SimpleNamespace(**{"usage": usage_of(), "model": "openai/m", "choices": choices, **members})


def chunk(text: str | None, finish: str | None = None, **members: Any) -> Any:
    delta = SimpleNamespace(content=text, tool_calls=None)
    return SimpleNamespace(choices=[SimpleNamespace(delta=delta, finish_reason=finish)], model="m", **members)


CHUNKS = [chunk("one "), chunk("two"), chunk(None, "stop"), chunk(None, usage=usage_of())]


class CustomStreamWrapper:
    """The stream of LiteLLM."""

    def __init__(self, chunks: list[Any]) -> None:
        self.chunks = iter(chunks)
        self.closed = 0
        self.response_headers = {"x": "y"}

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        found = next(self.chunks)
        if isinstance(found, Exception):
            raise found
        return found

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class ModelResponse(SimpleNamespace):
    def __init__(self, **members: Any) -> None:
        super().__init__(**members, _hidden_params={})


class Library:
    """What LiteLLM sends, and how its provider responds; the last outcome stays."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.outcomes: list[Any] = [whole()]
        self.module = module(
            "litellm",
            get_llm_provider=self.get_llm_provider,
            CustomStreamWrapper=CustomStreamWrapper,
            ModelResponse=ModelResponse,
            ModelResponseStream=ModelResponse,
            **{name: self.function(name) for name in ("completion", "text_completion", "embedding", "responses")},
            **{name: self.coroutine_function(name) for name in ("acompletion", "aembedding")},
        )

    @staticmethod
    def get_llm_provider(model: str, custom_llm_provider: Any, api_base: Any) -> tuple[str, str, None, None]:
        provider, _, name = model.partition("/")
        if not name:
            raise ValueError("LLM Provider NOT provided")
        return name, custom_llm_provider or provider, None, None

    def send(self, name: str, arguments: dict[str, Any]) -> Any:
        self.sent.append((name, {key: value for key, value in arguments.items() if value is not None}))
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return CustomStreamWrapper(outcome) if isinstance(outcome, list) else outcome

    def function(self, name: str) -> Any:
        def send(model: str | None = None, messages: Any = None, stream: Any = None, **rest: Any) -> Any:
            return self.send(name, {"model": model, "messages": messages, "stream": stream, **rest})

        return send

    def coroutine_function(self, name: str) -> Any:
        async def send(model: str | None = None, messages: Any = None, stream: Any = None, **rest: Any) -> Any:
            return self.send(name, {"model": model, "messages": messages, "stream": stream, **rest})

        return send


class World:
    def __init__(self, integration: Any, library: Library, client: cycles.Cycles, ledger: Ledger) -> None:
        self.integration = integration
        self.library = library
        self.client = client
        self.ledger = ledger
        self.installed: Any = None

    def install(self, **options: Any) -> Any:
        given = {"client": self.client, "model_budget": cycles.usd(1), "model_actual": BOOK, **options}
        self.installed = self.integration.install(**given)
        return self.installed

    def call(self, how: str = "completion", model: str = "openai/m", **options: Any) -> Any:
        """Call a function of LiteLLM; a stream is read to its end."""
        given = {"model": model, "messages": MESSAGES, **options}
        found = getattr(self.library.module, how)

        async def run() -> Any:
            result = found(**given)
            result = await result if inspect.isawaitable(result) else result
            if not options.get("stream"):
                return result
            if how.startswith("a"):
                return [each async for each in result]
            return list(result)

        return asyncio.run(run())

    @property
    def spent(self) -> int:
        return self.ledger.spent("USD_MICROCENTS")

    @property
    def sent(self) -> dict[str, Any]:
        """The arguments of the last request."""
        return self.library.sent[-1][1]


@pytest.fixture
def world(client: cycles.Cycles, ledger: Ledger) -> Iterator[World]:
    library = Library()
    for integration in imported_with("litellm", library.module, parts=("_litellm_reading", "_litellm_streams")):
        yield World(integration, library, client, ledger)


@WAYS
def test_a_whole_response_is_charged_what_it_reports(world: World, how: str) -> None:
    world.install()
    assert world.call(how).choices[0].message.content == "one two"
    assert world.spent == EXACT
    [row] = world.ledger.rows()
    assert (row.action.kind, row.action.name) == ("llm.completion", "m")
    assert world.library.sent == [(how, {"model": "openai/m", "messages": MESSAGES})]


@WAYS
def test_a_stream_is_charged_and_the_usage_that_was_not_asked_for_is_left_out(world: World, how: str) -> None:
    world.install()
    world.library.outcomes = [CHUNKS]
    assert world.call(how, stream=True) == CHUNKS[:3]
    assert (world.spent, world.sent["stream_options"]) == (EXACT, {"include_usage": True})


@WAYS
@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_whose_usage_option_is_set_keeps_it(world: World, how: str, asked: bool) -> None:
    world.install()
    world.library.outcomes = [CHUNKS]
    options = {"include_usage": asked, "other": 1}
    assert world.call(how, stream=True, stream_options=options) == CHUNKS
    assert world.sent["stream_options"] == options


def test_other_options_of_a_stream_stay(world: World) -> None:
    world.install()
    world.library.outcomes = [CHUNKS]
    given = {"other": 1}
    world.call(stream=True, stream_options=given)
    assert (world.sent["stream_options"], given) == ({"other": 1, "include_usage": True}, {"other": 1})


@WAYS
def test_a_stream_that_is_closed_is_charged_by_what_it_made(world: World, how: str) -> None:
    world.install()
    world.library.outcomes = [CHUNKS]

    async def run() -> None:
        given = {"model": "openai/m", "messages": MESSAGES, "stream": True}
        if how == "completion":
            stream = world.library.module.completion(**given)
            assert next(stream) is CHUNKS[0]
            stream.close()
        else:
            stream = await world.library.module.acompletion(**given)
            assert await anext(stream) is CHUNKS[0]
            await stream.aclose()
        assert isinstance(stream, CustomStreamWrapper)
        assert (stream.response_headers, stream.closed) == ({"x": "y"}, 1)

    asyncio.run(run())
    [metadata] = world.ledger.metadata()
    assert metadata == {"outcome": "closed", "actual_source": "estimate"}
    assert 0 < world.spent < EXACT


def test_a_stream_that_is_dropped_is_settled(world: World) -> None:
    from tests.support.waiting import until

    world.install()
    world.library.outcomes = [CHUNKS]
    stream = world.library.module.completion(model="openai/m", messages=MESSAGES, stream=True)
    next(stream)
    del stream
    gc.collect()
    until(lambda: list(world.client.reservations(status="ACTIVE")) == [])
    assert world.ledger.metadata() == [{"outcome": "closed", "actual_source": "estimate"}]


@WAYS
def test_a_stream_that_breaks_is_charged_and_raises(world: World, how: str) -> None:
    world.install()
    world.library.outcomes = [[CHUNKS[0], ConnectionResetError("gone")]]
    with pytest.raises(ConnectionResetError):
        world.call(how, stream=True)
    assert world.ledger.metadata() == [{"outcome": "error", "actual_source": "estimate"}]
    assert world.spent > 0


@WAYS
@pytest.mark.parametrize("stream", [None, True])
def test_an_error_before_any_response_is_raised_by_the_call_and_released(world: World, how: str, stream: Any) -> None:
    world.install()
    world.library.outcomes = [ValueError("wrong")]
    given = {"model": "openai/m", "messages": MESSAGES, "stream": stream}
    with pytest.raises(ValueError, match="wrong"):
        if how == "completion":
            world.library.module.completion(**given)
        else:
            asyncio.run(world.library.module.acompletion(**given))
    assert (world.spent, [row.status for row in world.ledger.rows()]) == (0, ["RELEASED"])


@WAYS
def test_a_response_from_the_cache_costs_nothing(world: World, how: str) -> None:
    world.install()
    world.library.outcomes = [whole(_hidden_params={"cache_hit": True})]
    world.call(how)
    assert (world.spent, [row.status for row in world.ledger.rows()]) == (0, ["RELEASED"])


@WAYS
@pytest.mark.parametrize("retries", [2, 0, None])
def test_each_retry_has_its_own_reservation(world: World, how: str, retries: int | None) -> None:
    world.install()
    request: Any = SimpleNamespace(method="POST", url="")
    world.library.outcomes = [
        openai.APIError("busy", request, body=None),
        openai.APIError("busy", request, body=None),
        whole(),
    ]
    if retries == 2:
        world.call(how, num_retries=retries)
        assert [row.status for row in world.ledger.rows()].count("RELEASED") == 2
        assert [arguments["num_retries"] for _, arguments in world.library.sent] == [0, 0, 0]
        assert world.spent == EXACT
    else:
        with pytest.raises(openai.APIError):
            world.call(how, num_retries=retries)
        assert len(world.ledger.rows()) == 1


def test_a_retry_that_fails_too_is_raised_and_another_error_is_not_retried(world: World) -> None:
    world.install()
    request: Any = SimpleNamespace(method="POST", url="")
    world.library.outcomes = [openai.APIError("busy", request, body=None)]
    with pytest.raises(openai.APIError):
        world.call(num_retries=1)
    assert len(world.library.sent) == 2
    world.library.outcomes = [ValueError("wrong")]
    with pytest.raises(ValueError, match="wrong"):
        world.call(num_retries=1)
    assert len(world.library.sent) == 3


def test_the_router_counts_its_attempts_itself(world: World) -> None:
    world.install()
    world.call(num_retries=3, metadata={"model_info": {}})
    assert world.sent["num_retries"] == 3


@pytest.mark.parametrize("options", [{"fallbacks": ["openai/other"]}, None])
def test_what_something_else_pays_is_not_reserved(world: World, options: Any) -> None:
    """LiteLLM calls its own function again for each fallback."""
    world.install()
    if options is None:
        inner = world.library.function("completion")
        payer = SimpleNamespace(
            estimate=cycles.usd(1), price=BOOK, bind=lambda request: None, ended=lambda request: None
        )
        with cycles.providers.paid_by(payer):
            world.library.module.completion(model="openai/m", messages=MESSAGES)
        assert inner
    else:
        world.call(**options)
    assert (world.ledger.rows(), len(world.library.sent)) == ([], 1)


@WAYS
def test_a_denied_call_becomes_a_message_or_raises(world: World, how: str) -> None:
    poor = {"model_budget": cycles.usd(1_000), "on_denied": "message"}
    world.install(**poor)
    found = world.call(how)
    assert "does not allow" in found.choices[0]["message"]["content"]
    assert vars(found)["_hidden_params"] == {"cycles_denied": "BUDGET_EXCEEDED"}
    [only] = world.call(how, stream=True)
    assert "does not allow" in only.choices[0]["delta"]["content"]
    assert world.library.sent == []
    world.installed.remove()
    world.install(model_budget=cycles.usd(1_000))
    with pytest.raises(cycles.BudgetExceededError) as raised:
        world.call(how)
    assert "tenant" not in str(raised.value), "a framework may show it to a model"


@pytest.mark.parametrize("function", ["embedding", "text_completion", "responses"])
def test_a_denied_call_that_is_no_chat_raises(world: World, function: str) -> None:
    world.install(model_budget=cycles.usd(1_000), on_denied="message")
    with pytest.raises(cycles.BudgetExceededError):
        world.call(function)


@pytest.mark.parametrize(
    ("function", "kind"),
    [("embedding", "llm.embedding"), ("aembedding", "llm.embedding"), ("text_completion", "llm.completion")],
)
def test_each_function_is_guarded(world: World, function: str, kind: str) -> None:
    world.install()
    world.call(function)
    assert [row.action.kind for row in world.ledger.rows()] == [kind]
    assert world.spent == EXACT


def test_remove_restores_the_functions_and_leaves_those_of_others(world: World) -> None:
    before = {name: getattr(world.library.module, name) for name in ("completion", "acompletion", "embedding")}
    installed = world.install()
    kept = world.library.module.completion
    with pytest.raises(cycles.InvalidRequestError, match="guarded already"):
        world.install()
    other = world.library.function("embedding")
    world.library.module.__dict__["embedding"] = other
    installed.remove()
    assert world.library.module.completion is before["completion"]
    assert world.library.module.acompletion is before["acompletion"]
    assert world.library.module.embedding is other
    assert kept(model="openai/m", messages=MESSAGES).model == "openai/m", "a library may have kept it"
    assert world.ledger.rows() == []
    world.install()


def test_modules_that_have_imported_a_function_are_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    import sys

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "early", module("early", complete=1, completion=world.library.module.completion))
        world.install()
    [record] = [each.getMessage() for each in caplog.records if "before install()" in each.getMessage()]
    assert record.startswith("early imported completion of LiteLLM")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"max_tokens": 50}),
        ({"max_tokens": 20}, {"max_tokens": 20}),
        ({"max_completion_tokens": 90}, {"max_completion_tokens": 50}),
        ({"max_tokens": 90, "max_completion_tokens": 80}, {"max_tokens": 50, "max_completion_tokens": 50}),
        ({"max_tokens": 90, "max_completion_tokens": None}, {"max_tokens": 50}),
        ({"max_tokens": None, "max_completion_tokens": 20}, {"max_completion_tokens": 20}),
        ({"max_tokens": None}, {"max_tokens": 50}),
    ],
)
def test_caps_lower_each_limit_that_is_set(world: World, given: Any, sent: Any) -> None:
    world.ledger.server.ledger.set_budget("tenant:acme", cycles.usd(100), caps={"max_tokens": 50})
    world.install()
    world.call(**given)
    assert {name: value for name, value in world.sent.items() if name.startswith("max_")} == sent
    world.call("embedding")
    assert "max_tokens" not in world.sent, "embeddings have no output limit"


@pytest.mark.parametrize(("names", "sent"), [(["good"], ["good"]), (["good", "bad"], ["good"]), (["bad"], None)])
def test_caps_remove_forbidden_tools(world: World, names: list[str], sent: Any) -> None:
    world.ledger.server.ledger.set_budget("tenant:acme", cycles.usd(100), caps={"tool_denylist": ["bad"]})
    world.install()
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    world.call(tools=tools, tool_choice="required")
    found = world.sent.get("tools")
    assert (None if found is None else [each["function"]["name"] for each in found]) == sent
    assert ("tool_choice" in world.sent) == (sent == names)


def test_the_book_bounds_and_prices_a_call(world: World) -> None:
    world.install(model_budget="book")
    world.call(max_tokens=500)
    [row] = world.ledger.rows()
    assert row.reserved.amount >= 500 * 1_000
    assert world.spent == EXACT
    for options in ({"model_budget": "books"}, {"model_budget": "book", "model_actual": lambda usage: cycles.usd(1)}):
        world.installed.remove()
        with pytest.raises(cycles.InvalidRequestError):
            world.install(**options)


def test_the_book_bounds_calls_of_each_provider_and_endpoint(world: World) -> None:
    world.install(model_budget="book")
    for model in ("openai/m", "groq/m", "gemini/m", "openai/m"):
        world.call(model=model, max_tokens=500)
        world.call("embedding", model=model, max_tokens=500)
    rows = world.ledger.rows()
    assert [row.action.kind for row in rows] == ["llm.completion", "llm.embedding"] * 4
    assert all(row.reserved.amount >= 500 * 1_000 for row in rows[::2]), rows
    assert all(row.reserved.amount < 500 * 1_000 for row in rows[1::2]), "embeddings have no output"


@pytest.mark.parametrize(
    ("counts", "amount"),
    [
        ({"prompt_tokens_details": SimpleNamespace(cached_tokens=400)}, 600 * 100 + 400 * 10 + 300_000),
        ({"completion_tokens_details": SimpleNamespace(reasoning_tokens=200)}, EXACT),
    ],
)
def test_details_of_the_usage_are_priced(world: World, counts: Any, amount: int) -> None:
    world.install()
    usage = usage_of()
    usage.__dict__.update(counts)
    world.library.outcomes = [whole(usage=usage)]
    world.call()
    assert world.spent == amount


def test_callables_get_the_call(world: World) -> None:
    seen: list[Any] = []
    world.install(model_budget=noted(seen, cycles.usd(1)), subject=lambda call: {"agent": call.provider})
    world.call("acompletion", "bedrock/anthropic.m", max_tokens=7, api_base="http://x")
    [call] = seen
    assert (call.function, call.model, call.provider, call.limit, call.pricing) == (
        "acompletion",
        "anthropic.m",
        "bedrock",
        7,
        "aws",
    )
    assert (call.embeds, call.body) == (False, {"model": "anthropic.m", "messages": MESSAGES, "max_tokens": 7})
    with pytest.raises(TypeError):
        call.arguments["max_tokens"] = 8
    assert [row.subject.agent for row in world.ledger.rows()] == ["bedrock"]


def test_a_call_that_is_not_guarded_passes(world: World) -> None:
    world.install(model_budget=lambda call: None)
    assert world.call().model == "openai/m"
    assert world.ledger.rows() == []


def test_positional_arguments_have_their_names(world: World) -> None:
    world.install()
    world.library.module.completion("openai/m", MESSAGES)
    assert world.sent == {"model": "openai/m", "messages": MESSAGES}
    assert [row.action.name for row in world.ledger.rows()] == ["m"]


def details(**counts: Any) -> Any:
    return SimpleNamespace(**counts)


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"prompt_tokens_details": details(cached_tokens=4)}, {"tokens_cached_input": 4}),
        ({"cache_creation_input_tokens": 5}, {"tokens_cache_write": 5}),
        ({"prompt_tokens_details": details(cache_creation_tokens=6)}, {"tokens_cache_write": 6}),
        ({"prompt_tokens_details": details(cache_write_tokens=7)}, {"tokens_cache_write": 7}),
        (
            {
                "cache_creation_input_tokens": 9,
                "prompt_tokens_details": details(
                    cache_creation_token_details=details(ephemeral_1h_input_tokens=8), cache_write_tokens=1
                ),
            },
            {"tokens_cache_write": 9, "tokens_cache_write_1h": 8},
        ),
        (
            {"prompt_tokens_details": details(audio_tokens=1, image_tokens=2)},
            {"tokens_input_audio": 1, "tokens_input_image": 2},
        ),
        (
            {"completion_tokens_details": details(audio_tokens=3, image_tokens=4, reasoning_tokens=5)},
            {"tokens_output_audio": 3, "tokens_output_image": 4, "tokens_reasoning": 5},
        ),
        ({"server_tool_use": details(web_search_requests=1)}, {"web_searches": 1}),
        ({"prompt_tokens_details": details(web_search_requests=2)}, {"web_searches": 2}),
        ({"prompt_tokens_details": details(cached_tokens=True, audio_tokens=0, image_tokens=None)}, {}),
    ],
)
def test_each_count_of_the_usage_is_read(world: World, members: Any, found: dict[str, int]) -> None:
    seen: list[Any] = []
    world.install(model_actual=noted(seen, cycles.usd("0.01")))
    usage = usage_of()
    usage.__dict__.update(members)
    world.library.outcomes = [whole(usage=usage)]
    world.call()
    counts = {name: count for name, count in seen[-1].counts.items() if count and name not in found}
    assert {name: seen[-1].counts.get(name) for name in found} == found
    assert {name for name in counts if not name.startswith("tokens_cached")} == {"tokens_input", "tokens_output"}


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({"max_completion_tokens": 5, "max_tokens": 6}, 5),
        ({"max_output_tokens": 7}, 7),
        ({"max_tokens": True}, None),
        ({"max_tokens": "6"}, None),
        ({"max_tokens": 0}, 0),
    ],
)
def test_the_limit_of_a_call_is_an_integer(world: World, given: Any, limit: int | None) -> None:
    seen: list[Any] = []
    world.install(model_budget=noted(seen, cycles.usd(1)))
    world.call(**given)
    assert seen[0].limit == limit


def test_the_provider_is_resolved_from_all_that_names_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def get_llm_provider(**given: Any) -> Any:
        asked.append(given)
        return "n", "p", None, None

    monkeypatch.setattr(world.library.module, "get_llm_provider", get_llm_provider)
    world.install()
    world.call(custom_llm_provider="p", base_url="http://one")
    world.call("text_completion", model="", engine="e", api_base="http://two", base_url="http://one")
    assert asked == [
        {"model": "openai/m", "custom_llm_provider": "p", "api_base": "http://one"},
        {"model": "e", "custom_llm_provider": None, "api_base": "http://two"},
    ]


def test_a_stream_of_the_responses_api_reports_its_usage_unasked(world: World) -> None:
    world.install()
    world.library.outcomes = [[SimpleNamespace(delta="one"), whole()]]
    world.call("responses", stream=True)
    assert "stream_options" not in world.sent
    assert world.spent == EXACT


@pytest.mark.parametrize(
    ("last", "is_shown"),
    [
        (chunk(None, "stop", usage=usage_of()), True),
        (chunk("two", usage=usage_of()), True),
        (chunk(None, usage=usage_of()), False),
        (SimpleNamespace(choices=None, model="m", usage=usage_of()), False),
    ],
)
def test_a_chunk_with_more_than_the_usage_is_shown(world: World, last: Any, is_shown: bool) -> None:
    world.install()
    world.library.outcomes = [[CHUNKS[0], last]]
    assert world.call(stream=True) == ([CHUNKS[0], last] if is_shown else [CHUNKS[0]])
    assert world.spent == EXACT


@pytest.mark.parametrize("where", ["usage", "response"])
def test_the_tier_of_a_response_selects_its_price(world: World, where: str) -> None:
    price = cycles.Price("1", "10", tiers={"priority": cycles.Price("2", "20")})
    world.install(model_actual=cycles.PriceBook({"m": price}))
    tier = {"service_tier": "priority"}
    world.library.outcomes = [whole(usage=usage_of(**tier)) if where == "usage" else whole(**tier)]
    world.call()
    assert world.spent == 2 * EXACT


def test_the_time_of_a_price_has_a_zone(world: World) -> None:
    """Some prices differ by the hour of UTC."""
    origins: list[Any] = []

    class Noting(cycles.PriceBook):
        def priced(self, usage: Any, origin: Any = None) -> Any:
            origins.append(origin)
            return super().priced(usage, origin)

    world.install(model_actual=Noting({"m": cycles.Price("1", "10")}))
    world.call()
    assert world.spent == EXACT
    assert {(each.model, each.provider, each.at.utcoffset()) for each in origins} == {("m", "openai", timedelta(0))}


@WAYS
def test_a_call_whose_response_is_lost_is_charged_its_estimate(world: World, how: str) -> None:
    world.install()
    world.library.outcomes = [lost()]
    with pytest.raises(openai.APIConnectionError):
        world.call(how)
    assert world.spent == cycles.usd(1).amount


def lost() -> Exception:
    request: Any = SimpleNamespace(method="POST", url="")
    error = openai.APIConnectionError(request=request)
    error.__cause__ = httpx.ReadTimeout("lost")
    return error


def test_a_cap_of_no_tokens_is_sent(world: World) -> None:
    world.ledger.server.ledger.set_budget("tenant:acme", cycles.usd(100), caps={"max_tokens": 0})
    world.install()
    world.call(max_tokens=5)
    assert world.sent["max_tokens"] == 0


def test_the_text_of_a_closed_stream_is_all_that_it_made(world: World) -> None:
    """Reasoning, the arguments of tools, and the text of a text completion."""
    called = SimpleNamespace(function=SimpleNamespace(arguments="x" * 300))
    reasons = SimpleNamespace(content=None, reasoning_content="x" * 300, tool_calls=[called])
    texts = {
        "completion": SimpleNamespace(choices=[SimpleNamespace(delta=reasons, finish_reason=None)], model="m"),
        "text_completion": SimpleNamespace(choices=[SimpleNamespace(text="x" * 600, finish_reason=None)], model="m"),
        "responses": SimpleNamespace(delta="x" * 600),
    }
    world.install()
    for name, event in texts.items():
        world.library.outcomes = [[event, event]]
        stream = getattr(world.library.module, name)(model="openai/m", messages=MESSAGES, stream=True)
        next(stream)
        stream.close()
    committed = [row.committed.amount for row in world.ledger.rows() if row.committed is not None]
    assert len(committed) == 3
    assert min(committed) >= 200 * 1_000


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ({"type": "function", "function": {"name": "bad"}}, "bad"),
        ({"type": "custom", "name": "bad"}, "bad"),
        ({"type": "bad"}, "bad"),
    ],
)
def test_caps_know_each_form_of_a_tool(world: World, tool: Any, name: str) -> None:
    world.ledger.server.ledger.set_budget("tenant:acme", cycles.usd(100), caps={"tool_denylist": [name]})
    world.install()
    good = {"type": "web_search"}
    world.call(tools=[tool, good])
    assert world.sent["tools"] == [good]


@pytest.mark.parametrize(
    ("model", "reported", "priced"),
    [
        ("openai/vendor/m", "openai/vendor/m", "vendor/m"),
        ("bedrock/vendor/m", "bedrock/vendor/m", "m"),
        ("openai/m", "n" * 200, "n" * 128),
    ],
)
def test_a_model_has_the_name_of_the_response_without_the_provider(
    world: World, model: str, reported: str, priced: str
) -> None:
    seen: list[Any] = []
    world.install(model_actual=noted(seen, cycles.usd("0.01")))
    world.library.outcomes = [whole(model=reported)]
    world.call(model=model)
    assert seen[-1].model_version == priced


def test_a_stream_is_priced_as_the_model_that_has_served_it(world: World) -> None:
    seen: list[Any] = []
    world.install(model_actual=noted(seen, cycles.usd("0.01")))
    served = chunk("one", _hidden_params={"provider_response_model": "openai/served"})
    world.library.outcomes = [[served, *CHUNKS]]
    world.call(stream=True)
    assert seen[-1].model_version == "served"


@WAYS
def test_a_complete_response_of_a_stream_is_no_stream(world: World, how: str) -> None:
    world.install()
    result = getattr(world.library.module, how)(
        model="openai/m", messages=MESSAGES, stream=True, complete_response=True
    )

    async def wait() -> Any:
        return await result

    found = result if how == "completion" else asyncio.run(wait())
    assert found.choices[0].message.content == "one two"
    assert (world.spent, "stream_options" in world.sent) == (EXACT, False)
