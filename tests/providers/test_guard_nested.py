"""Nested guards: whose budget pays."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import cycles
from tests.providers.conftest import EXACT, USED, Desk, OpenAI, Sdk


def sent(desk: Desk) -> Any:
    """The body of the last request that the provider received."""
    return desk.provider.requests[-1].body


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
    with desk.client.reserve(cycles.tokens(10**9), action=("agent", "run")) as outer:
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


def test_what_is_settled_is_not_in_flight_any_more(desk: Desk) -> None:
    nested = OpenAI(desk, within="enclosing", max_output_tokens=500)
    desk.provider.reply(usage=USED, times=3)
    nested.complete()
    one = desk.reserved[0]
    with desk.client.reserve(cycles.usd_microcents(one + EXACT), action=("agent", "run")) as outer:
        nested.complete()
        nested.complete()
        assert outer.spent is not None
        outer.commit()
    assert len(desk.reserved) == 2


def test_a_request_that_cost_nothing_is_not_in_flight_any_more(desk: Desk) -> None:
    nested = OpenAI(desk, within="enclosing", max_output_tokens=500)
    desk.provider.reply(status=400).reply(usage=USED)
    with desk.client.reserve(cycles.usd_microcents(500 * 1000 + 10_000), action=("agent", "run")) as outer:
        with pytest.raises(Exception, match="400"):
            nested.complete()
        nested.complete()
        assert outer.spent == cycles.usd_microcents(EXACT)
        outer.commit()
    assert len(desk.reserved) == 1


def test_what_the_enclosing_guard_has_spent_pays_for_no_other_request(desk: Desk) -> None:
    nested = OpenAI(desk, within="enclosing", max_output_tokens=500)
    desk.provider.reply(usage=USED, times=3)
    nested.complete()
    one = desk.reserved[0]
    with desk.client.reserve(cycles.usd_microcents(one + EXACT - 1), action=("agent", "run")) as outer:
        nested.complete()
        nested.complete()  # 1 microcent too little is left
        assert outer.spent == cycles.usd_microcents(EXACT)
        outer.commit()
    assert desk.reserved == [one, one + EXACT - 1, one]


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


def test_the_event_of_a_stream_that_is_left_says_that_its_amount_is_an_estimate(desk: Desk) -> None:
    nested = OpenAI(desk, within="enclosing", max_output_tokens=500)
    with desk.client.reserve(cycles.usd(1), action=("agent", "run")) as outer:
        stream = nested.stream()
        next(stream)
        outer.commit(cycles.usd(0))
    stream.close()
    (event,) = desk.server.requests.of("event")
    assert event.json["metadata"] == {"actual_source": "estimate", "outcome": "closed"}


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


def test_a_limit_of_the_run_applies_to_provider_clients(desk: Desk) -> None:
    llm = OpenAI(desk, max_output_tokens=500)
    desk.provider.reply(usage=USED, times=2)
    llm.complete()
    with cycles.limit(cycles.usd_microcents(desk.reserved[0])) as limit:
        llm.complete()
        with pytest.raises(cycles.BudgetExceededError) as raised:
            llm.complete()
    assert (raised.value.code, limit.spent) == ("RUN_LIMIT", cycles.usd_microcents(EXACT))
    assert (len(desk.reserved), len(desk.provider.requests)) == (2, 2)
