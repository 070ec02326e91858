"""The background of a client: settlements and releases that are still owed, worked off by the keeper's threads.

One worker for both worlds. It owns no order of things (the flows do) and no schedule (`_core.backlog` does); it only
has the lock, the keeper and the counts. `flush` works in the thread that calls it as well, so that it also gets
through where no thread can be started any more.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import frozen

from cycles._core.backlog import Backlog, Item
from cycles._core.outcome import Success
from cycles._core.records import Record
from cycles._core.requests import Call
from cycles._core.settlement import FlushReport, Owed, PendingSettlement, Rejected, Settled, actual_of
from cycles._edges.journal import Entry
from cycles._flows.asking import uncertain, why
from cycles._flows.leases import clean_up_create
from cycles._flows.settling import attempt, conclude, is_final, release_call_of, report_release_failed, report_released
from cycles._hold import Hold, Release
from cycles._io import run

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime

WORKERS: Final = 4  # settlements tried at once: enough to drain a backlog, few enough to be a guest on the server
RELEASE_TRIES: Final = 4  # then the end of the lease must give the budget back
RELEASE_PAUSE_S: Final = 0.5


@frozen
class _Debt:
    """What is owed: a record in hand, or the name of one in the journal that has not been read yet."""

    record: Record | None = None
    entry: Entry | None = None
    hold: Hold | None = None


class Recovery:
    """Everything one client still owes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        config = runtime.config
        self._backlog: Backlog[_Debt] = Backlog(config.retry_initial_delay, config.retry_max_delay, random.random)
        self._changed = threading.Condition()
        self._wake_at: float | None = None
        self._scanned = threading.Event()
        self._settled = 0
        self._closed = False
        self.quarantined = 0

    def start(self) -> None:
        """Replay what an earlier process left behind; nobody waits for it."""
        if self._runtime.journal is None:
            self._scanned.set()
        else:
            self._runtime.keeper.soon(self._scan, self._runtime.background)

    def owe(self, record: Record, hold: Hold | None, why: str) -> None:
        """A settlement is not proven yet. Its lease is kept alive until it is, or is lost."""
        if hold is not None and hold.heartbeat is not None:
            self._runtime.adopt(hold.heartbeat)
        now, wait_s = time.monotonic(), record.wait_ms(self._runtime.wall_ms()) / 1000
        delay = 0.0 if wait_s else self._runtime.config.retry_initial_delay
        with self._changed:
            self._backlog.add(record.reservation_id, _Debt(record, None, hold), now + delay, floor=now + wait_s)
            item = self._backlog.get(record.reservation_id)
            if item is not None:
                item.outcome = why
        self._report_pending(record, why)
        self._pump()

    def owe_release(self, release: Release, *, at_once: bool = False) -> None:
        """A release did not get through: try it a few times more."""
        self._later(0.0 if at_once else RELEASE_PAUSE_S, partial(self._release, release, 1))

    def clean_up(self, call: Call) -> None:
        """Find out what a create that nobody waits for reserved, and release it."""
        self._later(0.0, partial(self._run_clean_up, call))

    def pending(self) -> list[PendingSettlement]:
        """The settlements still owed, oldest first."""
        self._scanned.wait(self._runtime.config.flush_timeout)
        with self._changed:
            debts = [(item.value, item.outcome) for item in self._backlog]
        records = [(self._record_of(debt), outcome) for debt, outcome in debts]
        now_ms = self._runtime.wall_ms()
        shown = [
            PendingSettlement(
                record.reservation_id,
                record.mode,
                actual_of(record),
                max(0, now_ms - record.recorded_at_ms),
                outcome,
            )
            for record, outcome in records
            if record is not None
        ]
        return sorted(shown, key=lambda each: -each.age_ms)

    def flush(self, timeout_s: float, *, patient: bool = True) -> FlushReport:
        """Try everything now, in this thread too, until nothing is owed or `timeout_s` has passed.

        Without `patient` it also ends once each settlement has been tried in vain: what leaving a client wants.
        """
        end = time.monotonic() + timeout_s
        settled, quarantined = self._settled, self.quarantined
        self._scanned.wait(timeout_s)
        with self._changed:
            tries = {item.key: item.attempts for item in self._backlog}
            self._backlog.hurry(time.monotonic())
        while (now := time.monotonic()) < end and self._worth_waiting(end, None if patient else tries):
            if self._work():
                continue
            with self._changed:
                due = self._backlog.next_due(now)
                if len(self._backlog):
                    self._changed.wait(max(0.0, min(end, end if due is None else due) - now))
        with self._changed:
            return FlushReport(self._settled - settled, len(self._backlog), self.quarantined - quarantined)

    def close(self) -> None:
        """Start nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _worth_waiting(self, end: float, tries: dict[str, int] | None) -> bool:
        with self._changed:
            items = list(self._backlog)
        return any(
            item.busy or (item.floor < end and (tries is None or item.attempts <= tries.get(item.key, 0)))
            for item in items
        )

    def _scan(self) -> None:
        journal = self._runtime.journal
        assert journal is not None
        try:
            entries = journal.pending()
            with self._changed:
                for entry in entries:
                    self._backlog.add(entry, _Debt(entry=entry), time.monotonic())
        finally:
            self._scanned.set()
        self._pump()

    def _later(self, delay_s: float, job: partial[None]) -> None:
        self._runtime.keeper.at(time.monotonic() + delay_s, job, self._runtime.background)

    def _pump(self) -> None:
        """Start a worker for each item that may be tried now, and see to being called again for the rest."""
        now = time.monotonic()
        with self._changed:
            due = None if self._closed else self._backlog.next_due(now)
            self._changed.notify_all()
            if due is None or (self._wake_at is not None and self._wake_at <= due and self._wake_at > now):
                return
            self._wake_at = due
        if due <= now:
            self._runtime.keeper.soon(self._work_on, self._runtime.background)
        else:
            self._runtime.keeper.at(due, self._work_on, self._runtime.background)

    def _work_on(self) -> None:
        with self._changed:
            self._wake_at = None
        if self._work():
            self._pump()
            self._runtime.keeper.soon(self._work_on, self._runtime.background)
        else:
            self._pump()

    def _work(self) -> bool:
        """Try one item in this thread; False where none may be tried now."""
        with self._changed:
            item = None if self._closed else self._backlog.take(time.monotonic())
        if item is None:
            return False
        try:
            self._try(item)
        finally:
            with self._changed:
                if item.busy and self._backlog.get(item.key) is item:  # a bug, or an interrupt: it stays owed
                    self._backlog.failed(item, time.monotonic(), "interrupted", outage=False)
                self._changed.notify_all()
        return True

    def _try(self, item: Item[_Debt]) -> None:
        debt = item.value
        record = self._record_of(debt)
        if record is None or (debt.entry is not None and self._runtime.in_hand(record.reservation_id)):
            with self._changed:  # gone, set aside, or a guard of this process is at it right now
                self._backlog.drop(item)
            return
        wait_s = record.wait_ms(self._runtime.wall_ms()) / 1000
        now = time.monotonic()
        if wait_s > 0 and debt.entry is not None and item.floor <= now:
            with self._changed:
                self._backlog.failed(item, now, "waiting as the server asked", outage=False, floor=now + wait_s)
            return
        io = self._runtime.blocking
        record, judged = run(attempt(io, record, debt.hold.trace_id if debt.hold is not None else None))
        now = time.monotonic()
        if isinstance(judged, Owed):
            floor = now + record.wait_ms(self._runtime.wall_ms()) / 1000 if judged.retry_after_ms is not None else 0.0
            with self._changed:
                item.value = _Debt(record, debt.entry, debt.hold)
                self._backlog.failed(
                    item, now, why(judged.outcome), outage=uncertain(judged.outcome) or _is_auth(judged), floor=floor
                )
            return
        with self._changed:
            self._settled += isinstance(judged, Settled)
            self._backlog.settled(item, now)
        if isinstance(judged, Settled | Rejected):
            conclude(io, record, judged, debt.hold, recovered=True)

    def _record_of(self, debt: _Debt) -> Record | None:
        if debt.record is not None:
            return debt.record
        journal = self._runtime.journal
        return journal.load(debt.entry) if journal is not None and debt.entry is not None else None

    def _release(self, release: Release, tried: int) -> None:
        io = self._runtime.blocking
        outcome = run(io.send(release_call_of(release)))
        if isinstance(outcome, Success):
            report_released(io, release)
        elif is_final(outcome) or tried >= RELEASE_TRIES:
            report_release_failed(io, release, why(outcome), retrying=False)
        else:
            self._later(RELEASE_PAUSE_S * 2**tried, partial(self._release, release, tried + 1))

    def _run_clean_up(self, call: Call) -> None:
        run(clean_up_create(self._runtime.blocking, call))

    def _report_pending(self, record: Record, why: str) -> None:
        reporter = self._runtime.reporter
        if reporter.listens(logging.WARNING):
            from cycles._events import SettlementPending

            reporter.report(
                SettlementPending(
                    reservation_id=record.reservation_id,
                    actual=actual_of(record),
                    why=why,
                    journaled=self._runtime.journal is not None,
                )
            )


def _is_auth(owed: Owed) -> bool:
    """401 and 403 concern the key, hence every record alike."""
    return getattr(owed.outcome, "status", None) in (401, 403)
