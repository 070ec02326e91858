"""Workers that send `commit(wait=False)`, and callers that wait in `settled`: slow responses, stopped loops, closes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
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
from cycles._drivers.work.work import Done, attempt
from cycles._flows.io import Settle
from cycles._journal.records import NoJournal, Records
from tests.recovery.kit import records_in
from tests.support.deadlines import no_thread, refuse_threads_of_schedulers
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
    patient = World("async" if world.is_async else "sync", shop.client(timeout=3_600.0))
    first = await commit_unsettled(patient, 7)
    await shop.arrivals.arrives("commit", 1)
    second = await commit_unsettled(patient, 5)
    assert (await settled(patient, second)).status == "committed"
    assert first.state == "pending", (shop.operations, shop.bodies("commit"))
    respond.set()
    assert (await settled(patient, first)).status == "committed"


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


def test_a_flush_tries_again_what_the_server_rejected_during_an_earlier_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_threads_of_schedulers(monkeypatch)
    client = shop.client(max_retries=0, retry_initial_delay=0.3, retry_max_delay=0.3)
    shop.faults.status("commit", 401, times=2)
    guard = client.reserve(T(100), action=ACTION).acquire()
    assert guard.commit(T(7)).status == "pending"
    assert client.flush(PATIENCE_S) == cycles.FlushReport(0, 1, 0)  # early: another attempt would not help
    shop.faults.status("commit", 503)
    assert client.flush(PATIENCE_S) == cycles.FlushReport(1, 0, 0)


def test_workers_that_an_exception_ends_are_replaced(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    client, ended = shop.client(), set[str]()

    def end_the_first(io: Any, records: Any, item: Any) -> Any:
        if item.key not in ended:
            ended.add(item.key)
            raise SystemExit  # code of the application may do that, for example an observer
        return attempt(io, records, item)

    monkeypatch.setattr(work_queue, "attempt", end_the_first)
    for number in range(1, 6):  # one more than there are workers
        guard = client.reserve(T(100), action=ACTION).acquire()
        assert guard.commit(T(7), wait=False).status == "pending"
        assert guard.settled(PATIENCE_S).status == "committed"
        assert len(ended) == number


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


def test_a_flush_does_not_wait_for_the_request_of_a_caller(shop: Shop, respond: threading.Event) -> None:
    """In an event loop, a task of the same thread could not continue while `flush` waits for it."""
    client = shop.client(timeout=3_600.0)
    guard = client.reserve(T(100), action=ACTION).acquire()
    caller = threading.Thread(target=lambda: guard.commit(T(7)))
    caller.start()
    shop.arrivals.wait_for("commit", 1)
    has_ended = within_patience(lambda: client.flush(3_600.0))
    respond.set()
    caller.join(PATIENCE_S)
    assert has_ended


def within_patience(run: Callable[[], object]) -> bool:
    """Return whether a call ends in time, in another thread."""
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def test_a_close_that_blocks_an_event_loop_does_not_wait_for_its_tasks(shop: Shop, respond: threading.Event) -> None:
    client, settled_later = shop.client(timeout=3_600.0, flush_timeout=3_600.0), list[str]()

    async def main() -> None:
        guard = await client.reserve(T(100), action=ACTION)
        committing = asyncio.create_task(guard.commit(T(7)))
        await shop.arrivals.arrives("commit", 1)
        client.close()
        respond.set()
        settled_later.append((await committing).status)

    assert within_patience(lambda: asyncio.run(main()))
    assert settled_later == ["committed"]


async def test_a_close_keeps_the_event_that_an_interrupted_commit_has_saved(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that finds the commit in place of the event may send that again when its key has ended."""
    patch = pytest.MonkeyPatch()

    def interrupted(*_: object) -> None:
        patch.undo()
        raise KeyboardInterrupt

    go_on = shop.hold(monkeypatch)
    shop.faults.delay("event", 1.0, times=1)
    shop.faults.status("commit", 410, body={"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r"})
    client = shop.client(flush_timeout=0.1, journal_dir=tmp_path / "own")
    guard = client.reserve(T(100), action=ACTION).acquire()
    patch.setattr(Records, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guard.commit(T(7))
    await shop.arrivals.arrives("event", 1)
    client.close()
    assert [record["mode"] for record in records_in(tmp_path / "own")] == ["event"]
    go_on.set()


def test_the_exit_looks_after_the_guards_that_outlive_their_client(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[object] = []
    monkeypatch.setattr("atexit.unregister", left.append)
    client, unused = shop.client(), shop.client()
    guard = client.reserve(T(100), action=ACTION).acquire()
    client.close()
    assert left == []
    guard.release()
    unused.decide(T(1), action=ACTION)
    unused.close()
    assert len(left) == 1


def test_a_release_that_a_loop_does_not_finish_is_sent_by_a_thread(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clean-up of a cancelled reservation, in a task of the client, which ends with its loop."""
    go_on, client = shop.hold(monkeypatch), shop.client(timeout=3_600.0)
    monkeypatch.setattr("cycles._drivers.io.tasks.SETTLE_WAIT_S", 0.0)
    shop.faults.delay("reserve", 1.0)
    shop.faults.delay("release", 1.0)

    async def main() -> None:
        reserving = asyncio.ensure_future(World("async", client).acquire(client.reserve(T(100), action=ACTION)))
        await shop.arrivals.arrives("reserve", 1)
        reserving.cancel()
        await shop.arrivals.arrives("release", 1)

    asyncio.run(main())
    shop.arrivals.wait_for("release", 2)
    go_on.set()
    shop.until(lambda: shop.money() == (0, 0))


def test_a_flush_limits_no_later_request(client: cycles.Cycles) -> None:
    assert client.flush(0.0).pending == 0
    assert client.decide(T(1), action=ACTION).allowed


def test_a_cancelled_caller_waits_only_until_its_amount_is_settled(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, client = shop.hold(monkeypatch), shop.client(timeout=3_600.0)
    monkeypatch.setattr("cycles._drivers.io.tasks.SETTLE_WAIT_S", 3_600.0)
    shop.faults.delay("commit", 1.0)

    async def main() -> None:
        guard = await client.reserve(T(100), action=ACTION)
        committing = asyncio.ensure_future(guard.commit(T(7)))
        await shop.arrivals.arrives("commit", 1)
        committing.cancel()
        await asyncio.wait([committing])
        assert committing.cancelled()
        assert guard.state == "committed"

    assert within_patience(lambda: asyncio.run(main()))
    go_on.set()
    assert shop.money() == (7, 0)


def test_a_flush_ends_its_own_request_in_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads_of_schedulers(monkeypatch)
    go_on, client = shop.hold(monkeypatch), shop.client(timeout=3_600.0, max_retries=0, flush_timeout=0.0)
    shop.faults.status("commit", 503)
    guard = client.reserve(T(100), action=ACTION).acquire()
    assert guard.commit(T(7)).status == "pending"
    shop.faults.delay("commit", 1.0)
    reports: list[cycles.FlushReport] = []
    flushing = threading.Thread(target=lambda: reports.append(client.flush(1.0)), daemon=True)
    flushing.start()
    flushing.join(PATIENCE_S)
    go_on.set()
    flushing.join(PATIENCE_S)
    assert [report.pending for report in reports] == [1]
    shop.until(lambda: len(shop.sent("commit")) == 2)


def test_a_request_that_succeeds_starts_the_timer_that_could_not_start(
    client: cycles.Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeats of guards that no caller looks at depend on it."""
    scheduler = runtime_of(client).scheduler
    with monkeypatch.context() as patch:
        refuse_threads_of_schedulers(patch)
        guard = client.reserve(T(100), action=ACTION).acquire()
        assert scheduler.stalled
    client.decide(T(1), action=ACTION)
    assert not scheduler.stalled
    guard.release()


def test_a_bug_in_the_end_of_a_guard_keeps_no_close_waiting() -> None:
    begun = threading.Event()

    def fail(_: float) -> None:
        begun.set()
        raise ZeroDivisionError

    ends = GuardEnds()
    ends.add(fail)
    assert begun.wait(PATIENCE_S)
    until(lambda: not ends.running)


def test_a_bug_in_the_end_of_a_guard_keeps_no_other_guard_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    ends, ended = GuardEnds(), list[float]()
    ends.add(fail)
    ends.add(ended.append)
    ends.run(7.0)
    assert (ended, ends.running) == ([7.0], False)
    assert "ZeroDivisionError" in caplog.text


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
    timer.note_waiting(3)
    timer.stop()
    for job in list(jobs):  # two that had begun when the client closed: it claims no record that it would not settle
        job()
    timer.note_waiting(2)
    timer.start()
    assert (claimed[4:], len(jobs)) == ([], 2)


@pytest.mark.parametrize(("random", "delay_s"), [(0.0, 8.0), (0.5, 9.5), (1.0, 11.0)])
def test_the_ticks_of_clients_come_at_different_times_in_a_third_of_the_claim(
    monkeypatch: pytest.MonkeyPatch, random: float, delay_s: float
) -> None:
    monkeypatch.setattr("cycles._drivers.work.claims.jitter", lambda: random)
    timers: list[tuple[float, Any]] = []
    cancelled: list[int] = []

    def later(delay_s: float, job: Any) -> Any:
        timers.append((delay_s, job))
        return SimpleNamespace(cancel=lambda: cancelled.append(len(timers)))

    shared = SimpleNamespace(claim_ms=30_000, has_more=False, tick=lambda most: [])
    timer = ClaimTimer(cast(Any, SimpleNamespace(later=later)), cast(Any, SimpleNamespace(shared=shared)), list.clear)
    timer.start()
    timers[0][1]()
    assert [delay for delay, _ in timers] == pytest.approx([delay_s] * 2)
    assert cancelled == []
    timer.stop()
    assert cancelled == [2]
    timers[1][1]()
    assert len(timers) == 2


def test_a_client_without_a_shared_store_claims_nothing() -> None:
    timer = ClaimTimer(cast(Any, SimpleNamespace()), cast(Any, SimpleNamespace(shared=None)), list.clear)
    timer.start()
    timer.note_waiting(3)
    timer.stop()
    assert timer.waiting == 3


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


def test_a_failing_store_does_not_end_the_claims(caplog: pytest.LogCaptureFixture) -> None:
    jobs: list[Any] = []

    def fail(_: int) -> list[Any]:
        raise ZeroDivisionError

    shared = SimpleNamespace(claim_ms=30_000, has_more=True, tick=fail, claim=fail)
    pool: Any = SimpleNamespace(
        later=lambda _, job: jobs.append(job), scheduler=SimpleNamespace(soon=lambda job, _: jobs.append(job))
    )
    timer = ClaimTimer(pool, cast(Any, SimpleNamespace(shared=shared)), list.clear)
    timer.start()
    jobs.pop()()
    assert "records in the journal's store were not renewed; trying again" in caplog.text
    (next_tick,) = jobs
    for _ in range(2):
        timer.note_waiting(3)
        with pytest.raises(ZeroDivisionError):  # its worker logs it
            jobs.pop()()
        assert jobs == [next_tick]


def test_no_worker_is_looked_for_while_nothing_is_due_or_all_run(shop: Shop) -> None:
    """A loop would be woken twenty times a second for ever."""
    client = shop.client(retry_initial_delay=600.0)
    background = runtime_of(client).background
    assert not background.is_worker_possible(0)
    shop.faults.status("commit", 503, times=None)
    guard = client.reserve(T(5), action=ACTION).acquire()
    assert guard.commit(T(3)).status == "pending"
    assert background.is_worker_possible(0)
    assert not background.is_worker_possible(work_queue.WORKERS)
    shop.faults.clear()
    assert client.flush(PATIENCE_S).pending == 0
    assert not background.is_worker_possible(0)
