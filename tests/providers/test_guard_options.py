"""The options of `guard`, their checks, and the client that stays as it was."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from typing import Any

import pytest

import cycles
from cycles.providers import guard
from tests.providers.conftest import BOOK, EXACT, USED, Anthropic, Desk, Gemini, OpenAI, Sdk


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
    assert (body["metadata"], body["idempotency_key"]) == ({"provider": "openai", "stream": False}, "key-12")


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
    flex = {"unpriced": ["service_tier:flex"], "service_tier": "flex"}
    assert desk.commits == [(EXACT, flex), (EXACT, {"price_source": "fallback"})]


@pytest.mark.parametrize("models", [("m", "unknown"), ("unknown", "m")])
def test_a_cost_is_marked_if_one_of_its_responses_has_the_fallback_price(
    monkeypatch: pytest.MonkeyPatch, models: tuple[str, str]
) -> None:
    book, used = cycles.PriceBook({"m": cycles.Price("2", "8")}), cycles.Usage()
    monkeypatch.setattr(book, "_fallback", cycles.Price("1", "1"))
    for number, model in enumerate(models):
        used.see_response(number, {"tokens_input": 1_000_000}, model=model)
    priced = book.priced(used)
    assert (priced.fallback, priced.amount) == (True, cycles.usd("3"))


def test_a_reservation_says_which_provider_and_project_pay(desk: Desk) -> None:
    """The names join the reservation with the provider's bill; what the user passes as metadata is kept."""
    llm = OpenAI(desk, metadata={"team": "search"})
    llm.complete()
    llm.llm = llm.llm.with_options(project="proj_client")
    llm.complete()
    llm.complete(extra_headers={"openai-project": "proj_call"})
    sent = [body.json["metadata"] for body in desk.server.requests.of("reserve")]
    assert sent == [
        {"provider": "openai", "team": "search"},
        {"provider": "openai", "project": "proj_client", "team": "search"},
        {"provider": "openai", "project": "proj_call", "team": "search"},
    ]


def test_the_standard_tier_is_not_in_the_metadata(desk: Desk) -> None:
    desk.provider.reply(usage=USED, extra={"service_tier": "default"})
    OpenAI(desk).complete()
    assert desk.commits == [(EXACT, {})]


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
        ({"min_output_tokens": 0}, cycles.InvalidRequestError, "min_output_tokens must be an integer >= 1, or None"),
        ({"min_output_tokens": True}, cycles.InvalidRequestError, "min_output_tokens must be .* got True"),
        ({"min_output_tokens": 1.5}, cycles.InvalidRequestError, r"min_output_tokens must be .* got 1\.5"),
        ({"min_output_tokens": "9"}, cycles.InvalidRequestError, "min_output_tokens must be .* got '9'"),
        ({"wait": -1}, cycles.InvalidRequestError, "wait must be seconds, 0 to 86400, got -1; wait=0 denies"),
        ({"wait": "9"}, cycles.InvalidRequestError, "wait must be seconds, .* got '9'"),
        ({"wait": True}, cycles.InvalidRequestError, "wait must be seconds, .* got True"),
        ({"wait": float("nan")}, cycles.InvalidRequestError, "wait must be seconds, .* got nan"),
        ({"wait": None}, cycles.InvalidRequestError, "wait must be seconds, .* got None"),
        ({"estimate": 5}, cycles.InvalidRequestError, "estimate must be"),
        ({"estimate": cycles.credits(5)}, cycles.InvalidRequestError, "needs actual="),
        ({"subject": {"colour": "x"}}, cycles.InvalidRequestError, "not a level of a subject"),
        ({"action": "chat"}, cycles.InvalidRequestError, "action must be"),
        ({"metadata": {"at": object()}}, cycles.InvalidRequestError, r"metadata\.at is a object"),
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
    gemini = Gemini(desk)
    with pytest.raises(cycles.InvalidRequestError, match="is guarded already"):
        desk.guard(gemini.llm)


def test_a_missing_hook_is_an_error_and_no_unguarded_client(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = OpenAI(desk)
    monkeypatch.setattr(type(llm.original), "_process_response", None)
    with pytest.raises(cycles.ConfigurationError, match=r"openai \d.*has no _process_response"):
        desk.guard(llm.original)
    gemini = Gemini(desk)
    monkeypatch.setattr(type(gemini.original._api_client), "_request_once", None)
    with pytest.raises(cycles.ConfigurationError, match=r"google-genai \d.*API client has no _request_once; install"):
        desk.guard(gemini.original)


def test_a_missing_price_package_is_reported_at_guard(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = OpenAI(desk).original
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    monkeypatch.setattr("cycles.providers._meter._shared_book", {})
    with pytest.raises(cycles.ConfigurationError, match=r"cycles-sdk\[prices\]"):
        guard(llm, client=desk.client)
    assert guard(llm, client=desk.client, estimate=cycles.tokens(5)) is not None


def test_a_settlement_may_be_left_to_the_background(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, handle = threading.Event(), desk.server.handle

    def held(request: Any) -> Any:
        assert not request.path.endswith("/commit") or gate.wait(60), "the response waits for its settlement"
        return handle(request)

    monkeypatch.setattr(desk.server, "handle", held)
    desk.provider.reply(usage=USED)
    OpenAI(desk, settle="background").complete()
    gate.set()
    desk.client.flush()
    assert desk.commits == [(EXACT, {})]
