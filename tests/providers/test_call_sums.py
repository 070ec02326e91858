"""What one call is charged, in microcents, and what its commit says: each way in which a response reports its usage."""

from __future__ import annotations

import json
from typing import Any

import pytest

import cycles
from cycles._flows.io import run
from cycles.providers import paid_by
from cycles.providers._attempts import Attempts
from cycles.providers._call import Call, End, Ending
from cycles.providers._settle import THREAD, end_call, open_call
from tests.providers.conftest import BOOK, EXACT
from tests.providers.ledgers import CHAT, ESTIMATED, Ledger, chat, pump
from tests.support.inside import runtime_of
from tests.support.waiting import until

CALLS = {"web_searches": "0.01", "code_sessions": "0.03", "characters_input": "0.000015", "audio_ms": "0.0000001"}
GUARDRAIL = {"guardrail_units": "0.00015", "guardrail_information_units": "0.0001"}
PRICED = cycles.PriceBook({"m": cycles.Price("1", "10", per_call={**CALLS, **GUARDRAIL})})
SEARCH, SESSION, CHARACTER = 1_000_000, 3_000_000, 1_500
GATEWAY = "https://openrouter.ai/api/v1"


def prompt(call: Call) -> int:
    """The price of the input of a call whose response does not report it."""
    return BOOK.count_input("m", call.request.body) * 100


def ended(ledger: Ledger, call: Call, content: bytes, outcome: Any = None) -> tuple[int, dict[str, Any]]:
    """End a call with a whole response, and return its commit."""
    call.whole(content)
    end_call(call, outcome)
    return ledger.commits[-1]


def like(call: Call, path: str | None = None, **members: Any) -> Call:
    """Send one more request of the client that has sent this one."""
    body = {**call.request.body, **members}
    made = Call(call.meter, call.endpoint, path or call.request.path, body, stream=call.request.stream, url="")
    made.reserved = made.estimate()
    made.limits(open_call(made))
    made.attempts = 1
    return made


def event(**members: Any) -> bytes:
    return b"data: " + json.dumps(members).encode() + b"\n\n"


class Payer:
    """A call of a framework that pays for the requests inside it."""

    def __init__(self, estimate: cycles.Amount, price: Any) -> None:
        self.estimate = estimate
        self.price = price

    def bind(self, request: Any) -> None:
        pass

    def ended(self, request: Any) -> None:
        pass


# --- what a response does not report


@pytest.mark.parametrize(
    ("usage", "text", "tokens", "metadata"),
    [
        ({"prompt_tokens": 1000, "completion_tokens": 0}, "abcdefg", (1000, 0), {}),
        ({"prompt_tokens": 1000}, "abcdefg", (1000, 3), ESTIMATED),
        ({"prompt_tokens": 1000}, "", (1000, 1), ESTIMATED),
        ({"prompt_tokens": 0}, "abcdefg", (0, 3), ESTIMATED),
        ({"prompt_tokens": 1000}, "é" * 3, (1000, 2), ESTIMATED),
        ({"completion_tokens": 7}, "a" * 90, (None, 7), ESTIMATED),
        ({"prompt_tokens": 0, "completion_tokens": 7}, "a", (0, 7), {}),
        ({"total_tokens": 1000}, "a", (None, None), ESTIMATED),
        ({"total_tokens": 1}, "a" * 9, (None, 3), ESTIMATED),
        ({}, "a" * 9, (None, 3), ESTIMATED),
        ({}, "a" * 9_000, (None, 500), ESTIMATED),  # the output limit
    ],
)
def test_what_a_response_does_not_report_is_counted(
    ledger: Ledger, usage: Any, text: str, tokens: tuple[int | None, int | None], metadata: Any
) -> None:
    call = ledger.sent()
    read = BOOK.count_input("m", call.request.body) if tokens[0] is None else tokens[0]
    made = 1000 - read if tokens[1] is None else tokens[1]
    content = chat(usage, choices=[{"message": {"role": "assistant", "content": text}}])
    assert ended(ledger, call, content) == (read * 100 + made * 1000, metadata)


@pytest.mark.parametrize(
    ("usage", "tokens", "metadata"),
    [
        ({"prompt_tokens": 50, "total_tokens": 50}, 50, {}),
        ({"total_tokens": 50}, 50, ESTIMATED),
        ({}, None, ESTIMATED),
    ],
)
def test_an_embedding_costs_its_input_only(ledger: Ledger, usage: Any, tokens: int | None, metadata: Any) -> None:
    call = ledger.sent(path="/embeddings", body={"model": "m", "input": "some words to embed"})
    read = BOOK.count_input("m", call.request.body) if tokens is None else tokens
    content = json.dumps({"model": "m", "usage": usage, "data": [{"embedding": [0.1] * 50}]}).encode()
    assert ended(ledger, call, content) == (read * 100, metadata)


def test_tokens_of_the_user_are_counted_with_the_tokenizer_of_the_user(ledger: Ledger) -> None:
    seen: list[tuple[str, Any]] = []

    def count(model: str, content: Any) -> int:
        seen.append((model, content))
        return 5 if content == "made here" else 40

    pytest.importorskip("genai_prices")
    book = cycles.PriceBook.genai({"m": cycles.Price("1", "10")}, count_tokens=count)
    call = ledger.sent(prices=book)
    content = chat({}, choices=[{"message": {"content": "made here"}}])
    amount, metadata = ended(ledger, call, content)
    assert (amount, metadata) == (book.count_input("m", call.request.body) * 100 + 5_000, ESTIMATED)
    assert {model for model, _ in seen} == {"m"}
    assert ("m", "made here") in seen


@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_a_response_that_was_not_read_costs_its_bound(ledger: Ledger, kind: str) -> None:
    body = {**CHAT, "stream": kind == "stream"}
    for lost, is_bound in (("bound", kind == "whole"), ("prompt", False)):
        call = ledger.sent(body=body, lost_attempt=lost)
        call.responded = True
        end_call(call, "closed")
        amount = call.reserved.amount if is_bound else prompt(call) + 1_000
        assert ledger.commits[-1] == (amount, {"outcome": "closed", **ESTIMATED})


def test_a_request_that_was_not_sent_costs_nothing(ledger: Ledger) -> None:
    end_call(ledger.sent())
    end_call(ledger.sent(), None, ConnectionRefusedError())
    failed = ledger.call()
    open_call(failed)
    end_call(failed, None, ValueError())
    assert (ledger.commits[1:], ledger.releases[-1]) == ([], "provider_call_failed:ValueError")


# --- streams


@pytest.mark.parametrize("ends", [True, False])
def test_running_totals_of_a_stream_are_exact_only_at_its_end(ledger: Ledger, ends: bool) -> None:
    call = ledger.sent(
        "google", "models/m:generateContent", {"contents": [{"parts": [{"text": "hi"}]}], "stream": True}
    )
    counts = {"promptTokenCount": 1000, "candidatesTokenCount": 100}
    text = {"content": {"parts": [{"text": "a" * 900}]}}
    read = pump(call, [event(candidates=[text], usageMetadata=counts, modelVersion="m")], ends=ends)
    end_call(call, read.outcome if ends else call.stream_outcome)
    left = (1000 * 100 + 300 * 1000, {"outcome": "closed", **ESTIMATED})
    assert ledger.commits == [(EXACT, {}) if ends else left]


@pytest.mark.parametrize("read", [1, 1000])
def test_usage_so_far_is_not_that_of_a_stream_that_is_left(ledger: Ledger, read: int) -> None:
    call = ledger.sent(body={**CHAT, "stream": True})
    delta = [{"delta": {"content": "a" * 600}}]
    pump(call, [event(model="m", choices=delta, usage={"prompt_tokens": read, "completion_tokens": 100})], ends=False)
    assert call.stream_outcome == "closed"
    end_call(call, call.stream_outcome)
    assert ledger.commits == [(read * 100 + 200 * 1000, {"outcome": "closed", **ESTIMATED})]


def test_chunks_are_read_as_they_are_decoded(ledger: Ledger) -> None:
    call = ledger.sent("google", "models/m:generateContent", {"contents": [], "stream": True})
    assert (call.stream_outcome, call.chunks_outcome) == ("closed", None)
    for text in ("ab", "cd"):
        call.chunk({"candidates": [{"content": {"parts": [{"text": text}]}}]})
    assert call.stream_outcome == "closed"
    end_call(call, call.stream_outcome)
    assert ledger.commits == [(prompt(call) + 2 * 1000, {"outcome": "closed", **ESTIMATED})]


def test_an_error_among_chunks_is_the_outcome(ledger: Ledger) -> None:
    call = ledger.sent(body={**CHAT, "stream": True})
    for value in ({"error": {"message": "overloaded"}}, {"choices": [{"delta": {"content": "abcdef"}}]}):
        call.chunk(value)
    assert (call.chunks_outcome, call.stream_outcome) == ("error", "error")
    end_call(call, call.chunks_outcome)
    assert ledger.commits == [(prompt(call) + 2 * 1000, {"outcome": "error", **ESTIMATED})]


def test_a_chunk_whose_reading_was_interrupted_is_read_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ledger.sent("google", "models/m:generateContent", {"contents": [], "stream": True})
    read = call.meter.api.read
    interrupts: list[BaseException] = [KeyboardInterrupt()]

    def interrupted(value: Any, usage: Any) -> object:
        if interrupts:
            raise interrupts.pop()
        return read(value, usage)

    monkeypatch.setattr(call.meter.api, "read", interrupted)
    counts = {"promptTokenCount": 1000, "candidatesTokenCount": 100}
    last = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": counts, "modelVersion": "m"}
    with pytest.raises(KeyboardInterrupt):
        call.chunk(last)
    end_call(call, None)
    assert ledger.commits == [(EXACT, {})]


def test_a_stream_of_chunks_that_is_left_after_its_last_one_is_exact(ledger: Ledger) -> None:
    call = ledger.sent("google", "models/m:generateContent", {"contents": [], "stream": True})
    counts = {"promptTokenCount": 1000, "candidatesTokenCount": 100}
    last = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": counts, "modelVersion": "m"}
    values: list[Any] = [last, ["no mapping"], {"candidates": []}]
    for value in values:
        call.chunk(value)
    assert call.stream_outcome is None
    end_call(call, call.stream_outcome)
    assert ledger.commits == [(EXACT, {})]


def test_a_whole_response_whose_reading_was_interrupted_is_read_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ledger.sent()
    interrupts: list[BaseException] = [KeyboardInterrupt()]

    def interrupted(content: bytes) -> Any:
        if interrupts:
            raise interrupts.pop()
        return json.loads(content)

    monkeypatch.setattr("cycles.providers._call.parsed_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call.whole(chat())
    end_call(call)
    assert ledger.commits == [(EXACT, {})]


def test_a_list_of_chunks_whose_reading_was_interrupted_is_counted_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ledger.sent("google", "models/m:generateContent", {"contents": [], "stream": True})
    read, reads = call.meter.api.read, list[Any]()

    def interrupted(value: Any, usage: Any) -> object:
        reads.append(value)
        if len(reads) == 2:
            raise KeyboardInterrupt
        return read(value, usage)

    monkeypatch.setattr(call.meter.api, "read", interrupted)
    chunks = [{"candidates": [{"content": {"parts": [{"text": text * 90}]}}]} for text in ("a", "b")]
    with pytest.raises(KeyboardInterrupt):
        call.whole(json.dumps(chunks).encode())
    end_call(call, "closed")
    assert ledger.commits == [(prompt(call) + 60 * 1000, {"outcome": "closed", **ESTIMATED})]


@pytest.mark.parametrize(
    ("responded", "microcents", "named"),
    [("m2", 1000 * 200 + 3 * 2000, "m2"), (None, 1000 * 100 + 3 * 1000, "m"), ("m", 1000 * 100 + 3 * 1000, "m")],
)
def test_what_is_counted_has_the_price_of_the_model_that_responded(
    ledger: Ledger, responded: str | None, microcents: int, named: str
) -> None:
    call = ledger.sent(prices=cycles.PriceBook({"m": ("1", "10"), "m2": ("2", "20")}))
    content = chat({"prompt_tokens": 1000}, model=responded, choices=[{"message": {"content": "abcdefg"}}])
    assert ended(ledger, call, content)[0] == microcents
    [commit] = ledger.server.requests.of("commit")
    assert commit.json["metrics"]["model_version"] == named


@pytest.mark.parametrize("content", [b"no json", b"null", b"", b"5"])
def test_a_response_that_cannot_be_read_costs_its_bound(ledger: Ledger, content: bytes) -> None:
    call = ledger.sent()
    amount = prompt(call) + 1_000 if content == b"5" else call.reserved.amount
    assert ended(ledger, call, content) == (amount, ESTIMATED)


def test_the_events_of_a_stream_are_dropped_when_it_has_ended(ledger: Ledger) -> None:
    call = ledger.sent(body={**CHAT, "stream": True})
    seen = call.stream()
    seen.feed(event(choices=[{"delta": {"content": "abc"}}]))
    assert len(list(seen.kept)) == 1
    end_call(call, "closed")
    assert list(seen.kept) == []
    assert ledger.commits == [(prompt(call) + 1_000, {"outcome": "closed", **ESTIMATED})]


@pytest.mark.parametrize("streams", [True, False])
def test_a_list_of_chunks_is_a_stream_only_if_one_was_requested(ledger: Ledger, streams: bool) -> None:
    call = ledger.sent("google", "models/m:generateContent", {"contents": [], "stream": streams})
    counts = {"promptTokenCount": 1000, "candidatesTokenCount": 100}
    content = json.dumps([{"candidates": []}, {"usageMetadata": counts, "modelVersion": "m"}]).encode()
    amount = EXACT if streams else prompt(call) + 1000
    assert ended(ledger, call, content) == (amount, {} if streams else ESTIMATED)


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([event(choices=[{"delta": {"content": "a"}}])], "closed"),
        ([event(choices=[{"delta": {"content": "a"}}]), b"data: [DONE]\n\n"], None),
        ([event(choices=[{"delta": {"content": "a"}}]), b"data: [DONE]"], None),
        ([event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 1})], None),
        ([event(error={"message": "x"}), b"data: [DONE]\n\n"], "error"),
    ],
)
def test_how_a_stream_that_is_closed_has_ended(ledger: Ledger, events: list[bytes], outcome: str | None) -> None:
    call = ledger.sent(body={**CHAT, "stream": True})
    pump(call, events, ends=False)
    assert call.stream_outcome == outcome


def test_a_response_that_was_streamed_unasked_is_charged(ledger: Ledger) -> None:
    call = ledger.sent()
    used = event(model="m", choices=[], usage={"prompt_tokens": 1000, "completion_tokens": 100})
    assert ended(ledger, call, b"\n" + event(choices=[{"delta": {"content": "a"}}]) + used) == (EXACT, {})


# --- what costs more than tokens


@pytest.mark.parametrize(
    ("path", "body", "members", "searches", "metadata"),
    [
        ("/chat/completions", {}, {}, 0, {}),
        ("/chat/completions", {"web_search_options": {}}, {}, 1, ESTIMATED),
        ("/chat/completions", {"web_search_options": {}}, {"model": None}, 1, ESTIMATED),
        (
            "/chat/completions",
            {"web_search_options": {}},
            {"tool_usage": {"web_search": {"num_requests": 2}}},
            2,
            {},
        ),
        ("/responses", {"web_search_options": {}}, {}, 0, {}),
    ],
)
def test_a_chat_that_searches_costs_one_search_if_it_reports_none(
    ledger: Ledger, path: str, body: Any, members: Any, searches: int, metadata: Any
) -> None:
    call = ledger.sent(path=path, body={**CHAT, **body}, prices=PRICED)
    assert ended(ledger, call, chat(**members)) == (EXACT + searches * SEARCH, metadata)
    [commit] = ledger.server.requests.of("commit")
    assert commit.json["metrics"]["model_version"] == "m"


def test_a_search_costs_nothing_in_a_budget_of_tokens_or_without_a_response(ledger: Ledger) -> None:
    searching = {**CHAT, "web_search_options": {}}
    assert ended(ledger, ledger.sent(body=searching, unit="TOKENS"), chat()) == (1100, {})
    call = ledger.sent(body=searching, prices=PRICED, lost_attempt="prompt")
    end_call(call, None, TimeoutError())
    assert ledger.commits[-1] == (prompt(call), {"outcome": "error", "attempts": 1, **ESTIMATED})


def test_a_container_is_paid_by_the_first_call_that_uses_it(ledger: Ledger) -> None:
    def used(*containers: str, memory: str = "1g") -> bytes:
        output = [{"type": "code_interpreter_call", "container_id": name} for name in containers]
        tools = [{"type": "code_interpreter", "container": {"memory_limit": memory}}]
        return json.dumps(
            {"id": "r", "model": "m", "usage": {"input_tokens": 1000, "output_tokens": 100}, "output": output}
            | {"tools": tools, "service_tier": "default"}
        ).encode()

    first = ledger.sent(path="/responses", body={"model": "m", "input": "hi", "max_output_tokens": 500}, prices=PRICED)
    assert ended(ledger, first, used("a", "b")) == (EXACT + 2 * SESSION, {})
    assert ended(ledger, like(first), used("a", "c")) == (EXACT + SESSION, {})
    assert ended(ledger, like(first), used("b", "c")) == (EXACT, {})
    assert ended(ledger, like(first), used("d", memory="4g")) == (EXACT + 4 * SESSION, {})


def test_containers_of_two_responses_of_one_call_are_paid_once(ledger: Ledger) -> None:
    def used(name: str, *containers: str) -> dict[str, Any]:
        output = [{"type": "code_interpreter_call", "container_id": each} for each in containers]
        usage = {"input_tokens": 1000, "output_tokens": 100}
        return {"type": "response.completed", "response": {"id": name, "model": "m", "usage": usage, "output": output}}

    body = {"model": "m", "input": "hi", "max_output_tokens": 500, "stream": True}
    first = ledger.sent(path="/responses", body=body, prices=PRICED)
    first.chunk(used("r", "a"))
    end_call(first)
    assert ledger.commits[-1] == (EXACT + SESSION, {})
    again = like(first)
    again.chunk(used("r1", "a", "b", "c"))
    again.chunk(used("r2", "d"))
    again.chunk(used("r3"))
    end_call(again)
    assert ledger.commits[-1] == (3 * EXACT + 3 * SESSION, {})


@pytest.mark.parametrize(
    ("body", "more", "units"),
    [
        ({}, {}, (0, 0)),
        ({"guardrailConfig": {"guardrailIdentifier": "g"}}, {}, (30, 10)),
        ({"guardrailConfig": {"guardrailIdentifier": "g"}}, {"trace": True}, (2, 0)),
        ({"guardrailConfig": {"guardrailIdentifier": "g"}}, {"text": "a" * 1_001}, (36, 12)),
    ],
)
def test_a_guardrail_costs_its_bound_unless_it_is_reported(
    ledger: Ledger, body: Any, more: Any, units: tuple[int, int]
) -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": [{"text": "hi"}]}], **body}
    request["inferenceConfig"] = {"maxTokens": 500}
    call = ledger.sent("bedrock", "/model/m/converse", request, prices=PRICED)
    message = {"role": "assistant", "content": [{"text": more.get("text", "made")}]}
    response: dict[str, Any] = {"output": {"message": message}, "usage": {"inputTokens": 1000, "outputTokens": 100}}
    if "trace" in more:
        used = {"g": {"invocationMetrics": {"usage": {"contentPolicyUnits": 2}}}}
        response["trace"] = {"guardrail": {"inputAssessment": used}}
    amount, metadata = ended(ledger, call, json.dumps(response).encode())
    assert amount - EXACT == (units[0] - units[1]) * 15_000 + units[1] * 10_000
    assert metadata == (ESTIMATED if body and "trace" not in more else {})


@pytest.mark.parametrize(
    ("spoken", "book", "microcents", "metadata"),
    [
        ("Hello", PRICED, 5 * CHARACTER, {}),
        ("", PRICED, 0, {}),
        (["Hello"], PRICED, None, ESTIMATED),
        ("Hello", BOOK, None, ESTIMATED),
        ("Hello", cycles.PriceBook({"x": ("1", "1")}, default_model="x"), None, ESTIMATED),
    ],
)
def test_speech_costs_its_characters_if_they_have_a_price(
    ledger: Ledger,
    spoken: Any,
    book: cycles.PriceBook,
    microcents: int | None,
    metadata: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = {"model": None if book.default_model else "m", "input": spoken, "voice": "alloy"}
    call = ledger.sent(path="/audio/speech", body=body, prices=book, estimate=cycles.usd("0.5"))
    expected = call.reserved.amount if microcents is None else microcents
    assert ended(ledger, call, b"\x00\x01") == (expected, metadata)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.parametrize(
    ("options", "amount", "metadata"),
    [
        ({"prices": PRICED, "estimate": cycles.usd(1)}, 60_000 * 10, {}),
        ({"estimate": cycles.usd(1), "actual": lambda usage: cycles.Amount("USD_MICROCENTS", 77)}, 77, {}),
        ({"unit": "TOKENS"}, None, ESTIMATED),
    ],
)
def test_a_transcription_that_reports_seconds(ledger: Ledger, options: Any, amount: int | None, metadata: Any) -> None:
    call = ledger.sent(path="/audio/transcriptions", body={"model": "m"}, **options)
    expected = call.reserved.amount if amount is None else amount
    content = json.dumps({"text": "hi", "usage": {"type": "duration", "seconds": 60}}).encode()
    assert ended(ledger, call, content) == (expected, metadata)


# --- budgets in tokens


@pytest.mark.parametrize(
    ("usage", "tokens", "metadata"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 0}, 1, {}),
        ({"prompt_tokens": 0, "completion_tokens": 1}, 1, {}),
        ({"prompt_tokens": 1000, "completion_tokens": 100}, 1100, {}),
    ],
)
def test_a_budget_in_tokens_is_charged_what_is_reported(ledger: Ledger, usage: Any, tokens: int, metadata: Any) -> None:
    assert ended(ledger, ledger.sent(unit="TOKENS", prices=None), chat(usage)) == (tokens, metadata)


def test_a_stream_that_is_left_is_counted_in_tokens_without_prices(ledger: Ledger) -> None:
    call = ledger.sent(body={**CHAT, "stream": True}, unit="TOKENS", prices=None)
    pump(call, [event(choices=[{"delta": {"content": "a" * 30}}])], ends=False)
    end_call(call, "closed")
    assert ledger.commits == [(prompt(call) // 100 + 10, {"outcome": "closed", **ESTIMATED})]


# --- hosts that are free, and gateways that report the cost


@pytest.mark.parametrize(
    ("options", "commit"),
    [
        ({}, (0, {"price_source": "free_host"})),
        ({"estimate": cycles.usd(1)}, (0, {"price_source": "free_host"})),
        ({"reported_cost": "always"}, (0, {"price_source": "free_host"})),
        ({"unit": "TOKENS"}, (1100, {})),
        ({"estimate": cycles.usd(1), "actual": BOOK}, (EXACT, {})),
    ],
)
def test_a_host_that_is_free(ledger: Ledger, options: Any, commit: Any) -> None:
    call = ledger.sent(url="http://localhost:11434/v1", free_hosts=["localhost"], **options)
    assert (call.reserved.amount == 0) is (commit[0] == 0)
    used = {"prompt_tokens": 1000, "completion_tokens": 100, "cost": 0.5}
    assert ended(ledger, call, chat(used)) == commit


@pytest.mark.parametrize(
    ("options", "commit"),
    [
        ({}, (50_000_000, {"price_source": "reported"})),
        ({"reported_cost": "never"}, (EXACT, {})),
        ({"unit": "TOKENS"}, (1100, {})),
        ({"actual": BOOK}, (EXACT, {})),
    ],
)
def test_a_cost_that_a_gateway_reports(ledger: Ledger, options: Any, commit: Any) -> None:
    used = {"prompt_tokens": 1000, "completion_tokens": 100, "cost": 0.5}
    assert ended(ledger, ledger.sent(url=GATEWAY, **options), chat(used)) == commit


def test_each_lost_attempt_is_charged_beside_a_reported_cost(ledger: Ledger) -> None:
    call = ledger.sent(url=GATEWAY, lost_attempt="prompt")
    for _ in range(2):
        call.retried(None, TimeoutError())
        call.attempts += 1
    commit = ended(ledger, call, chat({"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.00123}))
    assert commit == (123_000 + 2 * prompt(call), {"price_source": "reported", "attempts": 3, **ESTIMATED})


@pytest.mark.parametrize(
    ("name", "path", "body", "content"),
    [
        ("cohere", "/v2/chat", CHAT, {"usage": {"billed_units": {"input_tokens": 1000, "output_tokens": 100}}}),
        ("openai", "/chat/completions", CHAT, {"usage": {"prompt_tokens": 1000, "completion_tokens": 100}}),
        ("bedrock", "/model/m/converse", {"model": "m"}, {"usage": {"inputTokens": 1000, "outputTokens": 100}}),
    ],
)
@pytest.mark.parametrize("lost", [1, 2])
def test_each_lost_attempt_is_charged_beside_the_response(
    ledger: Ledger, name: str, path: str, body: Any, content: Any, lost: int
) -> None:
    call = ledger.sent(name, path, body, lost_attempt="prompt")
    for _ in range(lost):
        call.retried(None, TimeoutError())
        call.attempts += 1
    commit = ended(ledger, call, json.dumps({"model": "m", **content}).encode())
    assert commit == (EXACT + lost * prompt(call), {"attempts": lost + 1, **ESTIMATED})


# --- calls of frameworks that pay


@pytest.mark.parametrize(
    ("estimate", "price", "ending"),
    [
        (cycles.usd(1), BOOK, (EXACT, {})),
        (cycles.usd(1), None, (cycles.usd(1).amount, ESTIMATED)),
        (cycles.usd(1), lambda usage: cycles.Amount("USD_MICROCENTS", usage.tokens_input), (1000, {})),
        (cycles.tokens(5_000), None, (1100, {})),
    ],
)
def test_a_payer_pays_at_its_price(ledger: Ledger, estimate: cycles.Amount, price: Any, ending: Any) -> None:
    """It is charged although the host is free for the client, and although the client has prices of its own."""
    with paid_by(Payer(estimate, price)):
        call = ledger.call(free_hosts=["localhost"], url="http://localhost/v1", lost_attempt="bound")
    assert (call.reserved, call.charges_lost, call.is_free) == (estimate, False, False)
    call.attempts = 1
    call.whole(chat())
    found: Ending = call.paid(None)
    assert (found.amount, found.metadata) == (cycles.Amount(estimate.unit, ending[0]), ending[1])
    assert (call.usage.tokens_input, ledger.reserved) == (1000, [])


def test_a_forked_process_does_not_end_the_calls_of_its_parent(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ledger.sent()
    with monkeypatch.context() as in_child:
        in_child.setattr("os.getpid", lambda: -1)
        assert (call.is_mine, call.claim_end(End(None, None)), call.end) == (False, False, None)
    assert ended(ledger, call, chat()) == (EXACT, {})


def test_an_interrupt_before_the_guard_around_a_call_has_paid_loses_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = runtime_of(ledger.client).ahead
    note_end, interrupts = ahead.ended, [KeyboardInterrupt()]

    def interrupted(*given: Any) -> None:
        if interrupts:
            raise interrupts.pop()
        note_end(*given)

    with ledger.client.reserve(cycles.usd(1), action=("test", "work")) as guard:
        guard.spend(cycles.usd("0.1"))
        call = ledger.sent(within="enclosing")
        monkeypatch.setattr(type(ahead), "ended", lambda _, *given: interrupted(*given))
        call.whole(chat())
        with pytest.raises(KeyboardInterrupt):
            end_call(call)
        ledger.client.flush(60)
        until(lambda: guard.spent is not None and guard.spent.amount == cycles.usd("0.1").amount + EXACT)
    assert ledger.commits[0][0] == cycles.usd("0.1").amount + EXACT


def test_a_payer_gets_the_end_that_a_request_has_had(ledger: Ledger) -> None:
    with paid_by(Payer(cycles.usd(1), BOOK)):
        call = ledger.call()
    call.attempts = 1
    call.whole(chat())
    assert (call.claim_end(End("error", None)), call.claim_end(End(None, None))) == (True, False)
    assert call.paid("closed").metadata == {"outcome": "error"}
    assert call.paid(None).metadata == {"outcome": "error"}


def test_a_payer_gets_the_usage_that_was_billed(ledger: Ledger) -> None:
    usage = cycles.Usage()
    with paid_by(Payer(cycles.usd(1), BOOK)):
        calls = [ledger.call() for _ in range(2)]
    for call in calls:
        call.attempts = 1
        call.whole(chat())
        call.paid(None)
        call.add_usage(usage)
        call.add_usage(usage)
    assert [(one.counts, one.model) for one in usage.responses()] == [
        ({"tokens_input": 1000, "tokens_output": 100}, "m")
    ] * 2


# --- attempts


def test_an_attempt_that_failed_before_it_was_sent_is_not_charged(ledger: Ledger) -> None:
    class ConnectError(Exception):
        pass

    call = ledger.sent(lost_attempt="prompt")
    assert call.retried(None, ConnectError()) is False
    call.attempts += 1
    assert ended(ledger, call, chat()) == (EXACT, {})


def test_an_attempt_that_repeats_a_request_unchanged_writes_at_most_the_limit_that_was_sent(ledger: Ledger) -> None:
    attempts = Attempts(ledger.sent())
    run(attempts.failed(THREAD, None, TimeoutError()))
    run(attempts.reserve_next(THREAD, is_fixed=True))
    attempts.begin()
    content = chat({}, choices=[{"message": {"content": "a" * 9_000}}])
    assert ended(ledger, attempts.call, content) == (prompt(attempts.call) + 500 * 1000, ESTIMATED)


def test_a_pause_between_attempts_that_is_cancelled_loses_none(ledger: Ledger) -> None:
    call = ledger.sent(lost_attempt="prompt")
    call.retried(object(), None)
    end_call(call, None, KeyboardInterrupt())
    assert (ledger.commits, ledger.releases) == ([], ["provider_call_failed:KeyboardInterrupt"])


def test_an_error_after_a_response_is_the_outcome_of_the_commit(ledger: Ledger) -> None:
    call = ledger.sent()
    call.whole(chat())
    end_call(call, None, ValueError("no such tool"))
    other = ledger.sent()
    other.whole(chat())
    end_call(other, "closed", ValueError())
    assert ledger.commits == [(EXACT, {"outcome": "error"}), (EXACT, {"outcome": "closed"})]


# --- what the commit says of the model


@pytest.mark.parametrize(
    ("requested", "responded", "named"),
    [("m", "m", None), ("m", "m2", "m2"), ("m", None, None), (None, "m2", None), ("m", "x" * 200, "x" * 128)],
)
def test_the_model_that_responded_is_named_if_it_is_another_one(
    ledger: Ledger, requested: str | None, responded: str | None, named: str | None
) -> None:
    price = cycles.Price("1", "10")
    book = cycles.PriceBook(dict.fromkeys(("m", "m2", "x" * 128, "x" * 200), price), default_model="m")
    call = ledger.sent(body={**CHAT, "model": requested}, prices=book)
    amount, metadata = ended(ledger, call, chat(model=responded))
    assert (amount, metadata.get("response_model")) == (EXACT, named)


@pytest.mark.parametrize(("tier", "named"), [("standard", None), ("batch", "batch"), ("priority", "priority")])
def test_the_tier_of_a_message_is_named(ledger: Ledger, tier: str, named: str | None) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100, "service_tier": tier}
    content = json.dumps({"id": "r", "type": "message", "model": "m", "usage": usage, "content": []}).encode()
    _, metadata = ended(ledger, ledger.sent("anthropic", "/v1/messages"), content)
    assert metadata.get("service_tier") == named


# --- conversations


@pytest.mark.parametrize(
    ("usage", "learns"),
    [
        ({"prompt_tokens": 1000, "completion_tokens": 100}, True),
        ({"prompt_tokens": 1000}, False),
        ({"prompt_tokens": 0, "completion_tokens": 100}, False),
    ],
)
def test_only_an_exact_count_of_the_input_bounds_the_next_call(ledger: Ledger, usage: Any, learns: bool) -> None:
    first = ledger.sent(body={**CHAT, "messages": [{"role": "user", "content": "x" * 5_000}]})
    ended(ledger, first, chat(usage, choices=[{"message": {"content": "abc"}}]))
    again = like(first)
    assert (again.reserved.amount == 1000 * 100 + 500 * 1000) is learns
    assert (again.reserved == first.reserved) is not learns


def test_an_image_after_a_known_conversation_is_bounded_for_its_model(ledger: Ledger) -> None:
    book = cycles.PriceBook({"gpt-4o": cycles.Price("1", "10")})
    messages: list[Any] = [{"role": "user", "content": "x" * 50_000}]
    first = ledger.sent(body={**CHAT, "model": "gpt-4o", "messages": messages}, prices=book)
    ended(ledger, first, chat(model="gpt-4o"))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    again = like(first, messages=[*messages, {"role": "user", "content": [image]}])
    assert 1000 * 100 + 500 * 1000 < again.reserved.amount < 2_000_000


def test_a_count_of_another_model_in_the_path_bounds_nothing(ledger: Ledger) -> None:
    body = {
        "contents": [{"role": "user", "parts": [{"text": "x" * 5_000}]}],
        "generationConfig": {"maxOutputTokens": 5},
    }
    book = cycles.PriceBook(dict.fromkeys(("m", "other"), cycles.Price("1", "10")))
    first = ledger.sent("google", "/models/m:generateContent", body, prices=book)
    usage = {"promptTokenCount": 1000, "candidatesTokenCount": 5}
    ended(ledger, first, json.dumps({"modelVersion": "m", "usageMetadata": usage, "candidates": []}).encode())
    assert like(first).reserved.amount == 1000 * 100 + 5 * 1000
    assert like(first, "/models/other:generateContent").reserved == first.reserved
