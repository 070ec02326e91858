"""Attempts that were sent and got no status: each costs what was reserved, and the next one is reserved first."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles.providers._bodies import with_other_limits
from tests.providers.conftest import (
    EXACT,
    USED,
    Anthropic,
    AsyncAnthropic,
    AsyncGemini,
    AsyncOpenAI,
    Bedrock,
    Desk,
    Gemini,
    OpenAI,
    Responses,
    Sdk,
    bedrock_client,
)

LIMIT_OF: dict[str, dict[str, Any]] = {
    "bedrock": {"inferenceConfig": {"maxTokens": 500}},
    "google": {"config": {"max_output_tokens": 500}},
}
NAMES_OF_LIMIT = ("max_tokens", "maxTokens", "maxOutputTokens")
LOST = {"actual_source": "estimate", "outcome": "error", "attempts": 1}
RETRYING = (OpenAI, Responses, Anthropic, Gemini, Bedrock, AsyncOpenAI, AsyncAnthropic, AsyncGemini)


@pytest.fixture(params=RETRYING, ids=lambda cls: cls.__name__)
def retrying(request: pytest.FixtureRequest, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Sdk:
    """Each SDK, with two retries of its own and without a pause before them."""
    return with_retries(request.param(desk), monkeypatch)


def with_retries(sdk: Sdk, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Sdk:
    if sdk.name == "bedrock":
        monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
        sdk.llm = sdk.desk.guard(bedrock_client(sdk.desk.provider.url_of("bedrock"), attempts=3), **options)
        return sdk
    if sdk.name != "google":
        cls = next(base for base in type(sdk.original).__mro__ if "_calculate_retry_timeout" in vars(base))
        monkeypatch.setattr(cls, "_calculate_retry_timeout", lambda *args, **kwargs: 0)
        sdk.llm = sdk.desk.guard(sdk.original.with_options(max_retries=2), **options)
        return sdk
    api: Any = pytest.importorskip("google.genai._api_client")
    if not hasattr(api, "_HTTPX_TRANSIENT_EXC"):
        pytest.skip("this version of google-genai retries no broken connection")
    broken = tuple(each.TransportError for each in (api.httpx, api.httpx2) if each is not None)
    monkeypatch.setattr(api, "_HTTPX_TRANSIENT_EXC", broken)  # else the SDK retries timeouts only
    monkeypatch.setattr(api.tenacity, "wait_exponential_jitter", lambda **kwargs: api.tenacity.wait_none())
    genai: Any = pytest.importorskip("google.genai")
    url = sdk.desk.provider.google_url
    original = genai.Client(api_key="k", http_options={"base_url": url, "retry_options": {"attempts": 3}})
    sdk.desk.originals.append(original)
    sdk.llm = sdk.desk.guard(original, **options)
    return sdk


def test_a_lost_attempt_costs_its_bound_and_the_next_is_reserved(retrying: Sdk) -> None:
    desk = retrying.desk
    desk.provider.reply(drop_after=0).reply(drop_after=0).reply(usage=USED)
    retrying.complete(prompt="p" * 600)
    bound, *others = desk.reserved
    assert others == [bound, bound]
    assert desk.commits == [(bound, LOST), (bound, LOST), (EXACT, {})]
    assert desk.held == 0


def test_a_request_that_is_lost_for_good_costs_each_attempt(retrying: Sdk) -> None:
    desk = retrying.desk
    desk.provider.reply(drop_after=0, times=3)
    with pytest.raises(Exception) as raised:
        retrying.complete()
    assert not isinstance(raised.value, cycles.CyclesError)
    assert desk.commits == [(desk.reserved[0], LOST)] * 3
    assert desk.held == 0


def test_a_retry_that_does_not_fit_is_denied_and_the_lost_attempt_stays_charged(
    retrying: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = retrying.desk
    with_retries(retrying, monkeypatch, wait=0, max_output_tokens=500)
    desk.server.ledger.set_budget("tenant:acme", cycles.Amount("USD_MICROCENTS", 700_000))
    desk.provider.reply(drop_after=0)
    with pytest.raises(cycles.BudgetExceededError):
        retrying.complete()
    assert len(desk.provider.requests) == 1
    assert desk.commits == [(desk.reserved[0], LOST)]
    assert desk.held == 0


@pytest.mark.parametrize("make", [OpenAI, Anthropic, Bedrock, AsyncOpenAI, AsyncAnthropic, Gemini, AsyncGemini])
def test_a_retry_gets_the_output_limit_that_it_has_reserved(
    make: type[Sdk], desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = with_retries(make(desk), monkeypatch, min_output_tokens=10)
    desk.server.ledger.set_budget("tenant:acme", cycles.Amount("USD_MICROCENTS", 900_000))
    desk.provider.reply(drop_after=0).reply(usage={"tokens_input": 10, "tokens_output": 10})
    sdk.complete(**LIMIT_OF.get(sdk.name, {"max_tokens": 500}))
    bodies: list[Any] = [request.body for request in desk.provider.requests]
    places = [body.get("inferenceConfig") or body.get("generationConfig") or body for body in bodies]
    first, second = [next(place[name] for name in NAMES_OF_LIMIT if name in place) for place in places]
    assert first == 500
    assert 10 <= second < 500
    lost, last = desk.commits
    assert lost == (desk.reserved[0], LOST)
    assert last == (10 * 100 + 10 * 1_000, {"output_limit": second})


@pytest.mark.parametrize("make", [OpenAI, Anthropic, AsyncOpenAI, AsyncAnthropic])
def test_a_retry_that_fits_has_the_limit_of_the_program_again(
    make: type[Sdk], desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = with_retries(make(desk), monkeypatch, min_output_tokens=10, wait=0)
    desk.server.ledger.set_budget("tenant:acme", cycles.Amount("USD_MICROCENTS", 1_000_000))
    held = desk.client.reserve(cycles.Amount("USD_MICROCENTS", 700_000), action=("a", "b")).acquire()

    def pause(*_: Any, **__: Any) -> float:
        held.release()
        return 0

    cls = next(base for base in type(sdk.original).__mro__ if "_calculate_retry_timeout" in vars(base))
    monkeypatch.setattr(cls, "_calculate_retry_timeout", pause)
    desk.provider.reply(drop_after=0).reply(usage={"tokens_input": 10, "tokens_output": 10})
    sdk.complete(max_tokens=500)
    first, second = [request.body["max_tokens"] for request in desk.provider.requests]
    assert 10 <= first < 500
    assert second == 500


def test_the_guard_around_a_request_pays_the_prompt_of_its_lost_attempt_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"within": "enclosing", "lost_attempt": "prompt", "max_output_tokens": 500}
    sdk = with_retries(OpenAI(desk), monkeypatch, **options)
    desk.provider.reply(drop_after=0).reply(usage=USED)
    with desk.client.reserve(cycles.usd(1), action=("agent", "run")) as outer:
        sdk.complete()
        lost = outer.usage.tokens_input - 1_000
        assert lost > 0
        assert outer.spent == cycles.usd_microcents(EXACT + 100 * lost)
        outer.commit()


def test_a_denied_retry_waits_for_the_calls_in_flight(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    sdk = with_retries(OpenAI(desk), monkeypatch, min_output_tokens=None)
    desk.server.ledger.set_budget("tenant:acme", cycles.Amount("USD_MICROCENTS", 1_300_000))
    desk.provider.reply(usage=USED, gate=gate).reply(drop_after=0).reply(usage=USED)
    other = threading.Thread(target=sdk.complete, kwargs={"max_tokens": 500})
    other.start()
    while not desk.provider.requests:
        other.join(0.01)

    def waits(meter: Any, request: Any) -> None:
        gate.set()  # the first call ends only when the retry of the second one waits

    monkeypatch.setattr("cycles.providers._meter.Meter.report_wait", waits)
    sdk.complete(max_tokens=500)
    other.join(60)
    assert sorted(amount for amount, _ in desk.commits) == sorted([EXACT, EXACT, desk.reserved[1]])


def test_attempts_with_a_status_share_a_reservation_with_the_lost_one(retrying: Sdk) -> None:
    desk = retrying.desk
    desk.provider.reply(status=500, headers={"retry-after-ms": "1"}).reply(drop_after=0).reply(usage=USED)
    retrying.complete()
    bound = desk.reserved[0]
    assert desk.reserved == [bound, bound]
    assert desk.commits == [(bound, {**LOST, "attempts": 2}), (EXACT, {})]


def test_a_retry_of_aiohttp_inside_an_attempt_is_reserved(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    api: Any = pytest.importorskip("google.genai._api_client")
    original = asyncio.sleep
    monkeypatch.setattr(api.asyncio, "sleep", lambda seconds, *args: original(0, *args))
    sdk = AsyncGemini(desk)
    desk.provider.reply(drop_after=0).reply(usage=USED)
    sdk.complete()
    bound = desk.reserved[0]
    assert desk.reserved == [bound, bound]
    assert desk.commits == [(bound, LOST), (EXACT, {})]


def test_prompt_charges_an_estimate_of_the_prompt(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (OpenAI, AsyncOpenAI):
        sdk = with_retries(make(desk), monkeypatch, lost_attempt="prompt")
        desk.provider.reply(drop_after=0).reply(usage=USED)
        sdk.complete(prompt="p" * 600)
        amount, metadata = desk.commits[-1]
        assert metadata == {"actual_source": "estimate", "attempts": 2}
        assert EXACT + 200 * 100 < amount < EXACT + 240 * 100
    assert len(desk.reserved) == 2


def test_each_reservation_of_a_request_has_its_own_key(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = iter(["first"] * 2 + ["k" * 256] * 2)
    sdk = with_retries(OpenAI(desk), monkeypatch, idempotency_key=lambda request: next(keys))
    for _ in range(2):
        desk.provider.reply(drop_after=0).reply(usage=USED)
        sdk.complete()
    sent = [request.json["idempotency_key"] for request in desk.server.requests.of("reserve")]
    assert sent[:3] == ["first", "first:2", "k" * 256]
    assert len(sent[3]) == 64
    assert [amount for amount, _ in desk.commits] == [desk.reserved[0], EXACT] * 2


def test_an_enclosing_guard_pays_each_attempt(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = with_retries(OpenAI(desk), monkeypatch, within="enclosing", max_output_tokens=500)
    desk.provider.reply(drop_after=0).reply(usage=USED)
    with desk.client.reserve(cycles.usd(1), action=("agent.run", "a")) as guard:
        sdk.complete()
        assert guard.spent is not None
        lost = guard.spent.amount - EXACT
        guard.commit()
    assert 500 * 1_000 < lost < 600 * 1_000
    assert len(desk.reserved) == 1


def test_a_whole_response_that_is_not_read_to_its_end_costs_its_bound(desk: Desk) -> None:
    sdk = OpenAI(desk)
    desk.provider.reply(usage=USED)
    chat = sdk.llm.chat.completions
    with chat.with_streaming_response.create(model="m", messages=[], max_tokens=500):
        pass
    assert desk.commits == [(desk.reserved[0], {"actual_source": "estimate", "outcome": "closed"})]


def test_an_interrupted_pause_charges_the_lost_attempt_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = with_retries(OpenAI(desk), monkeypatch)

    def interrupted(*args: Any, **kwargs: Any) -> float:
        raise KeyboardInterrupt

    cls = next(base for base in type(sdk.original).__mro__ if "_calculate_retry_timeout" in vars(base))
    monkeypatch.setattr(cls, "_calculate_retry_timeout", interrupted)
    desk.provider.reply(drop_after=0)
    with contextlib.suppress(KeyboardInterrupt):
        sdk.complete()
    assert desk.commits == [(desk.reserved[0], LOST)]
    assert (len(desk.reserved), desk.held) == (1, 0)
    desk.provider.reply(status=503)
    with contextlib.suppress(KeyboardInterrupt):
        sdk.complete()
    assert len(desk.reserved) == 2
    assert (desk.commits, desk.held) == ([(desk.reserved[0], LOST)], 0)  # the attempt with a status costs nothing


def test_a_wrong_value_is_rejected_at_guard(desk: Desk) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="lost_attempt must be 'bound' or 'prompt', got 'free'"):
        OpenAI(desk, lost_attempt="free")


def test_limits_of_an_earlier_attempt_are_replaced() -> None:
    names = ("max_completion_tokens", "max_tokens")
    assert with_other_limits({"max_tokens": 10, "n": 1}, names, {}, {"max_tokens": 99}) == {"max_tokens": 99, "n": 1}
    assert with_other_limits({"max_completion_tokens": 10}, names, {}, {}) == {}
    assert with_other_limits({}, names, {"max_completion_tokens": 7}, {}) == {"max_completion_tokens": 7}
    sent = {"generationConfig": {"maxOutputTokens": 10, "topK": 1}}
    deep = ("generationConfig.maxOutputTokens",)
    assert with_other_limits(sent, deep, {}, {}) == {"generationConfig": {"topK": 1}}
    assert with_other_limits(sent, deep, {deep[0]: 7}, {})["generationConfig"]["maxOutputTokens"] == 7
    assert sent["generationConfig"]["maxOutputTokens"] == 10
