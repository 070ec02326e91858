"""The thread that does the file work of event loops: in order, in batches, with few wake-ups.

A task waits until its record is saved or finished. What other tasks need in the meantime is done in one batch. The
tasks of a loop reach the thread through a `LoopWriter` (`loop_writer.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import SettlementOutcome

IDLE_S: Final = 15.0  # then the thread ends; the next job starts another
STUCK_S: Final = 4.0  # so long on one record: the file system hangs, and its tasks continue without their records


class Job:
    """Something to do with one argument, and the future of the task that waits for it."""

    __slots__ = ("argument", "done", "error", "result", "work")

    def __init__(self, work: Callable[[Any], Any], argument: Any, done: asyncio.Future[Any]) -> None:
        self.work: Callable[[Any], Any] = work
        self.argument: Any = argument
        self.done: asyncio.Future[Any] = done
        self.result: Any = None
        self.error: Exception | None = None

    def do(self) -> None:
        """Do it, on the journal's thread."""
        try:
            self.result = self.work(self.argument)
        except Exception as error:  # a bug: it is raised in the task that waits, and the thread continues
            self.error = error


class _Worker:
    """One thread, and what it does."""

    __slots__ = ("batch", "replaced", "since_s", "sleeps", "thread", "wake_up")

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.batch: list[Job] = []  # begun or done; the tasks that wait do not know yet
        self.since_s: float | None = None  # when it began with the record that it saves or finishes
        self.replaced = False  # the file system hung, and another thread does the rest
        self.sleeps = False
        self.wake_up: queue.SimpleQueue[None] = queue.SimpleQueue()


class JournalWriter:
    """Puts and finishes records for any number of event loops.

    Args:
        put: Saves one record; blocks.
        finish: Ends one; blocks.
        put_many: Saves several in one round trip of a shared store; None if each is saved separately.
    """

    def __init__(
        self,
        put: Callable[[Record], PutResult],
        finish: Callable[[Record, SettlementOutcome | None], None],
        put_many: Callable[[list[Record]], list[PutResult]] | None = None,
    ) -> None:
        self.put: Final = put
        self.finish: Final = finish
        self.is_busy: bool = False  # several tasks wait at the same time
        self._put_many = put_many
        self._jobs: deque[Job] = deque()
        self._worker: _Worker | None = None
        self._lock = threading.RLock()  # a signal handler may close the client in the middle of `wake`

    def close(self, timeout_s: float | None = None) -> None:
        """Do the remaining jobs and end the thread, waiting at most `timeout_s` for a file system that hangs."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None and worker.thread is not None:
            worker.wake_up.put(None)
            worker.thread.join(timeout_s)
            if worker.thread.is_alive():
                return
        self._process(_Worker())

    def add(self, job: Job) -> None:
        """Queue a job. Call `wake` afterwards."""
        self._jobs.append(job)

    def wake(self) -> None:
        """Let the thread look for jobs; start it if it does not run."""
        worker = self._worker
        if worker is None:
            self._start()
        elif worker.sleeps:
            worker.sleeps = False
            worker.wake_up.put(None)

    def replace_if_stuck(self) -> bool:
        """If the thread makes no progress, let its tasks continue and another thread do the rest. Return whether."""
        worker = self._worker
        since_s = None if worker is None else worker.since_s
        if worker is None or since_s is None or time.monotonic() - since_s < STUCK_S:
            return False  # the disk is slow, or there are many records
        # Before the lock: the thread sees it after its file call, and takes no further job.
        worker.replaced = True
        with self._lock:
            if self._worker is worker:
                self._worker = None
        self.wake()
        _notify(list(worker.batch))
        return True

    def _start(self) -> None:
        with self._lock:
            if self._worker is not None:  # another loop was faster
                self._worker.wake_up.put(None)
                return
            worker = self._worker = _Worker()
            worker.thread = threading.Thread(target=self._work, args=[worker], name="cycles-journal", daemon=True)
            try:
                worker.thread.start()
                return
            except RuntimeError:  # the interpreter is ending and starts no thread: do the jobs here
                self._worker = None
        self._process(_Worker())

    def _work(self, worker: _Worker) -> None:
        idle = False
        while True:
            self._process(worker)
            if self._may_end(worker, idle=idle):
                return
            idle = self._sleep(worker)

    def _sleep(self, worker: _Worker) -> bool:
        """Wait for something to do; return True if nothing came."""
        worker.sleeps = True
        try:
            if not self._jobs:  # looked at after it is said that this thread sleeps, so that no job is overlooked
                worker.wake_up.get(timeout=IDLE_S)
        except queue.Empty:
            return True
        finally:
            worker.sleeps = False
        return False

    def _may_end(self, worker: _Worker, *, idle: bool) -> bool:
        """Return whether the thread is not needed any more; the next job starts another."""
        if self._worker is worker and not idle:
            return False
        with self._lock:
            if self._worker is worker:
                self._worker = None
                if self._jobs:  # looked at afterwards, as above
                    self._worker = worker
            return worker.replaced or (self._worker is not worker and not self._jobs)

    def _process(self, worker: _Worker) -> None:
        """Do all jobs, then notify each loop once."""
        batch = worker.batch
        while not worker.replaced:
            try:
                job = self._jobs.popleft()
            except IndexError:
                break
            batch.append(job)
            if job.work is self.put and self._put_many is not None:
                batch += self._do_puts(job, self._put_many)
            else:
                worker.since_s = None if job.argument is None else time.monotonic()
                job.do()
                worker.since_s = None
        if batch:
            worker.batch = []
            self.is_busy = len(batch) > 1
            _notify(batch)

    def _do_puts(self, first: Job, put_many: Callable[[list[Record]], list[PutResult]]) -> list[Job]:
        """Save what consecutive jobs want to save, together; return those after the first."""
        jobs = [first]
        with contextlib.suppress(IndexError):
            while (job := self._jobs.popleft()).work is self.put:
                jobs.append(job)
            self._jobs.appendleft(job)
        try:
            for job, result in zip(jobs, put_many([job.argument for job in jobs]), strict=True):
                job.result = result
        except Exception as error:  # as in `Job.do`
            for job in jobs:
                job.error = error
        return jobs[1:]


def _notify(batch: list[Job]) -> None:
    """Give each task that waits its result, on its loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in batch:
        loops.setdefault(job.done.get_loop(), []).append(job)
    for loop, jobs in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed, and no task waits
            loop.call_soon_threadsafe(_settle_all, jobs)


def _settle_all(jobs: list[Job]) -> None:
    for job in jobs:
        if job.done.done():
            continue
        if job.error is None:
            job.done.set_result(job.result)
        else:
            job.done.set_exception(job.error)
