"""What a denial says would let the call pass: each remedy is tried, and the call passes."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

import cycles
from cycles.proxy._denials import Payer, remedies
from tests.operators.proxying import Place, proxied

CALL: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5_000}


def message(place: Place, **more: Any) -> str:
    denied = place.post(json={**CALL, **more})
    assert denied.status_code == 402
    return str(denied.json()["error"]["message"])


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]


def test_the_named_output_limit_passes_and_one_more_does_not() -> None:
    with proxied(cycles.usd_microcents(900_000)) as place:
        limit = int(found(r"request at most (\d+) output tokens", message(place)))
        assert place.post(json={**CALL, "max_tokens": limit + 1}).status_code == 402
        assert place.post(json={**CALL, "max_tokens": limit}).status_code == 200


def test_the_named_minimum_of_lowered_limits_passes() -> None:
    with proxied(cycles.usd_microcents(900_000)) as place:
        least = int(found(r"--min-output-tokens (\d+)", message(place)))
    with proxied(cycles.usd_microcents(900_000), min_output_tokens=least) as place:
        assert place.post(json=CALL).status_code == 200


def test_the_named_amount_for_a_scope_of_a_server_passes() -> None:
    with proxied(cycles.usd_microcents(900_000)) as place:
        text = message(place)
        amount = cycles.Amount.parse(found(r"cycles fund tenant:run (\S+USD)", text))
        assert text.index("request at most") < text.index("raise the budget of tenant:run by")
        place.server.ledger.fund("tenant:run", amount)
        assert place.post(json=CALL).status_code == 200


def test_the_named_budget_of_the_run_passes_and_no_scope_is_to_be_funded() -> None:
    with proxied(cycles.usd_microcents(900_000), own_scope="tenant:run") as place:
        text = message(place)
        assert "is left in tenant:run" in text
        assert "cycles fund" not in text
        budget = cycles.Amount.parse(found(r"raise the budget of this run to .*: --budget (\S+USD)", text))
    with proxied(budget, own_scope="tenant:run") as place:
        assert place.post(json=CALL).status_code == 200


@pytest.mark.parametrize(
    ("lowest", "tokens"),
    [(1_024, 1_024), (2_000, 2_000), (4_999, 4_999), (5_000, 5_000), (9_000, 5_000), (None, 5_000)],
)
@pytest.mark.parametrize("own", [None, "tenant:run"])
def test_the_named_amount_is_that_of_the_lowest_output_limit(lowest: int | None, tokens: int, own: str | None) -> None:
    with proxied(cycles.usd_microcents(900_000), min_output_tokens=lowest, own_scope=own) as place:
        text = message(place)
    named = cycles.Amount.parse(found(r"--budget (\S+USD)" if own else r"cycles fund tenant:run (\S+USD)", text))
    missing = named.amount - (900_000 if own else 0)
    assert 0 <= missing - (tokens * 1_000 - 900_000) < 200_000, text


def test_a_budget_in_another_unit_is_not_named() -> None:
    with proxied(cycles.usd_microcents(900_000)) as place:
        before = message(place)
        place.server.ledger.set_budget("tenant:run", cycles.tokens(1))
        assert message(place) == before


def test_the_named_limit_of_the_run_and_the_budget_of_the_server_both_have_to_be_raised() -> None:
    budget = cycles.usd_microcents(900_000)
    with proxied(budget, limit=budget) as place:
        text = message(place)
        limit = cycles.Amount.parse(found(r"raise the budget of this run to .*?: --budget (\S+USD)", text))
        amount = cycles.Amount.parse(
            found(r"and raise the budget of tenant:run by .*: cycles fund tenant:run (\S+USD)", text)
        )
    with proxied(budget + amount, limit=limit) as place:
        assert place.post(json=CALL).status_code == 200


def test_a_limit_that_denies_is_named_with_what_it_has_left_also_if_a_budget_has_less() -> None:
    with proxied(cycles.usd("0.001"), limit=cycles.usd("0.002")) as place:
        text = message(place)
    assert "the limit of this run is $0.002, and $0.002 of it is left" in text


def test_a_share_names_its_own_limit() -> None:
    with proxied(cycles.usd(1), own_scope="tenant:run", limit=cycles.usd(1)) as place:
        made = place.post("/shares", json={"name": "bot", "limit": "0.009USD"})
        place.server.ledger.set_budget("tenant:run/agent:bot", cycles.usd("0.009"))  # as a run gives it one
        url = made.json()["environment"]["OPENAI_BASE_URL"]
        denied = httpx.post(f"{url}/chat/completions", json=CALL, timeout=120)
        text = denied.json()["error"]["message"]
        assert denied.status_code == 402
        assert re.search(r"raise the budget of share bot to \$0\.\d+: its limit 0\.\d+USD", text), text
        assert "--budget" not in text


def test_waiting_is_named_only_if_calls_in_flight_hold_enough() -> None:
    def of(held: int) -> str:
        payers = [Payer("this run", "tenant:run", 5, held, 20)]
        return str(remedies(payers, "TOKENS", least=10, bound=None, lowest=0, wait=240.0))

    assert of(5).startswith("pass a --wait above 240 s, until the calls that hold the budget end; or raise")
    assert of(4) == "raise the budget of this run to 25 tokens: --budget 25TOKENS"


@pytest.mark.parametrize("own", [None, "tenant:run"])
@pytest.mark.parametrize("holds", [True, False])
def test_a_wait_for_what_others_hold_is_named_and_what_they_have_spent_is_not_waited_for(
    own: str | None, holds: bool
) -> None:
    with (
        proxied(cycles.usd_microcents(6_000_000), own_scope=own, wait=0) as place,
        place.server.client(tenant="run") as other,
    ):
        guard = other.reserve(cycles.usd_microcents(5_500_000), action=("llm.call", "m")).acquire()
        if not holds:
            guard.commit(cycles.usd_microcents(5_500_000))
        assert ("pass a --wait above 0 s, until the calls that hold the budget end; or" in message(place)) is holds
        if holds:
            guard.release()
            assert place.post(json=CALL).status_code == 200


def test_every_budget_that_is_short_has_to_allow_a_remedy() -> None:
    payers = [Payer("this run", "tenant:run", 5, 5, 20), Payer("share a", "share a", 1, 0, 20)]
    text = str(remedies(payers, "TOKENS", least=10, bound=lambda limit: limit, lowest=10, wait=240.0))
    assert text.startswith("request at most 1 output tokens (or pass --min-output-tokens 1); or raise")
    assert "--wait" not in text


def test_a_request_without_an_output_limit_of_its_kind_has_no_lower_one() -> None:
    with proxied(cycles.usd_microcents(10)) as place:
        denied = place.post("/openai/v1/embeddings", json={"model": "m", "input": "x" * 500})
        assert denied.status_code == 402
        assert "output tokens" not in denied.text
        assert "cycles fund tenant:run 0.0" in denied.text


def test_the_budget_of_another_agent_is_not_named() -> None:
    with proxied(cycles.usd_microcents(900_000)) as place:
        place.server.ledger.set_budget("tenant:run/agent:other", cycles.usd_microcents(1))
        assert "other" not in message(place)


@pytest.mark.parametrize(("status", "says"), [("FROZEN", "cycles budget unfreeze"), ("CLOSED", "another --subject")])
def test_a_budget_that_cannot_pay_at_all_names_another_remedy(status: str, says: str) -> None:
    with proxied() as place:
        place.server.ledger.set_status("tenant:run", status)
        text = message(place)
        assert says in text
        assert "output tokens" not in text
