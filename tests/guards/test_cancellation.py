"""Tasks that are cancelled, once and again, and scopes that keep cancelling: the money is settled anyway.

The server runs each request immediately and responds late (`faults.delay`), so that a cancellation can come between.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

import cycles
from cycles._journal.journal import Journal
from tests.support.waiting import PATIENCE_S, forever, set_by

from .conftest import ACTION, Shop

pytestmark = pytest.mark.anyio

T = cycles.tokens
LATE_S = 60.0  # later than any cancellation here; the server waits no longer than the client stays connected

Work = Callable[[], Coroutine[Any, Any, None]]


async def arrives(shop: Shop, operation: str) -> None:
    await shop.arrivals.arrives(operation)


async def cancel(task: asyncio.Task[Any], times: int) -> None:
    """Cancels `times` times, a step of the loop apart, and sees that the task ends cancelled."""
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


def reserve(client: cycles.Cycles, **options: Any) -> cycles.Reservation:
    return client.reserve(T(100), action=ACTION, **options)


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize(("spends", "money"), [(None, (0, 0)), (7, (7, 0))], ids=["nothing known", "spent"])
async def test_in_the_block(client: cycles.Cycles, shop: Shop, times: int, spends: int | None, money: Any) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with reserve(client) as guard:
            if spends is not None:
                guard.spend(T(spends))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await set_by(task, inside)
    await cancel(task, times)
    await asyncio.to_thread(shop.until, lambda: shop.money() == money and (shop.sent("commit") or shop.sent("release")))


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("in_block", [True, False])
async def test_in_the_middle_of_a_commit(client: cycles.Cycles, shop: Shop, times: int, in_block: bool) -> None:
    shop.faults.delay("commit", LATE_S)

    async def work() -> None:
        if in_block:
            async with reserve(client) as guard:
                await guard.commit(T(7))
        else:
            guard = await reserve(client)
            await guard.commit(T(7))

    task = asyncio.create_task(work())
    await arrives(shop, "commit")
    await cancel(task, times)
    await client.aio.flush(PATIENCE_S)
    assert shop.money() == (7, 0)
    assert len({request.idempotency_key for request in shop.sent("commit")}) == 1
    assert not shop.sent("release")


async def test_in_the_middle_of_a_commit_of_a_program_without_anyio(
    client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.faults.delay("commit", LATE_S)
    guard = await reserve(client)
    task = asyncio.create_task(guard.commit(T(7)))
    await arrives(shop, "commit")
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "anyio")
        await cancel(task, 2)
    await client.aio.flush(PATIENCE_S)
    assert shop.money() == (7, 0)


async def test_the_guard_shows_a_commit_that_was_cancelled(client: cycles.Cycles, shop: Shop) -> None:
    shop.faults.delay("commit", LATE_S)
    guard = await reserve(client)
    task = asyncio.create_task(guard.commit(T(7)))
    await arrives(shop, "commit")
    await cancel(task, 1)
    await client.aio.flush(PATIENCE_S)
    assert guard.state == "committed"
    assert guard.settlement is not None
    assert guard.settlement.charged == T(7)


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_in_the_middle_of_a_release(client: cycles.Cycles, shop: Shop, times: int) -> None:
    shop.faults.delay("release", LATE_S)

    async def work() -> None:
        async with reserve(client):
            raise RuntimeError

    task = asyncio.create_task(work())
    await arrives(shop, "release")
    await cancel(task, times)
    await asyncio.to_thread(shop.until, lambda: shop.money() == (0, 0) and shop.sent("release"))
    assert len({request.idempotency_key for request in shop.sent("release")}) == 1


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_in_the_middle_of_an_event(client: cycles.Cycles, shop: Shop, times: int) -> None:
    """The commit was rejected and its event is saved: the background continues with the event."""
    shop.faults.status("commit", 410, body={"error": "RESERVATION_EXPIRED", "message": "m", "request_id": "r"})
    shop.faults.delay("event", LATE_S)
    guard = await reserve(client)
    task = asyncio.create_task(guard.commit(T(7)))
    await arrives(shop, "event")
    await cancel(task, times)
    await client.aio.flush(PATIENCE_S)
    assert shop.money()[0] == 7
    assert len(shop.sent("commit")) == 1
    assert len({request.idempotency_key for request in shop.sent("event")}) == 1


async def test_in_the_middle_of_the_release_after_an_unknown_decision(client: cycles.Cycles, shop: Shop) -> None:
    """A reservation under the caller's key stays for the next run, but not one that came without an allowance."""
    made = await reserve(client, idempotency_key="of the caller")
    denied = {"decision": "PERHAPS", "reservation_id": made.reservation_id, "affected_scopes": ["tenant:acme"]}
    shop.faults.body("reserve", denied)
    shop.faults.refuse("release")
    made.detach()
    loop = asyncio.get_running_loop()

    async def work() -> None:
        await reserve(client, idempotency_key="of the caller")

    task = asyncio.create_task(work())
    shop.on_arrival["release"] = lambda: loop.call_soon_threadsafe(task.cancel)
    await asyncio.wait([task])
    assert task.cancelled()
    await asyncio.to_thread(shop.until, lambda: shop.money() == (0, 0))


async def test_a_later_caller_does_not_wait_for_the_settlement_of_an_earlier_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = shop.client(timeout=600.0)
    respond = shop.hold(monkeypatch)
    shop.faults.delay("commit", LATE_S, times=None)
    monkeypatch.setattr("cycles._drivers.io.tasks.SETTLE_WAIT_S", 0.0)
    guard = await reserve(client)
    commits = asyncio.create_task(guard.commit(T(7)))
    await arrives(shop, "commit")
    await cancel(commits, 1)
    monkeypatch.setattr("cycles._drivers.io.tasks.SETTLE_WAIT_S", 600.0)

    pauses = asyncio.Event()

    async def pause(*_: object) -> None:
        pauses.set()
        await forever()

    monkeypatch.setattr("cycles._flows.reserve.pause", pause)

    async def wait_for_budget() -> None:
        await client.reserve(T(2_000_000), action=ACTION, wait=3_600.0)

    waits = asyncio.create_task(wait_for_budget())
    await set_by(waits, pauses)
    waits.cancel()
    await asyncio.wait([waits], timeout=PATIENCE_S)
    is_cancelled = waits.cancelled()
    respond.set()
    assert is_cancelled, "it still waits, for a commit that is not its own"
    await client.aio.flush(PATIENCE_S)
    assert shop.money() == (7, 0)


async def test_a_reservation_whose_entry_was_cancelled_can_be_entered_again(client: cycles.Cycles, shop: Shop) -> None:
    shop.faults.delay("reserve", LATE_S)
    reservation = reserve(client)

    async def enter() -> None:
        async with reservation:
            raise AssertionError("nobody is there to run this")

    task = asyncio.create_task(enter())
    await arrives(shop, "reserve")
    await cancel(task, 1)
    async with reservation as guard:
        await guard.commit(T(7))
    await client.aio.flush(PATIENCE_S)
    assert shop.money() == (7, 0)


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("entered", [True, False])
async def test_with_the_reserve_in_flight(client: cycles.Cycles, shop: Shop, times: int, entered: bool) -> None:
    shop.faults.delay("reserve", LATE_S)

    async def work() -> None:
        if entered:
            async with reserve(client):
                raise AssertionError("nobody is there to run this")
        await reserve(client)

    task = asyncio.create_task(work())
    await arrives(shop, "reserve")
    assert shop.money() == (0, 100)
    await cancel(task, times)
    await asyncio.to_thread(shop.until, lambda: shop.money() == (0, 0) and shop.sent("release"))
    assert shop.bodies("release")[0]["reason"] == "caller_went_away"


async def test_before_anything_was_sent(client: cycles.Cycles, shop: Shop) -> None:
    async def work() -> None:
        async with reserve(client):
            raise AssertionError("nobody is there to run this")

    await cancel(asyncio.create_task(work()), 1)
    await client.aio.flush(1)
    assert shop.money() == (0, 0)


@pytest.mark.parametrize("at", ["reserve", "commit", "release"])
async def test_a_timeout_is_a_timeout(client: cycles.Cycles, shop: Shop, at: str) -> None:
    shop.faults.delay(at, LATE_S)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:

            async def end_once_arrived() -> None:
                await arrives(shop, at)
                limit.reschedule(asyncio.get_running_loop().time())

            ending = asyncio.create_task(end_once_arrived())
            async with reserve(client) as guard:
                if at == "commit":
                    await guard.commit(T(7))
    await ending
    await client.aio.flush(PATIENCE_S)
    shop.until(lambda: shop.money() == (7 if at == "commit" else 0, 0))


@pytest.mark.parametrize("at", ["reserve", "block", "spent", "commit"])
async def test_a_scope_that_keeps_cancelling(client: cycles.Cycles, shop: Shop, at: str) -> None:
    shop.faults.delay(at if at in ("reserve", "commit") else "release", LATE_S)
    with anyio.CancelScope() as scope:

        async def cancel_once_arrived() -> None:
            await arrives(shop, at)
            scope.cancel()

        canceller = asyncio.create_task(cancel_once_arrived() if at in ("reserve", "commit") else asyncio.sleep(0))
        async with reserve(client) as guard:
            if at == "commit":
                await guard.commit(T(7))
            if at == "spent":
                guard.spend(T(7))
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    await canceller
    await asyncio.to_thread(shop.until, lambda: shop.money() == (7 if at in ("spent", "commit") else 0, 0))


@pytest.mark.parametrize("limit", [anyio.move_on_after, anyio.fail_after])
async def test_limits_of_anyio(client: cycles.Cycles, shop: Shop, limit: Any) -> None:
    with contextlib.suppress(TimeoutError), limit(60) as scope:
        async with reserve(client) as guard:
            guard.spend(T(7))
            scope.deadline = anyio.current_time()  # now that the guard is there, however slow the machine
            await anyio.sleep_forever()
    await asyncio.to_thread(shop.until, lambda: shop.money() == (7, 0))


async def test_a_task_group_that_fails(client: cycles.Cycles, shop: Shop) -> None:
    async def work(started: anyio.Event) -> None:
        async with reserve(client) as guard:
            guard.spend(T(7))
            started.set()
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            events = [anyio.Event() for _ in range(3)]
            for event in events:
                group.start_soon(work, event)
            for event in events:
                await event.wait()
            raise LookupError
    assert caught.group_contains(LookupError)
    await asyncio.to_thread(shop.until, lambda: shop.money() == (21, 0))


async def test_a_commit_in_a_scope_that_is_cancelled_already(client: cycles.Cycles, shop: Shop) -> None:
    guard = await reserve(client)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await guard.commit(T(7))
    await asyncio.to_thread(shop.until, lambda: shop.money() == (7, 0))


async def test_a_cancelled_caller_is_not_kept_for_long(client: cycles.Cycles, shop: Shop) -> None:
    """What it leaves behind continues without it."""
    shop.faults.delay("commit", LATE_S)
    guard = await reserve(client)
    task = asyncio.create_task(guard.commit(T(7)))
    await arrives(shop, "commit")
    before = asyncio.get_running_loop().time()
    await cancel(task, 1)
    assert asyncio.get_running_loop().time() - before < LATE_S / 2
    shop.until(lambda: shop.money() == (7, 0))


def test_a_loop_that_ends_in_the_middle_of_a_commit(client: cycles.Cycles, shop: Shop) -> None:
    shop.faults.delay("commit", LATE_S)
    guards: list[Any] = []

    async def main() -> None:
        guards.append(await reserve(client))
        guards.append(asyncio.create_task(guards[0].commit(T(7))))
        await arrives(shop, "commit")

    asyncio.run(main())  # cancels the task and winds up
    client.flush(PATIENCE_S)
    assert guards[0].state == "committed"
    assert shop.money() == (7, 0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what is under way when its loop is closed stays open
def test_a_loop_that_ends_before_a_settlement_does(shop: Shop) -> None:
    """The caller is cancelled, waits a moment for the response, and then its loop is closed, without a journal."""
    client = shop.client(journal=False)
    shop.faults.delay("commit", LATE_S)

    async def main() -> None:
        guard = await reserve(client)
        task = asyncio.create_task(guard.commit(T(7)))
        await arrives(shop, "commit")
        task.cancel()

    asyncio.run(main())
    gc.collect()
    assert client.flush(PATIENCE_S).pending == 0
    assert shop.money() == (7, 0)
    assert len(shop.sent("commit")) >= 2  # a third one if the moment ended before the response to the second
    assert len({request.idempotency_key for request in shop.sent("commit")}) == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a loop that is not wound up leaves its sockets behind
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "stopped"])
@pytest.mark.parametrize("at", ["reserve", "commit", "release"])
def test_a_loop_that_is_left_with_its_tasks_unfinished(
    client: cycles.Cycles, shop: Shop, at: str, closed: bool
) -> None:
    """Nothing is ever awaited again; the coroutine is only closed, by the garbage collection or by hand."""
    shop.faults.delay(at, LATE_S)

    async def work() -> None:
        guard = await reserve(client)
        await (guard.commit(T(7)) if at == "commit" else guard.release())

    loop = asyncio.new_event_loop()
    flow = work()
    loop.run_until_complete(step_by_hand(flow, shop, at))
    if closed:
        loop.close()
    flow.close()
    shop.until(lambda: shop.money() == (7 if at == "commit" else 0, 0))
    loop.close()
    gc.collect()


@pytest.mark.parametrize(("spends", "money"), [(None, (0, 0)), (7, (7, 0))], ids=["nothing known", "spent"])
def test_a_block_that_is_closed_outside_of_any_loop(
    client: cycles.Cycles, shop: Shop, spends: int | None, money: Any
) -> None:
    """A task that is destroyed while it is pending: the garbage collection closes its coroutine, and awaits nothing."""

    async def work() -> None:
        async with reserve(client) as guard:
            if spends is not None:
                guard.spend(T(spends))
            reached.append(guard)
            await asyncio.Event().wait()

    async def start() -> None:
        while not reached:
            waits_for = flow.send(None)
            if waits_for is not None and not reached:
                waits_for._asyncio_future_blocking = False
                await asyncio.wait([waits_for])

    reached: list[Any] = []
    flow: Any = work()
    asyncio.run(start())
    flow.close()
    shop.until(lambda: shop.money() == money and (spends is not None or shop.sent("release")))
    assert cycles.current_guard() is None
    if spends is None:
        assert shop.bodies("release")[0]["reason"] == "block_raised:GeneratorExit"


async def step_by_hand(flow: Any, shop: Shop, at: str) -> None:
    """Steps a coroutine by hand until the server has received its request."""
    while not shop.sent(at):
        waits_for = flow.send(None)
        if waits_for is not None:
            waits_for._asyncio_future_blocking = False
            server_responded = asyncio.ensure_future(arrives(shop, at))
            await asyncio.wait([waits_for, server_responded], return_when=asyncio.FIRST_COMPLETED)
            server_responded.cancel()


def test_a_guard_outlives_its_loop(client: cycles.Cycles, shop: Shop) -> None:
    async def acquire() -> cycles.AsyncGuard:
        return await reserve(client)

    async def commit(guard: cycles.AsyncGuard) -> None:
        await guard.commit(T(7))

    guard = asyncio.run(acquire())
    asyncio.run(commit(guard))
    assert shop.money() == (7, 0)
    held = [asyncio.run(acquire())]
    with pytest.warns(ResourceWarning, match="dropped"):
        held.clear()
    shop.until(lambda: shop.money() == (7, 0))


async def test_while_the_file_of_a_settlement_goes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has responded: nothing is left to do but the file, so nothing is sent again and nothing is pending."""
    removing, may_go_on = asyncio.Event(), threading.Event()
    loop, forget = asyncio.get_running_loop(), Journal.delete

    def slowly(journal: Journal, record: Any) -> None:
        loop.call_soon_threadsafe(removing.set)
        assert may_go_on.wait(PATIENCE_S)
        forget(journal, record)

    monkeypatch.setattr(Journal, "delete", slowly)
    client = shop.client()
    guards: list[cycles.AsyncGuard] = []

    async def work() -> None:
        async with reserve(client) as guard:
            guards.append(guard)
            await guard.commit(T(7))

    task = asyncio.ensure_future(work())
    await asyncio.wait_for(removing.wait(), PATIENCE_S)
    await cancel(task, 1)
    may_go_on.set()
    await client.aclose()
    assert guards[0].state == "committed"
    assert (len(shop.sent("commit")), shop.money()) == (1, (7, 0))
    assert [file for file in shop.settings()["journal_dir"].rglob("*") if file.is_file()] == []


async def test_an_interrupted_release_does_not_wait_for_the_pause_of_a_retry(shop: Shop) -> None:
    client = shop.client(retry_initial_delay=3_600.0)
    shop.faults.delay("release", LATE_S)
    guard = await reserve(client)
    task = asyncio.create_task(guard.release())
    await arrives(shop, "release")
    await cancel(task, 1)
    await asyncio.to_thread(shop.until, lambda: shop.money() == (0, 0) and len(shop.sent("release")) == 2)
