"""Pages of a gateway, with a status that a server uses too: they are retried like an outage."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from cycles.events import ReleaseFailed

from .conftest import ACTION, Shop, World

PAGE = b"<!doctype html><html><body>this site has moved</body></html>"
TEXT = b"Gone, says the gateway"
T = cycles.tokens

pytestmark = pytest.mark.anyio
statuses = pytest.mark.parametrize("status", [404, 409, 410, 422])
bodies = pytest.mark.parametrize("page", [PAGE, TEXT], ids=["html", "text"])


@statuses
@bodies
async def test_a_commit_that_arrived_is_charged_once_although_a_page_came_back(
    world: World, shop: Shop, status: int, page: Any
) -> None:
    """The server has charged the amount, and the gateway replaces its response."""
    shop.faults.status("commit", status, body=page, reaches_ledger=True, times=None)
    guard = await world.acquire(world.reserve())
    assert (await world.get(guard.commit(T(42)))).status == "pending"
    shop.faults.clear()
    assert (await world.get(world.operations.flush(timeout=60))).pending == 0
    assert (guard.state, shop.money()) == ("committed", (42, 0))
    assert shop.sent("event") == []
    assert await world.get(world.operations.pending(rejected=True)) == []


@statuses
async def test_a_commit_by_id_is_pending_after_a_page(world: World, shop: Shop, status: int) -> None:
    guard = await world.acquire(world.reserve())
    shop.faults.status("commit", status, body=PAGE, reaches_ledger=True, times=None)
    guard.detach()
    committed = await world.get(world.operations.commit_reservation(guard.reservation_id, T(42)))
    assert committed.status == "PENDING"
    shop.faults.clear()
    assert (await world.get(world.operations.flush(timeout=60))).pending == 0
    assert shop.money() == (42, 0)


@statuses
async def test_an_event_that_arrived_is_charged_once_although_a_page_came_back(
    world: World, shop: Shop, status: int
) -> None:
    shop.faults.status("event", status, body=PAGE, reaches_ledger=True, times=None)
    recorded = await world.get(world.operations.record(T(42), action=ACTION))
    assert recorded.status == "PENDING"
    shop.faults.clear()
    assert (await world.get(world.operations.flush(timeout=60))).pending == 0
    assert len({body["idempotency_key"] for body in shop.bodies("event")}) == 1
    assert shop.money() == (42, 0)


@statuses
async def test_a_release_is_sent_again_after_a_page(world: World, shop: Shop, events: list[Any], status: int) -> None:
    shop.faults.status("release", status, body=PAGE)
    guard = await world.acquire(world.reserve())
    assert await world.get(guard.release()) is None
    shop.until(lambda: shop.money() == (0, 0) and len(shop.sent("release")) == 2)
    assert len({body["idempotency_key"] for body in shop.bodies("release")}) == 1
    assert [event.retrying for event in events if isinstance(event, ReleaseFailed)] == [True]


async def test_a_page_does_not_say_that_a_reservation_has_expired(world: World, shop: Shop) -> None:
    guard = await world.acquire(world.reserve())
    shop.faults.status("get", 410, body=PAGE)
    with pytest.raises(cycles.ProtocolError) as caught:
        await world.get(world.operations.reservation(guard.reservation_id))
    assert type(caught.value) is cycles.ProtocolError
    assert caught.value.status == 410
    await world.get(guard.release())


@pytest.mark.parametrize("body", [b"", b" "], ids=["nothing", "blank"])
async def test_a_status_410_without_a_body_says_that_a_reservation_has_expired(
    world: World, shop: Shop, body: Any
) -> None:
    guard = await world.acquire(world.reserve())
    shop.faults.status("get", 410, body=body)
    with pytest.raises(cycles.ReservationExpiredError):
        await world.get(world.operations.reservation(guard.reservation_id))
    shop.faults.status("commit", 410, body=body)
    settlement = await world.get(guard.commit(T(42)))
    assert (settlement.status, shop.money()) == ("recorded_as_event", (42, 100))
    assert len(shop.sent("commit")) == 1
