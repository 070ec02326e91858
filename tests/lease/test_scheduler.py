"""The scheduler: few threads, nothing started or woken without need, and no job that keeps another from running."""

from __future__ import annotations

import gc
import logging
import math
import random
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cycles._drivers.work.scheduler import GROW_AFTER_S, IDLE_S, Scheduler, Timetable
from tests.lease.virtual import PATIENCE_S, VirtualTime
from tests.support.schedulers import kept, scheduled, threads, timed


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
def scheduler(time: VirtualTime) -> Iterator[Scheduler]:
    scheduler = Scheduler("test", monotonic=time.monotonic, condition=time.condition)
    yield scheduler
    assert scheduler.close(PATIENCE_S)


def scheduler_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("cycles-scheduler-test"))


def grow(time: VirtualTime) -> None:
    time.advance(GROW_AFTER_S)


def test_no_thread_before_the_first_job(scheduler: Scheduler) -> None:
    scheduler.worker_pool("beats", 4)
    assert scheduler_threads() == []
    assert scheduler.close()


def test_a_far_job_costs_one_thread_and_the_next_ones_nothing(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 4)
    scheduler.at(1040.0, lambda: None, worker_pool)
    time.until(lambda: scheduler.wakes_at_s == 1040.0)
    for later in range(100):
        scheduler.at(1041.0 + later, lambda: None, worker_pool).cancel()
        scheduler.at(1040.0, lambda: None, worker_pool)
    assert scheduler_threads() == ["cycles-scheduler-test-timer"]
    assert time.wakes == {}
    assert all(thread.daemon for thread in threading.enumerate() if thread.name in scheduler_threads())


def test_an_earlier_job_wakes_the_scheduler(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 4)
    ran = threading.Event()
    scheduler.at(1040.0, lambda: None, worker_pool)
    time.until(lambda: scheduler.wakes_at_s == 1040.0)
    scheduler.at(1010.0, ran.set, worker_pool)
    time.until(lambda: scheduler.wakes_at_s == 1010.0)
    time.advance(9.5)
    assert not ran.is_set()
    time.advance(0.5)
    assert ran.wait(PATIENCE_S)


def test_jobs_run_in_the_order_of_their_time(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    order: list[int] = []
    for when in (5, 3, 4, 1, 2):
        scheduler.at(1000.0 + when, lambda when=when: order.append(when), worker_pool)  # type: ignore[misc]
    time.advance(10)
    time.until(lambda: len(order) == 5)
    assert order == [1, 2, 3, 4, 5]


def test_a_cancelled_job_does_not_run(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    ran, last = threading.Event(), threading.Event()
    handle = scheduler.at(1001.0, ran.set, worker_pool)
    scheduler.at(1002.0, last.set, worker_pool)
    assert handle.cancel()
    assert not handle.cancel()
    time.advance(2)
    assert last.wait(PATIENCE_S)
    assert not ran.is_set()


def test_a_job_that_waits_for_a_worker_can_still_be_cancelled(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    go, ran, last = threading.Event(), threading.Event(), threading.Event()
    scheduler.at(1000.0, lambda: go.wait(PATIENCE_S), worker_pool)
    waiting = scheduler.at(1000.0, ran.set, worker_pool)
    scheduler.at(1000.0, last.set, worker_pool)
    time.until(lambda: scheduled(scheduler) == 2 and timed(scheduler) == 0)
    assert waiting.cancel()
    go.set()
    assert last.wait(PATIENCE_S)
    assert not ran.is_set()


def test_cancelled_jobs_leave_memory(scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    scheduler.at(1001.0, lambda: None, worker_pool)
    for _ in range(10_000):
        scheduler.at(5000.0, lambda: None, worker_pool).cancel()
    assert scheduled(scheduler) == 1
    assert kept(scheduler) < 200


def test_jobs_keep_their_order_when_cancelled_ones_leave(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    whens, order = random.Random(1).sample(range(1, 1_000), 300), list[int]()
    handles = [scheduler.at(1000.0 + when, partial(order.append, when), worker_pool) for when in whens]
    for handle in handles[:200]:
        assert handle.cancel()
    time.advance(1_000)
    time.until(lambda: len(order) == 100)
    assert order == sorted(whens[200:])


def test_a_hung_job_delays_no_other(time: VirtualTime, scheduler: Scheduler) -> None:
    beats, recovery = scheduler.worker_pool("beats", 3), scheduler.worker_pool("recovery", 1)
    release, ran, other = threading.Event(), threading.Semaphore(0), threading.Event()
    scheduler.soon(lambda: release.wait(PATIENCE_S), beats)
    scheduler.soon(lambda: release.wait(PATIENCE_S), recovery)
    scheduler.soon(ran.release, beats)
    time.until(lambda: math.isclose(scheduler.wakes_at_s, 1000.0 + GROW_AFTER_S))
    assert threads(scheduler) == 3  # the pool grows only when the second job has waited for a moment
    grow(time)
    assert ran.acquire(timeout=PATIENCE_S)
    scheduler.soon(other.set, recovery)
    for _ in range(3):
        scheduler.soon(ran.release, beats)
        assert ran.acquire(timeout=PATIENCE_S)
    assert not other.is_set()
    assert threads(scheduler) == 4
    release.set()
    assert other.wait(PATIENCE_S)


def test_a_job_that_waits_behind_a_hung_one_gets_a_worker_of_its_own(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 2)
    begun, release, ran = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(PATIENCE_S)

    scheduler.soon(hang, worker_pool)
    assert begun.wait(PATIENCE_S)
    scheduler.soon(ran.set, worker_pool)
    time.until(lambda: math.isclose(scheduler.wakes_at_s, 1000.0 + GROW_AFTER_S))
    assert not ran.is_set()
    grow(time)
    assert ran.wait(PATIENCE_S)
    release.set()


def test_a_burst_is_spread_over_the_workers_and_no_more(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 8)
    lock, running, most, ran = threading.Lock(), set[str](), 0, 0
    gate = threading.Semaphore(0)

    def heartbeat() -> None:
        nonlocal most, ran
        with lock:
            running.add(threading.current_thread().name)
            most = max(most, len(running))
        assert gate.acquire(timeout=PATIENCE_S)
        with lock:
            running.discard(threading.current_thread().name)
            ran += 1

    for _ in range(1000):
        scheduler.at(1010.0, heartbeat, worker_pool)
    time.advance(10)
    for _ in range(12):
        time.until(lambda: scheduler.wakes_at_s > time.now_s)
        grow(time)
    time.until(lambda: len(running) == 8)
    assert threads(scheduler) == 9
    gate.release(1000)
    time.until(lambda: ran == 1000)
    assert most == 8


def test_the_workers_of_a_burst_grow_by_half(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool, gate, workers = scheduler.worker_pool("beats", 8), threading.Event(), list[int]()
    for _ in range(100):
        scheduler.at(1010.0, lambda: gate.wait(PATIENCE_S), worker_pool)
    time.advance(10)
    for _ in range(7):
        time.until(lambda: scheduler.wakes_at_s > time.now_s)
        workers.append(threads(scheduler) - 1)
        grow(time)
    gate.set()
    assert workers == [1, 2, 3, 4, 6, 8, 8]


def test_a_job_that_no_worker_takes_wakes_the_timer_that_adds_one(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool, go_on, begun, ran = scheduler.worker_pool("beats", 2), *(threading.Event() for _ in range(3))
    scheduler.at(2000.0, lambda: None, worker_pool)
    time.until(lambda: scheduler.wakes_at_s == 2000.0)  # the timer sleeps until then

    def hang() -> None:
        begun.set()
        go_on.wait(PATIENCE_S)

    scheduler.soon(hang, worker_pool)
    assert begun.wait(PATIENCE_S)
    scheduler.soon(ran.set, worker_pool)
    time.until(lambda: math.isclose(scheduler.wakes_at_s, 1000.0 + GROW_AFTER_S))
    grow(time)
    assert ran.wait(PATIENCE_S)
    go_on.set()


def test_a_table_counts_the_cancelled_jobs_that_it_keeps() -> None:
    """Else it would never remove the later ones."""
    table, jobs = Timetable(), [SimpleNamespace(cancelled=False) for _ in range(600)]
    for number, job in enumerate(jobs):
        table.add(float(number), cast(Any, job))

    def cancel(some: list[SimpleNamespace]) -> None:
        for job in some:
            job.cancelled = True
            table.note_cancelled()

    cancel(jobs[:200])
    assert (len(table.heap), table.next_s(), len(table.heap)) == (600, 200.0, 400)
    cancel(jobs[200:400])
    assert len(table.heap) == 400
    cancel(jobs[400:401])  # most of it is cancelled now
    assert (len(table.heap), table.next_s()) == (199, 401.0)
    assert cast(Any, table.pop_due(401.0)) is jobs[401]
    assert table.pop_due(401.9) is None
    cancel(jobs[402:403])
    assert [cast(Any, job) for job in table.clear()] == jobs[403:]
    assert (table.next_s(), table.heap) == (math.inf, [])


def test_quick_jobs_need_one_worker(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 8)
    ran = 0

    def heartbeat() -> None:
        nonlocal ran
        ran += 1

    for _ in range(1000):
        scheduler.at(1010.0, heartbeat, worker_pool)
    time.advance(10)
    time.until(lambda: ran == 1000)
    assert threads(scheduler) == 2


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), KeyboardInterrupt()])
def test_a_job_that_raises_is_logged_and_its_worker_continues(
    time: VirtualTime, scheduler: Scheduler, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    names: list[str] = []

    def fail() -> None:
        names.append(threading.current_thread().name)
        raise error

    scheduler.soon(fail, worker_pool)
    scheduler.soon(lambda: names.append(threading.current_thread().name), worker_pool)
    time.until(lambda: len(names) == 2)
    assert names[0] == names[1] == "cycles-scheduler-test-beats-1"
    (record,) = [record for record in caplog.records if record.name == "cycles"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_threads_end_after_idling_and_start_again(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    ran = threading.Semaphore(0)
    scheduler.at(time.now_s, ran.release, worker_pool)
    assert ran.acquire(timeout=PATIENCE_S)
    time.until(lambda: scheduler.wakes_at_s == time.now_s + IDLE_S and worker_pool._idle == 1)
    time.advance(IDLE_S)
    time.until(lambda: scheduler_threads() == [])
    assert threads(scheduler) == 0
    scheduler.soon(ran.release, worker_pool)
    assert ran.acquire(timeout=PATIENCE_S)
    scheduler.at(time.now_s + 5, ran.release, worker_pool)
    time.until(lambda: scheduler.wakes_at_s == time.now_s + 5)
    time.advance(5)
    assert ran.acquire(timeout=PATIENCE_S)


def test_a_job_that_comes_as_its_worker_has_idled_long_enough_runs() -> None:
    ran = list[str]()

    class Ended(threading.Condition):
        """A wait that is over as soon as it begins. During the first one another thread offers a job."""

        def wait(self, timeout: float | None = None) -> bool:
            if len(ran) == 1:
                scheduler.soon(partial(ran.append, "second"), worker_pool)
            return False

    scheduler = Scheduler("test-idle", condition=Ended)
    worker_pool = scheduler.worker_pool("beats", 1)
    scheduler.soon(partial(ran.append, "first"), worker_pool)
    for thread in scheduler.all_threads():
        thread.join(PATIENCE_S)
    assert ran == ["first", "second"]
    assert scheduler.close(PATIENCE_S)


def test_the_timer_stays_while_a_job_is_to_come(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    ran = threading.Event()
    scheduler.at(2000.0, ran.set, worker_pool)
    time.until(lambda: scheduler.wakes_at_s == 2000.0)
    time.advance(999)
    assert threads(scheduler) == 1
    time.advance(1)
    assert ran.wait(PATIENCE_S)


def test_a_job_that_ran_is_not_kept_alive(time: VirtualTime, scheduler: Scheduler) -> None:
    class Guard:
        def heartbeat(self) -> None: ...

    worker_pool = scheduler.worker_pool("beats", 1)
    guard = Guard()
    gone = weakref.ref(guard)
    handle = scheduler.at(time.now_s, guard.heartbeat, worker_pool)
    time.until(lambda: handle.cancelled and worker_pool._idle == 1)
    del guard
    gc.collect()
    assert gone() is None


def test_close_drops_what_has_not_started(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    go, started, ran = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        go.wait(PATIENCE_S)

    scheduler.soon(slow, worker_pool)
    assert started.wait(PATIENCE_S)
    assert scheduler.soon(ran.set, worker_pool)
    waiting, far = (scheduler.at(when_s, ran.set, worker_pool) for when_s in (1000.0, 2000.0))
    assert not scheduler.close(0.0)  # one job still runs
    assert waiting.cancelled
    assert far.cancelled
    go.set()
    assert scheduler.close(PATIENCE_S)
    assert scheduler_threads() == []
    assert not scheduler.soon(ran.set, worker_pool)
    assert not ran.is_set()
    assert scheduled(scheduler) == 0


def test_a_job_may_close_its_own_scheduler(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    closed = threading.Event()

    def end() -> None:
        assert scheduler.close(PATIENCE_S)
        closed.set()

    scheduler.soon(end, worker_pool)
    assert closed.wait(PATIENCE_S)


def test_a_signal_handler_may_close_the_scheduler_at_any_point(scheduler: Scheduler) -> None:
    worker_pool = scheduler.worker_pool("beats", 1)
    with scheduler._lock:  # as if the signal had come in the middle of `at`
        scheduler.at(1e9, lambda: None, worker_pool).cancel()
        scheduler.close(0.0)
    assert scheduler.close(PATIENCE_S)


def test_never_is_never(scheduler: Scheduler) -> None:
    assert scheduler.at(math.inf, lambda: None, scheduler.worker_pool("beats", 1)).cancelled
    assert threads(scheduler) == 0


@pytest.mark.parametrize("trigger", ["another job", "a successful request"])
def test_a_timer_that_cannot_start_is_tried_again_and_loses_no_job(
    time: VirtualTime,
    scheduler: Scheduler,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    trigger: str,
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    worker_pool, ran = scheduler.worker_pool("beats", 1), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert not scheduler.at(time.now_s, ran.set, worker_pool).cancelled
    assert "no thread can be started (can't start new thread)" in caplog.text
    if trigger == "another job":
        scheduler.at(time.now_s + 1e6, lambda: None, worker_pool)
    else:
        scheduler.resume()
    assert ran.wait(PATIENCE_S)


def test_a_worker_that_cannot_start_is_tried_again(
    time: VirtualTime, scheduler: Scheduler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, ran = threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if "beats" in thread.name and not caplog.records:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    scheduler.at(time.now_s, ran.set, scheduler.worker_pool("beats", 1))
    time.until(lambda: scheduler.wakes_at_s == time.now_s + 1.0)
    assert not ran.is_set()
    time.advance(1.0)
    assert ran.wait(PATIENCE_S)


def test_a_job_that_is_due_needs_no_timer(time: VirtualTime, scheduler: Scheduler) -> None:
    worker_pool, ran = scheduler.worker_pool("beats", 2), threading.Semaphore(0)
    for _ in range(2):
        assert scheduler.soon(ran.release, worker_pool)
        assert ran.acquire(timeout=PATIENCE_S)
        time.until(lambda: worker_pool._idle == 1)
    assert threads(scheduler) == 1


def test_a_job_for_which_no_thread_can_start_is_not_taken(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    assert not scheduler.soon(lambda: None, scheduler.worker_pool("beats", 1))
    assert (scheduled(scheduler), threads(scheduler)) == (0, 0)
    assert "no thread can be started" in caplog.text


def test_an_entry_is_small() -> None:
    scheduler = Scheduler("test-size")
    worker_pool = scheduler.worker_pool("beats", 1)

    class Guard:
        def heartbeat(self) -> None: ...

    guards = [Guard() for _ in range(2000)]
    scheduler.at(1e9, guards[0].heartbeat, worker_pool)
    tracemalloc.start()
    handles = [scheduler.at(1e9, guard.heartbeat, worker_pool) for guard in guards]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    scheduler.close()
    assert size / len(handles) < 500


def test_a_process_ends_with_jobs_to_come() -> None:
    code = (
        "from cycles._drivers.work.scheduler import Scheduler; s = Scheduler('x');"
        "s.at(1e9, print, s.worker_pool('heartbeats', 1))"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=PATIENCE_S, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
