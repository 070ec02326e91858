"""`approve` with pools: it is called before a reserve of a guard is sent, never for a chunk."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from tests.support.points import run_at
from tests.support.worlds import World

from .conftest import ACTION, Shop, T, close

pytestmark = pytest.mark.anyio


class Reviewer:
    """A function for `approve` that returns the same reply each time, and keeps what it got."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.requests: list[Any] = []

    def __call__(self, request: Any) -> Any:
        self.requests.append(request)
        return self.reply


@pytest.fixture
def reviewer() -> Reviewer:
    return Reviewer(True)


@pytest.fixture
def client(shop: Shop, reviewer: Reviewer) -> cycles.Cycles:
    client = shop.client(approve=reviewer, approve_above=0.5)
    shop.ledger.set_budget("tenant:acme", T(1_000))
    with client.reserve(T(600), action=ACTION) as guard:
        guard.commit(T(600))  # from now on more than half is used
    shop.server.requests.clear()
    return client


def pool_of(world: World, **options: Any) -> Any:
    return world.client.pool(T(200), action=ACTION, chunk=T(50), **options)


async def test_the_guard_that_waits_for_a_chunk_is_approved_and_the_chunk_is_not(
    world: World, shop: Shop, reviewer: Reviewer
) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(10)))
    assert [request.estimate for request in reviewer.requests] == [T(10)]
    assert shop.bodies("reserve")[0]["estimate"]["amount"] == 50
    await world.get(guard.release())
    await close(world, pool)


async def test_a_guard_that_sends_no_reserve_and_a_refill_ahead_need_no_approval(
    world: World, shop: Shop, reviewer: Reviewer
) -> None:
    pool = pool_of(world)
    for _ in range(3):
        guard = await world.acquire(pool.reserve(T(10)))
        await world.get(guard.commit(T(10)))
    shop.until(lambda: shop.count("reserve") == 2)
    assert len(reviewer.requests) == 1
    await close(world, pool)
    assert shop.money() == (630, 0)


async def test_a_denied_guard_opens_no_chunk(world: World, shop: Shop, reviewer: Reviewer) -> None:
    reviewer.reply = False
    pool = pool_of(world)
    with pytest.raises(cycles.ApprovalDeniedError) as denied:
        await world.acquire(pool.reserve(T(10), wait=5))
    assert (denied.value.request_sent, shop.count("reserve"), pool.stats().live) == (False, 0, T(0))


async def test_a_guard_that_is_reserved_directly_is_approved_once(world: World, shop: Shop, reviewer: Reviewer) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(60)))
    assert not guard.is_pooled
    assert [request.estimate for request in reviewer.requests] == [T(60)]
    await world.get(guard.release())


async def test_beyond_the_limit_of_the_pool_nobody_is_asked(world: World, reviewer: Reviewer) -> None:
    pool = pool_of(world, limit=T(5))
    with pytest.raises(cycles.BudgetExceededError) as raised:
        await world.acquire(pool.reserve(T(6), wait=30))
    assert (raised.value.code, reviewer.requests) == ("POOL_LIMIT", [])


def raise_interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.filterwarnings(
    "ignore:.*was dropped without commit:ResourceWarning", "ignore:coroutine .* was never awaited:RuntimeWarning"
)
@pytest.mark.parametrize("estimate", [10, 60], ids=["opens a chunk", "directly"])
def test_an_interrupted_reserve_leaves_the_approval_on(
    client: cycles.Cycles, reviewer: Reviewer, estimate: int
) -> None:
    """Ctrl-C at any point of the approval: the next reservation of this thread needs an approval again."""
    for number in range(1_000):
        pool = client.pool(T(200), action=ACTION, chunk=T(50))

        def reserve() -> None:
            pool.reserve(T(estimate)).acquire().release()  # noqa: B023 - it is called in this run only

        try:
            more = run_at("/cycles/_flows/approval.py", number, raise_interrupt, reserve)
        except KeyboardInterrupt:
            more = True
        pool.close()
        reviewer.requests.clear()
        client.reserve(T(1), action=ACTION).acquire().release()
        assert len(reviewer.requests) == 1, f"point {number}"
        if not more:
            assert number > 5
            return
    pytest.fail("the call never ends")
