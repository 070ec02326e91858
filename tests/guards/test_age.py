"""How old a record is: a wall clock that is set, a machine that is suspended, and records of which nothing was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.messages.outcome import Unreachable
from cycles._drivers.io.threads import BaseIo
from tests.recovery.kit import rejected_in
from tests.support.inside import runtime_of
from tests.support.waiting import PATIENCE_S

from .conftest import ACTION, Shop, World

T = cycles.tokens
DAY_MS = 86_400_000
EXPIRED = {"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r"}
pytestmark = pytest.mark.anyio


class Clocks:
    """Sets the wall clock, and suspends the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._known = BaseIo.clock
        self._boot_ms: Callable[[], float | None] = lambda: 1_000.0
        self.set(0, 0.0)

    def set(self, wall_days: int, boot_days: float | None) -> None:
        """Move both clocks by some days from now; `boot_days` None: the system has no clock that counts suspension."""
        known, boot_ms = self._known, None if boot_days is None else 1_000.0 + boot_days * DAY_MS
        clock = evolve(known, wall_ms=lambda: known.wall_ms() + wall_days * DAY_MS, boot_ms=lambda: boot_ms)
        self._monkeypatch.setattr(BaseIo, "clock", clock)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@pytest.fixture(params=["sync", "async"])
def slow(request: pytest.FixtureRequest, shop: Shop, clocks: Clocks) -> World:
    """A client that retries only when it is flushed."""
    return World(request.param, shop.client(retry_initial_delay=3600.0, retry_max_delay=3600.0, flush_timeout=0.1))


async def commit_pending(world: World) -> Any:
    guard = await world.acquire(world.reserve())
    assert (await world.get(guard.commit(T(7)))).status == "pending"
    return guard


async def flush(world: World) -> None:
    await world.get(world.operations.flush(timeout=PATIENCE_S))


def unreachable(world: World, operation: str) -> pytest.MonkeyPatch:
    """Let no request of an operation leave the client, until the returned patch is undone."""
    channel, patch = runtime_of(world.client).channel, pytest.MonkeyPatch()
    send = channel.send

    async def refused(call: Any, *more: Any) -> Any:
        is_refused = call.operation == operation
        return Unreachable("connection refused", sent=False) if is_refused else await send(call, *more)

    patch.setattr(channel, "send", refused)
    return patch


def rejected(shop: Shop) -> list[str]:
    return [kept["reason"] for kept in rejected_in(shop._folder)]


async def test_a_commit_that_was_never_sent_has_no_limit_of_age(slow: World, shop: Shop, clocks: Clocks) -> None:
    outage = unreachable(slow, "commitReservation")
    guard = await commit_pending(slow)
    outage.undo()
    clocks.set(9_800, 60.0)
    await flush(slow)
    assert (guard.state, shop.money(), rejected(shop)) == ("committed", (7, 0), [])


async def test_a_clock_that_is_set_makes_no_record_old(slow: World, shop: Shop, clocks: Clocks) -> None:
    shop.faults.drop_response("commit")
    guard = await commit_pending(slow)
    clocks.set(9_800, 0.1)
    await flush(slow)
    assert (guard.state, shop.money(), rejected(shop)) == ("committed", (7, 0), [])


async def test_a_clock_that_is_set_makes_no_commit_by_id_old(slow: World, shop: Shop, clocks: Clocks) -> None:
    guard = await slow.acquire(slow.reserve())
    guard.detach()
    shop.faults.drop_response("commit")
    result = await slow.get(slow.operations.commit_reservation(guard.reservation_id, T(7)))
    assert result.status == "PENDING"
    clocks.set(9_800, 0.1)
    await flush(slow)
    assert (shop.money(), rejected(shop)) == ((7, 0), [])


async def test_without_a_clock_that_counts_suspension_the_wall_clock_counts(
    slow: World, shop: Shop, clocks: Clocks
) -> None:
    clocks.set(0, None)
    shop.faults.drop_response("commit")
    await commit_pending(slow)
    clocks.set(30, None)
    await flush(slow)
    assert rejected(shop) == ["may_be_charged"]
    assert len(shop.sent("commit")) == 1


async def test_an_event_that_may_have_arrived_is_not_sent_after_its_key_has_ended(
    slow: World, shop: Shop, clocks: Clocks
) -> None:
    """The machine was suspended for a week, and its wall clock shows an hour."""
    shop.faults.status("commit", 410, body=EXPIRED)
    shop.faults.drop_response("event")
    await commit_pending(slow)
    clocks.set(0, 7.0)
    await flush(slow)
    assert rejected(shop) == ["may_be_charged"]
    assert len(shop.sent("event")) == 1


async def test_the_age_of_an_event_counts_from_its_first_request(slow: World, shop: Shop, clocks: Clocks) -> None:
    shop.faults.status("commit", 410, body=EXPIRED)
    outage = unreachable(slow, "createEvent")
    guard = await commit_pending(slow)
    outage.undo()
    clocks.set(0, 8.0)
    shop.faults.drop_response("event")
    before = len(shop.sent("event"))
    await slow.get(slow.operations.flush(timeout=0.5))
    await asyncio.to_thread(shop.until, lambda: len(shop.sent("event")) == before + 1)
    clocks.set(0, 13.0)
    await flush(slow)
    assert guard.state == "committed"
    assert rejected(shop) == []


async def test_the_commit_of_a_chunk_may_have_been_sent_by_another_client_of_its_store(
    slow: World, shop: Shop, clocks: Clocks
) -> None:
    """The server has lost the reservation, perhaps after another worker of the fleet has committed it."""
    outage = unreachable(slow, "commitReservation")
    pool = slow.client.pool(T(400), action=ACTION)
    guard = await slow.acquire(pool.reserve(T(10)))
    await slow.get(guard.commit(T(7)))
    pool.flush(0.1)
    await asyncio.to_thread(shop.until, slow.client.pending)  # the commit was tried
    outage.undo()
    clocks.set(2, 2.0)
    shop.faults.status("commit", 404, body={"error": "NOT_FOUND", "message": "no such reservation", "request_id": "r"})
    await flush(slow)
    assert (rejected(shop), shop.sent("event")) == (["may_be_charged"], [])


async def test_the_age_of_a_record_of_an_earlier_process_is_that_of_the_wall_clock(shop: Shop, clocks: Clocks) -> None:
    with shop.client(retry_initial_delay=3600.0, flush_timeout=0.0) as earlier:
        shop.faults.drop_response("commit")
        earlier.reserve(T(100), action=("llm.completion", "small-model")).acquire().commit(T(7))
    clocks.set(30, 0.0)
    with shop.client() as later:
        later.flush(PATIENCE_S)
    assert rejected(shop) == ["may_be_charged"]
    assert len(shop.sent("commit")) == 1


async def test_a_lost_response_makes_a_commit_no_younger_that_may_have_been_sent_before(
    slow: World, shop: Shop, clocks: Clocks
) -> None:
    """That of a chunk: another worker of the fleet may have sent it 28 days ago, and its key ends after 30."""
    outage = unreachable(slow, "commitReservation")
    pool = slow.client.pool(T(400), action=ACTION)
    guard = await slow.acquire(pool.reserve(T(10)))
    await slow.get(guard.commit(T(7)))
    pool.flush(0.1)
    await asyncio.to_thread(shop.until, slow.client.pending)  # the commit was tried
    outage.undo()
    clocks.set(28, 28.0)
    shop.faults.drop_response("commit")
    await slow.get(slow.operations.flush(timeout=0.5))
    await asyncio.to_thread(shop.until, lambda: len(shop.sent("commit")) == 1)
    assert rejected(shop) == []
    clocks.set(30, 30.0)
    await flush(slow)
    assert (len(shop.sent("commit")), rejected(shop)) == (1, ["may_be_charged"])
