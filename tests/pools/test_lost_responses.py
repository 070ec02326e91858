"""Chunks whose reserve has no response: what the server may have reserved for them is released."""

from __future__ import annotations

import asyncio

import pytest

import cycles
from tests.support.worlds import World

from .conftest import ACTION, Shop, T, close

pytestmark = pytest.mark.anyio


async def test_a_second_attempt_with_the_same_key_finds_the_chunk(world: World, shop: Shop) -> None:
    shop.faults.drop_response("reserve")
    pool = world.client.pool(T(400), action=ACTION)
    guard = await world.acquire(pool.reserve(T(10)))
    first, second = shop.bodies("reserve")
    assert first == second
    assert shop.money() == (0, 100), "one chunk, although two requests were received"
    await world.get(guard.commit(T(7)))
    await close(world, pool)
    assert shop.money() == (7, 0)


async def test_a_chunk_that_nobody_knows_is_released_in_the_background(world: World, shop: Shop) -> None:
    shop.faults.drop_response("reserve", times=2)
    pool = world.client.pool(T(400), action=ACTION)
    with pytest.raises(cycles.TransportError):
        await world.acquire(pool.reserve(T(10)))
    await asyncio.to_thread(shop.until, lambda: shop.count("release") == 1 and shop.money() == (0, 0))
    assert len({body["idempotency_key"] for body in shop.bodies("reserve")}) == 1
    assert pool.stats().held == T(0)
    guard = await world.acquire(pool.reserve(T(10)))
    assert guard.is_pooled, "the next guard opens a chunk again"
    await world.get(guard.release())


async def test_with_allow_the_guard_runs_and_the_unknown_chunk_is_released(world: World, shop: Shop) -> None:
    shop.faults.drop_response("reserve", times=2)
    pool = world.client.pool(T(400), action=ACTION, on_unavailable="allow")
    guard = await world.acquire(pool.reserve(T(10)))
    assert (guard.state, guard.is_pooled, guard.reservation_id) == ("unreserved", False, None)
    await world.get(guard.commit(T(7)))
    await asyncio.to_thread(shop.until, lambda: shop.money() == (7, 0))
    assert pool.stats().held == T(0)
    assert [event["actual"]["amount"] for event in shop.bodies("event")] == [7]
