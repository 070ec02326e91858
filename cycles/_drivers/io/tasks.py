"""The asyncio driver: operations that await, for the tasks of one event loop.

Theory of operation. A flow runs in the caller's own task, and no task is made for it. `send` awaits the connections of
this loop. Everything that blocks on the disk or on a store runs on the journal's thread (`_writer`), and the task waits
for it: after a commit has returned, its file is gone. Nothing here has a lock: all state belongs to the loop's thread.

*A cancelled caller.* The cancellation is raised at an await of its flow. The flow hands over what it has begun, with
the key that it had, and lets the error pass. `hand_over` gives that to a task of this client, notes it in
`_left_behind`, and `to_the_end` lets the caller wait for it for `SETTLE_WAIT_S`, so that the usual case is settled when
the caller's `CancelledError` arrives. `hand_over` and `to_the_end` run in one task without an await between them, so no
other caller can take that note.

*Repeated cancellation.* `asyncio.timeout` cancels once, `Task.cancel` as often as it is called, and a cancel scope of
anyio at every await until its block has ended. While the caller waits, further cancellations are swallowed: the first
one is raised at the end anyway, and the wait is short. A scope would make that wait spin, so it is shielded from
scopes, if anyio is loaded.

*A loop that ends while a task sends.* `asyncio.run` cancels all tasks, those of this client too. The worker that is
interrupted puts its item back for the threads (`work/queue.py`). A task that never took its first step is closed; its
end is counted in a callback, which passes the queue of the loop on. A caller that is closed by the garbage collector
has no loop at all: `_is_running` finds out, and the threads get the work. A task of the client that is cancelled hands
over to the threads and not to another task, which the ending loop would never run.

*Heartbeats.* Until an extend is due it is a timer of the loop. When the loop shuts its generators down, `_loop_end` is
closed: the leases that still live go to the scheduler's threads (`adopt`), because their guards may have left the loop,
or their settlements are pending.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import sys
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Final, TypeVar

from cycles._core.lease.planner import ExtendAttempt
from cycles._core.messages.outcome import Outcome
from cycles._core.messages.requests import Call
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import SettlementOutcome
from cycles._drivers.in_thread import call_in_thread
from cycles._drivers.io.threads import BaseIo, BlockingIo
from cycles._drivers.journal.loop_writer import LoopWriter
from cycles._drivers.work.loop_workers import LoopWorkers
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat import adopt, send_heartbeat
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import BackgroundWork, Settle, Syncs
from cycles._flows.signal import Signal
from cycles._http.running_loop import run_to_first_yield, wake

T = TypeVar("T")

HEARTBEATS_IN_FLIGHT: Final = 32  # more would wait for each other's connections, which the planner would count as rtt
SETTLE_WAIT_S: Final = 0.5  # how long a cancelled caller waits for its settlement; then that continues alone


class TaskIo(BaseIo):
    """`Io` for one client on one event loop.

    Args:
        blocking: The operations of threads. They renew the leases of settlements that outlive the loop.
        writer: Does the file work of the loop.
        loop: The event loop.
    """

    def __init__(self, blocking: BlockingIo, writer: LoopWriter | BlockingIo, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(*blocking.parts)
        self._blocking = blocking
        self._writer = writer
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._left_behind: asyncio.Future[None] | None = None  # of what the last cancelled caller began
        self._gate = asyncio.Semaphore(HEARTBEATS_IN_FLIGHT)
        self._heartbeats: weakref.WeakSet[Heartbeat] = weakref.WeakSet()  # those that this loop sends
        self._loop_end: AsyncGenerator[None, None] | None = None
        self._workers = LoopWorkers(self._queue, self, loop, self.start)

    async def send(self, call: Call) -> Outcome:
        """Make one attempt on this loop."""
        return await self._channel.send(call, self._loop)

    async def put(self, record: Record) -> PutResult:
        """Save the record on the journal's thread."""
        return await self._writer.put(record)

    async def finish(self, record: Record, result: SettlementOutcome | None) -> None:
        """End the record on the journal's thread."""
        await self._writer.finish(record, result)

    async def ensure_journal(self) -> None:
        """Settle what is to be charged first in a thread, and check the journal's store on the journal's thread."""
        # In a thread: it sends requests and reads files, for as long as a flush may take.
        if not self._queue.may_reserve:
            await call_in_thread(self._queue.settle_sent)
        if self._records.shared is not None and self._records.shared.refuses:
            await self._writer.run(self._records.shared.ensure_available)

    async def call_user(self, function: Callable[[T], Any], argument: T) -> Any:
        """Await a coroutine function of the user; run a function in a thread, so that the loop continues."""
        if any(inspect.iscoroutinefunction(each) for each in (function, type(function).__call__)):
            return await function(argument)
        context = contextvars.copy_context()
        result: Any = await call_in_thread(lambda: context.run(function, argument))
        return await result if inspect.isawaitable(result) else result

    async def pending(self, reservation_id: str) -> Record | None:
        """Return the record that the queue has under this id, read on the journal's thread."""
        if not self._queue.is_pending(reservation_id):
            return None
        record: Record | None = await self._writer.run(partial(self._queue.record, reservation_id))
        return record

    async def sync(self, log: Syncs) -> None:
        """Sync the log on the journal's thread."""
        await self._writer.run(log.sync)

    async def wait(self, signal: Signal, timeout_s: float | None = None) -> bool:
        """Wait on this loop; a cancellation ends it."""
        if not signal.is_set:
            done = self._loop.create_future()
            notify = partial(wake, self._loop, done)
            signal.on_set(notify)
            try:
                await asyncio.wait([done], timeout=timeout_s)
            finally:
                signal.drop(notify)
        return signal.is_set

    def hand_over(self, work: BackgroundWork, *, now: bool) -> bool:
        """Continue some work: now in a task of the client on this loop; later, or if the loop ends, in a thread."""
        if not now or not self._is_running() or asyncio.current_task() in self._tasks:
            return self._queue.hand_over(work, now=now)
        if not isinstance(work, Settle) or not work.is_saved:  # its caller was cancelled, and waits for it a moment
            self._left_behind = self._workers.done(work)
        return self._workers.hand_over(work)

    def schedule(self, heartbeat: Heartbeat) -> None:
        """Send the next extend when it is due: a timer until then, a task for the attempt."""
        # Its guard has ended, and this loop may end before the settlement does.
        if heartbeat.adopted:
            self._blocking.schedule(heartbeat)
            return
        step = heartbeat.step
        if isinstance(step, ExtendAttempt):
            if self._loop_end is None:
                self._loop_end = self._until_the_loop_ends()
                run_to_first_yield(self._loop_end)
            self._heartbeats.add(heartbeat)
            delay = step.due_ms / 1000 - time.monotonic()
            heartbeat.set_timer(self._loop.call_later(max(0.0, delay), self._start_heartbeat, heartbeat, step.due_ms))

    async def to_the_end(self, flow: Coroutine[Any, Any, T]) -> T:
        """Run a flow in the caller's task; if the caller is cancelled, wait a moment for what continues."""
        try:
            return await flow
        except asyncio.CancelledError:
            left, self._left_behind = self._left_behind, None  # set, if at all, just before this was raised
            if left is not None:
                await self._wait_for(left, SETTLE_WAIT_S)
            raise

    def cancel_block_on_loss(self, guard: GuardState) -> None:
        """Cancel the running task when the lease of `guard` is lost, until `guard.cancellation` is ended."""
        BlockCancellation(guard, self._loop)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the tasks that settle without their callers. Heartbeats are none: the close ends them."""
        if self._workers.running:
            await asyncio.wait(set(self._workers.running), timeout=timeout_s)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task of the client and keep it: the loop keeps only weak references."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _is_running(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """Pass live leases to the scheduler when the loop is shut down, which closes the generators it has seen."""
        try:
            yield
        finally:
            for heartbeat in list(self._heartbeats):
                adopt(self._blocking, heartbeat)

    async def _wait_for(self, left: asyncio.Future[None], seconds: float) -> None:
        end = time.monotonic() + seconds
        with _shielded():
            while not left.done() and (left_s := end - time.monotonic()) > 0:
                try:
                    await asyncio.wait([left], timeout=left_s)
                except asyncio.CancelledError:
                    continue  # cancelled again; the first cancellation is raised when we are done

    def _start_heartbeat(self, heartbeat: Heartbeat, due_ms: float) -> None:
        heartbeat.timer = None
        self._reporter.note_heartbeat_delay(heartbeat, due_ms, self.clock.now_ms(), blocked_loop=True)
        self.start(self._send_heartbeat(heartbeat))

    async def _send_heartbeat(self, heartbeat: Heartbeat) -> None:
        try:
            async with self._gate:
                await send_heartbeat(self, heartbeat)
        except asyncio.CancelledError:  # the loop ends, its guard or its pending settlement may not
            adopt(self._blocking, heartbeat)
            raise


class BlockCancellation:
    """Cancels the task of a block whose lease is lost (policy ``cancel``), while the block runs."""

    def __init__(self, guard: GuardState, loop: asyncio.AbstractEventLoop) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert guard.heartbeat is not None
        self._task = task
        self._guard = guard
        self._heartbeat = guard.heartbeat
        self._cancelling = task.cancelling()
        self._loop = loop
        guard.cancellation = self
        if self._heartbeat.lost:
            self._cancel()

    def end(self, raised: BaseException | None) -> BaseException | None:
        """End with the block. Returns the LeaseLostError if `raised` is our cancellation, and not another one."""
        # First: a loss that is reported from now on must not cancel what comes after the block.
        self._guard.cancellation = None
        if not self._guard.cancelled_by_lease:
            return None
        # The task may have been cancelled by other code as well; that cancellation must continue.
        others = self._task.uncancel() > self._cancelling
        if others or not isinstance(raised, asyncio.CancelledError):
            return None
        return self._heartbeat.lost_error()

    def lease_lost(self) -> None:
        """Cancel the task, from any thread."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        guard = self._guard
        if guard.cancellation is not None and not guard.finalized and not guard.cancelled_by_lease:
            guard.cancelled_by_lease = True
            self._task.cancel("cycles: the lease was lost")


@contextlib.contextmanager
def _shielded() -> Iterator[None]:
    """Shield from an anyio cancel scope, which would cancel at each await and make the loop spin."""
    anyio = sys.modules.get("anyio")
    if anyio is None:
        yield
        return
    with anyio.CancelScope(shield=True):
        yield
