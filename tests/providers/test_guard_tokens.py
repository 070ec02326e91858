"""Guarded clients whose budgets are in tokens: bounds and charges without a price of the model."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from cycles import _errors as errors
from cycles.providers import guard
from tests.providers.conftest import Desk, OpenAI, Sdk

READ, WRITTEN = 40, 100
USED = {"tokens_input": READ, "tokens_output": WRITTEN}


def amounts(desk: Desk, operation: str, member: str) -> list[dict[str, Any]]:
    return [request.json[member] for request in desk.server.requests.of(operation)]


def test_every_sdk_reserves_and_commits_tokens(sdk: Sdk) -> None:
    desk = sdk.desk
    guarded = type(sdk)(desk, unit="TOKENS", prices=None)
    desk.provider.reply(usage=USED, times=2)
    guarded.complete("x" * 30, model="no price is known")
    assert guarded.read() > 0
    [first, second] = amounts(desk, "reserve", "estimate")
    assert {first["unit"], second["unit"]} == {"TOKENS"}
    assert first["amount"] > 30 + WRITTEN
    assert amounts(desk, "commit", "actual") == [{"unit": "TOKENS", "amount": READ + WRITTEN}] * 2
    assert desk.server.spent("tenant:acme", "TOKENS").amount == 2 * (READ + WRITTEN)
    assert desk.server.spent("tenant:acme", "USD_MICROCENTS").amount == 0


def test_the_estimate_is_the_bound_of_the_prompt_and_the_output_limit_of_each_result(desk: Desk) -> None:
    desk.provider.reply(usage=USED, times=3)
    llm = OpenAI(desk, unit="TOKENS")
    cases: list[tuple[str, dict[str, Any]]] = [
        ("a", {"max_tokens": 500}),
        ("b", {"max_tokens": 700}),
        ("c", {"max_tokens": 500, "n": 3}),
    ]
    for prompt, more in cases:
        llm.complete(prompt, **more)
    first, second, third = (amount["amount"] for amount in amounts(desk, "reserve", "estimate"))
    assert second - first == 200
    assert 1000 <= third - first <= 1010  # two more results, and the bytes of `"n": 3`


def test_a_request_that_does_not_fit_is_lowered_to_what_is_left(desk: Desk) -> None:
    desk.server.ledger.set_budget("tenant:acme", cycles.tokens(3000))
    desk.provider.reply(usage=USED)
    OpenAI(desk, unit="TOKENS", wait=0).complete()
    assert [amount["amount"] for amount in amounts(desk, "reserve", "estimate")][-1] == 3000
    assert 1024 <= desk.provider.requests[-1].body["max_completion_tokens"] < 3000


def test_a_response_without_tokens_is_charged_as_reserved(desk: Desk) -> None:
    desk.provider.reply(extra={"usage": {"type": "duration", "seconds": 9}}, usage={})
    original = OpenAI(desk).original
    desk.guard(original, unit="TOKENS").audio.speech.create(model="m", voice="alloy", input="Hello")
    [reserved], [charged] = amounts(desk, "reserve", "estimate"), amounts(desk, "commit", "actual")
    assert charged == reserved
    assert desk.commits[0][1]["actual_source"] == "estimate"


@pytest.mark.parametrize(
    ("unit", "budget", "other"),
    [("USD_MICROCENTS", cycles.tokens(10**6), "TOKENS"), ("TOKENS", cycles.usd(1), "USD_MICROCENTS")],
)
def test_budgets_in_another_unit_deny_the_call_and_name_the_option(
    desk: Desk, unit: str, budget: cycles.Amount, other: str
) -> None:
    desk.server.ledger.delete_budget("tenant:acme")
    desk.server.ledger.set_budget("tenant:acme", budget)
    with pytest.raises(errors.UnitMismatchError, match=f"its budgets are in {other}: pass unit='{other}' to guard"):
        OpenAI(desk, unit=unit).complete()
    assert desk.provider.requests == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"unit": "CREDITS"}, "unit must be 'USD_MICROCENTS' or 'TOKENS', got 'CREDITS'"),
        ({"unit": "TOKENS", "estimate": cycles.tokens(5)}, "unit= and estimate= exclude each other"),
    ],
)
def test_a_wrong_unit_is_reported_when_the_client_is_guarded(desk: Desk, options: dict[str, Any], says: str) -> None:
    llm = OpenAI(desk).original
    with pytest.raises(cycles.InvalidRequestError, match=says):
        guard(llm, client=desk.client, **options)
