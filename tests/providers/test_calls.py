"""Calls of every provider without an SDK: what is reserved, sent, read, and charged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import cycles
from cycles.providers._background import Retrieval, retrieval_of
from cycles.providers._bodies import check_limits, model_of, parsed_json, tier_of, was_sent, with_other_limits
from cycles.providers._call import Call
from cycles.providers._endpoints import find
from cycles.providers._held import HeldResponses
from cycles.providers._hosts import billed_by, free_hosts_of, is_free, reports_cost
from cycles.providers._meter import Meter, Sessions, behind_proxy, make_meter
from cycles.providers._provider import Endpoint, exact, provider_named
from cycles.providers._settle import end_call, open_call
from cycles.testing._reply import Reply
from tests.providers.conftest import BOOK, EXACT, USED
from tests.providers.ledgers import CHAT, ESTIMATED, MESSAGES, Ledger, chat, fake, pump, streamed, whole

GEMINI: dict[str, Any] = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 500}}
CONVERSE: dict[str, Any] = {"model": "m", "messages": MESSAGES, "inferenceConfig": {"maxTokens": 500}}
ENDPOINTS: list[tuple[str, str, dict[str, Any]]] = [
    ("openai", "/v1/chat/completions", CHAT),
    ("openai", "/v1/responses", {"model": "m", "input": "hi", "max_output_tokens": 500}),
    ("openai", "/v1/completions", {"model": "m", "prompt": "hi", "max_tokens": 500}),
    ("anthropic", "/v1/messages", CHAT),
    ("google", "models/m:generateContent", GEMINI),
    ("bedrock", "/model/m/converse", CONVERSE),
    ("bedrock", "/model/anthropic.claude-x/invoke", CHAT),
    ("bedrock", "/model/meta.llama3/invoke", {"model": "m", "prompt": "hi", "max_gen_len": 500}),
    ("groq", "/openai/v1/chat/completions", CHAT),
    ("mistral", "/v1/chat/completions", CHAT),
    ("mistral", "/v1/fim/completions", {"model": "m", "prompt": "hi", "max_tokens": 500}),
    ("cohere", "/v2/chat", CHAT),
]
IDS = [f"{name} {path}" for name, path, _ in ENDPOINTS]


# --- each provider


@pytest.mark.parametrize(("name", "path", "body"), ENDPOINTS, ids=IDS)
def test_a_whole_response_is_charged_exactly(ledger: Ledger, name: str, path: str, body: dict[str, Any]) -> None:
    call = ledger.sent(name, path, body)
    reported = whole(name, path, body, Reply(usage=USED, model="m"))
    headers = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 1000, "outputTokenCount": 100}}
    call.whole(reported, headers if "llama" in path else None)
    end_call(call)
    assert ledger.commits == [(EXACT, {})]
    assert ledger.reserved[0] > EXACT


@pytest.mark.parametrize(("name", "path", "body"), ENDPOINTS, ids=IDS)
def test_a_stream_is_charged_exactly(ledger: Ledger, name: str, path: str, body: dict[str, Any]) -> None:
    call = ledger.sent(name, path, {**body, "stream": True})
    read = pump(call, streamed(name, path, body, Reply(text="one two three", usage=USED, model="m")))
    end_call(call, read.outcome)
    assert ledger.commits == [(EXACT, {})]


@pytest.mark.parametrize(("name", "path", "body"), ENDPOINTS, ids=IDS)
def test_a_stream_that_is_left_costs_what_it_has_made(
    ledger: Ledger, name: str, path: str, body: dict[str, Any]
) -> None:
    call = ledger.sent(name, path, {**body, "stream": True})
    events = streamed(name, path, body, Reply(text="one two three four five six", usage=USED, model="m"))
    pump(call, events[:-4], ends=False)
    assert call.stream_outcome == "closed"
    end_call(call, call.stream_outcome)
    [(amount, metadata)] = ledger.commits
    assert metadata == {"outcome": "closed", **ESTIMATED}
    assert 1_000 < amount < EXACT + 1_000


@pytest.mark.parametrize(("name", "path", "body"), ENDPOINTS, ids=IDS)
def test_a_stream_that_ends_with_an_error_is_charged(
    ledger: Ledger, name: str, path: str, body: dict[str, Any]
) -> None:
    call = ledger.sent(name, path, {**body, "stream": True})
    events = streamed(name, path, body, Reply(text="one two three four", usage=USED, model="m"))
    error = (fake("openai") if name == "groq" else fake(name)).error_event(path, Reply(error="overloaded"))
    read = pump(call, [*events[:-3], error])
    assert (read.outcome, call.stream_outcome) == ("error", "error")
    end_call(call, read.outcome)
    assert ledger.metadata["outcome"] == "error"
    assert ledger.commits[0][0] > 0


@pytest.mark.parametrize(("name", "path", "body"), ENDPOINTS, ids=IDS)
def test_the_output_limit_is_the_lowest_of_all(ledger: Ledger, name: str, path: str, body: dict[str, Any]) -> None:
    def limits(body: dict[str, Any], cap: int | None = None, **options: Any) -> list[int]:
        return list(ledger.call(name, path, body, **options).limits(cap).values())

    free = {member: value for member, value in body.items() if "max" not in member and not member.endswith("Config")}
    assert limits(body) == []
    assert limits(body, 60) == [60]
    assert limits(body, 500) == []
    assert limits(body, 900) == []
    assert limits(body, 70, max_output_tokens=60) == [60]
    assert limits(free) == []
    assert limits(free, 60) == [60]
    assert limits(free, max_output_tokens=60) == [60]


@pytest.mark.parametrize("name", ["openai", "anthropic", "google", "bedrock", "groq", "mistral", "cohere"])
def test_errors_of_the_proxy_have_the_message(name: str) -> None:
    for status in (402, 500):
        assert "no budget left" in json.dumps(provider_named(name).error(status, "no budget left"))


# --- what the commit says


@pytest.mark.parametrize(
    ("members", "metadata"),
    [
        ({}, {}),
        ({"model": "m-2026-01-01"}, {"response_model": "m-2026-01-01"}),
        ({"service_tier": "default"}, {}),
        ({"service_tier": "standard"}, {}),
        ({"service_tier": "auto"}, {}),
        ({"service_tier": "flex"}, {"service_tier": "flex", "unpriced": ["service_tier:flex"]}),
        ({"output": [{"type": "file_search_call"}]}, {"unpriced": ["file_searches"]}),
    ],
)
def test_metadata_of_a_response(ledger: Ledger, members: dict[str, Any], metadata: dict[str, Any]) -> None:
    book = cycles.PriceBook({"m": cycles.Price("1", "10")})
    call = ledger.sent(prices=book)
    call.whole(chat(**members))
    end_call(call)
    assert ledger.commits == [(EXACT, metadata)]


@pytest.mark.parametrize(("lost", "answered"), [(1, True), (2, True), (2, False)])
def test_attempts_without_a_response(ledger: Ledger, lost: int, answered: bool) -> None:
    call = ledger.sent(lost_attempt="prompt")
    for _ in range(lost):
        assert call.retried(None, TimeoutError()) is False
        call.attempts += 1
    if answered:
        call.whole(chat())
        end_call(call)
    else:
        end_call(call, None, TimeoutError())
    [(amount, metadata)] = ledger.commits
    assert metadata.pop("outcome", "error") == "error"
    assert metadata == {"attempts": lost + 1, **ESTIMATED}
    prompts = lost if answered else lost + 1
    assert amount - EXACT * answered == prompts * BOOK.count_input("m", call.request.body) * 100


def test_an_attempt_with_a_status_is_not_charged(ledger: Ledger) -> None:
    call = ledger.sent()
    assert call.retried(object(), None) is False
    call.attempts += 1
    call.whole(chat())
    end_call(call)
    assert ledger.commits == [(EXACT, {})]


def test_a_lost_attempt_costs_what_was_reserved(ledger: Ledger) -> None:
    call = ledger.sent()
    assert call.retried(None, TimeoutError()) is True
    end_call(call, None, TimeoutError())
    again = call.again()
    assert (again.number, again.reserved) == (2, call.reserved)
    assert ledger.commits == [(ledger.reserved[0], {"outcome": "error", "attempts": 1, **ESTIMATED})]


def test_a_lowered_limit_is_in_the_metadata_as_it_was_sent(ledger: Ledger) -> None:
    for cap, sent in ((None, 300), (200, 200)):
        call = ledger.call()
        open_call(call)
        call.output_limit = 300
        assert call.limits(cap) == {"max_tokens": sent}
        call.attempts = 1
        call.whole(chat())
        end_call(call)
        assert ledger.commits[-1] == (EXACT, {"output_limit": sent})


def test_a_reported_cost_and_a_lost_attempt_are_both_charged(ledger: Ledger) -> None:
    call = ledger.sent(url="https://openrouter.ai/api/v1", lost_attempt="prompt")
    call.retried(None, TimeoutError())
    call.attempts += 1
    call.whole(chat({"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.00123}))
    end_call(call)
    prompt = BOOK.count_input("m", call.request.body) * 100
    assert ledger.commits == [(123_000 + prompt, {"price_source": "reported", "attempts": 2, **ESTIMATED})]


def test_each_of_two_limits_is_lowered_to_the_lower_one(ledger: Ledger) -> None:
    both = {**CHAT, "max_tokens": 50, "max_completion_tokens": 500}
    assert ledger.call(body=both).limits(100) == {"max_completion_tokens": 50}
    assert ledger.call(body=both).limits(40) == {"max_completion_tokens": 40, "max_tokens": 40}


def test_text_that_was_made_counts_at_least_what_was_reported(ledger: Ledger) -> None:
    part = b'data: {"choices":[{"delta":{"content":"%s"}}],"usage":{"completion_tokens":%d}}\n\n'
    for text, reported, counted in ((b"abcdefghij", 1, 4), (b"abc", 40, 40), (b"a", 0, 1)):
        call = ledger.sent(body={**CHAT, "stream": True})
        pump(call, [part % (text, reported)], ends=False)
        end_call(call, "closed")
        prompt = BOOK.count_input("m", call.request.body)
        assert ledger.commits[-1][0] == prompt * 100 + counted * 1000


def test_events_count_as_tokens_and_results_multiply_the_limit(ledger: Ledger) -> None:
    part = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n'
    cases: list[tuple[dict[str, Any], list[bytes], int]] = [
        ({}, [b"a"] * 7, 7),  # seven events of a byte
        ({"max_tokens": 5}, [b"x" * 300], 5),
        ({"max_tokens": 5, "n": 3}, [b"x" * 300], 15),
    ]
    for more, texts, counted in cases:
        call = ledger.sent(body={**CHAT, "stream": True, **more})
        pump(call, [part % text for text in texts], ends=False)
        end_call(call, "closed")
        assert ledger.commits[-1][0] == BOOK.count_input("m", call.request.body) * 100 + counted * 1000


def test_a_conversation_is_learned_from_calls_with_one_attempt_only(ledger: Ledger) -> None:
    long = [{"role": "user", "content": "x" * 5_000}]
    more = [*long, {"role": "assistant", "content": "y"}]

    def reserves(body: dict[str, Any], shared: Call) -> int:
        again = Call(shared.meter, shared.endpoint, shared.request.path, body, stream=False, url="")
        return again.estimate().amount

    for attempts, learns in ((2, False), (1, True)):
        call = ledger.sent(body={**CHAT, "messages": long})
        call.attempts = attempts
        call.whole(chat())
        end_call(call)
        bound = reserves({**CHAT, "messages": more}, call)
        assert (bound < 800_000) is learns


# --- the errors of wrong options


@pytest.mark.parametrize(
    ("body", "options", "error", "says"),
    [
        ({}, {"estimate": lambda request: 5}, cycles.InvalidRequestError, "estimate must return an amount such as"),
        (
            {},
            {"estimate": lambda request: cycles.Amount("CREDITS", 5)},
            cycles.InvalidRequestError,
            r"an estimate in CREDITS needs actual=: pass it to guard\(\)",
        ),
        (
            {"model": None},
            {},
            cycles.UnknownModelError,
            "a request to /chat/completions names no model: pass model=, or a price book with default_model=",
        ),
        ({"model": "unknown"}, {}, cycles.UnknownModelError, "unknown"),
        ({"max_tokens": -1}, {}, cycles.InvalidRequestError, "max_tokens must be a non-negative integer, got -1"),
        ({"max_tokens": "5"}, {}, cycles.InvalidRequestError, "max_tokens must be a non-negative integer, got '5'"),
        ({"max_tokens": True}, {}, cycles.InvalidRequestError, "max_tokens must be a non-negative integer, got True"),
    ],
)
def test_a_request_that_cannot_be_estimated(
    ledger: Ledger, body: dict[str, Any], options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ledger.call(body={**CHAT, **body}, **options)
    assert ledger.reserved == []


def test_a_call_without_prices_names_the_option(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> cycles.PriceBook:
        raise cycles.ConfigurationError("genai-prices is not installed")

    monkeypatch.setattr("cycles.providers._meter.shared_book", missing)
    with pytest.raises(cycles.InvalidRequestError, match=r"this request needs prices: pass prices= to guard\(\)"):
        ledger.call(prices=None, estimate=lambda request: cycles.usd(1))
    with pytest.raises(cycles.ConfigurationError, match="genai-prices is not installed"):
        ledger.call(prices=None, estimate=cycles.usd(1))
    assert ledger.call(prices=None, estimate=lambda request: cycles.tokens(1)).reserved == cycles.tokens(1)


@pytest.mark.parametrize("actual", [lambda usage: 5, lambda usage: cycles.tokens(5), lambda usage: 1 / 0])
def test_a_price_that_fails_settles_the_estimate(
    ledger: Ledger, actual: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    call = ledger.sent(estimate=cycles.usd(2), actual=actual)
    call.whole(chat())
    end_call(call)
    assert ledger.commits == [(cycles.usd(2).amount, ESTIMATED)]
    [record] = [each.getMessage() for each in caplog.records if "price of a request" in each.getMessage()]
    assert record.startswith("the price of a request to /chat/completions failed, its estimate is settled: ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_output_tokens": 0}, "max_output_tokens must be an integer >= 1, got 0"),
        ({"max_output_tokens": True}, "max_output_tokens must be an integer >= 1, got True"),
        ({"min_output_tokens": 0}, "min_output_tokens must be an integer >= 1, or None to lower no limit, got 0"),
        ({"wait": -1}, "wait must be seconds, 0 to .*, got -1; wait=0 denies without waiting"),
        ({"background_wait": "x"}, "background_wait must be seconds, .*; background_wait=0 settles the estimate"),
        ({"within": "x"}, "within must be 'own' or 'enclosing', got 'x'"),
        ({"unmetered": "x"}, "unmetered must be 'refuse' or 'estimate' or 'allow', got 'x'"),
        ({"lost_attempt": "x"}, "lost_attempt must be 'bound' or 'prompt', got 'x'"),
        ({"reported_cost": "x"}, "reported_cost must be 'known' or 'always' or 'never', got 'x'"),
        ({"unit": "CREDITS"}, "unit must be 'USD_MICROCENTS' or 'TOKENS', got 'CREDITS'"),
        ({"client": 1}, "client must be a cycles.Cycles, got 1"),
        ({"prices": {}}, "prices must be a cycles.PriceBook, got {}"),
        ({"estimate": 5}, "estimate must be an amount or a callable of the request, got 5"),
        ({"actual": 5}, "actual must be a callable of the usage, got 5"),
        ({"idempotency_key": "k"}, "idempotency_key must be a callable of the request, got 'k'"),
        ({"lease_policy": "cancel"}, "lease_policy must be 'warn', got 'cancel': a response that is paid is returned"),
        ({"unmetered": "estimate"}, "unmetered='estimate' needs estimate=: pass an amount or a callable"),
        ({"unit": "TOKENS", "estimate": cycles.usd(1)}, "unit= and estimate= exclude each other"),
        ({"estimate": cycles.Amount("CREDITS", 1)}, "an estimate in CREDITS needs actual=: pass a callable"),
        ({"free_hosts": "localhost"}, r"free_hosts must be a list of hosts such as \['localhost:11434'\]"),
        ({"free_hosts": ["http://x"]}, "free_hosts must have hosts such as .*, without a path, got 'http://x'"),
        ({"free_hosts": ["x:99999"]}, "free_hosts must have hosts such as .*, got 'x:99999'"),
        ({"free_hosts": [":80"]}, "free_hosts must have hosts such as .*, got ':80'"),
    ],
)
def test_a_wrong_option(options: dict[str, Any], says: str) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=says):
        make_meter("openai", "openai", {"prices": BOOK, **options})


def test_an_unknown_option_names_the_one_that_was_meant() -> None:
    with pytest.raises(TypeError, match=r"unknown option 'max_output_token'.*max_output_tokens"):
        make_meter("openai", "openai", {"prices": BOOK, "max_output_token": 5})


# --- hosts


@pytest.mark.parametrize(
    ("url", "by"),
    [
        ("", "own"),
        ("http://localhost:8080/v1", "own"),
        ("http://127.0.0.1/v1", "own"),
        ("http://localhost:11434/v1", None),
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://x.openai.azure.com", "azure"),
        ("https://x.services.ai.azure.com", "azure"),
        ("https://x.cognitiveservices.azure.com", "azure"),
        ("https://API.Anthropic.com", "anthropic"),
        ("https://generativelanguage.googleapis.com", "google"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.x.ai/v1", "x-ai"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.perplexity.ai", "perplexity"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.fireworks.ai/v1", "fireworks"),
        ("https://api.cerebras.ai/v1", "cerebras"),
        ("https://evilopenrouter.ai", None),
        ("https://openrouter.ai.evil.com", None),
        ("https://gateway.internal", None),
        ("http://[broken", "own"),
    ],
)
def test_who_bills_a_request(url: str, by: str | None) -> None:
    assert billed_by(url, "own", is_copied=True) == by
    assert billed_by(url, "own", is_copied=False) == (by or "own")
    assert reports_cost(url) is (by in ("openrouter", "perplexity", "x-ai"))


@pytest.mark.parametrize(
    ("host", "url", "free"),
    [
        ("localhost:11434", "http://localhost:11434/v1", True),
        ("localhost:11434", "http://localhost:11435/v1", False),
        ("localhost", "http://LOCALHOST:1/v1", True),
        ("localhost", "http://localhost.evil.com", False),
        ("h:443", "https://h/v1", True),
        ("h:80", "http://h/v1", True),
        ("h:80", "https://h/v1", False),
        ("*.gpu.internal", "http://a.gpu.internal:8000", True),
        ("*.gpu.internal", "http://gpu.internal:8000", False),
        ("*", "http://[broken", True),
    ],
)
def test_free_hosts(ledger: Ledger, host: str, url: str, free: bool) -> None:
    assert is_free(url, free_hosts_of([host])) is free
    call = ledger.call(url=url, free_hosts=[host])
    assert (call.reserved.amount == 0) is free


@pytest.mark.parametrize(
    ("base_url", "inside"),
    [
        ("http://127.0.0.1:1234/s/openai/v1", True),
        ("http://127.0.0.1:1234/s", True),
        ("http://127.0.0.1:1234/other/openai", False),
        ("http://127.0.0.1:1234/sx/openai", False),
        ("http://127.0.0.1:1235/s/openai", False),
        ("https://127.0.0.1:1234/s/openai", False),
        ("http://127.0.0.2:1234/s/openai", False),
    ],
)
def test_requests_to_the_proxy_are_metered_there(monkeypatch: pytest.MonkeyPatch, base_url: str, inside: bool) -> None:
    monkeypatch.setenv("CYCLES_PROXY_URL", "http://127.0.0.1:1234/s")
    assert behind_proxy(base_url) is inside
    for proxy in ("http://[x", "http://127.0.0.1:port/s", "garbage"):
        monkeypatch.setenv("CYCLES_PROXY_URL", proxy)
        assert behind_proxy(base_url) is False
    monkeypatch.delenv("CYCLES_PROXY_URL")
    assert behind_proxy(base_url) is False


def test_a_container_is_paid_by_one_call_for_twenty_minutes() -> None:
    sessions, first, second = Sessions(), object(), object()
    assert [sessions.pays("a", at, token) for at, token in ((0, first), (0, first), (1, second), (2, first))] == [
        True,
        True,
        False,
        True,
    ]
    assert sessions.pays("b", 2, second)
    assert [sessions.pays("a", at, second) for at in (1_199, 1_200, 1_201)] == [False, True, True]


# --- bodies


class StatusError(Exception):
    def __init__(self, **members: Any) -> None:
        self.__dict__.update(members)


def test_the_last_error_of_aiohttp_says_whether_an_attempt_was_sent() -> None:
    """The one before it is of an earlier attempt, or of another address of the host."""
    aiohttp: Any = pytest.importorskip("aiohttp")
    raised, lost = TimeoutError(), aiohttp.ServerDisconnectedError()
    raised.__cause__, lost.__context__ = lost, aiohttp.ConnectionTimeoutError()
    assert was_sent(raised)
    assert not was_sent(lost.__context__)


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (None, False),
        (TimeoutError(), True),
        (httpx.ReadTimeout("x"), True),
        (httpx.RemoteProtocolError("x"), True),
        (httpx.WriteError("x"), True),
        (httpx.ConnectError("x"), False),
        (httpx.ConnectTimeout("x"), False),
        (httpx.PoolTimeout("x"), False),
        (httpx.UnsupportedProtocol("x"), False),
        (httpx.InvalidURL("x"), False),
        (httpx.LocalProtocolError("x"), False),
        (RuntimeError("Cannot send a request, as the client has been closed."), False),
        (RuntimeError("x"), True),
        (StatusError(status_code=500), False),
        (StatusError(response=object()), False),
        (StatusError(code=429), False),
        *(
            (type(name, (Exception,), {})("x"), False)
            for name in (
                "ClientConnectorError",
                "EndpointConnectionError",
                "ConnectTimeoutError",
                "ProxyConnectionError",
                "ConnectionTimeoutError",
                "InvalidUrlClientError",
                "GoogleAuthError",
            )
        ),
    ],
)
def test_whether_an_attempt_was_sent(error: BaseException | None, sent: bool) -> None:
    assert was_sent(error) is sent
    if error is not None and not isinstance(error, StatusError):
        outer = Exception("the SDK's own")
        outer.__cause__ = error
        assert was_sent(outer) is sent


@pytest.mark.parametrize(
    ("body", "context"),
    [
        ({}, {}),
        ({"service_tier": "auto"}, {"service_tier": "priority"}),
        ({"service_tier": "FLEX"}, {"service_tier": "flex"}),
        ({"service_tier": {"type": "flex"}}, {"service_tier": "flex"}),
        ({"service_tier": 5}, {}),
        ({"speed": "fast"}, {"speed": "fast"}),
        ({"inference_geo": "us"}, {"inference_geo": "us"}),
        ({"inference_geo": "global"}, {}),
    ],
)
def test_what_of_a_request_selects_its_price(body: dict[str, Any], context: dict[str, str]) -> None:
    endpoint = find("openai", "POST", "/chat/completions")
    assert isinstance(endpoint, Endpoint)
    assert tier_of(endpoint, body) == context


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        ("/x", {"model": "a"}, "a"),
        ("/x", {"model": "models/a"}, "a"),
        ("models/g:generateContent", {}, "g"),
        ("models/g:generateContent", {"model": "b"}, "b"),
        ("/x", {"model": ""}, None),
        ("/x", {"model": 5}, None),
        ("/x", {}, None),
    ],
)
def test_the_model_of_a_request(path: str, body: dict[str, Any], model: str | None) -> None:
    assert model_of(path, body) == model


def test_limits_of_the_next_attempt_replace_those_of_the_last() -> None:
    names = ("inferenceConfig.maxTokens", "max_tokens")
    sent = {"inferenceConfig": {"maxTokens": 5, "temperature": 1}, "max_tokens": 7}
    assert with_other_limits(sent, names, {"max_tokens": 3}, {}) == {
        "inferenceConfig": {"temperature": 1},
        "max_tokens": 3,
    }
    original = {"inferenceConfig": {"maxTokens": 50}, "max_tokens": 70}
    assert with_other_limits(sent, names, {}, original) == {
        "inferenceConfig": {"maxTokens": 50, "temperature": 1},
        "max_tokens": 70,
    }


def test_wrong_containers_of_limits_are_named() -> None:
    endpoint = find("bedrock", "POST", "/model/m/converse")
    assert isinstance(endpoint, Endpoint)
    with pytest.raises(cycles.InvalidRequestError, match="the member that contains maxTokens must be an object, got 5"):
        check_limits(endpoint, {"inferenceConfig": 5}, least=0)
    with pytest.raises(
        cycles.InvalidRequestError, match=r"inferenceConfig\.maxTokens must be a positive integer, got 0"
    ):
        check_limits(endpoint, {"inferenceConfig": {"maxTokens": 0}}, least=1)
    check_limits(endpoint, {"inferenceConfig": {"maxTokens": 0}}, least=0)
    check_limits(endpoint, {"inferenceConfig": None}, least=1)


@pytest.mark.parametrize(
    ("value", "number"), [(0, "0"), (0.1, "1/10"), (12, "12"), (-1, "None"), (True, "None"), ("1", "None")]
)
def test_a_cost_is_an_exact_decimal(value: Any, number: str) -> None:
    assert str(exact(value)) == number


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -0.5, None])
def test_what_is_no_cost(value: Any) -> None:
    assert exact(value) is None


DEEP = b'{"a":' * 50_000 + b"1" + b"}" * 50_000


def test_a_response_that_is_nested_too_deeply_is_charged_its_estimate(ledger: Ledger) -> None:
    call = ledger.sent()
    call.whole(DEEP)
    end_call(call)
    assert ledger.commits == [(ledger.reserved[0], ESTIMATED)]


def test_an_event_that_is_nested_too_deeply_is_skipped(ledger: Ledger) -> None:
    call = ledger.sent(body={**CHAT, "stream": True})
    deep = b'data: {"usage":%s}\n\n' % DEEP
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100}}\n\n'
    end_call(call, pump(call, [deep, usage, b"data: [DONE]\n\n"]).outcome)
    assert ledger.commits == [(EXACT, {})]


def test_a_body_that_is_no_json() -> None:
    assert parsed_json(DEEP) is None
    assert parsed_json(b"{") is None
    assert parsed_json("[1]") == [1]


# --- responses that are made in the background


@pytest.fixture
def begun(ledger: Ledger) -> Call:
    call = ledger.call(path="/responses", body={"model": "m", "input": "hi", "background": True})
    call.held_in = HeldResponses()
    open_call(call)
    call.attempts = 1
    call.whole(response("queued", "resp_1"))
    end_call(call)
    assert ledger.commits == []
    return call


def response(status: str, name: str, **members: Any) -> bytes:
    used = {"input_tokens": 1000, "output_tokens": 100} if status not in ("queued", "in_progress") else None
    return json.dumps({"id": name, "model": "m", "status": status, "usage": used, **members}).encode()


def retrieval(call: Call, method: str = "GET", path: str = "/responses/resp_1") -> Retrieval:
    assert call.held_in is not None
    found = retrieval_of(call.held_in, "openai", method, path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("content", "ends"),
    [
        (response("completed", "resp_1"), True),
        (response("failed", "resp_1"), True),
        (response("in_progress", "resp_1"), False),
        (response("queued", "resp_1"), False),
        (response("completed", "resp_2"), False),
        (response("unknown", "resp_1"), False),
        (b"no json", False),
        (b"[]", False),
    ],
)
def test_a_retrieval_ends_the_call_of_its_own_response_only(
    ledger: Ledger, begun: Call, content: bytes, ends: bool
) -> None:
    got = retrieval(begun)
    got.whole(content)
    end_call(got)
    assert ledger.commits == ([(EXACT, {})] if ends else [])
    if not ends:
        last = retrieval(begun)
        last.whole(response("completed", "resp_1"))
        end_call(last)
        assert ledger.commits == [(EXACT, {})]


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_delete_ends_the_call_if_it_succeeds(ledger: Ledger, begun: Call, succeeds: bool) -> None:
    got = retrieval(begun, "delete")
    if succeeds:
        got.whole(b"{}")
    end_call(got)
    assert ledger.commits == ([(ledger.reserved[0], ESTIMATED)] if succeeds else [])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/responses/resp_1", True),
        ("/v1/responses/resp_1", True),
        ("/responses/resp_1/cancel", True),
        ("/responses/resp%5F1", True),
        ("/responses/resp_2", False),
        ("/responses/resp_1/input_items", False),
        ("/responses", False),
    ],
)
def test_which_requests_are_retrievals(begun: Call, path: str, found: bool) -> None:
    assert begun.held_in is not None
    assert (retrieval_of(begun.held_in, "openai", "GET", path) is not None) is found


def test_a_stream_that_is_resumed_ends_the_call(ledger: Ledger, begun: Call) -> None:
    for status, name, commits in (
        ("in_progress", "resp_1", 0),
        ("completed", "resp_2", 0),
        ("completed", "resp_1", 1),
    ):
        got = retrieval(begun)
        event = b'event: response.x\ndata: {"type":"response.%s","response":%s}\n\n'
        content = event % (status.encode(), response(status, name))
        assert got.stream().feed(content) == content
        end_call(got)
        assert len(ledger.commits) == commits
    assert ledger.commits == [(EXACT, {})]


def test_a_response_that_is_not_made_in_the_background_ends_its_call(ledger: Ledger) -> None:
    call = ledger.call(path="/responses", body={"model": "m", "input": "hi"})
    call.held_in = HeldResponses()
    open_call(call)
    call.attempts = 1
    call.whole(response("in_progress", "resp_1"))
    end_call(call)
    assert (len(ledger.commits), call.held_in.is_empty) == (1, True)


def test_a_stream_of_a_retrieval_is_forwarded_unchanged(begun: Call) -> None:
    got = retrieval(begun)
    used = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
    assert got.stream().feed(used) == used
    assert (got.usage_event, got.stream_outcome, got.streams) == (False, None, False)


def test_the_meter_of_a_framework_reserves_nothing_itself() -> None:
    meter = Meter(provider="openai", pricing="openai", unmetered="allow", only_paid=True)
    assert meter.endpoint("POST", "/chat/completions", "https://api.openai.com/v1") is None
