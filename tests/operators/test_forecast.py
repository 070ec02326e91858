"""When a budget is used up at its pace: the rule, `cycles top`, the dashboard and the summary of a window."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded.forecast import Forecast, Pace, forecast_text
from cycles.proxy._ledger import open_ledger
from cycles.proxy._totals import Totals
from tests.operators.conftest import Cycles

MINUTE = 60_000
NOW = 1_795_000_000_000
PLACE = ("tenant:acme", "USD_MICROCENTS")


def forecast(
    commits: Sequence[tuple[float, int]], *, remaining: int = 600, earlier: int = 0, **more: Any
) -> Forecast | None:
    """Return the forecast after commits so many minutes ago."""
    pace = Pace(NOW)
    for minutes, amount in commits:
        pace.add([PLACE[0]], PLACE[1], NOW - int(minutes * MINUTE), amount)
    return pace.of(*PLACE, remaining, sum(amount for _, amount in commits) + earlier, **more)


def test_the_rate_is_that_of_the_last_15_minutes_or_since_the_first_commit() -> None:
    commits = [(10, 100), (5, 100), (1, 100)]
    assert forecast(commits) == Forecast(*PLACE, 1_800, NOW + 20 * MINUTE)
    assert forecast(commits, earlier=1) == Forecast(*PLACE, 1_200, NOW + 30 * MINUTE)
    assert forecast([*commits, (15.1, 10_000)]) == Forecast(*PLACE, 1_200, NOW + 30 * MINUTE)


def test_the_last_unit_of_a_budget_has_a_forecast() -> None:
    assert forecast([(10, 100), (5, 100), (1, 100)], remaining=1) == Forecast(*PLACE, 1_800, NOW + 2_000)


@pytest.mark.parametrize(
    ("commits", "remaining"),
    [
        ([(10, 100), (5, 100)], 600),
        ([(0.9, 100), (0.5, 100), (0.1, 100)], 600),
        ([(10, 0), (5, 0), (1, 0)], 600),
        ([(10, 100), (5, 100), (1, 100)], 0),
        ([(10, 100), (5, 100), (1, 100)], -5),
        ([(10, 1), (5, 1), (1, 1)], 10**15),
        ([], 600),
    ],
)
def test_else_there_is_none(commits: list[tuple[float, int]], remaining: int) -> None:
    """Fewer than 3 commits, less than a minute, no amount, nothing left, or more than a year."""
    assert forecast(commits, remaining=remaining) is None


def test_commits_of_the_same_seconds_count_each() -> None:
    """They are kept as one entry."""
    assert forecast([(10, 100), (10, 100)]) is None
    assert forecast([(10, 100), (10, 100), (10, 100)]) == Forecast(*PLACE, 1_800, NOW + 20 * MINUTE)
    assert forecast([(10, 100), (10 - 1 / 12, 100), (10 - 1 / 12, 100)]) == forecast([(10, 300), (9, 0), (9, 0)])


@pytest.mark.parametrize(("minutes", "is_one"), [(15, True), (1, True), (1 - 1 / MINUTE, False)])
def test_the_first_commit_of_a_forecast_is_1_to_15_minutes_old(minutes: float, is_one: bool) -> None:
    assert (forecast([(minutes, 100), (0.5, 0), (-1 / 60, 0)]) is not None) == is_one


def test_a_commit_of_a_later_second_does_not_count() -> None:
    assert forecast([(10, 100), (5, 100), (-1 / 60 - 1 / MINUTE, 100)]) is None


@pytest.mark.parametrize(("remaining", "is_one"), [(366 * 24 * 60 - 1, True), (366 * 24 * 60, False)])
def test_a_forecast_ends_before_a_year(remaining: int, is_one: bool) -> None:
    assert (forecast([(10, 8), (5, 1), (1, 1)], remaining=remaining) is not None) == is_one


def test_a_window_that_ends_earlier_wins() -> None:
    commits = [(10, 100), (5, 100), (1, 100)]
    assert forecast(commits, ends_ms=NOW + 20 * MINUTE) is None
    assert forecast(commits, ends_ms=NOW + 20 * MINUTE + 1) is not None


def test_the_words() -> None:
    at = int(datetime(2026, 11, 29, 14, 20, tzinfo=UTC).timestamp() * 1000)
    assert forecast_text(at, with_day=False) == "used up at 14:20 at this pace"
    assert forecast_text(at, with_day=True) == "used up at 14:20 on 2026-11-29 at this pace"


def spend_for(server: cycles.EmbeddedServer, clock: cycles.ManualClock, minutes: int = 10) -> None:
    """Spend 10 cents each minute."""
    with server.client(tenant="acme", journal=False) as client:
        for _ in range(minutes):
            with client.reserve(cycles.usd("0.1"), action=("llm.completion", "m")) as guard:
                guard.commit(cycles.usd("0.1"))
            clock.advance(MINUTE)


def test_top_shows_when_each_budget_is_used_up_by_the_clock_of_the_server(
    run: Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = cycles.ManualClock(int(datetime(2026, 11, 29, 14, 0, tzinfo=UTC).timestamp() * 1000))
    budgets: Any = {"tenant:acme": [cycles.usd(2), cycles.tokens(5)], "tenant:acme/agent:idle": cycles.usd(1)}
    with cycles.EmbeddedServer(budgets, clock=clock) as server, server.listen() as url:
        monkeypatch.setenv("CYCLES_BASE_URL", url)
        monkeypatch.setenv("CYCLES_API_KEY", server.api_key_for("acme"))
        monkeypatch.setenv("CYCLES_TENANT", "acme")
        assert run("top", "--once", "--json").document["forecast"] == []
        spend_for(server, clock)
        [found] = run("top", "--once", "--json").document["forecast"]
        assert found == {
            "scope": "tenant:acme",
            "unit": "USD_MICROCENTS",
            "rate_per_hour": 600_000_000,
            "exhausted_at_ms": clock.now_ms() + 10 * MINUTE,
        }
        assert "used up at 14:20 at this pace" in run("top", "--once").out


def test_the_dashboard_has_the_same() -> None:
    clock = cycles.ManualClock()
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(2)}, clock=clock) as server, server.listen() as url:
        spend_for(server, clock)
        state = httpx.get(f"{url}/dashboard/state").json()
        [found] = state["budgets"]
        assert (found["scope_path"], found["exhausted_at_ms"]) == ("tenant:acme", clock.now_ms() + 10 * MINUTE)


def test_the_summary_of_a_window_has_the_same_words() -> None:
    kept: dict[str, Any] = {
        "name": "job",
        "spent": cycles.usd(1).to_dict(),
        "budget": cycles.usd(5).to_dict(),
        "window": {"window": "day", "timezone": "UTC", "ends_at_ms": NOW + 600 * MINUTE, "exhausted_at_ms": NOW},
    }
    at, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (NOW, NOW + 600 * MINUTE))
    month = {**kept, "window": {**kept["window"], "window": "month"}}
    assert f"used up at {at:%H:%M} on {at:%Y-%m-%d} at this pace" in Totals().line(1, cycles.usd(5), month)
    line = Totals().line(1, cycles.usd(5), kept)
    assert f"$1.0000 of $5.00 spent today (until {end:%H:%M} UTC, used up at {at:%H:%M} at this pace)" in line, line


def test_the_forecast_of_a_run_is_that_of_its_own_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of a share, nor that of a budget of the same ledger in another unit."""
    found = [
        Forecast("tenant:run/agent:a", "USD_MICROCENTS", 1, 10),
        Forecast("tenant:run", "USD_MICROCENTS", 1, 20),
        Forecast("tenant:run", "TOKENS", 1, 30),
    ]
    monkeypatch.setattr("cycles.embedded.operator.Operator.forecasts", lambda _: found)
    for budget, at_ms in ((cycles.usd(5), 20), (cycles.tokens(5), 30)):
        window = cycles.window(budget, "month")
        with closing(open_ledger(cycles.Config(), budget, embedded=True, keep="both", window=window)) as ledger:
            kept = ledger.kept_total()
            assert kept is not None
            assert kept["window"]["exhausted_at_ms"] == at_ms


def test_a_kept_ledger_says_when_its_window_is_used_up() -> None:
    ledger = open_ledger(
        cycles.Config(), cycles.usd(5), embedded=True, keep="forecast", window=cycles.window(cycles.usd(5), "month")
    )
    try:
        kept = ledger.kept_total()
        assert kept is not None
        assert "exhausted_at_ms" not in kept["window"]
    finally:
        ledger.close()
