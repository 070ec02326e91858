"""The scheduler of a client: one thread that knows when each job is due, and small worker pools that run the jobs.

Jobs (the heartbeat of a lease, the retry of a settlement) are cheap to schedule and to cancel: only the first one
starts or wakes a thread. A worker pool has a limit; a job that hangs blocks one worker of its pool.
No reference to a job remains after it ran.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

GROW_AFTER_S: Final = 0.02  # a job that waits this long for a worker shows that there are too few
IDLE_S: Final = 15.0  # threads end after idling this long: longer than the pause between two extends of a short lease
RETRY_START_S: Final = 1.0  # when the process cannot have another thread right now
COMPACT_FROM: Final = 64  # below this many cancelled jobs, rebuilding the timetable costs more than it frees
LONGEST_WAIT_S: Final = 3600.0  # condition variables reject some of the larger numbers

_log = logging.getLogger("cycles")

Job = Callable[[], object]


class Handle:
    """One scheduled job."""

    __slots__ = ("_in_table", "_job", "_pool", "when_s")

    def __init__(self, when_s: float, job: Job, worker_pool: WorkerPool) -> None:
        self.when_s: float = when_s
        self._job: Job | None = job
        self._pool = worker_pool
        self._in_table = False

    @property
    def cancelled(self) -> bool:
        """True once the job was cancelled, dropped, or taken by a worker."""
        return self._job is None

    def cancel(self) -> bool:
        """Keep the job from starting. False if it is too late for that; a running job is not interrupted."""
        with self._pool.scheduler._lock:
            if self._job is None:
                return False
            self._job = None
            if self._in_table:
                self._pool.scheduler.timetable.note_cancelled()
            return True

    def _take(self) -> Job | None:
        job, self._job = self._job, None
        return job


class Timetable:
    """Jobs in the order of their time; those of one time in the order they were added. No lock, clock or thread.

    It is a heap that removes cancelled jobs at little cost.
    """

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Handle]] = []
        self._number = itertools.count()
        self._cancelled = 0

    def add(self, when_s: float, handle: Handle) -> None:
        heapq.heappush(self.heap, (when_s, next(self._number), handle))

    def note_cancelled(self) -> None:
        """One job was cancelled. It leaves with the next rebuild, which comes once most of the heap is cancelled."""
        self._cancelled += 1
        if self._cancelled >= COMPACT_FROM and 2 * self._cancelled > len(self.heap):
            self.heap = [item for item in self.heap if not item[2].cancelled]
            heapq.heapify(self.heap)
            self._cancelled = 0

    def next_s(self) -> float:
        """When the next job is due; infinity for never."""
        while self.heap and self.heap[0][2].cancelled:
            heapq.heappop(self.heap)
            self._cancelled -= 1
        return self.heap[0][0] if self.heap else math.inf

    def pop_due(self, now_s: float) -> Handle | None:
        """The earliest job that is due, or None."""
        return heapq.heappop(self.heap)[2] if self.next_s() <= now_s else None

    def clear(self) -> list[Handle]:
        """Empty the table; what was still to come is returned."""
        jobs = [item[2] for item in self.heap if not item[2].cancelled]
        self.heap, self._cancelled = [], 0
        return jobs


class WorkerPool:
    """A pool of at most `max_workers` threads. It grows while jobs wait, and shrinks when there are none."""

    def __init__(self, scheduler: Scheduler, name: str, max_workers: int) -> None:
        self.scheduler = scheduler
        self.name = name
        self.max_workers = max_workers
        self._waiting: deque[Handle] = deque()  # due, in the order of their time
        self._workers: set[threading.Thread] = set()
        self._idle = 0
        self._grow_at_s = -math.inf
        self._more = scheduler._new_condition(scheduler._lock)
        self._started = 0

    def later(self, delay_s: float, job: Job) -> Handle:
        """Run a job on a worker of this pool after some seconds."""
        return self.scheduler.at(self.scheduler.now_s() + delay_s, job, self)

    # All of these are called with the scheduler's lock held.

    def _offer(self, handle: Handle) -> None:
        self._waiting.append(handle)
        if len(self._waiting) <= self._idle:
            self._more.notify()

    def _grow(self, now_s: float) -> float:
        """Start workers if jobs wait for too long. Returns when to look again."""
        while self._waiting and self._waiting[0].cancelled:
            self._waiting.popleft()
        if len(self._waiting) <= self._idle or len(self._workers) >= self.max_workers:
            return math.inf
        # One worker may be enough: a second one starts only if a job has waited for it.
        if self._workers:
            look_at_s = max(self._grow_at_s, self._waiting[0].when_s + GROW_AFTER_S)
            if now_s < look_at_s:
                return look_at_s
        # By half at a time: a burst gets threads quickly, and one slow job does not start all of them.
        missing = self.max_workers - len(self._workers)
        unserved = len(self._waiting) - self._idle
        wanted = max(1, min(missing, len(self._workers) // 2, unserved))
        started = all(self._start_worker() for _ in range(wanted))
        self._grow_at_s = now_s + (GROW_AFTER_S if started else RETRY_START_S)
        return math.inf if started and unserved <= wanted else self._grow_at_s

    def _start_worker(self) -> bool:
        self._started += 1
        worker = self.scheduler._start_thread(self._work, f"{self.name}-{self._started}")
        if worker is None:
            return False
        self._workers.add(worker)
        return True

    def _next_job(self) -> Job | None:
        """Return the next job for this worker; None after it has idled long enough, or when the scheduler closes."""
        while not self.scheduler._closed:
            while self._waiting:
                job = self._waiting.popleft()._take()
                if job is not None:
                    return job
            self._idle += 1
            woken = self._more.wait(IDLE_S)
            self._idle -= 1
            if not woken and not self._waiting:
                break
        return None

    def _work(self) -> None:
        while True:
            with self.scheduler._lock:
                job = self._next_job()
                if job is None:
                    self._workers.discard(threading.current_thread())
                    return
            _run(job)
            del job  # an idle worker holds no reference


class Scheduler:
    """The threads of one client. It has none until the first job is scheduled, and none after `close`.

    Args:
        name: Part of the threads' names, `cycles-scheduler-...`; they are daemons.
        monotonic: The clock of `at`, in seconds.
        condition: What threads wait with; tests pass a virtual one.
    """

    def __init__(
        self,
        name: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        condition: Callable[[Any], threading.Condition] = threading.Condition,
    ) -> None:
        self._name = name
        self.now_s = monotonic
        self._new_condition = condition
        self._lock = threading.RLock()  # a signal handler may use or close the client in the middle of a call
        self._sooner = condition(self._lock)
        self.timetable: Timetable = Timetable()
        self.pools: list[WorkerPool] = []
        self._thread: threading.Thread | None = None
        self.wakes_at_s: float = math.inf
        self._closed = False
        self.stalled: bool = False  # jobs are scheduled, but the timer thread could not be started
        self.short_of_threads: bool = False  # the last thread could not be started

    def worker_pool(self, name: str, max_workers: int) -> WorkerPool:
        """A new pool; pools never delay each other."""
        worker_pool = WorkerPool(self, name, max_workers)
        with self._lock:
            self.pools.append(worker_pool)
        return worker_pool

    def at(self, when_s: float, job: Job, worker_pool: WorkerPool) -> Handle:
        """Run `job` on a worker of `worker_pool` once the clock shows `when_s` (infinity: never)."""
        handle = Handle(when_s, job, worker_pool)
        with self._lock:
            # Not an error: what is closed drops its jobs, and a planner may say that no attempt is due.
            if self._closed or when_s == math.inf:
                handle._job = None
                return handle
            handle._in_table = True
            self.timetable.add(when_s, handle)
            if self._running() and when_s < self.wakes_at_s:
                self.wakes_at_s = when_s
                self._sooner.notify()
        return handle

    def resume(self) -> None:
        """Start the timer thread if it could not be started before."""
        if self.stalled and not self._closed:
            with self._lock:
                self._running()

    def soon(self, job: Job, worker_pool: WorkerPool) -> bool:
        """Run `job` on a worker of `worker_pool` as soon as there is one. An idle one gets it without the timer thread.

        Returns:
            False if there is no worker and none can be started, or after `close`: the job was not taken.
        """
        with self._lock:
            has_worker = bool(worker_pool._workers)
            if self._closed or not (has_worker or worker_pool._start_worker()):
                return False
            worker_pool._offer(Handle(self.now_s(), job, worker_pool))
            if has_worker and worker_pool._idle < len(worker_pool._waiting) and self._running():
                self.wakes_at_s = -math.inf  # all workers are busy: the timer thread adds one if they stay so
                self._sooner.notify()
            return True

    def close(self, timeout_s: float | None = None) -> bool:
        """Drop what has not started and end the threads, waiting at most `timeout_s` for jobs that run.

        Returns whether all threads have ended. May be called again, and from a job (which does not wait for itself).
        """
        with self._lock:
            self._closed = True
            dropped = self.timetable.clear() + [handle for worker_pool in self.pools for handle in worker_pool._waiting]
            for handle in dropped:
                handle._job = None
            for worker_pool in self.pools:
                worker_pool._waiting.clear()
                worker_pool._more.notify_all()
            self._sooner.notify_all()
            threads = self.all_threads() - {threading.current_thread()}
        return _join(threads, timeout_s)

    # What follows is called with the lock held, but for the body of the thread.

    def all_threads(self) -> set[threading.Thread]:
        workers = {worker for worker_pool in self.pools for worker in worker_pool._workers}
        return workers if self._thread is None else workers | {self._thread}

    def _running(self) -> bool:
        if self._thread is None:
            self._thread = self._start_thread(self._run_timer, "timer")
            self.stalled = self._thread is None
            self.wakes_at_s = math.inf
        return self._thread is not None

    def _start_thread(self, body: Callable[[], None], name: str) -> threading.Thread | None:
        thread = threading.Thread(target=body, name=f"cycles-scheduler-{self._name}-{name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter shuts down, or the process is at its limit of threads
            self.short_of_threads = True
            _log.warning("cycles: no thread can be started (%s); heartbeats and retries are late, trying again", error)
            return None
        self.short_of_threads = False
        return thread

    def _run_timer(self) -> None:
        with self._lock:
            # The thread ends after a time without jobs, and the next job starts another one.
            ends_at_s = math.inf
            while not self._closed:
                now_s = self.now_s()
                next_s = self._offer_due(now_s)
                if next_s < math.inf:
                    ends_at_s = math.inf
                elif ends_at_s == math.inf:
                    ends_at_s = now_s + IDLE_S
                elif now_s >= ends_at_s:
                    break
                self.wakes_at_s = min(next_s, ends_at_s)
                self._sooner.wait(min(self.wakes_at_s - now_s, LONGEST_WAIT_S))
            self._thread = None

    def _offer_due(self, now_s: float) -> float:
        """Pass due jobs to their worker pools. Returns when to look again."""
        while (handle := self.timetable.pop_due(now_s)) is not None:
            handle._in_table = False
            handle._pool._offer(handle)
        return min([self.timetable.next_s(), *(worker_pool._grow(now_s) for worker_pool in self.pools)])


def _run(job: Job) -> None:
    try:
        job()
    except BaseException:  # its worker runs the next job in any case
        _log.exception("a background job failed because of a bug in cycles; report this traceback")


def _join(threads: set[threading.Thread], timeout_s: float | None) -> bool:
    """Wait for the threads, in real time."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    for thread in threads:
        thread.join(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
