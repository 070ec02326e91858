"""What real SDKs are charged for responses whose price the data alone does not give, to the microcent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

import cycles
from cycles.providers._meter import Sessions
from tests.providers.conftest import Anthropic, Desk, Gemini, OpenAI, Responses, Sdk

pytest.importorskip("genai_prices")

BOOK = cycles.PriceBook.genai(at=datetime(2026, 11, 1, tzinfo=UTC))
USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
CHAT = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def response(model: str, *items: dict[str, Any], tools: Any = ()) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": model,
        "output": [{"id": f"i{n}", "status": "completed", **item} for n, item in enumerate(items)],
        "tools": list(tools),
        "usage": USAGE,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
    }


def code(container: str) -> dict[str, Any]:
    return {"type": "code_interpreter_call", "container_id": container, "code": "1", "outputs": None}


def chat(model: str, usage: Any, text: str = "hi") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": "c1", "object": "chat.completion", "created": 0, "model": model, "choices": choices, "usage": usage}


def charged(desk: Desk, make: type[Sdk], model: str, body: dict[str, Any], **more: Any) -> tuple[int, dict[str, Any]]:
    desk.provider.reply(body=body)
    make(desk, prices=BOOK).complete(model=model, **more)
    amount, metadata = desk.commits[-1]
    assert desk.reserved[-1] >= amount, "the estimate is no bound"
    return amount, metadata


SEARCH = {"type": "web_search_call", "action": {"type": "search", "query": "q"}}
INTERPRETER = {"type": "code_interpreter", "container": {"type": "auto"}}
IMAGE = {"type": "image_generation_call", "result": "AAAA"}


@pytest.mark.parametrize(
    ("model", "items", "tool", "microcents", "metadata"),
    [
        ("gpt-5", [code("c1"), code("c1")], INTERPRETER, 3_225_000, {"price_rules": {"code_sessions": "table"}}),
        ("gpt-5", [code("c1"), code("c2")], INTERPRETER, 6_225_000, {"price_rules": {"code_sessions": "table"}}),
        (
            "gpt-5",
            [{"type": "teleport_call"}],
            {"type": "teleport"},
            3_225_000,
            {"price_rules": {"other_calls": "bound"}, "actual_source": "estimate"},
        ),
        (
            "gpt-4.1",
            [SEARCH],
            {"type": "web_search_preview"},
            2_780_000,
            {"price_rules": {"web_searches_preview": "table"}},
        ),
        ("gpt-4.1", [SEARCH], {"type": "web_search"}, 1_280_000, {}),
        (
            "gpt-5",
            [IMAGE, IMAGE],
            {"type": "image_generation"},
            225_000 + 2 * (1000 * 500 + 6240 * 4000),  # the rates of gpt-image-1
            {"price_rules": {"tokens_output_bound": "bound"}, "actual_source": "estimate"},
        ),
    ],
    ids=["one container", "two containers", "an unknown call", "preview search", "search", "images"],
)
def test_hosted_tools(
    desk: Desk, model: str, items: list[dict[str, Any]], tool: dict[str, Any], microcents: int, metadata: Any
) -> None:
    body = response(model, *items, tools=[tool])
    assert charged(desk, Responses, model, body, tools=[tool], max_output_tokens=500) == (microcents, metadata)


@pytest.mark.parametrize(
    ("model", "microcents"), [("gpt-4o-search-preview", 2_850_000), ("gpt-5-search-api", 1_225_000)]
)
def test_search_models(desk: Desk, model: str, microcents: int) -> None:
    metadata = {"price_rules": {"web_searches": "table"}, "actual_source": "estimate"}
    assert charged(desk, OpenAI, model, chat(model, CHAT)) == (microcents, metadata)


def test_claude_on_vertex(desk: Desk) -> None:
    usage = {
        "input_tokens": 1000,
        "cache_read_input_tokens": 2000,
        "cache_creation_input_tokens": 700,
        "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 400},
        "output_tokens": 500,
        "server_tool_use": {"web_search_requests": 2},
    }
    anthropic: Any = pytest.importorskip("anthropic")
    pytest.importorskip("google.auth")
    llm = anthropic.AnthropicVertex(
        region="us-east5", project_id="p", access_token="t", base_url=desk.provider.anthropic_url, max_retries=0
    )
    desk.originals.append(llm)
    model = "claude-sonnet-4-5"
    message = {"id": "m1", "type": "message", "role": "assistant", "model": model, "content": [], "usage": usage}
    desk.provider.reply(body=message)
    messages = [{"role": "user", "content": "hi"}]
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    guarded = desk.guard(llm, prices=BOOK)
    guarded.messages.create(model=model, max_tokens=500, messages=messages, tools=tools)
    assert desk.commits == [(3_462_500, {"price_rules": {"web_searches": "maker"}})]


def gemini(model: str, candidate: Any = None, **usage: Any) -> dict[str, Any]:
    counts = {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100, **usage}
    content = {"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP", "index": 0}
    return {"modelVersion": model, "candidates": [content | (candidate or {})], "usageMetadata": counts}


def test_gemini_with_maps(desk: Desk) -> None:
    chunks = [{"maps": {"uri": "https://maps.google.com/?cid=1", "title": "a"}}] * 2
    body = gemini("gemini-2.5-flash", {"groundingMetadata": {"groundingChunks": chunks}})
    desk.provider.reply(body=body)
    Gemini(desk, prices=BOOK).complete(model="gemini-2.5-flash")  # the lowest version has no such tool
    assert desk.commits == [(2_555_000, {"price_rules": {"maps_searches": "table"}})]


@pytest.mark.filterwarnings("ignore:ON_DEMAND_:UserWarning")  # unknown to the lowest version
@pytest.mark.parametrize(("tier", "microcents"), [("PRIORITY", 99_000), ("FLEX", 27_500)])
def test_gemini_tiers(desk: Desk, tier: str, microcents: int) -> None:
    body = gemini("gemini-2.5-flash", trafficType=f"ON_DEMAND_{tier}")
    rules = {f"service_tier:{tier.lower()}": "table"}
    desk.provider.reply(body=body)
    Gemini(desk, prices=BOOK).complete(model="gemini-2.5-flash", config={"max_output_tokens": 500})
    amount, metadata = desk.commits[-1]
    assert (amount, metadata["price_rules"]) == (microcents, rules)


def test_an_image_of_gemini(desk: Desk) -> None:
    model = "gemini-2.5-flash-image"
    parts = [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]
    candidate = {"content": {"role": "model", "parts": parts}}
    body = gemini(model, candidate, promptTokenCount=10, candidatesTokenCount=1290, totalTokenCount=1300)
    assert charged(desk, Gemini, model, body) == (3_870_300, {})


@pytest.mark.parametrize(
    ("usage", "microcents", "metadata"),
    [
        ({"prompt_tokens": 60, "completion_tokens": None, "total_tokens": 560}, 515_000, {}),
        ({"prompt_tokens": 60, "completion_tokens": None}, 682_000, {"actual_source": "estimate"}),
        ({"prompt_tokens": 60, "completion_tokens": -5}, 682_000, {"actual_source": "estimate"}),
        ({"prompt_tokens": 60, "total_tokens": 10}, 682_000, {"actual_source": "estimate"}),
        ({"prompt_tokens": 60, "completion_tokens": 0}, 15_000, {}),
    ],
    ids=["total", "null", "negative", "a total below the prompt", "zero"],
)
def test_partial_usage(desk: Desk, usage: dict[str, Any], microcents: int, metadata: dict[str, Any]) -> None:
    assert charged(desk, OpenAI, "gpt-4o", chat("gpt-4o", usage, "x" * 2000)) == (microcents, metadata)


def test_a_total_without_its_parts_is_charged(desk: Desk) -> None:
    amount, metadata = charged(desk, OpenAI, "gpt-4o", chat("gpt-4o", {"total_tokens": 1_100}), max_tokens=2_000)
    assert 1_100 * 250 < amount <= 1_100 * 1_000
    assert (amount - 1_100 * 250) % 750 == 0  # the prompt is estimated, and the rest is output
    assert metadata == {"actual_source": "estimate"}


def test_of_several_totals_of_a_stream_the_highest_is_charged(desk: Desk) -> None:
    choice = {"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "gpt-4o", "choices": [choice]}
    events = [{**chunk, "usage": {"total_tokens": total}} for total in (600, 1_100)]
    raw = "".join(f"data: {json.dumps(each)}\n\n" for each in events).encode()
    desk.provider.reply(body=raw, headers={"content-type": "text/event-stream"})
    for _ in OpenAI(desk, prices=BOOK).stream(model="gpt-4o"):
        pass
    [(amount, _)] = desk.commits
    assert 1_000 * 1_000 < amount <= 1_100 * 1_000


def test_the_total_of_an_embedding_is_its_input(desk: Desk) -> None:
    body = {"object": "list", "model": "text-embedding-3-small", "data": [], "usage": {"total_tokens": 8_000}}
    desk.provider.reply(body=body)
    llm = OpenAI(desk, prices=BOOK).llm
    llm.embeddings.create(model="text-embedding-3-small", input="hi", encoding_format="float")
    assert desk.commits[-1] == (16_000, {"actual_source": "estimate"})


def test_only_the_missing_prompt_is_estimated(desk: Desk) -> None:
    amount, metadata = charged(desk, OpenAI, "gpt-4o", chat("gpt-4o", {"completion_tokens": 100}))
    assert (amount - 100_000) % 250 == 0
    assert amount > 100_000
    assert metadata == {"actual_source": "estimate"}


def test_a_stream_without_its_output_is_estimated(desk: Desk) -> None:
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {"id": "m", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 1000, "output_tokens": 1}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 300}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": None}},
        {"type": "message_stop"},
    ]
    raw = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events).encode()
    desk.provider.reply(body=raw, headers={"content-type": "text/event-stream"})
    for _ in Anthropic(desk, prices=BOOK).stream(model="claude-sonnet-4-5"):
        pass
    assert desk.commits == [(1000 * 300 + 100 * 1500, {"actual_source": "estimate"})]


def test_a_container_is_paid_once_in_twenty_minutes(desk: Desk) -> None:
    sdk = Responses(desk, prices=BOOK)
    for containers in (["c1"], ["c1", "c2"], ["c2"]):
        desk.provider.reply(body=response("gpt-5", *map(code, containers), tools=[INTERPRETER]))
        sdk.complete(model="gpt-5", tools=[INTERPRETER])
    assert [amount for amount, _ in desk.commits] == [3_225_000, 3_225_000, 225_000]


def test_a_container_is_paid_again_after_twenty_minutes() -> None:
    sessions = Sessions()
    assert [sessions.pays("c", now, object()) for now in (0.0, 1199.0, 1200.0, 1201.0)] == [True, False, True, False]


def test_a_count_without_any_price_is_listed(desk: Desk) -> None:
    desk.provider.reply(body=response("m", code("c1")))
    Responses(desk).complete(model="m")
    assert desk.commits == [(200_000, {"unpriced": ["code_sessions"]})]
