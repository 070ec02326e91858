"""The fake provider over raw HTTP: shapes of bodies and events, errors, drops, delays, counts of requests."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import cycles.usage
from cycles.testing import FakeProvider, ToolCall
from tests.support.waiting import until


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as started:
        yield started


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10) as client:
        yield client


def events(response: httpx.Response) -> list[Any]:
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


COUNTS = {"tokens_input": 1000, "tokens_cached_input": 400, "tokens_output": 90, "tokens_reasoning": 40}


@pytest.mark.parametrize(
    ("path", "body", "reader"),
    [
        ("/v1/chat/completions", {"model": "gpt-4o", "messages": []}, cycles.usage.openai),
        ("/v1/responses", {"model": "gpt-4o", "input": "x"}, cycles.usage.openai),
        ("/v1/messages", {"model": "claude-opus-5", "messages": []}, cycles.usage.anthropic),
        ("/v1beta/models/gemini-2.5-pro:generateContent", {"contents": []}, cycles.usage.google),
    ],
)
def test_readers_find_the_configured_usage(
    provider: FakeProvider, http: httpx.Client, path: str, body: Any, reader: Any
) -> None:
    provider.reply(text="one two", usage=COUNTS)
    response = http.post(provider.url + path, json=body)
    counts = reader(response.json()).counts
    assert {name: counts[name] for name in COUNTS} == COUNTS
    assert "one two" in response.text


@pytest.mark.parametrize(
    ("path", "body", "reader"),
    [
        (
            "/v1/chat/completions",
            {"model": "gpt-4o", "stream": True, "stream_options": {"include_usage": True}},
            cycles.usage.openai,
        ),
        ("/v1/responses", {"model": "gpt-4o", "input": "x", "stream": True}, cycles.usage.openai),
        ("/v1/messages", {"model": "claude-opus-5", "stream": True}, cycles.usage.anthropic),
        ("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", {"contents": []}, cycles.usage.google),
    ],
)
def test_streams_report_the_configured_usage_at_their_end(
    provider: FakeProvider, http: httpx.Client, path: str, body: Any, reader: Any
) -> None:
    provider.reply(text="one two", usage=COUNTS)
    usage = cycles.Usage()
    chunks = events(http.post(provider.url + path, json=body))
    for chunk in chunks:
        reader(chunk, usage)
    assert {name: usage.counts[name] for name in COUNTS} == COUNTS
    assert len(chunks) >= 3


def test_chat_streams_report_usage_only_if_the_request_includes_it(provider: FakeProvider, http: httpx.Client) -> None:
    response = http.post(f"{provider.openai_url}/chat/completions", json={"model": "m", "stream": True})
    assert not any("usage" in chunk for chunk in events(response))
    assert response.text.endswith("data: [DONE]\n\n")


def test_tool_calls(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(text="", tool_calls=[("lookup", {"city": "Ulm"}), ToolCall("stop")])
    message = http.post(f"{provider.openai_url}/chat/completions", json={"model": "m"}).json()["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["lookup", "stop"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Ulm"}


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/chat/completions", {"error": {"message": "no", "type": "fake_error", "param": None, "code": "fake"}}),
        ("/v1/messages", {"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}),
        (
            "/v1beta/models/g:generateContent",
            {"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}},
        ),
    ],
)
def test_errors_have_the_providers_shape(provider: FakeProvider, http: httpx.Client, path: str, shape: Any) -> None:
    provider.reply(status=429, error="no", headers={"retry-after": "0"}, times=2)
    for _ in range(2):
        response = http.post(provider.url + path, json={})
        assert (response.status_code, response.json(), response.headers["retry-after"]) == (429, shape, "0")
    assert http.post(provider.url + path, json={}).status_code == 200
    assert provider.count(path) == 3


def test_a_connection_that_breaks(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(drop_after=0).reply(drop_after=0, status=503).reply(drop_after=2)
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            http.post(f"{provider.openai_url}/chat/completions", json={})
    received: list[str] = []
    with (
        pytest.raises(httpx.RemoteProtocolError),
        http.stream("POST", f"{provider.openai_url}/chat/completions", json={"stream": True}) as response,
    ):
        received.extend(line for line in response.iter_lines() if line)
    assert len(received) <= 2


def test_an_error_event_inside_a_stream(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(error_after=1, error="late")
    last = events(http.post(f"{provider.anthropic_url}/v1/messages", json={"stream": True}))[-1]
    assert last == {"type": "error", "error": {"type": "overloaded_error", "message": "late"}}


def test_a_gate_holds_a_stream_until_it_opens(provider: FakeProvider, http: httpx.Client) -> None:
    gate = threading.Event()
    provider.reply(text="one two", gate=gate, gate_after=2)
    with http.stream("POST", f"{provider.openai_url}/chat/completions", json={"stream": True}) as response:
        lines = response.iter_lines()
        assert '"role"' in next(lines)
        assert not gate.is_set()
        gate.set()
        assert any("two" in line for line in lines)


class CountedGate(threading.Event):
    """A gate that is open, and counts the responses that have waited for it."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self.waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        return super().wait(timeout)


@pytest.mark.parametrize(
    ("body", "options", "waits"),
    [
        ({}, {}, 1),
        ({}, {"status": 429}, 0),
        ({"stream": True}, {}, 1),
        ({"stream": True}, {"gate_after": 2}, 1),
        ({"stream": True}, {"gate_after": 2, "drop_after": 2}, 1),
        ({"stream": True}, {"gate_after": 3, "drop_after": 2}, 0),
        ({"stream": True}, {"gate_after": 100}, 0),
    ],
)
def test_a_response_waits_once_for_its_gate(
    provider: FakeProvider, http: httpx.Client, body: Any, options: Any, waits: int
) -> None:
    gate = CountedGate()
    provider.reply(gate=gate, **options)
    with contextlib.suppress(httpx.RemoteProtocolError):
        http.post(f"{provider.openai_url}/chat/completions", json=body)
    assert gate.waits == waits


@pytest.mark.parametrize("body", [{}, {"stream": True}])
@pytest.mark.parametrize("gzip", [False, True])
def test_headers_of_your_own_replace_the_usual_ones(
    provider: FakeProvider, http: httpx.Client, body: Any, gzip: bool
) -> None:
    provider.reply(headers={"content-type": "text/x-mine", "x-request-id": "r1"}, gzip=gzip)
    response = http.post(f"{provider.openai_url}/chat/completions", json=body)
    assert response.headers.get_list("content-type") == ["text/x-mine"]
    assert response.headers["x-request-id"] == "r1"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({"stream": "true"}, "text/event-stream"), ({"stream": "false"}, "application/json"), ({}, "application/json")],
)
def test_a_form_with_a_file_may_be_streamed(provider: FakeProvider, http: httpx.Client, fields: Any, kind: str) -> None:
    url = f"{provider.openai_url}/audio/transcriptions"
    response = http.post(url, data={"model": "m", **fields}, files={"file": ("a.wav", b"RIFF")})
    assert response.headers["content-type"] == kind
    (received,) = provider.requests
    assert b"RIFF" in received.body


def test_a_background_response_is_retrieved_over_http_as_a_whole_or_as_a_stream(
    provider: FakeProvider, http: httpx.Client
) -> None:
    url = f"{provider.openai_url}/responses"
    http.post(url, json={"model": "m", "input": "x", "background": True})
    provider.reply(text="one two", polls=2)
    begun = http.post(url, json={"model": "m", "input": "x", "background": True}).json()["id"]
    assert http.get(f"{url}/{begun}").json()["status"] == "in_progress"
    streamed = http.get(f"{url}/{begun}", params={"stream": "true"})
    assert streamed.headers["content-type"] == "text/event-stream"
    found = [event["response"] for event in events(streamed) if "response" in event]
    assert [(each["id"], each["status"]) for each in found] == [
        (begun, "queued"),
        (begun, "in_progress"),
        (begun, "completed"),
    ]
    assert http.get(f"{url}/{begun}", params={"include": "x"}).headers["content-type"] == "application/json"
    assert http.delete(f"{url}/{begun}").json()["deleted"] is True
    assert http.get(f"{url}/{begun}").status_code == 404


def test_clearing_deletes_what_was_queued(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(text="queued", times=2).clear()
    assert "queued" not in http.post(f"{provider.openai_url}/chat/completions", json={}).text


def test_replies_are_sent_in_order_and_then_a_short_text(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(text="first", times=2).reply(text="second")
    found = [http.post(f"{provider.openai_url}/chat/completions", json={}).json() for _ in range(4)]
    texts = [each["choices"][0]["message"]["content"] for each in found]
    assert texts == ["first", "first", "second", "Hello from the fake provider"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_can_be_started_again_after_a_broken_connection(http: httpx.Client, stream: bool) -> None:
    provider = FakeProvider()
    for _ in range(2):
        with provider:
            provider.reply(drop_after=0)
            with pytest.raises(httpx.RemoteProtocolError):
                http.post(f"{provider.openai_url}/chat/completions", json={"stream": stream})
            assert http.post(f"{provider.openai_url}/chat/completions", json={}).status_code == 200
        with pytest.raises(RuntimeError, match="is not started"):
            _ = provider.openai_url
    provider.stop()
    assert provider.count("/chat/completions") == 4


def test_addresses_of_the_providers(provider: FakeProvider, http: httpx.Client) -> None:
    assert provider.openai_url == f"{provider.url}/v1"
    assert (provider.anthropic_url, provider.google_url) == (provider.url, provider.url)
    assert provider.url_of("groq") == f"{provider.url}/groq"
    with pytest.raises(cycles.InvalidRequestError, match="provider must be one of openai"):
        provider.url_of("none")


@pytest.mark.parametrize("stream", [False, True])
def test_a_compressed_body(provider: FakeProvider, http: httpx.Client, stream: bool) -> None:
    provider.reply(text="one two", gzip=True)
    response = http.post(f"{provider.openai_url}/chat/completions", json={"stream": stream})
    assert response.headers["content-encoding"] == "gzip"
    assert "two" in response.text
    provider.reply(text="one two", gzip=True)
    with http.stream("POST", f"{provider.openai_url}/chat/completions", json={"stream": stream}) as raw:
        assert b"two" in gzip.decompress(b"".join(raw.iter_raw())), "the compressed stream has its end"


def test_received_requests_can_be_read_and_cleared(provider: FakeProvider, http: httpx.Client) -> None:
    http.post(f"{provider.openai_url}/moderations?x=1", json={"input": "a"}, headers={"X-Test": "yes"})
    (received,) = provider.requests
    assert (received.method, received.path, received.query) == ("POST", "/v1/moderations", "x=1")
    assert (received.body, received.headers["x-test"]) == ({"input": "a"}, "yes")
    provider.clear()
    assert provider.requests == []


def test_a_free_endpoint_takes_no_reply(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(text="kept")
    http.post(f"{provider.openai_url}/moderations", json={})
    assert "kept" in http.post(f"{provider.openai_url}/chat/completions", json={}).text


def test_a_body_of_your_own(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(body={"mine": 1}).reply(body=b"not json").reply(extra={"service_tier": "flex"})
    url = f"{provider.openai_url}/chat/completions"
    assert http.post(url, json={}).json() == {"mine": 1}
    assert http.post(url, json={}).content == b"not json"
    assert http.post(url, json={}).json()["service_tier"] == "flex"


def test_stopping_ends_the_threads_of_connections_that_clients_keep_open(http: httpx.Client) -> None:
    before = set(threading.enumerate())
    with FakeProvider() as provider:
        http.get(provider.url)
        http.get(provider.url)
        assert set(threading.enumerate()) - before  # one of an earlier test may have ended meanwhile
    until(lambda: set(threading.enumerate()) <= before)


def test_the_server_must_be_started() -> None:
    with pytest.raises(RuntimeError, match="is not started"):
        _ = FakeProvider().url


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"usage": {"tokens_in": 5}}, TypeError, "usage has no count 'tokens_in'"),
        ({"usage": {"tokens_input": -1}}, ValueError, "usage.tokens_input must be 0 to"),
        ({"status": "503"}, ValueError, "status must be an integer from 200 to 599, got '503'"),
        ({"tool_calls": [("lookup",)]}, ValueError, "a tool call must be a ToolCall or a pair"),
        ({"times": 0}, ValueError, "times must be an integer of 1 or more, got 0"),
        ({"delay": 1}, TypeError, "delay"),
    ],
)
def test_a_wrong_reply_is_rejected_when_it_is_queued(options: Any, error: type[Exception], says: str) -> None:
    provider = FakeProvider()
    with pytest.raises(error, match=says):
        provider.reply(**options)


PATHS: list[tuple[str, dict[str, Any], str, str]] = [
    ("/v1/chat/completions", {"model": "m", "messages": [], "max_completion_tokens": 3}, "finish_reason", "length"),
    ("/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 3}, "finish_reason", "length"),
    ("/v1/responses", {"model": "m", "input": "x", "max_output_tokens": 3}, "reason", "max_output_tokens"),
    ("/v1/messages", {"model": "m", "messages": [], "max_tokens": 3}, "stop_reason", "max_tokens"),
    ("/v1/complete", {"model": "m", "prompt": "x", "max_tokens_to_sample": 3}, "stop_reason", "max_tokens"),
    (
        "/v1beta/models/m:generateContent",
        {"contents": [], "generationConfig": {"maxOutputTokens": 3}},
        "finishReason",
        "MAX_TOKENS",
    ),
]


@pytest.mark.parametrize(("path", "body", "member", "word"), PATHS, ids=[path for path, *_ in PATHS])
def test_the_output_ends_at_the_limit_of_the_request(
    provider: FakeProvider, http: httpx.Client, path: str, body: Any, member: str, word: str
) -> None:
    provider.reply(text="a b c d e f")
    found = http.post(provider.url + path, json=body).text
    assert f'"{member}": "{word}"' in found
    assert "a b c" in found
    assert "a b c d" not in found
    provider.reply(text="a b c")
    assert f'"{word}"' not in http.post(provider.url + path, json=body).text


def test_the_output_of_a_stream_ends_at_the_limit(provider: FakeProvider, http: httpx.Client) -> None:
    usage = {"tokens_input": 10, "tokens_output": 1000, "tokens_reasoning": 40}
    provider.reply(text="a b c d", usage=usage, times=2)
    body = {"model": "m", "stream": True, "max_tokens": 60, "stream_options": {"include_usage": True}}
    chunks = events(http.post(f"{provider.openai_url}/chat/completions", json=body))
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 60
    assert chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 40
    chunks = events(http.post(f"{provider.openai_url}/responses", json={"model": "m", "stream": True}))
    assert chunks[-1]["type"] == "response.completed"


def test_without_a_limit_the_maximum_of_the_model_is_kept(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(usage={"tokens_input": 1, "tokens_output": 1_000_000}, times=2)
    for model, most in (("gpt-4o-mini", 16_384), ("m", 131_072)):
        found = http.post(f"{provider.openai_url}/chat/completions", json={"model": model, "messages": []}).json()
        assert found["usage"]["completion_tokens"] == most


BOOK = cycles.PriceBook({"m": cycles.Price("1", "10", reasoning="20")})


def test_the_bill_is_what_responses_cost(provider: FakeProvider, http: httpx.Client) -> None:
    body = {"model": "m", "messages": [], "max_tokens": 60}
    assert provider.bill(BOOK) == cycles.usd(0)
    provider.reply(usage={"tokens_input": 10, "tokens_output": 1000, "tokens_reasoning": 40})
    http.post(f"{provider.openai_url}/chat/completions", json=body)
    assert provider.bill(BOOK).amount == 10 * 100 + 20 * 1000 + 40 * 2000
    provider.reply(status=500).reply(drop_after=0, usage={"tokens_input": 3, "tokens_output": 5})
    for _ in range(2):
        with contextlib.suppress(httpx.HTTPError):
            http.post(f"{provider.openai_url}/chat/completions", json=body)
    assert provider.bill(BOOK).amount == 101_000 + 3 * 100 + 5 * 1000
    provider.clear()
    assert provider.bill(BOOK) == cycles.usd(0)


def test_the_bill_of_a_stream_that_is_left_has_what_was_made(provider: FakeProvider, http: httpx.Client) -> None:
    gate = threading.Event()
    usage = {"tokens_input": 10, "tokens_output": 100}
    provider.reply(text="a b c d e f g h", usage=usage, gate=gate, gate_after=5)
    body = {"model": "m", "messages": [], "stream": True}
    with http.stream("POST", f"{provider.openai_url}/chat/completions", json=body) as response:
        lines = response.iter_lines()
        while "d" not in (line := next(lines)) or '"content": " d"' not in line:
            pass
    assert provider.bill(BOOK).amount == 10 * 100 + 46 * 1000  # 5 of 11 events
    gate.set()


def test_a_model_without_a_price_has_no_bill(provider: FakeProvider, http: httpx.Client) -> None:
    http.post(f"{provider.openai_url}/chat/completions", json={"model": "unknown", "messages": []})
    with pytest.raises(cycles.UnknownModelError, match="unknown"):
        provider.bill(BOOK)
