"""Events of streams in bytes: what a filter notes of them, what it forwards, and which strings they carry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

import cycles
from cycles.providers import _google, _groq, _mistral, _openai
from cycles.providers._held import HeldResponses, ended_in, response_in, responses_in, running_in
from cycles.providers._provider import Background, Mark, StreamRules, from_version, price_by, provider_named
from cycles.providers._stream_filter import StreamFilter, parsed, strings_of

TEXT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
ENDS = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
PART = b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":2}}\n\n'
ERROR = b'data: {"error":{"message":"x"}}\n\n'
DONE = b"data: [DONE]\n\n"


def seen(*events: bytes, rules: StreamRules | None = None, hide_usage: bool = True) -> tuple[StreamFilter, bytes]:
    """Feed events, and return the filter and what it has forwarded."""
    found = StreamFilter(rules or _openai.rules(), hide_usage=hide_usage)
    return found, b"".join(map(found.feed, events))


@pytest.mark.parametrize(
    ("events", "marks", "reported"),
    [
        ((), "", 0),
        ((TEXT,), "", 0),
        ((TEXT, ENDS, TEXT), "finished", 0),
        ((TEXT, PART), "", 1),
        ((ENDS, PART), "finished usage_seen", 1),
        ((PART, ENDS), "finished", 1),
        ((USAGE, TEXT), "finished usage_seen", 1),
        ((DONE, TEXT), "complete", 0),
        ((ERROR, TEXT), "failed", 0),
        ((ERROR, USAGE), "failed finished usage_seen", 1),
        ((b'data: {"usage":{broken\n\n', TEXT), "", 0),
        ((b'data: ["usage", {"usage":{}}]\n\n',), "", 0),
        ((b'data: {"choices":[{"error":{"a":1}}]}\n\n',), "", 0),  # an error of a tool, for example
        ((b'event: error\ndata: {"type":"error"}\n\n',), "failed", 0),
        ((b'event: error\ndata: {"type":"other"}\n\n',), "", 0),
    ],
)
def test_what_a_filter_notes(events: tuple[bytes, ...], marks: str, reported: int) -> None:
    found, _ = seen(*events)
    noted = [name for name in ("complete", "failed", "finished", "usage_seen") if getattr(found, name)]
    assert " ".join(noted) == marks
    assert len(found.reported()) == reported


@pytest.mark.parametrize("hide_usage", [True, False])
def test_only_the_usage_alone_is_hidden_and_never_kept(hide_usage: bool) -> None:
    found, forwarded = seen(TEXT, PART, ENDS, USAGE, DONE, hide_usage=hide_usage)
    assert forwarded == TEXT + PART + ENDS + (b"" if hide_usage else USAGE) + DONE
    assert list(found.kept) == [TEXT, PART, ENDS, DONE]
    assert [each["usage"]["prompt_tokens"] for each in found.reported()] == [2, 1]


def test_several_events_of_one_piece_are_forwarded_together() -> None:
    assert seen(TEXT + USAGE + ENDS + b"data:")[1] == TEXT + ENDS
    assert seen(b"", USAGE, TEXT)[1] == TEXT
    assert seen(b"\n\n" + TEXT)[1] == b"\n\n" + TEXT


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_events_are_the_same_wherever_the_stream_is_split(line_end: bytes) -> None:
    events = [event.replace(b"\n", line_end) for event in (TEXT, ENDS, USAGE, DONE)]
    stream = b"".join(events)
    for cut in range(len(stream)):
        found = StreamFilter(_openai.rules(), hide_usage=True)
        forwarded = [found.feed(stream[:cut]), found.feed(stream[cut:])]
        at_once = [event for n, event in enumerate(events) if n != 2 and len(b"".join(events[: n + 1])) <= cut]
        assert forwarded == [b"".join(at_once), b"".join([*events[:2], events[3]][len(at_once) :])]
        assert [each["usage"] for each in found.reported()] == [{"prompt_tokens": 1}]
        assert list(found.kept) == [*events[:2], events[3]]


@pytest.mark.parametrize(
    ("rest", "forwarded", "is_seen"),
    [
        (USAGE[:-2], b"", True),  # whole, without the empty line
        (USAGE[:-5], USAGE[:-5], False),  # truncated
        (PART[:-2], PART[:-2], False),
        (b"", b"", False),
    ],
)
def test_the_last_event_may_have_no_empty_line(rest: bytes, forwarded: bytes, is_seen: bool) -> None:
    found, _ = seen(TEXT, rest)
    for _ in range(2):
        assert found.see_rest() is (forwarded == rest)
    assert found.usage_seen is is_seen
    assert len(found.reported()) == (rest in (USAGE[:-2], PART[:-2]))
    assert [found.flush(), found.flush()] == [forwarded, b""]
    assert len(found.reported()) == (rest in (USAGE[:-2], PART[:-2]))


def test_a_last_mark_without_an_empty_line_completes_the_stream() -> None:
    found, _ = seen(TEXT, DONE[:-2])
    assert not found.complete
    assert (found.flush(), found.complete) == (DONE[:-2], True)


# --- running totals


def totals(n: int, *, ends: bool = False, **more: Any) -> bytes:
    candidate = {"content": {}, **({"finishReason": "STOP"} if ends else {}), **more}
    return f"data: {json.dumps({'candidates': [candidate], 'usageMetadata': {'totalTokenCount': n}})}\n\n".encode()


GROUNDED = b'data: {"candidates":[{"groundingMetadata":{}}]}\n\n'
FAILED = b'data: {"error":{"code":500}}\n\n'


@pytest.mark.parametrize(
    ("events", "marks", "counts"),
    [
        ((totals(1), totals(2)), "", [2]),
        ((totals(1), totals(2, ends=True)), "finished usage_seen", [2]),
        ((totals(2, ends=True), GROUNDED), "finished usage_seen", [None, 2]),
        ((GROUNDED, totals(1)), "", [None, 1]),
        ((GROUNDED,), "", [None]),
        ((FAILED, totals(3)), "failed", [3]),
        ((b'data: {"error": {broken\n\n',), "", []),
        ((b'data: ["error", {"error":{}}]\n\n',), "", []),
    ],
)
def test_of_running_totals_the_last_are_read(events: tuple[bytes, ...], marks: str, counts: list[int | None]) -> None:
    found, forwarded = seen(*events, rules=_google.stream({}))
    noted = [name for name in ("failed", "finished", "usage_seen") if getattr(found, name)]
    assert (" ".join(noted), forwarded) == (marks, b"".join(events))
    assert [each.get("usageMetadata", {}).get("totalTokenCount") for each in found.reported()] == counts
    assert list(found.kept) == list(events)


# --- JSON and strings of events


@pytest.mark.parametrize(
    ("event", "value"),
    [
        (b'data: {"a":1}\n\n', {"a": 1}),
        (b'event: x\ndata:{"a":\ndata: 1}\n\n', {"a": 1}),
        (b'data: "a\r\ndata: b"', None),
        (b'{"a":1}', {"a": 1}),
        (b"data: [DONE]\n\n", None),
        (b"event: x\n\n", None),
        (b"[" * 100_000, None),
        (b'"\xff"', None),
    ],
)
def test_the_json_of_an_event(event: bytes, value: Any) -> None:
    assert parsed(event) == value


@pytest.mark.parametrize(
    ("value", "strings"),
    [
        ({"content": "a", "role": "x", "text": ""}, ["a"]),
        ({"choices": [{"delta": {"content": "a", "tool_calls": [{"function": {"arguments": "b"}}]}}]}, ["a", "b"]),
        ({"refusal": "a", "reasoning": "b", "reasoning_content": "c", "thinking": "d"}, ["a", "b", "c", "d"]),
        ({"partial_json": "a", "transcript": "b", "completion": "c", "input": "d", "tool_plan": "e"}, [*"abcde"]),
        ({"contents": "a", "mytext": "b", "textual": "c"}, []),
        ({"type": "response.output_text.delta", "delta": "a", "text": "b"}, ["a"]),
        ({"type": "response.output_text.done", "delta": {"text": "a"}, "text": "b"}, []),
        ({"type": "message", "text": "b"}, ["b"]),
        ({"type": 5, "text": "b"}, ["b"]),
        ({"args": {"x": 1, "y": "\u00e9"}, "input": {}}, ['{"x":1,"y":"\u00e9"}']),
        ({"input": {"x": 1}}, ['{"x":1}']),
        ({"args": "a", "input": "b", "other": {"x": "y"}}, ["b"]),
        ({"input": [{"text": "a"}]}, ["a"]),
        ({"usage": {"text": "a"}, "tools": [{"text": "a"}], "metadata": {"text": "a"}, "other": {"text": "b"}}, ["b"]),
        ([{"text": "a"}, "b", 5, [{"text": "c"}]], ["a", "c"]),
        ("a", []),
        (None, []),
        ({"text": 5}, []),
    ],
)
def test_the_strings_that_a_response_carries(value: Any, strings: list[str]) -> None:
    assert list(strings_of(value)) == strings


# --- what providers say of events


@pytest.mark.parametrize(
    ("value", "finished", "reported"),
    [
        ({}, False, None),
        ({"usage": {}}, True, None),
        ({"response": {}}, True, None),
        ({"response": "x"}, True, None),
        ({"usage": {"a": 1}, "choices": []}, False, "alone"),
        ({"usage": {"a": 1}, "choices": [{}]}, False, "part"),
        ({"usage": {"a": 1}, "choices": [{}]}, True, "total"),
        ({"usage": {"a": 1}, "type": "image_generation.completed"}, False, "total"),
        ({"usage": {"a": 1}, "type": "image_generation.partial_image"}, True, "part"),
        ({"usage": {"a": 1}}, True, "part"),
        ({"response": {"usage": {"a": 1}}, "type": "response.completed"}, False, "total"),
        ({"response": {"usage": {"a": 1}}, "type": "response.incomplete"}, False, "total"),
        ({"response": {"usage": {"a": 1}}, "type": "response.failed"}, False, "total"),
        ({"response": {"usage": {"a": 1}}, "type": "response.done"}, False, "total"),
        ({"response": {"usage": {"a": 1}}, "type": "response.created"}, False, "part"),
        ({"x_groq": {"usage": {"a": 1}}}, False, None),
    ],
)
def test_what_an_event_of_openai_reports(value: Mapping[str, Any], finished: bool, reported: str | None) -> None:
    assert _openai.reported(value, finished) == reported
    of_groq = _groq.stream({}).usage(value, finished)
    assert of_groq == ("total" if "x_groq" in value else reported)


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        ({}, None),
        ({"usageMetadata": {}}, None),
        ({"usageMetadata": {"a": 1}}, "part"),
        ({"usageMetadata": {"a": 1}, "candidates": None}, "part"),
        ({"usageMetadata": {"a": 1}, "candidates": ["x", {}]}, "part"),
        ({"usageMetadata": {"a": 1}, "candidates": [{}, {"finishReason": "STOP"}]}, "total"),
    ],
)
def test_what_a_chunk_of_gemini_reports(value: Mapping[str, Any], reported: str | None) -> None:
    assert _google.stream({}).usage(value, False) == reported


@pytest.mark.parametrize(
    ("value", "failed"),
    [({}, False), ({"error": {}}, False), ({"error": {"a": 1}}, True), ({"error": None}, False)]
    + [({"type": kind}, kind != "response.completed") for kind in ("error", "response.failed", "response.completed")],
)
def test_an_event_with_an_error(value: Mapping[str, Any], failed: bool) -> None:
    assert _openai.failed(value) is failed
    assert _groq.stream({}).failed(value) is failed
    if "type" not in value:
        assert _google.stream({}).failed(value) is failed
        assert StreamRules().failed(value) is False


@pytest.mark.parametrize(
    ("value", "microcents"),
    [
        ({"usage": {"cost": 0.001}}, 100_000),
        ({"usage": {"cost": 0}}, 0),
        ({"usage": {"cost": "0.001"}}, None),
        ({"usage": {}}, None),
        ({"usage": None}, None),
        ({"usage": None, "response": {"usage": {"cost": 1}}}, None),
        ({"response": {"usage": {"cost": 0.001}}}, 100_000),
        ({"response": "x"}, None),
        ({"response": None}, None),
        ([], None),
        (None, None),
        ({"usage": {"cost": {"total_cost": 0.001}}}, 100_000),
        ({"usage": {"cost": {"input_cost": 0.001}}}, None),
        ({"usage": {"cost_in_usd_ticks": 500}}, 5),
        ({"usage": {"cost_in_usd_ticks": 0, "cost": 1}}, 0),
        ({"usage": {"cost_in_usd_ticks": None, "cost": 0.001}}, 100_000),
        ({"usage": {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}}}, 300_000),
        ({"usage": {"cost": 0.001, "is_byok": 1, "cost_details": {"upstream_inference_cost": 0.002}}}, 100_000),
        ({"usage": {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}}, 100_000),
        ({"usage": {"cost": 0.001, "is_byok": True, "cost_details": None}}, 100_000),
        ({"usage": {"cost": 0.001, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.002}}}, 100_000),
        ({"usage": {"is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}}}, None),
    ],
)
def test_the_cost_that_a_gateway_reports(value: Any, microcents: int | None) -> None:
    assert _openai.reported_cost(value) == microcents
    assert provider_named("groq").reported_cost(value) is None


USED_BY_GROQ = {"prompt_tokens": 10, "completion_tokens": 2}


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([{"usage": USED_BY_GROQ}], {"tokens_input": 10, "tokens_output": 2}),
        ([{"x_groq": {"usage": USED_BY_GROQ}}], {"tokens_input": 10, "tokens_output": 2}),
        ([{"x_groq": {"id": "x"}, "usage": USED_BY_GROQ}], {"tokens_input": 10, "tokens_output": 2}),
        ([{"x_groq": "x"}, [], None], {}),
        ([{"choices": [{"message": {"executed_tools": [{"type": "search", "index": 0}]}}]}], {"web_searches": 1}),
        ([{"choices": [{"delta": {"executed_tools": [{"type": "python", "index": 0}]}}]}], {"code_executions": 1}),
        (
            [{"choices": [{"delta": {"executed_tools": [{"type": "search", "index": 0}]}}]}] * 2,
            {"web_searches": 1},
        ),
        (
            [{"choices": [{"delta": {"executed_tools": [{"type": "search", "index": n}, "x"]}}]} for n in range(2)],
            {"web_searches": 2},
        ),
        ([{"choices": [{"message": {"executed_tools": [{"index": 0}]}}]}], {"other_calls": 1}),
        ([{"choices": ["x", {"message": None, "delta": "y"}, {"message": {"executed_tools": None}}]}], {}),
        ([{"choices": None}], {}),
    ],
)
def test_what_groq_reports(values: list[Any], counts: dict[str, int]) -> None:
    usage = cycles.Usage()
    for value in values:
        _groq.read(value, usage)
    assert dict(usage.counts) == counts


@pytest.mark.parametrize(
    ("tier", "context"), [("performance", {"service_tier": "performance"}), ("flex", {}), ("on_demand", {}), (None, {})]
)
def test_only_one_tier_of_groq_has_another_price(tier: str | None, context: dict[str, str]) -> None:
    usage = cycles.Usage()
    _groq.read({"usage": USED_BY_GROQ, "service_tier": tier}, usage)
    assert [dict(one.context) for one in usage.responses()] == [context]


@pytest.mark.parametrize(
    ("body", "requested", "is_last"),
    [
        ({"messages": []}, {"include_usage": True}, True),
        ({"prompt": "x"}, {"include_usage": True}, True),
        ({"prompt": ["x"]}, {"include_usage": True}, True),
        ({"prompt": {"id": "x"}}, None, False),
        ({"input": "x"}, None, False),
        ({"messages": [], "stream_options": {"a": 1}}, {"a": 1, "include_usage": True}, True),
        ({"messages": [], "stream_options": "x"}, {"include_usage": True}, True),
        ({"messages": [], "stream_options": {"include_usage": True}}, None, True),
        ({"messages": [], "stream_options": {"include_usage": False}}, None, False),
        ({"messages": [], "stream_options": {"include_usage": 1}}, None, False),
    ],
)
def test_which_streams_get_an_event_with_their_usage(body: dict[str, Any], requested: Any, is_last: bool) -> None:
    rules = _openai.stream(body)
    assert rules.requested == ({} if requested is None else {"stream_options": requested})
    assert rules.is_usage_last is is_last


@pytest.mark.parametrize(
    ("name", "status", "member", "value"),
    [
        ("openai", 402, "type", "insufficient_quota"),
        ("openai", 400, "type", "invalid_request_error"),
        ("openai", 499, "type", "invalid_request_error"),
        ("openai", 500, "type", "server_error"),
        ("groq", 500, "type", "server_error"),
        ("google", 400, "status", "INVALID_ARGUMENT"),
        ("google", 401, "status", "UNAUTHENTICATED"),
        ("google", 402, "status", "RESOURCE_EXHAUSTED"),
        ("google", 403, "status", "PERMISSION_DENIED"),
        ("google", 404, "status", "NOT_FOUND"),
        ("google", 409, "status", "FAILED_PRECONDITION"),
        ("google", 499, "status", "FAILED_PRECONDITION"),
        ("google", 500, "status", "UNAVAILABLE"),
        ("google", 502, "code", 502),
    ],
)
def test_the_body_of_an_error(name: str, status: int, member: str, value: Any) -> None:
    error = provider_named(name).error(status, "no budget")["error"]
    assert error[member] == value
    says = 'no budget (insufficient credits, "code":402)' if (name, status) == ("openai", 402) else "no budget"
    assert error["message"] == says


@pytest.mark.parametrize(("status", "kind"), [(499, "invalid_request_error"), (500, "internal_server_error")])
def test_the_body_of_an_error_of_mistral(status: int, kind: str) -> None:
    error = _mistral.error(status, "no budget")
    assert error == {"object": "error", "message": "no budget", "type": kind, "param": None, "code": None}


@pytest.mark.parametrize(
    ("name", "path", "normal"),
    [
        ("openai", "/v1/chat/completions", "/chat/completions"),
        ("openai", "/openai/deployments/d/v1/chat/completions", "/v1/chat/completions"),
        ("openai", "/openai/v1/deployments/d/chat/completions", "/chat/completions"),
        ("openai", "/api/v1/v1/x", "/v1/x"),
        ("openai", "/beta/x", "/x"),
        ("openai", "/v1", "/v1"),
        ("google", "/v1beta/models/m:x", "models/m:x"),
        ("google", "/upload/v1beta/files", "files"),
        ("google", "/v1/v1beta/x", "v1beta/x"),
        ("google", "models/m:x", "models/m:x"),
        ("mistral", "/gateway/v1/v2/x", "/v1/v2/x"),
        ("framework", "/messages", "/messages"),
    ],
)
def test_the_path_of_a_request(name: str, path: str, normal: str) -> None:
    assert provider_named(name).path(path) == normal


def test_whose_model_has_the_price() -> None:
    names = ("openai", "google", "aws", "cohere", "mistral", "unknown", "")
    by_request = [name for name in names if price_by(name) == "request"]
    assert (by_request, price_by("unknown")) == (["aws", "cohere"], "response")
    assert from_version("/a/v1/b") == "/v1/b"


def test_a_mark_has_one_of_its_words_and_its_pattern() -> None:
    mark = Mark((b"one", b"two"), re.compile(rb"(?:one|two)!"))
    assert [mark.is_in(event) for event in (b"one!", b"two!", b"one", b"two one!", b"three!")] == [
        True,
        True,
        False,
        True,
        False,
    ]


# --- the status of responses that are made in the background

BACKGROUND = Background("background", ("queued", "running"), ("done", "failed"))


def test_an_open_call_is_found_by_its_response_until_it_ends() -> None:
    held: HeldResponses[object] = HeldResponses()
    first, second = object(), object()
    assert held.is_empty
    assert [held.add("a", first), held.add("a", first), held.add("a", second)] == [True, True, False]
    assert (held.get("a"), held.get("b"), held.get(None), held.is_empty) == (first, None, None, False)
    held.remove("a", second)
    held.remove("b", second)
    assert held.get("a") is first
    held.remove("a", first)
    assert held.is_empty
    assert held.add("a", second)
    assert (held.close(), held.is_closed) == ([second], True)
    assert not held.add("b", first)
    assert held.get("b") is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"id": 1}, {"id": 1}),
        ({"response": {"id": 2}}, {"id": 2}),
        ({"response": None, "id": 1}, {"response": None, "id": 1}),
        ([], {}),
        (None, {}),
    ],
)
def test_the_response_in_an_event(value: Any, found: dict[str, Any]) -> None:
    assert response_in(value) == found


@pytest.mark.parametrize(
    ("responses", "ended", "running"),
    [
        ([], None, None),
        ([{"status": "queued", "id": "a"}], None, "a"),
        ([{"status": "queued", "id": 5}], None, None),
        ([{"status": "queued", "id": "a"}, {"status": "running", "id": "b"}], None, "b"),
        ([{"status": "queued", "id": "a"}, {"status": "done", "id": "a"}], {"status": "done", "id": "a"}, None),
        ([{"status": "done", "id": "a"}, {"status": "queued", "id": "a"}], {"status": "done", "id": "a"}, None),
        ([{"status": "failed"}, {"status": "done"}, {}], {"status": "done"}, None),
        ([{"status": "other", "id": "a"}], None, None),
    ],
)
def test_which_response_has_ended_and_which_is_still_made(
    responses: list[dict[str, Any]], ended: Any, running: str | None
) -> None:
    assert ended_in(BACKGROUND, iter(responses)) == ended
    assert running_in(BACKGROUND, iter(responses)) == running


def test_events_with_a_status_are_read_before_those_with_usage() -> None:
    found, _ = seen(
        b'data: {"response":{"status":"queued"}}\n\n',
        b'data: {"response":{"text":"no word of its state"}}\n\n',
        b'data: {"type":"response.completed","response":{"status":"completed","usage":{"a":1}}}\n\n',
    )
    states = [each["status"] for each in responses_in(found)]
    assert states == ["queued", "completed", "completed"]
