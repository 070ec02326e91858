"""Requests through the proxy: what they cost, what is changed in them, and what is passed untouched."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

import cycles
from tests.operators.proxying import BOOK, EXACT, KEY, USED, Place, events, proxied

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
MESSAGES = {**CHAT, "max_tokens": 500}
GEMINI = {"contents": [{"parts": [{"text": "hi"}]}]}
PATHS: list[tuple[str, dict[str, Any]]] = [
    ("/openai/v1/chat/completions", CHAT),
    ("/openai/v1/responses", {"model": "m", "input": "hi"}),
    ("/anthropic/v1/messages", MESSAGES),
    ("/gemini/v1beta/models/m:generateContent", GEMINI),
    ("/gemini/v1/models/m:generateContent", GEMINI),
]
STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("/openai/v1/chat/completions", {**CHAT, "stream": True}),
    ("/openai/v1/responses", {"model": "m", "input": "hi", "stream": True}),
    ("/anthropic/v1/messages", {**MESSAGES, "stream": True}),
    ("/gemini/v1beta/models/m:streamGenerateContent?alt=sse", GEMINI),
]


@pytest.mark.parametrize(("path", "body"), PATHS)
def test_a_response_is_charged_exactly_before_it_is_passed_on(path: str, body: dict[str, Any]) -> None:
    with proxied() as place:
        place.provider.reply(usage=USED)
        response = place.post(path, json=body)
        assert response.status_code == 200
        assert place.commits == [(EXACT, {})]
        assert (place.spent, place.held) == (EXACT, 0)
        assert place.provider.requests[0].body == body
        assert place.proxy.app.totals.models == {"m": [1, EXACT]}


@pytest.mark.parametrize(("path", "body"), [PATHS[0], PATHS[2], STREAMS[0], STREAMS[2]])
def test_a_response_without_a_media_type_is_charged_exactly(path: str, body: dict[str, Any]) -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, headers={"content-type": ""})
        assert place.post(path, json=body).status_code == 200
        assert place.commits == [(EXACT, {})]


def test_a_reservation_says_which_provider_and_project_pay() -> None:
    with proxied() as place:
        place.post(PATHS[0][0], json=CHAT, headers={"OpenAI-Project": "proj_1"})
        place.post(PATHS[2][0], json=MESSAGES)
        place.post("/azure/openai/deployments/m/chat/completions?api-version=1", json={"messages": []})
        sent = [request.json["metadata"] for request in place.server.requests.of("reserve")]
    assert sent == [
        {"provider": "openai", "project": "proj_1"},
        {"provider": "anthropic"},
        {"provider": "azure"},
    ]


@pytest.mark.parametrize(("path", "body"), STREAMS)
def test_a_stream_is_charged_exactly(path: str, body: dict[str, Any]) -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, text="one two three")
        response = place.post(path, json=body)
        assert response.status_code == 200
        assert "three" in response.text
        assert place.commits == [(EXACT, {})]
        assert place.held == 0


ROUTED: list[tuple[str, dict[str, Any], str]] = [
    ("/azure/openai/deployments/m/chat/completions?api-version=1", {"messages": []}, "/openai/deployments/m/chat"),
    ("/groq/openai/v1/chat/completions", CHAT, "/openai/v1/chat"),
    ("/mistral/v1/chat/completions", CHAT, "/v1/chat"),
    ("/xai/v1/chat/completions", CHAT, "/v1/chat"),
    ("/openrouter/api/v1/chat/completions", CHAT, "/api/v1/chat"),
    ("/deepseek/chat/completions", CHAT, "/chat"),
    ("/ollama/v1/chat/completions", CHAT, "/v1/chat"),
    ("/vertex/v1/projects/p/locations/l/publishers/google/models/m:generateContent", GEMINI, "/v1/projects/p"),
    (
        "/vertex/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict",
        {"messages": [], "max_tokens": 500},
        "/v1/projects/p",
    ),
    ("/anthropic/messages", MESSAGES, "/v1/messages"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body", "sent"), ROUTED)
def test_every_route_is_charged_exactly(path: str, body: dict[str, Any], sent: str, stream: bool) -> None:
    if stream and ("mistral" in path or "groq" in path):
        pytest.skip("at this path the fake reports the usage of a stream only if it is requested, unlike these two")
    if stream:
        path = path.replace(":generateContent", ":streamGenerateContent?alt=sse").replace(":raw", ":streamRaw")
        body = body if "generateContent" in path else {**body, "stream": True}
    with proxied() as place:
        place.provider.reply(usage=USED)
        response = place.post(path, json=body)
        assert response.status_code == 200
        # The fake reads no model in this path, and responds with one of its own.
        named = {"response_model": "gpt-4o"} if "/deployments/" in path else {}
        assert place.commits == [(EXACT, named)]
        assert place.provider.requests[0].path.startswith(sent)
        assert ("model" in place.provider.requests[0].body) == ("model" in body)


def test_both_formats_of_vertex_are_charged_exactly_in_one_run() -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, times=2)
        for path, body, _ in ROUTED[7:9]:
            assert place.post(path, json=body).status_code == 200
        assert place.commits == [(EXACT, {}), (EXACT, {})]


def test_an_output_limit_is_added_in_the_form_that_each_route_knows() -> None:
    with proxied(max_output_tokens=50) as place:
        place.post("/mistral/v1/chat/completions", json={**CHAT, "stream": True})
        place.post("/azure/openai/deployments/m/chat/completions", json=CHAT)
        place.post("/mistral/v1/chat/completions", json={**CHAT, "max_completion_tokens": 70})
        bodies = [request.body for request in place.provider.requests]
        assert bodies[0] == {**CHAT, "stream": True, "max_tokens": 50}
        assert bodies[1:] == [{**CHAT, "max_completion_tokens": 50}] * 2


def test_the_usage_event_that_the_proxy_requests_is_taken_out_and_no_other() -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, times=2)
        hidden = events(place.post(json={**CHAT, "stream": True}))
        shown = events(place.post(json={**CHAT, "stream": True, "stream_options": {"include_usage": True}}))
        assert all(event["choices"] for event in hidden)
        assert shown[-1]["choices"] == []
        assert shown[-1]["usage"]["prompt_tokens"] == 1000
        assert len(hidden) == len(shown) - 1
        assert [amount for amount, _ in place.commits] == [EXACT, EXACT]
        assert place.provider.requests[0].body["stream_options"] == {"include_usage": True}


@contextmanager
def _recording(place: Place) -> Iterator[list[bytes]]:
    """Yield the bodies that the proxy sends upstream, as bytes."""
    sent: list[bytes] = []
    upstream = place.proxy._upstream
    send = upstream.send

    async def record(request: httpx.Request, **options: Any) -> httpx.Response:
        sent.append(await request.aread())
        return await send(request, **options)

    upstream.send = record  # type: ignore[method-assign]
    yield sent


def test_a_body_that_needs_no_change_is_sent_byte_for_byte() -> None:
    raw = b'{ "model":"m" ,"messages":[{"role":"user","content":"\\u0068i"}],"max_tokens" : 5}'
    with proxied() as place, _recording(place) as sent:
        place.post(content=raw, headers={"content-type": "application/json"})
        assert sent == [raw]


def test_of_doubled_members_what_is_priced_is_what_is_sent() -> None:
    doubled = (
        b'{"model":"dear","messages":[],"max_tokens":9,"model":"m"}',
        b'{"model":"m","messages":[],"max_tokens":9,"reasoning":{"effort":"high","effort":"low"}}',
    )
    with proxied() as place, _recording(place) as sent:
        for raw in doubled:
            place.post(content=raw, headers={"content-type": "application/json"})
        assert [json.loads(content, object_pairs_hook=list) for content in sent] == [
            [("model", "m"), ("messages", []), ("max_tokens", 9)],
            [("model", "m"), ("messages", []), ("max_tokens", 9), ("reasoning", [("effort", "low")])],
        ]


@pytest.mark.parametrize(
    ("path", "body", "sent"),
    [
        ("/openai/v1/chat/completions", {**CHAT, "max_tokens": 900}, {"max_tokens": 50}),
        ("/openai/v1/chat/completions", CHAT, {"max_completion_tokens": 50}),
        ("/openai/v1/responses", {"model": "m", "input": "x"}, {"max_output_tokens": 50}),
        ("/anthropic/v1/messages", MESSAGES, {"max_tokens": 50}),
        ("/gemini/v1beta/models/m:generateContent", GEMINI, {"generationConfig": {"maxOutputTokens": 50}}),
        (
            "/gemini/v1beta/models/m:generateContent",
            {**GEMINI, "generation_config": {"max_output_tokens": 900, "candidate_count": 1}},
            {"generationConfig": {"maxOutputTokens": 50, "candidateCount": 1}},
        ),
    ],
)
def test_output_limits_are_lowered_to_the_ceiling(path: str, body: dict[str, Any], sent: dict[str, Any]) -> None:
    with proxied(max_output_tokens=50) as place:
        assert place.post(path, json=body).status_code == 200
        received = place.provider.requests[0].body
        assert {name: received[name] for name in sent} == sent
        assert "generation_config" not in received


def test_output_limits_are_lowered_to_the_caps_of_the_server() -> None:
    with proxied() as place:
        place.server.ledger.set_budget("tenant:run", cycles.usd(10), caps={"max_tokens": 7})
        place.post(json={**CHAT, "max_tokens": 400})
        assert place.provider.requests[0].body["max_tokens"] == 7


def test_a_lowered_limit_must_be_above_the_thinking_budget() -> None:
    with proxied(max_output_tokens=50) as place:
        for budget, status in ((50, 400), (49, 200)):
            thinking = {"type": "enabled", "budget_tokens": budget}
            assert place.post("/anthropic/v1/messages", json={**MESSAGES, "thinking": thinking}).status_code == status
        assert [request.body["max_tokens"] for request in place.provider.requests] == [50]
        assert place.held == 0


def test_a_form_is_priced_by_its_model_and_sent_byte_for_byte() -> None:
    book = cycles.PriceBook({"whisper": cycles.Price(0, 0, per_call={"audio_ms": "0.001"})})
    with proxied(prices=book) as place:
        place.provider.reply(usage={"audio_ms": 3000})
        response = place.post(
            "/openai/v1/audio/transcriptions",
            json=None,
            data={"model": "whisper"},
            files={"file": ("a.mp3", b"\x00" * 8000)},
        )
        assert response.status_code == 200
        assert place.spent == 3000 * 100_000
        assert b"\x00" * 8000 in place.provider.requests[0].body


@pytest.mark.parametrize("form", [{"model": ["m", "dear"]}, {"model": "m", "n": ["1", "9"]}])
def test_a_form_that_says_twice_what_it_costs_is_rejected(form: dict[str, Any]) -> None:
    with proxied() as place:
        response = place.post("/openai/v1/images/edits", json=None, data=form, files={"image": ("a.png", b"x")})
        assert (response.status_code, place.provider.requests) == (400, [])
        assert "twice" in response.text


def test_uploaded_images_are_reserved() -> None:
    with proxied(prices=cycles.PriceBook({"m": cycles.Price(1, 0)})) as place:
        place.post("/openai/v1/images/edits", json=None, data={"model": "m"}, files={"image": ("a.png", b"x")})
        assert place.server.requests.of("reserve")[0].json["estimate"]["amount"] > 6_000 * 100


def test_free_requests_pass_with_their_bytes_and_are_counted() -> None:
    with proxied() as place:
        assert httpx.get(f"{place.openai_url}/models").status_code == 200
        assert place.post("/openai/v1/moderations", json={"input": "x"}).status_code == 200
        assert place.post("/gemini/v1beta/models/m:countTokens", json=GEMINI).status_code == 200
        assert place.post("/anthropic/v1/messages/count_tokens", json=MESSAGES).status_code == 200
        assert place.proxy.app.totals.passed == 4
        assert place.proxy.app.totals.calls == 0
        assert [request.path for request in place.provider.requests] == [
            "/v1/models",
            "/v1/moderations",
            "/v1beta/models/m:countTokens",
            "/v1/messages/count_tokens",
        ]


def test_headers_are_sent_without_those_of_the_connection() -> None:
    with proxied() as place:
        headers = {
            "authorization": "Bearer provider-key",
            "x-custom": "1",
            "connection": "keep-alive, x-hop",
            "x-hop": "1",
            "te": "trailers",
            "accept-encoding": "br, gzip, zstd",
        }
        place.post(headers=headers)
        sent = place.provider.requests[0].headers
        assert sent["authorization"] == "Bearer provider-key"
        assert sent["x-custom"] == "1"
        assert sent["accept-encoding"] == "gzip"
        assert sent["host"] == place.provider.url.removeprefix("http://")
        assert not {"x-hop", "te", "x-cycles-proxy-key"} & set(sent)


@pytest.mark.parametrize("stream", [False, True])
def test_compressed_responses_are_decoded_and_charged(stream: bool) -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, gzip=True)
        response = place.post(json={**CHAT, "stream": stream})
        assert "content-encoding" not in response.headers
        assert "provider" in response.text
        assert place.spent == EXACT


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [300, 304, 400])
def test_a_response_that_is_no_success_is_passed_on_and_not_charged(status: int, stream: bool) -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, status=status)
        assert place.post(json={**CHAT, "stream": stream}).status_code == status
        assert (place.commits, place.spent, place.held) == ([], 0, 0)


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_compressed_requests_are_rejected(coding: str) -> None:
    with proxied() as place:
        content = gzip.compress(json.dumps(CHAT).encode()) if coding == "gzip" else json.dumps(CHAT).encode()
        response = place.post(content=content, headers={"content-encoding": coding})
        assert response.status_code == 400
        assert place.provider.requests == []


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_events_without_a_request_for_a_stream_are_charged_exactly(kind: str) -> None:
    usage = {"prompt_tokens": USED["tokens_input"], "completion_tokens": USED["tokens_output"]}
    body = b'data: {"id": "c", "model": "m", "choices": [], "usage": %s}' % json.dumps(usage).encode()
    with proxied() as place:
        place.provider.reply(body=body, headers={"content-type": kind})
        answer = httpx.post(f"{place.openai_url}/chat/completions", json=CHAT, timeout=60)
        assert answer.content == body
        place.arrivals.wait_for("commit")
        assert place.commits == [(EXACT, {})]


def test_a_gemini_stream_without_events_is_charged() -> None:
    parts = [
        {"candidates": [{"content": {"parts": [{"text": "a"}]}}], "usageMetadata": {"promptTokenCount": 1000}},
        {
            "candidates": [{"content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 100},
            "modelVersion": "m",
        },
    ]
    with proxied() as place:
        place.provider.reply(body=json.dumps(parts).encode())
        upstream = place.proxy._upstream
        send = upstream.send

        async def as_json(request: httpx.Request, **options: Any) -> httpx.Response:
            response = await send(request, **options)
            response.headers["content-type"] = "application/json"
            return response

        upstream.send = as_json  # type: ignore[method-assign]
        response = place.post("/gemini/v1beta/models/m:streamGenerateContent", json=GEMINI)
        assert response.json() == parts
        assert place.commits == [(EXACT, {})]


def test_events_arrive_when_they_are_complete() -> None:
    with proxied() as place:
        gate = threading.Event()
        place.provider.reply(usage=USED, text="one two three", gate=gate, gate_after=2)
        with httpx.stream(
            "POST", f"{place.openai_url}/chat/completions", json={**CHAT, "stream": True}, timeout=120
        ) as response:
            parts = response.iter_text()
            assert "one" in next(parts) + next(parts)  # the third word is behind the gate
            gate.set()
            assert "three" in "".join(parts)
        assert place.spent == EXACT


def test_a_run_limit_holds_beside_the_budget_of_the_server() -> None:
    with proxied(limit=cycles.usd_microcents(EXACT * 2 + 50_000)) as place:
        body = {**CHAT, "max_tokens": 100}
        place.provider.reply(usage=USED, times=9)
        statuses = [place.post(json=body).status_code for _ in range(3)]
        assert statuses == [200, 200, 402]
        denied = place.post(json=body)
        assert denied.headers["x-cycles-reason"] == "run_limit"
        assert len(place.provider.requests) == 2
        assert place.spent == EXACT * 2


def test_prices_of_a_file_override_the_installed_ones(tmp_path: Any) -> None:
    from cycles.proxy._settings import price_book

    (tmp_path / "p.toml").write_text('[m]\ninput = "1"\noutput = "10"\n[m.above.500]\ninput = "2"\noutput = "20"\n')
    (tmp_path / "p.json").write_text('{"m": {"input": "1", "output": "10"}}')
    assert price_book(str(tmp_path / "p.json")).cost("m", **USED) == BOOK.cost("m", **USED)
    assert price_book(str(tmp_path / "p.toml")).cost("m", **USED).amount == EXACT * 2
    (tmp_path / "bad.json").write_text('{"m": {"input": "x", "output": "1"}}')
    for name, says in (("none.json", "cannot be read"), ("bad.json", "a rate must be")):
        with pytest.raises(cycles.ConfigurationError, match=says):
            price_book(str(tmp_path / name))


def test_the_key_of_the_proxy_may_be_a_header() -> None:
    with proxied() as place:
        response = place.post(key=None, headers={"X-Cycles-Proxy-Key": KEY})
        assert response.status_code == 200
        assert "x-cycles-proxy-key" not in place.provider.requests[0].headers
