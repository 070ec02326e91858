"""When pending work is tried, by which worker, and what is counted: no thread runs, and the test moves the clock."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.messages.requests import Call
from cycles._core.protocol import CREATE_RESERVATION
from cycles._core.settlement.record import Made, Record, file_name
from cycles._drivers.live_guards import GuardEnds
from cycles._drivers.work import loop_workers, queue as work_queue
from cycles._drivers.work.loop_workers import LoopWorkers
from cycles._drivers.work.queue import BUSY_S, SLOW_S, WORKERS, WorkQueue
from cycles._drivers.work.work import Done, Later, Step
from cycles._flows.guard_state import Release
from cycles._flows.io import CleanUp, Settle, run
from cycles._journal.records import NoJournal, Records
from tests.support.points import run_at

PAUSE_S = 8.0
WALL_MS = 1_700_000_000_000


class Machine:
    """A queue, the jobs that it has given to threads, and the results of its attempts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, records: Any = None, has_threads: bool = True) -> None:
        self.now_s = 1_000.0
        self.has_threads = has_threads
        self.soon_jobs: list[Callable[[], object]] = []
        self.later_jobs: list[tuple[float, Callable[[], object]]] = []
        self.pools: dict[str, int] = {}
        self.tried: list[str] = []
        self.steps: dict[str, list[Step | BaseException]] = {}
        self.stalled = False
        self.resumed = 0
        self.scheduler = self  # it is its only worker pool, too
        clock = SimpleNamespace(monotonic=self.monotonic)
        self.reads = 0
        for module in (work_queue, loop_workers):
            monkeypatch.setattr(module, "time", clock, raising=False)
        monkeypatch.setattr(work_queue, "jitter", lambda: 1.0)
        monkeypatch.setattr(work_queue, "attempt", self._attempt)
        self.waits: list[float] = []  # how long the threads of callers have waited, in seconds
        self.pools_settle: list[bool] = []
        self.at_events: list[frozenset[str]] = []  # what was unsettled when a waiting thread was woken
        self.lock = Lock()
        waits = SimpleNamespace(
            RLock=lambda: self.lock, Condition=lambda lock: Condition(self, lock), Event=lambda: Event(self)
        )
        monkeypatch.setattr(work_queue, "threading", waits)
        config = cycles.Config(retry_initial_delay=PAUSE_S, retry_max_delay=60.0, flush_timeout=3.0, timeout=5.0)
        this: Any = self
        made = records or Records(NoJournal())
        self.queue = WorkQueue(this, made, config, lambda: bool(self.pools_settle and self.pools_settle.pop(0)))
        self.io: Any = SimpleNamespace(
            clock=SimpleNamespace(wall_ms=lambda: WALL_MS), report=lambda *_, **__: None, is_enabled_for=lambda _: False
        )
        self.queue.start(self.io, lambda until: self.io)

    def monotonic(self) -> float:
        self.reads += 1
        assert self.reads < 100_000, "it does not end"
        return self.now_s

    def worker_pool(self, name: str, workers: int) -> Machine:
        self.pools[name] = workers
        return self

    def soon(self, job: Callable[[], object], _: object) -> bool:
        if self.has_threads:
            self.soon_jobs.append(job)
        return self.has_threads

    def at(self, when_s: float, job: Callable[[], object], _: object) -> None:
        self.later_jobs.append((when_s, job))

    def resume(self) -> None:
        self.resumed += 1

    async def _attempt(self, io: Any, records: Any, item: Any) -> Step:
        self.tried.append(item.key)
        step = self.steps.get(item.key, [Done(settled=True)]).pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    def pass_time(self, until_s: float) -> None:
        """Run the jobs of threads whose time comes."""
        while due := [each for each in self.later_jobs if each[0] <= until_s]:
            first = min(due, key=lambda each: each[0])
            self.later_jobs.remove(first)
            self.now_s = max(self.now_s, first[0])
            first[1]()
            self.run_threads()
        self.now_s = until_s

    def run_threads(self) -> None:
        while self.soon_jobs:
            self.soon_jobs.pop(0)()

    @property
    def alarms(self) -> list[float]:
        """When threads look again."""
        return sorted(when_s for when_s, _ in self.later_jobs)

    def hand_over(self, *names: str, now: bool = True, loop: Any = None, **more: Any) -> list[bool]:
        return [self.queue.hand_over(settle(name, **more), now=now, loop=loop) for name in names]


class Lock:
    """A lock. What another thread does with it happens when it is free."""

    def __init__(self) -> None:
        self._depth = 0
        self._waits: list[Callable[[], object]] = []

    def when_free(self, act: Callable[[], object]) -> None:
        self._waits.append(act)
        self._run()

    def _run(self) -> None:
        while self._waits and not self._depth:
            self._waits.pop()()

    def acquire(self) -> None:
        self._depth += 1

    def release(self) -> None:
        self._depth -= 1
        self._run()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Condition:
    """A condition whose waits take no time of the machine."""

    def __init__(self, machine: Machine, lock: Any) -> None:
        self.machine = machine
        self.lock = lock

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def notify_all(self) -> None:
        pass

    def wait(self, timeout_s: float) -> None:
        assert len(self.machine.waits) < 10_000, "it waits for ever"
        self.machine.waits.append(timeout_s)
        self.machine.now_s += timeout_s

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> None:
        if not condition():
            self.wait(timeout_s)


class Event:
    """The same for an event."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.flag = False

    def is_set(self) -> bool:
        return self.flag

    def set(self) -> None:
        if not self.flag and hasattr(self.machine, "queue"):
            self.machine.at_events.append(self.machine.queue.unsettled())
        self.flag = True

    def wait(self, timeout_s: float) -> None:
        if not self.flag:
            self.machine.waits.append(timeout_s)
            self.machine.now_s += timeout_s


def settle(name: str, detail: str | None = None, is_saved: bool = True, **members: Any) -> Settle:
    record = Record(
        reservation_id=name, base_url="http://x", commit_body={"actual": {"unit": "TOKENS", "amount": 7}}, **members
    )
    return Settle(record, None, detail=detail, is_saved=is_saved)


def key(name: str) -> str:
    return file_name(name)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_one_thread_does_what_is_handed_over_together(machine: Machine) -> None:
    assert machine.pools == {"background": WORKERS}
    assert machine.hand_over("a", "b", "c") == [True] * 3
    assert len(machine.soon_jobs) == 1
    machine.run_threads()
    assert machine.tried == [key("a"), key("b"), key("c")]
    assert machine.queue.pending() == []
    assert machine.hand_over("d") == [True]
    assert len(machine.soon_jobs) == 1  # the thread has ended, so another one starts


def test_work_that_a_closing_client_keeps_starts_no_second_thread(machine: Machine) -> None:
    for name in ("a", "b"):
        machine.queue.keep(settle(name))
    assert len(machine.soon_jobs) == 1
    machine.run_threads()
    assert machine.tried == [key("a"), key("b")]


@pytest.mark.parametrize(("waited_s", "helps"), [(SLOW_S - 0.01, False), (SLOW_S, False), (SLOW_S + 0.01, True)])
def test_one_more_thread_helps_if_work_waits_for_long(machine: Machine, waited_s: float, helps: bool) -> None:
    machine.hand_over("a", "b")
    assert machine.queue.take() is not None  # by the first thread, which waits for the response
    [(when_s, look)] = machine.later_jobs
    assert when_s == machine.now_s + SLOW_S
    machine.later_jobs.clear()
    machine.now_s += waited_s
    look()
    assert machine.tried == [key("b")] * helps
    assert machine.alarms == [machine.now_s + SLOW_S] * (not helps)


def test_while_work_is_done_the_next_look_for_a_helper_comes_later(machine: Machine) -> None:
    machine.hand_over("a", "b", "c", "d")
    machine.queue.take()
    [(_, look)] = machine.later_jobs
    machine.later_jobs.clear()
    item = machine.queue.take()
    assert item is not None
    run(machine.queue.attempt(machine.io, item))
    look()  # nothing has waited for long
    assert machine.alarms == [machine.now_s + SLOW_S]
    machine.hand_over("e")
    assert machine.alarms == [machine.now_s + SLOW_S]  # it is watched already
    [(_, look)] = machine.later_jobs
    machine.later_jobs.clear()
    machine.queue.take()
    look()
    assert machine.alarms == [machine.now_s + SLOW_S]
    machine.later_jobs.clear()
    assert BUSY_S > SLOW_S


@pytest.mark.parametrize(
    ("workers", "waited_s", "is_wanted"),
    [
        (0, -0.01, False),
        (0, 0.0, True),
        (1, 0.0, False),
        (1, SLOW_S, False),
        (1, SLOW_S + 0.01, True),
        (WORKERS - 1, SLOW_S + 0.01, True),
        (WORKERS, SLOW_S + 0.01, False),
    ],
)
def test_a_worker_is_wanted_for_what_has_waited(
    machine: Machine, workers: int, waited_s: float, is_wanted: bool
) -> None:
    machine.hand_over("a", now=False)
    machine.now_s += PAUSE_S + waited_s
    assert machine.queue.is_worker_wanted(workers) is is_wanted
    assert machine.queue.is_worker_possible(workers) is (workers < WORKERS)
    machine.queue.close()
    assert not machine.queue.is_worker_wanted(0)
    assert not machine.queue.is_worker_possible(0)


def test_work_that_waits_for_a_retry_is_done_after_its_pause(machine: Machine) -> None:
    assert machine.hand_over("a", now=False) == [True]
    assert (machine.soon_jobs, machine.alarms) == ([], [1_008.0])
    machine.hand_over("b", now=False)
    assert machine.alarms == [1_008.0]  # one alarm is enough for both
    machine.pass_time(1_007.9)
    assert machine.tried == []
    machine.pass_time(1_008.0)
    assert machine.tried == [key("a"), key("b")]
    assert machine.alarms == [1_008.0 + SLOW_S]  # while "a" was sent, "b" could have needed one more thread
    machine.pass_time(2_000.0)
    assert (len(machine.tried), machine.alarms) == (2, [])


def test_work_that_comes_while_the_last_thread_ends_needs_no_later_look(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, late = WorkQueue.take, ["b"]

    def last_look(queue: WorkQueue, loop: Any = None) -> Any:
        item = take(queue, loop)
        if item is None and late:
            machine.hand_over(late.pop())  # another thread: it sees a thread that works
        return item

    monkeypatch.setattr(WorkQueue, "take", last_look)
    machine.hand_over("a")
    machine.run_threads()
    assert machine.tried == [key("a"), key("b")]


def test_work_whose_pause_ends_while_a_thread_waits_for_a_response_gets_another_one(machine: Machine) -> None:
    machine.hand_over("slow")
    machine.soon_jobs.clear()
    assert machine.queue.take() is not None  # by the thread that waits
    machine.hand_over("a", now=False)
    machine.pass_time(1_008.0)
    assert (machine.tried, machine.alarms) == ([], [1_008.0 + SLOW_S])
    machine.pass_time(1_009.0)
    assert machine.tried == [key("a")]


def test_earlier_work_has_an_earlier_alarm(machine: Machine) -> None:
    machine.hand_over("late", now=False, not_before_ms=WALL_MS + 20_000)
    machine.hand_over("early", now=False)
    assert machine.alarms == [1_008.0, 1_020.0]
    machine.pass_time(1_019.9)
    assert machine.tried == [key("early")]
    machine.pass_time(1_020.0)
    assert machine.tried == [key("early"), key("late")]


@pytest.mark.parametrize(("not_before_ms", "due_s"), [(WALL_MS + 30_000, 1_030.0), (WALL_MS - 1, 1_000.0)])
def test_the_pause_that_the_server_has_set_is_kept_also_by_a_flush(
    machine: Machine, not_before_ms: int, due_s: float
) -> None:
    machine.hand_over("a", not_before_ms=not_before_ms)
    report = machine.queue.flush(5.0)
    machine.run_threads()
    assert len(machine.tried) == report.settled == (due_s == 1_000.0)
    assert report.pending == 1 - report.settled
    machine.pass_time(due_s)
    assert machine.tried == [key("a")]


def test_only_so_many_settlements_wait_whose_callers_do_not(machine: Machine) -> None:
    machine.queue.most_queued = 2
    assert machine.hand_over("a", "b", "c") == [True, True, False]
    assert machine.hand_over("d", detail="it failed") == [True]  # its caller cannot send it
    assert machine.hand_over("e", is_saved=False) == [True]  # its caller was interrupted
    assert machine.queue.hand_over(release("f"), now=True)
    assert machine.hand_over("c") == [False]
    machine.run_threads()
    assert machine.hand_over("c", "g", "h") == [True, True, False]
    assert [each.reservation_id for each in machine.queue.pending()] == ["c", "g"]


@pytest.mark.parametrize(
    ("detail", "is_saved", "may_have_arrived"),
    [(None, True, False), (None, False, True), ("it failed", True, False), ("it failed", False, False)],
)
def test_only_the_request_of_an_interrupted_caller_may_have_arrived(
    machine: Machine, detail: str | None, is_saved: bool, may_have_arrived: bool
) -> None:
    machine.hand_over("a", detail=detail, is_saved=is_saved, made=Made(0.0))
    item = machine.queue.take()
    assert item is not None
    assert isinstance(item.value, Settle)
    assert item.value.record.may_have_arrived is may_have_arrived
    assert item.outcome == detail


def release(name: str) -> Release:
    return Release(name, f"key-{name}", "because")


def clean_up(name: str) -> CleanUp:
    return CleanUp(Call(CREATE_RESERVATION, body={"idempotency_key": name}))


def test_a_closing_client_takes_only_what_no_caller_can_do(machine: Machine) -> None:
    machine.queue.decline()
    assert machine.hand_over("a") == [False]
    assert machine.hand_over("b", detail="it failed") == [True]
    machine.run_threads()
    assert machine.tried == [key("b")]
    machine.queue.keep(settle("c"))
    assert [each.reservation_id for each in machine.queue.pending()] == ["c"]
    machine.run_threads()
    assert machine.tried == [key("b"), key("c")]


def test_without_threads_a_caller_does_its_work_itself(machine: Machine) -> None:
    machine.has_threads = False
    assert machine.hand_over("a") == [False]
    assert machine.queue.pending() == []
    assert machine.hand_over("b", detail="it failed") == [True]
    assert machine.queue.hand_over(release("c"), now=True)
    assert machine.alarms == [1_000.0] * 2  # a thread is tried again
    assert [each.reservation_id for each in machine.queue.pending()] == ["b"]
    machine.has_threads = True
    machine.pass_time(1_000.0)
    assert sorted(machine.tried) == sorted([key("b"), "release:key-c"])
    machine.queue.most_queued = 1  # and what was not taken counts no longer
    assert machine.hand_over("d") == [True]


def test_a_flush_without_threads_does_the_work(machine: Machine) -> None:
    machine.has_threads = False
    machine.hand_over("a", detail="it failed")
    machine.steps[key("a")] = [Later("again", outage=False), Done(settled=False)]
    assert machine.queue.flush(0.0) == cycles.FlushReport(0, 1, 0)
    machine.steps[key("a")] = [Done(settled=True)]
    assert machine.queue.flush(1.0) == cycles.FlushReport(1, 0, 0)


def test_a_flush_counts_what_it_settles_and_tries_once_what_is_rejected(machine: Machine) -> None:
    machine.queue.hand_over(release("d"), now=False)
    machine.hand_over("settled", "nothing", "rejected", detail="it failed", now=False)
    machine.steps |= {
        key("nothing"): [Done(settled=False)],
        key("rejected"): [Later("rejected", outage=False, rejected=True)],
        "release:key-d": [Done()],
    }
    assert machine.queue.flush(1_000.0) == cycles.FlushReport(1, 1, 0)
    assert sorted(machine.tried) == sorted([key("settled"), key("nothing"), key("rejected"), "release:key-d"])
    [left] = machine.queue.pending()
    assert (left.reservation_id, left.last_outcome) == ("rejected", "rejected")
    machine.steps[key("rejected")] = [Done(settled=True)]
    assert machine.queue.flush(1_000.0) == cycles.FlushReport(1, 0, 0)


def test_work_that_fails_by_a_bug_is_tried_five_times(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.steps[key("a")] = [ValueError("x" * 300) for _ in range(9)]
    machine.hand_over("a")
    machine.run_threads()
    [left] = machine.queue.pending()
    assert left.last_outcome == f"ValueError: {'x' * 200}"
    machine.pass_time(machine.now_s + 1_000.0)
    assert machine.tried == [key("a")] * 5
    assert machine.queue.pending() == []
    messages = [record.getMessage() for record in caplog.records if record.name == "cycles"]
    assert messages == [f"pending work {key('a')} failed: ValueError: {'x' * 300}"] * 5
    assert all(record.exc_info is not None for record in caplog.records if record.name == "cycles")


def test_an_outage_is_tried_with_one_attempt_at_a_time_until_a_request_succeeds(machine: Machine) -> None:
    names = ["a", "b", "c"]
    machine.steps |= {key(name): [Later("down", outage=True), Done(settled=True)] for name in names}
    machine.hand_over(*names)
    machine.run_threads()
    assert machine.tried == [key("a")]
    assert machine.alarms[-1] == 1_008.0
    machine.queue.server_responded()
    machine.steps = {}
    machine.run_threads()
    assert sorted(machine.tried[1:]) == sorted(map(key, names))


def test_a_success_without_pending_work_does_nothing(machine: Machine) -> None:
    machine.queue.server_responded()
    assert (machine.soon_jobs, machine.later_jobs, machine.resumed) == ([], [], 0)
    machine.stalled = True
    machine.queue.server_responded()
    assert machine.resumed == 1


def test_only_so_many_cleanups_wait_and_the_oldest_is_dropped(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(work_queue, "CREATE_CLEANUPS", 2)
    machine.queue.hand_over(release("r"), now=False)
    for name in ("a", "b"):
        assert machine.queue.hand_over(clean_up(name), now=False)
    assert caplog.messages == []
    assert machine.queue.hand_over(clean_up("c"), now=False)
    assert caplog.messages == ["create cleanup dropped: more than 2 are waiting; its reservation ends with its lease"]
    machine.pass_time(1_008.0)
    assert sorted(machine.tried) == ["create:b", "create:c", "release:key-r"]


def test_what_is_unfinished_is_listed_by_its_reservation(machine: Machine) -> None:
    machine.hand_over("a", now=False)
    machine.queue.hand_over(release("b"), now=False)
    machine.queue.hand_over(clean_up("c"), now=False)
    assert machine.queue.unfinished() == {"a", "b"}
    assert machine.queue.unsettled() == {key("a")}
    assert [machine.queue.is_pending(name) for name in ("a", "b")] == [True, False]
    assert [each.reservation_id for each in machine.queue.pending()] == ["a"]


def test_pending_settlements_are_listed_by_their_age(machine: Machine) -> None:
    for name, age_ms in (("young", -5), ("old", 7_000), ("middle", 3)):
        machine.hand_over(name, now=False, recorded_at_ms=WALL_MS - age_ms, detail=f"{name} failed")
    listed = [(each.reservation_id, each.age_ms, each.last_outcome) for each in machine.queue.pending()]
    assert listed == [("old", 7_000, "old failed"), ("middle", 3, "middle failed"), ("young", 0, "young failed")]


def test_what_other_threads_settle_is_listed_once_by_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(NoJournal())
    machine = Machine(monkeypatch, records)
    for name, age_ms in (("young", 1), ("old", 9), ("listed", 5)):
        records.put(evolve(settle(name).record, recorded_at_ms=WALL_MS - age_ms))
    machine.hand_over("listed", now=False)
    listed = machine.queue.pending()
    assert [each.reservation_id for each in listed] == ["listed"]
    others = machine.queue.in_other_threads(listed)
    assert [(each.reservation_id, each.age_ms, each.last_outcome) for each in others] == [
        ("old", 9, None),
        ("young", 1, None),
    ]
    assert [each.reservation_id for each in machine.queue.in_other_threads([])] == ["old", "listed", "young"]


def test_a_closed_queue_tries_nothing(machine: Machine) -> None:
    machine.hand_over("a")
    machine.queue.close()
    machine.run_threads()
    assert machine.queue.take() is None
    assert machine.tried == []


def test_an_interrupted_attempt_is_due_now_and_may_have_arrived(machine: Machine) -> None:
    machine.hand_over("a", made=Made(0.0))
    machine.soon_jobs.clear()
    item = machine.queue.take()
    assert item is not None
    machine.steps[key("a")] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        run(machine.queue.attempt(machine.io, item))
    again = machine.queue.take()
    assert again is not None
    assert isinstance(again.value, Settle)
    assert again.value.record.may_have_arrived


@pytest.mark.parametrize("mode", ["commit", "event"])
def test_the_lease_of_a_pending_commit_is_renewed_and_that_of_an_event_is_not(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    renewed, ended, reported = list[Any](), list[Any](), list[Any]()
    heartbeat = SimpleNamespace(end=lambda: ended.append(1))
    guard: Any = SimpleNamespace(own_heartbeat=heartbeat)
    monkeypatch.setattr(work_queue, "adopt", lambda io, heartbeat: renewed.append(heartbeat))

    def report_pending(io: object, record: object, detail: str, journaled: bool) -> None:
        [listed] = machine.queue.pending()  # an observer may list it
        reported.append((detail, journaled, listed.last_outcome))

    monkeypatch.setattr(work_queue, "report_pending", report_pending)
    work = settle("a", detail="it failed", mode=mode, made=Made(0.0))
    machine.queue.hand_over(evolve(work, guard=guard), now=False)
    machine.queue.hand_over(settle("b"), now=False)
    assert (renewed, ended) == (([heartbeat], []) if mode == "commit" else ([], [1]))
    assert reported == [("it failed", False, "it failed")]


def test_a_flush_waits_for_nothing_if_nothing_may_change(machine: Machine) -> None:
    assert machine.queue.flush(10.0) == cycles.FlushReport(0, 0, 0)
    machine.hand_over("late", detail="it failed", not_before_ms=WALL_MS + 10_000)
    assert machine.queue.flush(10.0) == cycles.FlushReport(0, 1, 0)
    assert machine.waits == []
    machine.now_s += 0.5
    assert machine.queue.flush(10.0) == cycles.FlushReport(1, 0, 0)
    assert machine.waits == [9.5]


def test_a_flush_retries_with_growing_pauses_until_its_end(machine: Machine) -> None:
    machine.hand_over("a", detail="it failed", now=False)
    machine.steps[key("a")] = [Later("no", outage=False) for _ in range(9)]
    assert machine.queue.flush(30.0) == cycles.FlushReport(0, 1, 0)
    assert machine.waits == [8.0, 16.0, 6.0]
    assert len(machine.tried) == 3


def test_what_an_earlier_flush_saw_rejected_is_retried_by_the_next_one(machine: Machine) -> None:
    machine.hand_over("a", detail="it failed", now=False)
    machine.steps[key("a")] = [Later("no", outage=False, rejected=True), Later("down", outage=True), Done(settled=True)]
    assert machine.queue.flush(100.0) == cycles.FlushReport(0, 1, 0)
    assert machine.waits == []
    assert machine.queue.flush(100.0) == cycles.FlushReport(1, 0, 0)


def test_a_close_saves_what_no_worker_has_saved_and_ends_the_waits_for_it(machine: Machine) -> None:
    saved, woken = list[str](), list[str]()

    async def put(record: Record) -> None:
        saved.append(record.reservation_id)

    def guarded(name: str, is_saved: bool) -> Settle:
        signal = SimpleNamespace(set=lambda: woken.append(name))
        guard: Any = SimpleNamespace(own_heartbeat=None, ahead=None, when_settled=lambda: signal)
        return evolve(settle(name, is_saved=is_saved), guard=guard)

    machine.io.put = put
    machine.queue.hand_over(guarded("unsaved", False), now=False)
    machine.queue.hand_over(guarded("saved", True), now=False)
    machine.queue.hand_over(release("released"), now=False)
    machine.hand_over("without a guard", is_saved=False, now=False)
    assert (saved, woken) == ([], [])
    machine.queue.close()
    assert (saved, woken) == (["unsaved", "without a guard"], ["unsaved", "saved"])
    machine.queue.keep(guarded("late", False))
    assert (saved[2:], woken[2:]) == (["late"], ["late"])


@pytest.mark.parametrize("what", ["a pool settles", "a guard is ended"])
def test_a_flush_looks_again_while_a_thread_settles(
    machine: Machine, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "a guard is ended":
        states = machine.pools_settle
        machine.pools_settle = []
        monkeypatch.setattr(GuardEnds, "running", property(lambda _: bool(states and states.pop(0))))
    else:
        states = machine.pools_settle
    states[:] = [True, True, False]
    machine.queue.flush(10.0)
    assert machine.waits == [0.02] * 2
    states[:] = [True] * 1_000
    machine.queue.flush(0.05)
    assert machine.waits[2:] == pytest.approx([0.02, 0.02, 0.01])


def test_what_a_flush_has_tried_is_tried_again_while_a_thread_waits_for_a_response(machine: Machine) -> None:
    machine.hand_over("slow")
    machine.soon_jobs.clear()
    assert machine.queue.take() is not None  # by the thread that waits
    machine.hand_over("a")
    machine.steps[key("a")] = [Later("no", outage=False, rejected=True), Done(settled=True)]
    machine.queue.flush(0.5)
    machine.pass_time(machine.now_s + PAUSE_S + 1.0)
    assert machine.tried == [key("a")] * 2


def test_a_settlement_that_ends_during_a_flush_is_counted_once(machine: Machine) -> None:
    """At whatever point another thread ends it: by this flush, or by the next one."""
    reports, number, more = list[cycles.FlushReport](), 0, True
    while more:
        machine.hand_over(str(number))
        item: Any = machine.queue.take()
        end = partial(machine.lock.when_free, lambda: run(machine.queue.attempt(machine.io, item)))  # noqa: B023
        more = run_at("/cycles/_drivers/work/queue", number, end, lambda: reports.append(machine.queue.flush(0.0)))
        number += 1
    assert sum(report.settled for report in reports) + reports[-1].pending == len(reports) > 10


@pytest.mark.parametrize(
    ("is_in_loop", "is_of_loop", "waits"),
    [(False, False, [10.0]), (False, True, [10.0]), (True, False, [10.0]), (True, True, [])],
)
def test_a_flush_waits_for_what_another_thread_sends(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, is_in_loop: bool, is_of_loop: bool, waits: list[float]
) -> None:
    loop: Any = Loop(machine) if is_of_loop else None
    monkeypatch.setattr(work_queue, "in_event_loop", lambda: is_in_loop)
    machine.hand_over("a", loop=loop)
    assert machine.queue.take(loop) is not None
    assert machine.queue.flush(10.0) == cycles.FlushReport(0, 1, 0)
    assert machine.waits == waits


@pytest.mark.parametrize(("name", "awaits", "waits"), [("a", True, 0), ("b", True, 500), ("b", False, 0)])
def test_a_close_waits_for_callers_but_not_for_what_is_queued_already(
    monkeypatch: pytest.MonkeyPatch, name: str, awaits: bool, waits: int
) -> None:
    records = Records(NoJournal())
    records.put(settle(name).record)
    machine = Machine(monkeypatch, records)
    machine.steps[key("a")] = [Later("rejected", outage=False, rejected=True)]
    machine.hand_over("a")
    assert machine.queue.flush(10.0, await_callers=awaits).pending == 1
    assert len(machine.waits) == pytest.approx(waits, abs=2 * (waits > 0))


# What earlier processes left


class Left:
    """The records of a client whose journal has something of earlier processes."""

    journaled = True
    shared = None
    unread = False
    quarantined = 0

    def __init__(self) -> None:
        self.recovered: set[str] = set()  # requests whose cost is unknown, of a process that was killed
        self.sent_before: set[str] = set()  # the same, which another process has recovered
        self.found: list[str] = []
        self.journal = self.left = self
        self.attempts: list[str] = []

    def recover_spend(self) -> set[str]:
        return self.recovered

    def left_by_others(self, _: int) -> list[str]:
        return self.found

    def sent(self, found: list[str]) -> set[str]:
        return self.sent_before & set(found)

    def load(self, entry: str) -> Record | None:
        return None if entry == "gone" else settle(f"res-{entry}").record

    def taken_by_another(self, _: str) -> None:
        return None

    def latest(self, record: Record) -> Record:
        return record

    def in_progress(self) -> list[str]:
        return []


@pytest.fixture
def left() -> Left:
    left = Left()
    left.found = ["a", "b", "gone"]
    return left


def test_what_earlier_processes_left_is_settled_after_the_start(monkeypatch: pytest.MonkeyPatch, left: Left) -> None:
    machine = Machine(monkeypatch, left)
    assert len(machine.soon_jobs) == 1
    assert machine.queue.flush(0.0) == cycles.FlushReport(0, 0, 0, scan_finished=False)
    assert not machine.queue.may_reserve
    assert machine.queue.pending(0.0) == []
    read, *_ = machine.soon_jobs
    machine.soon_jobs.clear()
    read()
    assert machine.queue.may_reserve
    assert [each.reservation_id for each in machine.queue.pending()] == ["res-a", "res-b"]
    assert machine.queue.unsettled() == {"a", "b", "gone"}
    assert machine.queue.flush(0.0).scan_finished
    machine.run_threads()
    assert machine.tried == ["a", "b", "gone"]
    read()  # it is read once
    machine.run_threads()
    assert machine.tried == ["a", "b", "gone"]


@pytest.mark.parametrize("use", ["pending", "flush", "settle_sent"])
def test_without_threads_the_journal_is_read_by_the_first_caller_that_needs_it(
    monkeypatch: pytest.MonkeyPatch, left: Left, use: str
) -> None:
    left.recovered = {"a"}
    machine = Machine(monkeypatch, left, has_threads=False)
    assert machine.alarms == [1_000.0]  # and a thread is tried again
    uses: dict[str, Callable[[], object]] = {
        "pending": machine.queue.pending,
        "flush": lambda: machine.queue.flush(1.0),
        "settle_sent": machine.queue.settle_sent,
    }
    found: Any = uses[use]()
    listed = [each.reservation_id for each in found] if use == "pending" else []
    assert listed == (["res-a", "res-b"] if use == "pending" else [])
    assert sum(machine.waits) == 0.0
    assert machine.queue.may_reserve is (use != "pending")
    assert machine.tried == {"pending": [], "flush": ["a", "b", "gone"], "settle_sent": ["a"]}[use]


def test_each_caller_waits_for_the_journal_as_long_as_it_may(monkeypatch: pytest.MonkeyPatch, left: Left) -> None:
    machine = Machine(monkeypatch, left)
    machine.queue.pending()
    machine.queue.pending(2.0)
    assert machine.waits == [3.0, 2.0]
    machine.queue.flush(4.0)
    assert machine.waits[2:] == [4.0]
    machine.queue.settle_sent()  # a reservation: longer for what dead processes recovered than for the rest
    assert machine.waits[3:] == [5.0, 1.0]
    assert machine.queue.may_reserve


def test_a_reservation_waits_for_a_request_of_unknown_cost_that_another_thread_sends(
    monkeypatch: pytest.MonkeyPatch, left: Left
) -> None:
    left.found, left.recovered = [], {"killed"}
    machine = Machine(monkeypatch, left)
    read, *_ = machine.soon_jobs
    read()
    assert machine.at_events == [frozenset({"killed"})] * 2  # it is known before a caller is woken
    assert machine.queue.take() is not None
    machine.queue.settle_sent()
    assert machine.waits == pytest.approx([0.02] * len(machine.waits))
    assert sum(machine.waits) == pytest.approx(5.0, abs=0.03)
    assert machine.tried == []


def test_nothing_is_reserved_before_the_journal_is_read(monkeypatch: pytest.MonkeyPatch, left: Left) -> None:
    def read(_: int) -> list[str]:
        seen.append(machine.queue.may_reserve)  # what was recovered is known by now
        return ["a"]

    machine, seen = Machine(monkeypatch, left), list[bool]()
    monkeypatch.setattr(left, "left_by_others", read)
    machine.run_threads()
    assert [*seen, machine.queue.may_reserve] == [False, True]


def test_a_flush_counts_what_was_quarantined_since_the_flush_before(
    monkeypatch: pytest.MonkeyPatch, left: Left
) -> None:
    machine = Machine(monkeypatch, left, has_threads=False)

    def recover_spend() -> set[str]:
        left.quarantined += 3
        return set()

    left.quarantined = 2  # since the client started
    monkeypatch.setattr(left, "recover_spend", recover_spend)
    assert machine.queue.flush(1.0) == cycles.FlushReport(3, 0, 5)
    left.quarantined += 1
    assert machine.queue.flush(1.0) == cycles.FlushReport(0, 0, 1)


def test_a_flush_counts_what_was_settled_in_the_background_since_the_flush_before(
    monkeypatch: pytest.MonkeyPatch, left: Left
) -> None:
    left.found = ["a", "b"]
    machine = Machine(monkeypatch, left)
    machine.run_threads()
    reports = [machine.queue.flush(1.0), machine.queue.flush(1.0)]
    assert (machine.tried, reports) == (["a", "b"], [cycles.FlushReport(2, 0, 0), cycles.FlushReport()])


def test_an_unreadable_journal_is_no_finished_scan(monkeypatch: pytest.MonkeyPatch, left: Left) -> None:
    left.unread = True
    machine = Machine(monkeypatch, left)
    machine.run_threads()
    assert not machine.queue.flush(0.0).scan_finished


def test_nothing_is_reserved_before_each_request_of_unknown_cost_was_tried(
    monkeypatch: pytest.MonkeyPatch, left: Left
) -> None:
    left.recovered, left.sent_before = {"killed"}, {"b"}
    machine = Machine(monkeypatch, left)
    machine.steps["killed"] = [Later("no", outage=False), Done(settled=True)]
    read, *_ = machine.soon_jobs
    machine.soon_jobs.clear()
    read()
    assert not machine.queue.may_reserve
    machine.queue.settle_sent()
    assert machine.tried == ["killed", "b"]  # the others wait for a thread
    assert machine.queue.may_reserve
    machine.run_threads()
    assert machine.tried == ["killed", "b", "a", "gone", "killed"]


@pytest.mark.parametrize("end", ["outage", "close"])
def test_a_reservation_does_not_wait_for_a_server_that_fails(
    monkeypatch: pytest.MonkeyPatch, left: Left, end: str
) -> None:
    left.recovered = {"killed", "killed too"}
    machine = Machine(monkeypatch, left)
    machine.steps |= {name: [Later("down", outage=True)] for name in left.recovered}
    read, *_ = machine.soon_jobs
    read()
    if end == "close":
        machine.queue.close()
    machine.queue.settle_sent()
    assert (len(machine.tried), machine.waits) == (end == "outage", [])
    assert machine.queue.may_reserve


# Event loops


class Loop:
    """An event loop that runs the tasks of the client when the test says so."""

    def __init__(self, machine: Machine, running: bool = True) -> None:
        self.machine = machine
        self.running = running
        self.tasks: list[Task] = []
        self.looks: list[tuple[float, Callable[[], None]]] = []
        self.futures: list[Future] = []
        this: Any = self
        self.workers = LoopWorkers(machine.queue, machine.io, this, self.start)

    def is_running(self) -> bool:
        return self.running

    def create_future(self) -> Any:
        self.futures.append(Future())
        return self.futures[-1]

    def call_later(self, delay_s: float, look: Callable[[], None]) -> None:
        self.looks.append((delay_s, look))

    def start(self, work: Any) -> Any:
        self.tasks.append(Task(work))
        return self.tasks[-1]


class Future:
    def __init__(self) -> None:
        self.is_done = False

    def done(self) -> bool:
        return self.is_done

    def set_result(self, _: object) -> None:
        self.is_done = True


class Task:
    def __init__(self, work: Any) -> None:
        self.work = work
        self.callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)

    def run(self) -> None:
        """Run to its end; what it awaits is done immediately."""
        try:
            self.work.send(None)
        except StopIteration:
            self.end()

    def end(self) -> None:
        for callback in self.callbacks:
            callback(self)


@pytest.fixture
def loop(machine: Machine) -> Iterator[Loop]:
    loop = Loop(machine)
    yield loop
    for task in loop.tasks:
        task.work.close()


def test_a_task_does_what_its_loop_has_handed_over(machine: Machine, loop: Loop) -> None:
    work = [settle(name) for name in ("a", "b")]
    done = loop.workers.done(work[0])
    assert loop.workers.done(work[0]) is done
    assert [loop.workers.hand_over(each) for each in work] == [True, True]
    assert (len(loop.tasks), len(loop.workers.running)) == (1, 1)
    assert machine.soon_jobs == []
    assert machine.queue.take() is None  # no thread takes it
    loop.tasks[0].run()
    assert machine.tried == [key("a"), key("b")]
    assert loop.futures[0].is_done
    assert loop.workers.running == set()
    assert loop.workers.hand_over(settle("c"))
    assert len(loop.tasks) == 2


def test_one_more_task_helps_if_work_waits_for_long(machine: Machine, loop: Loop) -> None:
    loop.workers.hand_over(settle("a"))
    assert loop.looks == []  # one task is enough for one settlement
    for name in ("b", "c"):
        loop.workers.hand_over(settle(name))
    [(delay_s, look)] = loop.looks
    assert delay_s == SLOW_S
    loop.looks.clear()
    machine.now_s += SLOW_S
    look()
    assert len(loop.tasks) == 1
    [(_, look)] = loop.looks
    loop.looks.clear()
    machine.now_s += 0.01
    look()
    assert (len(loop.tasks), len(loop.workers.running)) == (2, 2)
    assert len(loop.looks) == 1  # and later perhaps a third one


def test_no_more_tasks_than_workers_are_started(machine: Machine, loop: Loop) -> None:
    for number in range(10):
        loop.workers.hand_over(settle(str(number)))
    for _ in range(10):
        machine.now_s += 1.0
        looks, loop.looks = loop.looks, []
        for _, look in looks:
            look()
    assert (len(loop.tasks), loop.looks) == (WORKERS, [])


def test_a_task_looks_for_help_again_once_one_of_many_has_ended(machine: Machine, loop: Loop) -> None:
    for number in range(10):
        loop.workers.hand_over(settle(str(number)))
    while loop.looks:
        machine.now_s += 1.0
        loop.looks.pop()[1]()
    assert len(loop.tasks) == WORKERS
    loop.tasks[0].end()  # cancelled
    loop.tasks[1].run()
    assert len(loop.looks) == 1


def test_threads_do_what_a_cancelled_task_has_left(machine: Machine, loop: Loop) -> None:
    loop.workers.hand_over(settle("a"))
    loop.tasks[0].end()  # cancelled before its first step
    assert inspect.getcoroutinestate(loop.tasks[0].work) == inspect.CORO_CLOSED  # else it warns that it never ran
    machine.run_threads()
    assert machine.tried == [key("a")]
    assert loop.workers.running == set()


def test_a_thread_repeats_what_failed_in_a_task_while_another_task_waits_for_a_response(
    machine: Machine, loop: Loop
) -> None:
    this: Any = loop
    for name in ("slow", "a"):
        loop.workers.hand_over(settle(name))
    assert machine.queue.take(this) is not None  # by the task that waits
    machine.steps[key("a")] = [Later("no", outage=False), Done(settled=True)]
    failing = machine.queue.take(this)
    assert failing is not None
    run(machine.queue.attempt(machine.io, failing))
    machine.pass_time(machine.now_s + PAUSE_S)
    assert machine.tried == [key("a")] * 2


def test_threads_take_nothing_from_a_loop_while_a_task_of_it_runs(machine: Machine, loop: Loop) -> None:
    for name in ("a", "b"):
        loop.workers.hand_over(settle(name))
    machine.now_s += 1.0
    loop.looks[0][1]()
    first, _ = loop.tasks
    first.end()
    machine.run_threads()
    assert machine.tried == []


def test_during_an_outage_threads_get_what_a_loop_hands_over(machine: Machine, loop: Loop) -> None:
    machine.steps[key("a")] = [Later("down", outage=True)]
    machine.hand_over("a")
    machine.run_threads()
    assert loop.workers.hand_over(settle("b"))
    assert loop.tasks == []
    machine.pass_time(1_000.0 + PAUSE_S)
    assert set(machine.tried) == {key("a"), key("b")}


def test_a_caller_whose_attempt_is_interrupted_is_woken(machine: Machine, loop: Loop) -> None:
    machine.steps[key("a")] = [asyncio.CancelledError()]
    work = settle("a")
    loop.workers.done(work)
    loop.workers.hand_over(work)
    with pytest.raises(asyncio.CancelledError):
        loop.tasks[0].run()
    assert loop.futures[0].is_done
    loop.tasks[0].end()
    machine.run_threads()
    assert machine.tried == [key("a")] * 2


def test_a_declined_settlement_starts_no_task(machine: Machine, loop: Loop) -> None:
    machine.queue.decline()
    assert not loop.workers.hand_over(settle("a"))
    assert loop.tasks == []


@pytest.mark.parametrize("is_running", [True, False])
def test_a_flush_sends_what_a_loop_sends_only_if_the_loop_has_stopped(
    machine: Machine, loop: Loop, is_running: bool
) -> None:
    loop.running = is_running
    this: Any = loop
    for name in ("busy", "queued"):
        loop.workers.hand_over(settle(name))
    item = machine.queue.take(this)
    assert item is not None
    report = machine.queue.flush(0.0 if is_running else 0.5)
    if is_running:
        queued = machine.queue.take()
        assert queued is not None
        assert (report, queued.key) == (cycles.FlushReport(0, 2, 0), key("queued"))
    else:
        assert (report, machine.tried) == (cycles.FlushReport(2, 0, 0), [key("busy"), key("queued")])
    assert machine.queue.take() is None
