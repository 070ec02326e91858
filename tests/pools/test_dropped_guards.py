"""Guards of a pool that are ended by no caller, because their generator was dropped, and pools that are dropped."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

import cycles
from tests.support.waiting import PATIENCE_S

from .conftest import ACTION, Shop, T


@pytest.mark.parametrize(
    ("policy", "spent", "sealed", "outcome"),
    [
        ("REJECT", 130, False, "rejected"),
        ("ALLOW_IF_AVAILABLE", 130, False, "committed"),
        ("REJECT", 7, True, "recorded_as_event"),
    ],
)
def test_a_guard_whose_generator_was_dropped_has_the_outcome_of_its_amount(
    client: cycles.Cycles, shop: Shop, policy: Any, spent: int, sealed: bool, outcome: str
) -> None:
    pool = client.pool(T(400), action=ACTION, overage_policy=policy)
    guards: list[Any] = []

    def work() -> Any:
        with pool.reserve(T(10)) as guard:
            guards.append(guard)
            guard.spend(T(spent))
            yield

    dropped = work()
    next(dropped)
    if sealed:
        pool.close()
    del dropped
    shop.until(lambda: pool.stats().live == T(0))  # its end runs in another thread
    pool.close()
    client.flush()
    (guard,) = guards
    if outcome == "rejected":
        assert (guard.state, guard.settlement) == ("rejected", None)
        assert shop.money() == (10, 0)
    else:
        settlement = guard.settled(PATIENCE_S)
        assert (guard.state, settlement.status, settlement.charged) == ("committed", outcome, T(spent))
        assert shop.money() == (spent, 0)


def test_a_pool_that_no_code_uses_any_more_is_freed_without_the_garbage_collector(client: cycles.Cycles) -> None:
    gc.disable()
    try:
        pool = client.pool(T(400), action=ACTION)
        with cycles.subject(agent="a"):
            pool.reserve(T(1)).acquire().commit(T(1))
        asyncio.run(pool.aio.flush())
        dropped = weakref.ref(pool)
        del pool
        assert dropped() is None
    finally:
        gc.enable()
