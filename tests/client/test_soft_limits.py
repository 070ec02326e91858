"""Thresholds: events when the used fraction of a budget rises to one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import cycles
from cycles._config import Config
from cycles._core.messages.used_fraction import ThresholdWatcher, Used
from cycles._drivers.reporting import Reporter
from cycles._drivers.soft_limits import SoftLimits
from cycles.events import BudgetThreshold
from tests.client.soft_limits import ACTION, SCOPE, spend


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({SCOPE: [cycles.usd(100), cycles.tokens(100)]}) as server:
        yield server


def test_a_threshold_is_reported_once_when_the_fraction_rises_to_it(server: cycles.EmbeddedServer) -> None:
    with server.client() as client:
        seen: list[BudgetThreshold] = []
        observed: list[object] = []
        client.on_event(lambda event: observed.append(event) if isinstance(event, BudgetThreshold) else None)
        client.on_threshold((0.8, 0.95), seen.append)
        spend(client, 79)
        assert seen == []
        spend(client, 1)
        [event] = seen
        assert (event.scope, event.unit, event.threshold, event.fraction) == (SCOPE, "USD_MICROCENTS", 0.8, 0.8)
        assert cycles.to_usd(event.remaining) == 20
        assert event.allocated == cycles.usd(100)
        assert "80% used" in event.text()
        spend(client, 5)
        assert len(seen) == 1
        spend(client, 10)
        assert [event.threshold for event in seen] == [0.8, 0.95]
        assert observed == seen


def test_reserved_budget_counts_as_used(server: cycles.EmbeddedServer) -> None:
    with server.client() as client:
        seen: list[BudgetThreshold] = []
        client.on_threshold(0.8, seen.append)
        guard = client.reserve(cycles.usd(85), action=ACTION).acquire()
        assert [event.fraction for event in seen] == [0.85]
        guard.release()


def test_it_is_reported_again_only_after_the_fraction_fell_well_below(server: cycles.EmbeddedServer) -> None:
    with server.client() as client:
        seen: list[BudgetThreshold] = []
        client.on_threshold(0.8, seen.append)
        spend(client, 80)
        server.ledger.set_budget(SCOPE, cycles.usd(105), spent=80_00000000)
        client.reserve(cycles.usd(0), action=ACTION).acquire().release()  # sees 76 %
        spend(client, 5)  # 81 %
        assert len(seen) == 1
        server.ledger.set_budget(SCOPE, cycles.usd(200), spent=85_00000000)
        spend(client, 1)
        server.ledger.set_budget(SCOPE, cycles.usd(100), spent=86_00000000)
        spend(client, 1)
        assert [event.fraction for event in seen] == [0.8, 0.87]


def test_only_the_named_scopes_are_watched_until_the_watcher_is_removed() -> None:
    budgets = {SCOPE: cycles.usd(1000), f"{SCOPE}/agent:bot": cycles.usd(10)}
    with cycles.EmbeddedServer(budgets) as server, server.client() as client:
        bot: list[BudgetThreshold] = []
        tenant: list[BudgetThreshold] = []
        stop = client.on_threshold([0.5], bot.append, scopes=[f"{SCOPE}/agent:Bot"])
        client.on_threshold([0.5], tenant.append, scopes=[SCOPE])
        spend(client, 5, subject={"agent": "bot"})
        assert [event.scope for event in bot] == [f"{SCOPE}/agent:bot"]
        assert tenant == []
        stop()
        client.on_threshold([0.9], tenant.append)
        spend(client, 5, subject={"agent": "bot"})
        assert len(bot) == 1
        assert [event.threshold for event in tenant] == [0.9]


def test_a_callback_that_fails_changes_nothing(server: cycles.EmbeddedServer, caplog: pytest.LogCaptureFixture) -> None:
    with server.client() as client:
        client.on_threshold(0.5, lambda event: 1 / 0)
        spend(client, 60)
        assert server.spent(SCOPE, "USD_MICROCENTS") == cycles.usd(60)
        assert "observer failed on BudgetThreshold" in caplog.text


def test_a_scope_without_an_allocated_amount_has_no_fraction(server: cycles.EmbeddedServer) -> None:
    server.ledger.set_budget(SCOPE, cycles.usd(0), overdraft_limit=100_00000000)
    with server.client() as client:
        seen: list[BudgetThreshold] = []
        client.on_threshold(0.1, seen.append)
        options = {"overage_policy": "ALLOW_WITH_OVERDRAFT"}
        client.reserve(cycles.usd(0), action=ACTION, **options).acquire().commit(cycles.usd(1))  # type: ignore[arg-type]
        assert seen == []


def test_the_whole_budget_is_a_threshold_too(server: cycles.EmbeddedServer) -> None:
    with server.client() as client:
        seen: list[BudgetThreshold] = []
        client.on_threshold((0.95, 1), seen.append)
        for amount in (96, 4):
            client.reserve(cycles.usd(amount), action=ACTION).acquire().commit(cycles.usd(amount))
        assert [event.threshold for event in seen] == [0.95, 1.0]


def test_a_threshold_is_reported_in_async_code_too(server: cycles.EmbeddedServer) -> None:
    async def main() -> list[float]:
        async with server.client() as client:
            seen: list[BudgetThreshold] = []
            client.on_threshold((0.5,), seen.append)
            async with client.reserve(cycles.usd(60), action=ACTION) as guard:
                await guard.commit(cycles.usd(60))
            return [event.threshold for event in seen]

    assert asyncio.run(main()) == [0.5]


@pytest.mark.parametrize(
    ("thresholds", "callback", "scopes", "says"),
    [
        ("0.8", print, None, "thresholds must be fractions"),
        ((0.8, 80), print, None, "got 80"),
        ((), print, None, "thresholds must be fractions"),
        (0, print, None, "got 0"),
        (0.8, "x", None, "callback must be a callable"),
        (0.8, print, "tenant:acme", "scopes must be a list"),
    ],
)
def test_wrong_thresholds_are_one_clear_error(
    server: cycles.EmbeddedServer, thresholds: Any, callback: Any, scopes: Any, says: str
) -> None:
    with server.client() as client, pytest.raises(cycles.InvalidRequestError, match=says):
        client.on_threshold(thresholds, callback, scopes)


class Watched:
    """The soft limits of a client, budgets whose used amount the test sets, and what is reported."""

    def __init__(self, **settings: Any) -> None:
        self.reporter = Reporter()
        config = Config(base_url="http://a.test", api_key="k", **settings)
        self.limits = SoftLimits(config, self.reporter)
        self.observed: list[Any] = []
        self.reporter.add(self.observed.append)

    def watch(self, *thresholds: float, scopes: frozenset[str] | None = None) -> list[float]:
        seen: list[float] = []
        self.reporter.watch(ThresholdWatcher(thresholds, lambda event: seen.append(event.threshold), scopes))
        return seen

    def see(self, *used: int, scope: str = SCOPE, unit: str = "TOKENS", operation: str = "createReservation") -> None:
        for amount in used:
            remaining = {"unit": unit, "amount": 1_000 - amount}
            balance = {"scope_path": scope, "allocated": {"unit": unit, "amount": 1_000}, "remaining": remaining}
            self.limits.see(operation, {"balances": [balance]})


@pytest.mark.parametrize(
    ("used", "reported"),
    [
        ([499], 0),
        ([500], 1),
        ([500, 500, 900], 1),
        ([500, 450, 500], 1),  # not far enough below
        ([500, 449, 500], 2),
        ([500, 449, 460, 500, 449, 500], 3),
    ],
)
def test_a_threshold_is_reported_again_after_the_fraction_was_five_points_below(used: list[int], reported: int) -> None:
    watched = Watched()
    seen = watched.watch(0.5)
    watched.see(*used)
    assert seen == [0.5] * reported
    assert len(watched.observed) == reported


def test_each_watcher_threshold_scope_and_unit_is_reported_by_itself() -> None:
    watched = Watched()
    watched.see(900)  # no watcher yet
    low, high = watched.watch(0.2, 0.5), watched.watch(0.5, 0.9)
    other = watched.watch(0.1, scopes=frozenset({"tenant:other"}))
    watched.see(500, 600)
    assert (low, high, other) == ([0.2, 0.5], [0.5], [])
    watched.see(940, scope="tenant:Other")
    assert (low, high, other) == ([0.2, 0.5] * 2, [0.5, 0.5, 0.9], [0.1])
    watched.see(200, unit="CREDITS")
    assert low == [0.2, 0.5, 0.2, 0.5, 0.2]
    watched.see(200)  # only the threshold that is far above is reported again
    watched.see(500)
    assert low == [0.2, 0.5, 0.2, 0.5, 0.2, 0.5]
    # Observers get each threshold once, however many watchers there are for it.
    reports = [(each.scope, each.unit, each.threshold) for each in watched.observed]
    assert sorted(reports) == [
        *[("tenant:Other", "TOKENS", threshold) for threshold in (0.1, 0.2, 0.5, 0.9)],
        *[(SCOPE, "CREDITS", 0.2), (SCOPE, "TOKENS", 0.2), (SCOPE, "TOKENS", 0.5), (SCOPE, "TOKENS", 0.5)],
    ]


@pytest.mark.parametrize(
    ("operation", "is_read"),
    [
        ("createReservation", True),
        ("commitReservation", True),
        ("releaseReservation", True),
        ("getBalances", False),
        ("extendReservation", False),
    ],
)
def test_only_the_responses_that_change_a_budget_are_read(operation: str, is_read: bool) -> None:
    watched = Watched()
    seen = watched.watch(0.5)
    watched.see(600, operation=operation)
    assert seen == [0.5] * is_read


def test_a_local_limit_is_watched_as_a_budget() -> None:
    watched, spent = Watched(), [0]
    seen = watched.watch(0.5)
    watched.limits.add(lambda: Used("run", "TOKENS", 100, 100 - spent[0]))
    watched.limits.add(lambda: Used("other run", "TOKENS", 100, 100))
    watched.limits.see_sources()
    assert seen == []
    spent[0] = 60
    watched.limits.see_sources()
    assert seen == [0.5]
    spent[0] = 10
    watched.see(0)  # a response is read together with the limits
    spent[0] = 50
    watched.see(0, operation="getBalances")
    assert seen == [0.5]
    watched.see(0)
    [_, event] = watched.observed
    assert (event.scope, event.unit, event.threshold, event.fraction) == ("run", "TOKENS", 0.5, 0.5)
    assert (event.remaining, event.allocated) == (cycles.SignedAmount("TOKENS", 50), cycles.tokens(100))


@pytest.mark.parametrize("is_watched", [False, True])
def test_an_approval_knows_the_latest_of_each_budget_without_a_watcher(
    monkeypatch: pytest.MonkeyPatch, is_watched: bool
) -> None:
    monkeypatch.setattr("cycles._flows.approval.Approvals", lambda approve, above, known: known)
    watched, spent = Watched(approve=lambda request: True), [0]
    known: Any = watched.limits.approvals
    if is_watched:
        watched.watch(0.5)
    watched.limits.add(lambda: Used("run", "TOKENS", 100, 100 - spent[0]))
    watched.limits.add(lambda: Used("run", "USD_MICROCENTS", 100, 90))
    spent[0] = 10
    watched.limits.see_sources()
    of_run = {(each.unit, each.remaining) for each in known()}
    assert of_run == {("TOKENS", 90), ("USD_MICROCENTS", 90)}
    spent[0] = 60
    watched.see(300)
    watched.see(400, unit="USD_MICROCENTS")
    found = {(each.scope, each.unit, each.remaining) for each in known()}
    assert found == {
        ("run", "TOKENS", 40),
        ("run", "USD_MICROCENTS", 90),
        (SCOPE, "TOKENS", 700),
        (SCOPE, "USD_MICROCENTS", 600),
    }


@pytest.mark.parametrize(("used", "unit"), [(1_000, "TOKENS"), (1_200, "TOKENS"), (1_001, "RISK_POINTS")])
def test_a_budget_in_overdraft_is_shown_with_what_it_lacks(used: int, unit: str) -> None:
    watched = Watched()
    watched.watch(1.0)
    watched.see(used, unit=unit)
    (event,) = watched.observed
    assert (event.remaining, event.allocated) == (cycles.SignedAmount(unit, 1_000 - used), cycles.Amount(unit, 1_000))
    assert (event.unit, event.threshold, event.fraction) == (unit, 1.0, used / 1_000)


def test_only_a_client_with_an_approval_has_one() -> None:
    assert Watched().limits.approvals is None
    assert Watched(approve=lambda request: True).limits.approvals is not None


@pytest.mark.parametrize(("scopes", "count"), [(None, 1), ([], 0), ((), 0), ([SCOPE], 1), (iter([SCOPE.upper()]), 1)])
def test_a_list_of_no_scopes_watches_none(server: cycles.EmbeddedServer, scopes: Any, count: int) -> None:
    with server.client() as client:
        seen: list[BudgetThreshold] = []
        client.on_threshold(0.5, seen.append, scopes=scopes)
        spend(client, 60)
        assert len(seen) == count
