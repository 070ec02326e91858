"""The background of a client: retry what is pending on the scheduler's threads, for sync and async code.

The flows decide the order of steps and `_core.retry_schedule` the times; this module has the lock and the counts.
`flush` also works in the thread that calls it, so that it makes progress when no thread can be started.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Final

from cycles._core.records import Record, file_name
from cycles._core.requests import Call
from cycles._core.retry_schedule import Item, RetrySchedule
from cycles._core.settlement import FlushReport, PendingSettlement, actual_of
from cycles._drivers.blocking import BlockingIo, DeadlineIo
from cycles._drivers.pending_work import CreateCleanupTask, Done, Later, PendingTask, ReleaseTask, SettlementTask
from cycles._flows.guard_state import GuardState, Release

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime

WORKERS: Final = 4  # things tried at once: enough to drain a backlog, few enough to be a guest on the server


class Background:
    """Everything one client still owes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        config = runtime.config
        self._backlog: RetrySchedule[PendingTask] = RetrySchedule(
            config.retry_initial_delay, config.retry_max_delay, random.random
        )
        self._changed = threading.Condition()
        self._wake_at: float | None = None
        self._workers = 0
        self._scanned = threading.Event()
        self._settled = 0
        self._closed = False
        self.quarantined = 0

    def start(self) -> None:
        """Replay what an earlier process left behind; nobody waits for it."""
        if self._runtime.journal is None:
            self._scanned.set()
        else:
            self._runtime.scheduler.soon(self._scan, self._runtime.background)

    def add_settlement(
        self, record: Record, guard: GuardState | None, detail: str, *, immediately: bool = False
    ) -> None:
        """A settlement is not proven yet. Its lease is kept alive while it can help: an event needs none."""
        if guard is not None and guard.heartbeat is not None:
            if record.mode == "commit":
                self._runtime.adopt(guard.heartbeat)
            else:
                self._runtime.blocking.stop_heartbeat(guard.heartbeat)  # the lease is over; an event needs none
        wait_s = record.wait_ms(self._runtime.wall_ms()) / 1000
        floor = time.monotonic() + wait_s if wait_s > 0 else 0.0
        key = file_name(record.reservation_id)  # as a start finds it in the journal: one debt, one key
        self._add(
            key,
            SettlementTask(record, None, guard, saved=not immediately),
            immediately=immediately,
            floor=floor,
            detail=detail,
        )
        self._report_pending(record, detail)

    def add_release(self, release: Release, *, immediately: bool = False) -> None:
        """A release did not get through: try it a few times more."""
        self._add(f"release:{release.key}", ReleaseTask(release), immediately=immediately)

    def clean_up(self, call: Call) -> None:
        """Find out what a create that nobody waits for reserved, and release it."""
        key = call.body["idempotency_key"] if call.body is not None else ""
        self._add(f"create:{key}", CreateCleanupTask(call), immediately=True)

    def pending(self) -> list[PendingSettlement]:
        """The settlements still owed, oldest first."""
        self._scanned.wait(self._runtime.config.flush_timeout)
        with self._changed:
            owed = [(item.value, item.outcome) for item in self._backlog]
        now_ms, shown = self._runtime.wall_ms(), []
        for debt, outcome in owed:
            record = debt.read(self._runtime) if isinstance(debt, SettlementTask) else None
            if record is not None:
                age_ms = max(0, now_ms - record.recorded_at_ms)
                shown.append(PendingSettlement(record.reservation_id, record.mode, actual_of(record), age_ms, outcome))
        return sorted(shown, key=lambda each: -each.age_ms)

    def server_responded(self) -> None:
        """Some request got through to the server: what waits for it need not wait any longer."""
        if not len(self._backlog):  # the common case costs no lock
            return
        with self._changed:
            something_is_due = self._backlog.server_responded(time.monotonic())
        if something_is_due:
            self._pump()

    def flush(self, timeout_s: float, *, until_deadline: bool = True) -> FlushReport:
        """Try everything now, in this thread too, until nothing is owed or `timeout_s` has passed.

        Without `until_deadline` it also ends once each thing has been tried in vain: what leaving a client wants.
        """
        end = time.monotonic() + timeout_s
        io = DeadlineIo(self._runtime, end)
        settled, quarantined = self._settled, self.quarantined
        self._scanned.wait(timeout_s)
        with self._changed:
            tries = None if until_deadline else {item.key: item.attempts + item.busy for item in self._backlog}
            self._backlog.expedite(time.monotonic())
        while (now := time.monotonic()) < end:
            if self._work(io):
                continue
            with self._changed:
                if not self._worth_waiting(end, tries):
                    break
                due = self._backlog.next_due(now)
                self._changed.wait(max(0.0, min(end, end if due is None else due) - now))
        with self._changed:
            left = sum(item.value.is_settlement for item in self._backlog)
            return FlushReport(self._settled - settled, left, self.quarantined - quarantined)

    def close(self) -> None:
        """Start nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _add(
        self, key: str, debt: PendingTask, *, immediately: bool, floor: float = 0.0, detail: str | None = None
    ) -> None:
        due = time.monotonic() + (0.0 if immediately else self._runtime.config.retry_initial_delay)
        with self._changed:
            self._backlog.add(key, debt, due, floor=floor)
            item = self._backlog.get(key)
            if item is not None and detail is not None:
                item.outcome = detail
        self._pump()

    def _worth_waiting(self, end: float, tries: dict[str, int] | None) -> bool:
        return any(
            item.busy or (item.floor < end and (tries is None or item.attempts <= tries.get(item.key, 0)))
            for item in self._backlog
        )

    def _scan(self) -> None:
        journal = self._runtime.journal
        assert journal is not None
        try:
            entries = journal.pending()
            # What a guard of this process settles right now is in the journal too, and none of our business.
            others = set(entries) - self._runtime.files_in_hand()
            with self._changed:
                for entry in others:
                    if self._backlog.get(entry) is None:
                        self._backlog.add(entry, SettlementTask(entry=entry), time.monotonic())
        finally:
            self._scanned.set()
        self._pump()

    def _pump(self) -> None:
        """See to it that somebody works on what is due, and that somebody wakes for what is due next."""
        now = time.monotonic()
        with self._changed:
            self._changed.notify_all()
            due = None if self._closed else self._backlog.next_due(now)
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
        self._runtime.scheduler.at(due, job, self._runtime.background)

    def _work_on(self) -> None:
        """A keeper's worker: goes on while something is due, and calls a colleague for what is due beside it."""
        try:
            while self._work(self._runtime.blocking, call_help=True):
                pass
        finally:
            with self._changed:
                self._workers -= 1
        self._pump()

    def _work(self, io: BlockingIo, *, call_help: bool = False) -> bool:
        """Try one thing in this thread; False where nothing may be tried now."""
        with self._changed:
            item = None if self._closed else self._backlog.take(time.monotonic())
        if item is None:
            return False
        if call_help:
            self._pump()
        try:
            step = item.value.attempt(self._runtime, io)
        except BaseException:  # a bug, or an interrupt in the thread that flushes: it stays owed
            self._put_back(item, Later(item.value, "interrupted", outage=False))
            raise
        self._put_back(item, step)
        return True

    def _put_back(self, item: Item[PendingTask], step: Done | Later | None) -> None:
        now = time.monotonic()
        with self._changed:
            if isinstance(step, Later):
                item.value = step.debt
                self._backlog.failed(item, now, step.detail, outage=step.outage, floor=step.floor_s)
            elif step is None:
                self._backlog.drop(item)
            else:
                self._settled += step.settled
                self._backlog.settled(item, now)
            self._changed.notify_all()

    def _report_pending(self, record: Record, detail: str) -> None:
        reporter = self._runtime.reporter
        if reporter.is_enabled_for(logging.WARNING):
            from cycles.events import SettlementPending

            event = SettlementPending(
                reservation_id=record.reservation_id,
                actual=actual_of(record),
                detail=detail,
                journaled=self._runtime.journal is not None,
            )
            reporter.report(event)
