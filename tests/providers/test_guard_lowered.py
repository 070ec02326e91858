"""Output limits that are lowered to what the budget can pay, in the requests of the real SDKs."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from tests.providers.conftest import Anthropic, AsyncAnthropic, AsyncOpenAI, AsyncSdk, Desk, Gemini, OpenAI, Sdk
from tests.providers.test_guard_limits import limit_of, sent, with_limit

BOOK = cycles.PriceBook({"m": cycles.Price("0", "10")})
"""A written token costs 1,000 microcents, and the prompt nothing."""


def guarded(sdk: Sdk, tokens: int, **options: Any) -> Sdk:
    """The same SDK with a budget for so many output tokens."""
    sdk.desk.server.ledger.set_budget("tenant:acme", budget(tokens))
    return type(sdk)(sdk.desk, prices=BOOK, **options)


def budget(tokens: int) -> cycles.Amount:
    return cycles.Amount("USD_MICROCENTS", tokens * 1000)


def made(tokens: int) -> dict[str, Any]:
    """A reply that would have so many output tokens."""
    return {"usage": {"tokens_input": 10, "tokens_output": tokens}}


def test_a_limit_is_lowered_to_what_the_budget_has(sdk: Sdk) -> None:
    llm = guarded(sdk, 2_000)
    sdk.desk.provider.reply(**made(9_000))
    llm.complete(**with_limit(sdk, 5_000))
    assert limit_of(llm) == 2_000
    assert sdk.desk.commits == [(2_000_000, {"output_limit": 2_000})]
    assert sdk.desk.provider.bill(BOOK) == budget(2_000)


def test_a_limit_that_fits_is_sent_unchanged(sdk: Sdk) -> None:
    sdk.complete(**with_limit(sdk, 5_000))
    unchanged = sent(sdk.desk)
    llm = guarded(sdk, 5_000)
    sdk.desk.server.requests.clear()
    sdk.desk.server.ledger.set_budget("tenant:acme", budget(5_000), spent=0)
    llm.complete(**with_limit(sdk, 5_000))
    assert sent(sdk.desk) == unchanged
    assert [request.operation for request in sdk.desk.server.requests] == ["reserve", "commit"]


def test_the_body_of_a_request_that_fits_is_that_of_the_unguarded_client(desk: Desk) -> None:
    original = OpenAI(desk)
    message: Any = [{"role": "user", "content": "hi"}]
    original.original.chat.completions.create(model="m", messages=message, max_tokens=50)
    unguarded = sent(desk)
    original.complete(max_tokens=50)
    assert sent(desk) == unguarded


def test_a_request_that_does_not_fit_at_its_lowest_limit_is_denied(sdk: Sdk) -> None:
    llm = guarded(sdk, 1_000)
    with pytest.raises(
        cycles.BudgetExceededError, match=r"at an output limit of 1024 tokens, and .* is left in tenant"
    ):
        llm.complete(**with_limit(sdk, 5_000))
    assert sdk.desk.provider.requests == []


def test_min_output_tokens_is_the_lowest_limit(sdk: Sdk) -> None:
    llm = guarded(sdk, 1_000, min_output_tokens=10)
    llm.complete(**with_limit(sdk, 5_000))
    assert limit_of(llm) == 1_000


def test_a_minimum_above_the_limit_of_the_request_lowers_nothing(sdk: Sdk) -> None:
    llm = guarded(sdk, 400, min_output_tokens=20_000)
    llm.complete(**with_limit(sdk, 400))
    assert limit_of(llm) == 400
    with pytest.raises(cycles.BudgetExceededError):
        llm.complete(**with_limit(sdk, 500))


def test_without_a_minimum_no_limit_is_lowered(sdk: Sdk) -> None:
    llm = guarded(sdk, 2_000, min_output_tokens=None)
    with pytest.raises(cycles.BudgetExceededError):
        llm.complete(**with_limit(sdk, 5_000))
    llm.complete(**with_limit(sdk, 2_000))


def test_max_output_tokens_is_lowered_too(sdk: Sdk) -> None:
    if sdk.name == "anthropic":
        pytest.skip("its requests always have a limit")
    llm = guarded(sdk, 2_000, max_output_tokens=3_000)
    llm.complete()
    assert limit_of(llm) == 2_000


# --- streams


@pytest.mark.parametrize("make", [OpenAI, Anthropic, Gemini])
def test_the_limit_of_a_stream_is_lowered(desk: Desk, make: type[Sdk]) -> None:
    llm = guarded(make(desk), 2_000)
    desk.provider.reply(**made(9_000))
    assert list(llm.stream(**with_limit(llm, 5_000)))
    assert limit_of(llm) == 2_000
    assert desk.commits == [(2_000_000, {"output_limit": 2_000})]


@pytest.mark.parametrize("make", [AsyncOpenAI, AsyncAnthropic])
def test_the_limit_of_an_async_stream_is_lowered(desk: Desk, make: type[AsyncSdk]) -> None:
    llm: Any = guarded(make(desk), 2_000)
    desk.provider.reply(**made(9_000))

    async def read() -> int:
        return len([chunk async for chunk in await llm.acomplete(stream=True, **with_limit(llm, 5_000))])

    assert desk.runner.run(read())
    assert limit_of(llm) == 2_000
    assert desk.commits == [(2_000_000, {"output_limit": 2_000})]


# --- other places of the limit


def test_a_limit_in_the_extra_body_is_lowered(desk: Desk) -> None:
    llm = guarded(OpenAI(desk), 2_000)
    llm.complete(extra_body={"max_tokens": 5_000})
    assert sent(desk)["max_tokens"] == 2_000
    assert "max_completion_tokens" not in sent(desk)


def test_the_limits_of_older_endpoints_are_lowered(desk: Desk) -> None:
    openai, anthropic = guarded(OpenAI(desk), 2_000), guarded(Anthropic(desk), 2_000)
    openai.llm.completions.create(model="m", prompt="x", max_tokens=5_000)
    assert sent(desk)["max_tokens"] == 2_000
    body = {"model": "m", "prompt": "x", "max_tokens_to_sample": 5_000}
    anthropic.llm.post("/v1/complete", body=body, cast_to=object)
    assert 1_990 <= sent(desk)["max_tokens_to_sample"] < 2_000
    desk.server.ledger.set_budget("tenant:acme", budget(1_500))
    body = {"model": "m", "input": "x", "max_output_tokens": 5_000}
    openai.llm.post("/responses/compact", body=body, cast_to=object)
    assert sent(desk)["max_output_tokens"] == 1_500


def test_caps_lower_the_limit_further(sdk: Sdk) -> None:
    llm = guarded(sdk, 2_000)
    sdk.desk.server.ledger.set_budget("tenant:acme", budget(2_000), caps={"max_tokens": 77})
    llm.complete(**with_limit(sdk, 5_000))
    assert limit_of(llm) == 77
    assert sdk.desk.commits[0][1] == {"output_limit": 77}


# --- thinking


@pytest.mark.parametrize("make", [Anthropic, AsyncAnthropic])
def test_a_thinking_budget_of_anthropic_is_left_alone(desk: Desk, make: type[Sdk]) -> None:
    llm = guarded(make(desk), 4_500)
    thinking = {"type": "enabled", "budget_tokens": 3_000}
    llm.complete(max_tokens=9_000, thinking=thinking)
    assert (sent(desk)["max_tokens"], sent(desk)["thinking"]) == (4_500, thinking)
    desk.server.ledger.set_budget("tenant:acme", budget(4_000))
    with pytest.raises(cycles.BudgetExceededError, match="at an output limit of 4024 tokens"):
        llm.complete(max_tokens=9_000, thinking=thinking)
    assert len(desk.provider.requests) == 1


def test_a_thinking_budget_of_gemini_is_left_alone(desk: Desk) -> None:
    llm = guarded(Gemini(desk), 4_500)
    config = {"max_output_tokens": 9_000, "thinking_config": {"thinking_budget": 3_000}}
    llm.complete(config=config)
    found = sent(desk)["generationConfig"]
    assert (found["maxOutputTokens"], list(found["thinkingConfig"].values())) == (4_500, [3_000])
    desk.server.ledger.set_budget("tenant:acme", budget(4_000))
    with pytest.raises(cycles.BudgetExceededError, match="at an output limit of 4024 tokens"):
        llm.complete(config=config)
    config = {"max_output_tokens": 9_000, "thinking_config": {"thinking_budget": -1}}  # the model decides
    llm.complete(config=config)
    assert 3_900 <= sent(desk)["generationConfig"]["maxOutputTokens"] <= 4_000


# --- requests without a limit


def test_a_request_without_a_limit_is_reserved_at_the_maximum_of_its_model(sdk: Sdk) -> None:
    if sdk.name == "anthropic":
        pytest.skip("its requests always have a limit")
    llm = guarded(sdk, 131_072)
    llm.complete()
    assert sdk.desk.reserved == [131_072_000]
    assert limit_of(llm) is None
    assert sdk.desk.commits[0][1] == {}


def test_if_the_maximum_does_not_fit_16384_is_sent(sdk: Sdk) -> None:
    if sdk.name == "anthropic":
        pytest.skip("its requests always have a limit")
    llm = guarded(sdk, 20_000)
    sdk.desk.provider.reply(**made(18_000))
    llm.complete()
    assert limit_of(llm) == 16_384
    assert sdk.desk.commits == [(16_384_000, {"output_limit": 16_384})]
    llm.complete()
    assert limit_of(llm) == 20_000 - 16_384
    assert sdk.desk.server.spent("tenant:acme", "USD_MICROCENTS").amount <= 20_000_000


def test_without_a_minimum_only_the_maximum_is_used(desk: Desk) -> None:
    llm = guarded(OpenAI(desk), 100_000, min_output_tokens=None)
    with pytest.raises(cycles.BudgetExceededError):
        llm.complete()
    assert desk.provider.requests == []


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("gpt-3.5-turbo", 4_096),
        ("gpt-4-0613", 8_192),
        ("gpt-4-turbo-2024-04-09", 4_096),
        ("gpt-4o-mini", 16_384),
        ("gpt-4o-64k-output-alpha", 64_000),
        ("chatgpt-4o-latest", 16_384),
        ("gpt-4.1-nano", 32_768),
        ("gpt-4.5-preview", 16_384),
        ("gpt-5-mini", 128_000),
        ("o1-mini", 100_000),
        ("o3", 100_000),
        ("o4-mini", 100_000),
        ("gemini-1.5-pro", 8_192),
        ("gemini-2.0-flash", 8_192),
        ("gemini-2.5-pro", 65_536),
        ("gemini-3-pro", 65_536),
        ("some-other-model", 131_072),
    ],
)
def test_the_maximum_of_a_model_is_that_of_the_longest_prefix(desk: Desk, model: str, most: int) -> None:
    llm = OpenAI(desk, prices=cycles.PriceBook({model: cycles.Price("0", "10")}))
    llm.complete(model=model)
    assert desk.reserved == [most * 1000]


def test_an_estimate_by_hand_assumes_what_it_is_given() -> None:
    assert BOOK.estimate("m", [], max_output_tokens=4_096) == budget(4_096)


# --- a guard around it


@pytest.mark.parametrize("tokens", [20_000, 16_384])
def test_an_enclosing_guard_pays_for_a_request_without_a_limit_if_the_lower_limit_fits(desk: Desk, tokens: int) -> None:
    llm = OpenAI(desk, prices=BOOK, within="enclosing")
    with desk.client.reserve(budget(tokens), action=("agent", "run")):
        llm.complete()
    assert sent(desk)["max_completion_tokens"] == 16_384
    assert desk.reserved == [tokens * 1000]
