"""Budgets with windows: edges of the calendar in a zone, what begins again there, and what a kept file stores."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

import cycles
from cycles.embedded.http import Request
from cycles.embedded.windows import PERIODS, edge_text, end_of

BERLIN = "Europe/Berlin"


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("period", "zone", "now", "end"),
    [
        ("minute", "UTC", "2026-11-29T07:59:30Z", "2026-11-29T08:00:00Z"),
        ("hour", "UTC", "2026-11-29T07:00:00Z", "2026-11-29T08:00:00Z"),
        ("hour", "UTC", "2026-11-29T07:12:34Z", "2026-11-29T08:00:00Z"),
        ("hour", "Asia/Kolkata", "2026-11-29T07:10:00Z", "2026-11-29T07:30:00Z"),
        ("day", "UTC", "2026-11-29T23:59:59Z", "2026-11-30T00:00:00Z"),
        ("day", BERLIN, "2026-11-29T22:59:59Z", "2026-11-29T23:00:00Z"),
        ("day", BERLIN, "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),  # 23 hours
        ("day", BERLIN, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),  # 25 hours
        ("day", "America/New_York", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"),
        ("day", "America/Havana", "2026-03-08T04:00:00Z", "2026-03-08T05:00:00Z"),  # midnight does not exist
        ("week", "UTC", "2026-11-29T12:00:00Z", "2026-11-30T00:00:00Z"),
        ("week", "UTC", "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"),
        ("month", BERLIN, "2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00"),
        ("month", "UTC", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
        ("month", "UTC", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
    ],
)
def test_the_end_of_a_window(period: str, zone: str, now: str, end: str) -> None:
    assert iso(end_of(period, zone, ms(now))) == iso(ms(end))


@given(
    st.sampled_from(PERIODS),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Havana"]),
    st.integers(1_700_000_000_000, 2_000_000_000_000),
)
def test_a_window_contains_its_time_and_ends(period: str, zone: str, now: int) -> None:
    end = end_of(period, zone, now)
    longest = {"minute": 60, "hour": 3_600, "day": 25 * 3_600, "week": 169 * 3_600, "month": 32 * 86_400}
    assert now < end <= now + 1000 * longest[period]
    assert end_of(period, zone, end) > end


def test_what_was_spent_begins_at_zero_at_each_edge_of_both_changes_of_summer_time() -> None:
    """A local day of 23 hours and one of 25 are one window each."""
    for start, hours in (("2026-03-29T00:00:00+01:00", 23), ("2026-10-25T00:00:00+02:00", 25)):
        clock = cycles.ManualClock(ms(start))
        budgets = {"tenant:acme": cycles.window(cycles.usd(5), "day", timezone=BERLIN)}
        with cycles.EmbeddedServer(budgets, clock=clock) as server, server.client(journal=False) as client:
            _spend(client, "4")
            clock.advance(hours * 3_600_000 - 1)
            with pytest.raises(cycles.BudgetExceededError):
                _spend(client, "4")
            clock.advance(1)
            _spend(client, "4")
            assert server.spent("tenant:acme") == cycles.usd(4)


@pytest.mark.parametrize("operation", ["decide", "reservations"])
def test_the_first_request_after_an_edge_gets_its_response(operation: str) -> None:
    clock = cycles.ManualClock(ms("2026-11-29T23:59:50Z"))
    with cycles.EmbeddedServer({"tenant:acme": cycles.window(cycles.usd(5), "day")}, clock=clock) as server:
        with server.client(journal=False) as client:
            _spend(client, "2")
        headers = {"x-cycles-api-key": server.api_key, "content-type": "application/json"}
        clock.advance(10_000)
        body = json.dumps({"idempotency_key": "k", "subject": {"tenant": "acme"}, "action": {"kind": "a", "name": "b"},
                           "estimate": {"unit": "USD_MICROCENTS", "amount": 1}}).encode()  # fmt: skip
        response, _ = server.handle(Request(method="POST", target=f"/v1/{operation}", headers=headers, body=body))
        assert response is not None
        assert (response.status, server.spent("tenant:acme"), server.webhooks.events()) == (200, cycles.usd(0), [])


def _spend(client: cycles.Cycles, dollars: str) -> None:
    amount = cycles.usd(dollars)
    with client.reserve(amount, action=("llm.completion", "m")) as guard:
        guard.commit(amount)


def test_active_reservations_continue_and_count_in_the_new_window() -> None:
    clock = cycles.ManualClock(ms("2026-11-29T23:59:50Z"))
    budgets = {"tenant:acme": cycles.window(cycles.usd(5), "day")}
    with cycles.EmbeddedServer(budgets, clock=clock) as server, server.client(journal=False) as client:
        _spend(client, "2")
        guard = client.reserve(cycles.usd(2), action=("llm.completion", "m")).acquire()
        clock.advance(10_000)
        [balance] = client.balances()
        assert (balance.spent, balance.reserved) == (cycles.usd(0), cycles.usd(2))
        guard.commit(cycles.usd("1.5"))
        assert server.spent("tenant:acme") == cycles.usd("1.5")


def test_a_list_after_an_edge_shows_the_new_window_also_if_several_have_passed() -> None:
    clock = cycles.ManualClock(ms("2026-11-29T12:00:00Z"))
    budgets = {"tenant:acme": [cycles.window(cycles.usd(5), "hour"), cycles.window(cycles.tokens(100), "month")]}
    with cycles.EmbeddedServer(budgets, clock=clock) as server, server.client(journal=False) as client:
        _spend(client, "2")
        clock.advance(5 * 3_600_000 + 1)
        found = {balance.remaining.unit: balance for balance in client.balances()}
        assert found["USD_MICROCENTS"].spent == cycles.usd(0)
        window = server.ledger.window("tenant:acme")
        assert window is not None
        assert iso(window.ends_ms) == "2026-11-29T18:00:00Z"


def test_a_budget_that_was_over_its_limit_can_be_used_again() -> None:
    """A commit of more than was left marks it; the mark ends with the window, debt stays."""
    clock = cycles.ManualClock(ms("2026-11-29T12:00:00Z"))
    budgets = {"tenant:acme": cycles.window(cycles.usd(5), "day")}
    with cycles.EmbeddedServer(budgets, clock=clock) as server, server.client(journal=False) as client:
        guard = client.reserve(
            cycles.usd(1), action=("llm.completion", "m"), overage_policy="ALLOW_IF_AVAILABLE"
        ).acquire()
        guard.commit(cycles.usd(9))
        assert server.ledger.balance("tenant:acme").is_over_limit
        clock.advance(12 * 3_600_000)
        _spend(client, "5")


def test_a_kept_file_stores_the_window_and_another_one_applies_from_the_next_edge(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.db", cycles.ManualClock(ms("2026-11-29T12:00:00Z"))
    day = cycles.window(cycles.usd(5), "day")
    with (
        cycles.EmbeddedServer({"tenant:acme": day}, path=path, clock=clock) as server,
        server.client(journal=False) as client,
    ):
        _spend(client, "4")
    with cycles.EmbeddedServer(path=path, clock=clock) as server:
        server.ledger.set_window("tenant:acme", cycles.window(cycles.usd(5), "hour", timezone=BERLIN))
        clock.advance(11 * 3_600_000)
        assert server.spent("tenant:acme") == cycles.usd(4)  # an hour has ended, but not the day
    with cycles.EmbeddedServer(path=path, clock=clock) as server:
        clock.advance(3_600_000)
        assert server.spent("tenant:acme") == cycles.usd(0)
        window = server.ledger.window("tenant:acme")
        assert window is not None
        assert (window.period, window.timezone, iso(window.ends_ms)) == ("hour", BERLIN, "2026-11-30T01:00:00Z")
        with server.client(tenant="acme", journal=False) as client:
            _spend(client, "1")
        server.ledger.set_window("tenant:acme", None)
        clock.advance(2 * 3_600_000)
        assert server.ledger.window("tenant:acme") is None
        assert server.spent("tenant:acme") == cycles.usd(1)  # the last window ends, and nothing begins again


def test_a_deleted_budget_has_no_window() -> None:
    clock = cycles.ManualClock(ms("2026-11-29T12:00:00Z"))
    with cycles.EmbeddedServer({"tenant:acme": cycles.window(cycles.usd(5), "day")}, clock=clock) as server:
        server.ledger.delete_budget("tenant:acme")
        assert server.ledger.window("tenant:acme") is None
        clock.advance(86_400_000)
        assert server.ledger.scopes() == []


def test_embedded_in_code() -> None:
    budgets = {"tenant:acme": cycles.window(cycles.usd(5), "day", timezone="UTC")}
    with cycles.Cycles.embedded(budgets=budgets) as client:
        _spend(client, "5")
        with pytest.raises(cycles.BudgetExceededError):
            _spend(client, "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, "day", "UTC"), "amount"),
        ((cycles.usd(5), "year", "UTC"), "minute, hour, day, week, month"),
        ((cycles.usd(5), "day", "Mars/Olympus"), "Europe/Berlin"),
        ((cycles.usd(5), "day", "../etc/passwd"), "Europe/Berlin"),
        ((cycles.usd(5), "day", "Europe"), "Europe/Berlin"),
        ((cycles.usd(5), "day", ""), "Europe/Berlin"),
        ((cycles.usd(5), "day", None), "Europe/Berlin"),
    ],
)
def test_a_wrong_window_says_what_to_write(arguments: Any, message: str) -> None:
    amount, period, timezone = arguments
    with pytest.raises(cycles.InvalidRequestError, match=message):
        cycles.window(amount, period, timezone=timezone)


def test_the_end_in_words() -> None:
    assert edge_text("day", "UTC", ms("2026-11-30T00:00:00Z")) == "00:00 UTC"
    assert edge_text("hour", BERLIN, ms("2026-11-29T13:00:00Z")) == "14:00 Europe/Berlin"
    assert edge_text("month", "UTC", ms("2026-12-01T00:00:00Z")) == "2026-12-01 00:00 UTC"
