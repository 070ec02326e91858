"""Guards that moved out of a sealed chunk: they share the outcome of the chunk in which they were settled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import cycles
from tests.support.worlds import World

from .conftest import ACTION, Shop, T, chunk_of, close, seal

pytestmark = pytest.mark.anyio

LOST = {"error": "NOT_FOUND", "message": "no such reservation", "request_id": "r"}
EXPIRED = {"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r"}
FROZEN = {"error": "BUDGET_FROZEN", "message": "frozen", "request_id": "r"}


async def moved(world: World, shop: Shop, pool: Any) -> tuple[Any, Any]:
    """Return a guard that was settled in its own chunk, now committed, and one that moved into another chunk."""
    stays = await world.acquire(pool.reserve(T(10)))
    moves = await world.acquire(pool.reserve(T(10)))
    await world.get(stays.commit(T(3)))
    seal(moves)
    await asyncio.to_thread(shop.until, lambda: stays.state == "committed")
    other = await world.acquire(pool.reserve(T(10)))
    await world.get(moves.commit(T(7)))
    assert moves.reservation_id == other.reservation_id != stays.reservation_id
    await world.get(other.release())
    return stays, moves


@pytest.mark.parametrize(("status", "body"), [(404, LOST), (410, EXPIRED)])
async def test_the_new_chunk_becomes_an_event(world: World, shop: Shop, status: int, body: dict[str, str]) -> None:
    pool = world.client.pool(T(400), action=ACTION)
    stays, moves = await moved(world, shop, pool)
    shop.faults.status("commit", status, body=body)
    await close(world, pool)
    assert (stays.settlement.status, moves.settlement.status) == ("committed", "recorded_as_event")
    assert (await world.get(moves.settled(5))).charged == T(7)
    (event,) = shop.bodies("event")
    assert (event["actual"]["amount"], event["metadata"]["recovered_reservation_id"]) == (7, moves.reservation_id)
    assert event["idempotency_key"] == shop.bodies("commit")[-1]["idempotency_key"]
    assert shop.money()[0] == 10


@pytest.mark.parametrize(("status", "body"), [(404, LOST), (410, EXPIRED)])
async def test_the_old_chunk_becomes_an_event_without_what_moved(
    world: World, shop: Shop, status: int, body: dict[str, str]
) -> None:
    shop.faults.status("commit", status, body=body)
    pool = world.client.pool(T(400), action=ACTION)
    stays, moves = await moved(world, shop, pool)
    await close(world, pool)
    assert (stays.settlement.status, moves.settlement.status) == ("recorded_as_event", "committed")
    assert [event["actual"]["amount"] for event in shop.bodies("event")] == [3]
    assert shop.money()[0] == 10


async def test_a_rejection_of_the_new_chunk_is_that_of_the_guard_that_moved(world: World, shop: Shop) -> None:
    pool = world.client.pool(T(400), action=ACTION)
    stays, moves = await moved(world, shop, pool)
    shop.faults.status("commit", 409, body=FROZEN)
    await close(world, pool)
    assert (stays.state, moves.state) == ("committed", "rejected")
    with pytest.raises(cycles.BudgetFrozenError):
        await world.get(moves.settled(5))


@pytest.mark.parametrize(("status", "body"), [(404, LOST), (410, EXPIRED)])
async def test_the_event_of_a_guard_without_an_open_chunk_does_not_depend_on_its_old_one(
    world: World, shop: Shop, status: int, body: dict[str, str]
) -> None:
    shop.faults.status("commit", status, body=body)
    pool = world.client.pool(T(400), action=ACTION)
    stays = await world.acquire(pool.reserve(T(10)))
    late = await world.acquire(pool.reserve(T(10)))
    await world.get(stays.commit(T(3)))
    await close(world, pool)
    await world.get(late.commit(T(7)))
    await asyncio.to_thread(shop.until, lambda: late.state == "committed")
    assert {stays.settlement.status, late.settlement.status} == {"recorded_as_event"}
    assert [event["actual"]["amount"] for event in shop.bodies("event")] == [3, 7]
    assert shop.money()[0] == 10


async def test_a_guard_whose_spend_has_its_own_entry_does_not_move(world: World, shop: Shop) -> None:
    """A kill between the entry and the log of the other chunk would charge it twice."""
    pool = world.client.pool(T(400), action=ACTION)
    stays = await world.acquire(pool.reserve(T(10)))
    stays.spend(T(3))
    seal(stays)
    stays.spend(T(1))
    other = await world.acquire(pool.reserve(T(10)))
    await world.get(other.commit(T(5)))
    await world.get(stays.commit())
    assert (await world.get(stays.settled(60))).status == "recorded_as_event"
    await close(world, pool)
    assert shop.money() == (9, 0)


async def test_the_event_of_a_guard_does_not_end_the_heartbeat_of_a_pending_chunk(world: World, shop: Shop) -> None:
    shop.faults.status("commit", 503, times=None)
    pool = world.client.pool(T(400), action=ACTION)
    stays = await world.acquire(pool.reserve(T(10)))
    late = await world.acquire(pool.reserve(T(10)))
    await world.get(stays.commit(T(3)))
    seal(late)
    await asyncio.to_thread(shop.until, lambda: shop.count("commit"))
    await world.get(late.commit(T(7)))
    await asyncio.to_thread(shop.until, lambda: late.state == "committed")
    assert not chunk_of(stays).heartbeat.ended, "its commit is pending and needs the lease"
    shop.faults.clear()
    await world.get(world.operations.flush())
    assert (stays.state, chunk_of(stays).heartbeat.ended) == ("committed", True)
    assert shop.money() == (10, 0)
