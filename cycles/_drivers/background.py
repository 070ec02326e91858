"""Retry what is pending on the scheduler's threads, for sync and async code.

The flows decide the order of steps and `_core.retry_schedule` the times; this module has the lock and the counts.
`flush` also works in the thread that calls it, so that it makes progress when no thread can be started.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from cycles._config import Config
from cycles._core.records import Record, file_name
from cycles._core.requests import Call
from cycles._core.retry_schedule import Item, RetrySchedule
from cycles._core.settlement import FlushReport, PendingSettlement, actual_of
from cycles._drivers.blocking import BlockingIo
from cycles._drivers.claims import ClaimTimer
from cycles._drivers.commit_queue import CommitQueues, CommitThreads, Queued
from cycles._drivers.ends import GuardEnds
from cycles._drivers.pending_work import CreateCleanupTask, Done, Later, PendingTask, ReleaseTask, SettlementTask, Step
from cycles._drivers.reporting import Reporter, logger
from cycles._drivers.scheduler import Scheduler
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.io import run
from cycles._flows.settle import settle_queued
from cycles._journal.client_records import Records
from cycles._journal.journal import Entry

LOOK_AGAIN_S: Final = 0.02  # how often a flush looks whether the callers that settle have finished
WORKERS: Final = 4  # maximum concurrent retries: drains a backlog quickly without overloading the server
CREATE_CLEANUPS: Final = 1_024  # maximum waiting cleanups of creates; the oldest is dropped
BUGGY_ATTEMPTS: Final = 5  # after so many attempts a task that raises is dropped; its record stays in the journal


class Background:
    """The pending work of one client.

    Args:
        scheduler: Runs the retries when they are due.
        records: Loads what an earlier process left.
        reporter: Gets the events.
        config: The delays of retries.
    """

    def __init__(self, scheduler: Scheduler, records: Records, reporter: Reporter, config: Config) -> None:
        self._scheduler = scheduler
        self._pool = scheduler.worker_pool("background", WORKERS)
        self._records = records
        self._reporter = reporter
        self._config = config
        self._backlog: RetrySchedule[PendingTask] = RetrySchedule(
            config.retry_initial_delay, config.retry_max_delay, random.random
        )
        self._changed = threading.Condition()
        self._wake_at: float | None = None
        self._workers = 0
        self._scanned = threading.Event()
        self.commits: CommitQueues = CommitQueues(config.background_commits)
        self._commit_threads = CommitThreads(self.commits, self._settle_queued, self._notify, self._run_later)
        self._settled = 0
        self.pools_settle: Callable[[], bool] = lambda: False
        self.ends: GuardEnds = GuardEnds()
        self._claims = ClaimTimer(scheduler, records, self._take_claimed)
        self._rejected: set[str] = set()  # keys that the server rejected during this flush
        self._closed = False

    def start(self, io: BlockingIo) -> None:
        """Run flows over `io` from now on; settle in the background what an earlier process left."""
        self._io = io
        if self._records.journaled:
            self._scheduler.soon(self._scan, self._pool)
        else:
            self._scanned.set()

    def add_settlement(
        self,
        record: Record,
        guard: GuardState | None,
        detail: str,
        *,
        immediately: bool = False,
        quiet: bool = False,
        is_saved: bool = True,
    ) -> None:
        """Settle a record whose outcome is unknown. Its lease is renewed while it can help: an event needs none."""
        record = self._records.latest(record)
        if guard is not None and guard.own_heartbeat is not None:
            if record.mode == "commit":
                self._io.adopt(guard.own_heartbeat)
            else:
                self._io.stop_heartbeat(guard.own_heartbeat)  # the lease is over; an event needs none
        wait_s = record.wait_ms(self._io.wall_ms()) / 1000
        floor = time.monotonic() + wait_s if wait_s > 0 else 0.0
        key = file_name(record.reservation_id)  # as a start finds it in the journal: one record, one key
        self._add(
            key,
            SettlementTask(record, None, guard, saved=is_saved and not immediately),
            immediately=immediately,
            floor=floor,
            detail=detail,
        )
        if self._closed and guard is not None:
            guard.stop_waiting()
        if not quiet:
            self._reporter.pending(record, detail, journaled=self._records.journaled)

    def queue_settlement(self, record: Record, guard: GuardState | None) -> bool:
        """Send a saved settlement in a thread of this client."""
        return self._commit_threads.add(record, guard)

    def take_over(self, queued: list[Queued]) -> None:
        """Settle what is queued on the schedule of pending work, which no worker of a queue sends any more."""
        for each in queued:
            self.add_settlement(each.record, each.guard, "queued", immediately=True, quiet=True)

    def add_release(self, release: Release, *, immediately: bool = False) -> None:
        """Try a release a few times more."""
        self._add(f"release:{release.key}", ReleaseTask(release), immediately=immediately)

    def add_create_cleanup(self, call: Call) -> None:
        """Find out what a create without a caller reserved, and release it."""
        key = call.body["idempotency_key"] if call.body is not None else ""
        with self._changed:
            waiting = [item for item in self._backlog if isinstance(item.value, CreateCleanupTask)]
            if len(waiting) >= CREATE_CLEANUPS:
                self._backlog.drop(waiting[0])
                logger.warning(
                    "create cleanup dropped: more than %d are waiting; its reservation ends with its lease",
                    CREATE_CLEANUPS,
                )
        self._add(f"create:{key}", CreateCleanupTask(call, time.monotonic()), immediately=True)

    def is_pending(self, reservation_id: str) -> bool:
        """Return whether the settlement of this reservation is unfinished here."""
        key = file_name(reservation_id)
        return self._backlog.get(key) is not None or self.commits.record(key) is not None

    def pending_record(self, reservation_id: str) -> Record | None:
        """Return the record of such a settlement, or None."""
        key = file_name(reservation_id)
        with self._changed:
            item = self._backlog.get(key)
        if item is None:
            return self.commits.record(key) or self._records.taken_by_another(reservation_id)
        task = item.value
        return task.read(self._records) if isinstance(task, SettlementTask) else None

    def unsettled(self) -> frozenset[str]:
        """Return the file names of the records whose settlement is unfinished here."""
        queued = [file_name(record.reservation_id) for record in self.commits.records()]
        with self._changed:
            return frozenset([*queued, *(item.key for item in self._backlog if item.value.is_settlement)])

    def unfinished(self) -> set[str]:
        """Return the ids of reservations whose release or settlement is pending."""
        found = set()
        for item in self._backlog:
            task = item.value
            if isinstance(task, ReleaseTask):
                found.add(task.release.reservation_id)
            elif isinstance(task, SettlementTask) and task.record is not None:
                found.add(task.record.reservation_id)
        return found | {record.reservation_id for record in self.commits.records()}

    def end_guard(self, end: Callable[[], object]) -> None:
        """Call `end` in a new thread, or in the next flush if none can be started.

        The garbage collector may call this, while this thread holds any lock.
        """
        self.ends.add(end)

    def pending(self, wait_s: float | None = None) -> list[PendingSettlement]:
        """Return the pending settlements, oldest first. Waits until the journal is read, `flush_timeout` at most."""
        self._scanned.wait(self._config.flush_timeout if wait_s is None else wait_s)
        now_ms = self._io.wall_ms()
        shown = {record.reservation_id: _shown(record, now_ms, None) for record in self.commits.records()}
        with self._changed:
            tasks = [(item.value, item.outcome) for item in self._backlog]
        for task, outcome in tasks:
            record = task.read(self._records) if isinstance(task, SettlementTask) else None
            if record is not None:
                shown[record.reservation_id] = _shown(record, now_ms, outcome)
        return sorted(shown.values(), key=lambda each: -each.age_ms)

    def in_other_threads(self, listed: list[PendingSettlement]) -> list[PendingSettlement]:
        """Return what callers, or threads of pools, are settling at this moment, without what is listed already."""
        now_ms, known = self._io.wall_ms(), {each.reservation_id for each in listed}
        found = [record for record in self._records.in_memory() if record.reservation_id not in known]
        return [_shown(record, now_ms, None) for record in found]

    def rejected(self) -> list[PendingSettlement]:
        """Return the settlements that the server rejected, oldest first; `last_outcome` is the reason."""
        now_ms = self._io.wall_ms()
        shown = [_shown(record, now_ms, reason) for record, reason in self._records.rejected()]
        return sorted(shown, key=lambda each: -each.age_ms)

    def server_responded(self) -> None:
        """Note that a request succeeded: the work that waits for the server is due now."""
        self._scheduler.resume()
        if not len(self._backlog):  # the common case costs no lock
            return
        with self._changed:
            something_is_due = self._backlog.server_responded(time.monotonic())
        if something_is_due:
            self._pump()

    def flush(self, timeout_s: float, *, await_callers: bool = False) -> FlushReport:
        """Retry everything with growing pauses, in this thread too, until `timeout_s` has passed.

        It ends early when nothing is left that may still change: what the server rejected is tried once.
        With `await_callers` it waits for the settlements that are in progress in other threads.
        """
        end = time.monotonic() + timeout_s
        io = self._io.until(end)
        settled, quarantined = self._settled + self.commits.settled, self._records.quarantined
        self.ends.run()
        self.take_over([*self.commits.take_all(), *self.commits.take_stopped()])
        self._scanned.wait(timeout_s)
        with self._changed:
            self._rejected.clear()
            self._backlog.expedite(time.monotonic())
        while (now := time.monotonic()) < end:
            if self._work(io):
                continue
            with self._changed:
                callers = self.ends.running or self.commits.is_sending() or self.pools_settle()
                callers = callers or (await_callers and self._callers_settle())
                if not callers and not self._worth_waiting(end):
                    break
                due = self._backlog.next_due()
                longest = LOOK_AGAIN_S if callers else end - now
                self._changed.wait(max(0.0, min(longest, end - now if due is None else due - now)))
        if self._records.shared is not None:
            self._records.shared.settle_finished()
        sending = {file_name(record.reservation_id) for record in self.commits.records()}
        with self._changed:
            left = len(sending | {item.key for item in self._backlog if item.value.is_settlement})
            done = self._settled + self.commits.settled - settled
            return FlushReport(done, left, self._records.quarantined - quarantined)

    def close(self) -> None:
        """Start nothing more, and end the waits for settlements that are left."""
        self._claims.stop()
        self._commit_threads.close()
        self.take_over(self.commits.take_all())
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            left = [item.value for item in self._backlog]
        for task in left:
            if isinstance(task, SettlementTask) and task.guard is not None:
                task.guard.stop_waiting()

    def _add(
        self, key: str, task: PendingTask, *, immediately: bool, floor: float = 0.0, detail: str | None = None
    ) -> None:
        due = time.monotonic() + (0.0 if immediately else self._config.retry_initial_delay)
        with self._changed:
            self._backlog.add(key, task, due, floor=floor)
            item = self._backlog.get(key)
            if item is not None and detail is not None:
                item.outcome = detail
        self._pump()

    def _settle_queued(self, queued: Queued) -> bool:
        try:
            return run(settle_queued(self._io, queued.record, queued.guard))
        except BaseException:  # a bug, or the interpreter ends: the background continues
            self.take_over([queued])
            raise

    def _run_later(self, delay_s: float, job: Callable[[], object]) -> None:
        self._scheduler.at(time.monotonic() + delay_s, job, self._pool)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _worth_waiting(self, end: float) -> bool:
        """Return whether anything may still change until `end`."""
        return any(item.busy or (item.floor < end and item.key not in self._rejected) for item in self._backlog)

    def _callers_settle(self) -> bool:
        """Return whether a caller's own attempt at a settlement is in progress."""
        return any(self._backlog.get(key) is None for key in self._records.in_progress())

    def _scan(self) -> None:
        try:
            entries = self._records.left_by_others(self._io.wall_ms())
            with self._changed:
                for entry in entries:
                    if self._backlog.get(entry) is None:
                        self._backlog.add(entry, SettlementTask(entry=entry), time.monotonic())
        finally:
            self._scanned.set()
        self._claims.start()
        self._pump()

    def _take_claimed(self, entries: list[Entry]) -> None:
        """Settle records that this client has claimed."""
        with self._changed:
            for entry in entries:
                if self._backlog.get(entry) is None:
                    self._backlog.add(entry, SettlementTask(entry=entry), time.monotonic())
            self._claims.waiting = len(self._backlog)
        if entries:
            self._pump()

    def _pump(self) -> None:
        """Ensure that a worker tries what is due, and that a timer runs for what is due next."""
        now = time.monotonic()
        with self._changed:
            self._changed.notify_all()
            due = None if self._closed else self._backlog.next_due()
            if due is None:
                return
            if due <= now:
                if self._workers >= WORKERS:
                    return
                self._workers += 1
            elif self._wake_at is not None and now < self._wake_at <= due:
                return
            else:
                self._wake_at = due
        job = self._work_on if due <= now else self._pump
        self._scheduler.at(due, job, self._pool)

    def _work_on(self) -> None:
        """Try tasks while one is due; start another worker for what is due beside it."""
        try:
            while self._work(self._io, call_help=True):
                pass
        finally:
            with self._changed:
                self._workers -= 1
        self._pump()

    def _work(self, io: BlockingIo, *, call_help: bool = False) -> bool:
        """Try one task in this thread; False if none may be tried now."""
        with self._changed:
            item = None if self._closed else self._backlog.take(time.monotonic())
        if item is None:
            return False
        if call_help:
            self._pump()
        try:
            step = item.value.attempt(self._records, io)
        except Exception as error:  # a bug: it must not reach another task, nor the caller of flush
            step = self._after_bug(item, error)
        except BaseException:  # an interrupt in the thread that flushes: it stays pending
            self._put_back(item, Later(item.value, "interrupted", outage=False))
            raise
        self._put_back(item, step)
        return True

    def _after_bug(self, item: Item[PendingTask], error: Exception) -> Step:
        """Log an exception of a task; try it again, but not for ever."""
        logger.error("pending task %s failed: %s: %s", item.key, type(error).__name__, error, exc_info=error)
        if item.attempts + 1 >= BUGGY_ATTEMPTS:
            return None
        return Later(item.value, f"{type(error).__name__}: {error!s:.200}", outage=False)

    def _put_back(self, item: Item[PendingTask], step: Done | Later | None) -> None:
        now = time.monotonic()
        with self._changed:
            if isinstance(step, Later):
                item.value = step.task
                if step.rejected:
                    self._rejected.add(item.key)
                self._backlog.failed(
                    item, now, step.detail, outage=step.outage, floor=step.floor_s, longest=step.longest_s
                )
            elif step is None:
                self._backlog.drop(item)
            else:
                self._settled += step.settled
                self._backlog.settled(item, now)
            self._claims.note_waiting(len(self._backlog))
            self._changed.notify_all()


def _shown(record: Record, now_ms: int, outcome: str | None) -> PendingSettlement:
    age_ms = max(0, now_ms - record.recorded_at_ms)
    return PendingSettlement(record.reservation_id, record.mode, actual_of(record), age_ms, outcome)
