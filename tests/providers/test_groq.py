"""Guarded clients of Groq: sums whole and streamed, limits, the tiers that cost the same, and batches."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

import cycles
from tests.providers.conftest import EXACT, USED, AsyncGroq, Desk, Groq, Sdk
from tests.providers.test_guard_lost import LOST, with_retries

pytest.importorskip("groq")
BOTH = pytest.mark.parametrize("make", [Groq, AsyncGroq], ids=["sync", "async"])


@BOTH
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("tier", [None, "on_demand", "flex"])
def test_sums(desk: Desk, make: type[Sdk], streamed: bool, tier: str | None) -> None:
    pytest.importorskip("genai_prices")
    prices = cycles.PriceBook.genai(at=datetime(2026, 11, 1, tzinfo=UTC))
    sdk = make(desk, prices=prices)
    usage = {"tokens_input": 1_000, "tokens_cached_input": 200, "tokens_output": 100, "tokens_reasoning": 40}
    extra = {} if tier is None else {"service_tier": tier}
    desk.provider.reply(usage=usage, text="one two", extra=extra)
    options: Any = {"model": "openai/gpt-oss-120b", "max_completion_tokens": 500, **extra}
    if not streamed:
        sdk.complete(**options)
    elif sdk.is_async:
        desk.runner.run(read(sdk, options))
    else:
        list(sdk.complete(stream=True, **options))
    assert desk.commits == [(19_500, {})]
    assert desk.reserved[0] >= desk.commits[0][0]
    assert "stream_options" not in desk.provider.requests[0].body


async def read(sdk: Any, options: Any) -> None:
    async for _ in await sdk.acomplete(stream=True, **options):
        pass


@BOTH
def test_limits_and_endings(desk: Desk, make: type[Sdk]) -> None:
    sdk = make(desk, max_output_tokens=60)
    desk.provider.reply(usage={"tokens_input": 10, "tokens_output": 50}).reply(status=400)
    sdk.complete(max_tokens=500)
    assert desk.provider.requests[0].body["max_tokens"] == 60
    with pytest.raises(Exception) as raised:
        sdk.complete()
    assert desk.provider.requests[1].body["max_completion_tokens"] == 60
    assert desk.releases == [f"provider_call_failed:{type(raised.value).__name__}"]
    assert [amount for amount, _ in desk.commits] == [10 * 100 + 50 * 1_000]


@BOTH
def test_a_stream_that_is_closed_early_is_estimated(desk: Desk, make: type[Sdk]) -> None:
    sdk = make(desk)
    gate = threading.Event()
    desk.provider.reply(text="one two three four five six", usage=USED, gate=gate, gate_after=4)
    sdk.read(3)
    gate.set()
    ((amount, metadata),) = desk.commits
    assert metadata == {"actual_source": "estimate", "outcome": "closed"}
    assert 0 < amount < EXACT


@BOTH
def test_a_lost_attempt_costs_its_bound(desk: Desk, make: type[Sdk], monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = with_retries(make(desk), monkeypatch)
    desk.provider.reply(status=503).reply(drop_after=0).reply(usage=USED)
    sdk.complete()
    assert desk.commits == [(desk.reserved[0], {**LOST, "attempts": 2}), (EXACT, {})]


def test_batches_are_rejected_and_files_are_free(desk: Desk) -> None:
    llm = Groq(desk).llm
    with pytest.raises(cycles.InvalidRequestError, match=r"/batches may cost money .* unmetered='estimate'"):
        llm.post("/openai/v1/batches", body={"input_file_id": "f"}, cast_to=object)
    llm.post("/openai/v1/files", body={}, cast_to=object)
    assert desk.reserved == []
    assert [request.path for request in desk.provider.requests] == ["/groq/openai/v1/files"]


@BOTH
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_tools_that_groq_runs_cost_something(desk: Desk, make: type[Sdk], streamed: bool) -> None:
    pytest.importorskip("genai_prices")
    sdk = make(desk, prices=cycles.PriceBook.genai(at=datetime(2026, 11, 1, tzinfo=UTC)))
    tools = [{"index": i, "type": kind} for i, kind in enumerate(("browser_search", "browser_search", "python", "new"))]
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100}
    base = {"id": "c1", "object": "chat.completion", "created": 1, "model": "openai/gpt-oss-120b"}
    options: Any = {"model": base["model"], "max_completion_tokens": 500}
    options["tools"] = [{"type": "browser_search"}, {"type": "code_interpreter"}]
    if streamed:
        parts: list[dict[str, Any]] = [
            {"delta": {"executed_tools": tools[:2]}},
            {"delta": {"executed_tools": tools}},
            {"delta": {"content": "x"}, "finish_reason": "stop"},
        ]
        chunks = [{**base, "choices": [{"index": 0, **part}]} for part in parts]
        chunks[-1] |= {"x_groq": {"id": "r", "usage": usage}}
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        desk.provider.reply(body=body.encode(), headers={"content-type": "text/event-stream"})
        if sdk.is_async:
            desk.runner.run(read(sdk, options))
        else:
            list(sdk.complete(stream=True, **options))
    else:
        message = {"role": "assistant", "content": "x", "executed_tools": tools}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        desk.provider.reply(body={**base, "choices": [choice], "usage": usage})
        sdk.complete(**options)
    ((amount, metadata),) = desk.commits
    assert amount == 21_000 + 2 * 1_000_000 + 3_000_000 + 3_000_000
    rules = {"web_searches": "table", "code_executions": "bound", "other_calls": "bound"}
    assert metadata == {"price_rules": rules, "actual_source": "estimate"}
    assert desk.reserved[0] >= amount
