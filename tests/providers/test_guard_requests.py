"""What a guarded client does before it sends: endpoints, limits, options; and the ways to read a response."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.providers import guard
from tests.providers.conftest import BOOK, EXACT, USED, Anthropic, AsyncOpenAI, Desk, Gemini, OpenAI, Responses, Sdk


def sent(desk: Desk) -> Any:
    """The body of the last request that the provider received."""
    return desk.provider.requests[-1].body


def limit_of(sdk: Sdk) -> Any:
    body = sent(sdk.desk)
    if sdk.name == "google":
        return body.get("generationConfig", {}).get("maxOutputTokens")
    names = {"openai": ("max_completion_tokens", "max_tokens"), "responses": ("max_output_tokens",)}
    return next((body[name] for name in names.get(sdk.name, ("max_tokens",)) if name in body), None)


def with_limit(sdk: Sdk, limit: int) -> dict[str, Any]:
    if sdk.name == "google":
        return {"config": {"max_output_tokens": limit}}
    return {{"openai": "max_completion_tokens", "responses": "max_output_tokens"}.get(sdk.name, "max_tokens"): limit}


# --- limits


def test_caps_lower_the_output_limit(sdk: Sdk) -> None:
    sdk.desk.server.ledger.set_budget("tenant:acme", cycles.usd(10), caps={"max_tokens": 77})
    sdk.complete()
    assert limit_of(sdk) == 77
    sdk.complete(**with_limit(sdk, 50))
    assert limit_of(sdk) == 50
    sdk.complete(**with_limit(sdk, 200))
    assert limit_of(sdk) == 77


def test_max_output_tokens_is_default_and_ceiling(sdk: Sdk) -> None:
    limited = type(sdk)(sdk.desk, max_output_tokens=60)
    limited.complete(**(with_limit(sdk, 60) if sdk.name == "anthropic" else {}))
    assert limit_of(limited) == 60
    limited.complete(**with_limit(sdk, 200))
    assert limit_of(limited) == 60
    assert all(amount < 100 * 1_000 for amount in sdk.desk.reserved)


def test_without_caps_no_limit_is_added_and_one_record_reports_it(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cycles")
    llm = OpenAI(desk)
    for _ in range(2):
        llm.complete()
    assert limit_of(llm) is None
    records = [record for record in caplog.records if "sets no output limit" in record.getMessage()]
    assert [record.levelname for record in records] == ["INFO"]
    assert desk.reserved[0] == (len('{"messages":[{"role":"user","content":"hi"}],"model":"m"}') * 100 + 4096 * 1000)


def test_a_limit_in_the_extra_body_is_the_one_that_is_lowered(desk: Desk) -> None:
    llm = OpenAI(desk, max_output_tokens=10)
    llm.complete(extra_body={"max_tokens": 500})
    assert sent(desk)["max_tokens"] == 10
    assert "max_completion_tokens" not in sent(desk)


def test_the_users_body_is_not_changed(desk: Desk) -> None:
    config = {"max_output_tokens": 500}
    Gemini(desk, max_output_tokens=10).complete(config=config)
    assert config == {"max_output_tokens": 500}
    extra = {"max_tokens": 500}
    OpenAI(desk, max_output_tokens=10).complete(extra_body=extra)
    assert extra == {"max_tokens": 500}


def test_a_thinking_budget_without_space_is_rejected_and_released(desk: Desk) -> None:
    desk.server.ledger.set_budget("tenant:acme", cycles.usd(10), caps={"max_tokens": 1024})
    thinking = {"type": "enabled", "budget_tokens": 1024}
    with pytest.raises(cycles.InvalidRequestError, match=r"leaves no space for thinking\.budget_tokens=1024"):
        Anthropic(desk).complete(max_tokens=5000, thinking=thinking)
    assert desk.provider.requests == []
    assert (desk.releases, desk.held) == (["provider_call_failed:InvalidRequestError"], 0)


# --- endpoints


ENDPOINTS: list[tuple[type[Sdk], Any, str, str, dict[str, int], int]] = [
    (OpenAI, lambda llm: llm.completions.create(model="m", prompt="x"), "/completions", "llm.completion", USED, EXACT),
    (OpenAI, lambda llm: llm.embeddings.create(model="m", input="x"), "/embeddings", "llm.embedding", USED, 100_000),
    (OpenAI, lambda llm: llm.images.generate(model="m", prompt="x"), "/images/generations", "llm.image", USED, EXACT),
    (
        OpenAI,
        lambda llm: llm.images.edit(model="m", prompt="x", image=("a.png", b"x")),
        "/images/edits",
        "llm.image",
        USED,
        EXACT,
    ),
    (
        OpenAI,
        lambda llm: llm.audio.transcriptions.create(model="m", file=("a.mp3", b"x" * 5000)),
        "/audio/transcriptions",
        "llm.audio",
        USED,
        EXACT,
    ),
    (
        Anthropic,
        lambda llm: llm.beta.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}], betas=["x"]
        ),
        "/v1/messages",
        "llm.completion",
        USED,
        EXACT,
    ),
    (
        Gemini,
        lambda llm: llm.models.embed_content(model="m", contents="x"),
        ":batchEmbedContents",
        "llm.embedding",
        USED,
        100_000,
    ),
]


@pytest.mark.parametrize(
    ("make", "send", "path", "action", "usage", "price"), ENDPOINTS, ids=[endpoint[2] for endpoint in ENDPOINTS]
)
def test_endpoint(
    desk: Desk, make: type[Sdk], send: Any, path: str, action: str, usage: dict[str, int], price: int
) -> None:
    desk.provider.reply(usage=usage)
    send(make(desk).llm)
    assert desk.provider.requests[-1].path.endswith(path)
    assert desk.server.requests.of("reserve")[-1].json["action"] == {"kind": action, "name": "m"}
    assert [amount for amount, _ in desk.commits] == [price]
    assert desk.reserved[0] > 0


def test_speech_is_exact_by_its_characters(desk: Desk) -> None:
    book = cycles.PriceBook({"tts": cycles.Price(0, 0, per_call={"characters_input": "0.000015"})})
    llm = OpenAI(desk, prices=book)
    llm.llm.audio.speech.create(model="tts", voice="alloy", input="x" * 100)
    assert desk.commits == [(100 * 1500, {})]
    assert desk.reserved == [100 * 1500]


def test_a_transcription_is_exact_by_its_seconds(desk: Desk) -> None:
    book = cycles.PriceBook({"whisper": cycles.Price(0, 0, per_call={"audio_ms": "0.0000001"})})
    desk.provider.reply(usage={"audio_ms": 1500})
    OpenAI(desk, prices=book).llm.audio.transcriptions.create(model="whisper", file=("a.mp3", b"x" * 10_001))
    assert desk.reserved == [6000 * 10]  # a second for each 2,000 bytes
    assert desk.commits == [(1500 * 10, {})]


def test_free_requests_are_untouched(desk: Desk) -> None:
    llm = OpenAI(desk).llm
    llm.moderations.create(input="x")
    llm.models.list()
    Anthropic(desk).llm.messages.count_tokens(model="m", messages=[{"role": "user", "content": "x"}])
    Gemini(desk).llm.models.count_tokens(model="m", contents="x")
    assert len(desk.provider.requests) == 4
    assert desk.reserved == []


def batch(llm: Any) -> Any:
    return llm.batches.create(completion_window="24h", endpoint="/v1/chat/completions", input_file_id="f")


def test_unmetered_requests_are_rejected_before_they_are_sent(desk: Desk) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"/batches.*unmetered='estimate'.*unmetered='allow'"):
        batch(OpenAI(desk, estimate=cycles.usd(1)).llm)
    with pytest.raises(cycles.InvalidRequestError, match="/v1/messages/batches"):
        Anthropic(desk).llm.messages.batches.create(requests=[])
    with pytest.raises(cycles.InvalidRequestError, match="cachedContents"):
        Gemini(desk).llm.caches.create(model="m", config={"contents": "x"})
    with pytest.raises(cycles.InvalidRequestError, match="/a/new/endpoint"):
        OpenAI(desk).llm.post("/a/new/endpoint", cast_to=object, body={})
    assert (desk.provider.requests, desk.reserved) == ([], [])


def test_unmetered_requests_at_an_estimate(desk: Desk) -> None:
    batch(OpenAI(desk, unmetered="estimate", estimate=cycles.usd(1)).llm)
    assert desk.commits == [(cycles.usd(1).amount, {"actual_source": "estimate"})]


def test_unmetered_requests_that_are_allowed(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    llm = OpenAI(desk, unmetered="allow").llm
    batch(llm)
    batch(llm)
    assert desk.reserved == []
    assert [record.levelname for record in caplog.records if "/batches" in record.getMessage()] == ["WARNING"]


def test_websockets_are_rejected(desk: Desk) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"realtime\.connect"):
        OpenAI(desk).llm.realtime.connect(model="m")
    gemini = Gemini(desk).llm
    with pytest.raises(cycles.InvalidRequestError, match=r"live\.connect"):
        gemini.aio.live.connect(model="m")
    if hasattr(type(gemini), "interactions"):
        with pytest.raises(cycles.InvalidRequestError, match="interactions"):
            _ = gemini.interactions


def test_an_absolute_address_is_looked_up_by_its_path(desk: Desk) -> None:
    llm = OpenAI(desk).llm
    desk.provider.reply(usage=USED)
    llm.post(f"{desk.provider.openai_url}/chat/completions", cast_to=object, body={"model": "m", "messages": []})
    assert desk.commits == [(EXACT, {})]


def test_a_background_response_is_settled_at_its_estimate(desk: Desk) -> None:
    Responses(desk).complete(background=True)
    assert desk.commits == [(desk.reserved[0], {"actual_source": "estimate"})]


def test_azure_deployments_and_their_prices(desk: Desk) -> None:
    openai: Any = pytest.importorskip("openai")
    azure = openai.AzureOpenAI(api_key="k", azure_endpoint=desk.provider.url, api_version="2024-10-21", max_retries=0)
    desk.provider.reply(usage=USED)
    desk.guard(azure).chat.completions.create(model="m", messages=[])
    assert desk.provider.requests[-1].path == "/openai/deployments/m/chat/completions"
    assert desk.commits == [(EXACT, {})]
    azure.close()


# --- retries


def test_one_reservation_covers_all_attempts(desk: Desk) -> None:
    for make in (OpenAI, Anthropic):
        llm = make(desk)
        desk.provider.reply(status=500, headers={"retry-after-ms": "1"}).reply(usage=USED)
        llm.llm = llm.llm.with_options(max_retries=2)
        llm.complete()
    assert len(desk.provider.requests) == 4
    assert len(desk.reserved) == 2
    assert desk.commits == [(EXACT, {})] * 2


def test_an_attempt_without_a_status_is_added(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    llm = OpenAI(desk)
    llm.llm = llm.llm.with_options(max_retries=1)
    desk.provider.reply(drop_after=0).reply(usage=USED)
    llm.complete(prompt="p" * 600)
    ((amount, metadata),) = desk.commits
    assert metadata == {"actual_source": "estimate", "attempts": 2}
    assert EXACT + 200 * 100 < amount < EXACT + 240 * 100


# --- ways to read


def test_raw_responses(desk: Desk) -> None:
    desk.provider.reply(text="raw", usage=USED, times=4)
    chat = OpenAI(desk).llm.chat.completions
    assert chat.with_raw_response.create(model="m", messages=[]).parse().choices[0].message.content == "raw"
    assert desk.commits == [(EXACT, {})]
    with chat.with_streaming_response.create(model="m", messages=[]) as response:
        assert response.parse().choices[0].message.content == "raw"
    assert desk.commits == [(EXACT, {})] * 2
    with chat.with_streaming_response.create(model="m", messages=[], stream=True) as response:
        lines = list(response.iter_lines())
    assert desk.commits == [(EXACT, {})] * 3
    assert not any("prompt_tokens" in line for line in lines)
    messages = Anthropic(desk).llm.messages
    raw = messages.with_raw_response.create(model="m", max_tokens=9, messages=[])
    assert raw.parse().content[0].text == "raw"
    assert desk.commits == [(EXACT, {})] * 4


def test_helper_streams(desk: Desk) -> None:
    desk.provider.reply(text="a b c", usage=USED, times=3)
    with OpenAI(desk).llm.chat.completions.stream(model="m", messages=[]) as stream:
        assert stream.get_final_completion().choices[0].message.content == "a b c"
    with OpenAI(desk).llm.responses.stream(model="m", input="x") as responses:
        assert responses.get_final_response().output_text == "a b c"
    with Anthropic(desk).llm.messages.stream(model="m", max_tokens=99, messages=[]) as messages:
        assert messages.get_final_text() == "a b c"
    assert desk.commits == [(EXACT, {})] * 3


def test_leaving_a_helper_stream_early(desk: Desk) -> None:
    for make in (OpenAI, Anthropic):
        desk.provider.reply(text="a b c d e f", usage=USED)
        llm = make(desk).llm
        resource = llm.chat.completions if make is OpenAI else llm.messages
        more: dict[str, Any] = {} if make is OpenAI else {"max_tokens": 99}
        with resource.stream(model="m", messages=[], **more) as stream:
            next(iter(stream))
    assert [metadata["outcome"] for _, metadata in desk.commits] == ["closed", "closed"]


def test_parsed_responses_and_tool_calls(desk: Desk) -> None:
    desk.provider.reply(text='{"city": "Ulm"}', usage=USED).reply(text="", tool_calls=[("f", {"x": 1})], usage=USED)
    pydantic: Any = pytest.importorskip("pydantic")
    place = pydantic.create_model("Place", city=(str, ...))
    llm = OpenAI(desk)
    parsed = llm.llm.chat.completions.parse(model="m", messages=[], response_format=place)
    assert parsed.choices[0].message.parsed.city == "Ulm"
    assert llm.complete().choices[0].message.tool_calls[0].function.name == "f"
    assert desk.commits == [(EXACT, {})] * 2


def test_a_response_that_fails_to_parse_is_paid(desk: Desk) -> None:
    desk.provider.reply(text="not json", usage=USED)
    pydantic: Any = pytest.importorskip("pydantic")
    place = pydantic.create_model("Place", city=(str, ...))
    with pytest.raises(pydantic.ValidationError):
        OpenAI(desk).llm.chat.completions.parse(model="m", messages=[], response_format=place)
    assert [amount for amount, _ in desk.commits] == [EXACT]


def test_the_usage_event_is_shown_only_to_those_who_asked(desk: Desk) -> None:
    llm = OpenAI(desk)
    desk.provider.reply(text="a b", usage=USED, times=3)
    assert all(chunk.choices for chunk in llm.stream())
    assert sent(desk)["stream_options"] == {"include_usage": True}
    asked = list(llm.stream(stream_options={"include_usage": True}))
    assert asked[-1].usage.prompt_tokens == 1000
    assert desk.commits == [(EXACT, {})] * 2
    assert all(chunk.choices for chunk in llm.stream(stream_options={"include_usage": False}))
    assert desk.commits[-1][1] == {"actual_source": "estimate"}


@pytest.mark.parametrize("make", [OpenAI, AsyncOpenAI])
def test_a_stream_that_is_left_after_its_finish_reason_is_exact(desk: Desk, make: Any) -> None:
    desk.provider.reply(text="a b", usage=USED)
    assert make(desk).read(4) == 4  # the role, two words, the finish reason
    assert desk.commits == [(EXACT, {})]


def test_a_usage_event_that_does_not_come_in_time_is_not_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles.providers._pump._DRAIN_S", 0.05)
    gate = threading.Event()
    desk.provider.reply(text="a b", usage=USED, gate=gate, gate_after=4)
    OpenAI(desk).read(4)
    gate.set()
    ((_, metadata),) = desk.commits
    assert metadata == {"actual_source": "estimate", "outcome": "closed"}


def test_a_stream_in_a_reference_cycle_is_settled(desk: Desk) -> None:
    desk.provider.reply(text="a b c", usage=USED)
    stream = OpenAI(desk).stream()
    next(iter(stream))
    cycle: dict[str, Any] = {"stream": stream}
    cycle["self"] = cycle
    del stream, cycle
    gc.collect()
    desk.settle_dropped()
    assert [metadata["outcome"] for _, metadata in desk.commits] == ["closed"]


def test_an_async_stream_that_is_dropped_without_a_loop_is_settled(desk: Desk) -> None:
    desk.provider.reply(text="a b c", usage=USED)
    llm = AsyncOpenAI(desk)
    stream = desk.runner.run(llm.astream())
    del stream
    desk.settle_dropped()
    assert [metadata["outcome"] for _, metadata in desk.commits] == ["closed"]


def test_a_client_with_its_own_http_client(desk: Desk) -> None:
    import httpx

    openai: Any = pytest.importorskip("openai")
    newest = int(openai.__version__.partition(".")[0]) >= 3  # older versions take httpx only
    for module in [httpx, *([pytest.importorskip("httpx2")] if newest else [])]:
        with module.Client() as http:
            llm = openai.OpenAI(api_key="k", base_url=desk.provider.openai_url, http_client=http)
            desk.provider.reply(usage=USED, times=2)
            guarded = desk.guard(llm)
            guarded.chat.completions.create(model="m", messages=[])
            assert list(guarded.chat.completions.create(model="m", messages=[], stream=True))
        assert desk.commits[-2:] == [(EXACT, {})] * 2


# --- options


def test_the_original_client_is_untouched(sdk: Sdk) -> None:
    original = sdk.original
    assert type(sdk.llm) is not type(original)
    assert isinstance(sdk.llm, type(original))
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(type(sdk.llm), name) == getattr(type(original), name)
    guarded, sdk.llm = sdk.llm, original
    sdk.complete()
    assert sdk.desk.reserved == []
    del guarded
    gc.collect()
    sdk.complete()
    assert len(sdk.desk.provider.requests) == 2


def test_copies_stay_guarded(desk: Desk) -> None:
    for make in (OpenAI, Anthropic):
        llm = make(desk)
        for copied in (llm.llm.with_options(timeout=5), llm.llm.copy()):
            llm.llm = copied
            llm.complete()
    assert len(desk.commits) == 4


def test_callables_get_the_request(desk: Desk) -> None:
    seen: list[Any] = []

    def note(request: Any) -> cycles.Amount:
        seen.append(request)
        return cycles.usd(1)

    llm = OpenAI(
        desk,
        estimate=note,
        action=lambda request: ("tool", f"{request.endpoint} {request.model}"),
        metadata=lambda request: {"stream": request.stream},
        subject=lambda request: {"tenant": "acme", "agent": request.provider},
        idempotency_key=lambda request: f"key-{request.max_output_tokens}",
    )
    llm.complete(max_tokens=12)
    (request,) = seen
    assert (request.provider, request.endpoint, request.model, request.stream) == (
        "openai",
        "chat.completions",
        "m",
        False,
    )
    assert (request.max_output_tokens, request.path, request.body["max_tokens"]) == (12, "/chat/completions", 12)
    with pytest.raises(TypeError):
        request.body["model"] = "x"
    body = desk.server.requests.of("reserve")[0].json
    assert body["estimate"]["amount"] == cycles.usd(1).amount
    assert body["action"] == {"kind": "tool", "name": "chat.completions m"}
    assert body["subject"]["agent"] == "openai"
    assert (body["metadata"], body["idempotency_key"]) == ({"stream": False}, "key-12")


def test_an_estimate_in_tokens_settles_tokens(desk: Desk) -> None:
    desk.provider.reply(usage=USED)
    OpenAI(desk, prices=None, estimate=cycles.tokens(5000)).complete()
    body = desk.server.requests.of("commit")[0].json
    assert body["actual"] == {"unit": "TOKENS", "amount": 1100}


def test_actual_replaces_the_price_book(desk: Desk) -> None:
    desk.provider.reply(usage=USED)
    OpenAI(desk, actual=lambda usage: cycles.usd_microcents(usage.tokens_output)).complete()
    assert desk.commits == [(100, {})]


def test_a_failing_actual_settles_the_estimate(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    def fail(usage: Any) -> cycles.Amount:
        raise ZeroDivisionError

    OpenAI(desk, actual=fail).complete()
    assert desk.commits == [(desk.reserved[0], {"actual_source": "estimate"})]
    assert "ZeroDivisionError" in caplog.text


def test_what_has_no_price_is_in_the_metadata(desk: Desk) -> None:
    desk.provider.reply(usage=USED, extra={"service_tier": "flex"})
    OpenAI(desk).complete()
    fallback = cycles.PriceBook({})
    fallback._fallback = cycles.Price(1, 10)
    desk.provider.reply(usage=USED)
    OpenAI(desk, prices=fallback).complete()
    assert desk.commits == [(EXACT, {"unpriced": ["service_tier:flex"]}), (EXACT, {"price_source": "fallback"})]


def test_the_default_client_is_looked_up_at_the_first_request(desk: Desk) -> None:
    llm = guard(OpenAI(desk).original, prices=BOOK)
    cycles.set_default_client(desk.client)
    try:
        llm.chat.completions.create(model="m", messages=[])
    finally:
        cycles.set_default_client(None)
    assert len(desk.commits) == 1


def test_shadow_sends_no_commit(desk: Desk) -> None:
    desk.server.ledger.set_budget("tenant:acme", cycles.usd("0.000001"))
    OpenAI(desk, shadow=True).complete()
    assert (len(desk.provider.requests), desk.commits) == (1, [])


def test_requests_through_the_proxy_are_not_metered_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cycles")
    llm = OpenAI(desk)
    monkeypatch.setenv("CYCLES_PROXY_URL", desk.provider.url)
    llm.complete()
    llm.complete()
    assert desk.reserved == []
    assert len([record for record in caplog.records if "Cycles proxy" in record.getMessage()]) == 1
    for other in ("", "http://127.0.0.1:1", desk.provider.url + "/v", desk.provider.url + "/v1/more"):
        monkeypatch.setenv("CYCLES_PROXY_URL", other)
        llm.complete()
    assert len(desk.reserved) == 4


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"ttl_millis": 5}, TypeError, "unknown option 'ttl_millis'"),
        ({"ttl_ms": 5}, cycles.InvalidRequestError, "ttl_ms"),
        ({"lease_policy": "cancel"}, cycles.InvalidRequestError, "lease_policy must be 'warn'"),
        ({"idempotency_key": "k"}, cycles.InvalidRequestError, "idempotency_key must be a callable"),
        ({"actual": cycles.usd(1)}, cycles.InvalidRequestError, "actual must be a callable"),
        ({"within": "outer"}, cycles.InvalidRequestError, "within must be"),
        ({"unmetered": "yes"}, cycles.InvalidRequestError, "unmetered must be"),
        ({"unmetered": "estimate"}, cycles.InvalidRequestError, "needs estimate="),
        ({"max_output_tokens": 0}, cycles.InvalidRequestError, "max_output_tokens must be"),
        ({"estimate": 5}, cycles.InvalidRequestError, "estimate must be"),
        ({"estimate": cycles.credits(5)}, cycles.InvalidRequestError, "needs actual="),
        ({"client": "x"}, cycles.InvalidRequestError, r"client must be a cycles\.Cycles"),
        ({"prices": {}}, cycles.InvalidRequestError, r"prices must be a cycles\.PriceBook"),
    ],
)
def test_wrong_options(desk: Desk, options: dict[str, Any], error: type[Exception], says: str) -> None:
    llm = OpenAI(desk).original
    with pytest.raises(error, match=says):
        desk.guard(llm, **options)


def test_wrong_clients(desk: Desk) -> None:
    llm = OpenAI(desk)
    with pytest.raises(cycles.InvalidRequestError, match="is guarded already"):
        desk.guard(llm.llm)
    with pytest.raises(cycles.InvalidRequestError, match=r"must be a client of openai, .* got builtins\.object"):
        desk.guard(object())
    anthropic: Any = pytest.importorskip("anthropic")
    bedrock = anthropic.AnthropicBedrock(aws_region="x", aws_access_key="x", aws_secret_key="x")
    with pytest.raises(cycles.InvalidRequestError, match="Bedrock"):
        desk.guard(bedrock)
    gemini = Gemini(desk)
    with pytest.raises(cycles.InvalidRequestError, match="is guarded already"):
        desk.guard(gemini.llm)


def test_a_missing_hook_is_an_error_and_no_unguarded_client(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = OpenAI(desk)
    monkeypatch.setattr(type(llm.original), "_process_response", None)
    with pytest.raises(cycles.ConfigurationError, match=r"openai \d.*has no _process_response"):
        desk.guard(llm.original)


def test_a_missing_price_package_is_reported_at_guard(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = OpenAI(desk).original
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    monkeypatch.setattr("cycles.providers._meter._shared_book", {})
    with pytest.raises(cycles.ConfigurationError, match=r"cycles-sdk\[prices\]"):
        guard(llm, client=desk.client)
    assert guard(llm, client=desk.client, estimate=cycles.tokens(5)) is not None


# --- nested guards


def test_an_enclosing_guard_pays_if_the_estimate_fits(sdk: Sdk) -> None:
    nested = type(sdk)(sdk.desk, within="enclosing", max_output_tokens=500)
    sdk.desk.provider.reply(usage=USED, times=2)
    with sdk.desk.client.reserve(cycles.usd(1), action=("agent", "run")) as outer:
        nested.complete()
        nested.complete()
        assert outer.spent == cycles.usd_microcents(2 * EXACT)
        assert outer.usage.tokens_input == 2000
        outer.commit()
    assert len(sdk.desk.reserved) == 1
    assert sdk.desk.commits == [(2 * EXACT, {})]


def test_what_does_not_fit_has_its_own_reservation(desk: Desk) -> None:
    nested = OpenAI(desk, within="enclosing")
    desk.provider.reply(usage=USED, times=3)
    with desk.client.reserve(cycles.usd("0.0001"), action=("agent", "run")) as outer:
        nested.complete()
        assert outer.spent is None
        outer.commit(cycles.usd(0))
    with desk.client.reserve(cycles.tokens(10**6), action=("agent", "run")) as outer:
        nested.complete()
        assert outer.spent is None
        outer.commit(cycles.tokens(0))
    nested.complete()
    assert [amount for amount, _ in desk.commits if amount] == [EXACT] * 3


def test_estimates_in_flight_count_against_the_enclosing_guard(desk: Desk) -> None:
    nested = OpenAI(desk, within="enclosing", max_output_tokens=500)
    gate = threading.Event()
    desk.provider.reply(usage=USED, gate=gate).reply(usage=USED)
    one = 500 * 1000 + 10_000
    with desk.client.reserve(cycles.usd_microcents(one), action=("agent", "run")) as outer:
        stream = nested.stream()
        nested.complete()
        assert len(desk.reserved) == 2
        gate.set()
        list(stream)
        assert outer.spent == cycles.usd_microcents(EXACT)
        outer.commit()


def test_the_caps_of_the_enclosing_guard_clamp(desk: Desk) -> None:
    nested = OpenAI(desk, within="enclosing")
    desk.server.ledger.set_budget("tenant:acme", cycles.usd(10), caps={"max_tokens": 33})
    with desk.client.reserve(cycles.usd(1), action=("agent", "run")) as outer:
        nested.complete()
        outer.commit()
    assert sent(desk)["max_completion_tokens"] == 33


def test_a_stream_that_outlives_its_enclosing_guard_is_recorded_as_an_event(desk: Desk) -> None:
    nested = OpenAI(desk, within="enclosing")
    desk.provider.reply(usage=USED)
    with desk.client.reserve(cycles.usd(1), action=("agent", "run")) as outer:
        stream = nested.stream()
        outer.commit(cycles.usd(0))
    list(stream)
    (event,) = desk.server.requests.of("event")
    assert event.json["actual"]["amount"] == EXACT
    assert event.json["action"]["name"] == "m"


def test_own_reservations_leave_the_enclosing_guard_alone(desk: Desk) -> None:
    desk.provider.reply(usage=USED)
    with desk.client.reserve(cycles.usd(1), action=("agent", "run")) as outer:
        OpenAI(desk).complete()
        assert outer.spent is None
        outer.commit(cycles.usd(0))
    assert [amount for amount, _ in desk.commits] == [EXACT, 0]


def test_importing_the_package_imports_no_sdk() -> None:
    code = (
        "import sys, cycles, cycles.providers, cycles.testing\n"
        "sdks = ('openai', 'anthropic', 'google.genai', 'genai_prices', 'pydantic')\n"
        "found = [name for name in sdks if name in sys.modules]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
