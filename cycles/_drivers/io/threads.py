"""What both drivers share of `Io`, and the blocking driver, whose operations never suspend.

It serves code that runs in threads, and the workers of the scheduler.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import queue
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from cycles._core.lease.planner import ExtendAttempt
from cycles._core.messages.outcome import Outcome
from cycles._core.messages.requests import Call
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import SettlementOutcome
from cycles._drivers.channel import Channel
from cycles._drivers.jitter import jitter
from cycles._drivers.reporting import Reporter
from cycles._drivers.work.queue import WorkQueue
from cycles._drivers.work.scheduler import Handle, WorkerPool
from cycles._flows.heartbeat import lose_if_over, report_late, send_heartbeat
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import BackgroundWork, Clock, Settings, Settle, Syncs, run
from cycles._flows.settle import put
from cycles._flows.signal import Signal
from cycles._journal.records import Records

T = TypeVar("T")

_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", None)  # Linux


def _now_ms() -> float:
    return time.monotonic() * 1000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _boot_ms() -> float | None:
    return None if _BOOTTIME is None else time.clock_gettime(_BOOTTIME) * 1000


CLOCK: Final = Clock(_now_ms, _wall_ms, _boot_ms, jitter)


class BaseIo:
    """The part of `Io` that is the same for threads and for event loops.

    Args:
        channel: Sends calls.
        records: Saves and deletes records; blocks on the file system.
        reporter: Gets the events.
        queue: Continues work without its caller.
    """

    clock = CLOCK

    def __init__(self, channel: Channel, records: Records, reporter: Reporter, queue: WorkQueue) -> None:
        self.parts: Final = (channel, records, reporter, queue)  # of the client, for the operations of each loop
        self._channel = channel
        self._records = records
        self._reporter = reporter
        self._queue = queue
        self.settings: Final = Settings(channel.base_url, channel.timeout_s, channel.max_retries, records.rejected_hint)
        # Bound here and not forwarded by methods, which would cost a call in each commit.
        self.is_enabled_for: Final = reporter.is_enabled_for
        self.report: Final = reporter.report
        self.check: Final = channel.wire.check
        self.begin_trace: Final = reporter.begin_trace
        self.unsettled: Final = queue.unsettled

    async def approve(self: Any, request: ReserveRequest) -> None:
        """Return if the reservation may be sent. Each driver has its `call_user` and `wait`."""
        approvals = self._channel.soft_limits.approvals
        if approvals is not None:
            await approvals.check(self, request)

    def finish_later(self, record: Record, result: SettlementOutcome | None) -> None:
        """End a record in a thread of the client; its caller was interrupted while it was ended."""
        self._queue.ends.add(lambda _: self._records.finish(record, result))


class BlockingIo(BaseIo):
    """`Io` for one client in one process; any number of threads use it at the same time.

    Args:
        heartbeats: The worker pool that sends heartbeats.
        parts: As for `BaseIo`.
    """

    def __init__(self, heartbeats: WorkerPool, *parts: *tuple[Channel, Records, Reporter, WorkQueue]) -> None:
        super().__init__(*parts)
        self._heartbeats = heartbeats
        self._ends_at_s = math.inf  # when attempts end at the latest

    async def send(self, call: Call) -> Outcome:
        """Make one attempt in this thread."""
        return await self._channel.send(call, None, self._ends_at_s)

    async def put(self, record: Record) -> PutResult:
        """Save the record in this thread."""
        return self._records.put(record)

    async def finish(self, record: Record, result: SettlementOutcome | None) -> None:
        """End the record in this thread."""
        self._records.finish(record, result)

    def hand_over(self, work: BackgroundWork, *, now: bool) -> bool:
        """Continue some work in a thread of the client. What an interrupted caller has not saved is saved here."""
        try:
            # In an outage it may be long until a worker saves it.
            if isinstance(work, Settle) and not work.is_saved and work.detail is None:
                run(put(self, self._records.latest(work.record), work.guard))
        finally:
            is_taken = self._queue.hand_over(work, now=now)
        return is_taken

    async def ensure_journal(self) -> None:
        """Settle what is to be charged first, and check the journal's store, in this thread."""
        if not self._queue.may_reserve:
            self._queue.settle_sent()
        if self._records.shared is not None:
            self._records.shared.ensure_available()

    async def pending(self, reservation_id: str) -> Record | None:
        """Return the record that the queue has under this id."""
        return self._queue.record(reservation_id)

    async def call_user(self, function: Callable[[T], Any], argument: T) -> Any:
        """Call a function of the user in this thread; a coroutine function runs in an event loop of a new one."""
        # An awaitable shows itself only when the function has been called: a plain one may return a coroutine.
        result = function(argument)
        if not inspect.isawaitable(result):
            return result
        from cycles._drivers.in_thread import run_coroutine  # late: it loads asyncio

        return run_coroutine(result)

    async def run(self, work: Callable[[], T]) -> T:
        """Call a function in this thread."""
        return work()

    async def sync(self, log: Syncs) -> None:
        """Sync the log in this thread."""
        log.sync()

    async def wait(self, signal: Signal, timeout_s: float | None = None) -> bool:
        """Wait in this thread; a KeyboardInterrupt ends it."""
        if not signal.is_set:
            # A signal handler may set the signal at any point. `threading.Event` has a lock that it could meet.
            woken: queue.SimpleQueue[None] = queue.SimpleQueue()
            wake = partial(woken.put, None)
            signal.on_set(wake)
            try:
                with contextlib.suppress(queue.Empty):
                    woken.get(timeout=None if timeout_s is None else max(0.0, timeout_s))
            finally:
                signal.drop(wake)
        return signal.is_set

    def schedule(self, heartbeat: Heartbeat) -> None:
        """Let the scheduler send the next extend when it is due."""
        step = heartbeat.step
        if isinstance(step, ExtendAttempt):  # else another thread has stopped the heartbeat in the meantime
            job = partial(self._send_heartbeat, heartbeat, step.due_ms)
            scheduler = self._heartbeats.scheduler
            heartbeat.set_timer(scheduler.at(step.due_ms / 1000, job, self._heartbeats))
            # No timer runs then: the guard compares the clock itself (`see_lease`), and this report says so.
            if scheduler.short_of_threads:
                report_late(self, heartbeat)

    def see_lease(self, heartbeat: Heartbeat | None) -> None:
        """Report the loss of a lease that has ended because the scheduler cannot start the thread that extends it."""
        if heartbeat is not None and isinstance(heartbeat.timer, Handle):
            self._heartbeats.scheduler.resume()
            lose_if_over(self, heartbeat)

    def until(self, ends_at_s: float) -> BlockingIo:
        """Return the same operations, whose attempts end at `ends_at_s` (monotonic seconds) at the latest."""
        # A flush has a time in which all its requests must end, and other threads have not.
        limited = copy.copy(self)
        limited._ends_at_s = ends_at_s
        return limited

    def _send_heartbeat(self, heartbeat: Heartbeat, due_ms: float) -> None:
        self._reporter.note_heartbeat_delay(heartbeat, due_ms, self.clock.now_ms(), blocked_loop=False)
        run(send_heartbeat(self, heartbeat))
