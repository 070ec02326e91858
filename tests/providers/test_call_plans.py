"""What one call reserves, which output limit it sends, and how its reservation is described."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import pytest

import cycles
from cycles._usage.estimating import output_maximum
from cycles.providers import paid_by
from cycles.providers._call import Call
from cycles.providers._meter import make_meter
from cycles.providers._provider import provider_named
from cycles.providers._settle import end_call, open_call
from tests.providers.conftest import BOOK
from tests.providers.ledgers import CHAT, MESSAGES, Ledger
from tests.providers.test_call_sums import Payer

UNLIMITED = 16_384
"""The output limit that a request without one gets at most, if the maximum of its model does not fit."""
MAXIMUM = 131_072
"""The output limit that a provider is assumed to enforce for a model that is not known."""
OPEN = {"model": "m", "messages": MESSAGES}
CONVERSE = "/model/m/converse"
THINKING = {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 600}}}


def bound(call: Call, output: int) -> int:
    """What a call may cost at an output limit, by a call of the same body with this limit."""
    assert call.bound is not None
    return call.bound(output)


# --- what it reserves


@pytest.mark.parametrize(
    ("body", "options", "tokens"),
    [
        (CHAT, {}, 500),
        (CHAT, {"max_output_tokens": 600}, 500),
        (CHAT, {"max_output_tokens": 400}, 400),
        (OPEN, {"max_output_tokens": 400}, 400),
        (OPEN, {}, MAXIMUM),
        ({**OPEN, "max_tokens": 0}, {}, 0),
    ],
)
def test_a_call_reserves_its_lowest_limit_or_the_maximum_of_its_model(
    ledger: Ledger, body: Any, options: Any, tokens: int
) -> None:
    call = ledger.call(body=body, **options)
    assert call.reserved.amount == bound(call, tokens)
    assert bound(call, tokens) - bound(call, 0) == tokens * 1000


@pytest.mark.parametrize(
    ("options", "path", "need"),
    [
        ({}, CONVERSE, (UNLIMITED, 1_024)),
        ({"min_output_tokens": 5}, CONVERSE, (UNLIMITED, 5)),
        ({"min_output_tokens": 20_000}, CONVERSE, (20_000, 20_000)),
        ({"min_output_tokens": 500_000}, CONVERSE, (MAXIMUM, MAXIMUM)),
        ({"min_output_tokens": None}, CONVERSE, None),
        ({}, "/model/cohere.embed-x/invoke", None),
    ],
)
def test_how_far_the_limit_of_a_call_may_be_lowered(
    ledger: Ledger, options: Any, path: str, need: tuple[int, int] | None
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    call = ledger.call("bedrock", path, body, **options)
    assert call.need is not None
    assert call.need.first == call.reserved.amount
    assert ((call.need.limit, call.need.lowest) if call.need.bound else None) == need
    if need is not None:
        assert (call.need.most, call.need.least) == (bound(call, need[0]), bound(call, need[1]))


@pytest.mark.parametrize(("limit", "need"), [(50, (50, 1_624)), (2_000, (2_000, 1_624)), (None, (UNLIMITED, 1_624))])
def test_a_limit_is_not_lowered_into_the_thinking_budget(
    ledger: Ledger, limit: int | None, need: tuple[int, int]
) -> None:
    config = {} if limit is None else {"inferenceConfig": {"maxTokens": limit}}
    call = ledger.call("bedrock", CONVERSE, {"model": "m", "messages": MESSAGES, **THINKING, **config})
    assert call.need is not None
    lowest = min(need[1], limit or MAXIMUM)
    assert (call.need.limit, call.need.lowest) == (need[0], lowest)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "{0} at an output limit of 500 tokens"),
        ({"min_output_tokens": 300}, "{1} at an output limit of 300 tokens"),
        ({"min_output_tokens": None}, "{0}"),
        ({"estimate": cycles.usd(2)}, "$2.00"),
    ],
)
def test_the_lowest_cost_of_a_call_in_words(ledger: Ledger, options: Any, says: str) -> None:
    call, plain = ledger.call(**options), ledger.call()
    amounts = [cycles.Amount("USD_MICROCENTS", bound(plain, tokens)) for tokens in (500, 300)]
    assert call.lowest_cost == says.format(*amounts)


def test_a_model_of_tokens_needs_no_name_and_no_price(ledger: Ledger) -> None:
    call = ledger.call(body={"messages": MESSAGES}, unit="TOKENS", prices=None)
    assert call.reserved.unit == "TOKENS"
    assert call.reserved.amount > MAXIMUM
    named = ledger.call(body=OPEN, unit="TOKENS", prices=None)
    assert 0 < named.reserved.amount - call.reserved.amount < 20  # the bytes of the member


@pytest.mark.parametrize("unit", ["TOKENS", "USD_MICROCENTS"])
@pytest.mark.parametrize("name", ["gpt-4", "gpt-4o", "x"])
def test_the_maximum_is_that_of_the_model(ledger: Ledger, name: str, unit: str) -> None:
    call = ledger.call(body={**OPEN, "model": name}, unit=unit, prices=cycles.PriceBook({name: ("0", "10")}))
    assert call.reserved.amount == bound(call, output_maximum(name))
    assert (output_maximum(name) == MAXIMUM) is (name == "x")


def test_tokens_are_counted_with_the_tokenizer_of_the_model(ledger: Ledger) -> None:
    pytest.importorskip("genai_prices")
    seen: list[str] = []

    def count(model: str, content: Any) -> int:
        seen.append(model)
        return 40

    book = cycles.PriceBook.genai({"m": cycles.Price("1", "10")}, count_tokens=count)
    assert ledger.call(unit="TOKENS", prices=book).reserved.amount < 600
    assert set(seen) == {"m"}


@pytest.mark.parametrize(("pricing", "url"), [("openai", "https://gateway.internal/v1"), ("azure", None)])
def test_the_address_selects_a_price_unless_the_client_is_that_of_a_cloud(
    ledger: Ledger, pricing: str, url: str | None
) -> None:
    meter = make_meter("openai", pricing, {"client": ledger.client, "prices": BOOK})
    endpoint = provider_named("openai").metered["/chat/completions"]
    origin = Call(meter, endpoint, "/chat/completions", CHAT, stream=False, url="https://gateway.internal/v1").origin
    assert (origin.url, origin.provider, origin.model) == (url, pricing, "m")


def test_the_maximum_is_reported_once(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cycles")
    ledger.call()
    ledger.call(path="/embeddings", body={"model": "m", "input": "hi"})
    assert "sets no output limit" not in caplog.text
    ledger.call(body=OPEN).estimate()
    found = [record.getMessage() for record in caplog.records if "sets no output limit" in record.getMessage()]
    assert len(found) == 1
    assert f"the maximum of its model, {MAXIMUM} tokens" in found[0]


@pytest.mark.parametrize(
    ("options", "reserved"),
    [
        ({"estimate": cycles.usd(2)}, cycles.usd(2)),
        ({"estimate": lambda request: cycles.usd(len(request.body["messages"]))}, cycles.usd(1)),
        ({"estimate": cycles.tokens(5), "prices": None}, cycles.tokens(5)),
        ({"estimate": cycles.Amount("CREDITS", 5), "actual": lambda usage: cycles.Amount("CREDITS", 1)}, "CREDITS"),
        ({"estimate": cycles.usd(2), "actual": BOOK, "prices": None}, cycles.usd(2)),
    ],
)
def test_an_estimate_of_the_user_is_reserved(ledger: Ledger, options: Any, reserved: Any) -> None:
    call = ledger.call(**options)
    assert (call.reserved.unit if reserved == "CREDITS" else call.reserved) == reserved
    assert (call.need, call.bound) == (None, None)


def test_an_estimate_needs_a_price_of_the_model_unless_actual_gives_one(ledger: Ledger) -> None:
    unknown = {**CHAT, "model": "unknown"}
    with pytest.raises(cycles.UnknownModelError):
        ledger.call(body=unknown, estimate=cycles.usd(1))
    assert ledger.call(body=unknown, estimate=cycles.tokens(1)).reserved == cycles.tokens(1)
    assert ledger.call(body=unknown, estimate=cycles.usd(1), actual=BOOK).reserved == cycles.usd(1)
    assert ledger.call(body={**CHAT, "model": None}, estimate=cycles.tokens(1)).reserved == cycles.tokens(1)


@pytest.mark.parametrize(
    "usage", [None, {"input_tokens": 0, "output_tokens": 0}, {"input_tokens": 9, "output_tokens": 9}]
)
@pytest.mark.parametrize("actual", [None, BOOK])
def test_a_request_that_cannot_be_metered_costs_its_estimate(ledger: Ledger, usage: Any, actual: Any) -> None:
    """A batch of OpenAI that was just made names its model and reports 0 tokens."""
    given = {"client": ledger.client, "prices": BOOK, "unmetered": "estimate", "estimate": cycles.usd(3)}
    meter = make_meter("openai", "openai", {**given, "free_hosts": ["localhost"], "actual": actual})
    with paid_by(Payer(cycles.usd(1), BOOK)):
        call = Call(meter, None, "/v1/batches", {}, stream=False, url="http://localhost/v1")
    assert (call.estimate(), call.payer, call.is_free, call.is_background) == (cycles.usd(3), None, False, False)
    assert (call.request.endpoint, call.limits(5), call.with_usage_event()) == ("/v1/batches", {}, {})
    call.reserved = call.estimate()
    open_call(call)
    call.attempts = 1
    call.whole(json.dumps({"id": "b", "object": "batch", "model": "m", "usage": usage}).encode())
    end_call(call)
    assert ledger.commits == [(cycles.usd(3).amount, {"actual_source": "estimate"})]
    [reserve] = ledger.server.requests.of("reserve")
    assert reserve.json["action"] == {"kind": "llm.completion", "name": "/v1/batches"}


# --- which limit it sends


@pytest.mark.parametrize(
    ("output_limit", "cap", "limits"),
    [
        (None, None, {}),
        (None, 499, {"max_tokens": 499}),
        (300, None, {"max_tokens": 300}),
        (300, 400, {"max_tokens": 300}),
        (None, 0, {"max_tokens": 0}),
        (0, None, {"max_tokens": 0}),
        (None, 500, {}),
    ],
)
def test_the_limit_that_is_sent(ledger: Ledger, output_limit: int | None, cap: int | None, limits: Any) -> None:
    call = ledger.call()
    call.output_limit = output_limit
    assert call.limits(cap) == limits
    assert call.sent_limit == limits.get("max_tokens", 500)


def test_an_endpoint_without_limits_is_sent_unchanged(ledger: Ledger) -> None:
    call = ledger.call(path="/embeddings", body={"model": "m", "input": "hi"})
    assert (call.limits(5), call.limits(None), call.bound) == ({}, {}, None)
    assert ledger.call(body=OPEN).limits(None) == {}


@pytest.mark.parametrize(
    ("limit", "cap", "raises"), [(2_000, None, False), (2_000, 601, False), (2_000, 600, True), (500, None, False)]
)
def test_a_lowered_limit_must_leave_space_for_thinking(
    ledger: Ledger, limit: int, cap: int | None, raises: bool
) -> None:
    body = {"model": "m", "messages": MESSAGES, "inferenceConfig": {"maxTokens": limit}, **THINKING}
    call = ledger.call("bedrock", CONVERSE, body)
    if not raises:
        assert call.limits(cap) == ({} if cap is None else {"inferenceConfig.maxTokens": cap})
        return
    with pytest.raises(cycles.InvalidRequestError) as raised:
        call.limits(cap)
    assert str(raised.value) == (
        "the output limit of 600 tokens leaves no space for thinking.budget_tokens=600: lower the budget, or raise "
        "max_output_tokens= or the caps"
    )


def test_a_budget_that_may_equal_the_limit_is_sent(ledger: Ledger) -> None:
    body = {"model": "m", "messages": MESSAGES, "max_tokens": 900, "thinking": {"token_budget": 600}}
    assert ledger.call("cohere", "/v2/chat", body).limits(600) == {"max_tokens": 600}


@pytest.mark.parametrize(
    ("limit", "body", "output_limit", "says"),
    [
        (None, CHAT, None, None),
        (500, CHAT, None, None),
        (499, CHAT, 499, "lowered from 500 to 499 tokens"),
        (700, CHAT, None, None),
        (700, OPEN, 700, "set to 700 tokens"),
    ],
)
def test_what_was_reserved_sets_the_limit_if_it_is_lower(
    ledger: Ledger,
    limit: int | None,
    body: Any,
    output_limit: int | None,
    says: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = ledger.call(body=body)
    call.admitted(cycles.usd(1), limit)
    assert (call.reserved, call.output_limit) == (cycles.usd(1), output_limit)
    found = [record.getMessage() for record in caplog.records if "output limit of a request was" in record.getMessage()]
    assert [says is not None and says in message for message in found] == [True] * (says is not None)


@pytest.mark.parametrize(
    ("name", "path", "body", "requested"),
    [
        ("openai", "/chat/completions", {**CHAT, "stream": True}, {"stream_options": {"include_usage": True}}),
        ("openai", "/chat/completions", CHAT, {}),
        ("openai", "/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": False}}, {}),
        ("anthropic", "/v1/messages", {**CHAT, "stream": True}, {}),
    ],
)
def test_the_usage_of_a_stream_is_requested_and_hidden(
    ledger: Ledger, name: str, path: str, body: Any, requested: Any
) -> None:
    call = ledger.call(name, path, body)
    assert (call.with_usage_event(), call.hide_usage) == (requested, bool(requested))
    used = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
    assert call.stream().feed(used) == (b"" if requested else used)


# --- how its reservation is described


@pytest.mark.parametrize(
    ("options", "agent", "subject"),
    [
        ({}, None, None),
        ({}, "bot", {"agent": "bot"}),
        ({"subject": {"workspace": "t", "agent": "a"}}, None, {"workspace": "t", "agent": "a"}),
        ({"subject": {"workspace": "t", "agent": "a"}}, "bot", {"workspace": "t", "agent": "bot"}),
        ({"subject": cycles.Subject(workspace="t")}, "bot", {"workspace": "t", "agent": "bot"}),
        ({"subject": lambda request: {"workspace": request.model}}, "bot", {"workspace": "m", "agent": "bot"}),
    ],
)
def test_the_subject_of_a_reservation(ledger: Ledger, options: Any, agent: str | None, subject: Any) -> None:
    call = ledger.call(**options)
    call.agent = agent
    found = call.reserve_options()["subject"]
    assert found == subject


@pytest.mark.parametrize(
    ("options", "action", "metadata"),
    [
        ({}, ("llm.completion", "m"), {"provider": "openai"}),
        ({"action": ("a", "b"), "metadata": {"k": 1}}, ("a", "b"), {"provider": "openai", "k": 1}),
        ({"action": lambda request: ("a", request.endpoint)}, ("a", "chat.completions"), {"provider": "openai"}),
        (
            {"metadata": lambda request: {"provider": request.path}},
            ("llm.completion", "m"),
            {"provider": "/chat/completions"},
        ),
        ({"metadata": lambda request: 5}, ("llm.completion", "m"), 5),
    ],
)
def test_the_action_and_the_metadata_of_a_reservation(
    ledger: Ledger, options: Any, action: tuple[str, str], metadata: Any
) -> None:
    found = ledger.call(url="https://api.openai.com/v1", **options).reserve_options()
    assert (found["action"], found["metadata"]) == (action, metadata)


def test_a_request_without_a_model_is_named_by_its_endpoint(ledger: Ledger) -> None:
    book = cycles.PriceBook({"m": ("1", "10")}, default_model="m")
    call = ledger.call(body={"messages": MESSAGES}, prices=book, url="https://gateway.internal")
    assert call.reserve_options()["action"] == ("llm.completion", "chat.completions")
    assert call.reserve_options()["metadata"] == {}


def test_a_client_of_a_cloud_is_billed_by_that_cloud(ledger: Ledger) -> None:
    meter = make_meter("anthropic", "aws", {"client": ledger.client, "prices": BOOK})
    endpoint: Any = provider_named("anthropic").metered["/v1/messages"]
    call = Call(meter, endpoint, "/v1/messages", CHAT, stream=False, url="https://api.anthropic.com")
    call.notes = {"run": "r"}
    assert call.reserve_options()["metadata"] == {"provider": "aws", "run": "r"}


@pytest.mark.parametrize("size", [253, 254, 255, 256])
def test_the_key_of_a_later_attempt_is_another_one(ledger: Ledger, size: int) -> None:
    call = ledger.call(idempotency_key=lambda request: "k" * size)
    assert call.reserve_options()["idempotency_key"] == "k" * size
    again = call.again()
    assert (again.number, again.reserved, again.again().number) == (2, call.reserved, 3)
    key = "k" * size + ":2"
    expected = key if size <= 254 else hashlib.sha256(key.encode()).hexdigest()
    assert again.reserve_options()["idempotency_key"] == expected


def test_a_later_attempt_keeps_what_the_proxy_knows_of_the_call(ledger: Ledger) -> None:
    call = ledger.call()
    call.notes, call.agent, call.held_in = {"project": "p"}, "bot", object()  # type: ignore[assignment]
    again = call.again()
    assert (again.notes, again.agent, again.held_in) == ({"project": "p"}, "bot", call.held_in)
    assert (again.files, again.request.path, again.attempts) == (call.files, "/chat/completions", 0)
