"""Workers that send `commit(wait=False)`, and callers that wait in `settled`: slow responses, stopped loops, closes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

import cycles
from cycles._core.settlement.record import Made, Record
from cycles._core.settlement.schedule import Item
from cycles._drivers.io import threads as io_module
from cycles._drivers.live_guards import GuardEnds
from cycles._drivers.work import queue as work_queue
from cycles._drivers.work.claims import ClaimTimer
from cycles._drivers.work.work import Done
from cycles._flows.io import Settle
from cycles._journal.records import NoJournal, Records
from tests.recovery.kit import records_in
from tests.support.deadlines import no_thread
from tests.support.inside import runtime_of, state_of
from tests.support.waiting import PATIENCE_S, until

from .conftest import ACTION, Shop, World
from .test_background_commits import commit_unsettled, settled

T = cycles.tokens

pytestmark = pytest.mark.anyio


@pytest.fixture
def respond(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the server respond to the first commit, and to no other one, when this event is set."""
    go_on = shop.hold(monkeypatch)
    shop.faults.delay("commit", 1.0, times=1)
    yield go_on
    go_on.set()


async def test_a_settlement_does_not_wait_for_the_response_to_another_one(
    world: World, shop: Shop, respond: threading.Event
) -> None:
    first = await commit_unsettled(world, 7)
    await shop.arrivals.arrives("commit", 1)
    second = await commit_unsettled(world, 5)
    assert (await settled(world, second)).status == "committed"
    assert first.state == "pending"
    respond.set()
    assert (await settled(world, first)).status == "committed"


async def test_settlements_that_are_queued_together_do_not_wait_for_each_other(
    world: World, shop: Shop, respond: threading.Event
) -> None:
    guards = [await world.acquire(world.reserve()) for _ in range(3)]
    for guard in guards:
        await world.get(guard.commit(T(1), wait=False))
    late = [await settled(world, guard) for guard in guards[1:]]
    assert [settlement.status for settlement in late] == ["committed"] * 2
    respond.set()


async def test_a_caller_that_waits_no_longer_leaves_nothing(world: World, respond: threading.Event) -> None:
    guard = await commit_unsettled(world, 7)
    signal = state_of(guard).when_settled()
    for _ in range(3):
        await settled(world, guard, 0.001)
    assert signal._callbacks == []
    if world.is_async:
        waiting = asyncio.ensure_future(guard.settled())
        await asyncio.sleep(0)
        assert len(signal._callbacks) == 1
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        assert signal._callbacks == []


@pytest.mark.parametrize("wait", [True, False])
async def test_settled_does_not_wait_for_a_commit_that_fails_after_the_close(shop: Shop, wait: bool) -> None:
    client = shop.client()
    guard = client.reserve(T(100), action=ACTION).acquire()
    client.close()
    shop.faults.status("commit", 503, times=None)
    assert guard.commit(T(7), wait=wait).status == "pending"
    assert state_of(guard).when_settled().is_set
    assert guard.settled().status == "pending"
    assert len(records_in(shop._folder)) == 1


def test_a_flush_sends_what_a_stopped_loop_was_sending(shop: Shop, respond: threading.Event) -> None:
    client = shop.client()
    loop = asyncio.new_event_loop()

    async def commit_some() -> list[cycles.AsyncGuard]:
        guards = [await commit_unsettled(World("async", client), amount) for amount in (7, 5)]
        await shop.arrivals.arrives("commit", 1)
        return guards

    guards = loop.run_until_complete(commit_some())
    assert client.flush(timeout=PATIENCE_S).settled == 2
    assert [guard.state for guard in guards] == ["committed"] * 2
    respond.set()
    assert loop.run_until_complete(guards[0].settled()).status == "committed"
    loop.run_until_complete(client.aclose())
    loop.close()
    assert shop.money() == (12, 0)
    assert len({request.idempotency_key for request in shop.sent("commit")}) == 2
    assert records_in(shop._folder) == []


class Recorder:
    """A scheduler that runs nothing, and notes how long each job waits. It is its only worker pool, too."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.scheduler = self

    def worker_pool(self, name: str, workers: int) -> Recorder:
        return self

    def soon(self, job: Any, worker_pool: Any) -> bool:
        return True

    def at(self, when_s: float, job: Any, worker_pool: Any) -> None:
        self.delays.append(when_s)


def test_a_commit_that_arrives_while_the_last_worker_ends_is_sent(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker has found nothing more to do, and still counts as one when the second commit is queued."""
    client = shop.client()
    first, second = (client.reserve(T(100), action=ACTION).acquire() for _ in range(2))
    take, arrived = work_queue.WorkQueue.take, threading.Event()

    def last_look(waiting: work_queue.WorkQueue, loop: asyncio.AbstractEventLoop | None = None) -> Any:
        item = take(waiting, loop)
        if item is None and waiting._workers and not arrived.is_set():
            arrived.set()
            second.commit(T(4), wait=False)
        return item

    monkeypatch.setattr(work_queue.WorkQueue, "take", last_look)
    first.commit(T(3), wait=False)
    shop.until(lambda: shop.money() == (7, 0))
    assert arrived.is_set()


def test_a_commit_that_does_not_wait_is_sent_by_its_caller_while_the_client_closes(shop: Shop) -> None:
    client = shop.client(journal=False, retry_initial_delay=3600.0)
    first, second = (client.reserve(T(100), action=ACTION).acquire() for _ in range(2))
    shop.faults.refuse("commit")
    assert first.commit(T(7)).status == "pending"
    found: list[str] = []

    def commit_second(event: Any) -> None:
        if event.reservation_id == first.reservation_id and type(event).__name__ == "Settled":
            found.append(second.commit(T(4), wait=False).status)

    client.on_event(commit_second)
    client.close()
    assert found == ["committed"]
    assert shop.money() == (11, 0)


def test_a_bug_in_the_end_of_a_guard_keeps_no_close_waiting() -> None:
    begun = threading.Event()

    def fail(_: float) -> None:
        begun.set()
        raise ZeroDivisionError

    ends = GuardEnds()
    ends.add(fail)
    assert begun.wait(PATIENCE_S)
    until(lambda: not ends.running)


def test_an_interrupted_end_of_a_guard_keeps_no_close_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    ends = GuardEnds()
    ends.add(interrupted)
    with pytest.raises(KeyboardInterrupt):
        ends.run()
    assert not ends.running


def test_records_of_a_store_are_claimed_only_as_few_wait() -> None:
    """Three times in each claim period, and immediately if the store has more and few are left."""
    jobs: list[Any] = []
    claimed: list[Any] = []
    shared = SimpleNamespace(claim_ms=30_000, has_more=True, tick=lambda most: [most], claim=lambda most: [-most])
    pool: Any = SimpleNamespace(
        later=lambda _, job: jobs.append(job), scheduler=SimpleNamespace(soon=lambda job, _: jobs.append(job))
    )
    timer = ClaimTimer(pool, cast(Any, SimpleNamespace(shared=shared)), claimed.extend)
    timer.start()
    for waiting in (0, 60, 100):
        timer.note_waiting(waiting)
        jobs.pop()()
    assert claimed == [-64, 4, 0]
    timer.note_waiting(15)
    timer.note_waiting(14)  # one more claim is on its way already
    jobs.pop()()
    timer.note_waiting(16)
    assert len(jobs) == 1
    assert claimed[3:] == [-50]


def test_what_an_interrupted_flush_was_sending_is_sent_in_the_background(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = shop.client(retry_initial_delay=3600.0)
    shop.faults.refuse("commit", times=1)
    guard = client.reserve(T(100), action=ACTION).acquire()
    assert guard.commit(T(7)).status == "pending"

    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(io_module.BlockingIo, "send", interrupted)
        client.flush(PATIENCE_S)
    assert guard.settled(PATIENCE_S).status == "committed"


async def test_a_record_whose_attempt_was_interrupted_may_have_arrived(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its age counts from then on: after a week its key may have ended, and it would be charged twice."""
    runtime = runtime_of(shop.client())

    async def interrupted(call: Any) -> None:
        raise asyncio.CancelledError

    body = {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 7}}
    record = Record(reservation_id="r", base_url=shop.url, commit_body=body, recorded_at_ms=1, made=Made(0.0))
    item: Item[Any] = Item("r", Settle(record, None), 0.0)
    monkeypatch.setattr(runtime.blocking, "send", interrupted)
    with pytest.raises(asyncio.CancelledError):
        await runtime.background.attempt(runtime.blocking, item)
    assert not record.may_have_arrived
    assert item.value.record.may_have_arrived


def test_the_look_for_one_more_worker_comes_later_while_others_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes two threads, which a program whose settlements are sent does not need."""
    monkeypatch.setattr(work_queue, "time", SimpleNamespace(monotonic=lambda: 0.0))
    scheduler: Any = Recorder()
    queue = work_queue.WorkQueue(scheduler, Records(NoJournal()), cycles.Config(), lambda: False)
    io: Any = SimpleNamespace(clock=SimpleNamespace(wall_ms=lambda: 0))
    queue.start(io, lambda until: io)

    def add(name: str) -> None:
        assert queue.hand_over(Settle(Record(reservation_id=name, base_url="http://x"), None), now=True)

    add("first")
    add("second")
    assert scheduler.delays == [work_queue.SLOW_S]
    item = queue.take()
    assert item is not None
    queue._put_back(item, Done(settled=True))
    queue._is_watched = False  # the look has come, and nothing waited for long
    add("third")
    assert scheduler.delays == [work_queue.SLOW_S, work_queue.BUSY_S]
