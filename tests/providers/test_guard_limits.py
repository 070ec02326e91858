"""Output limits: caps, `max_output_tokens`, and where in the body they are."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import cycles
from tests.providers.conftest import Anthropic, Desk, Gemini, OpenAI, Sdk


def sent(desk: Desk) -> Any:
    """The body of the last request that the provider received."""
    return desk.provider.requests[-1].body


def limit_of(sdk: Sdk) -> Any:
    body = sent(sdk.desk)
    if sdk.name == "google":
        return body.get("generationConfig", {}).get("maxOutputTokens")
    if sdk.name == "bedrock":
        return body.get("inferenceConfig", {}).get("maxTokens")
    names = {"openai": ("max_completion_tokens", "max_tokens"), "responses": ("max_output_tokens",)}
    return next((body[name] for name in names.get(sdk.name, ("max_tokens",)) if name in body), None)


def with_limit(sdk: Sdk, limit: int) -> dict[str, Any]:
    if sdk.name == "google":
        return {"config": {"max_output_tokens": limit}}
    if sdk.name == "bedrock":
        return {"inferenceConfig": {"maxTokens": limit}}
    return {{"openai": "max_completion_tokens", "responses": "max_output_tokens"}.get(sdk.name, "max_tokens"): limit}


@pytest.mark.parametrize(("first", "second"), [(50, 500), (500, 50), (50, 50)])
def test_of_two_limits_the_lower_one_is_reserved(desk: Desk, first: int, second: int) -> None:
    sdk = OpenAI(desk)
    desk.provider.reply(times=2)
    sdk.complete("one", max_completion_tokens=50)
    sdk.complete("two", max_completion_tokens=first, max_tokens=second)
    # The second name is in the prompt's bytes; another limit would change the estimate by 450 output tokens.
    assert 0 < desk.reserved[1] - desk.reserved[0] < 20 * 100


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


@pytest.mark.parametrize("limit", [-5, 2.5, True])
def test_a_limit_that_is_no_integer_of_0_or_more_is_rejected(desk: Desk, limit: Any) -> None:
    for llm, name in ((OpenAI(desk), "max_tokens"), (Anthropic(desk), "max_tokens")):
        with pytest.raises(cycles.InvalidRequestError, match=f"{name} must be a non-negative integer, got"):
            llm.complete(**{name: limit})
    assert (desk.provider.requests, desk.reserved) == ([], [])


def test_without_caps_no_limit_is_added_and_one_record_reports_it(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cycles")
    llm = OpenAI(desk)
    for _ in range(2):
        llm.complete()
    assert limit_of(llm) is None
    records = [record for record in caplog.records if "sets no output limit" in record.getMessage()]
    assert [record.levelname for record in records] == ["INFO"]
    assert desk.reserved[0] == (len('{"messages":[{"role":"user","content":"hi"}],"model":"m"}') * 100 + 131_072 * 1000)


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


def test_a_limit_that_is_not_lowered_is_the_providers_concern(desk: Desk) -> None:
    Anthropic(desk, max_output_tokens=500).complete(max_tokens=100, thinking={"type": "enabled", "budget_tokens": 1024})
    assert sent(desk)["max_tokens"] == 100
