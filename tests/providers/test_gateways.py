"""Costs that gateways report, hosts that cost nothing, and names that are no plain names of models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import cycles
from cycles._core.values.counts import CALLS
from cycles.prices import Origin
from cycles.providers import guard
from tests.providers.conftest import (
    BOOK,
    EXACT,
    USED,
    Anthropic,
    Bedrock,
    Cohere,
    Desk,
    Gemini,
    Groq,
    Mistral,
    OpenAI,
    Sdk,
)
from tests.providers.test_guard_lost import with_retries

CHAT = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def chat(usage: dict[str, Any], model: str = "m") -> dict[str, Any]:
    message = {"role": "assistant", "content": "hi"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = CHAT | usage
    return {"id": "c1", "object": "chat.completion", "created": 0, "model": model, "choices": choices, "usage": usage}


BYOK = {"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}}


@pytest.mark.parametrize(
    ("usage", "microcents"),
    [
        ({"cost": 0.00014}, 14_000),
        (BYOK, 210_000),
        ({"cost": 0}, 0),
        ({"cost": 1e-9}, 1),
        ({"cost": {"input_tokens_cost": 1, "total_cost": 0.006}}, 600_000),
        ({"cost_in_usd_ticks": 37_756_000}, 377_560),
    ],
)
def test_a_reported_cost_is_the_price(desk: Desk, usage: dict[str, Any], microcents: int) -> None:
    desk.provider.reply(body=chat(usage))
    OpenAI(desk, reported_cost="always").complete(max_tokens=500)
    assert desk.commits == [(microcents, {"price_source": "reported"})]


def test_a_cost_that_the_response_reports_has_no_lost_attempt(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = with_retries(OpenAI(desk), monkeypatch, reported_cost="always", lost_attempt="prompt")
    desk.provider.reply(drop_after=0).reply(body=chat({"cost": 0.00014}))
    sdk.complete(max_tokens=500)
    [(amount, metadata)] = desk.commits
    assert amount > 14_000
    assert metadata == {"price_source": "reported", "actual_source": "estimate", "attempts": 2}


@pytest.mark.parametrize("cost", ["0.1", -1, True, None, float("nan"), float("inf"), [], {"total_cost": "x"}])
def test_a_cost_that_is_no_number_is_ignored(desk: Desk, cost: Any) -> None:
    desk.provider.reply(body=chat({"cost": cost}))
    OpenAI(desk, reported_cost="always").complete(max_tokens=500)
    assert desk.commits == [(EXACT, {})]


@pytest.mark.parametrize("setting", ["known", "never"])
def test_an_unknown_host_reports_no_cost(desk: Desk, setting: str) -> None:
    desk.provider.reply(body=chat({"cost": 0.00014}))
    OpenAI(desk, reported_cost=setting).complete(max_tokens=500)
    assert desk.commits == [(EXACT, {})]


@pytest.mark.parametrize(
    ("url", "takes"),
    [
        ("https://openrouter.ai/api/v1", True),
        ("https://eu.openrouter.ai/api/v1", True),
        ("https://API.X.AI/v1", True),
        ("https://api.perplexity.ai", True),
        ("https://notopenrouter.ai/v1", False),
        ("https://openrouter.ai.evil.example/v1", False),
        ("https://x.ai/v1", False),
        ("http://127.0.0.1:1/openrouter.ai", False),
    ],
)
def test_the_known_gateways(desk: Desk, url: str, takes: bool) -> None:
    meter = type(OpenAI(desk).llm)._cycles_meter
    assert meter.takes_cost(url) is takes


def test_a_stream_reports_its_cost(desk: Desk) -> None:
    last = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": []}
    import json

    first = {**last, "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    events = [first, {**last, "usage": CHAT | {"cost": 0.00014}}]
    raw = "".join(f"data: {json.dumps(each)}\n\n" for each in events) + "data: [DONE]\n\n"
    desk.provider.reply(body=raw.encode(), headers={"content-type": "text/event-stream"})
    for _ in OpenAI(desk, reported_cost="always").stream():
        pass
    assert desk.commits == [(14_000, {"price_source": "reported"})]


@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["127.0.0.1:{port}"], ["127.*"], ["x.example", "127.0.0.1:{port}"]])
def test_a_free_host_costs_nothing(desk: Desk, hosts: list[str]) -> None:
    port = desk.provider.url.rpartition(":")[2]
    sdk = OpenAI(desk, free_hosts=[host.format(port=port) for host in hosts])
    desk.provider.reply(usage=USED)
    sdk.complete(model="any-model")
    assert (desk.reserved, desk.commits) == ([0], [(0, {"price_source": "free_host"})])
    [commit] = desk.server.requests.of("commit")
    assert (commit.json["metrics"]["tokens_input"], commit.json["metrics"]["tokens_output"]) == (1000, 100)


@pytest.mark.parametrize("kind", [OpenAI, Anthropic, Gemini, Groq, Mistral, Cohere, Bedrock])
def test_a_free_host_costs_nothing_for_any_sdk(desk: Desk, kind: type[Sdk]) -> None:
    desk.provider.reply(usage=USED)
    kind(desk, free_hosts=["127.0.0.1"]).complete(model="any-model")
    assert (desk.reserved, desk.commits) == ([0], [(0, {"price_source": "free_host"})])


def test_no_host_is_free_by_default(desk: Desk) -> None:
    for options in ({}, {"free_hosts": ["127.0.0.1:1"]}, {"free_hosts": ["localhost"]}):
        with pytest.raises(cycles.UnknownModelError, match="free_hosts="):
            OpenAI(desk, **options).complete(model="any-model")
    assert desk.reserved == []


@pytest.mark.parametrize(
    "options",
    [
        {"reported_cost": "yes"},
        {"reported_cost": True},
        {"free_hosts": "localhost"},
        {"free_hosts": [7]},
        {"free_hosts": ["http://localhost"]},
        {"free_hosts": ["localhost:x"]},
        {"free_hosts": [""]},
        {"free_hosts": None},
    ],
)
def test_wrong_values_are_rejected(desk: Desk, options: dict[str, Any]) -> None:
    openai: Any = pytest.importorskip("openai")
    with pytest.raises(cycles.InvalidRequestError, match=next(iter(options))):
        guard(openai.OpenAI(api_key="k"), client=desk.client, prices=BOOK, **options)


# --- names

GENAI = pytest.importorskip("genai_prices")
PRICES = cycles.PriceBook.genai(at=datetime(2026, 11, 1, tzinfo=UTC))
ROUTER = Origin(provider="openai", url="https://openrouter.ai/api/v1")


def test_a_tag_is_part_of_a_name() -> None:
    assert "deepseek-r1" in PRICES
    for name in ("deepseek-r1:8b", "llama3.2:3b", "gpt-4o:latest"):
        assert name not in PRICES
    assert PRICES.price("ft:gpt-4o-2024-08-06:acme::abc") is not None


def spent(model: str, origin: Origin, **calls: int) -> int:
    usage = cycles.Usage()
    usage.see_response("r", {"tokens_input": 1000, "tokens_output": 100, **calls}, model=model)
    return PRICES.priced(usage, origin).amount.amount


def test_variants_of_openrouter() -> None:
    plain = spent("deepseek/deepseek-r1", ROUTER)
    assert plain > 0
    assert spent("deepseek/deepseek-r1:free", ROUTER, **dict.fromkeys(CALLS, 1)) == 0
    assert [spent(f"deepseek/deepseek-r1:{variant}", ROUTER) for variant in ("online", "nitro")] == [plain, plain]
    with pytest.raises(cycles.UnknownModelError):
        spent("openrouter/auto", ROUTER)
    with pytest.raises(cycles.UnknownModelError):
        spent("unknown/model:free", Origin(provider="openai"))


def test_latest_is_reserved_at_the_dearest_model_that_begins_so() -> None:
    dearest = max(
        PRICES.estimate(name, "x", max_output_tokens=1000).amount
        for name in ("claude-3-5-haiku", "claude-3-haiku", "claude-3-opus")
    )
    assert PRICES.estimate("claude-3-latest", "x", max_output_tokens=1000).amount >= dearest
    maker = Origin(provider="anthropic")
    assert spent("claude-3-latest", maker) == spent("claude-3-opus", maker)
    assert spent("gpt-4o-2024-08-06", Origin(model="chatgpt-4o-latest", provider="openai")) == 350_000


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("http://localhost:4000/v1", "openai"),
        ("http://localhost:11434/v1", None),
        ("https://llm.mine.example/v1", None),
        ("https://api.openai.com.evil.example/v1", None),
        ("https://notopenrouter.ai/v1", None),
    ],
)
def test_the_metadata_names_who_bills_the_call_by_its_host(desk: Desk, url: str, provider: str | None) -> None:
    """A client of OpenAI may talk to any provider with its wire format; `cycles reconcile` compares one bill."""
    sent: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.host)
        return httpx.Response(200, json=chat({}))

    from openai import OpenAI as Client

    transport = httpx.MockTransport(respond)
    http: Any  # the SDK's own type depends on its version
    with httpx.Client(transport=transport) as http:
        llm = guard(Client(base_url=url, api_key="k", http_client=http), client=desk.client, prices=BOOK)
        llm.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], max_tokens=5)
    assert sent == [httpx.URL(url).host]
    (reserved,) = desk.server.requests.of("reserve")
    assert reserved.json.get("metadata", {}).get("provider") == provider
