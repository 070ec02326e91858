"""Many guards at the same time from a budget that the pool can hold: none is denied that the budget could pay for."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import cycles

from .conftest import Shop, T, chunk_of, named
from .pool_use import estimates, pool_of, use

pytestmark = pytest.mark.anyio

BUDGET = 1_000
ESTIMATE = 52  # four fit into a chunk of a quarter, with a rest of 42
FITTING = BUDGET // ESTIMATE
CALLERS = 64


class Crowd:
    """Callers that reserve at the same time, and end their guards only when each of them has its result."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.guards: list[Any] = []
        self.denied: list[str] = []

    async def tasks(self) -> None:
        waiting = [self.pool.reserve(T(ESTIMATE)) for _ in range(CALLERS)]
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            self._note(result)
        for guard in self.guards:
            await guard.commit(T(ESTIMATE))

    def threads(self) -> None:
        callers = [threading.Thread(target=self._acquire) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        for guard in self.guards:
            guard.commit(T(ESTIMATE))

    def _acquire(self) -> None:
        try:
            self._note(self.pool.reserve(T(ESTIMATE)).acquire())
        except cycles.BudgetExceededError as error:
            self._note(error)

    def _note(self, result: Any) -> None:
        if isinstance(result, cycles.BudgetExceededError):
            assert result.code is not None
            self.denied.append(result.code)
        else:
            self.guards.append(result)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_pool_whose_limit_is_what_it_may_hold_admits_all_that_fit(
    client: cycles.Cycles, shop: Shop, *, is_async: bool
) -> None:
    shop.ledger.set_budget("tenant:acme", T(BUDGET))
    pool = pool_of(client, max_held=BUDGET, limit=T(BUDGET))
    crowd = Crowd(pool)
    if is_async:
        await crowd.tasks()
    else:
        await asyncio.to_thread(crowd.threads)
    assert (len(crowd.guards), crowd.denied) == (FITTING, ["POOL_LIMIT"] * (CALLERS - FITTING))
    assert all(guard.is_pooled for guard in crowd.guards)
    assert shop.count("reserve") == 4, "no more chunks than before"
    pool.close()
    assert shop.money() == (FITTING * ESTIMATE, 0)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_pool_that_may_hold_the_whole_budget_loses_the_rest_of_one_chunk(
    client: cycles.Cycles, shop: Shop, *, is_async: bool
) -> None:
    """Only the response to the first chunk says that the budget is small."""
    shop.ledger.set_budget("tenant:acme", T(BUDGET))
    pool = pool_of(client, max_held=BUDGET)
    crowd = Crowd(pool)
    if is_async:
        await crowd.tasks()
    else:
        await asyncio.to_thread(crowd.threads)
    assert len(crowd.guards) >= FITTING - 1
    pool.close()
    assert shop.money() == (len(crowd.guards) * ESTIMATE, 0)


async def test_a_chunk_takes_what_is_left_of_the_budget(client: cycles.Cycles, shop: Shop, events: list[Any]) -> None:
    """Half of a chunk that is denied would leave a part of the budget that no guard gets."""
    shop.ledger.set_budget("tenant:acme", T(160))
    pool = pool_of(client)
    first, second = (pool.reserve(T(60)).acquire() for _ in range(2))
    assert chunk_of(second).amount == 60
    assert estimates(shop) == [100, 60]
    assert named(events, "PoolDenied") == []
    first.release()
    second.release()


def test_budget_that_a_chunk_returns_ends_the_pause_after_a_denial(client: cycles.Cycles, shop: Shop) -> None:
    shop.ledger.set_budget("tenant:acme", T(100))
    pool = pool_of(client)
    guard = pool.reserve(T(60)).acquire()
    with pytest.raises(cycles.BudgetExceededError):
        use(pool, 50, 50)
    guard.commit(T(10))
    pool.flush()
    assert use(pool, 50, 50).is_pooled, "90 is left"
    pool.close()
    assert shop.money() == (60, 0)


def test_a_rate_limit_lasts_although_a_chunk_returns_budget(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    guard = pool.reserve(T(40)).acquire()
    shop.faults.status("reserve", 429, headers={"Retry-After": "7"}, times=None)
    with pytest.raises(cycles.RateLimitedError):
        use(pool, 70, 70)
    guard.commit(T(10))
    pool.flush()
    reserves = shop.count("reserve")
    with pytest.raises(cycles.RateLimitedError):
        use(pool, 70, 70)
    assert shop.count("reserve") == reserves
