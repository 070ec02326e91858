"""A server whose store is down returns 401 with the message INTERNAL_ERROR: the guard treats it as a failing server."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from tests.guards.conftest import Shop, World

pytestmark = pytest.mark.anyio

STORE_DOWN = {"error": "UNAUTHORIZED", "message": "INTERNAL_ERROR", "request_id": "r"}
WRONG_KEY = {"error": "UNAUTHORIZED", "message": "KEY_NOT_FOUND", "request_id": "r"}


def fail(shop: Shop, operation: str, times: int | None, body: dict[str, Any] | None = None) -> None:
    shop.faults.status(operation, 401, body=STORE_DOWN if body is None else body, times=times)


async def test_a_create_is_sent_once_more_with_the_same_key(world: World, shop: Shop) -> None:
    fail(shop, "reserve", 1)
    async with world.enter(world.reserve(cycles.tokens(5), actual=cycles.tokens(3))):
        pass
    first, second = shop.bodies("reserve")
    assert first == second


async def test_two_such_responses_raise_a_server_error_that_names_the_store(world: World, shop: Shop) -> None:
    fail(shop, "reserve", 2)
    with pytest.raises(cycles.ServerError, match="its store is down") as caught:
        await world.acquire(world.reserve(cycles.tokens(5)))
    assert caught.value.retryable
    assert len(shop.sent("reserve")) == 2


async def test_a_wrong_key_is_not_sent_again(world: World, shop: Shop) -> None:
    fail(shop, "reserve", None, WRONG_KEY)
    with pytest.raises(cycles.UnauthorizedError):
        await world.acquire(world.reserve(cycles.tokens(5), on_unavailable="allow"))
    assert len(shop.sent("reserve")) == 1


async def test_the_block_runs_unreserved_under_allow_and_its_amount_is_recorded(world: World, shop: Shop) -> None:
    fail(shop, "reserve", 2)
    async with world.enter(world.reserve(cycles.tokens(5), on_unavailable="allow", actual=cycles.tokens(3))) as guard:
        assert guard.state == "unreserved"
    assert guard.settlement.status == "recorded_as_event"
    assert len(shop.sent("reserve")) == 2  # nothing was reserved, so nothing is cleaned up
    assert shop.money() == (3, 0)


async def test_a_commit_is_pending_until_the_store_is_back(world: World, shop: Shop) -> None:
    guard = await world.acquire(world.reserve(cycles.tokens(5)))
    fail(shop, "commit", 3)
    assert (await world.get(guard.commit(cycles.tokens(4)))).status == "pending"
    shop.until(lambda: shop.money() == (4, 0))


async def test_a_reservation_lost_with_the_store_is_recorded_as_an_event(world: World, shop: Shop) -> None:
    """The 401 says that the commit did not run, so a later 404 cannot hide a charge."""
    guard = await world.acquire(world.reserve(cycles.tokens(5)))
    fail(shop, "commit", 2)
    not_found = {"error": "NOT_FOUND", "message": "Reservation not found", "request_id": "r"}
    shop.faults.status("commit", 404, body=not_found, times=None)
    await world.get(guard.commit(cycles.tokens(4)))
    shop.until(lambda: len(shop.sent("event")) == 1)
    (event,) = shop.bodies("event")
    assert event["metadata"]["recovery_reason"] == "reservation_not_found"
