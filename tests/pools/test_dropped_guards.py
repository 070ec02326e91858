"""Guards of a pool that are ended by no caller: their generator was dropped, and the client ends them."""

from __future__ import annotations

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
