"""`commit(wait=False)` and `settle="background"`: the caller has its amount saved, and the server gets it later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import cycles
from cycles._drivers.work import queue as work_queue
from tests.recovery.kit import records_in
from tests.support.inside import runtime_of, state_of
from tests.support.waiting import PATIENCE_S

from .conftest import ACTION, Shop, World

T = cycles.tokens
BUDGET_EXCEEDED = {"error": "BUDGET_EXCEEDED", "message": "no", "request_id": "r"}

pytestmark = pytest.mark.anyio


@pytest.fixture
def respond(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the server respond to no commit until this event is set."""
    go_on = shop.hold(monkeypatch)
    shop.faults.delay("commit", 1.0, times=None)
    yield go_on
    go_on.set()


async def commit_unsettled(world: World, amount: int, **options: Any) -> Any:
    guard = await world.acquire(world.reserve(**options))
    settlement = await world.get(guard.commit(T(amount), wait=False))
    assert (settlement.status, settlement.actual, settlement.charged) == ("pending", T(amount), None)
    return guard


async def settled(world: World, guard: Any, timeout: float | None = PATIENCE_S) -> Any:
    return await world.get(guard.settled(timeout))


async def test_commit_returns_before_the_server_has_the_amount(
    world: World, shop: Shop, respond: threading.Event
) -> None:
    guard = await commit_unsettled(world, 7)
    assert (guard.state, guard.settlement.status) == ("pending", "pending")
    early = await settled(world, guard, 0.01)
    assert early.status == "pending"
    respond.set()
    late = await settled(world, guard)
    assert (late.status, late.charged, guard.state) == ("committed", T(7), "committed")
    assert guard.settlement is late
    assert shop.money() == (7, 0)


async def test_a_wait_that_is_no_flag_is_rejected_and_the_guard_stays_active(world: World, shop: Shop) -> None:
    guard = await world.acquire(world.reserve())
    with pytest.raises(cycles.InvalidRequestError, match="wait must be True or False, got 'no'"):
        await world.get(guard.commit(T(7), wait="no"))
    assert (guard.state, shop.money()) == ("active", (0, 100))
    await world.get(guard.release())


async def test_the_record_is_saved_before_commit_returns(world: World, shop: Shop, respond: threading.Event) -> None:
    guard = await commit_unsettled(world, 7)
    (record,) = records_in(shop._folder)
    assert record["reservation_id"] == guard.reservation_id
    assert record["commit_body"]["actual"]["amount"] == 7
    (pending,) = await world.get(world.operations.pending())
    assert (pending.reservation_id, pending.amount) == (guard.reservation_id, T(7))


async def test_nothing_is_reported_as_pending(world: World, shop: Shop, events: list[Any]) -> None:
    guard = await commit_unsettled(world, 7)
    await settled(world, guard)
    shop.until(lambda: records_in(shop._folder) == [])
    assert [type(event).__name__ for event in events] == ["Reserved", "Settled"]


async def test_a_full_queue_makes_commit_wait_for_its_own_request(shop: Shop, respond: threading.Event) -> None:
    client = shop.client()
    runtime_of(client).background.most_queued = 1
    queued = await commit_unsettled(World("sync", client), 1)
    await shop.arrivals.arrives("commit", 1)
    shop.faults.clear()
    guard = client.reserve(T(100), action=ACTION).acquire()
    assert guard.commit(T(2), wait=False).status == "committed"
    respond.set()
    assert queued.settled().status == "committed"
    client.flush()
    another = await commit_unsettled(World("sync", client), 4)  # the queue has space again
    assert another.settled().status == "committed"
    assert shop.money() == (7, 0)


async def test_a_full_queue_makes_a_task_wait_for_its_own_request(shop: Shop, respond: threading.Event) -> None:
    client = shop.client()
    runtime_of(client).background.most_queued = 1
    queued = await commit_unsettled(World("async", client), 1)
    await shop.arrivals.arrives("commit", 1)
    shop.faults.clear()
    guard = await client.reserve(T(100), action=ACTION)
    assert (await guard.commit(T(2), wait=False)).status == "committed"
    respond.set()
    assert (await queued.settled()).status == "committed"


def test_a_commit_that_its_caller_sends_takes_no_place_in_the_queue(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("cycles-scheduler"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        client = shop.client()
        runtime_of(client).background.most_queued = 1
        first = client.reserve(T(100), action=ACTION).acquire()
        assert first.commit(T(1), wait=False).status == "committed"
    second = client.reserve(T(100), action=ACTION).acquire()
    assert second.commit(T(2), wait=False).status == "pending"
    assert second.settled(PATIENCE_S).status == "committed"


def test_a_settlement_that_has_failed_takes_no_place_in_the_queue(shop: Shop) -> None:
    """Otherwise an outage would make each later `commit(wait=False)` wait for the server."""
    unlisted = {"error": "SOMETHING_NEW", "message": "m", "request_id": "r"}
    shop.faults.status("commit", 409, body=unlisted, times=None)
    client = shop.client(retry_initial_delay=3_600.0)
    runtime_of(client).background.most_queued = 1
    failed = client.reserve(T(100), action=ACTION).acquire()
    assert failed.commit(T(1), wait=False).status == "pending"
    assert client.flush(PATIENCE_S).pending == 1  # in this thread, so what follows an attempt has been done
    shop.faults.clear()
    queued = client.reserve(T(100), action=ACTION).acquire()
    assert queued.commit(T(2), wait=False).status == "pending"
    assert queued.settled(PATIENCE_S).status == "committed"
    assert client.flush(PATIENCE_S).pending == 0
    assert shop.money() == (3, 0)


async def test_one_worker_sends_back_to_back(world: World, shop: Shop) -> None:
    guards = [await commit_unsettled(world, amount) for amount in range(1, 21)]
    for guard in guards:
        assert (await settled(world, guard)).status == "committed"
    assert shop.money() == (210, 0)
    assert len(shop.sent("commit")) == 20


async def test_slow_responses_get_more_workers_and_at_most_four(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch, respond: threading.Event
) -> None:
    monkeypatch.setattr(work_queue, "SLOW_S", 0.0)  # every wait in the queue is long enough for one more worker
    guards = [await commit_unsettled(world, 1)]
    for _ in range(6):
        guards.append(await commit_unsettled(world, 1))
    await shop.arrivals.arrives("commit", 4)
    assert len(shop.sent("commit")) == 4
    respond.set()
    for guard in guards:
        await settled(world, guard)
    assert shop.money() == (7, 0)


async def test_settled_raises_what_commit_would_have_raised(world: World, shop: Shop, events: list[Any]) -> None:
    shop.faults.status("commit", 409, body=BUDGET_EXCEEDED)
    guard = await commit_unsettled(world, 7)
    with pytest.raises(cycles.BudgetExceededError):
        await settled(world, guard)
    assert guard.state == "rejected"
    shop.until(lambda: world.client.pending(rejected=True))
    (rejected,) = [event for event in events if type(event).__name__ == "SettlementRejected"]
    assert rejected.actual == T(7)
    assert [each.amount for each in world.client.pending(rejected=True)] == [T(7)]


async def test_an_outage_leaves_the_settlement_to_the_background(world: World, shop: Shop, events: list[Any]) -> None:
    shop.faults.status("commit", 503, times=2)
    guard = await commit_unsettled(world, 7)
    assert (await settled(world, guard)).status == "committed"
    assert [type(event).__name__ for event in events].count("SettlementPending") == 1
    assert shop.money() == (7, 0)


async def test_an_expired_reservation_is_recorded_as_an_event(world: World, shop: Shop) -> None:
    expired = {"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r"}
    shop.faults.status("commit", 410, body=expired)
    guard = await commit_unsettled(world, 7)
    assert (await settled(world, guard)).status == "recorded_as_event"
    assert guard.state == "committed"
    (event,) = shop.bodies("event")
    assert event["actual"]["amount"] == 7


async def test_settled_needs_a_guard_that_was_committed(world: World) -> None:
    guard = await world.acquire(world.reserve())
    with pytest.raises(cycles.InvalidRequestError, match=r"settled\(\) has nothing to wait for"):
        await settled(world, guard)
    await world.get(guard.release())
    with pytest.raises(cycles.GuardFinalizedError, match="is released, not committed"):
        await settled(world, guard)


async def test_settled_returns_the_settlement_of_a_commit_that_waited(world: World) -> None:
    guard = await world.acquire(world.reserve())
    settlement = await world.get(guard.commit(T(7)))
    assert await settled(world, guard) is settlement


@pytest.mark.parametrize("end", ["spend", "actual", "raise"])
async def test_the_end_of_a_block_does_not_wait(world: World, respond: threading.Event, end: str) -> None:
    actual = T(7) if end == "actual" else None
    try:
        async with world.enter(world.reserve(settle="background", actual=actual)) as guard:
            if end != "actual":
                guard.spend(T(7))
            if end == "raise":
                raise KeyError(end)
    except KeyError:
        pass
    assert guard.state == "pending"
    respond.set()
    assert (await settled(world, guard)).charged == T(7)


async def test_a_decorated_function_does_not_wait(world: World, shop: Shop, respond: threading.Event) -> None:
    @world.client.guarded(T(100), action=ACTION, actual=lambda result: T(result), settle="background")
    def work() -> int:
        return 7

    assert work() == 7
    assert [each.amount for each in world.client.pending()] == [T(7)]
    respond.set()
    shop.until(lambda: shop.money() == (7, 0))


async def test_an_unknown_value_of_settle_is_rejected(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="settle must be one of background"):
        client.reserve(T(1), action=ACTION, settle="later")  # type: ignore[arg-type]


async def test_flush_sends_what_is_queued(world: World, shop: Shop) -> None:
    for amount in range(1, 11):
        await commit_unsettled(world, amount)
    report = await world.get(world.operations.flush())
    assert report.pending == 0
    assert shop.money() == (55, 0)


async def test_a_flush_counts_what_is_still_being_sent(world: World, shop: Shop, respond: threading.Event) -> None:
    guard = await commit_unsettled(world, 7)
    await shop.arrivals.arrives("commit", 1)
    assert (await world.get(world.operations.flush(timeout=0.01))).pending == 1
    assert len(await world.get(world.operations.pending())) == 1
    respond.set()
    assert (await settled(world, guard)).status == "committed"


async def test_a_close_reports_what_is_still_being_sent(
    shop: Shop, respond: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles._drivers.runtime.THREADS_END_S", 0.01)
    client = shop.client(flush_timeout=0.01)
    left: list[Any] = []
    client.on_event(lambda event: left.append(event) if type(event).__name__ == "SettlementsLeftPending" else None)
    await commit_unsettled(World("sync", client), 7)
    await shop.arrivals.arrives("commit", 1)
    client.close()
    assert [(event.pending, event.total) for event in left] == [(1, str(T(7)))]


async def test_a_close_reports_what_a_caller_is_still_settling(shop: Shop, respond: threading.Event) -> None:
    client = shop.client(flush_timeout=0.01)
    left: list[Any] = []
    client.on_event(lambda event: left.append(event) if type(event).__name__ == "SettlementsLeftPending" else None)
    guard = client.reserve(T(100), action=ACTION).acquire()
    caller = threading.Thread(target=lambda: guard.commit(T(7)))
    caller.start()
    await shop.arrivals.arrives("commit", 1)
    client.close()
    respond.set()
    caller.join(PATIENCE_S)
    assert [(event.pending, event.total) for event in left] == [(1, str(T(7)))]


async def test_closing_sends_what_is_queued(shop: Shop) -> None:
    client = shop.client()
    guards = [await commit_unsettled(World("sync", client), amount) for amount in range(1, 11)]
    client.close()
    assert shop.money() == (55, 0)
    assert {guard.state for guard in guards} == {"committed"}
    assert records_in(shop._folder) == []


def test_a_loop_that_ends_leaves_its_queue_to_the_background(shop: Shop, respond: threading.Event) -> None:
    client = shop.client()

    async def commit_some() -> list[Any]:
        return [await commit_unsettled(World("async", client), amount) for amount in range(1, 11)]

    guards = asyncio.run(commit_some())
    respond.set()
    shop.until(lambda: shop.money() == (55, 0))
    client.close()
    assert {guard.state for guard in guards} == {"committed"}


def test_closing_ends_the_wait_for_a_settlement(shop: Shop) -> None:
    client = shop.client(flush_timeout=0.05)
    guard = client.reserve(T(100), action=ACTION).acquire()
    shop.faults.status("commit", 503, times=None)
    guard.commit(T(7), wait=False)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(guard.settled()))
    waiting.start()
    client.close()
    waiting.join(PATIENCE_S)
    assert [settlement.status for settlement in found] == ["pending"]


def test_without_a_journal_the_amount_is_sent_too(shop: Shop) -> None:
    client = shop.client(journal=False)
    guard = client.reserve(T(100), action=ACTION).acquire()
    assert guard.commit(T(7), wait=False).status == "pending"
    assert guard.settled().charged == T(7)


def test_after_close_a_commit_is_sent_in_the_foreground(shop: Shop) -> None:
    client = shop.client()
    guard = client.reserve(T(100), action=ACTION).acquire()
    client.close()
    assert guard.commit(T(7), wait=False).status in ("committed", "recorded_as_event")


def test_the_lease_is_renewed_until_the_amount_is_confirmed(shop: Shop, respond: threading.Event) -> None:
    client = shop.client()
    guard = client.reserve(T(100), action=ACTION).acquire()
    guard.commit(T(7), wait=False)
    heartbeat = state_of(guard).heartbeat
    assert heartbeat is not None
    assert not heartbeat.ended
    respond.set()
    guard.settled()
    assert heartbeat.ended


async def test_a_close_whose_journal_has_what_is_pending_reports_nothing_as_lost(shop: Shop) -> None:
    client, seen = shop.client(flush_timeout=0.0, max_retries=0), list[str]()
    client.on_event(lambda event: seen.append(type(event).__name__))
    shop.faults.status("commit", 503, times=None)
    guard = client.reserve(T(100), action=ACTION).acquire()
    assert guard.commit(T(7)).status == "pending"
    client.close()
    assert "SettlementsLeftPending" in seen
    assert "SettlementsLost" not in seen


async def test_a_close_ends_the_thread_that_saves_records_of_tasks(shop: Shop) -> None:
    def of_journals() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "cycles-journal"}

    before, client = of_journals(), shop.client()
    guard = await client.reserve(T(100), action=ACTION)
    await guard.commit(T(7))
    (thread,) = of_journals() - before
    await client.aclose()
    assert not thread.is_alive()
