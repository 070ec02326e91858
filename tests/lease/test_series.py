"""Work that outlasts one lease: consecutive reservations, each committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from cycles.embedded import EmbeddedServer, ManualClock
from tests.lease.conftest import Events
from tests.lease.server import LeaseServer, refuse
from tests.support.still_time import StillTime

ACTION = ("test", "work")


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(budgets={"tenant:acme": cycles.tokens(1_000)}, clock=ManualClock(1_700_000_000_000))
    yield server
    server.close()


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[cycles.Cycles]:
    with server.client(tenant="acme", journal=False) as client:
        yield client


def spent(server: EmbeddedServer) -> int:
    amount = server.ledger.balance("tenant:acme", unit="TOKENS").spent
    assert amount is not None
    return amount.amount


def test_a_part_continues_until_it_has_spent_its_estimate(server: EmbeddedServer, client: cycles.Cycles) -> None:
    guards = []
    with client.lease_series(cycles.tokens(100), action=ACTION) as series:
        for _ in range(5):
            guard = series.next()
            guard.spend(cycles.tokens(50))
            guards.append(guard)
            assert cycles.current_guard() is guard is series.guard
        assert series.spent == cycles.tokens(250)
        assert spent(server) == 200  # two parts are over and committed, the third holds its estimate
    assert spent(server) == 250
    assert [guards.index(guard) for guard in guards] == [0, 0, 2, 2, 4]
    assert [settlement.actual for settlement in series.settlements] == [
        cycles.tokens(100),
        cycles.tokens(100),
        cycles.tokens(50),
    ]
    assert cycles.current_guard() is None


def test_a_part_that_is_old_enough_is_followed_by_another(client: cycles.Cycles) -> None:
    with client.lease_series(cycles.tokens(100), action=ACTION, part_ms=0) as series:
        first = series.next()
        first.spend(cycles.tokens(1))
        second = series.next()
        second.spend(cycles.tokens(1))
    assert first is not second
    assert {first.state, second.state} == {"committed"}


@pytest.mark.parametrize(
    ("options", "lasts_s"),
    [({}, 240), ({"ttl_ms": 10_000}, 40), ({"part_ms": 7_000}, 7), ({"ttl_ms": 10_000, "part_ms": 50_000}, 50)],
)
def test_a_part_lasts_four_ttls_by_default(
    client: cycles.Cycles, still: StillTime, options: Any, lasts_s: float
) -> None:
    still.move(-still.monotonic() % 1)  # to a whole second: the age is exact
    with client.lease_series(cycles.tokens(100), action=ACTION, **options) as series:
        first = series.next()
        first.spend(cycles.tokens(1))
        still.move(lasts_s - 1.0)
        assert series.next() is first
        still.move(1.0)
        assert series.next() is not first
        series.next().spend(cycles.tokens(1))


def test_a_part_that_was_settled_by_hand_is_followed_by_another(client: cycles.Cycles) -> None:
    with client.lease_series(cycles.tokens(100), action=ACTION) as series:
        settlement = series.next().commit(cycles.tokens(7))
        assert (series.settlements, series.spent) == ([settlement], cycles.tokens(7))
        series.next().commit(cycles.tokens(8))
    assert (len(series.settlements), series.spent) == (2, cycles.tokens(15))


@pytest.mark.parametrize("options", [{}, {"shadow": True}, {"observe": True}], ids=["reserved", "shadow", "observed"])
def test_a_part_is_the_same_until_it_is_settled_and_its_spend_counts_once(options: Any) -> None:
    with (
        cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(1_000)}, protocol="0.1.26") as server,
        server.client(tenant="acme", journal=False) as client,
        client.lease_series(cycles.tokens(100), action=ACTION, **options) as series,
    ):
        first = series.next()
        first.spend(cycles.tokens(5))
        assert (series.next() is first, series.spent) == (True, cycles.tokens(5))
        first.commit()
        assert series.spent == cycles.tokens(5)
        second = series.next()
        assert second is not first
        second.spend(cycles.tokens(6))
        assert (series.next() is second, series.spent) == (True, cycles.tokens(11))


def test_a_series_that_raises_commits_what_is_spent(server: EmbeddedServer, client: cycles.Cycles) -> None:
    with (
        pytest.raises(ValueError, match="mine"),
        client.lease_series(cycles.tokens(100), action=ACTION, part_ms=0) as series,
    ):
        series.next().spend(cycles.tokens(10))
        series.next().spend(cycles.tokens(20))
        raise ValueError("mine")
    assert spent(server) == 30
    assert series.guard is None


@pytest.mark.parametrize("is_async", [False, True])
def test_a_part_without_spend_has_no_settlement(client: cycles.Cycles, is_async: bool) -> None:
    async def main(series: Any) -> Any:
        async with series as parts:
            await parts.next()
            await parts.next()
            assert (parts.settlements, parts.spent) == ([], None)
            (await parts.next()).spend(cycles.tokens(3))
        return parts

    def run(series: Any) -> Any:
        with series as parts:
            parts.next()
            parts.next()
            assert (parts.settlements, parts.spent) == ([], None)
            parts.next().spend(cycles.tokens(3))
        return parts

    series = client.lease_series(cycles.tokens(100), action=ACTION, part_ms=0)
    with pytest.warns(cycles.UncommittedGuardWarning):
        parts = asyncio.run(main(series)) if is_async else run(series)
    assert ([each.actual for each in parts.settlements], parts.spent) == ([cycles.tokens(3)], cycles.tokens(3))


def test_an_empty_budget_ends_the_series(server: EmbeddedServer, client: cycles.Cycles) -> None:
    with (
        pytest.raises(cycles.BudgetExceededError),
        client.lease_series(cycles.tokens(400), action=ACTION) as series,
    ):
        while True:
            series.next().spend(cycles.tokens(400))
    assert spent(server) == 800
    assert len(series.settlements) == 2


def test_async_series(server: EmbeddedServer, client: cycles.Cycles) -> None:
    async def main() -> None:
        async with client.lease_series(cycles.tokens(100), action=ACTION) as series:
            for _ in range(3):
                (await series.next()).spend(cycles.tokens(100))
        assert series.spent == cycles.tokens(300)

    asyncio.run(main())
    assert spent(server) == 300


def test_a_lost_lease_is_followed_by_another(
    client_of: Callable[..., cycles.Cycles], server_responded: Events, still: StillTime
) -> None:
    with LeaseServer(refuse(409, "MAX_EXTENSIONS_EXCEEDED")) as server, client_of(server) as client:
        with client.lease_series(cycles.tokens(1_000), action=ACTION, ttl_ms=3_500) as series:
            first = series.next()
            first.spend(cycles.tokens(1))
            still.beat(first)
            (lost,) = server_responded.wait_for("LeaseLost")
            assert 2_995 <= lost.lasts_ms <= 3_000
            assert "grants no more" in lost.detail
            assert "the lease ends in about" in lost.text()
            assert series.next() is not first
            assert first.state == "committed"
            series.next().spend(cycles.tokens(1))
        assert [seen.what for seen in server.seen if seen.what != "extend"] == ["reservations", "commit"] * 2


@pytest.mark.parametrize("is_async", [False, True])
def test_the_part_that_lost_its_lease_is_among_the_settlements(
    client_of: Callable[..., cycles.Cycles], server_responded: Events, still: StillTime, is_async: bool
) -> None:
    options: Any = {"action": ACTION, "ttl_ms": 3_500, "lease_policy": "fail_on_finalize"}

    async def main(client: cycles.Cycles) -> Any:
        async with client.lease_series(cycles.tokens(1_000), **options) as series:
            lose(await series.next())
            with pytest.raises(cycles.LeaseLostError):
                await series.next()
        return series

    def lose(part: Any) -> None:
        part.spend(cycles.tokens(1))
        client.close()  # no thread renews the lease any longer

    with LeaseServer() as server, client_of(server) as client:
        if is_async:
            series = asyncio.run(main(client))
        else:
            with client.lease_series(cycles.tokens(1_000), **options) as series:
                lose(series.next())
                with pytest.raises(cycles.LeaseLostError):
                    series.next()
    assert (len(series.settlements), series.spent) == (1, cycles.tokens(1))


def test_a_series_takes_no_idempotency_key(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="own key"):
        client.lease_series(cycles.tokens(1), action=ACTION, idempotency_key="k")  # type: ignore[call-arg]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_series_that_is_begun_again_has_no_part_of_the_first_time(client: cycles.Cycles, is_async: bool) -> None:
    series = client.lease_series(cycles.tokens(100), action=ACTION)

    def run() -> Any:
        with series as parts:
            assert (parts.guard, parts.settlements, parts.spent) == (None, [], None)
            parts.next().spend(cycles.tokens(3))
        return parts

    async def main() -> Any:
        async with series as parts:
            assert (parts.guard, parts.settlements, parts.spent) == (None, [], None)
            (await parts.next()).spend(cycles.tokens(3))
        return parts

    first, second = [asyncio.run(main()) if is_async else run() for _ in range(2)]
    assert first is not second
    for parts in (first, second):
        assert [each.actual for each in parts.settlements] == [cycles.tokens(3)]


def test_a_series_that_is_read_after_its_part_was_committed_counts_it_once(client: cycles.Cycles) -> None:
    with client.lease_series(cycles.tokens(100), action=ACTION) as series:
        guard = series.next()
        guard.spend(cycles.tokens(3))
        guard.commit()
        assert (len(series.settlements), series.spent) == (1, cycles.tokens(3))
