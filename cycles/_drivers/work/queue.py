"""The one queue of everything that continues without its caller: settlements, releases, the cleanup of creates.

Theory of operation. `RetrySchedule` has the items and decides their times; `_lock` guards it, and this module has the
workers. An item is waiting, or busy: one worker tries it, outside of the lock. Only the worker that took an item ends
it, by `_put_back`: removed, or due again after a pause.

*Now.* An item that is handed over with ``now=True`` is due immediately: a settlement whose caller does not wait, or
what an interrupted caller has begun. Of the first kind at most `QUEUED` wait, because a server that is slower than the
program would fill the memory; the caller of one more sends it itself. What an interrupted caller leaves is always
taken: that caller cannot do it any more.

*Gate and floor.* While the server fails, all items wait for one attempt at a time (the gate). An item that got a 429
has a floor, before which nothing tries it, not even a flush. A success of any call opens the gate
(`server_responded`).

*Two kinds of workers.* Up to `WORKERS` threads, and on each event loop up to as many tasks (`loop_workers.py`) for what
code on that loop has handed over. A thread has to be woken, which costs a lone task up to a quarter more CPU; a task
cannot outlive its loop. So an item belongs to a loop or to the threads, and these take over the items of a loop that
has stopped or whose tasks have ended. The item is replaced then: the task that had it may continue if its loop does,
and its result counts no longer. Both attempts have the same key, so the amount is charged once. A second worker starts
only when what is due has waited for `SLOW_S`: one is enough for a server that responds quickly, and each further one
costs wake-ups.

*Flush without threads.* `flush` works in its own thread too, and begins with what loops have queued. If no thread can
be started, `hand_over` says so to the callers that can do the work themselves; all other work waits here for the next
success, the next flush, or the close.

Interleavings that were considered. A worker that finds nothing counts itself out under the lock and then looks again,
so an item that arrives in between is not left. A result may arrive after a flush has taken the item over, or after
`close`: it is dropped, and the record stays in the journal. The same work may be handed over twice, by a flow and by
the worker that runs this flow: it has one key, and one item.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from attrs import evolve

from cycles._config import Config
from cycles._core.settlement.record import Record, file_name
from cycles._core.settlement.schedule import Item, RetrySchedule
from cycles._core.settlement.settlement import FlushReport, PendingSettlement
from cycles._drivers.jitter import jitter
from cycles._drivers.live_guards import GuardEnds
from cycles._drivers.reporting import logger
from cycles._drivers.work.claims import ClaimTimer
from cycles._drivers.work.scheduler import WorkerPool
from cycles._drivers.work.work import Found, Later, Step, Work, attempt, is_settlement, key_of, record_of
from cycles._flows.guard_state import Release
from cycles._flows.heartbeat import adopt
from cycles._flows.io import BackgroundWork, CleanUp, Io, Settle, run
from cycles._flows.settle import put, report_pending
from cycles._http.running_loop import in_event_loop
from cycles._journal.journal import Entry
from cycles._journal.records import Records

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

QUEUED: Final = 1_024  # settlements without a waiting caller that have not been tried yet
WORKERS: Final = 4  # of each kind: enough for a backlog, few enough for the server
CREATE_CLEANUPS: Final = 1_024  # maximum waiting cleanups of creates; the oldest is dropped
BUGGY_ATTEMPTS: Final = 5  # after so many attempts work that raises is dropped; its record stays in the journal
SLOW_S: Final = 0.05  # when the oldest due item has waited this long, one more worker helps
BUSY_S: Final = 0.2  # how often to look for that while items are being done: a look wakes two threads
SCAN_S: Final = 1.0  # how long a reservation waits for the list of the journal, whose disk may be slow
LOOK_AGAIN_S: Final = 0.02  # how often a flush looks whether the callers that settle have finished


class WorkQueue:
    """The pending work of one client.

    Args:
        claims: The worker pool that may block on a shared store; its scheduler has the other threads.
        records: Loads what an earlier process left.
        config: The delays of retries.
        pools_settle: Returns whether a thread settles the chunk of a pool, for which a flush waits.
    """

    def __init__(self, claims: WorkerPool, records: Records, config: Config, pools_settle: Callable[[], bool]) -> None:
        self._scheduler = claims.scheduler
        self._pool = self._scheduler.worker_pool("background", WORKERS)
        self._records = records
        self._config = config
        self._schedule: RetrySchedule[Work] = RetrySchedule(config.retry_initial_delay, config.retry_max_delay, jitter)
        # Re-entrant: a signal handler may commit while its thread is in here.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.most_queued: int = QUEUED
        self._untried: set[str] = set()  # keys of the settlements for which no caller waits
        self._wake_at: float | None = None
        self._workers = 0
        self._is_watched = False  # a call of `_help` is scheduled
        self._done = self._done_before = 0  # how many attempts have ended, now and at the last look
        self._scan_begun = False
        self._is_scan_stalled = False  # no thread could be started for it
        self._recovered = threading.Event()  # what dead processes wrote ahead is known
        self._scanned = threading.Event()
        self._scan_finished = False  # all that an earlier process left is known
        self._sent: set[str] = set()  # found, of requests whose cost is unknown, and not tried yet
        self._may_reserve = False
        self._counts = (0, 0)  # how many were settled and quarantined until the end of the flush before
        self._settled = 0
        self._pools_settle = pools_settle
        self.ends: Final = GuardEnds()
        self._claims = ClaimTimer(claims, records, self._take_claimed)
        self._rejected: set[str] = set()  # keys that the server rejected during this flush
        self._is_closing = False
        self._closed = False

    def start(self, io: Io, until: Callable[[float], Io]) -> None:
        """Run flows over `io` from now on; settle in the background what an earlier process left.

        Args:
            io: The operations of threads.
            until: Returns them for a thread that has only until a time, in monotonic seconds.
        """
        self._io = io
        self._until = until
        if not self._records.journaled:
            self._scan_finished = True
            self._scanned.set()
        elif not self._scheduler.soon(self._scan, self._pool):
            self._is_scan_stalled = True
            self._scheduler.at(time.monotonic(), self._scan, self._pool)

    # Work that arrives

    def hand_over(self, work: BackgroundWork, *, now: bool, loop: AbstractEventLoop | None = None) -> bool:
        """Take some work. False: no caller waits for it, but it cannot be queued; see `Io.hand_over`."""
        key, may_decline = key_of(work), isinstance(work, Settle) and work.detail is None and work.is_saved
        with self._lock:
            if may_decline:
                if self._is_closing or len(self._untried) >= self.most_queued:
                    return False
                self._untried.add(key)
            item = self._add(key, work, now=now, loop=None if self._schedule.is_outage else loop)
            has_worker = now and self._workers > 0
        if item.loop is not None:
            return True
        if has_worker:  # it takes this item too, or looks again after it has counted itself out
            self._watch()
            return True
        if not may_decline:
            self._wake()
            return True
        if self._start():
            return True
        with self._lock:  # no thread can be started; a flush may have it already
            is_here = self._schedule.is_current(item) and not item.busy
            if is_here:
                self._schedule.drop(item)
                self._untried.discard(item.key)
        return not is_here

    def keep(self, work: BackgroundWork) -> None:
        """Take some work that is due now, also while the client closes."""
        with self._lock:
            self._add(key_of(work), work, now=True)
        self._wake()

    def _add(self, key: str, work: BackgroundWork, *, now: bool, loop: AbstractEventLoop | None = None) -> Item[Work]:
        due = time.monotonic() + (0.0 if now else self._config.retry_initial_delay)
        if isinstance(work, CleanUp):
            self._limit_cleanups()
        if not isinstance(work, Settle):
            return self._schedule.add(key, work, due, loop=loop)
        record = self._records.latest(work.record)
        if not work.is_saved and work.detail is None:  # its caller was interrupted
            record = record.interrupted()
        if record is not work.record:
            work = evolve(work, record=record)
        wait_s = 0.0 if record.not_before_ms is None else record.wait_ms(self._io.clock.wall_ms()) / 1000
        floor = time.monotonic() + wait_s if wait_s > 0 else 0.0
        item = self._schedule.add(key, work, due, floor=floor, loop=loop)
        if work.detail is not None:
            item.outcome = work.detail
            self._note_pending(work, work.detail)
        if self._closed:
            self._leave_behind(work)
        return item

    def _note_pending(self, work: Settle, detail: str) -> None:
        """Renew the lease of a pending commit while that can help, and report the amount."""
        heartbeat = None if work.guard is None else work.guard.own_heartbeat
        if heartbeat is not None:
            if work.record.mode == "commit":
                adopt(self._io, heartbeat)
            else:
                heartbeat.end()  # the lease is over; an event needs none
        report_pending(self._io, work.record, detail, journaled=self._records.journaled)

    def _limit_cleanups(self) -> None:
        waiting = [item for item in self._schedule if isinstance(item.value, CleanUp)]
        if len(waiting) >= CREATE_CLEANUPS:
            self._schedule.drop(waiting[0])
            logger.warning(
                "create cleanup dropped: more than %d are waiting; its reservation ends with its lease", CREATE_CLEANUPS
            )

    def _scan(self) -> None:
        """Add what earlier processes left in the journal, once."""
        with self._lock:
            if self._scan_begun:
                return
            self._scan_begun = True
        try:
            recovered = self._records.recover_spend()
            if self._records.shared is None:  # else they are put into the store first
                self._add_sent(recovered)
                self._recovered.set()
            found = self._records.left_by_others(self._io.clock.wall_ms())
            self._add_sent(self._records.left.sent(found))
            self._add_found(found)
            self._scan_finished = not self._records.unread
        finally:
            self._recovered.set()
            self._scanned.set()
        self._claims.start()
        self._wake()

    def _wait_for_scan(self, timeout_s: float) -> None:
        if self._is_scan_stalled:
            self._scan()
        self._scanned.wait(timeout_s)

    def _add_sent(self, entries: set[Entry]) -> None:
        with self._lock:
            self._sent |= {entry for entry in entries if self._schedule.items.get(entry) is None}
            self._add_found(list(entries))

    @property
    def may_reserve(self) -> bool:
        """Whether nothing of an earlier process has to be settled before something is reserved."""
        self._may_reserve = self._may_reserve or (self._scanned.is_set() and not self._sent)
        return self._may_reserve

    def settle_sent(self) -> None:
        """Settle requests of earlier processes whose cost is unknown, and return when each was tried once.

        Until they are charged, their money may seem to be left. It works on them in this thread too, for a bounded
        time: if the server does not respond, it makes no reservation either.
        """
        longest_s = max(self._config.flush_timeout, self._config.timeout)
        end = time.monotonic() + longest_s
        self._recovered.wait(0.0 if self._is_scan_stalled else longest_s)
        # For what a process has recovered that was killed before it settled.
        self._wait_for_scan(min(longest_s, SCAN_S))
        io = self._until(end)
        while self._sent and not self._closed and time.monotonic() < end:
            if self._schedule.is_outage:
                break
            if not self._work(io):
                with self._changed:
                    self._changed.wait_for(lambda: not self._sent, LOOK_AGAIN_S)
        self._may_reserve = True

    def _take_claimed(self, entries: list[Entry]) -> None:
        """Settle records that this client has claimed."""
        self._add_found(entries)
        if entries:
            self._wake()

    def _add_found(self, entries: list[Entry]) -> None:
        with self._lock:
            for entry in entries:
                if self._schedule.items.get(entry) is None:
                    self._schedule.add(entry, Found(entry), time.monotonic())
            self._claims.waiting = len(self._schedule.items)

    # What is pending

    def is_pending(self, reservation_id: str) -> bool:
        """Return whether the settlement of this reservation is unfinished here."""
        return self._schedule.items.get(file_name(reservation_id)) is not None

    def record(self, reservation_id: str) -> Record | None:
        """Return the record that another client has taken, or that of such a settlement, or None. It may block."""
        theirs = self._records.taken_by_another(reservation_id)
        with self._lock:
            item = self._schedule.items.get(file_name(reservation_id))
        return theirs if theirs is not None or item is None else record_of(item.value, self._records)

    def unsettled(self) -> frozenset[str]:
        """Return the file names of the records whose settlement is unfinished here."""
        with self._lock:
            return frozenset(item.key for item in self._schedule if is_settlement(item.value))

    def unfinished(self) -> set[str]:
        """Return the ids of reservations whose release or settlement is pending."""
        works = [item.value for item in self._schedule]
        settling = {work.record.reservation_id for work in works if isinstance(work, Settle)}
        return settling | {work.reservation_id for work in works if isinstance(work, Release)}

    def pending(self, wait_s: float | None = None) -> list[PendingSettlement]:
        """Return the pending settlements, oldest first. Waits until the journal is read, `flush_timeout` at most."""
        self._wait_for_scan(self._config.flush_timeout if wait_s is None else wait_s)
        with self._lock:
            works = [(item.value, item.outcome) for item in self._schedule]
        records = [(record_of(work, self._records), outcome) for work, outcome in works]
        return self._shown([(record, outcome) for record, outcome in records if record is not None])

    def in_other_threads(self, listed: list[PendingSettlement]) -> list[PendingSettlement]:
        """Return what callers, or threads of pools, are settling at this moment, without what is listed already."""
        known = {each.reservation_id for each in listed}
        return self._shown([(each, None) for each in self._records.in_memory() if each.reservation_id not in known])

    def rejected(self) -> list[PendingSettlement]:
        """Return the settlements that the server rejected, oldest first; `last_outcome` is the reason."""
        return self._shown(list(self._records.journal.rejected()))

    def _shown(self, records: list[tuple[Record, str | None]]) -> list[PendingSettlement]:
        now_ms = self._io.clock.wall_ms()
        shown = [
            PendingSettlement(
                each.reservation_id, each.mode, each.actual, max(0, now_ms - each.recorded_at_ms), outcome
            )
            for each, outcome in records
        ]
        return sorted(shown, key=lambda each: -each.age_ms)

    # Workers

    def take(self, loop: AbstractEventLoop | None = None) -> Item[Work] | None:
        """Return the item that a worker of this loop, or a thread, tries now; None if there is none."""
        with self._lock:
            return None if self._closed else self._schedule.take(time.monotonic(), loop)

    def is_worker_wanted(self, workers: int, loop: AbstractEventLoop | None = None) -> bool:
        """Return whether one more worker of this loop should do what is due."""
        with self._lock:
            due = None if self._closed else self._schedule.next_due(loop)
            if due is None or workers >= WORKERS:
                return False
            waited_s = time.monotonic() - due
            return waited_s >= 0 if workers == 0 else waited_s > SLOW_S

    def is_worker_possible(self, workers: int, loop: AbstractEventLoop | None = None) -> bool:
        """Return whether one more worker of this loop should do what is due, if that waits longer."""
        with self._lock:
            return workers < WORKERS and not self._closed and self._schedule.next_due(loop) is not None

    async def attempt(self, io: Io, item: Item[Work]) -> None:
        """Try an item that was taken, and put it back."""
        try:
            step = await attempt(io, self._records, item)
        except Exception as error:  # a bug: it must not reach other work, nor the caller of flush
            step = self._after_bug(item, error)
        except BaseException:  # an interrupt in the thread that flushes, or the end of an event loop: it stays pending
            if isinstance(item.value, Settle):
                item.value = evolve(item.value, record=item.value.record.interrupted())
            with self._lock:
                self._schedule.interrupted(item, time.monotonic())
            self._wake()
            raise
        self._put_back(item, step)

    def leave(self, loop: AbstractEventLoop, *, busy: bool = False) -> None:
        """Give what is queued for a loop to the threads; with `busy` also what its workers do not finish."""
        with self._lock:
            self._schedule.move(loop, busy=busy)
        self._wake()

    def _wake(self) -> None:
        """As `_start`. If no thread can be started, the next success, the next flush or the close continues."""
        if not self._start():
            self._scheduler.at(time.monotonic(), self._wake, self._pool)

    def _start(self) -> bool:
        """Ensure that a thread does what is due, and that a timer runs for what is due next. False: none can start."""
        now, is_first = time.monotonic(), False
        with self._lock:
            self._changed.notify_all()
            due = None if self._closed else self._schedule.next_due()
            if due is None:
                return True
            if due > now:
                if self._wake_at is not None and now < self._wake_at <= due:
                    return True
                self._wake_at = due
            elif not self._workers:
                self._workers, is_first = 1, True
        if due > now:
            self._scheduler.at(due, self._wake, self._pool)
        elif not is_first:
            self._watch()
        elif not self._scheduler.soon(self._work_on, self._pool):
            with self._lock:
                self._workers -= 1
            return False
        return True

    def _watch(self) -> None:
        """Look for the need of one more thread later: those that run may wait for one response."""
        if self._is_watched or self._workers >= WORKERS:
            return
        now = time.monotonic()
        with self._lock:
            due = None if self._closed else self._schedule.next_due()
            if self._is_watched or due is None or due > now:
                return
            self._is_watched = True
        self._scheduler.at(now + (SLOW_S if self._done == self._done_before else BUSY_S), self._help, self._pool)

    def _help(self) -> None:
        with self._lock:
            self._is_watched, self._done_before = False, self._done
            is_wanted = self.is_worker_wanted(self._workers)
            self._workers += is_wanted
        if is_wanted:
            self._work_on()
        else:
            self._watch()

    def _work_on(self) -> None:
        """Do what is due, until nothing is."""
        try:
            while self._work(self._io):
                pass
        finally:
            with self._lock:
                self._workers -= 1
        self._wake()

    def _work(self, io: Io) -> bool:
        """Try one item in this thread; False if none may be tried now."""
        item = self.take()
        if item is None:
            return False
        self._watch()
        run(self.attempt(io, item))
        return True

    def _after_bug(self, item: Item[Work], error: Exception) -> Step:
        """Log an exception of some work; try it again, but not for ever."""
        logger.error("pending work %s failed: %s: %s", item.key, type(error).__name__, error, exc_info=error)
        # A bug that raises each time would keep a worker busy for ever; the record stays for a version without it.
        if item.attempts + 1 >= BUGGY_ATTEMPTS:
            return None
        return Later(f"{type(error).__name__}: {error!s:.200}", outage=False)

    def _put_back(self, item: Item[Work], step: Step) -> None:
        now = time.monotonic()
        with self._lock:
            self._done += 1
            self._sent.discard(item.key)
            if not self._schedule.is_current(item):
                return  # a flush has taken it over
            self._untried.discard(item.key)
            if isinstance(step, Later):
                if step.rejected:
                    self._rejected.add(item.key)
                self._schedule.failed(
                    item, now, step.detail, outage=step.outage, floor=step.floor_s, longest=step.longest_s
                )
            elif step is None:
                self._schedule.drop(item)
            else:
                self._settled += step.settled
                self._schedule.settled(item, now)
            if self._records.shared is not None:
                self._claims.note_waiting(len(self._schedule.items))
            self._changed.notify_all()
        if isinstance(step, Later):
            self._wake()

    def server_responded(self) -> None:
        """Note that a request succeeded: the work that waits for the server is due now."""
        if self._scheduler.stalled:
            self._scheduler.resume()
        if not self._schedule.items:  # the common case costs no lock
            return
        with self._lock:
            something_is_due = self._schedule.server_responded(time.monotonic())
        if something_is_due:
            self._wake()

    # The end

    def flush(self, timeout_s: float, *, await_callers: bool = False) -> FlushReport:
        """Retry everything with growing pauses, in this thread too, until `timeout_s` has passed.

        It ends early when nothing is left that may still change: what the server rejected is tried once.
        With `await_callers` it waits for the settlements that are in progress in other threads. Its counts begin where
        those of the last flush ended, because a client settles in the background as soon as it starts. Flushes at the
        same time share them.
        """
        end = time.monotonic() + timeout_s
        # The requests of this thread end with the flush; those of other threads have their own times.
        io = self._until(end)
        self.ends.run(end)
        self._wait_for_scan(max(0.0, end - time.monotonic()))
        with self._lock:
            # A loop may be blocked by this flush, or have stopped: its items are tried here, under the same keys.
            for loop in self._schedule.loops():
                self._schedule.move(loop, busy=not loop.is_running())
            self._rejected.clear()
            self._schedule.expedite(time.monotonic())
        while (now := time.monotonic()) < end:
            if self._work(io):
                continue
            with self._changed:
                by_callers = self._records.in_progress() - self._schedule.items.keys()
                callers = self.ends.running or self._pools_settle() or (await_callers and bool(by_callers))
                if not callers and not self._worth_waiting(end):
                    break
                due = self._schedule.next_due()
                longest = LOOK_AGAIN_S if callers else end - now
                self._changed.wait(max(0.0, min(longest, end - now if due is None else due - now)))
        if self._records.shared is not None:
            self._records.shared.settle_finished()
        with self._lock:
            before, self._counts = self._counts, (self._settled, self._records.journal.quarantined)
            settled, quarantined = self._counts[0] - before[0], self._counts[1] - before[1]
            return FlushReport(settled, len(self.unsettled()), quarantined, self._scan_finished)

    def _worth_waiting(self, end: float) -> bool:
        """Return whether anything may still change until `end`."""
        in_loop = in_event_loop()
        for item in self._schedule:
            if item.busy and not (in_loop and item.loop is not None):  # the loop of this thread cannot continue
                return True
            if not item.busy and item.floor < end and item.key not in self._rejected:
                return True
        return False

    def decline(self) -> None:
        """Queue no more settlements whose callers do not wait: they send them themselves."""
        self._is_closing = True

    def close(self) -> None:
        """Start nothing more, save what no worker has saved, and end the waits for settlements that are left."""
        self._claims.stop()
        with self._lock:
            self._is_closing = self._closed = True
            self._changed.notify_all()
            # What no worker has saved is saved now: the next process settles it.
            left = [item.value for item in self._schedule]
        for work in left:
            if isinstance(work, Settle):
                self._leave_behind(work)

    def _leave_behind(self, work: Settle) -> None:
        if not work.is_saved:  # but an attempt that has begun may have saved an event in its place
            run(put(self._io, self._records.latest(work.record), work.guard))
        if work.guard is not None:
            work.guard.when_settled().set()  # this process does not continue the settlement, so no wait would end
