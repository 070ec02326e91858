"""A client with ``journal=False``: nothing is kept, so a rejected amount is neither pending nor listed afterwards."""

from __future__ import annotations

from typing import Any

import pytest

import cycles

from .conftest import Shop, World

T = cycles.tokens
BUDGET_FROZEN = {"error": "BUDGET_FROZEN", "message": "no", "request_id": "r"}

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sync", "async"])
def unjournaled(request: pytest.FixtureRequest, shop: Shop) -> World:
    return World(request.param, shop.client(journal=False, flush_timeout=0.05))


def watch(client: cycles.Cycles) -> list[Any]:
    seen: list[Any] = []
    client.on_event(seen.append)
    return seen


async def reject_a_commit(world: World, shop: Shop) -> None:
    shop.faults.status("commit", 409, body=BUDGET_FROZEN)
    guard = await world.acquire(world.reserve())
    with pytest.raises(cycles.BudgetFrozenError):
        await world.get(guard.commit(T(7)))
    assert guard.state == "rejected"


async def test_a_rejected_amount_is_not_pending_when_the_client_closes(unjournaled: World, shop: Shop) -> None:
    seen = watch(unjournaled.client)
    await reject_a_commit(unjournaled, shop)
    if unjournaled.is_async:
        await unjournaled.client.aclose()
    else:
        unjournaled.client.close()
    assert [type(event).__name__ for event in seen] == ["Reserved", "SettlementRejected"]


async def test_the_report_of_a_rejection_says_how_to_record_the_amount(
    unjournaled: World, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    await reject_a_commit(unjournaled, shop)
    assert "no journal keeps it; record it by hand with client.record()" in caplog.text
    assert "pending(rejected=True)" not in caplog.text
    assert await unjournaled.get(unjournaled.operations.pending(rejected=True)) == []


async def test_with_a_journal_the_report_says_where_the_amount_is(
    world: World, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    await reject_a_commit(world, shop)
    assert "client.pending(rejected=True) lists it" in caplog.text
    (kept,) = await world.get(world.operations.pending(rejected=True))
    assert kept.amount == T(7)


async def test_the_rejected_excess_of_a_pool_says_how_to_record_it(unjournaled: World) -> None:
    options: Any = {"action": ("llm.completion", "small-model"), "overage_policy": "REJECT"}
    pool = unjournaled.client.pool(T(1_000), chunk=T(100), **options)
    guard = await unjournaled.acquire(pool.reserve(T(100)))
    with pytest.raises(cycles.BudgetExceededError, match=r"record it by hand with client\.record\(\)"):
        await unjournaled.get(guard.commit(T(5_000)))
